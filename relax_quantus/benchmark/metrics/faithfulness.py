"""Faithfulness: does removing what a map calls important change what the model says?

Bins are replaced by digital silence; the model is the similarity to the example's own embedding, or the predicted class's probability. Other fills,
and the measures that comparisons rest on: `crossed`.
"""

from __future__ import annotations

import numpy as np
import torch

from relax_quantus.benchmark.metrics.case import QUANTUS_COMMON, Case, Metric, global_generators, scalar
from relax_quantus.fills import SILENCE
from relax_quantus.quantus_bridge import import_quantus

FEATURES_IN_STEP = 192
SUBSET = 614
RUNS = 50
FILL = "silence"
FLIPS = 96 * 64 // FEATURES_IN_STEP


def _pixel_flipping(case: Case, on_class: bool) -> float:
    """Mean of the curve over the share removed, 0 to 1, most important first: 192 bins a step, 32 forwards.

    Quantus takes the steps one by one; their examples are embedded together beforehand, which `Remembering` then looks up.
    """
    quantus = import_quantus()

    model, target = (case.classifier, case.question.target) if on_class else (case.similarity_model, 0)
    flip = quantus.PixelFlipping(features_in_step=FEATURES_IN_STEP, perturb_baseline=SILENCE, **QUANTUS_COMMON)
    ranks = case.ranks()
    step = (ranks.size - torch.from_numpy(ranks)) // FEATURES_IN_STEP
    steps = torch.arange(ranks.size // FEATURES_IN_STEP).reshape(-1, 1, 1, 1)
    model(torch.where(step <= steps, torch.tensor(SILENCE), case.question.x))
    curve = flip(model, case.x, np.array([target]), ranks, softmax=on_class)[0]
    start = torch.softmax(model(case.question.x).detach(), 1)[0, target] if on_class else 1.0
    return float(np.trapezoid([float(start), *curve], dx=1 / len(curve)))


def pixel_flipping(case: Case) -> float:
    """Area under the similarity to the own embedding."""
    return _pixel_flipping(case, on_class=False)


def pixel_flipping_class(case: Case) -> float:
    """Area under the predicted class's probability, as in the source document."""
    return _pixel_flipping(case, on_class=True)


def faithfulness_correlation(case: Case) -> float:
    """Correlation of the drop in similarity with the map's sum over 50 random subsets, the same for every method of a tenth of the bins."""
    quantus = import_quantus()

    metric = quantus.FaithfulnessCorrelation(
        nr_runs=RUNS, subset_size=SUBSET, perturb_baseline=SILENCE, **QUANTUS_COMMON
    )
    values = case.map("centred")
    values -= values.min()  # shifts every subset's sum alike; Quantus refuses maps that are negative throughout
    with global_generators(case.question.seed):
        return scalar(metric(case.similarity_model, case.x, np.array([0]), values, softmax=False))


METRICS = (
    Metric(
        name="PixelFlipping",
        category="faithfulness",
        direction="down",
        measure=pixel_flipping,
        view="embedding",
        granularity="bin",
        evaluator_fill=FILL,
        range="[-1, 1]",
        configuration=f"{FEATURES_IN_STEP} bins a step, fill {FILL}; area by the trapezoidal rule",
        source="Bach et al. 2015",
        quantus="PixelFlipping",
        forwards=FLIPS,
    ),
    Metric(
        name="FaithfulnessCorrelation",
        category="faithfulness",
        direction="up",
        measure=faithfulness_correlation,
        view="embedding",
        granularity="bin",
        evaluator_fill=FILL,
        range="[-1, 1]; 0 at chance",
        configuration=f"{RUNS} random subsets of {SUBSET} bins, the same for every method, fill {FILL}",
        source="Bhatt et al. 2020",
        quantus="FaithfulnessCorrelation",
        forwards=RUNS,
    ),
    Metric(
        name="PixelFlipping-class",
        category="faithfulness",
        direction="down",
        measure=pixel_flipping_class,
        view="probability",
        granularity="bin",
        evaluator_fill=FILL,
        range="[0, 1]",
        configuration=f"{FEATURES_IN_STEP} bins a step, fill {FILL}; area by the trapezoidal rule",
        source="Bach et al. 2015",
        quantus="PixelFlipping",
        forwards=FLIPS,
    ),
)
