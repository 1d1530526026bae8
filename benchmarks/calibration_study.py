"""Measure how often the centred map's 95 % intervals hold the converged map.

    python -m benchmarks.calibration_study --data FOLDER [--clips 1] [--precision bfloat16]
        [--out FILE]

Scenes are real recordings under the bundled encoder and two planted encoders: one that hears a
whole dense example, and one that hears a single block of it and answers fully as soon as a third of
it is kept, a decisive event. For each scene, strategy and kind of edges, a reference of
`--reference` masks is drawn once; then each seed draws N masks of its own, from which both
estimators make a map. A bin is covered where the reference lies in `Explanation.interval`, widened
by the reference's own error. Shares are over all bins, over the highest 5 % of the reference's
bins, and over the highest 5 % of the seed's own, which selection favours: such a bin is there
because its error was positive. Rows are written scene by scene; the same command goes on with those
that are missing.
"""

from __future__ import annotations

import argparse
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import t
from torch import Tensor, nn
from tqdm import tqdm

import relax_quantus as rq
from benchmarks.estimator_study import examples

SEEDS = {60: 100, 150: 100, 500: 50, 1500: 25}
"""Masks of an explanation, and explanations for each scene, strategy and kind of edges."""
STOPPED = 40
TOLERANCE, MOST = 0.5, 3000
ESTIMATORS = ("weighted", "surrogate")
EDGES = ("smooth", "hard")
HIGHEST = 0.95
FIRST_SEED, REFERENCE_SEED = 1, 1_000_000
PARTS = ("share", "top", "own_top")


@dataclass(frozen=True)
class Scene:
    """A scene to explain: an example ``(1, 1, T, F)``, its network and the fill of masked bins."""

    name: str
    kind: str
    x: Tensor
    encoder: Callable[[Tensor], Tensor]
    fill: str = "silence"
    precision: str = "float32"


@dataclass(frozen=True)
class Row:
    """One explanation held against the reference.

    `n_samples` is 0 where it stopped by itself, after `masks`. `share`, `top` and `own_top` are
    shares of bins that are covered: of all, of the reference's highest and of the seed's own
    highest. `reference` is the reference's error over this one's, and `ratio` the mean squared
    error over the mean squared gap to the reference (less its own), both over all bins.
    """

    scene: str
    kind: str
    strategy: str
    edges: str
    estimator: str
    n_samples: int
    seed: int
    masks: int
    share: float
    top: float
    own_top: float
    reference: float
    squared_error: float
    squared_gap: float


class Event(nn.Module):
    """Hears one block alone, fully as soon as a third of it is kept."""

    def forward(self, x: Tensor) -> Tensor:
        """Embed ``(n, 1, 24, 16)`` in ``(n, 2)``."""
        heard = (12 * x[..., 10:14, 5:9].mean((1, 2, 3)) - 3).clamp(0, 1)
        return torch.stack([heard, torch.full_like(heard, 0.1)], 1)


