"""Lay out tables of scores: cells with intervals and emphasis, as text, Markdown, entries.

Estimates enter, a `Table` leaves, which says itself in any of these forms; `report.latex` adds
another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from relax_quantus.benchmark.statistics.intervals import Interval

NOTHING = "–"


@dataclass(frozen=True)
class TableCell:
    """A number with its interval, and whether it is bold."""

    estimate: Interval
    bold: bool = False

    def text(self, short: bool = False) -> str:
        """Write ``mean [low, high]``, or in short mean ± the wider half of the interval."""
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
    lines: tuple[tuple[str, tuple[TableCell, ...]], ...]

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """Return the lines as text without emphasis."""
        return tuple((name, *(cell.text() for cell in cells)) for name, cells in self.lines)

    def markdown(self) -> str:
        """Write the table in Markdown; bold is bold."""
        lines = [f"### {self.title}", "", self.caption, ""]
        body = [
            (name, *(f"**{cell.text()}**" if cell.bold else cell.text() for cell in cells))
            for name, cells in self.lines
        ]
        table = [self.header, ("---",) * len(self.header), *body]
        lines += ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in table]
        return "\n".join(lines)

    def tidy(self) -> Iterator[dict[str, Any]]:
        """List one entry a cell, for CSV."""
        for name, cells in self.lines:
            for column, cell in zip(self.header[1:], cells, strict=True):
                e = cell.estimate
                if e.n:
                    values = {"mean": e.value, "low": e.low, "high": e.high, "sources": e.n, "bold": cell.bold}
                    yield {"table": self.title, "method": name, "score": column, **values}

    def split(self, columns: int) -> list[Table]:
        """Split into tables of at most so many columns of scores."""
        count = len(self.header) - 1
        if count <= columns:
            return [self]
        parts = -(-count // columns)
        made = []
        for i in range(parts):
            at = slice(i * columns, (i + 1) * columns)
            lines = tuple((name, cells[at]) for name, cells in self.lines if measured_any(cells[at]))
            header = (self.header[0], *self.header[1:][at])
            made.append(replace(self, title=f"{self.title} ({i + 1} of {parts})", header=header, lines=lines))
        return made


def measured_any(cells: tuple[TableCell, ...]) -> bool:
    """Tell whether a line says anything."""
    return any(cell.estimate.n for cell in cells)


def number(value: float, beside: float) -> str:
    """Write a number with as many decimals as suit `beside`, which it stands next to.

    Examples
    --------
    >>> number(0.12345, 0.1), number(12.345, 12.3), number(1234567.0, 1234567.0)
    ('0.123', '12.3', '1.23e+06')
    """
    size = abs(beside)
    return f"{value:.3g}" if size >= 10_000 else f"{value:.{3 if size < 10 else 1 if size < 1000 else 0}f}"


def slug(title: str) -> str:
    """Turn a title into the name of a file.

    Examples
    --------
    >>> slug("Crossed faithfulness, embedding view, synthetic:snr_db=-6")
    'crossed-faithfulness-embedding-view-synthetic-snr_db=-6'
    """
    return re.sub(r"[^a-z0-9_=.-]+", "-", title.lower()).strip("-")
