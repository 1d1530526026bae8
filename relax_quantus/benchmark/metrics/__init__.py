"""Metrics: what a benchmark measures, one file a category, all in the registry `METRICS`.

Sixth step of the benchmark's flow: a `MetricInput` enters, one score a clip leaves. Each entry
states its better direction as measured with oracle and anti-oracle maps, which map it reads and
which question it asks. Quantus is imported when a metric first runs.
"""

from relax_quantus.base.registry import Registry
from relax_quantus.benchmark.metrics import (
    complexity,
    faithfulness,
    localisation,
    randomisation,
    robustness,
    symmetric_relevance_gain,
)
from relax_quantus.benchmark.metrics.metric import ARROWS, CATEGORIES, Metric, MetricInput, Scores, Undefined, summary

__all__ = [
    "ARROWS",
    "CATEGORIES",
    "METRICS",
    "QUICK",
    "MetricInput",
    "Metric",
    "Scores",
    "Undefined",
    "build",
    "summary",
]

METRICS: Registry[Metric] = Registry("metric", "metrics", "relax_quantus.metrics")


def _register(metric: Metric) -> None:
    METRICS.register(metric.name, lambda: metric, summary(metric))


for _category in (symmetric_relevance_gain, faithfulness, localisation, robustness, complexity, randomisation):
    for _metric in _category.METRICS:
        _register(_metric)


QUICK = (
    *(f"SRG-{granularity}-{fill}" for granularity in ("patch", "time", "frequency") for fill in ("silence", "mean")),
    *("SRG-logit-patch-silence", "SRG-logit-patch-mean"),
    *("PixelFlipping", "FaithfulnessCorrelation", "AUC", "RankAccuracy", "MassAccuracy"),
    *("LocalLipschitz", "MaxSensitivity", "Sparseness", "Complexity", "MPRT", "MPRT-ceiling"),
)
"""The metrics of the quick preset."""


def build(names: tuple[str, ...]) -> list[Metric]:
    """Return the metrics of these names."""
    return [METRICS.get(name) for name in names]