def planted() -> list[Scene]:
    """Return the scenes whose networks are made here, on an example of 24 x 16 bins."""
    generator = torch.Generator().manual_seed(0)

    def weights(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / math.sqrt(shape[0])

    first, second = weights(384, 64), weights(64, 16)
    x = torch.rand(1, 1, 24, 16, generator=generator) + 0.5

    def dense(x: Tensor) -> Tensor:
        h: Tensor = torch.relu(x.flatten(1) @ first) @ second
        return h

    return [
        Scene("event", "one event", torch.ones_like(x), Event(), "zero"),
        Scene("dense", "dense", x, dense, "zero"),
    ]


def recorded(data: Path, clips: int, precision: str) -> list[Scene]:
    """Return the loudest examples of recordings under the bundled encoder."""
    encoder = rq.load_encoder("vggish_mini")
    x = examples(data, clips)
    return [Scene(f"clip {i}", "recordings", x[i : i + 1], encoder, precision=precision) for i in range(clips)]


def judged(e: Any, reference: Any) -> dict[str, float]:
    """Hold an explanation's intervals against a converged one."""
    centred, truth = e.centred()[0].double(), reference.centred()[0].double()
    own, others = (v.centred_standard_error[0].double().square() for v in (e, reference))
    gap, quantile = (centred - truth).square(), float(t.ppf(0.975, int(e.n_samples[0]) - 1))
    covered = (gap <= quantile**2 * (own + others)).double()  # an unknown error covers nothing
    masks = {"share": torch.ones_like(truth, dtype=torch.bool)}
    masks |= {"top": truth >= highest(truth), "own_top": centred >= highest(centred)}
    found = {name: float(covered[mask].mean()) for name, mask in masks.items()}
    found["reference"] = float((others.mean() / own.nanmean()).sqrt())
    return found | {"squared_error": float(own.nanmean()), "squared_gap": float((gap - others).mean())}


def highest(values: Tensor) -> float:
    """Return the value that the highest 5 % of bins reach."""
    return float(values.flatten().quantile(HIGHEST))


def rows(
    scene: Scene, strategy: str, edges: str, reference_masks: int, seeds: dict[int, int], stopped: int
) -> Iterator[Row]:
    """Explain a scene with a strategy, as often as `seeds` says for each N, and by tolerance.

    `stopped` explanations stop by tolerance.
    """
    masks = rq.masks.get(strategy, edges=edges)

    def relax(estimator: str | None = None) -> rq.RELAX:
        return rq.RELAX(scene.encoder, masks=masks, estimator=estimator, precision=scene.precision)

    reference = relax().explain(scene.x, scene.fill, n_samples=reference_masks, seed=REFERENCE_SEED)
    named = {"scene": scene.name, "kind": scene.kind, "strategy": strategy, "edges": edges}
    seed = FIRST_SEED
    for n, count in seeds.items():
        for _ in range(count):
            seed += 1
            similarities = relax().similarities(scene.x, scene.fill, n_samples=n, seed=seed)
            for estimator in ESTIMATORS:
                e = relax(estimator).estimate(scene.x, similarities, baselines=scene.fill, seed=seed)
                own = {"estimator": estimator, "n_samples": n, "seed": seed, "masks": n}
                yield Row(**named, **own, **judged(e, reference))  # type: ignore[arg-type]
    for _ in range(stopped):
        seed += 1
        for estimator in ESTIMATORS:
            e = relax(estimator).explain(scene.x, scene.fill, n_samples=MOST, seed=seed, tolerance=TOLERANCE)
            own = {"estimator": estimator, "n_samples": 0, "seed": seed, "masks": int(e.n_samples[0])}
            yield Row(**named, **own, **judged(e, reference))  # type: ignore[arg-type]


def interval(values: Sequence[float]) -> str:
    """Write a mean of seeds in per cent with its 95 % interval."""
    shares = 100 * np.array(values)
    reach = 1.96 * shares.std(ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else float("nan")
    return f"{shares.mean():.1f} ± {reach:.1f}"


def table(found: Sequence[Row]) -> str:
    """Write coverage by kind of scene, strategy, edges, N and estimator, as Markdown."""
    groups: dict[tuple[str, str, str, int, str], list[Row]] = defaultdict(list)
    for row in found:
        groups[row.kind, row.strategy, row.edges, row.n_samples, row.estimator].append(row)
    lines = [
        "| scene | masks | edges | N | estimator | seeds | all bins % | reference's highest % | own highest % "
        "| error/gap | reference's error | masks used |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (kind, strategy, edges, n, estimator), group in groups.items():
        shares = " | ".join(interval([getattr(row, part) for row in group]) for part in PARTS)
        ratio = np.sqrt(np.mean([r.squared_error for r in group]) / np.mean([r.squared_gap for r in group]))
        reference = np.median([row.reference for row in group])
        masks = f"{np.median([row.masks for row in group]):.0f}"
        lines.append(
            f"| {kind} | {strategy} | {edges} | {n or 'tolerance'} | {estimator} | {len(group)} | {shares} | "
            f"{ratio:.2f} | {reference:.2f} | {masks} |"
        )
    return "\n".join(lines)


def summary(found: Sequence[Row]) -> str:
    """Write coverage by N and estimator as Markdown: mean over strata, and the lowest stratum."""
    lines = [
        "| N | estimator | strata | all bins %: mean, lowest, highest | reference's highest %: mean, lowest |",
        "|---|---|---|---|---|",
    ]
    groups: dict[tuple[int, str], dict[tuple[str, str, str], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in found:
        groups[row.n_samples, row.estimator][row.kind, row.strategy, row.edges].append(row)
    for (n, estimator), strata in sorted(groups.items()):
        each = {part: [100 * float(np.mean([getattr(r, part) for r in s])) for s in strata.values()] for part in PARTS}
        share, top = each["share"], each["top"]
        lines.append(
            f"| {n or 'tolerance'} | {estimator} | {len(strata)} | {np.mean(share):.1f}, {min(share):.1f}, {max(share):.1f} | "
            f"{np.mean(top):.1f}, {min(top):.1f} |"
        )
    return "\n".join(lines)


def stored(path: Path) -> list[Row]:
    """Read what a run has written."""
    return [Row(**{str(k): v for k, v in row.items()}) for row in pd.read_parquet(path).to_dict("records")]


@cache
def parser() -> argparse.ArgumentParser:
    """Describe the command."""
    made = argparse.ArgumentParser(description="Coverage of the centred map's 95 % intervals, stratum by stratum.")
    made.add_argument(
        "--data", type=Path, help="a folder of recordings, one folder a class; planted scenes alone without"
    )
    made.add_argument("--out", type=Path, default=Path("benchmarks/calibration_study.parquet"))
    made.add_argument("--clips", type=int, default=1)
    made.add_argument("--reference", type=int, default=40_000, help="masks of a reference")
    made.add_argument("--seeds", type=float, default=1.0, help="times the explanations of each size")
    made.add_argument("--strategies", nargs="+", default=list(rq.masks.STRATEGIES))
    made.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16"),
        help="of the bundled encoder, whose converged map is then that precision's",
    )
    return made


def main() -> None:
    """Run the study, or what is missing of it, and print its tables."""
    arguments = parser().parse_args()
    seeds = {n: max(2, round(count * arguments.seeds)) for n, count in SEEDS.items()}
    scenes = planted()
    if arguments.data is not None:
        scenes += recorded(arguments.data, arguments.clips, arguments.precision)
    found = stored(arguments.out) if arguments.out.exists() else []
    done = {(row.scene, row.strategy, row.edges) for row in found}
    strata = [(s, name, edges) for s in scenes for name in arguments.strategies for edges in EDGES]
    for scene, name, edges in tqdm(strata, desc="strata"):
        if (scene.name, name, edges) in done:
            continue
        found += rows(scene, name, edges, arguments.reference, seeds, max(2, round(STOPPED * arguments.seeds)))
        part = arguments.out.with_suffix(".part")
        pd.DataFrame([asdict(row) for row in found]).to_parquet(part, compression="zstd", index=False)
        os.replace(part, arguments.out)
    print(table(found), summary(found), sep="\n\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)
    main()
