"""Faithfulness: does removing what a map calls important change what the model says?

Bins are replaced by the fill's value; the model is the similarity to the example's own embedding, or the predicted class's probability.
"""

from __future__ import annotations

import numpy as np
import torch

from relax_quantus.benchmark.metrics.case import QUANTUS_COMMON, Case, Metric, global_generators, outputs, scalar
from relax_quantus.quantus_bridge import import_quantus

FEATURES_IN_STEP = 192
SUBSET = 614
RUNS = 50
PATCH = (12, 8)
PATCHES_IN_STEP = 2


def _pixel_flipping(case: Case, on_class: bool) -> float:
    """Mean of the curve over the share removed, 0 to 1, most important first: 192 bins a step, 32 forwards.

    Quantus takes the steps one by one; their examples are embedded together beforehand, which `Remembering` then looks up.
    """
    quantus = import_quantus()

    model, target = (case.classifier, case.question.target) if on_class else (case.similarity_model, 0)
    flip = quantus.PixelFlipping(features_in_step=FEATURES_IN_STEP, perturb_baseline=case.fill_value, **QUANTUS_COMMON)
    ranks = case.ranks()
    step = (ranks.size - torch.from_numpy(ranks)) // FEATURES_IN_STEP
    steps = torch.arange(ranks.size // FEATURES_IN_STEP).reshape(-1, 1, 1, 1)
    model(torch.where(step <= steps, torch.tensor(case.fill_value), case.question.x))
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
        nr_runs=RUNS, subset_size=SUBSET, perturb_baseline=case.fill_value, **QUANTUS_COMMON
    )
    values = case.map("centred")
    values -= values.min()  # shifts every subset's sum alike; Quantus refuses maps that are negative throughout
    with global_generators(case.question.seed):
        return scalar(metric(case.similarity_model, case.x, np.array([0]), values, softmax=False))


def symmetric_relevance_gain(case: Case) -> float:
    """LIF - MIF: area of the curve when the least important patches go first minus when the most important go first.

    64 patches of 12 frames by 8 bands, ranked by their mean, two a step, replaced by the fill; 64 forwards.
    """
    frames, bands = case.attribution.centred.shape
    cells = case.map("centred").reshape(frames // PATCH[0], PATCH[0], bands // PATCH[1], PATCH[1]).mean(axis=(1, 3))
    ties = np.random.default_rng([case.question.seed, 13]).random(cells.size)
    least_first = np.lexsort((ties, cells.reshape(-1)))
    areas = []
    for order in (least_first, least_first[::-1]):
        step_removed = np.empty(cells.size)
        step_removed[order] = np.arange(cells.size) // PATCHES_IN_STEP
        steps = torch.arange(cells.size // PATCHES_IN_STEP).reshape(-1, 1, 1, 1)
        pixels = torch.from_numpy(step_removed.reshape(cells.shape).repeat(PATCH[0], 0).repeat(PATCH[1], 1))
        removed = torch.where(pixels <= steps, torch.tensor(case.fill_value), case.question.x)
        curve = outputs(case.similarity_model, removed, 0)
        areas.append(np.trapezoid([1.0, *curve], dx=1 / len(curve)))
    return float(areas[0] - areas[1])


OWN = "similarity to own embedding"
METRICS = (
    Metric(
        "PixelFlipping", "faithfulness", "down", "centred", "own", OWN, "Quantus; area by trapezoid", pixel_flipping
    ),
    Metric("FaithfulnessCorrelation", "faithfulness", "up", "centred", "own", OWN, "Quantus", faithfulness_correlation),
    Metric("SRG", "faithfulness", "up", "centred", "own", OWN, "Bluecher et al. 2024", symmetric_relevance_gain),
    Metric(
        "PixelFlipping-class",
        "faithfulness",
        "down",
        "centred",
        "own",
        "class probability",
        "Quantus",
        pixel_flipping_class,
    ),
)
