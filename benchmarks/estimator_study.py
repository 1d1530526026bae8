"""Measure how many masks the surrogate saves and whether its error bars are honest.

    python -m benchmarks.estimator_study --data FOLDER --out benchmarks/estimator_study.json
        [--clips 20 --masks 6000 --pool FOLDER]

For each strategy and fill, the similarities of `--clips` recordings under `--masks` masks are
computed once and kept in `--pool`, so that a stopped run goes on. Slices of N masks then give
independent estimates; each is compared with a reference, the mean of surrogate estimates from the
slices of 3000 masks that it does not share. Errors are mean squares over an example's entries; the
reference's own error is subtracted from them, and added to the standard error where coverage is
counted. Masks are shared by the clips.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import relax_quantus as rq
from relax_quantus.relax.call import masked_tensor
from relax_quantus.relax.estimation import contrast
from relax_quantus.relax.estimators import Accumulator, BoundMasks, Estimate, Surrogate, Weighted
from relax_quantus.relax.masks.grid import Lattice

FILLS = ("silence", "mean")
SIZES = (250, 1000, 3000)
MOST_SLICES = {250: 8, 1000: 4, 3000: 2}
ROUND = 2000
FIRST_SEED = 1000
REFERENCE = 3000


@dataclass(frozen=True)
class Row:
    """One clip under one strategy, fill, estimator and N."""

    strategy: str
    fill: str
    estimator: str
    n_samples: int
    clip: int
    slices: int
    squared_error: float
    spread: float
    squared_standard_error: float
    coverage: float


@dataclass(frozen=True)
class Stratum:
    """A strategy's masks and every clip's similarities under them, with one fill."""

    strategy: rq.masks.GridStrategy
    similarities: Tensor
    masks: Tensor
    factors: tuple[Tensor, ...]
    contrast: Tensor

    def accumulator(self, estimator: str, rows: slice) -> Accumulator:
        """Begin an estimate from the masks in `rows`, to be given in their order."""
        if estimator == "weighted":
            return Weighted().start()
        distribution = AtHand(self, rows.start)
        masks = BoundMasks(lambda n, generator: distribution.build(distribution.numbers(n, generator)), distribution)
        return Surrogate().start(masks, self.contrast)

    def estimate(self, estimator: str, rows: slice) -> Estimate:
        """Estimate from the masks in `rows`."""
        accumulator = self.accumulator(estimator, rows)
        accumulator.update(self.similarities[rows], self.masks[rows])
        return accumulator.finish()


class AtHand:
    """The distribution of masks that are at hand: their numbers are their rows."""

    def __init__(self, stratum: Stratum, first: int) -> None:
        self.stratum, self.next = stratum, first

    def numbers(self, n: int, generator: torch.Generator) -> Tensor:
        """Number the next n masks."""
        self.next += n
        return torch.arange(self.next - n, self.next)

    def build(self, numbers: Tensor) -> Tensor:
        """Return the masks of these rows."""
        return self.stratum.masks[numbers]

    def factors(self, numbers: Tensor) -> tuple[Tensor, ...]:
        """Return the factors of these rows."""
        return tuple(f[numbers] for f in self.stratum.factors)

    def lattices(self, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """Return each factor's distribution."""
        frames, bands = self.stratum.contrast.shape[1:]
        return self.stratum.strategy.lattices(frames, bands, at_least, bank)


def examples(folder: Path, clips: int) -> Tensor:
    """Return the loudest example of `clips` recordings, ``(clips, 1, 96, 64)``.

    They are drawn with seed 0, one class after another.
    """
    generator = np.random.default_rng(0)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    drawn: list[Path] = []
    while len(drawn) < clips:
        files = sorted(path for path in classes[len(drawn) % len(classes)].rglob("*") if path.is_file())
        path = files[generator.integers(len(files))]
        if path not in drawn:
            drawn.append(path)
    loaded = [rq.load_examples(path) for path in drawn]
    return torch.stack([x[int(x.mean((1, 2, 3)).argmax())] for x in loaded])


