"""Sum masks and similarities in a stream, and finish the sums in two estimators.

Chunks of masks ``(m, *s)`` and similarities ``(m, B)`` enter; six sums over masks are kept, so
memory does not grow with their number. Similarities are accumulated as differences from the first
mask's, in float64, so that variances do not cancel. `Weighted` and `Paper` finish them by their
formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from relax_quantus.relax.bound_masks import BoundMasks


@dataclass(frozen=True)
class Estimate:
    """Hold what an estimator returns; maps are ``(B, *s)`` in the masks' own shape.

    `neutral` broadcasts to the maps: the importance that every bin would have if none mattered.
    `cell_effects` is there only where the distribution of the masks is known. `standard_error` is
    that of the importance, `centred_standard_error` that of importance minus neutral; where an
    error is unknown it is NaN, and an estimator that gives no centred error leaves None.
    """

    importance: Tensor
    uncertainty: Tensor
    standard_error: Tensor
    mean_similarity: Tensor
    neutral: Tensor
    cell_effects: Tensor | None = None
    centred_standard_error: Tensor | None = None


SAME = 1e-6
"""Relative difference under which similarities are the same up to an encoder's float32 rounding."""
TINY = torch.finfo(torch.float64).tiny


class Accumulator(Protocol):
    """Take masks and similarities in chunks of any size.

    One that is not what was asked for says with an attribute ``known_as`` what the explanation is
    to name as its estimator.
    """

    def update(self, similarities: Tensor, masks: Tensor) -> None:
        """Add ``(m, B)`` similarities and their ``(m, *s)`` masks."""
        ...

    def finish(self) -> Estimate:
        """Return the estimate from all that was added so far.

        Called repeatedly, with more updates in between, where `RELAX.explain` is given a tolerance;
        it must leave the sums as they are.
        """
        ...


class Estimator(Protocol):
    """Make an accumulator for one explanation."""

    @property
    def name(self) -> str:
        """Return the name that the explanation says it was estimated by."""
        ...

    def start(self, masks: BoundMasks, contrast: Tensor | None) -> Accumulator:
        """Begin an explanation.

        Parameters
        ----------
        masks
            The masks of the call, for estimators that make use of their distribution or draw them
            again.
        contrast
            ``(B, T, F)`` float32: how much each entry of the examples changes when it is masked,
            relative to the example's largest change; None under a feature mask.
        """
        ...


