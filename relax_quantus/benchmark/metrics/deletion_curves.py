"""Removing what a map points at, step by step: the machinery that faithfulness metrics share.

A map and a partition of the spectrogram into units enter; the model's outputs while units go, most
or least influential first, leave. All examples of one curve are embedded together. Where tied units
fall on both sides of a step, ten random orders are averaged, in pairs of which one breaks the ties
the other way round; without such ties one order is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus.benchmark.methods.questions import Map, level_of
from relax_quantus.benchmark.metrics.metric import MetricInput, Values, outputs

TIE_DRAWS = 10
TIE = 1e-7
"""Means of units are tied if they agree to this share of the largest: maps are made in float32."""

Order = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Units:
    """A partition of the bins, and how many units go in a step.

    Attributes
    ----------
    labels
        int ``(T, F)``, from 0 without gaps.
    per_step
        Units a step; the last step takes what is left.
    """

    labels: Order
    per_step: int = 1

    @property
    def n(self) -> int:
        """Number of units."""
        return int(self.labels.max()) + 1

    @property
    def n_steps(self) -> int:
        """Number of steps until nothing is left."""
        return -(-self.n // self.per_step)

    def means(self, values: Map) -> Values:
        """Average a map ``(T, F)`` in each unit, shape (units,)."""
        labels = self.labels.reshape(-1)
        return np.asarray(np.bincount(labels, values.reshape(-1)) / np.bincount(labels))

    def step_of(self, order: Order) -> Order:
        """Return in which step, from 1, each bin goes: ``(T, F)``."""
        step = np.empty(self.n, dtype=np.int64)
        step[order] = np.arange(self.n) // self.per_step + 1
        return np.asarray(step[self.labels])


@dataclass(frozen=True)
class Partition:
    """Rectangles side by side that make up an example of any shape.

    Attributes
    ----------
    rows, columns
        Into how many an example is parted along time and along frequency; None for every frame or
        band.
    steps
        In how many steps they go; None for one at a time.

    Examples
    --------
    >>> Partition(8, 8).of((96, 64)).n, Partition(None, None, steps=16).of((96, 64)).per_step
    (64, 384)
    """

    rows: int | None = None
    columns: int | None = None
    steps: int | None = None

    def of(self, shape: tuple[int, ...]) -> Units:
        """Divide an example ``(..., T, F)`` into its units."""
        frames, bands = shape[-2:]
        rows, columns = min(self.rows or frames, frames), min(self.columns or bands, bands)
        row, column = np.arange(frames) * rows // frames, np.arange(bands) * columns // bands
        return Units(row[:, None] * columns + column[None], -(-rows * columns // (self.steps or rows * columns)))


def orders(given: MetricInput, values: Map, units: Units, seed: int = 0) -> Iterator[Order]:
    """Order units from the least to the most influential: once if no tie matters, else ten times.

    Ties are broken by the clip's seed and `seed`, not the method's: methods with the same ties ask
    for the same examples.
    """
    means = units.means(values)
    largest = np.abs(means).max()
    ranked = np.round(means / (TIE * largest)) if largest > 0 else means
    if not _ties_matter(ranked, units):
        yield np.argsort(ranked, kind="stable")
        return
    rng = np.random.default_rng([given.question.seed, given.question.clip, 13, seed])
    for _ in range(TIE_DRAWS // 2):
        keys = rng.random(units.n)
        yield np.lexsort((keys, ranked))
        yield np.lexsort((-keys, ranked))


def _ties_matter(ranked: Values, units: Units) -> bool:
    """Tell whether units of one value go in different steps, from either end."""
    in_order = np.sort(ranked)
    tied = in_order[1:] == in_order[:-1]
    steps = np.arange(units.n) // units.per_step
    return bool((tied & (steps[1:] != steps[:-1])).any() or (tied & (steps[::-1][1:] != steps[::-1][:-1])).any())


def curve(model: nn.Module, target: int, x: Tensor, level: Tensor, steps: Order, n_steps: int) -> Values:
    """Return output `target` after 0, 1, ..., `n_steps` steps, shape (n_steps + 1,).

    Parameters
    ----------
    x
        ``(1, 1, T, F)``.
    level
        What replaces removed bins, broadcastable to `x`.
    steps
        In which step, from 1, each bin goes, ``(T, F)``.
    """
    gone = torch.from_numpy(steps) <= torch.arange(n_steps + 1).reshape(-1, 1, 1, 1)
    return outputs(model, torch.where(gone, level.to(x), x), target)


def influence_curves(
    given: MetricInput,
    model: nn.Module,
    target: int,
    units: Units,
    fill: str,
    which: tuple[str, ...],
    seed: int = 0,
    steps: int | None = None,
) -> dict[str, Values]:
    """Compute curves of the centred map, averaged over the orders of ties.

    "MIF" removes the most influential first, "LIF" the least; the first `steps`, or all.
    """
    n_steps = units.n_steps if steps is None else steps
    x, values = given.question.x, given.map("centred")[0, 0]
    level = level_of(fill, x)
    found: dict[str, list[Values]] = {name: [] for name in which}
    for least_first in orders(given, values, units, seed):
        for name in which:
            order = least_first if name == "LIF" else least_first[::-1]
            found[name].append(curve(model, target, x, level, units.step_of(order), n_steps))
    return {name: np.asarray(np.mean(curves, axis=0)) for name, curves in found.items()}


def area(values: Values) -> float:
    """Integrate a curve over the share removed, 0 to 1, by the trapezoidal rule."""
    return float(np.trapezoid(values, dx=1 / (len(values) - 1)))


def shares(values: Values) -> Values:
    """Return the shares removed at which a curve was taken."""
    return np.linspace(0.0, 1.0, len(values))
