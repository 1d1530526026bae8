"""`Paper`: importance and uncertainty exactly as RELAX's paper writes them.

Wickstrom et al., "RELAX: Representation Learning Explainability", IJCV 131:1584-1610, 2023 (arXiv 2112.10161), equations 3 and 5. Both
divide by N instead of the masks' sum, so a bin's value carries how often it happened to be kept; `weighted` does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from relax_quantus.estimators.accumulation import Accumulator, Estimate, Moments


class PaperMoments(Moments):
    """Moments that end in the paper's formulas."""

    def finish(self) -> Estimate:
        """R = (1/N) sum s M; U = (1/N) sum (s - R)^2 M; SE^2 = variance of s M over N - 1."""
        n = self.count
        origin = self.origin[:, None]
        importance = (self.sum(1, 1) + origin * self.sum(0, 1)) / n
        gap = importance - origin
        uncertainty = (self.sum(2, 1) - 2 * gap * self.sum(1, 1) + gap.square() * self.sum(0, 1)) / n
        second_moment = (self.sum(2, 2) + 2 * origin * self.sum(1, 2) + origin.square() * self.sum(0, 2)) / n
        squared_error = self.unbiased * (second_moment - importance.square()) / n
        neutral = self.mean_similarity[:, None] * self.sum(0, 1) / n
        return self.estimate(importance, uncertainty, squared_error, neutral)


@dataclass(frozen=True)
class Paper:
    r"""Importance = (1/N) sum s M.

    As published. A bin's value carries how often it happened to be kept, and the uncertainty mostly restates the importance.

    Notes
    -----
    With s the similarity under mask n of N and M its value in the bin,

    .. math:: R = \frac1N \sum_n s_n M_n, \qquad U = \frac1N \sum_n (s_n - R)^2 M_n, \qquad
       \mathrm{SE}^2 = \frac{1}{N-1} \Big(\frac1N \sum_n (s_n M_n)^2 - R^2\Big)

    Source: Wickstrom et al., "RELAX: Representation Learning Explainability", IJCV 131:1584-1610, 2023, equations 3 and 5.
    """

    name: str = "paper"

    def start(self) -> Accumulator:
        """Begin an explanation."""
        return PaperMoments()
