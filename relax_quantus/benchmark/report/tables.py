"""Results as tables that a person reads: one a category, methods down, metrics across.

Eighth step of the benchmark's flow: tidy rows enter (of `Results` or of a results file); text
leaves. A cell is the mean over source groups with its 95 % cluster-bootstrap interval; each
strategy is also shown minus its shuffled twin, clip by clip. The many evaluators of the crossed
design are one table a view. Bold has been earned: see `emphasis`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from relax_quantus.benchmark.engine.grid import reuse
from relax_quantus.benchmark.engine.results import provenance
from relax_quantus.benchmark.report import headings
from relax_quantus.benchmark.report.layout import Table, TableCell, measured_any
from relax_quantus.benchmark.statistics import intervals
from relax_quantus.benchmark.statistics.endpoints import Endpoint, crossed, is_crossed, normalised
from relax_quantus.benchmark.statistics.intervals import Interval
from relax_quantus.benchmark.statistics.ranks import above_twins, clear_winner, rank
from relax_quantus.benchmark.statistics.rows import checked, measured, methods, pooled

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from relax_quantus.benchmark.engine.results import Results

MINUS_TWIN = " − twin"
ORDER = ("faithfulness", "localisation", "robustness", "randomisation", "complexity")
"""Categories of ours, first; those of third parties follow as they come."""
ARROWS = {"up": "↑", "down": "↓"}
COLUMNS_A_TABLE = 5
CONSOLE_WIDTH = 120


def tables(results: Results) -> list[Table]:
    """Make the tables of a run's results."""
    return tables_of(checked(results.rows))


def tables_of(rows: pd.DataFrame) -> list[Table]:
    """Make the tables of each data set.

    The crossed design, one table a view, then one a category in which anything was measured.

    Methods without any score have no line. Random weights, the control, are left out unless there
    is nothing else; with several encoders a table of the crossed gain shows each by itself, them
    too.
    """
    everything, left_out = pooled(measured(rows))
    apart = f" Mean over encoders without {', '.join(left_out)}." if left_out else ""
    made = []
    for dataset in dict.fromkeys(everything.dataset):
        main = everything[everything.dataset == dataset]
        several = everything.dataset.nunique() > 1
        for table in _of_dataset(main, measured(rows[rows.dataset == dataset]), apart):
            made.append(replace(table, title=f"{table.title}, {dataset}") if several else table)
    return made


def _of_dataset(main: pd.DataFrame, everything: pd.DataFrame, apart: str) -> Iterator[Table]:
    for view in dict.fromkeys(crossed(main)["view"]):
        yield crossed_table(crossed(main, view), view, apart)
        if everything.encoder.nunique() > 1:
            yield encoders_table(crossed(everything, view), view)
    others = main[~is_crossed(main)]
    categories = [c for c in ORDER if c in set(others.category)]
    for category in dict.fromkeys((*categories, *others.category)):
        yield category_table(others[others.category == category], category, apart)


def encoders_table(rows: pd.DataFrame, view: str) -> Table:
    """Tabulate the gain of every method on each encoder, in the score's own unit.

    Bold where it is above its twin's.
    """
    alone = {str(encoder): Endpoint(view, part) for encoder, part in rows.groupby("encoder", sort=False)}
    above = {encoder: above_twins(endpoint) for encoder, endpoint in alone.items()}
    lines = []
    for method in methods(rows):
        cells = []
        for encoder, e in alone.items():
            level: Any = e.level(method) if method in e.own else []
            cells.append(TableCell(intervals.mean(level), method in above[encoder]))
        lines.append((method, tuple(cells)))
    caption = f"Gain in the unit of the score; bold where it is above its shuffled twin's. {counted(rows)}"
    return Table(f"Crossed faithfulness by encoder, {view} view", caption, ("method", *alone), tuple(lines))


def crossed_table(rows: pd.DataFrame, view: str, apart: str = "") -> Table:
    """Tabulate headline, minus twin, own-cell advantage and rank of every method in one view.

    As shares of what could fall where that is stated.
    """
    endpoint = Endpoint(view, normalised(rows))
    share = " as a share of how far the score falls when everything goes" if rows.fall.notna().any() else ""
    ranks = rank(endpoint.effects(), tested=False).ranks
    winner, above = clear_winner(endpoint), above_twins(endpoint)
    lines = []
    for method in endpoint.methods:
        twin = method in endpoint.twins
        scores = (
            TableCell(intervals.mean(endpoint.level(method)), method == winner),
            TableCell(intervals.mean(endpoint.level(method, True) if twin else []), method in above),
            TableCell(intervals.mean(endpoint.advantage(method))),
            TableCell(intervals.mean(endpoint.advantage(method, adjusted=True))),
            TableCell(Interval(ranks.get(method, float("nan")), float("nan"), float("nan"), int(method in ranks))),
        )
        lines.append((method, scores))
    caption = (
        f"Symmetric relevance gain (LIF - MIF){share}, mean over the evaluators that share neither fill nor granularity with the method, of "
        f"{len(endpoint.evaluators)}: {', '.join(endpoint.evaluators)}. Own-cell advantage: own evaluators minus those; adjusted: after what the "
        f"methods foreign to an evaluator reach there on average is taken off. {counted(rows)}{apart}"
    )
    header = ("method", "gain ↑", "gain − twin ↑", "own-cell advantage", "adjusted", "average rank ↓")
    return Table(f"Crossed faithfulness, {view} view", caption, header, tuple(lines))


