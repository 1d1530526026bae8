"""Compute one unit of work: the cells of one clip and one family of methods.

A `Unit` and the `Prepared` it runs on enter; finished `Cell`s leave, one by one. Each map is
computed once and shared between metrics; a strategy and its twin share the encoder's forwards. A
metric that fails, is undefined or does not apply, or runs out of memory or time, becomes a row with
its reason. Clips are evaluated one by one and every seed is the cell's own, so that no score
depends on what was computed before it.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.datasets import Clip
from relax_quantus.benchmark.data.fingerprints import Traces
from relax_quantus.benchmark.engine.limits import TimeLimitExceeded, outcome, time_limit
from relax_quantus.benchmark.engine.prepared import Prepared
from relax_quantus.benchmark.engine.store import Cell
from relax_quantus.benchmark.methods.questions import Attribution, Question
from relax_quantus.benchmark.methods.registry import Method
from relax_quantus.benchmark.metrics.embedding_cache import CachedEncoder
from relax_quantus.benchmark.metrics.metric import Metric, MetricInput, Scores
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.quantus_bridge import SimilarityModel

Records = list[dict[str, Any]]
NOT_FINITE = "the metric returned no finite number"


@dataclass(frozen=True)
class Unit:
    """A unit of work: what one worker does at a time.

    Attributes
    ----------
    dataset, encoder
        Specifications.
    seed
        Of masks, permutations and metrics.
    clip
        Index in the data set.
    perturbations_per_eval
        Masked copies a forward.
    todo
        ``(method, metric, key)`` of each cell: a strategy and its twins, or one other method.
    traces
        Of the content and the code that the keys were made from: whoever computes the cells checks
        that it has the same.
    """

    dataset: str
    encoder: str
    seed: int
    clip: int
    perturbations_per_eval: int | None
    todo: tuple[tuple[str, str, str], ...]
    traces: Traces = ()


@dataclass(frozen=True, eq=False)
class Models:
    """The models that metrics feed changed copies of a clip to.

    They share one cache of embeddings.
    """

    similarity: SimilarityModel
    classifier: EmbeddingClassifier

    @classmethod
    def of(cls, prepared: Prepared, clip: Clip) -> Models:
        """Make the models of one clip, so that the cache is the clip's alone."""
        encoder, x, head = CachedEncoder(prepared.encoder), clip.x[None], prepared.classifier.head
        classifier = EmbeddingClassifier(
            encoder, head.weight, head.bias, prepared.classifier.class_names, prepared.classifier.cross_validation
        )
        return cls(SimilarityModel(encoder, encoder(x)).eval(), classifier.eval())


class Maps:
    """A method's maps of one clip, each made at most once.

    A question without an answer gives its reason each time.

    Attributes
    ----------
    made
        One record for each map made: method, question, masks, seconds.
    """

    def __init__(self, prepared: Prepared, clip: Clip, method: Method) -> None:
        self.prepared, self.clip, self.method = prepared, clip, method
        self.known: dict[tuple[str, bool], tuple[Question, Attribution] | BaseException] = {}
        self.made: list[dict[str, Any]] = []

    def get(self, asked: str, again: bool) -> tuple[Question, Attribution]:
        """Return the question and the answer.

        `again` uses as many masks as metrics that explain again.
        """
        key = (asked, again)
        if key not in self.known:
            started = time.perf_counter()
            try:
                with time_limit(self.prepared.config.time_limit):
                    self.known[key] = self._explain(asked, again)
            except (Exception, TimeLimitExceeded) as error:
                self.known[key] = error
            c = self.prepared.config
            self.made.append(
                {
                    "clip": self.clip.name,
                    "method": self.method.name,
                    "question": asked,
                    "n_samples": c.reexplain_samples if again else c.n_samples,
                    "seconds": round(time.perf_counter() - started, 4),
                }
            )
        found = self.known[key]
        if isinstance(found, BaseException):
            raise found
        return found

    def _explain(self, asked: str, again: bool) -> tuple[Question, Attribution]:
        c = self.prepared.config
        question = self.prepared.ask(asked, self.clip, c.reexplain_samples if again else c.n_samples)
        return question, self.method.explain(question, self.prepared.similarities)


def masks_of(config: BenchmarkConfig, method: Method, again: bool) -> int:
    """Return the number of masks of one map, 0 for methods without masks."""
    return (config.reexplain_samples if again else config.n_samples) if method.masks else 0


