"""Estimate what `weighted` does at a fraction of its masks, by cross-fitted regression.

A kernel ridge surrogate f of the similarity is fitted on the first masks; its expectation f M is
taken over the strategy's whole distribution of masks, which needs no encoder, and each mask's
residual from a fit that has not seen it corrects it:

    R = E[f M] / E[M] + sum r M / sum M,    r_n = s_n - f_(-n)(M_n)

where E[f M] uses the average of the fits that gave the residuals. Given the ridge, the expectation
of the first term plus (up to the self-normalisation that `weighted` has too) the second is that of
s M, whatever f is: a useless f costs nothing but time, an overfitted one has honest residuals. The
idea is the control variate's (Owen, "Monte Carlo theory, methods and examples", 8.9) with the
cross-fitting of Chernozhukov et al., "Double/debiased machine learning", 2018; that the masks' own
distribution is known exactly is what RELAX offers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from relax_quantus.relax.bound_masks import BoundMasks, Distribution, Lattice
from relax_quantus.relax.estimators.kernel_ridge import (
    Features,
    Fit,
    MaskFeatures,
    averaging,
    fit,
    kernel,
    predictor,
)
from relax_quantus.relax.estimators.moments import Accumulator, Estimate, Weighted, WeightedMoments

FITTED_MASKS = 1024
"""So many are fitted on; residuals of the others are added as they come."""
FEWEST_STATES, MOST_STATES = 1 << 12, 1 << 14
STATES_A_MASK = 5
STATES_AT_ONCE = 1 << 9
BLOCK = 1 << 9
BLOCK_BYTES = 1 << 24
"""Masks that are drawn again at a time, at most, and bytes of them in float64."""
INFLATION_ENTRIES = 256
COLUMNS = 3
"""Sums for each example: residuals of the similarity and of its squared deviation, and
similarities."""
SMALLEST = 1e-6
"""Share of the largest eigenvalue of the cells' covariance under which one counts as zero."""


