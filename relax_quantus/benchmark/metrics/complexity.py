"""Complexity: how concentrated is a map? Says nothing about whether it is right."""

from __future__ import annotations

import numpy as np

from relax_quantus.benchmark.metrics.metric import QUANTUS_COMMON, Metric, MetricInput, scalar
from relax_quantus.quantus_bridge import import_quantus

THRESHOLD = 0.1
ABSOLUTE = {**QUANTUS_COMMON, "abs": True}  # changes nothing on a positive map; Quantus prints a line without it


def sparseness(given: MetricInput) -> float:
    """Measure the Gini index of the positive map: 0 even, 1 a single bin."""
    quantus = import_quantus()

    metric = quantus.Sparseness(**ABSOLUTE)
    return scalar(metric(given.similarity_model, given.x, np.array([0]), given.map("positive")))


def complexity(given: MetricInput) -> float:
    """Measure the entropy in nats of the positive map's share in each bin; 8.72 if even."""
    quantus = import_quantus()

    metric = quantus.Complexity(**ABSOLUTE)
    return scalar(metric(given.similarity_model, given.x, np.array([0]), given.map("positive")))


def effective_complexity(given: MetricInput) -> float:
    """Count the bins of the positive map above a tenth of its maximum."""
    quantus = import_quantus()

    metric = quantus.EffectiveComplexity(eps=THRESHOLD, **ABSOLUTE)
    return scalar(metric(given.similarity_model, given.x, np.array([0]), given.map("positive")))


METRICS = (
    Metric(
        name="Sparseness",
        category="complexity",
        direction="up",
        measure=sparseness,
        map="positive",
        range="[0, 1]",
        configuration="Gini index",
        source="Chalasani et al. 2020",
        formula=r"\frac{\sum_{j=1}^{n} (2j - n - 1)\, a^+_{(j)}}{n \sum_j a^+_j}, \qquad a^+_{(1)} \le \dots \le a^+_{(n)}",
        quantus="Sparseness",
    ),
    Metric(
        name="Complexity",
        category="complexity",
        direction="down",
        measure=complexity,
        map="positive",
        range="[0, ln 6144 = 8.72] nats",
        configuration="entropy of the shares",
        source="Bhatt et al. 2020",
        formula=r"-\sum_j q_j \ln q_j, \qquad q_j = \frac{a_j^+}{\sum_i a_i^+}",
        quantus="Complexity",
    ),
    Metric(
        name="EffectiveComplexity",
        category="complexity",
        direction="down",
        measure=effective_complexity,
        map="positive",
        range="1 to 6144 bins",
        configuration=f"bins above {THRESHOLD} of the maximum",
        source="Nguyen and Martinez 2020",
        formula=r"\#\big\{ j : a_j^+ > 0.1\, \max_i a_i^+ \big\}",
        quantus="EffectiveComplexity",
    ),
)
