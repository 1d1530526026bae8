"""Regress similarities on masks by kernel ridge, with leave-one-out predictions in closed form.

Masks' features and similarities enter, a `Fit` leaves that predicts the similarity under any mask.
The learning part of `surrogate`.

The kernel is a product over a mask's independent factors. A factor that varies along one axis has a
Gaussian plus a constant, ``exp(-|z - z'|^2 / 2) + 0.3``, with features z scaled to unit total
variance: the constant lets effects of one factor alone be learnt from all masks. One that varies
along both has many more cells than can be learnt jointly; there the Gaussian has less weight and
`Mixed` features add a linear kernel on single and neighbouring cells. Leaving one mask out has a
closed form (Craven and Wahba, "Smoothing noisy data with spline functions", 1979): e_(-n) = alpha_n
/ (A^-1)_nn with A = K + lambda I and alpha = A^-1 y.

Features: each factor of a mask is averaged over bins, and each bin weighted by how much the example
changes there between kept and replaced: a mask's effect grows with what it changes. A factor that
varies on both axes gets products of neighbouring bins too, as a convolutional encoder sees
neighbours together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from relax_quantus.relax.bound_masks import Lattice

CONSTANT = 0.3
GAUSSIAN_BESIDE_LINEAR = 0.3
RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
RIDGE_MASKS = 256
FEWEST_MASKS = 32
ROWS_AT_ONCE = 128
"""Of matrices a pair of masks an entry, so that they stay in the cache."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Products of pairs of averages as features, (a_i a_j - centre) * weights.

    Parameters
    ----------
    first, second
        Indices i and j of the averages, ``(h,)`` each.
    centre, weights
        ``(h,)`` each.
    """

    first: Tensor
    second: Tensor
    centre: Tensor
    weights: Tensor

    def of(self, averages: Tensor) -> Tensor:
        """Compute features ``(n, h)`` of averages ``(n, g)``."""
        return (averages[:, self.first] * averages[:, self.second] - self.centre) * self.weights

    def combined(self, averages: Tensor, coefficients: Tensor) -> Tensor:
        """Compute ``self.of(averages) @ coefficients``, ``(n, d)``, without building a feature."""
        n, g, scaled = *averages.shape, self.weights[:, None] * coefficients
        forms = averages.new_zeros(g * g, scaled.shape[1]).index_add_(0, self.first * g + self.second, scaled)
        values = (averages @ forms.reshape(g, -1)).reshape(n, g, -1)
        return torch.einsum("ng,ngd->nd", averages, values) - self.centre @ scaled


@dataclass(frozen=True, eq=False)
class Mixed:
    """Features of a factor that varies on both axes.

    Parameters
    ----------
    gaussian
        ``(n, g)``: for the Gaussian.
    averages
        ``(n, g)``: of which `pairs` makes the others.
    pairs
        The linear kernel has these beside `gaussian`.
    """

    gaussian: Tensor
    averages: Tensor
    pairs: Pairs

    def __getitem__(self, rows: slice) -> Mixed:
        return Mixed(self.gaussian[rows], self.averages[rows], self.pairs)

    @cached_property
    def linear(self) -> Tensor:
        """Return the features of the linear kernel, ``(n, g + h)``."""
        return torch.cat([self.gaussian, self.pairs.of(self.averages)], dim=1)

    def combined(self, coefficients: Tensor) -> Tensor:
        """Compute ``self.linear @ coefficients``, ``(n, d)``."""
        single = self.gaussian.shape[1]
        return self.gaussian @ coefficients[:single] + self.pairs.combined(self.averages, coefficients[single:])


Features = Tensor | Mixed


@dataclass(frozen=True)
class Fit:
    """A fitted surrogate of ``d`` targets.

    Parameters
    ----------
    features
        Of the n masks it was fitted on, ``(n, g_k)`` a factor.
    coefficients
        ``(n, d)`` float64: the prediction is ``offset + kernel(mask, features) @ coefficients``.
    averaged
        ``(n, d)`` float64: the sum over the n fits that leave one mask out, minus n times
        `coefficients`: what tells their average from the whole fit.
    offset
        ``(d,)``.
    left_out
        ``(n, d)``: for each mask, its target minus the prediction of the fit without it.
    inflation
        Variance of a mean of ``left_out * mask`` over that of as many independent terms, for the
        first target: fits without n and without j have seen each other's mask, which correlates the
        two residuals.
    centred_inflation
        The same with mask / mean mask - 1 in the place of the mask: for the error of the centred
        map.
    """

    features: tuple[Features, ...]
    coefficients: Tensor
    averaged: Tensor
    offset: Tensor
    left_out: Tensor
    inflation: float
    centred_inflation: float

    def predict(self, features: tuple[Features, ...]) -> Tensor:
        """Predict ``(m, d)`` float64 for masks with these features."""
        return self.offset + predictor(self.features, self.coefficients.float())(features).double()

    def coefficients_over(self, count: int) -> Tensor:
        """Return the average's coefficients over `count` masks of the fits that predicted each.

        That is the fit without the mask, or the whole fit for masks that it is not fitted on.
        """
        return self.coefficients + self.averaged / count


def kernel(first: Sequence[Features], second: Sequence[Features]) -> Tensor:
    """Compute the kernel ``(m, n)`` float32 between two sets of masks, given factor by factor."""
    product = factor_kernel(first[0], second[0])
    for a, b in zip(first[1:], second[1:], strict=True):
        product = product.mul_(factor_kernel(a, b))
    return product


def factor_kernel(a: Features, b: Features) -> Tensor:
    """Compute the kernel ``(m, n)`` of one factor."""
    if not isinstance(a, Mixed):
        return gaussian(a, cast(Tensor, b)).add_(CONSTANT)
    b = cast(Mixed, b)
    smooth = gaussian(a.gaussian, b.gaussian).mul_(GAUSSIAN_BESIDE_LINEAR).add_(CONSTANT)
    return smooth.addmm_(a.linear, b.linear.T)


def predictor(masks: Sequence[Features], coefficients: Tensor) -> Callable[[Sequence[Features]], Tensor]:
    """Return the function ``states -> kernel(states, masks) @ coefficients``.

    It makes no kernel of linear features.
    """
    only = masks[0]
    if len(masks) > 1 or not isinstance(only, Mixed):
        return lambda states: kernel(states, masks) @ coefficients
    linear = only.linear.T @ coefficients

    def of(states: Sequence[Features]) -> Tensor:
        state = cast(Mixed, states[0])
        smooth = gaussian(state.gaussian, only.gaussian).mul_(GAUSSIAN_BESIDE_LINEAR).add_(CONSTANT) @ coefficients
        return smooth + state.combined(linear)

    return of


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    """Compute ``exp(-|a - b|^2 / 2)`` for rows of ``(m, g)`` and ``(n, g)``."""
    half = torch.addmm(b.square().sum(1)[None] * -0.5, a, b.T)
    return half.sub_(a.square().sum(1)[:, None] * 0.5).clamp_max_(0).exp_()


def fit(features: tuple[Features, ...], targets: Tensor, masks: Tensor) -> Fit | None:
    """Fit targets ``(n, d)`` float64, with the ridge that predicts the first best.

    Predictions are of masks left out; ``masks (n, p)`` serve the inflation.

    Returns
    -------
    Fit or None
        None where no ridge predicts the first target better than its mean, or there are fewer than
        32 masks or distinct similarities.
    """
    n = len(targets)
    offset, scale = targets.mean(0), targets.std(0) if n > 1 else targets[0]
    if n < FEWEST_MASKS or not bool(scale[0] > 1e-9 * (1 + offset[0].abs())):
        return None
    standard = (targets - offset) / scale.clamp_min(torch.finfo(scale.dtype).tiny)
    matrix = kernel(features, features).double()
    few = slice(0, RIDGE_MASKS)
    errors = [LeaveOneOut(matrix[few, few], ridge).residuals(standard[few, :1]).square().mean() for ridge in RIDGES]
    best = int(torch.stack(errors).argmin())
    if not bool(errors[best] < standard[few, 0].square().mean()):
        return None
    solver = LeaveOneOut(matrix, RIDGES[best])
    left_out = solver.residuals(standard)
    averaged = -solver.solve(left_out) * scale
    masks = masks.float()
    relative = masks / masks.mean(0).clamp_min(torch.finfo(masks.dtype).tiny) - 1
    inflations = solver.inflations(standard[:, :1], (masks, relative))
    return Fit(features, solver.solve(standard) * scale, averaged, offset, left_out * scale, *inflations)


class LeaveOneOut:
    """Solve A = K + ridge I for a kernel matrix K, ``(n, n)`` float64."""

    def __init__(self, matrix: Tensor, ridge: float) -> None:
        regular = matrix.clone()
        regular.diagonal().add_(ridge)
        self.factor = torch.linalg.cholesky(regular)
        self.inverse = torch.cholesky_inverse(self.factor)
        self.diagonal = self.inverse.diagonal()[:, None]

    def solve(self, targets: Tensor) -> Tensor:
        """Compute A^-1 targets, ``(n, d)``."""
        return torch.cholesky_solve(targets, self.factor)

    def residuals(self, targets: Tensor) -> Tensor:
        """Subtract from each target the prediction of the fit without it, ``(n, d)``."""
        residuals: Tensor = self.solve(targets) / self.diagonal
        return residuals

    def inflations(self, targets: Tensor, weightings: Sequence[Tensor]) -> list[float]:
        """Compare the variance of weighted sums of left-out residuals with independent ones'.

        The fit without n predicts it with weight w_nj = -B_nj / B_nn on mask j's target, B = A^-1.
        So what neither explains, the residuals e_n and e_j of the fit without both, enters twice:
        e_j through w_nj where n is predicted, e_n through w_jn where j is. The two are correlated
        and add w_nj w_jn e_n e_j M_n M_j to the variance. Leaving out both is the 2 x 2 case of
        leaving out one: e_n = (B_jj alpha_n - B_nj alpha_j) / (B_nn B_jj - B_nj^2).

        Parameters
        ----------
        targets
            ``(n, 1)``.
        weightings
            The M of the formula, ``(n, p)`` float32 each; a variance is pooled over p.
        """
        inverse, coefficients = self.inverse.float(), self.solve(targets).float()
        diagonal, crossed = inverse.diagonal()[:, None], [0.0 for _ in weightings]
        for rows in torch.split(torch.arange(len(inverse), device=inverse.device), ROWS_AT_ONCE):
            b, itself = inverse[rows], (torch.arange(len(rows), device=inverse.device), rows)
            both, squared = diagonal[rows] * diagonal.T, b.square()
            here = coefficients[rows] * diagonal.T - b * coefficients.T
            there = diagonal[rows] * coefficients.T - b * coefficients[rows]
            determinant = both - squared
            determinant[itself] = 1.0
            weights = squared / both * here * there / determinant.square()
            weights[itself] = 0.0
            for k, m in enumerate(weightings):
                crossed[k] += float((m[rows] * (weights @ m)).sum())
        residuals = self.residuals(targets).float()
        alone = [float((residuals * m).square().sum()) for m in weightings]
        return [1 + c / a if a > 0 else 1.0 for c, a in zip(crossed, alone, strict=True)]


NEIGHBOURS = (3, 2)
QUADRATIC = 0.3


def averaging(bins: int, size: int) -> Tensor:
    """Make a matrix ``(bins, size)`` that averages an axis over equal bins."""
    edges = torch.arange(bins + 1, dtype=torch.float64) * (size / bins)
    entry = torch.arange(size, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], entry + 1) - torch.maximum(edges[:-1, None], entry)
    return (overlap.clamp_min(0) * (bins / size)).float()


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
        """Compute features of masks with these averages for one example."""
        single = averages * self.weights[example]
        if not self.both:
            return single
        pairs = Pairs(self.first, self.second, self.mean_product, self.product_weights[example])
        return Mixed(single, averages, pairs)

    def of_states(self, lattice: Lattice) -> Tensor:
        """Average a lattice's states over the bins, ``(states, g)``."""
        return lattice.values(self.over_time, self.over_frequency) - self.mean

    def _moment(self, values: Tensor, share: Tensor) -> Tensor:
        """Compute the expectation of products of pairs of values ``(states, g)``, ``(h,)``."""
        return ((share * values).T @ values)[self.first, self.second]


