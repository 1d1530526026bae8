"""Crossed faithfulness: one evaluator for each way of removing {bins, patches, time stripes, frequency stripes} x {silence, mean, background}.

A faithfulness score favours maps that share the evaluator's fill and shape of patch, so no one evaluator is the judge: every map is judged by all,
and own-fill and own-shape cells are told apart afterwards. Each evaluator scores by the similarity to the example's own embedding, and again by the
predicted class's logit, which costs no further forwards. A `Case` enters; `Scores` leave: the symmetric relevance gain LIF - MIF (Bluecher et al.
2024, arXiv 2401.06654), the areas of the two curves, and the curves.
"""

from __future__ import annotations

from functools import partial

from relax_quantus.benchmark.metrics.case import Case, Metric, Scores
from relax_quantus.benchmark.metrics.removing import TIE_DRAWS, area, blocks, influence_curves, shares

STEPS = 16
SHAPES: dict[str, tuple[int, int]] = {"bin": (1, 1), "patch": (12, 8), "time": (6, 64), "frequency": (96, 4)}
"""Granularity -> frames and bands of one unit."""
EVALUATOR_FILLS = ("silence", "mean", "background")


def symmetric_relevance_gain(case: Case, granularity: str, fill: str, on_logit: bool = False) -> Scores:
    """LIF - MIF: area of the curve when the least influential units go first minus when the most influential do.

    Units are ranked by their mean of the centred map and go in 16 equal steps. A map that is the same in every unit scores exactly 0. Cost: 31
    forwards, up to ten times as many with ties; the orders of ties are the clip's, so that another method's are often known.
    """
    model, target = (case.classifier, case.question.target) if on_logit else (case.similarity_model, 0)
    frames, bands = SHAPES[granularity]
    units = blocks(frames, bands, per_step=6144 // (frames * bands) // STEPS)
    curves = influence_curves(case, model, target, units, fill, ("LIF", "MIF"), seed=list(SHAPES).index(granularity))
    areas = {name: area(values) for name, values in curves.items()}
    return Scores(
        areas["LIF"] - areas["MIF"], areas, {name: (shares(values), values) for name, values in curves.items()}
    )


FORMULA = r"\mathrm{SRG} = A_{\mathrm{LIF}} - A_{\mathrm{MIF}}, \qquad A_o = \int_0^1 y_o(q)\, dq"
"""y is the model's output once the share q of the units has gone, least (LIF) or most (MIF) influential first."""


def _metric(granularity: str, fill: str, view: str) -> Metric:
    frames, bands = SHAPES[granularity]
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