def category_table(rows: pd.DataFrame, category: str, apart: str = "") -> Table:
    """Tabulate every metric of a category; strategies once more, minus their twins."""
    metrics = list(dict.fromkeys(rows.metric))
    endpoints = {metric: Endpoint(metric, rows[rows.metric == metric]) for metric in metrics}
    signs = {metric: -1 if "down" in set(rows.direction[rows.metric == metric]) else 1 for metric in metrics}
    winners = {metric: clear_winner(endpoint) for metric, endpoint in endpoints.items()}
    above = {metric: above_twins(endpoint) for metric, endpoint in endpoints.items()}
    plain_lines, minus = [], []
    for method in methods(rows):
        scores, differences = [], []
        for metric, e in endpoints.items():
            known, twin = method in e.own, method in e.own and method in e.twins
            scores.append(
                TableCell(intervals.mean(e.level(method) * signs[metric] if known else []), winners[metric] == method)
            )
            level: Any = e.level(method, True) * signs[metric] if twin else []
            differences.append(TableCell(intervals.mean(level), method in above[metric]))
        plain_lines.append((method, tuple(scores)))
        minus.append((method + MINUS_TWIN, tuple(differences)))
    lines = tuple((name, cells) for name, cells in plain_lines + minus if measured_any(cells))
    header = ("method", *(f"{m} {ARROWS['down' if signs[m] < 0 else 'up']}" for m in metrics))
    return Table(category.capitalize(), f"{headings.caption(rows)} {counted(rows)}{apart}".strip(), header, lines)


def counted(rows: pd.DataFrame) -> str:
    """Describe the sample: sources, clips, encoders and seeds."""
    clips = len(rows[["dataset", "clip"]].drop_duplicates())
    sources, encoders, seeds = (rows[name].nunique() for name in ("source_group", "encoder", "seed"))
    few = "; too few for intervals" if sources < intervals.FEWEST else ""
    return f"n = {sources} source groups, {clips} clips, {encoders} encoder(s), {seeds} mask seed(s){few}."


def markdown(results: Results) -> str:
    """Write the whole report as Markdown."""
    return document(checked(results.rows), provenance(results))


def document(rows: pd.DataFrame, run: dict[str, Any], made: list[Table] | None = None) -> str:
    """Write the report from rows and what ``run.json`` says.

    `made` are the tables, if they are there already.
    """
    top = "\n".join(f"- {line}" for line in headings.heading(rows, run))
    parts = [part.markdown() for table in made or tables_of(rows) for part in table.split(COLUMNS_A_TABLE)]
    return "# relax-quantus benchmark\n\n" + top + "\n\n" + headings.LEGEND + "\n\n" + "\n\n".join(parts) + "\n"


def show(results: Results, console: Console | None = None) -> None:
    """Print the whole report; tables fit 120 columns."""
    from rich.console import Console
    from rich.table import Table as RichTable

    rows = checked(results.rows)
    console = console or Console(width=CONSOLE_WIDTH, soft_wrap=False)
    run = provenance(results)
    reused, anew = run.get("cells_reused", 0), run.get("cells_computed_anew", {})
    stored = [reuse(run["cells"], reused, anew)] if reused or anew else []
    for line in (*headings.heading(rows, run), *stored, headings.SHORT_LEGEND):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for table in (part for whole in tables_of(rows) for part in whole.split(fitting(whole))):
        rich = RichTable(title=table.title, caption=table.caption, title_justify="left", caption_justify="left")
        for i, name in enumerate(table.header):
            rich.add_column(name, justify="right" if i else "left", no_wrap=i == 0)
        differences = next((i for i, line in enumerate(table.lines) if line[0].endswith(MINUS_TWIN)), None)
        for i, (name, cells) in enumerate(table.lines):
            shown = (f"[bold]{c.text(short=True)}[/bold]" if c.bold else c.text(short=True) for c in cells)
            rich.add_row(name, *shown, end_section=i + 1 == differences)
        console.print()
        console.print(rich)


def fitting(table: Table) -> int:
    """Count the columns of scores that fit the console beside the methods' names."""
    names = max((len(name) for name, _ in table.lines), default=10)
    cells = [len(cell.text(short=True)) for _, line in table.lines for cell in line]
    widest = max((*cells, *(max(map(len, h.split())) for h in table.header[1:])), default=10)
    return max(1, (CONSOLE_WIDTH - names - 4) // (widest + 3))
