"""Measure faithfulness: whether removing what a map calls important changes the answer.

A `MetricInput` enters, a score leaves. Removed parts are filled with digital silence, or as the
metric's paper says; the model is the similarity to the example's own embedding, or the predicted
class. Curves and correlations are computed here, because Quantus integrates some with a function
that NumPy no longer has, orders ties by their place and embeds one example at a time; tests hold
them against Quantus where Quantus is right. Each one favours maps of its own fill and shape:
comparisons rest on `symmetric_relevance_gain`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from relax_quantus.benchmark.methods.questions import level_of
from relax_quantus.benchmark.metrics.deletion_curves import (
    Partition,
    Units,
    area,
    influence_curves,
    orders,
    shares,
)
from relax_quantus.benchmark.metrics.imputation import impute
from relax_quantus.benchmark.metrics.metric import Metric, MetricInput, Scores, Values, outputs
from relax_quantus.frontend.log_mel import LogMelConfig

FILL = "silence"
FLIPPED = Partition(steps=32)
REGIONS = Partition(12, 8)
REGIONS_REMOVED = 32
SQUARES = Partition(6, 4)
SEGMENTS = 32
SUBSET = 0.1
RUNS = 50
IMPUTED = Partition(steps=8)
NOISE = 0.01
REMEMBERED = 32
"""Series of imputed examples, 200 kB each: two metrics ask for the same, and a tied map for ten."""


def pixel_flipping(given: MetricInput) -> Scores:
    """Measure the area under the similarity while the most important bins go, 192 at a time.

    The similarity is to the own embedding.
    """
    return _flipped(
        influence_curves(given, given.similarity_model, 0, FLIPPED.of(given.question.x.shape), FILL, ("MIF",), seed=10)[
            "MIF"
        ]
    )


def pixel_flipping_class(given: MetricInput) -> Scores:
    """Measure the area under the predicted class's probability, as in the source document."""
    probability = torch.nn.Sequential(given.classifier, torch.nn.Softmax(1))
    target = given.question.target
    return _flipped(
        influence_curves(given, probability, target, FLIPPED.of(given.question.x.shape), FILL, ("MIF",), seed=10)["MIF"]
    )


def _flipped(values: Values) -> Scores:
    return Scores(area(values), curves={"MIF": (shares(values), values)})


def selectivity(given: MetricInput) -> float:
    """Measure the area under the similarity while squares of 16 x 16 bins go, highest first."""
    return area(
        influence_curves(given, given.similarity_model, 0, SQUARES.of(given.question.x.shape), FILL, ("MIF",), seed=11)[
            "MIF"
        ]
    )


def region_perturbation(given: MetricInput) -> float:
    """Measure the similarity's mean fall while the 32 most important of 96 squares go.

    Squares are of 8 frames by 8 bands.

    Samek et al. 2017, equation 12, without the step of no removal. Quantus declares that lower is
    better; it is a fall, so higher is.
    """
    units = REGIONS.of(given.question.x.shape)
    steps = min(REGIONS_REMOVED, units.n_steps)
    values = influence_curves(given, given.similarity_model, 0, units, FILL, ("MIF",), seed=12, steps=steps)["MIF"]
    return float(np.mean(values[0] - values[1:]))


def irof(given: MetricInput) -> float:
    """Measure the area over the similarity, relative to its start, while superpixels go.

    The most important superpixel of the spectrogram goes first.

    Superpixels are SLIC's, about 32, made from the example alone; the fill is the example's mean,
    as in the paper (Rieger and Hansen 2020).
    """
    units = superpixels(given.x[0, 0].tobytes(), given.x.shape[-2:])
    values = influence_curves(given, given.similarity_model, 0, units, "mean", ("MIF",), seed=13)["MIF"]
    return 1.0 - area(values / values[0])


@lru_cache(maxsize=8)
def superpixels(x: bytes, shape: tuple[int, ...]) -> Units:
    """Segment a float32 log-mel example ``(T, F)`` into SLIC superpixels.

    Levels are scaled to [0, 1] and smoothed over a bin.
    """
    from skimage.segmentation import slic

    image = np.frombuffer(x, dtype=np.float32).reshape(shape).astype(np.float64)
    labels = slic(image, n_segments=SEGMENTS, compactness=0.1, sigma=1, channel_axis=None, start_label=0)
    return Units(np.unique(labels, return_inverse=True)[1].reshape(labels.shape))


