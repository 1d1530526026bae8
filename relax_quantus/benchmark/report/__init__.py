"""`report`: everything that is made from a folder of results alone.

Last step of the benchmark's flow: the path of a folder enters (`reading`); ``report.html``,
``table.md``, ``tables/*.csv`` and ``*.tex``, ``statistics.json`` and ``.md`` and ``figures/*``
leave. The same results give the same files, byte by byte in tables and statistics.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from relax_quantus.base.files import complete, write_text
from relax_quantus.base.result_folder import written_together
from relax_quantus.benchmark.report import latex, page, statistics_page
from relax_quantus.benchmark.report.layout import Table, slug
from relax_quantus.benchmark.report.results_folder import Folder, read
from relax_quantus.benchmark.report.tables import COLUMNS_A_TABLE, document, tables_of
from relax_quantus.benchmark.statistics.endpoints import areas
from relax_quantus.benchmark.statistics.summary import amendment_of, roles_of, summarise
from relax_quantus.errors import DataError

__all__ = ["report"]


def report(
    results: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    figures: bool = True,
    told: Callable[[str], None] | None = None,
) -> list[Path]:
    """Make tables, statistics and figures from a folder of results; return what was written.

    Parameters
    ----------
    results
        Folder with ``results.parquet`` or ``results.csv``, and if there are ``curves.parquet``,
        ``maps.parquet`` and ``run.json``.
    out
        Folder to write to; that of the results by default.
    figures
        Draw, too.
    told
        Called with each line about what was missing.

    Raises
    ------
    DataError
        If the results cannot be read, `out` cannot be written to, or a file there that is not ours
        would be replaced.
    """
    found = read(results)
    for note in found.notes if told else ():
        told(note)  # type: ignore[misc]
    to = Path(out) if out is not None else found.path
    try:
        with written_together(to) as folder:
            return [to / path.relative_to(folder) for path in _written(found, folder, figures)]
    except OSError as error:
        raise DataError(f"{to}: expected a folder that can be written to, got {error}; choose another.") from error


def _written(found: Folder, to: Path, figures: bool) -> Iterator[Path]:
    made = tables_of(found.rows)
    yield _text(to / "table.md", document(found.rows, found.run, made))
    summary = summarise(
        found.rows, roles=roles_of(found.run.get("configuration", {})), amendment=amendment_of(found.run)
    )
    yield _text(to / "statistics.json", json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    yield _text(to / "statistics.md", statistics_page.page(summary))
    yield from _tables(made, summary, to / "tables")
    if halves := areas(found.rows):
        yield _csv(to / "tables" / "areas.csv", halves)
    drawn: list[Path] = []
    if figures:
        from relax_quantus.benchmark.report.figures import draw

        for path in draw(found, to / "figures"):
            drawn.append(path)
            yield path
    yield _text(to / "report.html", page.page(found, made, summary, [path for path in drawn if path.suffix == ".png"]))


def _tables(made: list[Table], summary: dict[str, Any], to: Path) -> Iterator[Path]:
    to.mkdir(exist_ok=True)
    for table in made:
        name = slug(table.title)
        yield _csv(to / f"{name}.csv", list(table.tidy()))
        yield _text(to / f"{name}.tex", "\n".join(_parts(table, name)))
    yield _csv(to / "comparisons.csv", comparisons(summary))
    agreed = summary["agreement_between_metrics"]
    if len(agreed) > 1:
        yield _csv(to / "agreement_between_metrics.csv", [{"metric": name, **row} for name, row in agreed.items()])


def _parts(table: Table, name: str) -> Iterator[str]:
    for i, part in enumerate(table.split(COLUMNS_A_TABLE)):
        yield latex.latex(part, name if i == 0 else f"{name}-{i + 1}")


def comparisons(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """List every test of the summary, one flat entry each."""
    made = []
    for e in summary["endpoints"]:
        for family in e["families"]:
            where = {
                "dataset": e["dataset"],
                "endpoint": e["name"],
                "role": family["role"],
                "in_family": family["name"],
            }
            made += [where | _flat(c) for c in family["comparisons"]]
    for c in summary["exploratory"]:
        where = {
            "dataset": c["dataset"],
            "endpoint": c["metric"],
            "role": "exploratory",
            "in_family": "mask strategies",
        }
        made.append(where | _flat(c))
    return made


def _flat(c: dict[str, Any]) -> dict[str, Any]:
    d, r = c["difference"], c["effect"]
    return {
        "a": c["a"],
        "b": c["b"],
        "n": c["n"],
        "evaluators": c["evaluators"],
        "units": ", ".join(c["units"]),
        "difference": d["value"],
        "difference_low": d["low"],
        "difference_high": d["high"],
        "rank_biserial": r["value"],
        "rank_biserial_low": r["low"],
        "rank_biserial_high": r["high"],
        "p": c["p"],
        "p_holm": c["p_holm"],
        "tests_in_family": c["family"],
        "smallest_effect": c["smallest"],
        "p_equivalence": c["p_equivalence"],
        "p_equivalence_holm": c["p_equivalence_holm"],
        "significant": c["significant"],
        "verdict": c["verdict"],
    }


def _text(path: Path, text: str) -> Path:
    return write_text(path, text)


def _csv(path: Path, entries: list[dict[str, Any]]) -> Path:
    import pandas as pd

    with complete(path) as draft:
        pd.DataFrame(entries).to_csv(draft, index=False)
    return path
