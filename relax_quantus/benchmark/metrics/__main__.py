"""Bring the tables of ``docs/metrics.md`` up to date with the registry.

``python -m relax_quantus.benchmark.metrics docs/metrics.md`` writes them into the page. The page
shows them between markers; a test fails when it is not up to date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from relax_quantus.base.files import write_text
from relax_quantus.benchmark.metrics import METRICS
from relax_quantus.benchmark.metrics.excluded import EXCLUDED
from relax_quantus.benchmark.metrics.metric import ARROWS, cost


def used() -> str:
    """List the metrics that are used, one a line; the crossed ones are one line a view."""
    head = ("metric", "category", "range", "configuration", "cost a clip", "source", "in Quantus")
    rows, seen = [head, ("---",) * len(head)], set()
    for metric in map(METRICS.get, METRICS.names()):
        name, configuration = metric.name, metric.configuration
        if name.startswith("SRG-"):
            name = re.sub(r"-\w+-\w+$", "-{bin, patch, time, frequency}-{silence, mean, background}", name)
            configuration = re.sub(r"^.*?unit, (\d+ steps), fill \w+", r"\1", configuration)
        if name not in seen:
            seen.add(name)
            name = f"{name} {ARROWS[metric.direction]}"
            rows.append(
                (name, metric.category, metric.range, configuration, cost(metric), metric.source, metric.quantus)
            )
    return _table(rows)


def excluded() -> str:
    """List the metrics of Quantus that are not used, one a line."""
    rows = [("class in Quantus", "category", "why not"), ("---",) * 3]
    return _table(rows + [(entry.name, entry.category, entry.reason) for entry in EXCLUDED])


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def update(path: Path) -> None:
    """Put both tables between their markers."""
    page = path.read_text(encoding="utf-8")
    for name, table in (("used", used()), ("excluded", excluded())):
        start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        page = page[: page.index(start) + len(start)] + table + page[page.index(end) :]
    write_text(path, page)


if __name__ == "__main__":
    update(Path(sys.argv[1]))
