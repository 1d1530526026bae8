"""Hold what a run leaves: tidy tables with fixed columns, and what they depended on.

`runner.run` makes `Results`; `provenance` says as plain values what ``run.json`` holds of them.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from relax_quantus import __version__
from relax_quantus.base.source import source_sha256
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.datasets import Dataset
from relax_quantus.benchmark.metrics import METRICS
from relax_quantus.benchmark.statistics.summary import DIFFERENCES

if TYPE_CHECKING:
    import pandas as pd

WHERE = ("dataset", "encoder", "seed")
COLUMNS = WHERE + (
    ("clip", "label", "source_group", "method", "base", "masks", "fill", "edges", "keep", "own_granularity", "twin_of")
    + ("estimator", "n_samples")
    + ("metric", "part", "category", "direction", "view", "granularity", "evaluator_fill", "question")
    + ("value", "seconds", "status", "reason")
)  # fmt: skip
CURVE_COLUMNS = WHERE + ("clip", "method", "metric", "order", "share", "value")
MAP_COLUMNS = WHERE + ("clip", "method", "question", "n_samples", "seconds")
TABLES = {"rows": COLUMNS, "curves": CURVE_COLUMNS, "maps": MAP_COLUMNS}
NUMBERS = ("keep", "value", "share", "seconds")
PACKAGES = ("torch", "captum", "quantus", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "soundfile", "soxr")


@dataclass(frozen=True, eq=False)
class Results:
    """The tables that a run leaves, with everything that they depended on.

    Attributes
    ----------
    config
        With every method, metric, data set, encoder and seed named.
    rows
        Tidy: one row a data set, encoder, seed, clip, method, metric and part, columns `COLUMNS`.
        ``status`` is "ok", or "not_applicable", "undefined", "nan", "failed", "timeout" or
        "out_of_memory" with a ``reason`` and no value.
    curves, maps
        The metrics' curves, one row a point, columns `CURVE_COLUMNS`; and the maps that were made,
        with their seconds, columns `MAP_COLUMNS`.
    datasets
        Name in the table -> data set: its classes, notes and skipped files are printed.
    head_accuracies
        ``(data set, encoder)`` -> share of held-out clips that the head gets right (the mean logit
        over a clip's examples).
    encoders
        Specification -> SHA-256 of the weights.
    micro_batches
        Specification of an encoder -> masked copies a forward.
    seconds
        Wall-clock time of each part of this run; a method's is that of its maps, not of explaining
        again in metrics.
    cells, reused
        Cells of the grid, and how many of them were already in the store.
    anew
        Cells that were in the store and were computed anew, by what had changed.
    forwards
        Masked encoder forwards that RELAX's maps in the grid rest on, each counted once, however
        many cells, runs or workers asked for it.
    """

    config: BenchmarkConfig
    rows: pd.DataFrame
    curves: pd.DataFrame
    maps: pd.DataFrame
    datasets: dict[str, Dataset]
    head_accuracies: dict[tuple[str, str], float]
    encoders: dict[str, str]
    micro_batches: dict[str, int | None]
    seconds: dict[str, float] = field(default_factory=dict)
    cells: int = 0
    reused: int = 0
    anew: dict[str, int] = field(default_factory=dict)
    forwards: int = 0

    @property
    def dataset(self) -> Dataset:
        """Return the first data set."""
        return next(iter(self.datasets.values()))

    @property
    def head_accuracy(self) -> float:
        """Return the accuracy of the head on the first data set and encoder."""
        return next(iter(self.head_accuracies.values()), float("nan"))

    @property
    def encoder_sha256(self) -> str:
        """Return the SHA-256 of the first encoder's weights."""
        return next(iter(self.encoders.values()))


def provenance(results: Results) -> dict[str, Any]:
    """Return everything that the results depended on, as plain values."""
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
