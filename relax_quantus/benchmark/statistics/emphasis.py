"""What may be printed bold: a best method that is better than every other one, and strategies that are better than their twins.

An `Endpoint` enters, names leave. The best one is chosen by looking, so its tests are corrected for all pairs of methods that could have been
chosen (Bonferroni over k (k - 1) / 2); twins are named beforehand, so Holm over them is enough.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from relax_quantus.benchmark.statistics.comparisons import LEVEL, multiple, rank_biserial, wilcoxon
from relax_quantus.benchmark.statistics.crossing import Endpoint

if TYPE_CHECKING:
    import pandas as pd


def clear_winner(endpoint: Endpoint) -> str | None:
    """The method that is better than each of the others on the sources that it shares with it, or None."""
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
    """Methods that score above their shuffled twins, Holm's correction over all that have one."""
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
    """Whether mean and ranks say so: one far source can turn the mean against all the others, whose ranks the test goes by."""
    found = differences.dropna()
    return bool(found.mean() > 0 and rank_biserial(found.to_numpy()) > 0)
