"""`SimilarityForward`: the similarity game as a scalar-per-example forward, for Captum's metrics and gradient methods."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from relax_quantus.base.torch_state import exact, neutral_torch
from relax_quantus.relax.references import checked_embedding
from relax_quantus.relax.similarity import SIMILARITIES, Similarity


class SimilarityForward(nn.Module):
    """The similarity game as a scalar-per-example forward, for Captum's `infidelity` and for attributions that need one.

    Captum's metrics expand a batch in an order of their own, so the reference has to travel as an additional forward argument, which they
    expand alike; closing over it would compare each example with another's reference.

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
        """Similarity ``(n,)`` of inputs ``(n, ...)`` to embeddings ``(n, D)``."""
        h = exact(checked_embedding(self.encoder(x), len(x), nonzero=False))
        with neutral_torch(gradients=True):
            return self.similarity(reference.to(h.dtype), h[None])[0]