def cells(
    prepared: Prepared,
    unit: Unit,
    methods: Mapping[str, Method],
    metrics: Mapping[str, Metric],
    models: Callable[[], Models],
) -> Iterator[Cell]:
    """Finish the cells of a unit, one after another."""
    clip = prepared.dataset.clips[unit.clip]
    maps = {name: Maps(prepared, clip, methods[name]) for name, _, _ in unit.todo}
    for name, metric, key in unit.todo:
        made = len(maps[name].made)
        prepared.similarities.asked.clear()
        rows, curves = _scored(prepared, clip, maps[name], metrics[metric], models)
        yield Cell(key, rows, curves, maps[name].made[made:], dict(prepared.similarities.asked))


def _scored(
    prepared: Prepared, clip: Clip, maps: Maps, metric: Metric, models: Callable[[], Models]
) -> tuple[Records, Records]:
    """Measure one cell: rows of the score and of its parts, and the points of its curves."""

    def ask() -> MetricInput:
        question, attribution = maps.get(metric.question, metric.reexplains)
        return MetricInput(
            method=maps.method,
            question=question,
            attribution=attribution,
            similarity_model=models().similarity,
            classifier=models().classifier,
            perturbations=prepared.config.perturbations,
            similarities=prepared.similarities,
        )

    scores, seconds, status, reason = measured(ask, metric, prepared.config.time_limit)
    common = described(prepared.config, clip, maps.method, metric)
    rows = [
        {**common, "part": "", "value": scores.value, "seconds": round(seconds, 4), "status": status, "reason": reason}
    ]
    for part, value in scores.parts.items():
        bad = {} if math.isfinite(value) else {"value": math.nan, "status": "nan", "reason": NOT_FINITE}
        rows.append({**rows[0], "part": part, "value": float(value), "seconds": 0.0, **bad})
    curves = [
        {"clip": clip.name, "method": maps.method.name, "metric": metric.name, "order": order, "share": x, "value": y}
        for order, (shares, values) in (scores.curves if prepared.config.curves else {}).items()
        for x, y in zip(map(float, shares), map(float, values), strict=True)
    ]
    return rows, curves


def measured(
    ask: Callable[[], MetricInput], metric: Metric, seconds: float | None = None
) -> tuple[Scores, float, str, str]:
    """Measure one cell, and make a reason of whatever goes wrong.

    Returns scores, seconds without making the map, status and reason.

    Parameters
    ----------
    ask
        Makes the map.
    metric
        To measure.
    seconds
        The metric's time limit.
    """
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = ask()
            started = time.perf_counter()
            with time_limit(seconds):
                scores = metric.score(given)
                scores = replace(scores, value=float(scores.value))
    except (Exception, TimeLimitExceeded) as error:
        return Scores(math.nan), time.perf_counter() - started, *outcome(error)
    spent = time.perf_counter() - started
    if not math.isfinite(scores.value):
        return Scores(math.nan, scores.parts, scores.curves), spent, "nan", NOT_FINITE
    return scores, spent, "ok", ""


def described(config: BenchmarkConfig, clip: Clip, method: Method, metric: Metric) -> dict[str, Any]:
    """Fill the columns of a tidy row that the cell knows and that all its parts share."""
    relax = bool(method.masks)
    return {
        "clip": clip.name,
        "label": clip.label_name,
        "source_group": clip.source_group,
        "method": method.name,
        "base": method.base,
        "masks": method.masks,
        "fill": method.fill or (config.fill if method.uses_fill else ""),
        "edges": method.edges,
        "keep": method.keep,
        "own_granularity": method.own_granularity,
        "twin_of": method.twin_of,
        "estimator": (method.estimator or config.estimator) if relax else "",
        "n_samples": masks_of(config, method, metric.reexplains),
        "metric": metric.name,
        "category": metric.category,
        "direction": metric.direction,
        "view": metric.view,
        "granularity": metric.granularity,
        "evaluator_fill": metric.evaluator_fill,
        "question": metric.question,
    }


def without_scores(
    config: BenchmarkConfig, clip: Clip, method: Method, metric: Metric, status: str, reason: str
) -> Records:
    """Make the row of a cell that could not be computed at all."""
    common = described(config, clip, method, metric)
    return [{**common, "part": "", "value": math.nan, "seconds": 0.0, "status": status, "reason": reason}]
