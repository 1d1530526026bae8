"""The registry as Markdown tables, which ``docs/metrics.md`` shows between markers.

``python -m relax_quantus.benchmark.metrics docs/metrics.md`` brings the page up to date; a test fails when it is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from relax_quantus.base.files import write_text
from relax_quantus.benchmark.metrics.case import ARROWS, Metric
from relax_quantus.benchmark.metrics.excluded import EXCLUDED

PERTURBATIONS = 3
"""Perturbed copies that the printed cost supposes."""


def cost(metric: Metric) -> str:
    """Encoder forwards or maps made anew, a clip."""
    made = metric.explanations(PERTURBATIONS)
    if metric.category == "robustness":
        return f"{made} maps anew with {PERTURBATIONS} copies"
    return f"{made} maps anew" if made else f"{metric.forwards} forwards" if metric.forwards else "no forwards"


def summary(metric: Metric) -> str:
    """One line: category, direction, range, configuration, cost, source."""
    better = "higher" if metric.direction == "up" else "lower"
    of = "" if metric.quantus in ("", metric.name) else f"; {metric.quantus} in Quantus"
    return f"{metric.category}, {better} is better, {metric.range}; {metric.configuration}; {cost(metric)} ({metric.source}{of})"


def used() -> str:
    """The metrics that are used, one a line; the crossed ones are one line a view."""
    from relax_quantus.benchmark.metrics import METRICS

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
    """The metrics of Quantus that are not used, one a line."""
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
