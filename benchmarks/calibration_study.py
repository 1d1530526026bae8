"""Do 95 % intervals hold the converged value in 95 % of cases? Hundreds of seeds a stratum, on real recordings.

    python -m benchmarks.calibration_study --data FOLDER [--clips 4 --rounds 25 --precision bfloat16] [--out FILE] [--pool FOLDER]

For each strategy, fill and clip, similarities under `--rounds` x 6000 masks are computed once and kept in `--pool`, so that a stopped run
goes on; every clip has masks of its own. Slices of N masks are seeds. What a slice's interval should hold is the mean of the surrogate's
estimates from all slices of 3000 that do not overlap it; that mean's own error is added to the interval's. "tolerance" is an explanation that
stops by itself (`RELAX.explain`'s schedule) below 6000 masks. A coverage is a mean over a map's entries, seeds and clips; its interval is
that of the seeds' coverages.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import relax_quantus as rq
from benchmarks.estimator_study import FILLS, REFERENCE, Stratum, examples
from relax_quantus.estimators import Estimate
from relax_quantus.mask_model import contrast
from relax_quantus.perturbation import MaskedTensor, masked_tensor
from relax_quantus.stopping import SequentialEstimate, looks

ROUND = 6000
SIZES = {250: 2, 1000: 1, REFERENCE: 1}
"""Masks of a seed, and how many such seeds each slice of 3000 gives."""
ESTIMATORS = ("weighted", "surrogate")
TOLERANCE = 0.5
ENTRIES = 16
"""Every so many-th entry of the map and so on: neighbours say the same."""


@dataclass(frozen=True)
class Seed:
    """One estimate of one clip's map from masks of its own.

    `n_samples` is 0 under the tolerance stop, where `masks` says how many it took; errors are mean squares over the map's entries.
    """

    strategy: str
    fill: str
    estimator: str
    n_samples: int
    clip: int
    masks: int
    coverage: float
    squared_error: float
    squared_standard_error: float
    spread: float


def pooled(x: Tensor, name: str, fill: str, clip: int, rounds: int, pool: Path, precision: str) -> Tensor:
    """Similarities ``(6000 * rounds, 1)`` of vggish_mini for one clip, each round from a seed of its own."""
    relax, parts = rq.RELAX(rq.load_encoder("vggish_mini"), masks=name, precision=precision), []
    for number in range(rounds):
        file = pool / f"{name}_{fill}_{precision}_{clip}_{number}.npy"
        if not file.exists():
            part = file.with_suffix(".part.npy")
            np.save(part, relax.similarities(x, fill, n_samples=ROUND, seed=seed_of(clip, number)).numpy())
            os.replace(part, file)
        parts.append(torch.from_numpy(np.load(file)))
    return torch.cat(parts)


def seed_of(clip: int, number: int) -> int:
    """Of the masks of a clip's round."""
    return 100_000 * (clip + 1) + number


