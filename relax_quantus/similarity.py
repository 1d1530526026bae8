"""Similarity of an embedding and its masked copies: ``(h (B, D), h_masked (M, B, D)) -> (M, B)``.

A sibling of masks, fills and estimators. RELAX compares by the cosine (Wickstrom et al., IJCV 2023, equation 2); any callable of the form
above can stand in.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from relax_quantus.registry import Registry

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


SIMILARITIES: Registry[Similarity] = Registry("similarity", "similarity")
SIMILARITIES.register("cosine", lambda: cosine, "cosine of the angle between embeddings, RELAX's own")
