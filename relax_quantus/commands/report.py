"""``relax-quantus report``: tables, statistics and figures made again from a folder of results."""

from __future__ import annotations

from pathlib import Path

from relax_quantus.benchmark.report import report
from relax_quantus.commands import console, files


def run(results: Path, out: Path | None, *, figures: bool = True) -> int:
    """Write the report and print the path of each file.

    Raises
    ------
    DataError
        If the results cannot be read.
    ArgumentError
        If `out` cannot be written to.
    """
    if out is not None:
        files.writable_folder(out)
    for path in report(results, out, figures=figures, told=console.warning):
        console.result(console.shown(path))
    return 0
