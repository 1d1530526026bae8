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
from functools import partial

import torch
from torch import Tensor

from relax_quantus.estimators.accumulation import Accumulator, Estimate
from relax_quantus.estimators.cell_effects import cell_effects
from relax_quantus.estimators.kernel_ridge import Features, Fit, fit, kernel, predictor
from relax_quantus.estimators.mask_features import Lattice, MaskFeatures
from relax_quantus.estimators.weighted import WeightedMoments

FITTED_MASKS = 1024
FEWEST_STATES, MOST_STATES = 1 << 12, 1 << 14
STATES_A_MASK = 5
STATES_AT_ONCE = 1 << 9
BLOCK = 1 << 9
INFLATION_ENTRIES = 256


@dataclass(frozen=True)
class MaskModel:
    """What `Surrogate` must know of the masks beyond their values.

    Parameters
    ----------
    factors
        ``masks (n, *s) -> tuple``: their factors, ``(n, T or 1, F or 1)`` each. Called for all masks of the stream in their order.
    lattices
        ``(at_least, bank) -> tuple``: the distribution of each factor, in at least so many states where they are not enumerated, others for
        each number of a bank.
    contrast
        ``(B, T, F)``: how much each entry changes between kept and masked. A mask's effect grows with what it changes.
    """

    factors: Callable[[Tensor], Sequence[Tensor]]
    lattices: Callable[[int, int], Sequence[Lattice]]
    contrast: Tensor


def pairs(values: Tensor) -> Tensor:
    """``(2 B, ...)`` to ``(B, 2, ...)``."""
    return values.reshape(-1, 2, *values.shape[1:])


class SurrogateMoments:
    """Buffers the first masks, fits a surrogate for each example, and sums residuals from then on."""

    def __init__(self, model: MaskModel) -> None:
        self.model = model
        self.lattices = model.lattices(FEWEST_STATES, 0)
        self.features = MaskFeatures(self.lattices, model.contrast)
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
            self.waiting = []
            self.fits, residuals = self.fitted(
                difference[:FITTED_MASKS], masks[:FITTED_MASKS], tuple(a[:FITTED_MASKS] for a in averages)
            )
            self.moments = moments_of(residuals, masks[:FITTED_MASKS])
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
        stride = flat.shape[1] // INFLATION_ENTRIES | 1  # odd, so that entries lie in all columns
        some = flat[:, ::stride].to(difference.device)
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
            moments = moments_of(residuals, masks)
        return self.corrected(fits, moments)

    def corrected(self, fits: list[Fit | None], moments: WeightedMoments) -> Estimate:
        """Add the surrogates' expectations to the estimate from their residuals."""
        residual = moments.finish()
        shape = residual.importance.shape[1:]
        bank = self.bank(0)
        expected, means = self.expected(fits, bank)
        maps = expected.expand(-1, -1, shape.numel()).reshape(-1, 2, *shape) + pairs(residual.importance)
        means = means + pairs(residual.mean_similarity)

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
            standard_error=pairs(residual.standard_error)[:, 0] * example(inflation.clamp_min(0).sqrt()),
            mean_similarity=neutral,
            neutral=example(neutral).expand_as(maps[:, 0]),
            cell_effects=cell_effects(bank, centred).reshape(-1, *shape),
        )

    @property
    def states_wanted(self) -> int:
        """States that `count` masks deserve where the states are a sample."""
        return STATES_A_MASK * self.count if any(lattice.sampled for lattice in self.lattices) else FEWEST_STATES

    def bank(self, number: int) -> Sequence[Lattice]:
        """Lattices of as many states as are wanted, up to `MOST_STATES`, others for each number."""
        size = min(max(FEWEST_STATES, 1 << (self.states_wanted - 1).bit_length()), MOST_STATES)
        return self.lattices if number == 0 and size == FEWEST_STATES else self.model.lattices(size, number)

    @property
    def axes(self) -> tuple[int, int]:
        """Entries of the masks over time and frequency, 1 along an axis that no factor varies on."""
        return max(lattice.frames for lattice in self.lattices), max(lattice.bands for lattice in self.lattices)

    def expected(self, fits: list[Fit | None], first: Sequence[Lattice]) -> tuple[Tensor, Tensor]:
        """E[f M] / E[M], ``(B, 2, P or 1)``, and E[f], ``(B, 2)``, of the surrogates over all masks of the strategy, float64; `first` is the
        first bank of their states.

        Where the states are a sample, their number keeps its squared error near half a hundredth of the masks'.
        """
        banks = math.ceil(self.states_wanted / MOST_STATES) if any(f is not None for f in fits) else 1
        maps, means = self.origin.new_zeros(len(fits), 2, 1), self.origin.new_zeros(len(fits), 2)
        for number in range(banks):
            lattices = first if number == 0 else self.bank(number)
            states = self.features.states if lattices is self.lattices else self.features.of_states(lattices)
            each = [self.expected_over(lattices, states, f, b) for b, f in enumerate(fits)]
            entries = max(len(m) for m, _ in each)
            maps = maps + torch.stack([m.T.expand(2, entries) for m, _ in each]) / banks
            means = means + torch.stack([m for _, m in each]) / banks
        return maps, means

    def expected_over(
        self, lattices: Sequence[Lattice], states: Sequence[Tensor], fitted: Fit | None, example: int
    ) -> tuple[Tensor, Tensor]:
        """E[f M] / E[M], ``(P or 1, 2)``, and E[f], ``(2,)``, of an example's surrogate over the lattices' states."""
        if fitted is None:
            return self.origin.new_zeros(1, 2), self.origin.new_zeros(2)
        coefficients = fitted.coefficients_over(self.count).float()
        per_mask = len(lattices) > 1
        parts = []
        for lattice, own, averages, masks in zip(lattices, self.features.factors, states, fitted.features, strict=True):
            function = partial(kernel, second=(masks,)) if per_mask else predictor((masks,), coefficients)
            parts.append(expectations(lattice, partial(own.weighted, example=example), averages, function))
        if not per_mask:
            maps, means = parts[0]
        else:
            (first, first_mean), (second, second_mean) = parts
            maps = torch.einsum("tn,fn,nd->tfd", first, second, coefficients).flatten(0, 1)
            means = (first_mean * second_mean) @ coefficients
        return maps + fitted.offset, means + fitted.offset


