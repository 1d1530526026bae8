"""Markdown as this package writes it -> HTML, its tables sortable and their intervals drawn.

``table.md`` and ``statistics.md`` enter in the form in which people read them, so that the page
says the same; sections of HTML leave. Names of methods, files and reasons are text wherever they
come from: nothing in them is taken for HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

NUMBER = r"[-−]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
INTERVAL = re.compile(rf"^({NUMBER}) \[({NUMBER}), ({NUMBER})\]$")
LEADING = re.compile(rf"^(?:[<=±] ?)?({NUMBER})")
WIDTH, HEIGHT = 96, 12
"""Of an interval's picture, px."""
LONGEST_WORD, SHORT = 20, 8


@dataclass(frozen=True)
class Heading:
    """A heading: where it is in the page, how deep, and its text."""

    anchor: str
    level: int
    text: str


@dataclass(frozen=True)
class Section:
    """HTML, and the headings in it."""

    html: str
    headings: tuple[Heading, ...]


def section(text: str, prefix: str, below: int = 1) -> Section:
    """Turn Markdown into HTML.

    The anchors of its headings begin with `prefix`, and each lies `below` levels under what it was.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens, at = reader.parse(text), 0
    made: list[str] = []
    headings: list[Heading] = []
    while at < len(tokens):
        token = tokens[at]
        if token.type == "heading_open":
            level, inline = min(6, int(token.tag[1]) + below), tokens[at + 1]
            anchor = f"{prefix}-{len(headings) + 1}"
            headings.append(Heading(anchor, level, plain(inline)))
            made.append(f'<h{level} id="{anchor}">{rendered(reader, inline)}</h{level}>\n')
            at += 3
        elif token.type == "table_open":
            end = next(i for i in range(at, len(tokens)) if tokens[i].type == "table_close")
            label = headings[-1].text if headings else prefix
            made.append(table(reader, tokens[at:end], label))
            at = end + 1
        else:
            end = closing(tokens, at)
            made.append(str(reader.renderer.render(tokens[at : end + 1], reader.options, {})))
            at = end + 1
    return Section("".join(made), tuple(headings))


def closing(tokens: Sequence[Token], at: int) -> int:
    """Find where the block that begins at a token ends."""
    depth = 0
    for i in range(at, len(tokens)):
        depth += tokens[i].nesting
        if depth <= 0:
            return i
    return len(tokens) - 1


def rendered(reader: MarkdownIt, inline: Token) -> str:
    """Return the HTML of a piece of running text."""
    return str(reader.renderer.render([inline], reader.options, {}))


def plain(inline: Token) -> str:
    """Return a piece of running text without its marks."""
    return "".join(child.content for child in inline.children or ())


@dataclass(frozen=True)
class Text:
    """A cell: its text, and its HTML."""

    plain: str
    html: str

    @property
    def interval(self) -> tuple[float, float, float] | None:
        """``mean [low, high]``, if it is one."""
        found = INTERVAL.match(self.plain)
        return None if found is None else tuple(map(numeric, found.groups()))  # type: ignore[return-value]

    @property
    def value(self) -> float | None:
        """The number by which a cell is sorted, if it begins with one."""
        found = LEADING.match(self.plain)
        return None if found is None else numeric(found[1])


def numeric(text: str) -> float:
    """Parse a number as it is printed here."""
    return float(text.replace("−", "-"))


def table(reader: MarkdownIt, tokens: Sequence[Token], label: str) -> str:
    """Make a table whose columns can be sorted; `label` is what a screen reader calls it."""
    rows: list[list[Text]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(Text(plain(token), rendered(reader, token)))
    if not rows[0][-1].plain:  # verdicts have no heading, and are what one looks for
        rows = [[*row[:2], row[-1], *row[2:-1]] for row in rows]
    header, body = rows[0], rows[1:]
    columns = [[row[i] for row in body] for i in range(len(header))]
    scales = [scale([x for x in (cell.interval for cell in column) if x]) for column in columns]
    numbers = [i > 0 and is_numeric(column) for i, column in enumerate(columns)]
    head = "".join(
        f'<th scope="col" class="{classes(cell, number)}" aria-sort="none"><button type="button">{cell.html or "verdict"}</button></th>'
        for cell, number in zip(header, numbers, strict=True)
    )
    lines = "".join(f"<tr>{''.join(line(row, numbers, scales))}</tr>\n" for row in body)
    name = escape(label, quote=True)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{name}"><table class="sortable"><caption class="hidden-visually">{name}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>\n{lines}</tbody></table></div>\n"
    )


def classes(heading: Text, number: bool) -> str:
    """Say how a heading is laid out: long words may be broken."""
    broken = any(len(word) > LONGEST_WORD for word in heading.plain.split())
    return ("number" if number else "text") + (" long" if broken else "")


def is_numeric(column: Sequence[Text]) -> bool:
    """Tell whether most of what a column says are numbers."""
    said = [cell for cell in column if cell.plain not in ("", "–")]
    return bool(said) and sum(cell.value is not None for cell in said) > len(said) / 2


def line(row: Sequence[Text], numbers: Sequence[bool], scales: Sequence[tuple[float, float] | None]) -> Iterator[str]:
    """Make the cells of a row, the first of which names it."""
    for i, (cell, number, span) in enumerate(zip(row, numbers, scales, strict=True)):
        value = cell.value
        key = f' data-value="{value:g}"' if number and value is not None else ""
        if i == 0:
            yield f'<th scope="row">{cell.html}</th>'
        elif cell.interval is not None and span is not None:
            yield f'<td class="number whole"{key}>{cell.html}{drawn(cell.interval, span)}</td>'
        else:
            whole = " whole" if number and len(cell.plain) <= SHORT else ""
            yield f'<td class="{"number" if number else "text"}{whole}"{key}>{cell.html}</td>'


def scale(intervals: Sequence[tuple[float, float, float]]) -> tuple[float, float] | None:
    """Find the range in which a column's intervals are drawn, 0 included.

    None if there is nothing to compare.
    """
    if len(intervals) < 2:
        return None
    low, high = min(0.0, *(i[1] for i in intervals)), max(0.0, *(i[2] for i in intervals))
    return (low, high) if high > low else None


def drawn(interval: tuple[float, float, float], span: tuple[float, float]) -> str:
    """Draw an interval, its mean and 0; what the picture shows stands beside it as text."""

    def at(value: float) -> str:
        return f"{4 + (WIDTH - 8) * (value - span[0]) / (span[1] - span[0]):.1f}"

    mean, low, high = map(at, interval)
    middle, zero = HEIGHT // 2, at(0.0)
    return (
        f'<svg class="interval" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">'
        f'<line class="zero" x1="{zero}" y1="0" x2="{zero}" y2="{HEIGHT}"/><line x1="{low}" y1="{middle}" x2="{high}" y2="{middle}"/>'
        f'<circle cx="{mean}" cy="{middle}" r="3"/></svg>'
    )


def listed(entries: Sequence[Any]) -> str:
    """Make a Markdown list of texts, whatever they hold."""
    return "\n".join(f"- {quoted(str(entry))}" for entry in entries)


def quoted(text: str) -> str:
    """Escape a text for Markdown, so that nothing in it is taken for a mark."""
    return re.sub(r"([\\`*_{}\[\]<>()#+\-.!|&~])", r"\\\1", " ".join(text.split()))