class Moments:
    """Sums over masks M of 1, d, d^2 times M and times M^2, and of d and d^2.

    d = s - origin, where origin is the first mask's similarity.

    Parameters
    ----------
    known_as
        Name of the estimator, where it is another than the one that was asked for.
    """

    def __init__(self, known_as: str | None = None) -> None:
        self.count, self.known_as = 0, known_as

    def update(self, similarities: Tensor, masks: Tensor) -> None:
        """Add ``(m, B)`` similarities and ``(m, *s)`` masks; two matrix products."""
        similarities = similarities.double()
        flat = masks.to(similarities.device).flatten(1).double()
        if self.count == 0:
            self.mask_shape = masks.shape[1:]
            self.origin = similarities[0].clone()
            self.batch = similarities.shape[1]
            self.sums = flat.new_zeros(2, 1 + 2 * self.batch, flat.shape[1])
            self.total = torch.zeros_like(self.origin)
            self.squared = torch.zeros_like(self.origin)
        difference = similarities - self.origin
        squares = difference.square()
        rows = torch.cat([torch.ones_like(difference[:, :1]), difference, squares], dim=1).T
        self.sums[0].addmm_(rows, flat)
        # in place unless that would change the caller's masks
        self.sums[1].addmm_(rows, flat.square() if masks.dtype == flat.dtype else flat.square_())
        self.total += difference.sum(0)
        self.squared += squares.sum(0)
        self.count += len(similarities)

    def sum(self, power_of_d: int, power_of_mask: int) -> Tensor:
        """Return one sum, ``(1, P)`` for ``power_of_d`` 0 and ``(B, P)`` for 1 and 2.

        ``power_of_mask`` is 1 or 2.
        """
        rows = self.sums[power_of_mask - 1]
        return (rows[:1], rows[1 : 1 + self.batch], rows[1 + self.batch :])[power_of_d]

    @property
    def mean_similarity(self) -> Tensor:
        """Return the mean similarity, ``(B,)``."""
        return self.origin + self.total / self.count

    @property
    def variance(self) -> Tensor:
        """Return the variance of s over all masks, ``(B,)``."""
        return (self.squared / self.count - (self.total / self.count).square()).clamp_min(0)

    @property
    def squares(self) -> Tensor:
        """Return the sum of s^2 over all masks, ``(B,)``."""
        return self.squared + 2 * self.origin * self.total + self.count * self.origin.square()

    @property
    def unbiased(self) -> float:
        """Return N / (N - 1), infinite for a single mask: one draw says nothing of its error."""
        return self.count / (self.count - 1) if self.count > 1 else float("inf")

    def shaped(self, values: Tensor) -> Tensor:
        """Give ``(B or 1, P)`` the masks' shape."""
        return values.reshape(-1, *self.mask_shape)

    def varying(self) -> Tensor:
        """Whether similarities vary under a bin's masks, ``(B, P)``.

        Where they do not, the draws say nothing of the error of their mean: one more mask could be
        the first that matters. A bin that no mask kept is such a one.
        """
        weight = self.sum(0, 1)
        safe = torch.where(weight > 0, weight, torch.ones_like(weight))
        mean = self.sum(1, 1) / safe
        variance = self.sum(2, 1) / safe - mean.square()
        return (weight > 0) & (variance > (SAME * (self.origin[:, None] + mean)).square().clamp_min(TINY))

    def varying_together(self) -> Tensor:
        """Tell whether similarities and a bin's masks both vary over all masks, ``(B, P)``."""
        mean, weight = self.mean_similarity[:, None], self.sum(0, 1) / self.count
        masks = self.sum(0, 2) / self.count - weight.square()
        return (self.variance[:, None] > (SAME * mean).square().clamp_min(TINY)) & (masks > SAME**2)

    def estimate(
        self,
        importance: Tensor,
        uncertainty: Tensor,
        squared_error: Tensor,
        centred_squared_error: Tensor,
        neutral: Tensor,
    ) -> Estimate:
        """Assemble an `Estimate` from flat ``(B, P)`` maps; errors that are not known are NaN."""

        def known(squared: Tensor, varying: Tensor) -> Tensor:
            rounding = (SAME * self.mean_similarity[:, None]).square() / self.count
            is_known = varying & (squared > rounding.clamp_min(TINY)) & (self.count > 1)
            return self.shaped(squared.clamp_min(0).sqrt().masked_fill(~is_known, torch.nan))

        return Estimate(
            self.shaped(importance),
            self.shaped(uncertainty.clamp_min(0)),
            known(squared_error, self.varying()),
            self.mean_similarity,
            self.shaped(neutral.expand_as(importance)),
            centred_standard_error=known(centred_squared_error, self.varying_together()),
        )


class WeightedMoments(Moments):
    """Moments that end in the self-normalised estimate."""

    def finish(self) -> Estimate:
        """Estimate importance, uncertainty and both errors; `Weighted` has the formulas.

        A bin that no mask kept takes the unconditional mean and the variance over all masks; its
        errors are unknown.
        """
        weight = self.sum(0, 1)
        kept = weight > 0
        safe = torch.where(kept, weight, torch.ones_like(weight))
        ratio = self.sum(1, 1) / safe
        uncertainty = self.sum(2, 1) / safe - ratio.square()
        residual = self.sum(2, 2) - 2 * ratio * self.sum(1, 2) + ratio.square() * self.sum(0, 2)
        relative = residual / safe.square()
        centred = relative + (self.variance[:, None] - 2 * uncertainty) / self.count
        if not bool(kept.all()):
            ratio = torch.where(kept, ratio, (self.total / self.count)[:, None])
            uncertainty = torch.where(kept, uncertainty, self.variance[:, None])
        return self.estimate(
            self.origin[:, None] + ratio,
            uncertainty,
            self.unbiased * relative,
            self.unbiased * centred,
            self.mean_similarity[:, None],
        )


