"""Results as tables that a person reads: one a category, methods down, metrics across, on the console and in Markdown.

Eighth step of the benchmark's flow: tidy rows enter (of `Results` or of a results file); text leaves. A cell is the mean over source recordings
with its 95 % cluster-bootstrap interval; each strategy is also shown minus its shuffled twin, clip by clip. The many evaluators of the crossed
design are one table a view. Bold has been earned: see `emphasis`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from relax_quantus.benchmark import headings
from relax_quantus.benchmark.statistics import intervals
from relax_quantus.benchmark.statistics.crossing import Endpoint, crossed, is_crossed
from relax_quantus.benchmark.statistics.emphasis import above_twins, clear_winner
from relax_quantus.benchmark.statistics.intervals import Estimate
from relax_quantus.benchmark.statistics.ranks import rank
from relax_quantus.benchmark.statistics.rows import checked, measured, methods, pooled

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from relax_quantus.benchmark.runner import Results

NOTHING = "–"
MINUS_TWIN = " − twin"
ORDER = ("faithfulness", "localisation", "robustness", "randomisation", "complexity")
"""Categories of ours, first; those of third parties follow as they come."""
ARROWS = {"up": "↑", "down": "↓"}
COLUMNS_A_TABLE = 5
CONSOLE_WIDTH = 120


@dataclass(frozen=True)
class Cell:
    """A number with its interval, and whether it is bold."""

    estimate: Estimate
    bold: bool = False

    def text(self, short: bool = False) -> str:
        """``mean [low, high]``, or short: mean ± the wider half of the interval."""
        e = self.estimate
        if e.n == 0 or e.value != e.value:
            return NOTHING
        if not e.bounded:
            return number(e.value, e.value)
        if short:
            return f"{number(e.value, e.value)} ± {number(max(e.high - e.value, e.value - e.low), e.value)}"
        return f"{number(e.value, e.value)} [{number(e.low, e.value)}, {number(e.high, e.value)}]"


@dataclass(frozen=True)
class Table:
    """A title, a line that says how it was measured, a header, and lines of a name and cells."""

    title: str
    caption: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """As text without emphasis."""
        return tuple((name, *(cell.text() for cell in cells)) for name, cells in self.lines)

    def markdown(self) -> str:
        """As a Markdown table; bold is bold."""
        lines = [f"### {self.title}", "", self.caption, ""]
        body = [
            (name, *(f"**{cell.text()}**" if cell.bold else cell.text() for cell in cells))
            for name, cells in self.lines
        ]
        table = [self.header, ("---",) * len(self.header), *body]
        lines += ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in table]
        return "\n".join(lines)

    def tidy(self) -> Iterator[dict[str, Any]]:
        """One entry a cell, for CSV."""
        for name, cells in self.lines:
            for column, cell in zip(self.header[1:], cells, strict=True):
                e = cell.estimate
                if e.n:
                    values = {"mean": e.value, "low": e.low, "high": e.high, "sources": e.n, "bold": cell.bold}
                    yield {"table": self.title, "method": name, "score": column, **values}

    def split(self, columns: int) -> list[Table]:
        """As several tables of at most so many columns of scores."""
        count = len(self.header) - 1
        if count <= columns:
            return [self]
        parts = -(-count // columns)
        made = []
        for i in range(parts):
            at = slice(i * columns, (i + 1) * columns)
            lines = tuple((name, cells[at]) for name, cells in self.lines if _any(cells[at]))
            header = (self.header[0], *self.header[1:][at])
            made.append(replace(self, title=f"{self.title} ({i + 1} of {parts})", header=header, lines=lines))
        return made


def _any(cells: tuple[Cell, ...]) -> bool:
    return any(cell.estimate.n for cell in cells)


def number(value: float, beside: float) -> str:
    """With as many decimals as suit `beside`, which it stands next to.

    Examples
    --------
    >>> number(0.12345, 0.1), number(12.345, 12.3), number(1234567.0, 1234567.0)
    ('0.123', '12.3', '1.23e+06')
    """
    size = abs(beside)
    return f"{value:.3g}" if size >= 10_000 else f"{value:.{3 if size < 10 else 1 if size < 1000 else 0}f}"


def tables(results: Results) -> list[Table]:
    """Tables of a run's results."""
    return tables_of(checked(results.rows))


