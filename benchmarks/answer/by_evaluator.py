"""Compare strategies, and plain energy, on one unit of removal at a time.

    python -m benchmarks.answer.by_evaluator benchmarks/results/recordings

Makes the exploratory tables of docs/which_masking.md from published results alone: shares of gain
on the embedding, of trained encoders; each explainer on the fills that are not its own, mean over
all three; its own unit counts, a unit that its maps cannot rank does not. Scores as they are;
against energy without its fill, silence. One number a source group, paired Wilcoxon test (not
corrected), bootstrap interval over source groups.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import combinations, product
from pathlib import Path

import pandas as pd

from relax_quantus.benchmark.report.results_folder import read
from relax_quantus.benchmark.statistics.comparisons import compare
from relax_quantus.benchmark.statistics.endpoints import crossed, normalised
from relax_quantus.benchmark.statistics.intervals import mean
from relax_quantus.benchmark.statistics.rows import CELL, measured, pooled

STRATEGIES = ("random", "time", "frequency", "time_frequency")
UNITS = ("bin", "patch", "time", "frequency")
FILLS = ("fill", "evaluator_fill")
ENERGY = "energy"


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Tabulate gains: a line a unit, pair of fills and explained example, a column a strategy.

    NaN where it has no score.
    """
    relax = rows[rows.base.isin([f"RELAX-{m}" for m in STRATEGIES])]
    foreign = relax[relax.fill != relax.evaluator_fill]
    return foreign.groupby(["masks", "granularity", *FILLS, *CELL], sort=False).score.mean().unstack("masks")


def with_energy(rows: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the same with energy's own scores, on evaluators that do not fill with silence."""
    table = gains(rows)
    table = table[table.index.get_level_values("evaluator_fill") != "silence"]
    keys = ["granularity", "evaluator_fill", *CELL]
    energy = rows[rows.method == ENERGY].groupby(keys, sort=False).score.mean()
    return table.join(energy.rename(ENERGY), on=keys)


def difference(here: pd.DataFrame, a: str, b: str) -> pd.Series:
    """Subtract b from a, line by line on the same example and fills; one number a source group."""
    return (here[a] - here[b]).dropna().groupby("source_group").mean()


def levels(here: pd.DataFrame) -> Iterator[str]:
    """Say what each strategy reaches, mean over source groups."""
    for name in (c for c in here if here[c].notna().any()):
        e = mean(here[name].groupby("source_group").mean().to_numpy())
        yield f"{name}: {e.value:.2f} [{e.low:.2f}, {e.high:.2f}], n = {e.n}"


def pairs(here: pd.DataFrame, those: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a line for each pair that has scores."""
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
        ("all evaluators with another fill", gains(shares), combinations(STRATEGIES, 2)),
        ("beside energy, without the fill silence", with_energy(shares), beside_energy),
    ):
        print(title)
        listed = list(those)
        for unit in UNITS:
            here = table[table.index.get_level_values("granularity") == unit]
            for line in (*levels(here), *pairs(here, listed)):
                print(f"{unit:10s} {line}")


if __name__ == "__main__":
    main()
