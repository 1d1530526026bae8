"""Similarity of an embedding and its masked copies: ``(h (B, D), h_masked (M, B, D)) -> (M, B)``.

A sibling of masks, fills and estimators. RELAX compares by the cosine (Wickstrom et al., IJCV 2023, equation 2); any callable of the form
above can stand in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.registry import Registry
from relax_quantus.errors import EncoderError, ShapeError

Similarity = Callable[[Tensor, Tensor], Tensor]


def cosine(h: Tensor, h_masked: Tensor) -> Tensor:
    """Cosine of each masked embedding with the reference.

    Parameters
    ----------
    h
        ``(B, D)``, no row zero.
    h_masked
        ``(M, B, D)``. A row of zeros has no direction: its similarity is 0.

    Returns
    -------
    Tensor
        ``(M, B)`` in [-1, 1], of the embeddings' type but at least float32; NaN where an embedding is not finite.

    Examples
    --------
    >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]]))
    tensor([[0.7071],
            [0.0000]])
    """
    dtype = torch.promote_types(h_masked.dtype, torch.float32)
    return (directions(h_masked) * directions(h)).sum(-1).clamp(-1, 1).to(dtype)


def directions(h: Tensor) -> Tensor:
    """Scale vectors ``(..., D)`` to length 1, in float64 and safe from over- and underflow; zeros stay zeros."""
    h = h.double()
    largest = h.detach().abs().amax(dim=-1, keepdim=True)
    h = h / torch.where(largest == 0, 1.0, largest)
    norm = h.norm(dim=-1, keepdim=True)
    return h / torch.where(norm == 0, 1.0, norm)


@dataclass(frozen=True, eq=False)
class CentredCosine:
    """Cosine after a corpus' mean embedding is taken from both: what is left when what all recordings share is removed.

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
        """``(B, D), (M, B, D) -> (M, B)``; a masked embedding that is the mean itself has similarity 0, a reference is refused."""
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
    """Inner product, ``(M, B)``: similarity that also counts how strongly the encoder responds."""
    return (h_masked * h).sum(-1)


def negative_euclidean(h: Tensor, h_masked: Tensor) -> Tensor:
    """Minus the Euclidean distance, ``(M, B)``, at most 0."""
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
