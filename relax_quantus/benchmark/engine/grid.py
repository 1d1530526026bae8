"""The grid of a run: its cells, what each depends on, and the units in which they are worked off.

A resolved `BenchmarkConfig` and its data sets and encoders enter; a `Grid` of `Place`s leaves. A
cell's key is a digest of everything that its scores depend on: the clip and the examples that the
head was fitted on by their content, the encoder by its weights, the seed, the method, the metric,
the settings that reach them, and the versions of the code that computes them (see `versions`). What
merely adds to a run (clips, seeds, methods, metrics, data sets, encoders) leaves the keys of the
rest as they are, and what it changes has other keys: old cells are used again where they still
hold, and nowhere else. The parts of a key are kept beside it, so that a run can say why it computes
a stored cell anew.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.datasets import Dataset
from relax_quantus.benchmark.data.fingerprints import Traces, clip_digest, examples_digest, traces_of
from relax_quantus.benchmark.engine.cells import Unit
from relax_quantus.benchmark.engine.store import Store
from relax_quantus.benchmark.engine.versions import Versions, versions
from relax_quantus.benchmark.methods.registry import Method
from relax_quantus.benchmark.metrics.metric import Metric


@dataclass(frozen=True)
class Place:
    """One cell of the grid: where it stands, its key, and the digests of which the key is made.

    Attributes
    ----------
    parts
        What the score depends on -> its digest.
    """

    dataset: str
    encoder: str
    seed: int
    clip: int
    family: str
    method: str
    metric: str
    key: str
    parts: Mapping[str, str]

    @property
    def identity(self) -> str:
        """Digest of where the cell stands, whatever it depends on."""
        return _digest(self.dataset, self.encoder, self.seed, self.clip, self.method, self.metric)


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
    traces
        Data set, encoder and number of a clip -> what its cells are computed from.
    """

    places: tuple[Place, ...]
    names: Mapping[str, str]
    micro_batches: Mapping[str, int | None]
    traces: Mapping[tuple[str, str, int], Traces]

    def keys(self) -> list[str]:
        """Return the key of every cell, in table order."""
        return [place.key for place in self.places]

    def anew(self, store: Store) -> dict[str, int]:
        """Count stored cells of another version or other settings, by what has changed."""
        stored, known, reasons = store.keys(), store.parts(), Counter[str]()
        for place in self.places:
            before = known.get(place.identity)
            if place.key not in stored and before is not None:
                reasons[" and ".join(name for name, part in place.parts.items() if before.get(name) != part)] += 1
        if stored and not known:
            reasons["earlier layout of the store"] = len(stored)
        return dict(reasons)

    def units(self, done: Container[str]) -> list[Unit]:
        """Group the cells that are not done by clip, family and seed.

        All seeds of a clip come one after another, so that what metrics have embedded of it is
        remembered for all of them.
        """
        grouped: dict[tuple[Any, ...], list[tuple[str, str, str]]] = {}
        for p in self.places:
            if p.key not in done:
                unit = (p.dataset, p.encoder, p.seed, p.clip, p.family)
                grouped.setdefault(unit, []).append((p.method, p.metric, p.key))
        place = {(p.dataset, p.encoder, p.clip): number for number, p in reversed(list(enumerate(self.places)))}
        order = sorted(grouped, key=lambda unit: place[unit[0], unit[1], unit[3]])
        return [
            Unit(d, e, seed, clip, self.micro_batches.get(e), tuple(grouped[unit]), self.traces[d, e, clip])
            for unit in order
            for d, e, seed, clip, _ in (unit,)
        ]


def reuse(cells: int, reused: int, anew: Mapping[str, int]) -> str:
    """Say how many cells a run has from an earlier one, and why it computes others anew.

    Examples
    --------
    >>> reuse(20, 12, {"settings": 4})
    '12 of 20 cells reused; 4 stored cells computed anew, as these changed: settings (4)'
    """
    said = f"{reused} of {cells} cells reused"
    if not anew:
        return said
    why = ", ".join(f"{name} ({n})" for name, n in anew.items())
    return f"{said}; {sum(anew.values())} stored cells computed anew, as these changed: {why}"


