"""``report.html``: tables, statistics, figures and settings of a run as one self-contained file.

A `Folder` and what was made of it enter, the text of a page leaves: what ``table.md`` and
``statistics.md`` say, with tables that can be sorted; the verdicts in plain words; what has no
value, and why; how to get the same again. Style and program lie beside this file; the look, in
``look.css`` of `relax_quantus.views.page`, is that of the explanation's page.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from relax_quantus.benchmark.report import headings, statistics_page
from relax_quantus.benchmark.report.findings import HOW_TO_READ, failures, in_short
from relax_quantus.benchmark.report.html import Section, listed, section
from relax_quantus.benchmark.report.layout import Table
from relax_quantus.benchmark.report.pictures import pictures
from relax_quantus.benchmark.report.results_folder import Folder

MOST_LISTED = 200


def page(found: Folder, made: Sequence[Table], summary: dict[str, Any], figures: Sequence[Path]) -> str:
    """Make the page; `figures` are PNG files."""
    run = found.run
    scores = section("\n\n".join([headings.LEGEND, *(table.markdown() for table in made)]), "scores", below=0)
    statistics = section(statistics_page.page(summary).partition("\n")[2], "statistics")
    parts: list[tuple[str, str, Section | None]] = [
        ("in-short", "In short", section(in_short(summary), "in-short")),
        ("scores", "Scores", scores),
        ("statistics", "Statistics", statistics),
        ("figures", "Figures", None),
        ("without-value", "What has no value, and why", section(failures(found.rows), "without-value")),
        (
            "what-was-run",
            "What was run",
            section(listed(headings.heading(found.rows, run)[:MOST_LISTED]), "what-was-run"),
        ),
        ("again", "The same again", None),
    ]
    drawn = pictures(figures)
    settings = {k: v for k, v in run.get("configuration", {}).items() if v is not None}
    text: str = _template("report.html.j2").render(
        title=_title(run, summary),
        sources=summary["sources"],
        clips=summary["clips"],
        few=statistics_page.FEW,
        parts=[p for p in parts if p[0] != "figures" or drawn],
        how_to_read=HOW_TO_READ,
        pictures=drawn,
        settings=settings,
        made_by={k: run[k] for k in ("relax_quantus", "source_sha256", "python", "platform", "packages") if k in run},
        encoders=run.get("encoders", []),
        commands=commands(shlex.quote(found.path.resolve().name), run),
        toml=toml(settings),
        css=resources.files("relax_quantus.views.page").joinpath("look.css").read_text(encoding="utf-8")
        + _part("report.css"),
        js=_part("report.js"),
    )
    return text


def _title(run: dict[str, Any], summary: dict[str, Any]) -> str:
    names = [str(data.get("name", "")) for data in run.get("datasets", ())] or summary["datasets"]
    return f"relax-quantus benchmark: {', '.join(names)}"


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _template(name: str) -> Any:
    """Load a template that escapes whatever is put into it.

    Only the page's own style, program and sections go in as they are.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    return environment.from_string(_part(name))


NOT_SETTINGS = ("out", "retry", "scheduler")
"""Where and how it was run, not what."""


def toml(configuration: dict[str, Any]) -> str:
    """Write the settings of a run as TOML, those left to the preset as the run found them.

    Examples
    --------
    >>> settings = {"preset": "quick", "seeds": [0, 1], "out": "x", "data": None, "strict": False}
    >>> print(toml(settings), end="")
    preset = "quick"
    seeds = [0, 1]
    strict = false
    """
    given = {k: v for k, v in configuration.items() if v is not None and k not in NOT_SETTINGS}
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in given.items())


def commands(results: str, run: dict[str, Any]) -> list[tuple[str, str]]:
    """List what to type to make the same again, each with what it does."""
    made = [(f"relax-quantus report {results}", "this page, the tables and the figures again, from the results alone")]
    if run.get("configuration"):
        made.append(("relax-quantus bench run.toml --out results", "the results again; run.toml is the file below"))
    return made
