"""Compare an embedding with its masked copies': ``(h (B, D), h_masked (M, B, D)) -> (M, B)``.

A sibling of masks, fills and estimators. RELAX compares by the cosine (Wickstrom et al., IJCV 2023,
equation 2); any callable of the form above can stand in. `SimilarityForward` and `SimilarityModel`
are the similarity as a network, for Captum's and Quantus's tools.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from relax_quantus.base import checks
from relax_quantus.base.networks import checked_embedding, exact, neutral_torch
from relax_quantus.base.registry import Registry
from relax_quantus.errors import ArgumentTypeError, EncoderError, ShapeError

Similarity = Callable[[Tensor, Tensor], Tensor]


def cosine(h: Tensor, h_masked: Tensor) -> Tensor:
    """Compute the cosine of each masked embedding with the reference.

    Parameters
    ----------
    h
        ``(B, D)``, no row zero.
    h_masked
        ``(M, B, D)``. A row of zeros has no direction: its similarity is 0.

    Returns
    -------
    Tensor
        ``(M, B)`` in [-1, 1], of the embeddings' type but at least float32; NaN where an embedding
        is not finite.

    Examples
    --------
    >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]]))
    tensor([[0.7071],
            [0.0000]])
    """
    dtype = torch.promote_types(h_masked.dtype, torch.float32)
    return (directions(h_masked) * directions(h)).sum(-1).clamp(-1, 1).to(dtype)


def directions(h: Tensor) -> Tensor:
    """Scale vectors ``(..., D)`` to length 1 in float64, safe from overflow; zeros stay."""
    h = h.double()
    largest = h.detach().abs().amax(dim=-1, keepdim=True)
    h = h / torch.where(largest == 0, 1.0, largest)
    norm = h.norm(dim=-1, keepdim=True)
    return h / torch.where(norm == 0, 1.0, norm)


@dataclass(frozen=True, eq=False)
class CentredCosine:
    """Compare by the cosine after a corpus's mean embedding is taken from both.

    Parameters
    ----------
    mean
        ``(D,)``, the mean embedding of a corpus.
    """

    mean: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.mean, Tensor) or self.mean.ndim != 1:
            checks.refuse(
                "mean", "a corpus mean of shape (D,)", self.mean, "average embeddings over the corpus", ShapeError
            )
        checks.finite("mean", self.mean)

    def __call__(self, h: Tensor, h_masked: Tensor) -> Tensor:
        """Compare ``(B, D)`` and ``(M, B, D)``, giving ``(M, B)``.

        A masked embedding that is the mean itself has similarity 0; such a reference is refused.
        """
        if self.mean.shape != h.shape[1:]:
            checks.refuse(
                "mean", f"a corpus mean of shape {tuple(h.shape[1:])}", self.mean, "use this encoder's", ShapeError
            )
        mean = self.mean.to(h)
        centred = h - mean
        if bool((centred == 0).all(dim=1).any()):
            remedy = "nothing is left to compare with; use another reference or the plain cosine"
            checks.refuse(
                "reference", "an embedding other than the corpus mean", "the mean itself", remedy, EncoderError
            )
        return cosine(centred, h_masked - mean)


def dot(h: Tensor, h_masked: Tensor) -> Tensor:
    """Compute the inner product, ``(M, B)``, which also counts the strength of the response."""
    return (h_masked * h).sum(-1)


def negative_euclidean(h: Tensor, h_masked: Tensor) -> Tensor:
    """Compute minus the Euclidean distance, ``(M, B)``, at most 0."""
    distance: Tensor = torch.linalg.vector_norm(h_masked - h, dim=-1)
    return -distance


def is_directional(similarity: object) -> bool:
    """Whether a similarity compares directions, which a zero embedding and a scalar do not have."""
    return similarity is cosine or isinstance(similarity, CentredCosine)


SIMILARITIES: Registry[Similarity] = Registry("similarity", "similarity")
SIMILARITIES.register("cosine", lambda: cosine, "cosine of the angle between embeddings, RELAX's own")
SIMILARITIES.register("centred_cosine", CentredCosine, "cosine after a corpus mean (mean=) is removed")
SIMILARITIES.register("dot", lambda: dot, "inner product, counts the strength of the response too")
SIMILARITIES.register("negative_euclidean", lambda: negative_euclidean, "minus the Euclidean distance")


def get(name: str, **parameters: Tensor) -> Similarity:
    """Build a similarity by name; ``"centred_cosine"`` needs ``mean=``, the corpus mean ``(D,)``.

    Examples
    --------
    >>> get("dot")(torch.ones(1, 3), torch.ones(2, 1, 3))
    tensor([[3.],
            [3.]])
    """
    return SIMILARITIES.get(name, **parameters)


class SimilarityForward(nn.Module):
    """Give each example's similarity as a scalar, for Captum's `infidelity` and the like.

    Captum's metrics expand a batch in an order of their own, so the reference has to travel as an
    additional forward argument, which they expand alike; closing over it would compare each example
    with another's reference.

    Parameters
    ----------
    encoder
        ``(n, ...) -> (n, D)``.
    similarity
        As in `RELAX`.

    Examples
    --------
    >>> import torch
    >>> encoder = nn.Flatten()
    >>> x = torch.rand(2, 1, 4, 4)
    >>> SimilarityForward(encoder)(x, encoder(x))
    tensor([1., 1.])
    """

    def __init__(self, encoder: Callable[..., Tensor], similarity: str | Similarity = "cosine") -> None:
        super().__init__()
        self.encoder = encoder
        self.similarity: Similarity = SIMILARITIES.resolve(similarity)

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        """Compute the similarity ``(n,)`` of inputs ``(n, ...)`` to embeddings ``(n, D)``."""
        h = exact(checked_embedding(self.encoder(x), len(x), nonzero=False))
        with neutral_torch(gradients=True):
            return self.similarity(reference.to(h.dtype), h[None])[0]


class SimilarityModel(nn.Module):
    """Cosine similarity of an example's embedding to each of n anchors: ``(B, 1, T, F) -> (B, n)``.

    Lets Quantus, which knows class scores only, measure explanations of embeddings: let the anchors
    be the embeddings of the very examples, or of what they should resemble, and `y_batch` the index
    of each example's own anchor. Pass ``softmax=False`` to the metrics, some of which would flatten
    the cosines otherwise; only EfficientMPRT, which takes an entropy of the scores, needs
    ``softmax=True``.

    Under MPRT the encoder is re-initialised and the anchors are not, so similarities then mean
    nothing; `explain_func` is not misled, as it explains `embed` and takes the example's own, new
    embedding for its reference.

    Parameters
    ----------
    encoder
        Any callable ``(n, 1, T, F) -> (n, D)``; shared, not copied. ``training`` starts as the
        encoder's.
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
            checks.refuse(
                "encoder", "a callable (n, 1, T, F) -> (n, D)", encoder, "pass the encoder itself", ArgumentTypeError
            )
        anchors = torch.as_tensor(anchors).detach().clone()
        anchors = anchors if anchors.is_floating_point() else anchors.float()
        if anchors.ndim != 2 or 0 in anchors.shape:
            checks.refuse("anchors", "at least one embedding, shape (n, D)", anchors, "stack them", ShapeError)
        checks.finite("anchors", anchors)
        zero = (anchors == 0).all(dim=1).nonzero().flatten().tolist()
        if zero:
            checks.refuse("anchors", "embeddings that are not zero", f"zeros only in rows {zero}", "leave those out")
        self.encoder = encoder
        self.register_buffer("anchors", anchors)
        self.training = isinstance(encoder, nn.Module) and getattr(encoder, "training", False)

    def embed(self, x: Tensor) -> Tensor:
        """Embed ``(B, 1, T, F) -> (B, D)`` with the encoder."""
        h = self.encoder(x)
        size = self.anchors.shape[1]
        if not isinstance(h, Tensor) or h.shape != (len(x), size):
            remedy = "use the encoder that made the anchors"
            checks.refuse("encoder", f"embeddings of shape ({len(x)}, {size})", h, remedy, EncoderError)
        return h

    def forward(self, x: Tensor) -> Tensor:
        """Compute cosines ``(B, n)`` in [-1, 1], at least float32; 0 for an embedding of zeros."""
        h, anchors = self.embed(x), exact(self.anchors)
        with neutral_torch(gradients=True):
            return nn.functional.normalize(h.to(anchors.dtype), dim=1) @ nn.functional.normalize(anchors, dim=1).T
