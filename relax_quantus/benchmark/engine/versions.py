"""Digest, part by part, what a cell's score depends on; `grid` makes the cell's key of it.

A method, a metric, an encoder or the settings enter; digests leave. Content counts by content (a
clip, the examples of the head, weights), settings by value, and code by the syntax trees that
`base.source` finds from

- the method's class, with its mask strategy, fill and estimator;
- what the metric measures by;
- the classes of the encoder's layers, those of a user's own file included;
- what puts the question, fits the head and measures, which all cells share.

So a comment, a docstring or a change in what draws and prints discards nothing; a change in an
estimator discards the cells of RELAX and not those of a Captum gradient; a change in one metric
discards that metric's. Of other libraries the versions of those that such code imports count. How a
cell is written down is no part of its score: `FORM` is raised by hand when that changes, and
discards all.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from torch import nn

from relax_quantus.base.source import Closure, Sources
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.region import with_region
from relax_quantus.benchmark.engine.cells import Models, measured
from relax_quantus.benchmark.engine.prepared import Head, Prepared
from relax_quantus.benchmark.methods.questions import Method
from relax_quantus.benchmark.metrics.metric import Metric
from relax_quantus.relax.estimators import ESTIMATORS
from relax_quantus.relax.fills import FILLS

FORM = 1
SHARED = (Prepared, Head, with_region, Models, measured)
LIBRARIES = {
    "torch": "torch",
    "captum": "captum",
    "quantus": "quantus",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
}
"""Name that code imports -> distribution whose version counts; others draw, read files or show
progress.
"""


@dataclass(frozen=True)
class Versions:
    """Versions of what scores depend on.

    Attributes
    ----------
    sources
        Where the code is read.
    """

    sources: Sources = field(default_factory=Sources)

    def of_method(self, method: Method, config: BenchmarkConfig) -> str:
        """Digest the code of a method with its masks, fill and estimator."""
        fill = method.fill or (config.fill if method.uses_fill or method.masks else "")
        estimator = (method.estimator or config.estimator) if method.masks else ""
        used: list[Any] = [method]
        if method.masks:
            used.append(getattr(method, "strategy", lambda: None)())
        used += [registry.get(name) for registry, name in ((FILLS, fill), (ESTIMATORS, estimator)) if name]
        return self._digest(used, (method.masks, fill, estimator))

    def of_metric(self, metric: Metric) -> str:
        """Digest the code that a metric measures by, with its fill."""
        fill = [FILLS.get(metric.evaluator_fill)] if metric.evaluator_fill else []
        return self._digest([metric.measure, *fill], (metric.evaluator_fill,))

    def of_encoder(self, encoder: nn.Module) -> str:
        """Digest the code of an encoder's layers but for torch's own."""
        kinds = {type(layer) for layer in encoder.modules()}
        return self._digest(sorted((k for k in kinds if not k.__module__.startswith("torch.")), key=repr))

    def shared(self) -> str:
        """Digest the code that the cells of all methods and metrics share."""
        return _digest(FORM, self._digest(SHARED))

    def _digest(self, used: Iterable[Any], names: Iterable[str] = ()) -> str:
        objects = [part for thing in used for part in _parts(thing)]
        settings = [repr((thing.args, thing.keywords)) for thing in objects if isinstance(thing, partial)]
        closure: Closure = self.sources.closure_of(objects, names)
        libraries = {d: _version(d) for name, d in LIBRARIES.items() if name in closure.libraries}
        return _digest(closure.sha256, libraries, settings)


@cache
def versions() -> Versions:
    """Return the versions of this process' code, as its files are when they are first asked for."""
    return Versions()


def _parts(thing: Any) -> list[Any]:
    """List a thing and, of an instance, the functions that it holds."""
    if isinstance(thing, type | partial) or hasattr(thing, "__qualname__"):
        return [thing]
    return [thing, *(value for value in vars(thing).values() if callable(value))]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
