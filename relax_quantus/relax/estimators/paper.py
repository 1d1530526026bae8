"""`Paper`: importance and uncertainty exactly as RELAX's paper writes them.

Wickstrom et al., "RELAX: Representation Learning Explainability", IJCV 131:1584-1610, 2023 (arXiv 2112.10161), equations 3 and 5. Both
divide by N instead of the masks' sum, so a bin's value carries how often it happened to be kept; `weighted` does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from relax_quantus.relax.estimators.accumulation import Accumulator, Estimate, Moments


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

    As published. A bin's value carries how often it happened to be kept, and the uncertainty mostly restates the importance.

    Notes
    -----
    With s the similarity under mask n of N and M its value in the bin,

    .. math:: R = \frac1N \sum_n s_n M_n, \qquad U = \frac1N \sum_n (s_n - R)^2 M_n, \qquad
       \mathrm{SE}^2 = \frac{1}{N-1} \Big(\frac1N \sum_n (s_n M_n)^2 - R^2\Big)

    The centred map is R minus the mean similarity times the mean mask, C, the covariance of s and M. Its error is

    .. math:: \mathrm{SE}_c^2 = \frac{1}{N (N-1)} \sum_n \Big( (s_n - \bar s)(M_n - \bar M) - C \Big)^2

    Source: Wickstrom et al., "RELAX: Representation Learning Explainability", IJCV 131:1584-1610, 2023, equations 3 and 5.
    """

    name: str = "paper"

    def start(self) -> Accumulator:
        """Begin an explanation."""
        return PaperMoments()
