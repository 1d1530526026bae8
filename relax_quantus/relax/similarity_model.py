"""`SimilarityModel`: an encoder's embeddings as scores, for tools that know class scores only.

Log-mel examples and anchor embeddings enter, cosines ``(B, n)`` leave. Stands beside the classifier, where there are
no classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from relax_quantus.base.checks import finite, refuse
from relax_quantus.base.torch_state import exact, neutral_torch
from relax_quantus.errors import ArgumentTypeError, EncoderError, ShapeError


class SimilarityModel(nn.Module):
    """Cosine similarity of an example's embedding to each of n anchors: ``(B, 1, T, F) -> (B, n)``.

    Lets Quantus, which knows class scores only, measure explanations of embeddings: let the anchors be the embeddings
    of the very examples, or of what they should resemble, and `y_batch` the index of each example's own anchor. Pass
    ``softmax=False`` to the metrics, some of which would flatten the cosines otherwise; only EfficientMPRT, which takes
    an entropy of the scores, needs ``softmax=True``.

    Under MPRT the encoder is re-initialised and the anchors are not, so similarities then mean nothing;
    `explain_func` is not misled, as it explains `embed` and takes the example's own, new embedding for its reference.

    Parameters
    ----------
    encoder
        Any callable ``(n, 1, T, F) -> (n, D)``; shared, not copied. ``training`` starts as the encoder's.
    anchors
        ``(n, D)``, none zero; copied, detached, kept as a buffer.

    Raises
    ------
    ShapeError, ArgumentError
        Unless the anchors are finite, non-zero ``(n, D)``.

    Examples
    --------
    >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(96 * 64, 8)).eval()
    >>> x = torch.randn(3, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    >>> model = SimilarityModel(encoder, encoder(x))
    >>> model(x).shape, model(x).diagonal().detach().round().tolist()
    (torch.Size([3, 3]), [1.0, 1.0, 1.0])
    """

    anchors: Tensor

    @neutral_torch()
    def __init__(self, encoder: Callable[[Tensor], Tensor], anchors: Tensor) -> None:
        super().__init__()
        if not callable(encoder):
            refuse(
                "encoder", "a callable (n, 1, T, F) -> (n, D)", encoder, "pass the encoder itself", ArgumentTypeError
            )
        anchors = torch.as_tensor(anchors).detach().clone()
        anchors = anchors if anchors.is_floating_point() else anchors.float()
        if anchors.ndim != 2 or 0 in anchors.shape:
            refuse("anchors", "at least one embedding, shape (n, D)", anchors, "stack them", ShapeError)
        finite("anchors", anchors)
        zero = (anchors == 0).all(dim=1).nonzero().flatten().tolist()
        if zero:
            refuse("anchors", "embeddings that are not zero", f"zeros only in rows {zero}", "leave those out")
        self.encoder = encoder
        self.register_buffer("anchors", anchors)
        self.training = isinstance(encoder, nn.Module) and getattr(encoder, "training", False)

    def embed(self, x: Tensor) -> Tensor:
        """Embed ``(B, 1, T, F) -> (B, D)`` with the encoder."""
        h = self.encoder(x)
        size = self.anchors.shape[1]
        if not isinstance(h, Tensor) or h.shape != (len(x), size):
            remedy = "use the encoder that made the anchors"
            refuse("encoder", f"embeddings of shape ({len(x)}, {size})", h, remedy, EncoderError)
        return h

    def forward(self, x: Tensor) -> Tensor:
        """Cosines ``(B, n)`` in [-1, 1], at least float32; 0 for an embedding of zeros."""
        h, anchors = self.embed(x), exact(self.anchors)
        with neutral_torch(gradients=True):
            return nn.functional.normalize(h.to(anchors.dtype), dim=1) @ nn.functional.normalize(anchors, dim=1).T
