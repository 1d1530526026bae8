"""Means over source groups with 95 % cluster-bootstrap intervals.

One number a source enters; an `Interval` leaves. Sources are drawn with replacement, whole, so
clips of one recording never count as independent. The interval is BCa (Efron 1987), which follows
skew and the bounds of a score, at a level that is widened for small samples (Hesterberg 2015,
"expanded percentile interval": the plain one is too narrow by sqrt((n - 1) / n) and by normal
instead of t quantiles).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
FEWEST = 5
"""Sources under which no interval is given: resamples of so few hardly differ."""
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean, or another statistic, over `n` sources and its 95 % interval.

    NaN where it cannot be had.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def bounded(self) -> bool:
        """True if there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def excludes_zero(self) -> bool:
        """True if 0 is outside the interval."""
        return self.bounded and not self.low <= 0 <= self.high


def expanded(confidence: float, n: int) -> float:
    """Return the level at which a bootstrap interval of a mean is as wide as a t interval.

    Of percentile intervals of `n` values.

    Examples
    --------
    >>> round(expanded(0.95, 12), 4), round(expanded(0.95, 1000), 4)
    (0.9785, 0.9504)
    """
    from scipy.stats import norm, t

    quantile = math.sqrt(n / (n - 1)) * t.ppf((1 + confidence) / 2, n - 1)
    return float(1 - 2 * norm.sf(quantile))


def finite(values: Any) -> Values:
    """Flatten to floats without what is missing."""
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    return array[np.isfinite(array)]


def mean(values: Any, *, seed: int = 0, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> Interval:
    """Average one value a source, with its interval; missing sources are left out.

    Equal values give an interval of no width; fewer than `FEWEST` sources give none.
    """
    sources = finite(values)
    n = len(sources)
    point = float(sources.mean()) if n else math.nan
    if n < FEWEST:
        return Interval(point, math.nan, math.nan, n)
    if np.ptp(sources) == 0:
        return Interval(point, point, point, n)
    low, high = bca(resampling(n, resamples, seed) @ sources, sources, expanded(confidence, n))
    return Interval(point, low, high, n)


@lru_cache(maxsize=32)
def resampling(n: int, resamples: int, seed: int) -> Values:
    """Weigh each of `n` sources in each resample ``(resamples, n)``.

    One matrix for all scores, so one product does them all.
    """
    counts = np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=resamples)
    return counts / n


def bca(resampled: Values, sources: Values, confidence: float) -> tuple[float, float]:
    """Compute the ends of the BCa interval of a mean from its resamples.

    Efron 1987, eqs. 2.3 and 6.6; the acceleration from the jackknife.

    The same as `scipy.stats.bootstrap`, which draws anew for every call and takes fifty times as
    long.
    """
    from scipy.stats import norm

    below = np.mean(resampled < sources.mean()) + np.mean(resampled == sources.mean())
    z0 = norm.ppf((np.mean(resampled < sources.mean()) + below) / 2)
    away = sources.mean() - sources
    acceleration = -(away**3).sum() / (6 * (away**2).sum() ** 1.5)
    z = norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    shares = norm.cdf(z0 + (z0 + z) / (1 - acceleration * (z0 + z)))
    low, high = np.quantile(resampled, shares)
    return float(low), float(high)


def statistic(
    sources: Values,
    function: Callable[..., Any],
    *,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval:
    """Compute ``function(x, axis)`` of one value a source ``(n,)``, with its BCa interval."""
    from scipy.stats import bootstrap

    n, point = len(sources), float(function(sources, axis=-1))
    if n < FEWEST:
        return Interval(point, math.nan, math.nan, n)
    if np.ptp(sources) == 0:
        return Interval(point, point, point, n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = bootstrap(
            (sources,),
            function,
            n_resamples=resamples,
            batch=max(1, 2_000_000 // n),
            confidence_level=expanded(confidence, n),
            method="BCa",
            rng=np.random.default_rng([seed, n]),
        )
    low, high = (float(edge) for edge in found.confidence_interval)
    return Interval(point, low, high, n)
