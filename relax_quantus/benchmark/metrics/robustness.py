"""Measure robustness: whether a map stays the same when the input changes a little.

The same masks for every copy (fixed seed), so that only the input's change moves the map. Copies
add uniform noise of at most 0.2 in natural log (1.7 dB) to every bin; all metrics and a strategy's
twin get the same copies and so share the forwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from relax_quantus.benchmark.methods.questions import NotApplicable
from relax_quantus.benchmark.metrics.metric import QUANTUS_COMMON, Metric, MetricInput, scalar
from relax_quantus.quantus_bridge import import_quantus

RADIUS = 0.2


def _measure(given: MetricInput, name: str) -> float:
    quantus = import_quantus()

    if given.question.truth is not None and given.method.name == "oracle":
        raise NotApplicable("the oracle does not look at the input")
    rng = np.random.default_rng([given.question.seed, 17])

    def shake(arr: npt.NDArray[Any], indices: Any, **_: Any) -> npt.NDArray[Any]:
        return np.asarray(arr + rng.uniform(-RADIUS, RADIUS, arr.shape), dtype=arr.dtype)

    metric: Any = getattr(quantus, name)(nr_samples=given.perturbations, perturb_func=shake, **QUANTUS_COMMON)
    explain = given.explain_func("centred")
    target = np.array([given.question.target])
    first = explain(model=given.question.model, inputs=given.x, targets=target)
    return scalar(
        metric(
            given.question.model, given.x, target, first, explain_func=explain, explain_func_kwargs={}, softmax=False
        )
    )


def local_lipschitz(given: MetricInput) -> float:
    """Measure the largest change of the map, scaled to maximum 1, per change of the input.

    Norms are Euclidean.
    """
    return _measure(given, "LocalLipschitzEstimate")


def max_sensitivity(given: MetricInput) -> float:
    """Measure the largest change of the map relative to the map, in Frobenius norms."""
    return _measure(given, "MaxSensitivity")


def avg_sensitivity(given: MetricInput) -> float:
    """Measure the mean change of the map relative to the map, in Frobenius norms."""
    return _measure(given, "AvgSensitivity")


def _maps(perturbations: int) -> int:
    return perturbations + 1


METRICS = tuple(
    Metric(
        name=name,
        category="robustness",
        direction="down",
        measure=measure,
        range="[0, inf)",
        configuration=f"uniform noise of at most {RADIUS} in natural log on every bin; the same masks for every copy",
        source=source,
        formula=formula,
        quantus=quantus,
        explanations=_maps,
        reexplains=True,
    )
    for name, quantus, measure, source, formula in (
        (
            "LocalLipschitz",
            "LocalLipschitzEstimate",
            local_lipschitz,
            "Alvarez-Melis and Jaakkola 2018",
            r"\max_{\delta} \frac{\lVert a(x) - a(x + \delta) \rVert}{\lVert \delta \rVert}",
        ),
        (
            "MaxSensitivity",
            "MaxSensitivity",
            max_sensitivity,
            "Yeh et al. 2019",
            r"\max_{\delta} \frac{\lVert a(x) - a(x + \delta) \rVert}{\lVert a(x) \rVert}",
        ),
        (
            "AvgSensitivity",
            "AvgSensitivity",
            avg_sensitivity,
            "Yeh et al. 2019",
            r"\operatorname{mean}_{\delta} \frac{\lVert a(x) - a(x + \delta) \rVert}{\lVert a(x) \rVert}",
        ),
    )
)
