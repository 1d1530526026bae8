"""Masks -> what the surrogate's kernel compares.

Each factor of a mask is averaged over bins, and each bin weighted by how much the example changes there between kept and replaced: a mask's
effect grows with what it changes. A factor that varies on both axes gets products of neighbouring bins too, as a convolutional encoder sees
neighbours together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from relax_quantus.relax.estimators.cell_effects import CellLattice, averaging
from relax_quantus.relax.estimators.kernel_ridge import Features, Mixed, Pairs

NEIGHBOURS = (3, 2)
QUADRATIC = 0.3


class Lattice(CellLattice, Protocol):
    """The distribution of one factor of the masks as weighted states, as mask strategies hand it out."""

    @property
    def sampled(self) -> bool:
        """Whether the states are a sample of the distribution, not all of it."""
        ...

    def parts(self, states: int) -> Iterator[Self]:
        """Cut into parts of about so many states, over which expectations add up."""
        ...


class FactorFeatures:
    """Features of one factor.

    Parameters
    ----------
    lattice
        The factor's distribution.
    contrast
        ``(B, T, F)``: how much each entry changes between kept and replaced.
    """

    def __init__(self, lattice: Lattice, contrast: Tensor) -> None:
        self.both = lattice.frames > 1 and lattice.bands > 1
        sizes, cells = (lattice.frames, lattice.bands), lattice.cell_counts
        counts = [bins_of(size, count, self.both) for size, count in zip(sizes, cells, strict=True)]
        self.over_time, self.over_frequency = (
            averaging(count, size).to(contrast) for count, size in zip(counts, sizes, strict=True)
        )
        energy = contrast.square()
        energy = energy.mean(1, keepdim=True) if lattice.frames == 1 else energy
        energy = energy.mean(2, keepdim=True) if lattice.bands == 1 else energy
        weights = (self.over_time @ energy @ self.over_frequency.T).flatten(1).sqrt()
        share = lattice.weights.reshape(-1, 1)
        states = lattice.values(self.over_time, self.over_frequency)
        self.mean = (share * states).sum(0)
        self.states = states - self.mean
        self.weights = per_unit_variance(weights, (share * self.states.square()).sum(0))
        if self.both:
            self.first, self.second, window = (t.to(contrast.device) for t in neighbours(counts[0], counts[1]))
            self.mean_product = self._moment(self.states, share)
            weights = self.weights[:, self.first] * self.weights[:, self.second] * window
            variance = (self._moment(self.states.square(), share) - self.mean_product.square()).clamp_min(0)
            self.product_weights = per_unit_variance(weights, variance) * math.sqrt(QUADRATIC)

    def averages(self, factor: Tensor) -> Tensor:
        """Average ``(n, T or 1, F or 1)`` over the bins, minus its expectation: ``(n, g)``."""
        return (self.over_time @ factor.to(self.over_time) @ self.over_frequency.T).flatten(1) - self.mean

    def weighted(self, averages: Tensor, example: int) -> Features:
        """Features of masks with these averages for one example."""
        single = averages * self.weights[example]
        if not self.both:
            return single
        pairs = Pairs(self.first, self.second, self.mean_product, self.product_weights[example])
        return Mixed(single, averages, pairs)

    def of_states(self, lattice: Lattice) -> Tensor:
        """Averages of a lattice's states, ``(states, g)``."""
        return lattice.values(self.over_time, self.over_frequency) - self.mean

    def _moment(self, values: Tensor, share: Tensor) -> Tensor:
        """Expectation of the products of pairs of values ``(states, g)``, ``(h,)``."""
        return ((share * values).T @ values)[self.first, self.second]


class MaskFeatures:
    """Features of masks that are products of factors; parameters as in `FactorFeatures`, with a lattice a factor."""

    def __init__(self, lattices: Sequence[Lattice], contrast: Tensor) -> None:
        self.factors = [FactorFeatures(lattice, contrast) for lattice in lattices]

    def averages(self, factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Average factors ``(n, T or 1, F or 1)`` over their bins: ``(n, g_k)`` each."""
        return tuple(own.averages(factor) for own, factor in zip(self.factors, factors, strict=True))

    def weighted(self, averages: Sequence[Tensor], example: int) -> tuple[Features, ...]:
        """Features for one example; their total variance over the masks' distribution is 1 a factor and kind."""
        return tuple(own.weighted(a, example) for own, a in zip(self.factors, averages, strict=True))

    @property
    def states(self) -> list[Tensor]:
        """Averages of the states of the lattices given at first."""
        return [own.states for own in self.factors]

    def of_states(self, lattices: Sequence[Lattice]) -> list[Tensor]:
        """Averages of other lattices' states, ``(states, g_k)`` each."""
        return [own.of_states(lattice) for own, lattice in zip(self.factors, lattices, strict=True)]


def bins_of(size: int, cells: int, both: bool) -> int:
    """Bins of an axis: three a cell for a factor that varies on one axis, three for two cells on each of two."""
    return min(size, math.ceil(1.5 * cells) if both else 3 * cells)


def per_unit_variance(weights: Tensor, variance: Tensor) -> Tensor:
    """Scale weights ``(B, g)`` so that weighted features of these variances ``(g,)`` have a total variance of 1; zeros stay."""
    total = (weights.square() * variance).sum(1, keepdim=True).sqrt()
    return torch.where(total > 0, weights / total, torch.zeros_like(weights))


def neighbours(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of bins at most two rows and one column apart, each once, and the square root of how many 3 x 2 windows hold both.

    Returns
    -------
    first, second : Tensor
        Flat indices of the bins, ``(pairs,)``; a bin is paired with itself too.
    window : Tensor
        ``(pairs,)``: the product of such features over masks is the sum over all windows of the squared inner product within each.
    """
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    first, second, window = [], [], []
    for down in range(min(NEIGHBOURS[0], rows)):
        for right in range(1 - NEIGHBOURS[1], NEIGHBOURS[1]):
            if down == 0 and right < 0:
                continue
            inside = (row + down < rows) & (column + right >= 0) & (column + right < columns)
            start = (row * columns + column)[inside]
            first.append(start)
            second.append(start + down * columns + right)
            overlap = (1 - down / NEIGHBOURS[0]) * (1 - abs(right) / NEIGHBOURS[1]) * (1 if down == right == 0 else 2)
            window.append(torch.full((len(start),), math.sqrt(overlap), dtype=torch.float32))
    return torch.cat(first), torch.cat(second), torch.cat(window)
