"""Measure localisation: whether a map towards the clean call points at where it dominates.

Only where the truth is known and not empty. The question is the clean stem's embedding: towards the
mixture's own embedding a faithful map may rightly point at the background. The metrics of a region
ask of an encoder that sees one region alone: truth by construction, on any clip. They read the
signed map and its magnitude: a map that is as often below 0 as above inside the region is at chance
by its signs and finds it by its size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from relax_quantus.benchmark.methods.questions import Map, NotApplicable
from relax_quantus.benchmark.metrics.metric import QUANTUS_COMMON, Metric, MetricInput, scalar
from relax_quantus.quantus_bridge import import_quantus

TIE_BREAKS = 10
TOP = 307


def _measure(given: MetricInput, name: str, values: Map, **settings: Any) -> float:
    quantus = import_quantus()

    # No map that gets here is negative, so abs changes nothing; without it Quantus prints a line.
    truth = given.question.truth
    if truth is None or not truth.any():
        raise NotApplicable("the truth is not known for this clip" if truth is None else "the call dominates nowhere")
    metric: Any = getattr(quantus, name)(**{**QUANTUS_COMMON, "abs": True, **settings})
    segmentation = truth[None, None].astype(np.int64)
    return scalar(metric(given.similarity_model, given.x, np.array([0]), values, segmentation))


def auc(given: MetricInput) -> float:
    """Measure the area under the ROC curve of the map as a detector of the truth."""
    values = given.map("centred")
    return _measure(given, "AUC", values - values.min())


def auc_of_magnitudes(given: MetricInput) -> float:
    """Measure the area under the ROC curve of the map's magnitude, its signs left out."""
    return _measure(given, "AUC", given.map("magnitude"))


def rank_accuracy(given: MetricInput) -> float:
    """Measure the share of the k highest bins that lie in the truth of k bins.

    Mean over ten random orders of ties.
    """
    return _over_ties(given, "RelevanceRankAccuracy")


def top_k_intersection(given: MetricInput) -> float:
    """Measure the share of the 307 highest bins, a twentieth of all, that lie in the truth.

    Mean over ten random orders of ties.
    """
    return _over_ties(given, "TopKIntersection", k=TOP)


def pointing_game(given: MetricInput) -> float:
    """Measure whether the highest bin lies in the truth (1) or not (0), averaged over ties.

    Of tied bins ten random choices are averaged.
    """
    return _over_ties(given, "PointingGame")


def _over_ties(given: MetricInput, name: str, **settings: Any) -> float:
    values = given.map("centred")
    draws = 1 if np.unique(values).size == values.size else TIE_BREAKS
    return float(np.mean([_measure(given, name, given.ranks(draw), **settings) for draw in range(draws)]))


def mass_accuracy(given: MetricInput) -> float:
    """Measure the share of the positive map's sum that lies in the truth."""
    return _measure(given, "RelevanceMassAccuracy", given.map("positive"))


def mass_of_magnitudes(given: MetricInput) -> float:
    """Measure the share of the sum of the map's magnitude that lies in the truth."""
    return _measure(given, "RelevanceMassAccuracy", given.map("magnitude"))


AREA = r"\Pr(a_i > a_j) + \tfrac12 \Pr(a_i = a_j), \qquad i \in G,\; j \notin G"
"""a is the map, G the truth."""
CONFIGURATION = "towards the clean stem; clips without truth are left out"
METRICS = tuple(
    Metric(
        name=name,
        category="localisation",
        direction="up",
        measure=measure,
        map=kind,
        question="stem",
        range=values,
        configuration=f"{CONFIGURATION}{settings}",
        source=source,
        formula=formula,
        quantus=quantus,
    )
    for name, quantus, measure, kind, values, settings, source, formula in (
        ("AUC", "AUC", auc, "centred", "[0, 1]; .5 at chance", "", "Fawcett 2006", AREA),
        (
            "RankAccuracy",
            "RelevanceRankAccuracy",
            rank_accuracy,
            "centred",
            "[0, 1]; the truth's share of the bins at chance",
            f"; ties at random {TIE_BREAKS} times",
            "Arras et al. 2022",
            r"\frac{|\mathrm{top}_{|G|}(a) \cap G|}{|G|}",
        ),
        (
            "TopKIntersection",
            "TopKIntersection",
            top_k_intersection,
            "centred",
            "[0, 1]; the truth's share of the bins at chance",
            f"; k = {TOP}; ties at random {TIE_BREAKS} times",
            "Theiner et al. 2021",
            r"\frac{|\mathrm{top}_{k}(a) \cap G|}{k}, \qquad k = 307",
        ),
        (
            "PointingGame",
            "PointingGame",
            pointing_game,
            "centred",
            "0 or 1; the truth's share of the bins at chance",
            f"; ties at random {TIE_BREAKS} times",
            "Zhang et al. 2018",
            r"\mathbb 1 \big[ \arg\max_j a_j \in G \big]",
        ),
        (
            "MassAccuracy",
            "RelevanceMassAccuracy",
            mass_accuracy,
            "positive",
            "[0, 1]; the truth's share of the bins at chance",
            "",
            "Arras et al. 2022",
            r"\frac{\sum_{j \in G} a_j^+}{\sum_j a_j^+}",
        ),
    )
)
REGION = "an encoder that sees a region of the clip alone, towards its own embedding; the region is the truth"
METRICS += tuple(
    Metric(
        name=name,
        category="localisation",
        direction="up",
        measure=measure,
        map=kind,
        question="region",
        range=values,
        configuration=REGION,
        source=f"{source}; truth by construction",
        formula=formula,
        quantus=quantus,
    )
    for name, quantus, measure, kind, values, source, formula in (
        ("AUC-region", "AUC", auc, "centred", "[0, 1]; .5 at chance", "Fawcett 2006", AREA),
        (
            "AUC-region-absolute",
            "AUC",
            auc_of_magnitudes,
            "magnitude",
            "[0, 1]; .5 at chance",
            "Fawcett 2006",
            AREA.replace("a_i", "|a_i|").replace("a_j", "|a_j|"),
        ),
        (
            "MassAccuracy-region-absolute",
            "RelevanceMassAccuracy",
            mass_of_magnitudes,
            "magnitude",
            "[0, 1]; the truth's share of the bins at chance",
            "Arras et al. 2022",
            r"\frac{\sum_{j \in G} |a_j|}{\sum_j |a_j|}",
        ),
    )
)
