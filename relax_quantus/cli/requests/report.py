"""What `report` can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from relax_quantus.base.extras import require
from relax_quantus.cli.requests.shared import MessageOptions


@dataclass(frozen=True)
class ReportRequest:
    """Make a page, tables and figures from the results of `bench`.

    Nothing is computed anew: results.parquet (or .csv) is enough; curves.parquet gives flipping curves, maps.parquet runtimes, run.json the
    settings. DIR gets report.html, table.md, statistics.md and .json, tables/ (CSV, LaTeX) and figures/ (PNG, PDF).

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
    figures: Annotated[bool, typer.Option(help="Draw figures, too.")] = True
    messages: MessageOptions = field(default_factory=MessageOptions)

    def run(self) -> int:
        """Write the report; see `relax_quantus.cli.report`."""
        require("bench", "report")
        from relax_quantus.cli import report

        return report.run(self)
