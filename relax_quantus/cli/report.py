"""``relax-quantus report``: a folder of results -> tables, statistics, figures and a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from relax_quantus.base.extras import require
from relax_quantus.cli import console
from relax_quantus.cli.options import MessageOptions


@dataclass(frozen=True)
class ReportRequest:
    """Make a page, tables and figures from the results of `bench`.

    Nothing is computed anew: results.parquet (or .csv) is enough; curves.parquet gives flipping
    curves, maps.parquet runtimes, run.json the settings. DIR gets report.html, table.md,
    statistics.md and .json, tables/ (CSV, LaTeX) and figures/ (PNG, PDF).

    \b
    Examples:
      relax-quantus report results
      relax-quantus report results --out report
    """

    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", show_default=False, help="Folder that `bench --out` wrote its results into."),
    ]
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default="RESULTS", help="Folder that the report is written to."),
    ] = None
    figures: Annotated[bool, typer.Option(help="Draw figures as well.")] = True
    messages: MessageOptions = field(default_factory=MessageOptions)

    def run(self) -> int:
        """Write the report and print the path of each file.

        Raises
        ------
        DataError
            If the results cannot be read.
        ArgumentError
            If its folder cannot be written to.
        """
        require("bench", "report")
        from relax_quantus.base import files
        from relax_quantus.benchmark.report import report

        if self.out is not None:
            files.writable_folder(self.out)
        for path in report(self.results, self.out, figures=self.figures, told=console.warning):
            console.result(console.shown(path), "file", path=path)
        return 0
