"""The engine: datasets x methods x metrics -> one tidy row each.

Seventh step of the benchmark's flow: a `BenchmarkConfig` enters, `Results` leaves. Each map is computed once and shared between metrics; a
strategy and its twin share the encoder's forwards. A metric that fails, is undefined or does not apply becomes a row with its reason; nothing
aborts the run. Clips are evaluated one by one, so no score depends on its neighbours.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn
from tqdm.auto import tqdm

from relax_quantus.benchmark import methods, metrics
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.datasets import Clip, Dataset
from relax_quantus.benchmark.methods import Method
from relax_quantus.benchmark.metrics.case import Case, Metric, Undefined
from relax_quantus.benchmark.metrics.remembering import Remembering
from relax_quantus.benchmark.preparation import Bench, prepare
from relax_quantus.benchmark.questions import Attribution, NotApplicable, Question, fingerprint
from relax_quantus.heads import EmbeddingClassifier
from relax_quantus.quantus_bridge import SimilarityModel

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    ("dataset", "clip", "label", "source_group", "method", "masks", "fill", "estimator", "n_samples", "seed")
    + ("metric", "category", "direction", "value", "seconds", "status", "reason")
)  # fmt: skip
MISSING = (NotApplicable, Undefined)


@dataclass(frozen=True, eq=False)
class Results:
    """What a run found.

    Attributes
    ----------
    config
        With every method and metric named.
    rows
        Tidy: one row a clip, method and metric, columns `COLUMNS`. ``status`` is "ok", or "not_applicable", "undefined", "nan" or "failed" with
        a ``reason`` and no value.
    dataset
        Its name, classes, notes and skipped files are printed.
    head_accuracy
        Share of held-out clips that the head gets right (the mean logit over a clip's examples).
    encoder_sha256
        Of the encoder's weights.
    seconds
        Wall-clock time of each part; a method's is the time of its maps, not of explaining again in metrics.
    forwards
        Masked encoder forwards spent on RELAX.
    """

    config: BenchmarkConfig
    rows: pd.DataFrame
    dataset: Dataset
    head_accuracy: float
    encoder_sha256: str
    seconds: dict[str, float] = field(default_factory=dict)
    forwards: int = 0


def run(
    config: BenchmarkConfig,
    *,
    encoder: nn.Module | None = None,
    dataset: Dataset | None = None,
    show_progress: bool = True,
) -> Results:
    """Run a benchmark, and write its results if ``config.out`` names a folder.

    Parameters
    ----------
    config
        What to run.
    encoder, dataset
        To use instead of those that `config` names.
    show_progress
        Show a progress bar with the time left, on stderr.

    Raises
    ------
    UnknownNameError
        For an unknown method, metric, encoder, fill or estimator.
    DataError
        If the recordings cannot be used.
    """
    import pandas as pd

    config = config.resolved(encoder_given=encoder is not None)
    chosen = methods.build(config.methods), metrics.build(config.metrics)
    bench = prepare(config, encoder, dataset)
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    total = len(bench.dataset.clips) * len(chosen[0])
    with tqdm(total=total, desc="benchmark", unit="map", disable=not show_progress) as bar:
        for index, clip in enumerate(bench.dataset.clips):
            judges = Judges.of(bench, clip)
            for method in chosen[0]:
                bar.set_postfix_str(f"clip {index + 1}, {method.name}")
                rows += list(cells(bench, index, clip, method, chosen[1], judges))
                bar.update()
    bench.seconds["benchmark"] = time.perf_counter() - started
    results = Results(
        config=config,
        rows=pd.DataFrame(rows, columns=list(COLUMNS)).astype({"value": "float64"}),
        dataset=bench.dataset,
        head_accuracy=bench.head_accuracy,
        encoder_sha256=fingerprint(bench.encoder),
        seconds={name: round(value, 3) for name, value in bench.seconds.items()},
        forwards=bench.similarities.forwards,
    )
    if config.out is not None:
        from relax_quantus.benchmark.output import write

        write(results, config.out)
    return results


class Maps:
    """A method's maps of one clip, each made at most once; a question that has no answer gives its reason each time."""

    def __init__(self, bench: Bench, clip: Clip, method: Method) -> None:
        self.bench, self.clip, self.method = bench, clip, method
        self.known: dict[tuple[str, bool], tuple[Question, Attribution] | Exception] = {}

    def get(self, asked: str, again: bool) -> tuple[Question, Attribution]:
        """The question ("own" or "stem") and the answer; `again` uses the masks of metrics that explain again."""
        key = (asked, again)
        if key not in self.known:
            started = time.perf_counter()
            try:
                self.known[key] = self._explain(asked, again)
            except Exception as error:
                self.known[key] = error
            spent = self.bench.seconds
            spent[self.method.name] = spent.get(self.method.name, 0.0) + time.perf_counter() - started
        found = self.known[key]
        if isinstance(found, Exception):
            raise found
        return found

    def _explain(self, asked: str, again: bool) -> tuple[Question, Attribution]:
        c = self.bench.config
        if asked == "stem":
            question = self.bench.stem_question(self.clip)
        else:
            question = self.bench.question(self.clip, c.reexplain_samples if again else c.n_samples)
        return question, self.method.explain(question, self.bench.similarities)


@dataclass(frozen=True, eq=False)
class Judges:
    """The models that metrics feed changed copies of a clip to; they share one memory of what they embedded."""

    similarity: SimilarityModel
    classifier: EmbeddingClassifier

    @classmethod
    def of(cls, bench: Bench, clip: Clip) -> Judges:
        """Made anew for each clip, so that the memory is the clip's."""
        encoder, x, head = Remembering(bench.encoder), clip.x[None], bench.classifier.head
        classifier = EmbeddingClassifier(
            encoder, head.weight, head.bias, bench.classifier.class_names, bench.classifier.cross_validation
        )
        return cls(SimilarityModel(encoder, encoder(x)).eval(), classifier.eval())


def cells(
    bench: Bench, index: int, clip: Clip, method: Method, chosen: list[Metric], judges: Judges
) -> Iterator[dict[str, Any]]:
    """Rows of one clip and method; metrics that explain again only on the first clips."""
    maps, config = Maps(bench, clip, method), bench.config
    for metric in chosen:
        if metric.reexplains and index >= config.reexplain_clips:
            continue

        def ask(metric: Metric = metric) -> Case:
            question, attribution = maps.get(metric.question, metric.reexplains)
            return Case(
                method=method,
                question=question,
                attribution=attribution,
                similarity_model=judges.similarity,
                classifier=judges.classifier,
                perturbations=config.perturbations,
                similarities=bench.similarities,
            )

        yield row(bench, clip, method, metric, *measured(ask, metric))


def measured(ask: Callable[[], Case], metric: Metric) -> tuple[float, float, str, str]:
    """Value, seconds without making the map, status and reason of one cell; whatever goes wrong becomes its reason."""
    started = time.perf_counter()
    value, status, reason = math.nan, "ok", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case = ask()
            started = time.perf_counter()
            value = metric.score(case).value
        if not math.isfinite(value):
            value, status, reason = math.nan, "nan", "the metric returned no finite number"
    except MISSING as missing:
        status = "undefined" if isinstance(missing, Undefined) else "not_applicable"
        reason = str(missing)
    except Exception as error:
        status, reason = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return value, time.perf_counter() - started, status, reason


def row(
    bench: Bench, clip: Clip, method: Method, metric: Metric, value: float, seconds: float, status: str, reason: str
) -> dict[str, Any]:
    """One tidy row."""
    c, relax = bench.config, bool(method.masks)
    n_samples = c.reexplain_samples if metric.reexplains else c.n_samples
    return {
        "dataset": bench.dataset.name,
        "clip": clip.name,
        "label": clip.label_name,
        "source_group": clip.source_group,
        "method": method.name,
        "masks": method.masks,
        "fill": c.fill,
        "estimator": c.estimator if relax else "",
        "n_samples": n_samples if relax else 0,
        "seed": c.seed,
        "metric": metric.name,
        "category": metric.category,
        "direction": metric.direction,
        "value": value,
        "seconds": round(seconds, 4),
        "status": status,
        "reason": reason,
    }
