"""Is one thing better than another? Paired tests over sources, effect sizes, equivalence.

One difference a source enters (both measured on the same clips); a `Comparison` leaves. Wilcoxon's
signed-rank test (SciPy; exact up to 50 sources without ties, by enumeration up to 13 with ties),
the matched-pairs rank-biserial correlation (Kerby 2014) with a bootstrap interval, two one-sided t
tests against a stated smallest effect (Schuirmann 1987; statsmodels), Holm's correction (1979) over
a stated family.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from relax_quantus.benchmark.statistics.intervals import Interval, Values, finite, mean, statistic

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """A comparison of a with b on n sources: ``a - b``, higher scores being better.

    Attributes
    ----------
    a, b
        Names.
    difference
        Mean over sources, with interval.
    p, p_holm
        Two-sided Wilcoxon signed-rank; corrected for the family (NaN until `holm` was there).
    effect
        Matched-pairs rank-biserial correlation, -1 to 1: the share of rank sum for `a` minus that
        for `b`.
    smallest, p_equivalence, p_equivalence_holm
        The smallest effect that matters, in the score's unit, and the larger p of both one-sided
        tests that the difference is beyond it; the first is at most .05 where the 90 % interval
        lies within ± the smallest effect, the last is corrected for the family.
    smallest_p
        The least p that so many sources can give; if it cannot pass, nothing could have been found.
    evaluators, units
        Number of evaluators that the differences are means of, and what they remove at a time;
        empty for a single metric.
    """

    a: str
    b: str
    difference: Interval
    p: float
    effect: Interval
    smallest: float
    p_equivalence: float
    smallest_p: float
    p_holm: float = math.nan
    p_equivalence_holm: float = math.nan
    family: int = 1
    evaluators: int = 1
    units: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Sources on which both were measured."""
        return self.difference.n

    @property
    def significant(self) -> bool:
        """True if the family's correction leaves it significant at 5 %."""
        return self.p_holm <= LEVEL

    @property
    def small(self) -> bool:
        """True if the 90 % interval of the difference lies within ± the smallest effect.

        Each pair by itself, as the protocol has it.
        """
        return self.p_equivalence <= LEVEL

    @property
    def verdict(self) -> str:
        """Say who is better, that they are equivalent, that it is open, or cannot be told."""
        if self.n == 0:
            return "not comparable"
        if self.significant and not self.difference.value * self.effect.value > 0:
            return "differ, but mean and ranks disagree"
        if self.significant:
            better, worse = (self.a, self.b) if self.difference.value > 0 else (self.b, self.a)
            small = " (and smaller than what matters)" if self.small else ""
            return f"{better} above {worse}{small}"
        if self.small:
            return f"equivalent within ±{self.smallest:g}"
        if self.smallest_p * self.family > LEVEL:
            return f"n = {self.n} source groups: too few to tell {self.family} comparisons apart"
        return "not told apart"


def rank_biserial(differences: Any, axis: int = -1) -> Any:
    """Return (W+ - W-) / (W+ + W-) of differences along `axis`, zeros left out; 0 if all are 0.

    Examples
    --------
    >>> float(rank_biserial([1.0, 2.0, -3.0, 4.0]))
    0.4
    """
    from scipy.stats import rankdata

    d = np.asarray(differences, dtype=np.float64)
    ranks = rankdata(np.abs(d), axis=axis) - np.sum(d == 0, axis=axis, keepdims=True)
    ranks = np.where(d == 0, 0.0, ranks)
    total = ranks.sum(axis=axis)
    return np.where(total > 0, (np.sign(d) * ranks).sum(axis=axis) / np.where(total > 0, total, 1.0), 0.0)


def effect_size(differences: Any, *, seed: int = 0) -> Interval:
    """Compute the rank-biserial correlation with its interval.

    Where all differences have one sign every resample says the same and the bootstrap sees no
    error; the inner limit is then that of the share of such sources (Clopper and Pearson 1934): ``2
    (0.025)^(1/n) - 1``.
    """
    d = finite(differences)
    if len(d) == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    found = statistic(d, rank_biserial, seed=seed)
    if abs(found.value) == 1 and len(d) > 1:
        inner = 2 * (LEVEL / 2) ** (1 / np.count_nonzero(d)) - 1
        edges = sorted((math.copysign(1.0, found.value), math.copysign(1.0, found.value) * inner))
        return Interval(found.value, edges[0], edges[1], len(d))
    return found


def wilcoxon(differences: Any) -> float:
    """Compute the two-sided p of the signed-rank test, zeros left out.

    1 if all are zero, NaN if there are none.

    Differences that agree to 12 digits of the largest are tied: round-off breaks no tie.
    """
    from scipy.stats import wilcoxon as scipy_wilcoxon

    d = rounded(finite(differences))
    if len(d) == 0:
        return math.nan
    d = d[d != 0]
    if len(d) == 0:
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(scipy_wilcoxon(d).pvalue)


def rounded(d: Values) -> Values:
    """Round to 12 digits of the largest."""
    largest = float(np.abs(d).max(initial=0.0))
    return d if largest == 0 else np.round(d, 11 - math.floor(math.log10(largest)))


def equivalence(differences: Any, smallest: float) -> float:
    """Compute the larger p of two one-sided t tests.

    Small means that the mean difference is within ±`smallest`.
    """
    from statsmodels.stats.weightstats import DescrStatsW

    d = finite(differences)
    if len(d) < 2 or not smallest > 0:
        return math.nan
    if np.ptp(d) == 0:
        return 0.0 if abs(d[0]) < smallest else 1.0
    return float(DescrStatsW(d).ttost_mean(-smallest, smallest)[0])


def compare(
    a: str, b: str, differences: Any, *, smallest: float = math.nan, evaluators: int = 1, seed: int = 0
) -> Comparison:
    """Compare one pair in every respect, not yet corrected for its family."""
    d = finite(differences)
    told = np.count_nonzero(d)
    return Comparison(
        a=a,
        b=b,
        difference=mean(d, seed=seed),
        p=wilcoxon(d),
        effect=effect_size(d, seed=seed),
        smallest=smallest,
        p_equivalence=equivalence(d, smallest),
        smallest_p=2.0 ** (1 - told) if told else 1.0,
        evaluators=evaluators,
    )


def holm(family: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p of a family's comparisons, of difference and of equivalence.

    Those without any source do not count.
    """
    tested = [i for i, c in enumerate(family) if math.isfinite(c.p)]
    bounded = [i for i, c in enumerate(family) if math.isfinite(c.p_equivalence)]
    made = list(family)
    for i, p in zip(tested, multiple([family[i].p for i in tested]), strict=True):
        made[i] = replace(made[i], p_holm=p, family=len(tested))
    for i, p in zip(bounded, multiple([family[i].p_equivalence for i in bounded]), strict=True):
        made[i] = replace(made[i], p_equivalence_holm=p)
    return made


def multiple(p: Sequence[float]) -> list[float]:
    """Correct the p of a family of tests by Holm's method.

    The same as statsmodels', which collects all garbage at every call and takes .3 s for it.

    Examples
    --------
    >>> [round(x, 2) for x in multiple([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate([(len(p) - i) * p[k] for i, k in enumerate(order)])
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1.0)
    return [float(x) for x in corrected]
