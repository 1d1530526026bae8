"""Time KernelShap, FeatureAblation and Occlusion per forward: the section "captum".

What they explain is the similarity to the clip's own embedding.

All get about as many forwards as RELAX, counted, and the micro-batch that is best for the forwards
alone. KernelShap perturbs 7 x 7 cells; FeatureAblation replaces one of N - 1 groups of neighbouring
bins at a time; Occlusion slides a window of a 7 x 7 cell's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import relax_quantus as rq
from benchmarks.speed.explainers import attribution
from benchmarks.speed.networks import Floor, Network, best_floor, load_clips, network
from benchmarks.speed.rounds import Arm, interleave
from benchmarks.speed.rows import Row
from benchmarks.speed.settings import HEAVY, Settings

SECTION = "captum"
QUANTITY = "time per forward over time per forward alone"
CELLS = 7


def captum(settings: Settings) -> Iterator[Row]:
    """Yield one row an encoder and method, RELAX among them.

    The forwards alone are in the middle of each round.
    """
    x = load_clips(settings, 1)
    for name in settings.encoders:
        if name in HEAVY:
            continue
        loaded = network(name, settings)
        floor = best_floor(loaded.model, x, settings.n(name), settings.device)
        arms = [*peers(loaded, x, settings.n(name), floor), *ours(settings, loaded, x)]
        middle = len(arms) // 2
        arms.insert(middle, Arm({"method": "forwards alone"}, floor.arm(settings.n(name)), settings.n(name)))
        rounds = interleave(arms, settings.rounds(name), settings.device, f"{SECTION}, {name}")
        for index in range(len(arms)):
            if index != middle:
                row = rounds.row(SECTION, QUANTITY, index, middle)
                row.details.update(note=loaded.note, floor=floor.describe())
                yield row


def ours(settings: Settings, loaded: Network, x: Tensor) -> list[Arm]:
    """Yield RELAX with each estimator."""
    n = settings.n(loaded.name)
    return [
        Arm(
            {"encoder": loaded.name, "method": f"RELAX-{settings.masks[0]}, {estimator}"},
            attribution(loaded.model, x, n, settings.masks[0], estimator),
            n,
        )
        for estimator in settings.estimators
    ]


def peers(loaded: Network, x: Tensor, n_samples: int, floor: Floor) -> Iterator[Arm]:
    """Return Captum's methods, each with its counted number of forwards."""
    from captum.attr import FeatureAblation, KernelShap, Occlusion

    with torch.no_grad():
        target = rq.SimilarityModel(loaded.model, loaded.model(x)).eval()
    size = floor.micro_batch
    window, strides = occlusion_sizes(tuple(x.shape[1:]), n_samples)
    calls: dict[str, tuple[type, dict[str, Any]]] = {
        "KernelShap": (KernelShap, {"feature_mask": cells(x), "n_samples": n_samples}),
        "FeatureAblation": (FeatureAblation, {"feature_mask": neighbours(x, n_samples - 1)}),
        "Occlusion": (Occlusion, {"sliding_window_shapes": window, "strides": strides}),
    }
    for name, (method, options) in calls.items():

        def run(forward: Callable[[Tensor], Tensor], method: Any = method, options: dict[str, Any] = options) -> None:
            with torch.no_grad():
                method(forward).attribute(x, target=0, perturbations_per_eval=size, **options)

        labels = {"encoder": loaded.name, "method": name}
        yield Arm(labels, lambda run=run: run(target), counted(run, target))  # type: ignore[misc]


def counted(run: Callable[[Callable[[Tensor], Tensor]], None], target: Callable[[Tensor], Tensor]) -> int:
    """Count the rows that one run sends through the target."""
    rows = 0

    def forward(x: Tensor) -> Tensor:
        nonlocal rows
        rows += len(x)
        return target(x)

    run(forward)
    return rows


def cells(x: Tensor) -> Tensor:
    """Group numbers ``(1, 1, T, F)`` of 7 x 7 equal cells."""
    frames, bands = x.shape[-2:]
    rows, columns = torch.arange(frames) * CELLS // frames, torch.arange(bands) * CELLS // bands
    return (rows[:, None] * CELLS + columns)[None, None].to(x.device)


def neighbours(x: Tensor, groups: int) -> Tensor:
    """Number that many groups of neighbouring bins, ``(1, 1, T, F)``, at most one a bin."""
    count = x[0].numel()
    return (torch.arange(count) * min(groups, count) // count).reshape(1, *x.shape[1:]).to(x.device)


def occlusion_sizes(shape: tuple[int, ...], forwards: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a window of a cell's size, and strides with about `forwards` positions."""
    frames, bands = shape[-2:]
    window = math.ceil(frames / CELLS), math.ceil(bands / CELLS)

    def positions(strides: tuple[int, int]) -> int:
        axes = zip((frames, bands), window, strides, strict=True)
        return math.prod(math.ceil((size - width) / stride) + 1 for size, width, stride in axes)

    choices = [(t, f) for t in range(1, window[0] + 1) for f in range(1, window[1] + 1)]
    strides = min(choices, key=lambda pair: (abs(positions(pair) - forwards), abs(pair[0] - pair[1])))
    return (1, *window), (1, *strides)