def expectations(
    lattice: Lattice,
    weighted: Callable[[Tensor], Features],
    averages: Tensor,
    function: Callable[[Sequence[Features]], Tensor],
) -> tuple[Tensor, Tensor]:
    """E[f M] / E[M], ``(P, n)``, and E[f], ``(n,)``, over a lattice whose states have `averages`, for n functions f of their features.

    The states come in parts whose functions stay in the cache: written out as one matrix they would cost more time than the kernel does.
    """
    maps, means, done = torch.zeros((), device=averages.device), torch.zeros((), device=averages.device), 0
    for part in lattice.parts(STATES_AT_ONCE):
        share = part.weights.reshape(-1)
        f = function((weighted(averages[done : done + len(share)]),))
        maps, means, done = maps + part.expectation(f), means + share @ f, done + len(share)
    return (maps / lattice.expectation(torch.ones_like(averages[:, :1]))).flatten(0, 1), means


def moments_of(residuals: Tensor, masks: Tensor) -> WeightedMoments:
    """Sum residuals ``(n, 2B)`` block by block, as the masks take twice the memory meanwhile."""
    moments = WeightedMoments()
    for some, block in zip(torch.split(residuals, BLOCK), torch.split(masks, BLOCK), strict=True):
        moments.update(some, block)
    return moments


@dataclass(frozen=True)
class Surrogate:
    r"""Importance = E[s M] / E[M], the estimand of `weighted`, by a cross-fitted surrogate.

    Needs to know the masks' distribution: for masks that do not say it, `RELAX` uses `weighted`.

    Notes
    -----
    With f the average of kernel ridge regressions of the similarity on features of the masks, and r the residual of mask n from a fit that has
    not seen it,

    .. math:: R = \frac{\mathbb E[f M]}{\mathbb E[M]} + \frac{\sum_n r_n M_n}{\sum_n M_n}, \qquad r_n = s_n - f_{-n}(M_n)

    where the expectations are over the strategy's whole distribution of masks and need no encoder; the standard error is that of the second term,
    widened for the fit's own error. A useless f costs time and no accuracy.

    Source: this project; the control variate (Owen, "Monte Carlo theory, methods and examples", 8.9) with the cross-fitting of Chernozhukov et
    al., "Double/debiased machine learning", 2018.
    """

    name: str = "surrogate"

    def start(self) -> Accumulator:
        """Begin without a model of the masks: `weighted`."""
        return WeightedMoments()

    def start_with(self, model: MaskModel) -> Accumulator:
        """Begin an explanation whose masks are known."""
        return SurrogateMoments(model)
