"""The grid of a run: which cells there are, what each depends on, and in which units they are worked off.

A resolved `BenchmarkConfig` and its data sets and encoders enter; a `Grid` of `Place`s leaves. A cell's key is a digest of everything that its
scores depend on: the clip and the examples that the head was fitted on by their content, the encoder by its weights, the seed, the method, the
metric, the settings that reach them, and the versions of the libraries. What merely adds to a run (clips, seeds, methods, metrics, data sets,
encoders) leaves the keys of the rest as they are, and what it changes has other keys: old cells are used again where they still hold, and
nowhere else.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from relax_quantus import __version__
from relax_quantus.base.source import source_sha256
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.datasets import Clip, Dataset, Examples
from relax_quantus.benchmark.engine.cells import Unit
from relax_quantus.benchmark.engine.origin import Origin, origin
from relax_quantus.benchmark.methods.questions import fingerprint
from relax_quantus.benchmark.methods.registry import Method
from relax_quantus.benchmark.metrics.case import Metric

LIBRARIES = ("torch", "captum", "quantus", "numpy", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Place:
    """One cell of the grid: where it stands, and its key."""

    dataset: str
    encoder: str
    seed: int
    clip: int
    family: str
    method: str
    metric: str
    key: str


@dataclass(frozen=True, eq=False)
class Grid:
    """Every cell of a run, in the order of the table.

    Attributes
    ----------
    places
        All cells.
    names
        Specification of a data set -> its name in the table.
    micro_batches
        Specification of an encoder -> masked copies a forward.
    origins
        Data set, encoder and number of a clip -> what its cells are computed from.
    """

    places: tuple[Place, ...]
    names: Mapping[str, str]
    micro_batches: Mapping[str, int | None]
    origins: Mapping[tuple[str, str, int], Origin]

    def keys(self) -> list[str]:
        """Of all cells."""
        return [place.key for place in self.places]

    def units(self, done: Container[str]) -> list[Unit]:
        """What is still to do: the cells of one clip, family and seed, without those that are done.

        All seeds of a clip come one after another, so that what metrics have embedded of it is remembered for all of them.
        """
        grouped: dict[tuple[Any, ...], list[tuple[str, str, str]]] = {}
        for p in self.places:
            if p.key not in done:
                unit = (p.dataset, p.encoder, p.seed, p.clip, p.family)
                grouped.setdefault(unit, []).append((p.method, p.metric, p.key))
        place = {(p.dataset, p.encoder, p.clip): number for number, p in reversed(list(enumerate(self.places)))}
        order = sorted(grouped, key=lambda unit: place[unit[0], unit[1], unit[3]])
        return [
            Unit(d, e, seed, clip, self.micro_batches.get(e), tuple(grouped[unit]), self.origins[d, e, clip])
            for unit in order
            for d, e, seed, clip, _ in (unit,)
        ]


def lay_out(
    config: BenchmarkConfig,
    datasets: Mapping[str, Dataset],
    encoders: Mapping[str, str],
    methods: list[Method],
    metrics: list[Metric],
    micro_batches: Mapping[str, int | None],
) -> Grid:
    """Lay out the grid of a resolved configuration.

    Parameters
    ----------
    config
        Resolved.
    datasets
        Specification -> data set.
    encoders
        Specification -> SHA-256 of the weights.
    methods, metrics
        Those of `config`.
    micro_batches
        Specification of an encoder -> masked copies a forward.
    """
    places, origins = list[Place](), dict[tuple[str, str, int], Origin]()
    code = versions()
    for dataset, data in datasets.items():
        clips, shared = [digest(clip) for clip in data.clips], surroundings(data)
        for encoder, sha256 in encoders.items():
            context = (shared, config.seed, sha256, encoder, micro_batches.get(encoder), code)
            origins |= {(dataset, encoder, index): origin(data, index, sha256, code) for index in range(len(clips))}
            for seed in config.seeds:
                for index, clip in enumerate(clips):
                    here = (dataset, encoder, seed, index)
                    places += _cells(config, here, _digest(context, seed, clip), methods, metrics)
    return Grid(tuple(places), _names(datasets), micro_batches, origins)


def _cells(
    config: BenchmarkConfig, here: tuple[str, str, int, int], context: str, methods: list[Method], metrics: list[Metric]
) -> Iterator[Place]:
    """Cells of one clip; metrics that explain again only on the first clips."""
    for method in methods:
        for metric in metrics:
            if not metric.reexplains or here[3] < config.reexplain_clips:
                key = _digest(context, method.name, metric.name, metric.configuration, settings(config, metric))
                yield Place(*here, method.family, method.name, metric.name, key)


def settings(config: BenchmarkConfig, metric: Metric) -> dict[str, Any]:
    """The settings that what is kept of a metric depends on, beside the data, the encoder, the method and the seed."""
    names = ["n_samples", "fill", "estimator", "domain", "curves"]
    if metric.reexplains:
        names += ["reexplain_samples", "perturbations"]
    return {name: getattr(config, name) for name in names}


def versions() -> dict[str, str]:
    """Of this package, its code and the libraries that scores depend on."""
    own = {"relax_quantus": __version__, "source": source_sha256()}
    return {**own, **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def digest(clip: Clip) -> str:
    """Of everything that a clip holds."""
    parts = (clip.name, clip.label, clip.label_name, clip.source_group, clip.x, clip.stem, clip.rest)
    return fingerprint(
        *parts, *(None if a is None else a.tobytes() for a in (clip.truth, getattr(clip, "region", None)))
    )


def surroundings(dataset: Dataset) -> str:
    """Digest of what a data set gives every cell beside its own clip: what the head is fitted and judged on."""

    def examples(some: Examples) -> tuple[Any, ...]:
        return some.x, some.y.tobytes(), some.groups, some.clips

    return fingerprint(dataset.class_names, *examples(dataset.training), *examples(dataset.held_out))


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _names(datasets: Mapping[str, Dataset]) -> dict[str, str]:
    """The data sets' own names; of those that share one, the specifications."""
    names = [data.name for data in datasets.values()]
    return {spec: data.name if names.count(data.name) == 1 else spec for spec, data in datasets.items()}
