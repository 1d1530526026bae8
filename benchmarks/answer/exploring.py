"""Print the other exploratory numbers of docs/which_masking.md, from published results alone.

They are pairs of strategies by encoder, what twins score, and by how much taking them off
multiplies the variance of a difference.

    python -m benchmarks.answer.exploring benchmarks/results/recordings

Differences are means over source groups with their intervals, p of paired Wilcoxon tests after
Holm's correction within each block that is printed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from relax_quantus.benchmark.report.results_folder import read
from relax_quantus.benchmark.statistics import intervals
from relax_quantus.benchmark.statistics.comparisons import Comparison
from relax_quantus.benchmark.statistics.endpoints import Endpoint, crossed, normalised
from relax_quantus.benchmark.statistics.families import BASELINE, against_nulls, averaged, family, matches, variants
from relax_quantus.benchmark.statistics.rows import measured, pooled
from relax_quantus.benchmark.statistics.summary import SMALLEST_AUC, SMALLEST_GAIN

FACTORS = ("masks", "fill")
TRUTHS = ("AUC-region", "AUC-region-absolute", "MassAccuracy-region-absolute", "AUC")


def pairs(endpoint: Endpoint) -> Iterator[str]:
    """Say of each pair of strategies, then of fills, how their scores differ, a line each."""
    found = [v for v in variants(endpoint.rows) if v.kind == "RELAX"]
    for factor in FACTORS:
        yield from (said(c) for c in family(endpoint, matches(found, factor), 0))


def price_of_twins(endpoint: Endpoint) -> Iterator[str]:
    """Say how many times more each pair's difference varies minus twins than as it is.

    One line a pair of strategies; the variance is that between source groups.
    """
    found = [v for v in variants(endpoint.rows) if v.kind == "RELAX"]
    for (a, b), matched in matches(found, "masks").items():
        minus, raw = (np.var(averaged(endpoint, matched, twins)[0], ddof=1) for twins in (True, False))
        yield f"{a} - {b}: {minus / raw:.1f} times ({math.sqrt(raw):.3f} to {math.sqrt(minus):.3f}, standard deviations)"


def twins(rows: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each strategy's twins, averaged over evaluators, fills and encoders."""
    for masks, part in rows[rows.twin_of != ""].groupby("masks"):
        e = intervals.mean(part.groupby("source_group").score.mean().to_numpy())
        yield f"twin of {masks}: {e.value:.3f} [{e.low:.3f}, {e.high:.3f}], n = {e.n}"


def beside_energy(endpoint: Endpoint) -> Iterator[str]:
    """Yield a line for each strategy, averaged over its fills, against plain energy."""
    for found in against_nulls(endpoint, "embedding"):
        if found.name.endswith(BASELINE):
            yield from (said(c) for c in found.comparisons)


def said(c: Comparison) -> str:
    """Write a comparison on one line."""
    d = c.difference
    return (
        f"{c.a} - {c.b}: {d.value:.3f} [{d.low:.3f}, {d.high:.3f}], p (Holm) = {c.p_holm:.4f}, n = {c.n}, {c.verdict}"
    )


def draws(rows: pd.DataFrame) -> Iterator[str]:
    """Yield a line a strategy: how much its and its twin's scores vary between mask seeds.

    The standard deviation of one clip's score on single bins, foreign fills.
    """
    bins = rows[(rows.granularity == "bin") & (rows.masks != "") & (rows.fill != rows.evaluator_fill)]
    one = bins.groupby(["masks", "twin_of", "encoder", "clip", "method", "seed"]).score.mean()
    between = one.groupby(level=[0, 1, 2, 3, 4]).var(ddof=1).reset_index()
    for masks, part in between.dropna().groupby("masks"):
        own, twin = (math.sqrt(part.score[part.twin_of.ne("") == which].mean()) for which in (False, True))
        yield f"{masks}: {own:.3f}, its twin's {twin:.3f}"


def main() -> None:
    """Print everything that the folder has."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer.exploring")
    parser.add_argument("results", type=Path, help="folder with results.parquet")
    rows = measured(read(parser.parse_args().results).rows)
    gains = normalised(crossed(rows, "embedding"))
    if len(gains):
        print("\n".join(("twins, share of gain", *twins(gains))))
        if gains.seed.nunique() > 1:
            print("\n".join(("\nstandard deviation between mask seeds, share of gain", *draws(gains))))
        trained = pooled(gains)[0]
        price = price_of_twins(Endpoint("gain", trained, SMALLEST_GAIN))
        print("\n".join(("\nvariance of a difference, minus twins against as it is", *price)))
        for encoder, part in gains.groupby("encoder", sort=False):
            print("\n".join((f"\n{encoder}", *pairs(Endpoint("gain", part, SMALLEST_GAIN)))))
    for (dataset, metric), part in rows[rows.metric.isin(TRUTHS)].groupby(["dataset", "metric"], sort=False):
        cells = part.drop_duplicates(["encoder", "clip", "seed"])
        print(
            f"\n{metric} on {dataset}: {len(cells)} of clip, encoder and seed, {part.source_group.nunique()} source groups\ntwins"
        )
        print("\n".join((*twins(part), "strategies and fills")))
        one = Endpoint(str(metric), part, SMALLEST_AUC)
        print("\n".join((*pairs(one), "against energy", *beside_energy(one))))


if __name__ == "__main__":
    main()
