"""Strategies compared on one kind of evaluator at a time: the exploratory table of docs/which_masking.md, from the published results alone.

    python -m benchmarks.answer.by_evaluator benchmarks/results/recordings

Gains minus twins on the embedding, of trained encoders; each explainer on the evaluator that fills with what it does not, mean over both fills;
one number a source, paired Wilcoxon test (not corrected), percentile bootstrap over sources.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

PAIRS = (("random", "time"), ("random", "frequency"), ("time_frequency", "time"), ("time_frequency", "frequency"))
UNITS = ("bin", "patch", "time", "frequency")
FOREIGN = {"": "mean", ":fill=mean": "silence"}
RESAMPLES = 2000


def gains(rows: pd.DataFrame, masks: str, unit: str) -> pd.Series:
    """One number a source."""
    found = []
    for fill, evaluator in FOREIGN.items():
        mine = rows[rows.metric == f"SRG-{unit}-{evaluator}"]
        values = [
            mine[mine.method == name].set_index(["encoder", "clip", "source_group"]).value
            for name in (f"RELAX-{masks}{fill}", f"RELAX-{masks} twin{fill}")
        ]
        found.append((values[0] - values[1]).groupby("source_group").mean())
    return (found[0] + found[1]) / len(FOREIGN)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer.by_evaluator")
    parser.add_argument("results", type=Path, help="folder with results.parquet")
    rows = pd.read_parquet(parser.parse_args().results / "results.parquet")
    rows = rows[(rows.part == "") & ~rows.encoder.str.startswith("random")]
    for unit, (a, b) in product(UNITS, PAIRS):
        differences = (gains(rows, a, unit) - gains(rows, b, unit)).to_numpy()
        draws = np.random.default_rng(0).integers(0, len(differences), (RESAMPLES, len(differences)))
        low, high = np.percentile(differences[draws].mean(1), [2.5, 97.5])
        p = wilcoxon(differences).pvalue
        print(
            f"{unit:10s} {a} - {b}: {differences.mean():.2f} [{low:.2f}, {high:.2f}], p = {p:.4f}, n = {len(differences)}"
        )


if __name__ == "__main__":
    main()
