"""Robustness: does a map stay the same when the input changes a little?

The same masks for every copy (fixed seed), so that only the input's change moves the map. Copies add uniform noise of at most 0.2 in natural log
(1.7 dB) to every bin; all metrics and a strategy's twin get the same copies and so share the forwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from relax_quantus.benchmark.methods.questions import NotApplicable
from relax_quantus.benchmark.metrics.case import QUANTUS_COMMON, Case, Metric, scalar
from relax_quantus.quantus_bridge import import_quantus

RADIUS = 0.2


def _measure(case: Case, name: str) -> float:
    quantus = import_quantus()

    if case.question.truth is not None and case.method.name == "oracle":
        raise NotApplicable("the oracle does not look at the input")
    rng = np.random.default_rng([case.question.seed, 17])

    def shake(arr: npt.NDArray[Any], indices: Any, **_: Any) -> npt.NDArray[Any]:
        return np.asarray(arr + rng.uniform(-RADIUS, RADIUS, arr.shape), dtype=arr.dtype)

    metric: Any = getattr(quantus, name)(nr_samples=case.perturbations, perturb_func=shake, **QUANTUS_COMMON)
    explain = case.explain_func("centred")
    target = np.array([case.question.target])
    first = explain(model=case.question.model, inputs=case.x, targets=target)
    return scalar(
        metric(case.question.model, case.x, target, first, explain_func=explain, explain_func_kwargs={}, softmax=False)
    )


def local_lipschitz(case: Case) -> float:
    """Largest change of the map (scaled to maximum 1) per change of the input, Euclidean norms."""
    return _measure(case, "LocalLipschitzEstimate")


def max_sensitivity(case: Case) -> float:
    """Largest change of the map relative to the map, Frobenius norms."""
    return _measure(case, "MaxSensitivity")


def avg_sensitivity(case: Case) -> float:
    """Mean change of the map relative to the map, Frobenius norms."""
    return _measure(case, "AvgSensitivity")


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