def cell_effects(lattices: Sequence[Lattice], centred: Tensor) -> Tensor:
    """Compute cell effects from ``centred (B, T, F)``, importance minus mean similarity.

    Returns
    -------
    Tensor
        ``(B, T, F)`` float64, constant over each of the cells that span the axes without a shift:
        the change of the similarity as the cell goes from replaced to kept.
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


@dataclass(frozen=True)
class Waiting:
    """Hold masks whose residuals are not known yet.

    Parameters
    ----------
    difference
        ``(m, B)`` float64: similarities minus the first mask's.
    numbers
        ``(m, columns)``: what the masks are built from.
    averages
        ``(m, g_k)`` a factor: what the kernel compares.
    entries
        ``(m, p)``: the masks at few entries.
    """

    difference: Tensor
    numbers: Tensor
    averages: tuple[Tensor, ...]
    entries: Tensor

    def __getitem__(self, rows: slice) -> Waiting:
        averages = tuple(a[rows] for a in self.averages)
        return Waiting(self.difference[rows], self.numbers[rows], averages, self.entries[rows])

    def __len__(self) -> int:
        return len(self.difference)


def joined(parts: Sequence[Waiting]) -> Waiting:
    """Join successive masks."""
    if len(parts) == 1:
        return parts[0]
    averages = tuple(torch.cat(factor) for factor in zip(*(p.averages for p in parts), strict=True))
    difference, numbers, entries = (
        torch.cat([getattr(p, name) for p in parts]) for name in ("difference", "numbers", "entries")
    )
    return Waiting(difference, numbers, averages, entries)


class SurrogateMoments:
    """Fit a surrogate for each example on the first masks, and sum residuals from then on.

    Masks are built again when their residuals are known, so that memory does not grow with masks
    times entries.

    Parameters
    ----------
    distribution
        Of the masks.
    seed
        Of the generator that they are drawn from.
    contrast
        ``(B, T, F)``: how much each entry changes between kept and masked. A mask's effect grows
        with what it changes.

    Raises
    ------
    NotImplementedError
        If the masks do not say their distribution after all.
    """

    def __init__(self, distribution: Distribution, seed: int, contrast: Tensor) -> None:
        self.distribution, self.generator = distribution, torch.Generator().manual_seed(seed)
        self.lattices = distribution.lattices(FEWEST_STATES, 0)
        self.features = MaskFeatures(self.lattices, contrast)
        self.waiting: list[Waiting] = []
        self.count = 0
        self.origin = torch.zeros(())
        self.fits: list[Fit | None] | None = None
        self.moments = WeightedMoments()

    def update(self, similarities: Tensor, masks: Tensor) -> None:
        """Add ``(m, B)`` similarities and ``(m, *s)`` masks, the next of the stream."""
        if self.count == 0:
            self.origin = similarities[0].double().clone()
        difference, numbers = similarities.double() - self.origin, self.distribution.numbers(len(masks), self.generator)
        device, flat = difference.device, masks.flatten(1)
        averages = self.features.averages([f.to(device) for f in self.factors(numbers, masks)])
        stride = flat.shape[1] // INFLATION_ENTRIES | 1  # odd, so that entries lie in all columns
        entries = flat[:, ::stride].clone().to(device)  # a view would keep the masks
        self.waiting.append(Waiting(difference, numbers, averages, entries))
        self.count += len(masks)
        if sum(map(len, self.waiting)) < (FITTED_MASKS if self.fits is None else BLOCK):
            return
        if self.fits is None:
            waiting = joined(self.waiting)
            first, rest = waiting[:FITTED_MASKS], waiting[FITTED_MASKS:]
            self.fits, residuals = self.fitted(first)
            self.add(self.moments, first, residuals)
            self.waiting = [rest] if len(rest) else []
        else:
            self.flush()

    def factors(self, numbers: Tensor, masks: Tensor) -> Sequence[Tensor]:
        """Build the masks' factors, ``(m, T or 1, F or 1)`` each; a single one is the masks."""
        if len(self.lattices) > 1:
            return self.distribution.factors(numbers)
        return (masks.reshape(len(masks), *masks.shape[-2:]) if masks.ndim > 2 else masks[:, None],)

    def fitted(self, waiting: Waiting) -> tuple[list[Fit | None], Tensor]:
        """Fit each example's similarity and squared deviation; return residuals left out, too.

        Residuals are ``(n, B, 2)``, of masks that the fit has not seen.
        """
        self.mean = waiting.difference.mean(0)
        targets = self.targets(waiting.difference)
        fits = [
            fit(self.features.weighted(waiting.averages, b), targets[:, b], waiting.entries)
            for b in range(targets.shape[1])
        ]
        left_out = [targets[:, b] if f is None else f.left_out for b, f in enumerate(fits)]
        return fits, torch.stack(left_out, 1)

    def add(self, moments: WeightedMoments, waiting: Waiting, residuals: Tensor) -> None:
        """Add residuals ``(n, B, 2)`` and similarities, block by block, with masks drawn again."""
        columns = torch.cat([residuals, (waiting.difference + self.origin)[..., None]], 2).flatten(1)
        for numbers, some in zip(
            torch.split(waiting.numbers, self.block), torch.split(columns, self.block), strict=True
        ):
            moments.update(some, self.distribution.build(numbers))

    @property
    def block(self) -> int:
        """Number of masks that are built again at a time."""
        return max(1, min(BLOCK, BLOCK_BYTES // (8 * math.prod(self.axes))))

    def targets(self, difference: Tensor) -> Tensor:
        """Return what is regressed, ``(m, B, 2)``: the similarity and its squared deviation.

        The deviation, from the fitted masks' mean, is for the uncertainty.
        """
        return torch.stack([difference, (difference - self.mean).square()], 2)

    def flush(self) -> None:
        """Add the residuals of the masks that wait."""
        if not self.waiting or self.fits is None:
            return
        waiting = joined(self.waiting)
        residuals = self.targets(waiting.difference)
        for b, fitted in enumerate(self.fits):
            if fitted is not None:
                residuals[:, b] -= fitted.predict(self.features.weighted(waiting.averages, b))
        self.add(self.moments, waiting, residuals)
        self.waiting = []

    def finish(self) -> Estimate:
        """Return the estimate from all that was added; more may be added after."""
        self.flush()
        fits, moments = self.fits, self.moments
        if fits is None:
            waiting, moments = joined(self.waiting), WeightedMoments()
            fits, residuals = self.fitted(waiting)
            self.add(moments, waiting, residuals)
        return self.corrected(fits, moments)

    def corrected(self, fits: list[Fit | None], moments: WeightedMoments) -> Estimate:
        """Add the surrogates' expectations to the estimate from their residuals."""
        residual = moments.finish()
        shape = residual.importance.shape[1:]
        bank = self.bank(0)
        expected, means = self.expected(fits, bank)
        maps = expected.expand(-1, -1, shape.numel()).reshape(-1, 2, *shape) + grouped(residual.importance)[:, :2]
        means = means + grouped(residual.mean_similarity)[:, :2]

        def example(values: Tensor) -> Tensor:
            return values.reshape(-1, *[1] * len(shape))

        def error(of_residuals: Tensor | None, inflations: list[float], is_known: Tensor) -> Tensor:
            """Widen the residuals' error by what the fits add; NaN if similarities say nothing."""
            assert of_residuals is not None
            left_out = [0.0 if f is None else float(f.left_out[:, 0].square().sum()) for f in fits]
            share = torch.tensor([(i - 1) * v for i, v in zip(inflations, left_out, strict=True)], dtype=maps.dtype)
            total = grouped(moments.squares)[:, 0].clamp_min(torch.finfo(maps.dtype).tiny)
            inflation = (1 + share.to(maps.device) / total).clamp_min(0).sqrt()
            unknown = ~grouped(is_known)[:, -1].reshape(-1, *shape)
            return (grouped(of_residuals)[:, 0] * example(inflation)).masked_fill(unknown, torch.nan)

        gap = maps[:, 0] - example(self.mean)
        neutral = self.origin + means[:, 0]
        centred = (maps[:, 0] - example(means[:, 0])).reshape(-1, *self.axes)
        plain_inflations = [1.0 if f is None else f.inflation for f in fits]
        centred_inflations = [1.0 if f is None else f.centred_inflation for f in fits]
        return Estimate(
            importance=example(self.origin) + maps[:, 0],
            uncertainty=(maps[:, 1] - gap.square()).clamp_min(0),
            standard_error=error(residual.standard_error, plain_inflations, moments.varying()),
            mean_similarity=neutral,
            neutral=example(neutral).expand_as(maps[:, 0]),
            cell_effects=cell_effects(bank, centred).reshape(-1, *shape),
            centred_standard_error=error(
                residual.centred_standard_error, centred_inflations, moments.varying_together()
            ),
        )

    @property
    def states_wanted(self) -> int:
        """Return the number of states that `count` masks deserve where states are a sample."""
        return STATES_A_MASK * self.count if any(lattice.sampled for lattice in self.lattices) else FEWEST_STATES

    def bank(self, number: int) -> Sequence[Lattice]:
        """Return lattices of as many states as are wanted, others for each number."""
        size = min(max(FEWEST_STATES, 1 << (self.states_wanted - 1).bit_length()), MOST_STATES)
        return self.lattices if number == 0 and size == FEWEST_STATES else self.distribution.lattices(size, number)

    @property
    def axes(self) -> tuple[int, int]:
        """Return the masks' entries over time and frequency, 1 where no factor varies."""
        return max(lattice.frames for lattice in self.lattices), max(lattice.bands for lattice in self.lattices)

    def expected(self, fits: list[Fit | None], first: Sequence[Lattice]) -> tuple[Tensor, Tensor]:
        """Compute E[f M] / E[M], ``(B, 2, P or 1)``, and E[f], ``(B, 2)``, of surrogates f.

        The expectations, in float64, are over all masks of the strategy; `first` is the first bank
        of their states. Where the states are a sample, their number keeps its squared error near
        half a hundredth of the masks'.
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
        """Compute E[f M] / E[M], ``(P or 1, 2)``, and E[f], ``(2,)``, for one example."""
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
            maps = torch.stack([(first * c) @ second.T for c in coefficients.T], 2).flatten(0, 1)
            means = (first_mean * second_mean) @ coefficients
        return maps + fitted.offset, means + fitted.offset


def expectations(
    lattice: Lattice,
    weighted: Callable[[Tensor], Features],
    averages: Tensor,
    function: Callable[[Sequence[Features]], Tensor],
) -> tuple[Tensor, Tensor]:
    """Compute E[f M] / E[M], ``(P, n)``, and E[f], ``(n,)``, for n functions f over a lattice.

    Its states have `averages`, of whose features f is a function.

    The states come in parts whose functions stay in the cache: written out as one matrix they would
    cost more time than the kernel does.
    """
    maps, means, done = torch.zeros((), device=averages.device), torch.zeros((), device=averages.device), 0
    for part in lattice.parts(STATES_AT_ONCE):
        share = part.weights.reshape(-1)
        f = function((weighted(averages[done : done + len(share)]),))
        maps, means, done = maps + part.expectation(f), means + share @ f, done + len(share)
    return (maps / lattice.expectation(torch.ones_like(averages[:, :1]))).flatten(0, 1), means


def grouped(values: Tensor) -> Tensor:
    """Reshape ``(3 B, ...)`` to ``(B, 3, ...)``: what is summed for each example."""
    return values.reshape(-1, COLUMNS, *values.shape[1:])


@dataclass(frozen=True)
class Surrogate:
    r"""Importance = E[s M] / E[M], the estimand of `weighted`, by a cross-fitted surrogate.

    Needs to know the masks' distribution: for masks that do not say it, it is `weighted`, and says
    so.

    Notes
    -----
    With f the average of kernel ridge regressions of the similarity on features of the masks, and r
    the residual of mask n from a fit that has not seen it,

    .. math:: R = \frac{\mathbb E[f M]}{\mathbb E[M]} + \frac{\sum_n r_n M_n}{\sum_n M_n},
       \qquad r_n = s_n - f_{-n}(M_n)

    where the expectations are over the strategy's whole distribution of masks and need no encoder;
    the standard errors are those of the second term, with r in the place of s in `Weighted`'s
    formulas, widened for the fit's own error. A useless f costs time and no accuracy.

    Source: this project; the control variate (Owen, "Monte Carlo theory, methods and examples",
    8.9) with the cross-fitting of Chernozhukov et al., "Double/debiased machine learning", 2018.
    """

    name: str = "surrogate"

    def start(self, masks: BoundMasks | None = None, contrast: Tensor | None = None) -> Accumulator:
        """Begin an explanation; `weighted`, and so named, without the masks' distribution."""
        if masks is not None and masks.distribution is not None and contrast is not None:
            try:
                return SurrogateMoments(masks.distribution, masks.seed, contrast)
            except NotImplementedError:
                pass
        return WeightedMoments(known_as=Weighted.name)
