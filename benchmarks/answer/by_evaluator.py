"""Strategies compared on one unit of removal at a time: the exploratory table of docs/which_masking.md, from the published results alone.

    python -m benchmarks.answer.by_evaluator benchmarks/results/recordings

Shares of gain minus twins on the embedding, of trained encoders; each explainer on the two fills that are not its own, mean over all three; its own
unit counts, a unit that its maps cannot rank does not. One number a source, paired Wilcoxon test (not corrected), bootstrap interval over sources.
"""

from __future__ import annotations

import argparse
from itertools import combinations, product
from pathlib import Path

import pandas as pd

from relax_quantus.benchmark.report.reading import read
from relax_quantus.benchmark.statistics.comparisons import compare
from relax_quantus.benchmark.statistics.crossing import crossed, normalised
from relax_quantus.benchmark.statistics.rows import CELL, measured, pooled

STRATEGIES = ("random", "time", "frequency", "time_frequency")
UNITS = ("bin", "patch", "time", "frequency")
FILLS = ("fill", "evaluator_fill")


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Gain minus twin, one line a unit, pair of fills and explained example, one column a strategy; NaN where it or its twin has no score."""
    relax = rows[rows.base.isin([f"RELAX-{m}{twin}" for m in STRATEGIES for twin in ("", " twin")])]
    foreign = relax[relax.fill != relax.evaluator_fill]
    sign = 1 - 2 * (foreign.twin_of != "")
    by_cell = foreign.assign(score=foreign.score * sign).groupby(["masks", "granularity", *FILLS, *CELL], sort=False)
    differences = by_cell.score.agg(["sum", "count"])
    return differences["sum"].where(differences["count"] == 2).unstack("masks")


def difference(here: pd.DataFrame, a: str, b: str) -> pd.Series:
    """``a - b``, one number a source: each line with the other strategy's on the same example and the same fills."""
    return (here[a] - here[b]).dropna().groupby("source_group").mean()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer.by_evaluator")
    parser.add_argument("results", type=Path, help="folder with results.parquet")
    rows, _ = pooled(measured(read(parser.parse_args().results).rows))
    table = gains(normalised(crossed(rows, "embedding")))
    for unit, (a, b) in product(UNITS, combinations(STRATEGIES, 2)):
        here = table[table.index.get_level_values("granularity") == unit]
        if a in here and b in here and len(found := difference(here, a, b)):
            c = compare(a, b, found)
            d = c.difference
            print(f"{unit:10s} {a} - {b}: {d.value:.2f} [{d.low:.2f}, {d.high:.2f}], p = {c.p:.4f}, n = {c.n}")


if __name__ == "__main__":
    main()
