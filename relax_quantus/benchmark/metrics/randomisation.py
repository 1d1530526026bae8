"""Randomisation: does a map change when the model's weights are replaced by random ones?

Quantus' MPRT, top down and cascading, other masks for every map (a shared mask pattern would look like agreement). Its own average counts the
unchanged model; here the mean runs over the encoder's layers alone, and "original again" (the same model, other masks) is kept beside it as
the ceiling that the masks' noise sets. The head's layer is left out: no embedding depends on it.
"""

from __future__ import annotations

import numpy as np

from relax_quantus.benchmark.metrics.case import QUANTUS_COMMON, Case, Metric, global_generators
from relax_quantus.benchmark.questions import NotApplicable
from relax_quantus.quantus_bridge import import_quantus

ORIGINAL = "original"


def _layers(case: Case) -> dict[str, float]:
    """Spearman correlation with the first map: of the original again, and after each layer."""
    quantus = import_quantus()

    if case.method.name == "oracle":
        raise NotApplicable("the oracle does not look at the model")
    explain = case.explain_func("centred", fresh_seeds=True)
    target = np.array([case.question.target])
    with global_generators(case.question.seed):
        first = explain(model=case.question.model, inputs=case.x, targets=target)
        metric = quantus.MPRT(layer_order="top_down", seed=case.question.seed, **QUANTUS_COMMON)
        scores = metric(
            case.question.model, case.x, target, first, explain_func=explain, explain_func_kwargs={}, softmax=False
        )
    return {name: float(np.asarray(values).reshape(-1)[0]) for name, values in scores.items()}


def mprt(case: Case) -> float:
    """Mean over the encoder's layers of the rank correlation with the map of the trained model."""
    layers = [value for name, value in _layers(case).items() if name.startswith("encoder")]
    if not layers:
        raise NotApplicable("the encoder has no layer that can be re-initialised")
    return float(np.mean(layers))


def mprt_ceiling(case: Case) -> float:
    """Rank correlation of two maps of the trained model with other masks: what `mprt` would be if nothing changed."""
    explain = case.explain_func("centred", fresh_seeds=True)
    if case.method.name == "oracle":
        raise NotApplicable("the oracle does not look at the model")
    from scipy.stats import spearmanr

    first, again = (explain(model=case.question.model, inputs=case.x).reshape(-1) for _ in range(2))
    return float(spearmanr(first, again).statistic)


LAYERS = 9
"""Layers of the bundled encoder and its head that are re-initialised; only the estimate of a run's cost reads it."""


def _maps_of_mprt(perturbations: int) -> int:
    return LAYERS + 2


def _maps_of_ceiling(perturbations: int) -> int:
    return 2


METRICS = (
    Metric(
        name="MPRT",
        category="randomisation",
        direction="down",
        measure=mprt,
        range="[-1, 1]; compare with MPRT-ceiling",
        configuration="top down, cascading; mean over the encoder's layers; other masks for every map",
        source="Adebayo et al. 2018",
        quantus="MPRT",
        explanations=_maps_of_mprt,
        reexplains=True,
    ),
    Metric(
        name="MPRT-ceiling",
        category="randomisation",
        direction="up",
        measure=mprt_ceiling,
        range="[-1, 1]",
        configuration="the same model again, other masks",
        source="original again",
        explanations=_maps_of_ceiling,
        reexplains=True,
    ),
)
