"""Average ranks, Friedman's test and which differences of ranks are critical.

One score a source and method enters (higher is better); a `Ranking` leaves. Rank 1 is the best;
ties share their mean rank (Demsar 2006). Friedman's test is SciPy's, with its correction for ties;
Nemenyi's pairwise p is scikit-posthocs'.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from relax_quantus.benchmark.statistics.comparisons import LEVEL, multiple, rank_biserial, wilcoxon
from relax_quantus.benchmark.statistics.endpoints import Endpoint

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Ranking:
    """Average ranks of k methods over n sources.

    Attributes
    ----------
    ranks
        Method -> average rank, best first.
    n
        Sources on which all methods were measured.
    p
        Friedman's test that all are alike; NaN with fewer than three methods or two sources.
    critical_difference
        Nemenyi's at 5 %: average ranks nearer than that are not told apart.
    pairwise
        Nemenyi's p, a DataFrame of methods by methods; None where there is no test.
    """

    ranks: dict[str, float]
    n: int
    p: float
    critical_difference: float
    pairwise: Any

    @property
    def best(self) -> list[str]:
        """List the first and all that are not told apart from it.

        All of them if Friedman's test finds nothing.
        """
        names = list(self.ranks)
        if self.pairwise is None or not self.p <= 0.05:
            return names
        return [name for name in names if name == names[0] or self.pairwise.loc[names[0], name] > 0.05]


def rank(scores: pd.DataFrame, tested: bool = True) -> Ranking:
    """Rank the columns of `scores`, and test unless `tested` is False.

    Lines with missing values are left out; scores that agree to 12 digits are tied.
    """
    from scipy.stats import friedmanchisquare, rankdata

    complete = scores.dropna()
    n, k = complete.shape
    if n == 0 or k == 0:
        return Ranking({}, n, math.nan, math.nan, None)
    values = np.round(complete.to_numpy(dtype=np.float64), 12)
    averages = rankdata(-values, axis=1).mean(axis=0)
    ranks = {complete.columns[i]: float(averages[i]) for i in np.argsort(averages, kind="stable")}
    if k < 3 or n < 2 or not tested:
        return Ranking(ranks, n, math.nan, math.nan, None)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        p = float(friedmanchisquare(*values.T).pvalue)
    return Ranking(ranks, n, p if math.isfinite(p) else 1.0, critical_difference(k, n), _pairwise(complete, values))


def _pairwise(complete: pd.DataFrame, values: Any) -> Any:
    from scikit_posthocs import posthoc_nemenyi_friedman

    found = posthoc_nemenyi_friedman(-values)
    found.index = found.columns = complete.columns
    return found


def critical_difference(k: int, n: int, level: float = 0.05) -> float:
    """Compute Nemenyi's critical difference, q / sqrt(2) sqrt(k (k + 1) / (6 n)).

    q is of the studentised range of k and infinitely many degrees of freedom.

    Examples
    --------
    >>> round(critical_difference(4, 14), 2)  # Demsar 2006, p. 14
    1.25
    """
    from scipy.stats import studentized_range

    return float(studentized_range.isf(level, k, np.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n)))


def clear_winner(endpoint: Endpoint) -> str | None:
    """Return the method that is better than each other one on the sources they share, or None."""
    levels = {m: endpoint.level(m).mean() for m in endpoint.ranked}
    levels = {m: value for m, value in levels.items() if math.isfinite(value)}
    if len(levels) < 2:
        return None
    best, pairs = max(levels, key=lambda m: levels[m]), len(levels) * (len(levels) - 1) / 2
    for other in levels:
        if other != best:
            differences, evaluators = endpoint.difference(best, other)
            if not evaluators or not _above(differences) or not wilcoxon(differences) * pairs <= LEVEL:
                return None
    return best


def above_twins(endpoint: Endpoint) -> set[str]:
    """List methods that score above their shuffled twins, Holm's correction over all pairs."""
    tested = {}
    for method in endpoint.methods:
        if method in endpoint.twins:
            differences = endpoint.level(method, True)
            p = wilcoxon(differences)
            if math.isfinite(p):
                tested[method] = (p, _above(differences))
    corrected = multiple([p for p, _ in tested.values()])
    return {m for (m, (_, above)), p in zip(tested.items(), corrected, strict=True) if p <= LEVEL and above}


def _above(differences: pd.Series) -> bool:
    """Tell whether mean and ranks both are above 0.

    One far source can turn the mean against all the others, whose ranks the test goes by.
    """
    found = differences.dropna()
    return bool(found.mean() > 0 and rank_biserial(found.to_numpy()) > 0)
