"""`Surrogate`: the estimand of `weighted` at a fraction of its masks, by regression with cross-fitted residuals.

A kernel ridge surrogate f of the similarity is fitted on the first masks; its expectation f M is taken over the strategy's whole
distribution of masks, which needs no encoder, and each mask's residual from a fit that has not seen it corrects it:

    R = E[f M] / E[M] + sum r M / sum M,    r_n = s_n - f_(-n)(M_n)

where E[f M] uses the average of the fits that gave the residuals. Given the ridge, the expectation of the first term plus (up to the
self-normalisation that `weighted` has too) the second is that of s M, whatever f is: a useless f costs nothing but time, an overfitted one
has honest residuals. The idea is the control variate's (Owen, "Monte Carlo theory, methods and examples", 8.9) with the cross-fitting of
Chernozhukov et al., "Double/debiased machine learning", 2018; that the masks' own distribution is known exactly is what RELAX offers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from relax_quantus.estimators.accumulation import Accumulator, Estimate
from relax_quantus.estimators.cell_effects import averaging, cell_effects
from relax_quantus.estimators.kernel_ridge import Fit, fit, kernel
from relax_quantus.estimators.weighted import WeightedMoments

FITTED_MASKS = 1024
FEWEST_STATES = 1 << 14
BLOCK = 1 << 10
INFLATION_ENTRIES = 256


class Lattice(Protocol):
    """The distribution of one factor of the masks as weighted states, as mask strategies hand it out."""

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
        """Probabilities of the states, any shape."""
        ...

    def values(self, over_time: Tensor, over_frequency: Tensor) -> Tensor:
        """Apply ``(t, T)`` and ``(f, F)`` to every state's mask: ``(states, t * f)``."""
        ...

    def expectation(self, functions: Tensor) -> Tensor:
        """E[g M], ``(T, F, n)``, for functions ``(states, n)``."""
        ...


@dataclass(frozen=True)
class MaskModel:
    """What `Surrogate` must know of the masks beyond their values.

    Parameters
    ----------
    factors
        ``masks (n, *s) -> tuple``: their factors, ``(n, T or 1, F or 1)`` each. Called for all masks of the stream in their order.
    lattices
        ``at_least -> tuple``: the distribution of each factor, in at least so many states where they are not enumerated.
    contrast
        ``(B, T, F)``: how much each entry changes between kept and masked. A mask's effect grows with what it changes.
    """

    factors: Callable[[Tensor], Sequence[Tensor]]
    lattices: Callable[[int], Sequence[Lattice]]
    contrast: Tensor