def tables_of(rows: pd.DataFrame) -> list[Table]:
    """The crossed design, one table a view, then one a category in which anything was measured; methods without any score have no line.

    Controls (random weights, shortcut demonstrations) are left out unless there is nothing else.
    """
    main, left_out = pooled(measured(rows))
    apart = f" Without {', '.join(left_out)}." if left_out else ""
    made = [crossed_table(crossed(main, view), view, apart) for view in dict.fromkeys(crossed(main)["view"])]
    others = main[~is_crossed(main)]
    categories = [c for c in ORDER if c in set(others.category)]
    for category in dict.fromkeys((*categories, *others.category)):
        made.append(category_table(others[others.category == category], category, apart))
    return made


def crossed_table(rows: pd.DataFrame, view: str, apart: str = "") -> Table:
    """Headline, minus twin, own-cell advantage and rank of every method in one view."""
    endpoint = Endpoint(view, rows)
    ranks = rank(endpoint.effects(), tested=False).ranks
    winner, above = clear_winner(endpoint), above_twins(endpoint)
    lines = []
    for method in endpoint.methods:
        twin = method in endpoint.twins
        scores = (
            Cell(intervals.mean(endpoint.level(method)), method == winner),
            Cell(intervals.mean(endpoint.level(method, True) if twin else []), method in above),
            Cell(intervals.mean(endpoint.advantage(method))),
            Cell(intervals.mean(endpoint.advantage(method, adjusted=True))),
            Cell(Estimate(ranks.get(method, float("nan")), float("nan"), float("nan"), int(method in ranks))),
        )
        lines.append((method, scores))
    caption = (
        f"Symmetric relevance gain (LIF - MIF), mean over the evaluators that share neither fill nor granularity with the method, of "
        f"{len(endpoint.evaluators)}: {', '.join(endpoint.evaluators)}. Own-cell advantage: own evaluators minus those; adjusted: after what the "
        f"methods foreign to an evaluator reach there on average is taken off. {counted(rows)}{apart}"
    )
    header = ("method", "gain ↑", "gain − twin ↑", "own-cell advantage", "adjusted", "average rank ↓")
    return Table(f"Crossed faithfulness, {view} view", caption, header, tuple(lines))


def category_table(rows: pd.DataFrame, category: str, apart: str = "") -> Table:
    """Every metric of a category; strategies once more, minus their twins."""
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
                Cell(intervals.mean(e.level(method) * signs[metric] if known else []), winners[metric] == method)
            )
            level: Any = e.level(method, True) * signs[metric] if twin else []
            differences.append(Cell(intervals.mean(level), method in above[metric]))
        plain_lines.append((method, tuple(scores)))
        minus.append((method + MINUS_TWIN, tuple(differences)))
    lines = tuple((name, cells) for name, cells in plain_lines + minus if _any(cells))
    header = ("method", *(f"{m} {ARROWS['down' if signs[m] < 0 else 'up']}" for m in metrics))
    return Table(category.capitalize(), f"{headings.caption(rows)} {counted(rows)}{apart}".strip(), header, lines)


def counted(rows: pd.DataFrame) -> str:
    """On how much it stands."""
    clips = len(rows[["dataset", "clip"]].drop_duplicates())
    sources, encoders, seeds = (rows[name].nunique() for name in ("source_group", "encoder", "seed"))
    few = "; too few for intervals" if sources < intervals.FEWEST else ""
    return f"n = {sources} source recordings, {clips} clips, {encoders} encoder(s), {seeds} mask seed(s){few}."


def markdown(results: Results) -> str:
    """The whole report as Markdown."""
    from relax_quantus.benchmark.output import provenance

    return document(checked(results.rows), provenance(results))


def document(rows: pd.DataFrame, run: dict[str, Any]) -> str:
    """The same from rows and what ``run.json`` says."""
    top = "\n".join(f"- {line}" for line in headings.heading(rows, run))
    parts = [part.markdown() for table in tables_of(rows) for part in table.split(COLUMNS_A_TABLE)]
    return "# relax-quantus benchmark\n\n" + top + "\n\n" + headings.LEGEND + "\n\n" + "\n\n".join(parts) + "\n"


def show(results: Results, console: Console | None = None) -> None:
    """Print the whole report; tables fit 120 columns."""
    from rich.console import Console
    from rich.table import Table as RichTable

    from relax_quantus.benchmark.output import provenance

    rows = checked(results.rows)
    console = console or Console(width=CONSOLE_WIDTH, soft_wrap=False)
    for line in (*headings.heading(rows, provenance(results)), headings.SHORT_LEGEND):
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
    """How many columns of scores fit the console beside the methods' names."""
    names = max((len(name) for name, _ in table.lines), default=10)
    cells = [len(cell.text(short=True)) for _, line in table.lines for cell in line]
    widest = max((*cells, *(max(map(len, h.split())) for h in table.header[1:])), default=10)
    return max(1, (CONSOLE_WIDTH - names - 4) // (widest + 3))
