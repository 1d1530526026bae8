"""Measure how far maps are from their converged value, the reference's noise taken out.

Maps from independent seeds enter; squared errors relative to the converged map's spread, ratios of
them, and the number of masks for an equal error leave. Pure arithmetic, no encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Converged:
    """A converged map: mean of independent runs, its mean squared error, its variance over bins."""

    mean: Tensor
    noise: float
    spread_squared: float

    @classmethod
    def from_runs(cls, maps: Sequence[Tensor]) -> Converged:
        """Pool K maps of independent seeds; the noise of their mean is their variance over K."""
        stack = torch.stack([m.double().flatten() for m in maps])
        mean = stack.mean(0)
        noise = float(stack.var(0).mean() / len(stack))
        return cls(mean, noise, max(float(mean.var()) - noise, float(np.finfo(np.float64).tiny)))


def relative_squared_errors(maps: Sequence[Tensor], converged: Converged) -> float:
    """Return the mean squared error of `maps` over the converged map's squared spread.

    The converged map's own noise is subtracted. E[(a - r)^2] = E[(a - mu)^2] + noise(r) for an
    estimate a and a reference r of independent seeds and mean mu; so the difference is unbiased and
    can come out negative where the reference is no better than the estimate.
    """
    stack = torch.stack([m.double().flatten() for m in maps])
    return (float((stack - converged.mean).square().mean()) - converged.noise) / converged.spread_squared


def relative_to(top: Sequence[float], bottom: Sequence[float]) -> list[float]:
    """Return the ratio of squared errors clip by clip, NaN where either is not positive."""
    return [a / b if a > 0 and b > 0 else float("nan") for a, b in zip(top, bottom, strict=True)]


def masks_needed(curve: dict[int, list[float]]) -> int:
    """Return the number of masks at which the median squared error falls to the wanted one.

    The median over clips of (squared error over the wanted one) then falls to 1. Between two
    measured sizes log error is linear in log N; above the largest, error falls as 1/N; below the
    smallest nothing is assumed, and the smallest is returned.

    Examples
    --------
    >>> masks_needed({100: [4.0], 1000: [0.4]})
    400
    >>> masks_needed({100: [0.5]}), masks_needed({100: [2.0]})
    (100, 200)
    """
    sizes = sorted(curve)
    medians = [float(np.nanmedian(curve[n])) if np.isfinite(curve[n]).any() else float("nan") for n in sizes]
    points = [(n, m) for n, m in zip(sizes, medians, strict=True) if np.isfinite(m)]
    if not points:
        return sizes[-1]
    if points[0][1] <= 1:
        return points[0][0]
    for (low, above), (high, below) in pairwise(points):
        if below <= 1:
            share = np.log(above) / (np.log(above) - np.log(below))
            return round(float(np.exp(np.log(low) + share * (np.log(high) - np.log(low)))))
    return round(points[-1][0] * points[-1][1])