def faithfulness_correlation(given: MetricInput) -> float:
    """Correlate the drop in similarity with the map's sum over random subsets.

    50 subsets of a tenth of the bins, the same for every method.
    """
    x, values = given.question.x, given.map("centred").reshape(-1)
    generator = np.random.RandomState(given.question.seed % 2**32)
    subsets = np.stack([generator.choice(values.size, round(SUBSET * values.size), replace=False) for _ in range(RUNS)])
    gone = torch.zeros(RUNS + 1, values.size, dtype=torch.bool)
    gone[torch.arange(1, RUNS + 1)[:, None], torch.from_numpy(subsets)] = True
    after = outputs(given.similarity_model, torch.where(gone.reshape(-1, *x.shape[1:]), level_of(FILL, x), x), 0)
    return float(np.corrcoef(values[subsets].sum(1), after[0] - after[1:])[0, 1])


def faithfulness_estimate(given: MetricInput) -> float:
    """Correlate (Pearson) a group's sum with the drop when it alone goes.

    Over 32 groups of 192 bins of like importance.
    """
    return _groups(given, lambda sums, drops: float(np.corrcoef(sums, drops)[0, 1]))


def monotonicity_correlation(given: MetricInput) -> float:
    """Correlate (Spearman) a group's sum with the squared drop when it alone goes.

    Over the same groups as `faithfulness_estimate`.

    Nguyen and Martinez 2020, with one fill in the place of samples and the signed map in the place
    of its absolute value.
    """
    from scipy.stats import spearmanr

    return _groups(given, lambda sums, drops: float(spearmanr(sums, drops**2).statistic))


def _groups(given: MetricInput, correlate: Callable[[Values, Values], float]) -> float:
    x, values = given.question.x, given.map("centred")[0, 0]
    level, units = level_of(FILL, x), FLIPPED.of(x.shape)
    found = []
    for order in orders(given, values, units, seed=10):
        steps = units.step_of(order)
        alone = torch.from_numpy(steps) == torch.arange(units.n_steps + 1).reshape(-1, 1, 1, 1)
        after = outputs(given.similarity_model, torch.where(alone, level.to(x), x), 0)
        sums = np.bincount(steps.reshape(-1), values.reshape(-1))[1:].astype(np.float64)
        found.append(correlate(sums, after[0] - after[1:]))
    return float(np.mean(found))


def road(given: MetricInput) -> float:
    """Measure the share of steps at which the predicted class is still predicted.

    In each the most important eighths of the bins are imputed, one to seven.
    """
    logits = [_logits(given, x) for x in _imputed(given)]
    return float(np.mean([np.mean(values.argmax(1) == given.question.target) for values in logits]))


def road_embedding(given: MetricInput) -> float:
    """Measure the area under the similarity while the highest eighths of the bins are imputed.

    Over 0 to 7/8.
    """
    return float(np.mean([area(outputs(given.similarity_model, x, 0)) for x in _imputed(given)]))


def _logits(given: MetricInput, x: torch.Tensor) -> Values:
    with torch.no_grad():
        return np.asarray(given.classifier(x[1:]).double().cpu().numpy())


def _imputed(given: MetricInput) -> list[torch.Tensor]:
    """Impute 1 to 7 eighths of the example by the noisy mean of their neighbours.

    With the example itself ``(8, 1, T, F)`` an order.
    """
    x, seed, shape = given.x[0].tobytes(), given.question.seed, given.x.shape[-2:]
    found = enumerate(orders(given, given.map("centred")[0, 0], IMPUTED.of(shape), seed=14))
    return [_impute(x, order[::-1].astype(np.int64).tobytes(), seed + number, shape) for number, order in found]


