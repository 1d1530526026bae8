"""A folder of results, read back: all that a report is made from.

A path enters; a `Folder` of tables and what ``run.json`` says leaves, or an error that says what is
missing or torn. Nothing of the engine is used.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relax_quantus.base.text_files import delimiter_of, read_text
from relax_quantus.benchmark.statistics.rows import NUMBERS, checked
from relax_quantus.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("results.parquet", "results.csv")
CURVES = ("dataset", "encoder", "seed", "clip", "method", "metric", "order", "share", "value")
MAPS = ("method", "seconds")


@dataclass(frozen=True, eq=False)
class Folder:
    """The tables and the record that a run left in a folder.

    Attributes
    ----------
    path
        The folder.
    rows
        From `checked`.
    curves, maps
        Of ``curves.parquet`` and ``maps.parquet``; None without them.
    run
        Of ``run.json``; empty without it.
    notes
        What was missing.
    """

    path: Path
    rows: pd.DataFrame
    curves: pd.DataFrame | None
    maps: pd.DataFrame | None
    run: dict[str, Any]
    notes: tuple[str, ...]


def read(folder: str | os.PathLike[str]) -> Folder:
    """Read a folder that `relax-quantus bench --out` wrote.

    Raises
    ------
    DataError
        If the folder or its results are missing, torn, empty or without the columns that are
        needed.
    """
    path = Path(folder)
    if path.name in TABLES and path.is_file():
        path = path.parent
    found = next((path / name for name in TABLES if (path / name).is_file()), None)
    if found is None:
        got = "a folder without them" if path.is_dir() else "a file" if path.exists() else "nothing there"
        raise DataError(
            f"{path}: expected a folder with {' or '.join(TABLES)}, got {got}; name the --out folder of `relax-quantus bench`."
        )
    rows = checked(_table(found), str(found))
    notes: list[str] = []
    curves = _optional(path / "curves.parquet", CURVES, notes, "no flipping curves are drawn")
    maps = _optional(path / "maps.parquet", MAPS, notes, "runtime is not drawn")
    return Folder(path, rows, curves, maps, _run(path / "run.json", notes), tuple(notes))


def _table(path: Path) -> pd.DataFrame:
    """Read a Parquet or CSV table; texts of a CSV stay texts ("001")."""
    import pandas as pd

    try:
        if path.suffix == ".csv":
            text = read_text(path, "a CSV table")
            separator = delimiter_of(text.partition("\n")[0], "method")
            raw = pd.read_csv(StringIO(text), sep=separator, dtype=str, keep_default_na=False)
            if separator == ";":  # a spreadsheet's, where commas are decimal
                raw = raw.assign(**{name: raw[name].str.replace(",", ".") for name in NUMBERS if name in raw})
            return raw.assign(**{name: pd.to_numeric(raw[name]) for name in NUMBERS if name in raw})
        return pd.read_parquet(path)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        kind = "CSV" if path.suffix == ".csv" else "Parquet"
        said = " ".join(str(error).split())[:160]
        raise DataError(
            f"{path}: expected a {kind} table, got {said}; it is torn or of another kind: run the same `bench` command again, which keeps "
            "finished cells."
        ) from error


def _optional(path: Path, columns: tuple[str, ...], notes: list[str], without: str) -> pd.DataFrame | None:
    if not path.is_file():
        notes.append(f"no {path.name}: {without}")
        return None
    table = _table(path)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(
            f"{path}: expected the columns {', '.join(columns)}, got none called {', '.join(missing)}; remove the file."
        )
    if table.empty:
        notes.append(f"{path.name} is empty: {without}")
        return None
    return table


def _run(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        notes.append("no run.json: settings are not shown")
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected JSON, got {error}; it is torn: run the same `bench` command again."
        ) from error
    if not isinstance(found, dict):
        raise DataError(
            f"{path}: expected a JSON object, got {type(found).__name__}; run the same `bench` command again."
        )
    return found