def lay_out(
    config: BenchmarkConfig,
    datasets: Mapping[str, Dataset],
    encoders: Mapping[str, tuple[nn.Module, str]],
    methods: list[Method],
    metrics: list[Metric],
    micro_batches: Mapping[str, int | None],
    code: Versions | None = None,
) -> Grid:
    """Lay out the grid of a resolved configuration.

    Parameters
    ----------
    config
        Resolved.
    datasets
        Specification -> data set.
    encoders
        Specification -> the encoder and the SHA-256 of its weights.
    methods, metrics
        Those of `config`.
    micro_batches
        Specification of an encoder -> masked copies a forward.
    code
        Versions of the code; None for those of this process.
    """
    places, traces = list[Place](), dict[tuple[str, str, int], Traces]()
    code = code or versions()
    laid = {spec: code_of(config, network, methods, metrics, code) for spec, (network, _) in encoders.items()}
    for dataset, data in datasets.items():
        clips, examples = [clip_digest(clip) for clip in data.clips], examples_digest(data)
        for encoder, (_, sha256) in encoders.items():
            traces |= {(dataset, encoder, k): traces_of(data, k, sha256, laid[encoder]) for k in range(len(clips))}
            depends = {"head's examples": examples, "encoder": _digest(encoder, sha256)}
            for seed in config.seeds:
                given = (config.seed, seed, micro_batches.get(encoder))
                for index, clip in enumerate(clips):
                    here = (dataset, encoder, seed, index)
                    for method, metric in _pairs(config, index, methods, metrics):
                        parts = {
                            **depends,
                            "clip": clip,
                            "settings": _digest(
                                *given, settings(config, metric), metric.configuration, metric.question
                            ),
                            "shared code": laid[encoder]["shared code"],
                            "encoder's code": laid[encoder]["encoder's code"],
                            "method's code": laid[encoder][f"method {method.name}"],
                            "metric's code": laid[encoder][f"metric {metric.name}"],
                        }
                        key = _digest(method.name, metric.name, parts)
                        places.append(Place(*here, method.family, method.name, metric.name, key, parts))
    return Grid(tuple(places), _names(datasets), micro_batches, traces)


def _pairs(
    config: BenchmarkConfig, clip: int, methods: list[Method], metrics: list[Metric]
) -> Iterator[tuple[Method, Metric]]:
    """Pair methods and metrics of one clip.

    Metrics that explain again run on the first clips only.
    """
    return (
        (method, metric)
        for method in methods
        for metric in metrics
        if not metric.reexplains or clip < config.reexplain_clips
    )


def code_of(
    config: BenchmarkConfig, encoder: nn.Module, methods: list[Method], metrics: list[Metric], code: Versions
) -> dict[str, str]:
    """Digest all code that a run depends on with one encoder."""
    return {
        "shared code": code.shared(),
        "encoder's code": code.of_encoder(encoder),
        **{f"method {method.name}": code.of_method(method, config) for method in methods},
        **{f"metric {metric.name}": code.of_metric(metric) for metric in metrics},
    }


def settings(config: BenchmarkConfig, metric: Metric) -> dict[str, Any]:
    """Return the settings that reach what is kept of a metric.

    Data, encoder, method and seed are parts of the key by themselves.
    """
    names = ["n_samples", "fill", "estimator", "domain", "curves"]
    if metric.reexplains:
        names += ["reexplain_samples", "perturbations"]
    return {name: getattr(config, name) for name in names}


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _names(datasets: Mapping[str, Dataset]) -> dict[str, str]:
    """Name the data sets: by their own names, or by specification where several share one."""
    names = [data.name for data in datasets.values()]
    return {spec: data.name if names.count(data.name) == 1 else spec for spec, data in datasets.items()}
