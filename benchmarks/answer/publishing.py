"""From a run's folder to a published one: the same tables, small enough for a repository.

A folder that `relax_quantus.benchmark` wrote enters; one that `relax-quantus report` reads leaves. Scores are rounded to five decimals and curves to
four, seconds are left out, how far a score falls when everything is replaced is kept once a clip (it is the same for every map), and of grids that
keep no curves the areas LIF and MIF, whose difference is the score, are left out, too. Twins' curves are in no figure and are not published.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from relax_quantus.benchmark.report import report
from relax_quantus.benchmark.statistics.rows import FALL

ONCE = ["dataset", "encoder", "clip", "metric"]
ZSTD = 15


def publish(run: Path, out: Path) -> list[Path]:
    """Write the small tables, what the run depended on, and the report; return the report's files."""
    with_curves = bool(json.loads((run / "run.json").read_text())["configuration"].get("curves", True))
    shutil.rmtree(out, ignore_errors=True)  # no curve, figure or table of an earlier run beside this one's
    out.mkdir(parents=True)
    _write(smaller(pd.read_parquet(run / "results.parquet"), with_curves), out / "results.parquet")
    if with_curves:
        curves = pd.read_parquet(run / "curves.parquet")
        curves = curves[~curves.method.str.contains(" twin")]
        if len(curves):
            _write(curves.assign(value=curves.value.round(4).astype("float32")), out / "curves.parquet")
    for name in ("run.json", "encoders.json"):
        if (run / name).is_file():
            shutil.copy(run / name, out / name)
    made = report(out, None)
    for path in made:
        if path.suffix == ".pdf":
            path.unlink()
    return [path for path in made if path.is_file()]


def smaller(rows: pd.DataFrame, with_parts: bool) -> pd.DataFrame:
    """Main rows, each clip's falls once, and the other parts if they are wanted."""
    falls = rows.part == FALL
    once = falls & ~rows[falls].duplicated(ONCE).reindex(rows.index, fill_value=False)
    kept = rows[(rows.part == "") | once | (~falls & with_parts)]
    return kept.assign(value=kept.value.round(5).astype("float32"), seconds=np.float32(np.nan)).reset_index(drop=True)


def _write(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False, compression="zstd", compression_level=ZSTD)
