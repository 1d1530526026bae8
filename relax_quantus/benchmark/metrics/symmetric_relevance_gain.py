"""Crossed faithfulness: one evaluator for each way of removing parts of a spectrogram.

The ways are {bins, patches, time stripes, frequency stripes} x {silence, mean, background}. A
faithfulness score favours maps that share the evaluator's fill and shape of patch, so no one
evaluator decides: every map is judged by all, and own-fill and own-shape cells are told apart
afterwards. Each evaluator scores by the similarity to the example's own embedding, and again by the
predicted class's logit, which costs no further forwards. A `MetricInput` enters; `Scores` leave:
the symmetric relevance gain LIF - MIF (Bluecher et al. 2024, arXiv 2401.06654), the areas of the
two curves, how far the output falls when everything is replaced, and the curves.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from relax_quantus.benchmark.metrics.deletion_curves import TIE, TIE_DRAWS, Partition, area, influence_curves, shares
from relax_quantus.benchmark.metrics.metric import Metric, MetricInput, Scores, Undefined
from relax_quantus.frontend.log_mel import LogMelConfig

STEPS = 8
SHAPES = {
    "bin": Partition(steps=STEPS),
    "patch": Partition(8, 8, steps=STEPS),
    "time": Partition(8, 1, steps=STEPS),
    "frequency": Partition(1, 8, steps=STEPS),
}
"""Granularity -> frames and bands of one unit. Eight stripes have 256 states, so that maps, and the
orders of ties, share most of them.
"""
UNITS = {"bin": "bin", "patch": "patch", "time": "time stripe", "frequency": "frequency stripe"}
EVALUATOR_FILLS = ("silence", "mean", "background")
FALL = "fall"
"""Name of the part that says how far the output falls when everything is replaced: the same for
every map of a clip.
"""


def symmetric_relevance_gain(given: MetricInput, granularity: str, fill: str, on_logit: bool = False) -> Scores:
    """Subtract the area of the curve MIF from that of LIF.

    LIF removes the least influential units first, MIF the most influential.

    Units are ranked by their mean of the centred map and go in 8 equal steps. Cost: 15 forwards, up
    to ten times as many with ties; the orders of ties are the clip's, so that another method's are
    often known.

    Raises
    ------
    Undefined
        If the map is the same in every unit: a map of time stripes cannot rank frequency stripes,
        which is no judgement of it.
    """
    model, target = (given.classifier, given.question.target) if on_logit else (given.similarity_model, 0)
    units = SHAPES[granularity].of(given.question.x.shape)
    means = units.means(given.map("centred")[0, 0])
    if np.ptp(means) <= TIE * np.abs(means).max():
        raise Undefined(f"the map is the same in every {UNITS[granularity]}: it cannot rank them")
    curves = influence_curves(given, model, target, units, fill, ("LIF", "MIF"), seed=list(SHAPES).index(granularity))
    areas = {name: area(values) for name, values in curves.items()}
    fall = float(curves["LIF"][0] - curves["LIF"][-1])
    return Scores(
        areas["LIF"] - areas["MIF"],
        areas | {FALL: fall},
        {name: (shares(values), values) for name, values in curves.items()},
    )


FORMULA = r"\mathrm{SRG} = A_{\mathrm{LIF}} - A_{\mathrm{MIF}}, \qquad A_o = \int_0^1 y_o(q)\, dq"
"""y is the model's output once the share q of the units has gone, least (LIF) or most (MIF)
influential first.
"""


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