def pooled(x: Tensor, strategy: str, fill: str, masks: int, pool: Path) -> Tensor:
    """Compute similarities ``(masks, clips)`` of vggish_mini in rounds that `pool` keeps.

    A round has 2000 masks.
    """
    encoder, rounds = rq.load_encoder("vggish_mini"), []
    for number in range(masks // ROUND):
        file = pool / f"{strategy}_{fill}_{len(x)}_{number}.npy"
        if not file.exists():
            relax = rq.RELAX(encoder, masks=strategy)
            similarities = relax.similarities(x, fill, n_samples=ROUND, seed=FIRST_SEED + number)
            part = file.with_suffix(".part.npy")
            np.save(part, similarities.numpy())
            os.replace(part, file)
        rounds.append(torch.from_numpy(np.load(file)))
    return torch.cat(rounds)


def stratum(x: Tensor, name: str, fill: str, masks: int, pool: Path) -> Stratum:
    """Assemble one stratum."""
    strategy = rq.masks.get(name)
    assert isinstance(strategy, rq.masks.GridStrategy)
    frames, bands = x.shape[-2:]
    columns = strategy.columns(frames, bands)
    changed = contrast(masked_tensor(x, fill, None))
    assert changed is not None
    seeds = range(FIRST_SEED, FIRST_SEED + masks // ROUND)
    uniform = torch.cat([torch.rand(ROUND, columns, generator=torch.Generator().manual_seed(s)) for s in seeds])
    return Stratum(
        strategy,
        pooled(x, name, fill, masks, pool),
        strategy.build(uniform, frames, bands),
        strategy.factors(uniform, frames, bands),
        changed,
    )


def rows(given: Stratum, name: str, fill: str) -> Iterator[Row]:
    """Compare slices of every size with the slices of 3000 that they do not share."""
    total = len(given.similarities)
    cuts = {n: [slice(i, i + n) for i in range(0, total - n + 1, n)] for n in SIZES}
    long = [given.estimate("surrogate", cut) for cut in cuts[REFERENCE]]
    for n in SIZES:
        for estimator in ("weighted", "surrogate"):
            gaps, errors, inside = [], [], []
            for cut in cuts[n][: MOST_SLICES[n]]:
                known = (estimator, n) == ("surrogate", REFERENCE)
                estimate = long[cut.start // REFERENCE] if known else given.estimate(estimator, cut)
                apart = zip(long, cuts[REFERENCE], strict=True)
                others = [e for e, c in apart if c.stop <= cut.start or c.start >= cut.stop]
                reference = torch.stack([e.importance for e in others]).mean(0)
                own = torch.stack([e.standard_error.square() for e in others]).mean(0) / len(others)
                gap, error = (estimate.importance - reference).flatten(1), estimate.standard_error.square().flatten(1)
                both = (error + own.flatten(1)).sqrt()
                gaps.append((gap.square() - own.flatten(1)).mean(1))
                errors.append(error.mean(1))
                inside.append((gap.abs() <= 1.96 * both).double().mean(1))
            spread = torch.stack([e.importance for e in long]).mean(0).flatten(1).std(1)
            means = [torch.stack(values).mean(0).tolist() for values in (gaps, errors, inside)]
            for clip, (gap2, error2, share) in enumerate(zip(*means, strict=True)):
                yield Row(name, fill, estimator, n, clip, len(gaps), gap2, float(spread[clip]), error2, share)


def table(results: list[Row]) -> str:
    """Write medians over clips as Markdown: masks saved, error, coverage.

    Coverage is pooled over clips and slices.
    """
    lines = [
        "| masks | fill | N | masks saved, median [quartiles], min | RMSE / spread: weighted, surrogate | "
        "coverage % : weighted, surrogate |",
        "|---|---|---|---|---|---|",
    ]
    for name in rq.masks.STRATEGIES:
        for fill in FILLS:
            for n in SIZES:
                pair = [
                    [r for r in results if (r.strategy, r.fill, r.n_samples, r.estimator) == (name, fill, n, e)]
                    for e in ("weighted", "surrogate")
                ]
                if not pair[0]:
                    continue
                claimed = [w.squared_standard_error / s.squared_standard_error for w, s in zip(*pair, strict=True)]
                quartiles = np.percentile(claimed, [25, 50, 75])
                errors = [np.sqrt(max(0.0, np.median([r.squared_error / r.spread**2 for r in arm]))) for arm in pair]
                saved = sum(r.squared_error / r.spread**2 for r in pair[0]) / max(
                    1e-12, sum(r.squared_error / r.spread**2 for r in pair[1])
                )
                cover = [100 * np.mean([r.coverage for r in arm]) for arm in pair]
                lines.append(
                    f"| {name} | {fill} | {n} | {quartiles[1]:.1f} [{quartiles[0]:.1f}, {quartiles[2]:.1f}], "
                    f"{min(claimed):.2f}; by errors {saved:.1f} | {errors[0]:.3f}, {errors[1]:.3f} | {cover[0]:.1f}, {cover[1]:.1f} |"
                )
    return "\n".join(lines)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description="Masks saved by the surrogate, and coverage of its error bars.")
    parser.add_argument("--data", type=Path, required=True, help="a folder of recordings, one folder a class")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/estimator_study.json"))
    parser.add_argument("--pool", type=Path, default=Path("estimator_pool"), help="where similarities are kept")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--masks", type=int, default=6000, help="a multiple of 2000, at least 6000")
    parser.add_argument("--strategies", nargs="+", default=list(rq.masks.STRATEGIES))
    arguments = parser.parse_args()
    if arguments.masks < 2 * REFERENCE or arguments.masks % ROUND:
        parser.error("--masks: a multiple of 2000, at least 6000")
    arguments.pool.mkdir(parents=True, exist_ok=True)
    x, results = examples(arguments.data, arguments.clips), list[Row]()
    for name, fill in tqdm([(name, fill) for name in arguments.strategies for fill in FILLS], desc="strata"):
        results += rows(stratum(x, name, fill, arguments.masks, arguments.pool), name, fill)
        record = {"clips": arguments.clips, "masks": arguments.masks, "rows": [asdict(r) for r in results]}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
