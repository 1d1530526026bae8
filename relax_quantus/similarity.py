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
        ``(M, B)`` in [-1, 1]; NaN where an embedding is not finite.
    """
    h = h / h.norm(dim=-1, keepdim=True)
    norm = h_masked.norm(dim=-1)
    dot = (h_masked * h).sum(-1)
    return torch.where(norm == 0, torch.zeros_like(dot), (dot / norm).clamp(-1, 1))


SIMILARITIES: Registry[Similarity] = Registry("similarity", "similarity")
SIMILARITIES.register("cosine", lambda: cosine, "cosine of the angle between embeddings, RELAX's own")
