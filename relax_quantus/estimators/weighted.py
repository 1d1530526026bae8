"""`Weighted`: the self-normalised estimator, sum s M / sum M.

The form that the official package relax_xai computes in one pass, with two departures: the uncertainty is divided by the weights, which the
package forgets (so that it grows with N there), and a standard error is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus.estimators.accumulation import Accumulator, Estimate, Moments


class WeightedMoments(Moments):
    """Moments that end in the self-normalised estimate."""

    def __init__(self) -> None:
        super().__init__()
        self.squared = torch.zeros(())

    def finish(self) -> Estimate:
        """R = sum s M / sum M; U = sum M (s - R)^2 / sum M; SE^2 = N / (N - 1) sum M^2 (s - R)^2 / (sum M)^2, by linearisation.

        A bin that no mask kept takes the unconditional mean and the variance over all masks, with an infinite standard error.
        """
        weight = self.sum(0, 1)
        kept = weight > 0
        safe = torch.where(kept, weight, torch.ones_like(weight))
        ratio = self.sum(1, 1) / safe
        uncertainty = self.sum(2, 1) / safe - ratio.square()
        residual = self.sum(2, 2) - 2 * ratio * self.sum(1, 2) + ratio.square() * self.sum(0, 2)
        squared_error = self.unbiased * residual / safe.square()
        if not bool(kept.all()):
            ratio = torch.where(kept, ratio, (self.total / self.count)[:, None])
            uncertainty = torch.where(kept, uncertainty, self.variance[:, None])
            squared_error = torch.where(kept, squared_error, torch.full_like(squared_error, float("inf")))
        return self.estimate(self.origin[:, None] + ratio, uncertainty, squared_error, self.mean_similarity[:, None])

    def update(self, similarities: Tensor, masks: Tensor) -> None:
        """Add a chunk and keep the sum of squared differences, for bins that no mask keeps."""
        super().update(similarities, masks)
        self.squared = self.squared.to(self.origin) + (similarities.double() - self.origin).square().sum(0)

    @property
    def squares(self) -> Tensor:
        """Sum of s^2 over all masks, ``(B,)``."""
        return self.squared + 2 * self.origin * self.total + self.count * self.origin.square()

    @property
    def variance(self) -> Tensor:
        """Variance of s over all masks, ``(B,)``."""
        return self.squared / self.count - (self.total / self.count).square()


@dataclass(frozen=True)
class Weighted:
    r"""Importance = E[s M] / E[M].

    The mean similarity over the masks that keep a bin. Takes any masks.

    Notes
    -----
    With s the similarity under mask n of N and M its value in the bin,

    .. math:: R = \frac{\sum_n s_n M_n}{\sum_n M_n}, \qquad U = \frac{\sum_n M_n (s_n - R)^2}{\sum_n M_n}, \qquad
       \mathrm{SE}^2 = \frac{N}{N-1} \frac{\sum_n M_n^2 (s_n - R)^2}{\big(\sum_n M_n\big)^2}

    Source: the official package of Wickstrom et al., relax_xai; the standard error by linearisation of the ratio (Owen, "Monte Carlo theory,
    methods and examples", chapter 9). Departures: U is divided by the weights, which the package forgets, and there is a standard error.
    """

    name: str = "weighted"

    def start(self) -> Accumulator:
        """Begin an explanation."""
        return WeightedMoments()
