"""What a console shows of tables: whether each of their cells stands whole in a row."""

from __future__ import annotations

from collections.abc import Iterable

from relax_quantus.benchmark.report.layout import Table


def broken_cells(text: str, tables: Iterable[Table]) -> list[str]:
    """Cells of `tables` that no row of a console's `text`
    shows whole: a table too wide breaks them over lines.
    """
    shown: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("│"):
            name, *cells = (cell.strip() for cell in line.strip("│").split("│"))
            shown.setdefault(name, set()).update(cells)
    return [
        f"{name}: {cell.text(short=True)}"
        for table in tables
        for name, cells in table.lines
        for cell in cells
        if cell.text(short=True) not in shown.get(name, set())
    ]