@lru_cache(maxsize=REMEMBERED)
def _impute(x: bytes, most_first: bytes, seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    example = np.frombuffer(x, dtype=np.float32).reshape(shape).astype(np.float64)
    order = np.frombuffer(most_first, dtype=np.int64)
    rng = np.random.default_rng([seed, 14])
    units = IMPUTED.of(shape)
    made = [impute(example, order[: k * units.per_step], NOISE, rng) for k in range(1, units.n_steps)]
    return torch.from_numpy(np.stack([example, *made]).astype(np.float32)[:, None])


USUAL = (LogMelConfig().frames, LogMelConfig().mel_bands)
"""Shape of an example by which costs and settings are told."""
STEPS = FLIPPED.of(USUAL).n_steps
PER_STEP = f"{FLIPPED.of(USUAL).per_step} bins a step, fill {FILL}"


def _metric(name: str, direction: str, measure: Callable[[MetricInput], float | Scores], **rest: Any) -> Metric:
    given = {"view": "embedding", "granularity": "bin", "evaluator_fill": FILL, "forwards": STEPS, **rest}
    return Metric(name=name, category="faithfulness", direction=direction, measure=measure, **given)


METRICS = (
    _metric(
        "PixelFlipping",
        "down",
        pixel_flipping,
        range="[-1, 1]",
        configuration=f"{PER_STEP}; area by the trapezoidal rule",
        source="Bach et al. 2015",
        formula=r"\int_0^1 y_{\mathrm{MIF}}(q)\, dq, \qquad y = \cos(h, \tilde h)",
        quantus="PixelFlipping",
    ),
    _metric(
        "PixelFlipping-class",
        "down",
        pixel_flipping_class,
        view="probability",
        range="[0, 1]",
        configuration=f"{PER_STEP}; area by the trapezoidal rule",
        source="Bach et al. 2015",
        formula=r"\int_0^1 p_{\hat c, \mathrm{MIF}}(q)\, dq",
        quantus="PixelFlipping",
    ),
    _metric(
        "Selectivity",
        "down",
        selectivity,
        granularity="patch",
        range="[-1, 1]",
        configuration=f"24 squares of 16 x 16 bins one by one, fill {FILL}; area by the trapezoidal rule",
        source="Montavon et al. 2018",
        formula=r"\int_0^1 y_{\mathrm{MIF}}(q)\, dq, \qquad y = \cos(h, \tilde h)",
        quantus="Selectivity",
        forwards=SQUARES.of(USUAL).n,
    ),
    _metric(
        "RegionPerturbation",
        "up",
        region_perturbation,
        granularity="patch",
        range="[0, 2]",
        configuration=f"the first {REGIONS_REMOVED} of {REGIONS.of(USUAL).n} squares of 8 x 8 bins, fill {FILL}",
        source="Samek et al. 2017",
        formula=r"\frac{1}{L} \sum_{k=1}^{L} (y_0 - y_k), \qquad L = 32",
        quantus="RegionPerturbation",
        forwards=REGIONS_REMOVED,
    ),
    _metric(
        "IROF",
        "up",
        irof,
        granularity="",
        evaluator_fill="mean",
        range="[0, 2]",
        configuration=f"about {SEGMENTS} SLIC superpixels of the example, fill mean; area over the curve by the trapezoidal rule",
        source="Rieger and Hansen 2020",
        formula=r"1 - \int_0^1 \frac{y_{\mathrm{MIF}}(q)}{y_0}\, dq",
        quantus="IROF",
        forwards=SEGMENTS + 8,
    ),
    _metric(
        "FaithfulnessCorrelation",
        "up",
        faithfulness_correlation,
        range="[-1, 1]; 0 at chance",
        configuration=f"{RUNS} random subsets of {SUBSET} bins, the same for every method, fill {FILL}",
        source="Bhatt et al. 2020",
        formula=r"\operatorname{corr}_S \Big( \sum_{j \in S} a_j,\; y - y_{\setminus S} \Big), \qquad |S| = 614",
        quantus="FaithfulnessCorrelation",
        forwards=RUNS,
    ),
    _metric(
        "FaithfulnessEstimate",
        "up",
        faithfulness_estimate,
        range="[-1, 1]; 0 at chance",
        configuration=f"{STEPS} groups of {FLIPPED.of(USUAL).per_step} bins of like importance, each removed alone, fill {FILL}",
        source="Alvarez-Melis and Jaakkola 2018",
        formula=r"\operatorname{corr}_k \Big( \sum_{j \in G_k} a_j,\; y - y_{\setminus G_k} \Big)",
        quantus="FaithfulnessEstimate",
    ),
    _metric(
        "MonotonicityCorrelation",
        "up",
        monotonicity_correlation,
        range="[-1, 1]; 0 at chance",
        configuration=f"Spearman, squared drops; {STEPS} groups of {FLIPPED.of(USUAL).per_step} bins, fill {FILL}; signed map",
        source="Nguyen and Martinez 2020",
        formula=r"\rho_k \Big( \sum_{j \in G_k} a_j,\; (y - y_{\setminus G_k})^2 \Big)",
        quantus="MonotonicityCorrelation",
    ),
    _metric(
        "ROAD",
        "down",
        road,
        view="logit",
        evaluator_fill="",
        range="[0, 1] in sevenths",
        configuration=f"1/8 to 7/8 of the bins imputed by their neighbours, noise {NOISE}; class kept or not",
        source="Rong et al. 2022",
        formula=r"\frac17 \sum_{k=1}^{7} \mathbb 1 \big[ \arg\max\, \tilde y_{k/8} = \hat c \big]",
        quantus="ROAD",
        forwards=IMPUTED.of(USUAL).n_steps - 1,
    ),
    _metric(
        "ROAD-embedding",
        "down",
        road_embedding,
        evaluator_fill="",
        range="[-1, 1]",
        configuration=f"1/8 to 7/8 of the bins imputed by their neighbours, noise {NOISE}; area of the similarity",
        source="Rong et al. 2022",
        formula=r"\frac87 \int_0^{7/8} \cos(h, \tilde h_q)\, dq",
        quantus="ROAD",
        forwards=IMPUTED.of(USUAL).n_steps - 1,
    ),
)
