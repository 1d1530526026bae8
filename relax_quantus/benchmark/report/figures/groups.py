"""Fewer names than methods, where a picture cannot hold them all.

Oriented rows enter; method -> label leaves. Variants are averaged by what their names say, never chosen by their scores: first by strategy and
fill, then by strategy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relax_quantus.benchmark.report.figures.style import spoken
from relax_quantus.benchmark.statistics.rows import methods

if TYPE_CHECKING:
    import pandas as pd


def labels(rows: pd.DataFrame, at_most: int) -> tuple[dict[str, str], str]:
    """Method (no twins) -> label, at most about so many labels; and what was averaged, in words."""
    names = methods(rows)
    facts = rows[rows.method.isin(names)].drop_duplicates("method").set_index("method")
    plain = {m: spoken(m) for m in names}
    if len(names) <= at_most:
        return plain, ""
    by_fill = {
        m: f"{facts.base[m]}, fill {facts.fill[m]}" if facts.masks[m] and facts.fill[m] else str(facts.base[m])
        for m in names
    }
    if len(set(by_fill.values())) <= at_most:
        return by_fill, "variants of a strategy and fill averaged"
    return {m: str(facts.base[m]) for m in names}, "variants of a strategy averaged"


def averaged(scores: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Columns of methods as columns of labels, means of those that share one."""
    import pandas as pd

    made: dict[str, pd.Series] = {}
    for label in dict.fromkeys(names[m] for m in scores.columns if m in names):
        made[label] = scores[[m for m in scores.columns if names.get(m) == label]].mean(axis=1)
    return pd.DataFrame(made, index=scores.index)
