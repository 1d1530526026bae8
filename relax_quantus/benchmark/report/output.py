"""Results on disk: tidy CSV and Parquet, tables as Markdown, and as JSON what the run depended on.

Last step of the benchmark's flow: `Results` enter; the files of `FILES` are written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from relax_quantus.base.result_folder import written_together
from relax_quantus.benchmark.engine.results import provenance
from relax_quantus.benchmark.report.tables import markdown
from relax_quantus.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from relax_quantus.benchmark.engine.results import Results

ALL_DIFFERENT = ("value", "seconds")
FILES = ("results.csv", "results.parquet", "curves.parquet", "maps.parquet", "table.md", "run.json")


def write(results: Results, folder: str | os.PathLike[str]) -> list[Path]:
    """Write all files into `folder`, which is made if needed, and return their paths.

    Each appears whole or not at all.

    Raises
    ------
    DataError
        If the folder cannot be written to, or has a file of one of these names that is not ours.
    """
    out = Path(folder)
    writers: dict[str, Callable[[Path], object]] = {
        "results.csv": lambda path: results.rows.to_csv(path, index=False),
        "results.parquet": lambda path: _parquet(results.rows, path),
        "curves.parquet": lambda path: _parquet(results.curves, path),
        "maps.parquet": lambda path: _parquet(results.maps, path),
        "table.md": lambda path: path.write_text(markdown(results), encoding="utf-8"),
        "run.json": lambda path: path.write_text(_json(results), encoding="utf-8"),
    }
    try:
        with written_together(out) as folder:
            for name, into in writers.items():
                into(folder / name)
    except OSError as error:
        raise DataError(f"{out}: expected a folder that can be written to, got {error}; choose another.") from error
    return [out / name for name in FILES]


def _parquet(table: pd.DataFrame, path: Path) -> None:
    """Write with Zstandard at level 9, and dictionaries only for columns that repeat.

    60 % of the size that pandas' defaults give a run's curves.
    """
    repeating = [name for name in table.columns if name not in ALL_DIFFERENT]
    table.to_parquet(path, index=False, compression="zstd", compression_level=9, use_dictionary=repeating)


def _json(results: Results) -> str:
    return json.dumps(provenance(results), indent=1, ensure_ascii=False) + "\n"
