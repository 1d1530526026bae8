"""The two halves of a relevance gain: areas under the curves when the most and when the least influential units go first.

Oriented rows enter (`rows.checked`); one flat entry a data set, encoder, evaluator and method leaves: mean over sources of both areas and of their
difference, which is the score. A small area with the most influential first and a large one with the least both speak for a map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relax_quantus.benchmark.statistics.crossing import is_crossed

if TYPE_CHECKING:
    import pandas as pd

PARTS = {"MIF": "most_influential_first", "LIF": "least_influential_first"}
"""Part of a crossed evaluator's score -> column."""
BY = ["dataset", "encoder", "metric", "method"]


def areas(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Both areas, their difference and the number of sources; empty where no parts were kept."""
    found = rows[is_crossed(rows) & rows.part.isin(PARTS) & (rows.status == "ok")]
    if found.empty:
        return []
    by_source = found.groupby([*BY, "source_group", "part"], sort=False).value.mean().unstack("part").dropna()
    means = by_source.groupby(BY, sort=False).mean().rename(columns=PARTS)[list(PARTS.values())]
    means["difference"] = means["least_influential_first"] - means["most_influential_first"]
    means["sources"] = by_source.groupby(BY, sort=False).size()
    return [{str(name): value for name, value in entry.items()} for entry in means.reset_index().to_dict("records")]
