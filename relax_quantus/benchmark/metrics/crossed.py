"""Crossed faithfulness: one evaluator for each way of removing {bins, patches, time stripes, frequency stripes} x {silence, mean, background}.

A faithfulness score favours maps that share the evaluator's fill and shape of patch, so no one evaluator is the judge: every map is judged by all,
and own-fill and own-shape cells are told apart afterwards. Each evaluator scores by the similarity to the example's own embedding, and again by the
predicted class's logit, which costs no further forwards. A `Case` enters; `Scores` leave: the symmetric relevance gain LIF - MIF (Bluecher et al.
2024, arXiv 2401.06654), the areas of the two curves, how far the output falls when everything is replaced, and the curves.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from relax_quantus.benchmark.metrics.case import Case, Metric, Scores, Undefined
from relax_quantus.benchmark.metrics.removing import TIE, TIE_DRAWS, Partition, area, influence_curves, shares
from relax_quantus.frontend.log_mel import LogMelConfig

STEPS = 8
SHAPES = {
    "bin": Partition(steps=STEPS),
    "patch": Partition(8, 8, steps=STEPS),
    "time": Partition(8, 1, steps=STEPS),
    "frequency": Partition(1, 8, steps=STEPS),
}
"""Granularity -> units of an example. Eight stripes have 256 states, so that maps, and the orders of ties, share most of them."""
UNITS = {"bin": "bin", "patch": "patch", "time": "time stripe", "frequency": "frequency stripe"}
EVALUATOR_FILLS = ("silence", "mean", "background")
FALL = "fall"
"""Name of the part that says how far the output falls when everything is replaced: the same for every map of a clip."""


def symmetric_relevance_gain(case: Case, granularity: str, fill: str, on_logit: bool = False) -> Scores:
    """LIF - MIF: area of the curve when the least influential units go first minus when the most influential do.

    Units are ranked by their mean of the centred map and go in 8 equal steps. Cost: 15 forwards, up to ten times as many with ties; the orders of
    ties are the clip's, so that another method's are often known.

    Raises
    ------
    Undefined
        If the map is the same in every unit: a map of time stripes cannot rank frequency stripes, which is no judgement of it.
    """
    model, target = (case.classifier, case.question.target) if on_logit else (case.similarity_model, 0)
    units = SHAPES[granularity].of(case.question.x.shape)
    means = units.means(case.map("centred")[0, 0])
    if np.ptp(means) <= TIE * np.abs(means).max():
        raise Undefined(f"the map is the same in every {UNITS[granularity]}: it cannot rank them")
    curves = influence_curves(case, model, target, units, fill, ("LIF", "MIF"), seed=list(SHAPES).index(granularity))
    areas = {name: area(values) for name, values in curves.items()}
    fall = float(curves["LIF"][0] - curves["LIF"][-1])
    return Scores(
        areas["LIF"] - areas["MIF"],
        areas | {FALL: fall},
        {name: (shares(values), values) for name, values in curves.items()},
    )


FORMULA = r"\mathrm{SRG} = A_{\mathrm{LIF}} - A_{\mathrm{MIF}}, \qquad A_o = \int_0^1 y_o(q)\, dq"
"""y is the model's output once the share q of the units has gone, least (LIF) or most (MIF) influential first."""


def _metric(granularity: str, fill: str, view: str) -> Metric:
    usual, partition = LogMelConfig(), SHAPES[granularity]
    frames = usual.frames // (partition.rows or usual.frames)
    bands = usual.mel_bands // (partition.columns or usual.mel_bands)
    logit = view == "logit"
    return Metric(
        name=f"SRG-logit-{granularity}-{fill}" if logit else f"SRG-{granularity}-{fill}",
        category="faithfulness",
        direction="up",
        measure=partial(symmetric_relevance_gain, granularity=granularity, fill=fill, on_logit=logit),
        view=view,
        granularity=granularity,
        evaluator_fill=fill,
        range="logits, unbounded; 0 at chance" if logit else "[-2, 2]; 0 at chance",
        configuration=f"{frames} x {bands} bins a unit, {STEPS} steps, fill {fill}; ties at random {TIE_DRAWS} times",
        source="Bluecher et al. 2024",
        formula=FORMULA,
        forwards=2 * STEPS - 1,
    )


METRICS = tuple(
    _metric(granularity, fill, view)
    for view in ("embedding", "logit")
    for granularity in SHAPES
    for fill in EVALUATOR_FILLS
)