@dataclass(frozen=True)
class Weighted:
    r"""Importance = E[s M] / E[M].

    The mean similarity over the masks that keep a bin. Takes any masks.

    Notes
    -----
    With s the similarity under mask n of N and M its value in the bin,

    .. math:: R = \frac{\sum_n s_n M_n}{\sum_n M_n}, \qquad U =
       \frac{\sum_n M_n (s_n - R)^2}{\sum_n M_n}, \qquad
       \mathrm{SE}^2 = \frac{N}{N-1} \frac{\sum_n M_n^2 (s_n - R)^2}{\big(\sum_n M_n\big)^2}

    The centred map is R minus the mean similarity over all masks. With bars for means over masks,
    its error is

    .. math:: \mathrm{SE}_c^2 = \frac{1}{N (N-1)} \sum_n
       \Big( \frac{M_n}{\bar M} (s_n - R) - (s_n - \bar s) \Big)^2

    Source: the official package of Wickstrom et al., relax_xai; the standard error by linearisation
    of the ratio (Owen, "Monte Carlo theory, methods and examples", chapter 9). Departures: U is
    divided by the weights, which the package forgets, and there are standard errors.
    """

    name: str = "weighted"

    def start(self, masks: BoundMasks | None = None, contrast: Tensor | None = None) -> Accumulator:
        """Begin an explanation, whatever the masks."""
        return WeightedMoments()


class PaperMoments(Moments):
    """Moments that end in the paper's formulas."""

    def finish(self) -> Estimate:
        """Estimate importance, uncertainty and both errors; `Paper` has the formulas."""
        n = self.count
        origin = self.origin[:, None]
        importance = (self.sum(1, 1) + origin * self.sum(0, 1)) / n
        gap = importance - origin
        uncertainty = (self.sum(2, 1) - 2 * gap * self.sum(1, 1) + gap.square() * self.sum(0, 1)) / n
        second_moment = (self.sum(2, 2) + 2 * origin * self.sum(1, 2) + origin.square() * self.sum(0, 2)) / n
        mean, mask = (self.total / n)[:, None], self.sum(0, 1) / n
        squares = [  # of (s - s-bar) (M - M-bar), by the power of M: the mean of (s - s-bar)^2 M^k
            self.variance[:, None],
            *((self.sum(2, k) - 2 * mean * self.sum(1, k) + mean.square() * self.sum(0, k)) / n for k in (1, 2)),
        ]
        product = squares[2] - 2 * mask * squares[1] + mask.square() * squares[0]
        covariance = self.sum(1, 1) / n - mean * mask
        return self.estimate(
            importance,
            uncertainty,
            self.unbiased * (second_moment - importance.square()) / n,
            self.unbiased * (product - covariance.square()) / n,
            self.mean_similarity[:, None] * mask,
        )


@dataclass(frozen=True)
class Paper:
    r"""Importance = (1/N) sum s M.

    As published. A bin's value carries how often it happened to be kept, and the uncertainty mostly
    restates the importance.

    Notes
    -----
    With s the similarity under mask n of N and M its value in the bin,

    .. math:: R = \frac1N \sum_n s_n M_n, \qquad U = \frac1N \sum_n (s_n - R)^2 M_n, \qquad
       \mathrm{SE}^2 = \frac{1}{N-1} \Big(\frac1N \sum_n (s_n M_n)^2 - R^2\Big)

    The centred map is R minus the mean similarity times the mean mask, C, the covariance of s and
    M. Its error is

    .. math:: \mathrm{SE}_c^2 = \frac{1}{N (N-1)} \sum_n
       \Big( (s_n - \bar s)(M_n - \bar M) - C \Big)^2

    Source: Wickstrom et al., "RELAX: Representation Learning Explainability", IJCV 131:1584-1610,
    2023, equations 3 and 5.
    """

    name: str = "paper"

    def start(self, masks: BoundMasks | None = None, contrast: Tensor | None = None) -> Accumulator:
        """Begin an explanation, whatever the masks."""
        return PaperMoments()
