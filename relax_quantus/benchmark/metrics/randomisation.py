"""Measure randomisation: whether a map changes when the model's weights become random.

Quantus' MPRT, top down and cascading, other masks for every map (a shared mask pattern would look
like agreement). Masks' noise changes a map, too, so a low correlation by itself may be noise: what
is ranked is "original again" (the same model, other masks), the ceiling, minus the mean over the
encoder's layers. Quantus' own average counts the unchanged model among the layers. The head's layer
is left out: no embedding depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from relax_quantus.benchmark.methods.questions import Map, NotApplicable
from relax_quantus.benchmark.metrics.metric import (
    QUANTUS_COMMON,
    Metric,
    MetricInput,
    Scores,
    global_generators,
    scalar,
)
from relax_quantus.quantus_bridge import import_quantus


def _randomised(given: MetricInput, name: str, softmax: bool = False, **settings: Any) -> Any:
    """Score a metric of Quantus that re-initialises layers, with other masks for every map."""
    quantus = import_quantus()

    explain = _explain(given)
    target = np.array([given.question.target])
    with global_generators(given.question.seed):
        first = explain(model=given.question.model, inputs=given.x, targets=target)
        metric = getattr(quantus, name)(seed=given.question.seed, **QUANTUS_COMMON, **settings)
        return metric(
            given.question.model, given.x, target, first, explain_func=explain, explain_func_kwargs={}, softmax=softmax
        )


def _explain(given: MetricInput) -> Callable[..., Map]:
    if given.method.name == "oracle":
        raise NotApplicable("the oracle does not look at the model")
    explain = given.explain_func("centred", fresh_seeds=True)

    def lifted(**asked: Any) -> Map:
        """Lift a map that is negative everywhere, which Quantus refuses, to begin at 0.

        A constant changes neither ranks nor histograms.
        """
        values = explain(**asked)
        return values - values.min() if (values < 0).all() else values

    return lifted


def mprt(given: MetricInput) -> Scores:
    """Measure how far the rank correlation falls from "original again" to the layers' mean.

    Each layer's correlation is a part.
    """
    layers = {name: scalar(values) for name, values in _randomised(given, "MPRT", layer_order="top_down").items()}
    own = [value for name, value in layers.items() if name.startswith("encoder")]
    if not own:
        raise NotApplicable("the encoder has no layer that can be re-initialised")
    return Scores(layers["original"] - float(np.mean(own)), layers)


def mprt_ceiling(given: MetricInput) -> float:
    """Rank correlation of two maps of the trained model with other masks.

    `mprt` can reach it if random weights leave nothing of the map.
    """
    from scipy.stats import spearmanr

    explain = _explain(given)
    first, again = (explain(model=given.question.model, inputs=given.x).reshape(-1) for _ in range(2))
    return float(spearmanr(first, again).statistic)


def efficient_mprt(given: MetricInput) -> float:
    """Measure the rise of the entropy of the map's histogram when all layers are random.

    The rise is relative; the layers are re-initialised. The histogram has 100 bins.
    """
    return scalar(_randomised(given, "EfficientMPRT", softmax=True))


LAYERS = 9
"""Layers of the bundled encoder and its head that are re-initialised; only the estimate of a run's
cost reads it.
"""


def _maps_of_mprt(perturbations: int) -> int:
    return LAYERS + 2


def _maps_of_efficient(perturbations: int) -> int:
    return 3


def _maps_of_ceiling(perturbations: int) -> int:
    return 2


METRICS = (
    Metric(
        name="MPRT",
        category="randomisation",
        direction="up",
        measure=mprt,
        range="[-2, 2]; 0 if weights change no more than masks do, at most about MPRT-ceiling",
        configuration="original again minus the mean over the encoder's layers; top down, cascading; other masks for every map",
        source="Adebayo et al. 2018",
        formula=r"\rho\big(a_\theta, a'_\theta\big) - \frac{1}{L} \sum_{l=1}^{L} \rho\big(a_\theta, a_{\theta_{\ge l}}\big)",
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
        formula=r"\rho\big(a_\theta, a'_\theta\big)",
        explanations=_maps_of_ceiling,
        reexplains=True,
    ),
    Metric(
        name="EfficientMPRT",
        category="randomisation",
        direction="up",
        measure=efficient_mprt,
        range="[-1, inf); 0 if nothing changed",
        configuration="all layers re-initialised; entropy of the map's histogram of 100 bins; other masks for every map",
        source="Hedström et al. 2023",
        formula=r"\frac{H(a_{\mathrm{random}}) - H(a_\theta)}{H(a_\theta)}",
        quantus="EfficientMPRT",
        explanations=_maps_of_efficient,
        reexplains=True,
    ),
)
