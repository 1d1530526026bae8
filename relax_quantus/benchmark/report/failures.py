"""What has no value, and why: the rows of a run that failed or say nothing, alike ones together.

Rows enter, Markdown leaves; of a large run the most frequent reasons, never the rows themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relax_quantus.benchmark.report.marked_up import quoted

if TYPE_CHECKING:
    import pandas as pd

MOST = 40
LONGEST = 300
MEANING = {
    "not_applicable": "not applicable: the question makes no sense there; no failure",
    "undefined": "undefined: the metric has no value for such a map",
    "nan": "not a number: the metric gave none",
    "failed": "failed: an error",
    "timeout": "timeout: longer than the time limit",
    "out_of_memory": "out of memory",
}


def failures(rows: pd.DataFrame) -> str:
    """A table of what has no value, or one sentence if everything has."""
    bad = rows[(rows.part == "") & (rows.status != "ok")]
    if bad.empty:
        return "Every cell has a value.\n"
    groups = bad.groupby(["status", "metric", "reason"], sort=False, dropna=False, observed=True)
    kinds = groups.agg(
        cells=("method", "size"), methods=("method", "nunique"), clips=("clip", "nunique"), such=("method", "first")
    )
    kinds = kinds.sort_values("cells", ascending=False, kind="stable").reset_index()
    total = int((rows.part == "").sum())
    lines = [f"{len(bad)} of {total} cells have no value; the reasons, most frequent first."]
    if len(kinds) > MOST:
        lines[0] += f" {len(kinds) - MOST} more kinds are in results.csv."
    lines += ["", "| what | metric | why | cells | methods | clips | such as |", "|---|---|---|---|---|---|---|"]
    for k in kinds.head(MOST).to_dict("records"):
        texts = (MEANING.get(k["status"], k["status"]), k["metric"], str(k["reason"])[:LONGEST])
        counts = f"{k['cells']} | {k['methods']} | {k['clips']}"
        lines.append(f"| {' | '.join(quoted(str(t)) for t in texts)} | {counts} | {quoted(str(k['such']))} |")
    return "\n".join(lines) + "\n"
