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
SIZES = {250: 3, 1000: 3, REFERENCE: 1}
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


def similarities(x: Tensor, name: str, fill: str, clip: int, number: int, pool: Path, precision: str) -> Tensor:
    """Similarities ``(6000, 1)`` of vggish_mini for one clip under the masks of a round, kept in `pool`."""
    file = pool / f"{name}_{fill}_{precision}_{clip}_{number}.npy"
    if not file.exists():
        relax = rq.RELAX(rq.load_encoder("vggish_mini"), masks=name, precision=precision)
        part = file.with_suffix(".part.npy")
        np.save(part, relax.similarities(x, fill, n_samples=ROUND, seed=seed_of(clip, number)).numpy())
        os.replace(part, file)
    return torch.from_numpy(np.load(file))


def seed_of(clip: int, number: int) -> int:
    """Of the masks of a clip's round."""
    return 100_000 * (clip + 1) + number


def stratum(tensor: MaskedTensor, name: str, fill: str, clip: int, number: int, pool: Path, precision: str) -> Stratum:
    """One round of masks of one clip, with its similarities."""
    strategy = rq.masks.get(name)
    assert isinstance(strategy, rq.masks.GridStrategy)
    frames, bands = tensor.x.shape[-2:]
    generator = torch.Generator().manual_seed(seed_of(clip, number))
    uniform = torch.rand(ROUND, strategy.columns(frames, bands), generator=generator)
    masks, factors = strategy.build(uniform, frames, bands), strategy.factors(uniform, frames, bands)
    found = similarities(tensor.x, name, fill, clip, number, pool, precision)
    return Stratum(strategy, found, masks, factors, contrast(tensor, frames, bands))


def stopped(given: Stratum, tensor: MaskedTensor, estimator: str) -> tuple[Estimate, int]:
    """Estimate from a round's masks until the tolerance holds; the estimate and the masks it took."""
    sequential = SequentialEstimate([tensor], [given.accumulator(estimator, slice(0, ROUND))], TOLERANCE)
    done = 0
    for look in [*looks(ROUND), ROUND]:
        rows = slice(done, look)
        sequential.update(given.similarities[rows], [given.masks[rows]])
        done = look
        if sequential.is_sure():
            break
    return sequential.estimates()[0], done


@dataclass(frozen=True)
class Drawn:
    """An estimate from masks of its own, and where these stand in the clip's stream; maps ``(P,)`` float64."""

    estimator: str
    n_samples: int
    start: int
    masks: int
    importance: Tensor
    variance: Tensor


def drawn(given: Stratum, tensor: MaskedTensor, first: int) -> Iterator[Drawn]:
    """Every estimate that the study makes from one round, whose masks begin at `first`."""

    def one(estimate: Estimate, estimator: str, n: int, start: int, masks: int) -> Drawn:
        variance = estimate.standard_error.flatten().double().square()
        return Drawn(estimator, n, first + start, masks, estimate.importance.flatten().double(), variance)

    for estimator in ESTIMATORS:
        for start in range(0, ROUND, REFERENCE):
            for n, each in SIZES.items():
                for k in range(each):
                    rows = slice(start + k * n, start + (k + 1) * n)
                    yield one(given.estimate(estimator, rows), estimator, n, rows.start, n)
        estimate, masks = stopped(given, tensor, estimator)
        yield one(estimate, estimator, 0, 0, masks)


def judged(found: list[Drawn], name: str, fill: str, clip: int) -> Iterator[Seed]:
    """Hold every estimate of a clip against the mean of the surrogate's long ones that share no mask with it."""
    long = [d for d in found if d.estimator == "surrogate" and d.n_samples == REFERENCE]
    importance, variance = torch.stack([d.importance for d in long]), torch.stack([d.variance for d in long])
    for d in found:
        apart = torch.tensor([not (r.start < d.start + d.masks and d.start < r.start + r.masks) for r in long])
        reference, own = importance[apart].mean(0), variance[apart].mean(0) / int(apart.sum())
        gap = d.importance - reference
        inside = float((gap.abs() <= 1.959964 * (d.variance + own).sqrt())[::ENTRIES].double().mean())
        wrong, spread = float((gap.square() - own).mean()), float(reference.std())
        mean_square = float(d.variance.mean())
        yield Seed(name, fill, d.estimator, d.n_samples, clip, d.masks, inside, wrong, mean_square, spread)


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
        tensor, estimates = masked_tensor(x[clip : clip + 1], fill, None), list[Drawn]()
        for number in range(arguments.rounds):
            given = stratum(tensor, name, fill, clip, number, arguments.pool, arguments.precision)
            estimates += drawn(given, tensor, number * ROUND)
        found += judged(estimates, name, fill, clip)
        arguments.out.write_text(json.dumps([asdict(seed) for seed in found]) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
