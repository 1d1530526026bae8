"""Results on disk: tidy CSV and Parquet, the tables as Markdown, and what the run depended on as JSON.

Last step of the benchmark's flow: `Results` enter; the files of `FILES` are written.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from relax_quantus import __version__
from relax_quantus.base.result_folder import written_together
from relax_quantus.base.source import source_sha256
from relax_quantus.benchmark.metrics import METRICS
from relax_quantus.benchmark.report.tables import markdown
from relax_quantus.benchmark.statistics.summary import DIFFERENCES
from relax_quantus.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from relax_quantus.benchmark.engine.runner import Results

PACKAGES = ("torch", "captum", "quantus", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "soundfile", "soxr")
ALL_DIFFERENT = ("value", "seconds")
FILES = ("results.csv", "results.parquet", "curves.parquet", "maps.parquet", "table.md", "run.json")


def provenance(results: Results) -> dict[str, Any]:
    """Everything that the results depended on, as plain values."""
    rows, main = results.rows, results.rows[results.rows.part == ""]
    return {
        "relax_quantus": __version__,
        "source_sha256": source_sha256(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        "configuration": results.config.as_dict(),
        "differences": DIFFERENCES,
        "seeds": {"data": results.config.seed, "masks_and_metrics": list(results.config.seeds)},
        "encoders": [
            {"name": name, "sha256": sha256, "perturbations_per_eval": results.micro_batches[name]}
            for name, sha256 in results.encoders.items()
        ],
        "datasets": [
            {
                "name": name,
                "classes": list(data.class_names),
                "clips": [clip.name for clip in data.clips],
                "notes": list(data.notes),
                "skipped": list(data.skipped),
            }
            for name, data in results.datasets.items()
        ],
        "head_accuracy": [
            {"dataset": dataset, "encoder": encoder, "value": value}
            for (dataset, encoder), value in results.head_accuracies.items()
        ],
        "masked_forwards": results.forwards,
        "cells": results.cells,
        "cells_reused": results.reused,
        "cells_computed_anew": results.anew,
        "seconds": results.seconds,
        "seconds_by_metric": {str(k): round(float(v), 2) for k, v in rows.groupby("metric").seconds.sum().items()},
        "status": {str(k): int(v) for k, v in main.status.value_counts().items()},
        "metrics": {name: METRICS.summary(name) for name in results.config.metrics},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def write(results: Results, folder: str | os.PathLike[str]) -> list[Path]:
    """Write all files into `folder`, which is made if needed, and return their paths; each appears whole or not at all.

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
    """With Zstandard at level 9, and a dictionary only of columns that repeat: 60 % of the size that pandas' defaults give a run's curves."""
    repeating = [name for name in table.columns if name not in ALL_DIFFERENT]
    table.to_parquet(path, index=False, compression="zstd", compression_level=9, use_dictionary=repeating)


def _json(results: Results) -> str:
    return json.dumps(provenance(results), indent=1, ensure_ascii=False) + "\n"
