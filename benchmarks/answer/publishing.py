"""From a run's folder to a published one: the same tables, small enough for a repository.

A folder that `relax_quantus.benchmark` wrote enters; one that `relax-quantus report` reads leaves.
Scores are rounded to five decimals and curves to four, of seconds there are each method's median
ones, how far a score falls when everything is replaced is kept once a clip (it is the same for
every map), and of grids that keep no curves the areas LIF and MIF, whose difference is the score,
are left out, too. Twins' curves are in no figure and are not published.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from relax_quantus.base.result_folder import LIST
from relax_quantus.benchmark.report import report
from relax_quantus.benchmark.statistics.rows import FALL

ONCE = ["dataset", "encoder", "clip", "metric"]
ZSTD = 15


def publish(run: Path, out: Path) -> list[Path]:
    """Write small tables and report beside `out`, put them in its place; return the report's files.

    What the run depended on is written, too.
    """
    with_curves = bool(json.loads((run / "run.json").read_text())["configuration"].get("curves", True))
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        new = Path(folder) / out.name
        new.mkdir()
        _write(smaller(pd.read_parquet(run / "results.parquet"), with_curves), new / "results.parquet")
        if with_curves:
            curves = pd.read_parquet(run / "curves.parquet")
            curves = curves[~curves.method.str.contains(" twin")]
            if len(curves):
                _write(curves.assign(value=curves.value.round(4).astype("float32")), new / "curves.parquet")
        _write(times(pd.read_parquet(run / "maps.parquet")), new / "maps.parquet")
        for name in ("run.json", "encoders.json"):
            if (run / name).is_file():
                shutil.copy(run / name, new / name)
        kept = [path.relative_to(new) for path in report(new, None) if path.suffix != ".pdf"]
        for path in new.rglob("*.pdf"):
            path.unlink()
        (new / LIST).unlink(missing_ok=True)
        _put(new, out, Path(folder) / "older")  # no curve, figure or table of an earlier run beside this one's
    return [out / path for path in kept]


def remake(folder: Path) -> list[Path]:
    """Make a published folder's report again from the scores in it; return the report's files."""
    for name in ("figures", "tables"):
        shutil.rmtree(folder / name, ignore_errors=True)  # nothing of an earlier report beside this one's
    made = report(folder, None)
    for path in folder.rglob("*.pdf"):
        path.unlink()
    (folder / LIST).unlink(missing_ok=True)
    return [path for path in made if path.suffix != ".pdf"]


def _put(new: Path, out: Path, older: Path) -> None:
    """Let a folder take the place of another, which is moved away; it comes back if that fails."""
    if out.exists():
        out.replace(older)
    try:
        new.replace(out)
    except BaseException:
        if older.exists() and not out.exists():
            older.replace(out)
        raise


def times(maps: pd.DataFrame) -> pd.DataFrame:
    """Return the median seconds of a map of each method, for the figure of runtime."""
    keys = ["dataset", "encoder", "method", "question", "n_samples"]
    found = maps.groupby(keys, sort=False).seconds.median().round(4).astype("float32")
    return found.reset_index()


def smaller(rows: pd.DataFrame, with_parts: bool) -> pd.DataFrame:
    """Keep main rows, each clip's falls once, and the other parts if they are wanted."""
    falls = rows.part == FALL
    once = falls & ~rows[falls].duplicated(ONCE).reindex(rows.index, fill_value=False)
    kept = rows[(rows.part == "") | once | (~falls & with_parts)]
    return kept.assign(value=kept.value.round(5).astype("float32"), seconds=np.float32(np.nan)).reset_index(drop=True)


def _write(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False, compression="zstd", compression_level=ZSTD)
