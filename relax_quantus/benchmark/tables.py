"""Results as tables that a person reads: one a category, methods down, metrics across, on the console and in Markdown.

Eighth step of the benchmark's flow: `Results` enter; text leaves. A cell is mean ± standard deviation over clips; each strategy is also shown
minus its shuffled twin, clip by clip. Nothing is in bold: with so few clips no difference has earned it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from relax_quantus.benchmark.methods import METHODS
from relax_quantus.benchmark.metrics import CATEGORIES, METRICS
from relax_quantus.benchmark.metrics.case import Metric

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from relax_quantus.benchmark.runner import Results

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """A title, a line that says how it was measured, a header and rows of text."""

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a Markdown table."""
        lines = [f"### {self.title}", "", self.caption, ""]
        lines += ["| " + " | ".join(row) + " |" for row in (self.header, ("---",) * len(self.header), *self.rows)]
        return "\n".join(lines)


def spread(values: pd.Series) -> str:
    """Mean ± standard deviation, three significant digits of the larger."""
    values = values.dropna()
    if values.empty:
        return NOTHING
    mean, deviation = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    digits = 3 if abs(mean) < 10 else 2 if abs(mean) < 100 else 1
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}" if np.isfinite(deviation) else f"{mean:.{digits}f}"


def minus_twin(rows: pd.DataFrame, method: str, metric: str) -> pd.Series:
    """A strategy's scores minus its twin's on the same clips."""
    wide = rows[rows.metric == metric].pivot(index="clip", columns="method", values="value")
    twin = f"{method} twin"
    return wide[method] - wide[twin] if {method, twin} <= set(wide.columns) else wide.iloc[:0, 0]


def tables(results: Results) -> list[Table]:
    """One table a category in which anything was measured; methods without any score have no line."""
    made = []
    for category in CATEGORIES:
        chosen = [METRICS.get(name) for name in results.config.metrics if METRICS.get(name).category == category]
        found = results.rows[(results.rows.category == category) & (results.rows.status == "ok")]
        if len(found):
            made.append(_table(results, category, chosen))
    return made


def _table(results: Results, category: str, chosen: list[Metric]) -> Table:
    rows = results.rows
    methods = [METHODS.get(name) for name in results.config.methods]
    lines = []
    for method in methods:
        mine = rows[rows.method == method.name]
        lines.append((method.name, *(spread(mine[mine.metric == m.name].value) for m in chosen)))
    for method in methods:
        if method.masks and not method.twin_of and f"{method.name} twin" in results.config.methods:
            differences = (spread(minus_twin(rows, method.name, m.name)) for m in chosen)
            lines.append((f"{method.name} − twin", *differences))
    clips = rows[(rows.category == category) & (rows.status == "ok")]["clip"].nunique()
    return Table(
        title=category.capitalize(),
        caption=caption(results, chosen, clips),
        header=("method", *(m.heading for m in chosen)),
        rows=tuple(line for line in lines if set(line[1:]) != {NOTHING}),
    )


def caption(results: Results, chosen: list[Metric], clips: int) -> str:
    """Which map, towards what, evaluated on what, on how many clips, with how many masks."""
    c = results.config
    towards = {
        "own": "RELAX towards the clip's own embedding, Captum's the predicted class",
        "stem": "towards the clean stem's embedding",
    }
    parts = []
    for m in chosen:
        on = "" if m.evaluated_on == "nothing" else f", {m.evaluated_on}"
        parts.append(f"{m.name}: {m.map} map{on}")
    masks = c.reexplain_samples if chosen[0].reexplains else c.n_samples
    return f"{'; '.join(parts)}. Maps {towards[chosen[0].question]}; N = {masks}; {clips} clips; mean ± sd over clips."


def heading(results: Results) -> list[str]:
    """What holds for all tables."""
    c, d = results.config, results.dataset
    calls = "".join(f", {n} of them without a call" for n in [sum(clip.label < 0 for clip in d.clips)] if n)
    lines = [
        f"{d.name}: {len(d.clips)} clips{calls}; classes {', '.join(d.class_names)}; encoder {c.encoder}",
        f"preset {c.preset}, N = {c.n_samples} masks, seed {c.seed}, fill {c.fill}, blended in {c.domain}, estimator {c.estimator}",
        f"logistic head: {results.head_accuracy:.1%} of held-out clips right; ↑ higher is better, ↓ lower is better",
        "a twin has the same masks with its similarities permuted: what no information looks like",
    ]
    bad = results.rows[~results.rows.status.isin(["ok", "not_applicable"])]
    if len(bad):
        lines.append(f"{len(bad)} cells without a value (status and reason in results.csv), e.g. {bad.reason.iloc[0]}")
    away = results.rows[(results.rows.status == "not_applicable") & (results.rows.category == "localisation")]
    away = away[away.method.str.startswith("RELAX")].drop_duplicates("clip")
    lines += [f"no localisation on {n} clips: {reason}" for reason, n in away.reason.value_counts().head(3).items()]
    return lines + [f"note: {note}" for note in d.notes] + [f"skipped {line}" for line in d.skipped]


def markdown(results: Results) -> str:
    """The whole report as Markdown."""
    top = "\n".join(f"- {line}" for line in heading(results))
    return "# relax-quantus benchmark\n\n" + top + "\n\n" + "\n\n".join(t.markdown() for t in tables(results)) + "\n"


def show(results: Results, console: Console | None = None) -> None:
    """Print the whole report; tables fit 120 columns."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = console or Console(width=120, soft_wrap=False)
    for line in heading(results):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for table in tables(results):
        rich = RichTable(title=table.title, caption=table.caption, title_justify="left", caption_justify="left")
        for i, name in enumerate(table.header):
            rich.add_column(name, justify="right" if i else "left", no_wrap=True)
        first_difference = next((i for i, row in enumerate(table.rows) if row[0].endswith("− twin")), None)
        for i, row in enumerate(table.rows):
            rich.add_row(*row, end_section=i + 1 == first_difference)
        console.print()
        console.print(rich)