def stratum(
    x: Tensor, name: str, fill: str, clip: int, rounds: int, pool: Path, precision: str
) -> tuple[Stratum, MaskedTensor]:
    """One clip ``(1, 1, 96, 64)`` with its masks and similarities."""
    strategy = rq.masks.get(name)
    assert isinstance(strategy, rq.masks.GridStrategy)
    frames, bands = x.shape[-2:]
    columns, tensor = strategy.columns(frames, bands), masked_tensor(x, fill, None)
    seeds = [seed_of(clip, number) for number in range(rounds)]
    uniform = torch.cat([torch.rand(ROUND, columns, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    masks, factors = strategy.build(uniform, frames, bands), strategy.factors(uniform, frames, bands)
    similarities = pooled(x, name, fill, clip, rounds, pool, precision)
    return Stratum(strategy, similarities, masks, factors, contrast(tensor, frames, bands)), tensor


def stopped(given: Stratum, tensor: MaskedTensor, estimator: str, start: int) -> tuple[Estimate, int]:
    """Estimate from the masks after `start` until the tolerance holds, at most 6000; the estimate and the masks it took."""
    sequential = SequentialEstimate([tensor], [given.accumulator(estimator, slice(start, start + ROUND))], TOLERANCE)
    done = 0
    for look in [*looks(ROUND), ROUND]:
        rows = slice(start + done, start + look)
        sequential.update(given.similarities[rows], [given.masks[rows]])
        done = look
        if sequential.is_sure():
            break
    return sequential.estimates()[0], done


def seeds(given: Stratum, tensor: MaskedTensor, name: str, fill: str, clip: int) -> Iterator[Seed]:
    """Judge every seed of a clip."""
    starts = range(0, len(given.similarities), REFERENCE)
    long = [given.estimate("surrogate", slice(start, start + REFERENCE)) for start in starts]
    importance = torch.stack([e.importance.flatten() for e in long]).double()
    variance = torch.stack([e.standard_error.flatten().square() for e in long]).double()

    def judged(estimate: Estimate, estimator: str, n: int, masks: int, start: int) -> Seed:
        apart = torch.tensor([not (s < start + masks and start < s + REFERENCE) for s in starts])
        reference, own = importance[apart].mean(0), variance[apart].mean(0) / int(apart.sum())
        gap = (estimate.importance.flatten() - reference).double()
        error = estimate.standard_error.flatten().double().square()
        inside = float((gap.abs() <= 1.959964 * (error + own).sqrt())[::ENTRIES].double().mean())
        wrong, spread = float((gap.square() - own).mean()), float(reference.std())
        return Seed(name, fill, estimator, n, clip, masks, inside, wrong, float(error.mean()), spread)

    for estimator in ESTIMATORS:
        for number, start in enumerate(starts):
            for n, each in SIZES.items():
                for k in range(each):
                    known = estimator == "surrogate" and n == REFERENCE
                    rows = slice(start + k * n, start + (k + 1) * n)
                    estimate = long[number] if known else given.estimate(estimator, rows)
                    yield judged(estimate, estimator, n, n, rows.start)
        for start in range(0, len(given.similarities), ROUND):
            estimate, masks = stopped(given, tensor, estimator, start)
            yield judged(estimate, estimator, 0, masks, start)


def table(found: list[Seed]) -> str:
    """Write coverage with its interval and masks saved, a line a stratum, as Markdown."""
    lines = [
        "| masks | fill | N | seeds | coverage %: weighted | surrogate | masks saved | masks used under tolerance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str, int], dict[str, list[Seed]]] = defaultdict(lambda: defaultdict(list))
    for seed in found:
        groups[seed.strategy, seed.fill, seed.n_samples][seed.estimator].append(seed)
    for (name, fill, n), arms in groups.items():
        shown = []
        for estimator in ESTIMATORS:
            shares = np.array([100 * seed.coverage for seed in arms[estimator]])
            shown.append(f"{shares.mean():.1f} ± {1.96 * shares.std(ddof=1) / np.sqrt(len(shares)):.1f}")
        ratios, used = list[float](), "; ".join(f"{np.median([s.masks for s in arms[e]]):.0f}" for e in ESTIMATORS)
        for clip in sorted({seed.clip for seed in arms["weighted"]}):
            wrong = [float(np.mean([s.squared_error for s in arms[e] if s.clip == clip])) for e in ESTIMATORS]
            ratios.append(wrong[0] / max(wrong[1], 1e-12))
        saved = f"{np.median(ratios):.1f} (lowest clip {min(ratios):.2f})" if n else ""
        lines.append(
            f"| {name} | {fill} | {n or 'tolerance'} | {len(arms['weighted'])} | {shown[0]} | {shown[1]} | {saved} | "
            f"{'' if n else used} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description="Coverage of the estimators' 95 % intervals, stratum by stratum.")
    parser.add_argument("--data", type=Path, required=True, help="a folder of recordings, one folder a class")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/calibration_study.json"))
    parser.add_argument("--pool", type=Path, default=Path("calibration_pool"), help="where similarities are kept")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=25, help="of 6000 masks each, at least 2")
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16"),
        help="of the encoder, whose converged map is then that precision's",
    )
    parser.add_argument("--strategies", nargs="+", default=list(rq.masks.STRATEGIES))
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds: at least 2")
    arguments.pool.mkdir(parents=True, exist_ok=True)
    x, found = examples(arguments.data, arguments.clips), list[Seed]()
    cells = [(n, f, c) for n in arguments.strategies for f in FILLS for c in range(arguments.clips)]
    for name, fill, clip in tqdm(cells, desc="clips"):
        pool = arguments.rounds, arguments.pool, arguments.precision
        given, tensor = stratum(x[clip : clip + 1], name, fill, clip, *pool)
        found += seeds(given, tensor, name, fill, clip)
        arguments.out.write_text(json.dumps([asdict(seed) for seed in found]) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
