"""Strategies, and plain energy, compared on one unit of removal at a time: the exploratory tables of docs/which_masking.md.

    python -m benchmarks.answer.by_evaluator benchmarks/results/recordings

From published results alone: shares of gain on the embedding, of trained encoders; each explainer on the fills that are not its own, mean over all
three; its own unit counts, a unit that its maps cannot rank does not. Strategies minus their twins; against energy, which has none, as they are and
without its fill, silence. One number a source, paired Wilcoxon test (not corrected), bootstrap interval over sources.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import combinations, product
from pathlib import Path

import pandas as pd

from relax_quantus.benchmark.report.reading import read
from relax_quantus.benchmark.statistics.comparisons import compare
from relax_quantus.benchmark.statistics.crossing import crossed, normalised
from relax_quantus.benchmark.statistics.intervals import mean
from relax_quantus.benchmark.statistics.rows import CELL, measured, pooled

STRATEGIES = ("random", "time", "frequency", "time_frequency")
UNITS = ("bin", "patch", "time", "frequency")
FILLS = ("fill", "evaluator_fill")
ENERGY = "energy"


def gains(rows: pd.DataFrame, minus_twins: bool = True) -> pd.DataFrame:
    """Gain, one line a unit, pair of fills and explained example, one column a strategy; NaN where it, or a twin that is taken off, has no score."""
    twins = ("", " twin") if minus_twins else ("",)
    relax = rows[rows.base.isin([f"RELAX-{m}{twin}" for m in STRATEGIES for twin in twins])]
    foreign = relax[relax.fill != relax.evaluator_fill]
    sign = 1 - 2 * (foreign.twin_of != "")
    by_cell = foreign.assign(score=foreign.score * sign).groupby(["masks", "granularity", *FILLS, *CELL], sort=False)
    differences = by_cell.score.agg(["sum", "count"])
    return differences["sum"].where(differences["count"] == len(twins)).unstack("masks")


def with_energy(rows: pd.DataFrame) -> pd.DataFrame:
    """The same as they are, with a column of energy's own scores, on evaluators that do not fill with silence."""
    table = gains(rows, minus_twins=False)
    table = table[table.index.get_level_values("evaluator_fill") != "silence"]
    keys = ["granularity", "evaluator_fill", *CELL]
    energy = rows[rows.method == ENERGY].groupby(keys, sort=False).score.mean()
    return table.join(energy.rename(ENERGY), on=keys)


def difference(here: pd.DataFrame, a: str, b: str) -> pd.Series:
    """``a - b``, one number a source: each line with the other's on the same example and the same fills."""
    return (here[a] - here[b]).dropna().groupby("source_group").mean()


def levels(here: pd.DataFrame) -> Iterator[str]:
    """What each strategy reaches, mean over sources."""
    for name in (c for c in here if here[c].notna().any()):
        e = mean(here[name].groupby("source_group").mean().to_numpy())
        yield f"{name}: {e.value:.2f} [{e.low:.2f}, {e.high:.2f}], n = {e.n}"


def pairs(here: pd.DataFrame, those: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A line for each pair that has scores."""
    for a, b in those:
        if a in here and b in here and len(found := difference(here, a, b)):
            c = compare(a, b, found)
            d = c.difference
            yield f"{a} - {b}: {d.value:.3f} [{d.low:.3f}, {d.high:.3f}], p = {c.p:.4f}, n = {c.n}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer.by_evaluator")
    parser.add_argument("results", type=Path, help="folder with results.parquet")
    rows, _ = pooled(measured(read(parser.parse_args().results).rows))
    shares = normalised(crossed(rows, "embedding"))
    beside_energy = product((ENERGY,), STRATEGIES)
    for title, table, those in (
        ("minus twins", gains(shares), combinations(STRATEGIES, 2)),
        ("as they are, without the fill silence", with_energy(shares), beside_energy),
    ):
        print(title)
        listed = list(those)
        for unit in UNITS:
            here = table[table.index.get_level_values("granularity") == unit]
            for line in (*levels(here), *pairs(here, listed)):
                print(f"{unit:10s} {line}")


if __name__ == "__main__":
    main()
