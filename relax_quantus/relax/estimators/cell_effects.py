"""Cell effects: what keeping one cell adds to the similarity, all other cells being equal.

An importance map correlates the similarity with each bin's mask. Bins whose masks go together share their importance: neighbours within a
cell, and with product masks whole rows and columns, which shows as crosses. The effects are the coefficients of the linear function of the
cells' mean mask values that fits the similarity best over the strategy's whole distribution of masks,

    beta = Cov(x, x)^-1 Cov(x, s),    Cov(M, s) = E[M] (R - E[s]),

where R is the importance and Cov(x, x) is known exactly. No mask is needed beyond those of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

SMALLEST = 1e-6


class CellLattice(Protocol):
    """What is asked of a factor's distribution; see `relax_quantus.relax.masks.lattice.Lattice`."""

    @property
    def frames(self) -> int:
        """Entries along time."""
        ...

    @property
    def bands(self) -> int:
        """Entries along frequency."""
        ...

    @property
    def cell_counts(self) -> tuple[int, int]:
        """Cells that span each axis."""
        ...

    @property
    def weights(self) -> Tensor:
        """Probabilities of the states."""
        ...

    def values(self, over_time: Tensor, over_frequency: Tensor) -> Tensor:
        """Apply ``(t, T)`` and ``(f, F)`` to every state's mask: ``(states, t * f)``."""
        ...

    def expectation(self, functions: Tensor) -> Tensor:
        """E[g M], ``(T, F, n)``, for functions ``(states, n)``."""
        ...


def averaging(bins: int, size: int) -> Tensor:
    """Matrix ``(bins, size)`` that averages an axis over equal bins, sharing entries that straddle two."""
    edges = torch.arange(bins + 1, dtype=torch.float64) * (size / bins)
    entry = torch.arange(size, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], entry + 1) - torch.maximum(edges[:-1, None], entry)
    return (overlap.clamp_min(0) * (bins / size)).float()


def cell_effects(lattices: Sequence[CellLattice], centred: Tensor) -> Tensor:
    """Effects from ``centred (B, T, F)``, importance minus mean similarity, of masks that are the lattices' product.

    Returns
    -------
    Tensor
        ``(B, T, F)`` float64, constant over each of the cells that span the axes without a shift: the change of the similarity as the cell
        goes from replaced to kept.
    """
    device, counts, sizes = centred.device, [1, 1], [1, 1]
    second = mean = torch.ones(1, 1, dtype=torch.float64, device=device)
    for lattice in lattices:
        count, size = lattice.cell_counts, (lattice.frames, lattice.bands)
        over_time, over_frequency = (averaging(c, s).to(device) for c, s in zip(count, size, strict=True))
        values, share = lattice.values(over_time, over_frequency).double(), lattice.weights.reshape(-1, 1).double()
        second = torch.kron(second, values.T @ (share * values))
        mean = mean * lattice.expectation(torch.ones_like(share).float())[..., 0].double()
        counts = [max(pair) for pair in zip(counts, count, strict=True)]
        sizes = [max(pair) for pair in zip(sizes, size, strict=True)]
    over_time, over_frequency = (averaging(c, s).to(device).double() for c, s in zip(counts, sizes, strict=True))
    cells = (over_time @ mean @ over_frequency.T).reshape(-1)
    covariance = second - torch.outer(cells, cells)
    with_similarity = (over_time @ (centred.double() * mean) @ over_frequency.T).flatten(1)
    effects: Tensor = torch.linalg.pinv(covariance, rtol=SMALLEST, hermitian=True) @ with_similarity.T
    where = [torch.arange(s, device=device) * c // s for c, s in zip(counts, sizes, strict=True)]
    return effects.T.reshape(-1, *counts)[:, where[0]][:, :, where[1]]
