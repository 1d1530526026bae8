"""Measure whether each strategy points at the call, beyond what its masks alone do.

Synthetic soundscapes with calls; maps towards the clean stem's embedding; localisation of each
strategy minus its shuffled twin's on the same clip; a percentile bootstrap over clips. Every seed
makes its own soundscapes, masks and permutations. Run it from the repository's root::

    python -m benchmarks.localisation_study --clips 40 --n-samples 1000 --seeds 0 1 2
        --out localisation_study.json

Costs 4 strategies x clips x (N + 1) x seeds encoder forwards: 480 000 for the line above.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.datasets import synthetic
from relax_quantus.benchmark.engine.results import Results
from relax_quantus.benchmark.engine.runner import run
from relax_quantus.relax.masks import STRATEGIES

METRICS = ("AUC", "RankAccuracy")
RESAMPLES = 10_000


def interval(values: npt.NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of `values`, one a clip."""
    draws = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def measure(clips: int, n_samples: int, seed: int, head_clips: int) -> Results:
    """Score all strategies and their twins on the soundscapes of one seed."""
    methods = tuple(name for masks in STRATEGIES for name in (f"RELAX-{masks}", f"RELAX-{masks} twin"))
    config = BenchmarkConfig(
        preset="localisation study", max_clips=clips, n_samples=n_samples, seed=seed, methods=methods, metrics=METRICS
    )
    return run(config, dataset=synthetic(clips, seed, head_clips, call_free_every=0))


def minus_twin(rows: pd.DataFrame, method: str, metric: str) -> pd.Series:
    """Subtract a twin's scores from its strategy's on the same clips."""
    wide = rows[(rows.metric == metric) & (rows.part == "")].pivot(index="clip", columns="method", values="value")
    return wide[method] - wide[f"{method} twin"]


def summary(rows: pd.DataFrame, seeds: str) -> list[dict[str, Any]]:
    """Summarise the scores, one entry a strategy and metric."""
    entries = []
    for masks in STRATEGIES:
        method = f"RELAX-{masks}"
        for metric in METRICS:
            gain = minus_twin(rows, method, metric).dropna().to_numpy(dtype=np.float64)
            mine = rows[(rows.method == method) & (rows.metric == metric)].value
            entry = {"seeds": seeds, "method": method, "metric": metric, "clips": len(gain), "mean": float(mine.mean())}
            if len(gain):
                low, high = interval(gain)
                entry |= {"minus_twin": float(gain.mean()), "low": low, "high": high, "above_zero": low > 0}
            entries.append(entry)
    return entries


def main() -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--n-samples", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--head-clips", type=int, default=480)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own number")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the results")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    parts, entries, heads, encoder = [], [], {}, ""
    for seed in options.seeds:
        results = measure(options.clips, options.n_samples, seed, options.head_clips)
        rows, heads[seed], encoder = results.rows, results.head_accuracy, results.encoder_sha256
        parts.append(rows)
        entries += summary(rows, str(seed))
        print(pd.DataFrame(entries).tail(len(METRICS) * len(STRATEGIES.names())).to_string(index=False), flush=True)
        print(
            f"head accuracy {heads[seed]:.3f}; not measured: {dict(rows[rows.status != 'ok'].reason.value_counts())}",
            flush=True,
        )
    pooled = summary(pd.concat(parts), "all")
    print(pd.DataFrame(pooled).to_string(index=False))
    if options.out is not None:
        settings = {name: value for name, value in vars(options).items() if name != "out"}
        found = {"settings": settings, "encoder_sha256": encoder, "head_accuracy": heads, "results": entries + pooled}
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
