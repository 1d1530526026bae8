"""`Weighted`: the self-normalised estimator, sum s M / sum M.

The form that the official package relax_xai computes in one pass, with two departures: the uncertainty is divided by the weights, which the
package forgets (so that it grows with N there), and a standard error is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from relax_quantus.relax.estimators.accumulation import Accumulator, Estimate, Moments


class WeightedMoments(Moments):
    """Moments that end in the self-normalised estimate."""

    def finish(self) -> Estimate:
        """Estimate importance, uncertainty and both errors; `Weighted` has the formulas.

        A bin that no mask kept takes the unconditional mean and the variance over all masks; its errors are unknown.
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

    .. math:: R = \frac{\sum_n s_n M_n}{\sum_n M_n}, \qquad U = \frac{\sum_n M_n (s_n - R)^2}{\sum_n M_n}, \qquad
       \mathrm{SE}^2 = \frac{N}{N-1} \frac{\sum_n M_n^2 (s_n - R)^2}{\big(\sum_n M_n\big)^2}

    The centred map is R minus the mean similarity over all masks. With bars for means over masks, its error is

    .. math:: \mathrm{SE}_c^2 = \frac{1}{N (N-1)} \sum_n
       \Big( \frac{M_n}{\bar M} (s_n - R) - (s_n - \bar s) \Big)^2

    Source: the official package of Wickstrom et al., relax_xai; the standard error by linearisation of the ratio (Owen, "Monte Carlo theory,
    methods and examples", chapter 9). Departures: U is divided by the weights, which the package forgets, and there are standard
    errors.
    """

    name: str = "weighted"

    def start(self) -> Accumulator:
        """Begin an explanation."""
        return WeightedMoments()