class Features:
    """Masks -> what the kernel compares: each factor averaged over bins, and each bin weighted by its contrast.

    Parameters
    ----------
    lattices
        One a factor.
    contrast
        ``(B, T, F)``.
    """

    def __init__(self, lattices: Sequence[Lattice], contrast: Tensor) -> None:
        self.bins: list[tuple[Tensor, Tensor]] = []
        self.weights: list[Tensor] = []
        self.states: list[Tensor] = []
        for lattice in lattices:
            both = lattice.frames > 1 and lattice.bands > 1
            over_time, over_frequency = (
                averaging(bins_of(size, cells, both), size).to(contrast)
                for size, cells in zip((lattice.frames, lattice.bands), lattice.cell_counts, strict=True)
            )
            self.bins.append((over_time, over_frequency))
            energy = contrast.square()
            energy = energy.mean(1, keepdim=True) if lattice.frames == 1 else energy
            energy = energy.mean(2, keepdim=True) if lattice.bands == 1 else energy
            weights = (over_time @ energy @ over_frequency.T).flatten(1).sqrt()
            values = lattice.values(over_time, over_frequency)
            share = lattice.weights.reshape(-1, 1)
            variance = (share * values.square()).sum(0) - (share * values).sum(0).square()
            total = (weights.square() @ variance).sqrt()[:, None]
            self.states.append(values)
            self.weights.append(torch.where(total > 0, weights / total, torch.zeros_like(weights)))

    def averages(self, factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Average factors ``(n, T or 1, F or 1)`` over their bins: ``(n, g_k)`` each."""
        pairs = zip(factors, self.bins, strict=True)
        return tuple(
            (over_time @ factor @ over_frequency.T).flatten(1) for factor, (over_time, over_frequency) in pairs
        )

    def weighted(self, averages: Sequence[Tensor], example: int) -> tuple[Tensor, ...]:
        """Weight averages for one example; their total variance over the masks' distribution is 1 a factor."""
        return tuple(a * weights[example] for a, weights in zip(averages, self.weights, strict=True))


def bins_of(size: int, cells: int, both: bool) -> int:
    """Bins of an axis: three a cell for a factor that varies on one axis, three for two cells on each of two."""
    return min(size, math.ceil(1.5 * cells) if both else 3 * cells)


def pairs(values: Tensor) -> Tensor:
    """``(2 B, ...)`` to ``(B, 2, ...)``."""
    return values.reshape(-1, 2, *values.shape[1:])


class SurrogateMoments:
    """Buffers the first masks, fits a surrogate for each example, and sums residuals from then on."""

    def __init__(self, model: MaskModel) -> None:
        self.model = model
        self.lattices = model.lattices(FEWEST_STATES)
        self.features = Features(self.lattices, model.contrast)
        self.waiting: list[tuple[Tensor, Tensor, tuple[Tensor, ...]]] = []
        self.count = 0
        self.origin = torch.zeros(())
        self.fits: list[Fit | None] | None = None
        self.moments = WeightedMoments()

    def update(self, similarities: Tensor, masks: Tensor) -> None:
        """Add ``(m, B)`` similarities and ``(m, *s)`` masks, the next of the model's."""
        if self.count == 0:
            self.origin = similarities[0].double().clone()
        difference = similarities.double() - self.origin
        averages = self.features.averages([f.to(difference.device) for f in self.model.factors(masks)])
        self.count += len(masks)
        self.waiting.append((difference, masks, averages))
        if sum(len(d) for d, _, _ in self.waiting) < (FITTED_MASKS if self.fits is None else BLOCK):
            return
        if self.fits is None:
            difference, masks, averages = self.waited()
            first = tuple(a[:FITTED_MASKS] for a in averages)
            self.fits, residuals = self.fitted(difference[:FITTED_MASKS], masks[:FITTED_MASKS], first)
            self.moments.update(residuals, masks[:FITTED_MASKS])
            rest = difference[FITTED_MASKS:], masks[FITTED_MASKS:], tuple(a[FITTED_MASKS:] for a in averages)
            self.waiting = [rest] if len(rest[0]) else []
        else:
            self.flush()

    def waited(self) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Join what waits: differences ``(m, B)``, masks and averages."""
        differences, masks, averages = zip(*self.waiting, strict=True)
        return (
            torch.cat(differences),
            torch.cat(masks),
            tuple(torch.cat(factor) for factor in zip(*averages, strict=True)),
        )

    def fitted(
        self, difference: Tensor, masks: Tensor, averages: tuple[Tensor, ...]
    ) -> tuple[list[Fit | None], Tensor]:
        """Fit each example's similarity and squared deviation; the fits, and residuals ``(n, 2B)`` of masks left out."""
        self.mean = difference.mean(0)
        targets = self.targets(difference)
        flat = masks.flatten(1)
        some = flat[:, :: max(1, flat.shape[1] // INFLATION_ENTRIES)].to(difference.device)
        fits = [fit(self.features.weighted(averages, b), targets[:, b], some) for b in range(targets.shape[1])]
        left_out = [targets[:, b] if f is None else f.left_out for b, f in enumerate(fits)]
        return fits, torch.stack(left_out, 1).flatten(1)

    def targets(self, difference: Tensor) -> Tensor:
        """What is regressed, ``(m, B, 2)``: the similarity, and its squared deviation from the fitted masks' mean, for the uncertainty."""
        return torch.stack([difference, (difference - self.mean).square()], 2)

    def flush(self) -> None:
        """Add the residuals of the masks that wait."""
        if not self.waiting or self.fits is None:
            return
        difference, masks, averages = self.waited()
        residuals = self.targets(difference)
        for b, fitted in enumerate(self.fits):
            if fitted is not None:
                residuals[:, b] -= fitted.predict(self.features.weighted(averages, b))
        self.moments.update(residuals.flatten(1), masks)
        self.waiting = []

    def finish(self) -> Estimate:
        """Return the estimate from all that was added; more may be added after."""
        self.flush()
        fits, moments = self.fits, self.moments
        if fits is None:
            difference, masks, averages = self.waited()
            fits, residuals = self.fitted(difference, masks, averages)
            moments = WeightedMoments()
            moments.update(residuals, masks)
        return self.corrected(fits, moments)

    def corrected(self, fits: list[Fit | None], moments: WeightedMoments) -> Estimate:
        """Add the surrogates' expectations to the estimate from their residuals."""
        residual = moments.finish()
        shape = residual.importance.shape[1:]
        expected = [self.expected(f, b) for b, f in enumerate(fits)]
        maps = torch.stack([m.T.expand(2, shape.numel()).reshape(2, *shape) for m, _ in expected]).to(
            residual.importance
        )
        means = torch.stack([m for _, m in expected]).to(residual.importance)
        maps += pairs(residual.importance)
        means += pairs(residual.mean_similarity)

        def example(values: Tensor) -> Tensor:
            return values.reshape(-1, *[1] * len(shape))

        gap = maps[:, 0] - example(self.mean)
        neutral = self.origin + means[:, 0]
        share = [0.0 if f is None else (f.inflation - 1) * float(f.left_out[:, 0].square().sum()) for f in fits]
        inflation = 1 + torch.tensor(share).to(gap) / moments.squares[::2].clamp_min(torch.finfo(gap.dtype).tiny)
        centred = (maps[:, 0] - example(means[:, 0])).reshape(-1, *self.axes)
        return Estimate(
            importance=example(self.origin) + maps[:, 0],
            uncertainty=(maps[:, 1] - gap.square()).clamp_min(0),
            standard_error=pairs(residual.standard_error)[:, 0] * example(inflation.sqrt()),
            mean_similarity=neutral,
            neutral=example(neutral).expand_as(maps[:, 0]),
            cell_effects=cell_effects(self.lattices, centred).reshape(-1, *shape),
        )

    @property
    def axes(self) -> tuple[int, int]:
        """Entries of the masks over time and frequency, 1 along an axis that no factor varies on."""
        return max(lattice.frames for lattice in self.lattices), max(lattice.bands for lattice in self.lattices)

    def expected(self, fitted: Fit | None, example: int) -> tuple[Tensor, Tensor]:
        """E[f M] / E[M], ``(P, 2)``, and E[f], ``(2,)``, of an example's surrogate, over all masks of the strategy."""
        if fitted is None:
            return self.origin.new_zeros(1, 2), self.origin.new_zeros(2)
        coefficients = fitted.coefficients_over(self.count).float()
        per_mask = len(self.lattices) > 1
        parts = []
        for k, lattice in enumerate(self.lattices):
            states = self.features.states[k] * self.features.weights[k][example]
            functions = kernel((states,), (fitted.features[k],))
            functions = functions if per_mask else functions @ coefficients
            share = lattice.expectation(torch.ones_like(functions[:, :1]))
            map_ = (lattice.expectation(functions) / share).flatten(0, 1)
            parts.append((map_, lattice.weights.reshape(-1) @ functions))
        if not per_mask:
            maps, means = parts[0]
        else:
            (first, first_mean), (second, second_mean) = parts
            maps = torch.einsum("tn,fn,nd->tfd", first, second, coefficients).flatten(0, 1)
            means = (first_mean * second_mean) @ coefficients
        return maps + fitted.offset, means + fitted.offset


@dataclass(frozen=True)
class Surrogate:
    """Importance = E[s M] / E[M], the estimand of `weighted`, by a cross-fitted surrogate.

    Needs to know the masks' distribution: for masks that do not say it, `RELAX` uses `weighted`.
    """

    name: str = "surrogate"

    def start(self) -> Accumulator:
        """Begin without a model of the masks: `weighted`."""
        return WeightedMoments()

    def start_with(self, model: MaskModel) -> Accumulator:
        """Begin an explanation whose masks are known."""
        return SurrogateMoments(model)