class MaskFeatures:
    """Compute features of masks that are products of factors; see `FactorFeatures`."""

    def __init__(self, lattices: Sequence[Lattice], contrast: Tensor) -> None:
        self.factors = [FactorFeatures(lattice, contrast) for lattice in lattices]

    def averages(self, factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Average factors ``(n, T or 1, F or 1)`` over their bins: ``(n, g_k)`` each."""
        return tuple(own.averages(factor) for own, factor in zip(self.factors, factors, strict=True))

    def weighted(self, averages: Sequence[Tensor], example: int) -> tuple[Features, ...]:
        """Compute features for one example; their total variance is 1 a factor and kind."""
        return tuple(own.weighted(a, example) for own, a in zip(self.factors, averages, strict=True))

    @property
    def states(self) -> list[Tensor]:
        """Return averages of the states of the lattices given at first."""
        return [own.states for own in self.factors]

    def of_states(self, lattices: Sequence[Lattice]) -> list[Tensor]:
        """Average other lattices' states, ``(states, g_k)`` each."""
        return [own.of_states(lattice) for own, lattice in zip(self.factors, lattices, strict=True)]


def bins_of(size: int, cells: int, both: bool) -> int:
    """Choose an axis's bins: three a cell where a factor varies on it alone, else three for two."""
    return min(size, math.ceil(1.5 * cells) if both else 3 * cells)


def per_unit_variance(weights: Tensor, variance: Tensor) -> Tensor:
    """Scale weights ``(B, g)`` to a total variance of 1 of weighted features; zeros stay.

    The features' variances are ``(g,)``.
    """
    total = (weights.square() * variance).sum(1, keepdim=True).sqrt()
    return torch.where(total > 0, weights / total, torch.zeros_like(weights))


def neighbours(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pair bins at most two rows and one column apart, each once, with a weight.

    It is the square root of how many 3 x 2 windows hold both.

    Returns
    -------
    first, second : Tensor
        Flat indices of the bins, ``(pairs,)``; a bin is paired with itself too.
    window : Tensor
        ``(pairs,)``: the product of such features over masks is the sum over all windows of the
        squared inner product within each.
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
