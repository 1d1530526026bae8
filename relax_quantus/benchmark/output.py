"""Results on disk: tidy CSV and Parquet, the tables as Markdown, and what the run depended on as JSON.

Last step of the benchmark's flow: `Results` enter; ``results.csv``, ``results.parquet``, ``table.md`` and ``run.json`` are written.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from relax_quantus import __version__
from relax_quantus.benchmark.metrics import METRICS
from relax_quantus.benchmark.tables import markdown
from relax_quantus.errors import DataError

if TYPE_CHECKING:
    from relax_quantus.benchmark.runner import Results

PACKAGES = ("torch", "captum", "quantus", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "soundfile", "soxr")
FILES = ("results.csv", "results.parquet", "table.md", "run.json")


def provenance(results: Results) -> dict[str, Any]:
    """Everything that the results depended on, as plain values."""
    rows = results.rows
    return {
        "relax_quantus": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        "configuration": results.config.as_dict(),
        "seeds": {"masks_metrics_and_clips": results.config.seed},
        "encoder_sha256": results.encoder_sha256,
        "dataset": {
            "name": results.dataset.name,
            "classes": list(results.dataset.class_names),
            "clips": [clip.name for clip in results.dataset.clips],
            "notes": list(results.dataset.notes),
            "skipped": list(results.dataset.skipped),
        },
        "head_accuracy": results.head_accuracy,
        "masked_forwards": results.forwards,
        "seconds": results.seconds,
        "seconds_by_metric": {str(k): round(float(v), 2) for k, v in rows.groupby("metric").seconds.sum().items()},
        "status": {str(k): int(v) for k, v in rows.status.value_counts().items()},
        "metrics": {name: METRICS.summary(name) for name in results.config.metrics},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def write(results: Results, folder: str | os.PathLike[str]) -> list[Path]:
    """Write all four files into `folder`, which is made if needed, and return their paths.

    Raises
    ------
    DataError
        If the folder cannot be written to.
    """
    out = Path(folder)
    paths = [out / name for name in FILES]
    try:
        out.mkdir(parents=True, exist_ok=True)
        results.rows.to_csv(paths[0], index=False)
        results.rows.to_parquet(paths[1], index=False)
        paths[2].write_text(markdown(results), encoding="utf-8")
        paths[3].write_text(json.dumps(provenance(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out}: expected a folder that can be written to, got {error}; choose another.") from error
    return paths
