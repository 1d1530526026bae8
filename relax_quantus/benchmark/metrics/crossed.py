"""Crossed faithfulness: one evaluator for each way of removing {bins, patches, time stripes, frequency stripes} x {silence, mean, background}.

A faithfulness score favours maps that share the evaluator's fill and shape of patch, so no one evaluator is the judge: every map is judged by all,
and own-fill and own-shape cells are told apart afterwards. Each evaluator scores by the similarity to the example's own embedding, and again by the
predicted class's logit, which costs no further forwards. A `Case` enters; `Scores` leave: the symmetric relevance gain LIF - MIF (Bluecher et al.
2024, arXiv 2401.06654), the areas of the two curves, and the curves.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from relax_quantus.benchmark.metrics.case import Case, Metric, Scores, Values, outputs
from relax_quantus.benchmark.questions import Map
from relax_quantus.fills import FILLS

UNITS: dict[str, tuple[int, int]] = {"bin": (1, 1), "patch": (12, 8), "time": (6, 64), "frequency": (96, 4)}
"""Granularity -> frames and bands of one unit."""
EVALUATOR_FILLS = ("silence", "mean", "background")
STEPS = 16
TIE_DRAWS = 10
TIE = 1e-7
"""Means of units are tied if they agree to this share of the largest: maps are made in float32."""


def symmetric_relevance_gain(case: Case, granularity: str, fill: str, on_logit: bool = False) -> Scores:
    """LIF - MIF: area of the curve when the least influential units go first minus when the most influential do.

    Units are ranked by their mean of the centred map and replaced by the fill in 16 equal steps. Where tied units fall on both sides of a step,
    ten random orders are averaged, in pairs of which one breaks the ties the other way round, so that a map which is the same in every unit scores
    exactly 0. Cost: 31 forwards, up to ten times as many with ties; an order that other methods' ties gave too is looked up.
    """
    model, target = (case.classifier, case.question.target) if on_logit else (case.similarity_model, 0)
    level = FILLS.get(fill).level(case.question.x)
    values = unit_means(case.map("centred")[0, 0], granularity)
    draws: dict[str, list[Values]] = {"LIF": [], "MIF": []}
    for ties in tie_orders(case, values, granularity):
        least_first = np.lexsort((ties, values))
        for name, order in (("LIF", least_first), ("MIF", least_first[::-1])):
            removed = torch.where(removal(order, granularity), level, case.question.x)
            draws[name].append(outputs(model, removed, target))
    curves = {name: np.mean(found, axis=0) for name, found in draws.items()}
    areas = {name: float(np.trapezoid(curve, dx=1 / STEPS)) for name, curve in curves.items()}
    shares = np.linspace(0.0, 1.0, STEPS + 1)
    return Scores(areas["LIF"] - areas["MIF"], areas, {name: (shares, curve) for name, curve in curves.items()})


def unit_means(values: Map, granularity: str) -> Values:
    """Mean of a map ``(96, 64)`` in each unit, shape (units,), equal where they differ by less than rounding does."""
    frames, bands = UNITS[granularity]
    means = values.reshape(96 // frames, frames, 64 // bands, bands).mean(axis=(1, 3)).reshape(-1)
    largest = np.abs(means).max()
    return np.asarray(np.round(means / (TIE * largest)) if largest > 0 else means)


def tie_orders(case: Case, values: Values, granularity: str) -> Iterator[Values]:
    """Keys ``(units,)`` that break ties: one if ties do not matter, else ten, in opposite pairs; of the clip, not of the method."""
    rng = np.random.default_rng([case.question.seed, case.question.clip, 13, list(UNITS).index(granularity)])
    if not ties_matter(values):
        yield np.zeros(values.size)
        return
    for _ in range(TIE_DRAWS // 2):
        keys = rng.random(values.size)
        yield keys
        yield -keys


def ties_matter(values: Values) -> bool:
    """Whether units of one value are removed in different steps."""
    steps = np.arange(values.size) // (values.size // STEPS)
    in_order = np.sort(values)
    return bool(((in_order[1:] == in_order[:-1]) & (steps[1:] != steps[:-1])).any())


def removal(order: npt.NDArray[np.integer], granularity: str) -> torch.Tensor:
    """Which bins are gone after 0, 1, ..., 16 steps: bool ``(17, 1, 96, 64)``, equal numbers of bins a step."""
    frames, bands = UNITS[granularity]
    step_removed = np.empty(order.size, dtype=np.int64)
    step_removed[order] = np.arange(order.size) // (order.size // STEPS) + 1
    bins = step_removed.reshape(96 // frames, 64 // bands).repeat(frames, 0).repeat(bands, 1)
    return torch.from_numpy(bins) <= torch.arange(STEPS + 1).reshape(-1, 1, 1, 1)


def _metric(granularity: str, fill: str, view: str) -> Metric:
    frames, bands = UNITS[granularity]
    logit = view == "logit"
    return Metric(
        name=f"SRG-logit-{granularity}-{fill}" if logit else f"SRG-{granularity}-{fill}",
        category="faithfulness",
        direction="up",
        measure=partial(symmetric_relevance_gain, granularity=granularity, fill=fill, on_logit=logit),
        view=view,
        granularity=granularity,
        evaluator_fill=fill,
        range="logits, unbounded" if logit else "[-2, 2]; 0 at chance",
        configuration=f"units of {frames} frames x {bands} bands, {STEPS} steps, fill {fill}; ties at random {TIE_DRAWS} times",
        source="Bluecher et al. 2024",
        forwards=2 * STEPS - 1,
    )


METRICS = tuple(
    _metric(granularity, fill, view)
    for view in ("embedding", "logit")
    for granularity in UNITS
    for fill in EVALUATOR_FILLS
)
