"""``relax-quantus report``: tables, statistics and figures made again from a folder of results."""

from __future__ import annotations

from relax_quantus.base import files
from relax_quantus.benchmark.report import report
from relax_quantus.cli import console
from relax_quantus.cli.requests.report import ReportRequest


def run(request: ReportRequest) -> int:
    """Write the report and print the path of each file.

    Raises
    ------
    DataError
        If the results cannot be read.
    ArgumentError
        If its folder cannot be written to.
    """
    if request.out is not None:
        files.writable_folder(request.out)
    for path in report(request.results, request.out, figures=request.figures, told=console.warning):
        console.result(console.shown(path), "file", path=path)
    return 0
