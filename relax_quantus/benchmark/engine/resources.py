"""Make what a process needs to compute cells once, and keep it: data sets, encoders, heads.

A `BenchmarkConfig` and a `Unit` enter, finished `Cell`s leave. The process that runs the benchmark
has `Resources`; so has each worker process, which makes everything from the configuration by
itself.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock
from threadpoolctl import threadpool_limits
from torch import nn

from relax_quantus.base.files import complete
from relax_quantus.base.networks import fingerprint
from relax_quantus.benchmark import metrics
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.datasets import Dataset
from relax_quantus.benchmark.data.fingerprints import Traces, traces_of
from relax_quantus.benchmark.engine.cells import Models, Unit, cells
from relax_quantus.benchmark.engine.grid import code_of
from relax_quantus.benchmark.engine.limits import outcome
from relax_quantus.benchmark.engine.prepared import Head, Prepared, load, prepare
from relax_quantus.benchmark.engine.store import Cell
from relax_quantus.benchmark.engine.versions import versions
from relax_quantus.benchmark.methods import registry as methods
from relax_quantus.encoders import loading as nets
from relax_quantus.errors import DataError

KEPT = 2
T = TypeVar("T")
Shared = str | os.PathLike[str]


class Resources:
    """Data sets, encoders and what is prepared on them for one run, the last few of each.

    Parameters
    ----------
    config
        Resolved.
    encoder, dataset
        To use instead of those that `config` names.
    shared
        Folder of the processes of a run: one makes the data sets and heads for all. None makes them
        here.
    """

    def __init__(
        self,
        config: BenchmarkConfig,
        encoder: nn.Module | None = None,
        dataset: Dataset | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.config, self.shared = config, shared
        self.given = encoder, dataset
        self._made: dict[str, OrderedDict[Any, Any]] = {}
        self._made_anew_for: set[Traces] = set()

    def _once(self, kind: str, key: Any, make: Callable[[], T]) -> T:
        """Make it unless it is among the last few; what could not be made is not tried again."""
        made = self._made.setdefault(kind, OrderedDict())
        if key not in made:
            while len(made) >= KEPT:
                made.popitem(last=False)
            try:
                made[key] = make()
            except Exception as error:
                made[key] = error
        made.move_to_end(key)
        value: T | Exception = made[key]
        if isinstance(value, Exception):
            raise value
        return value

    def dataset(self, spec: str) -> Dataset:
        """Return the data set of a specification."""
        make = partial(load, self.config, spec)
        return self.given[1] or self._once("dataset", spec, lambda: self._shared(f"dataset {spec}", make))

    def _shared(self, name: str, make: Callable[[], T]) -> T:
        return make() if self.shared is None else made_once(self.shared, name, make)

    def check(self, unit: Unit) -> None:
        """See that everything here is what a unit's keys were computed from.

        A folder may have changed since it was read, here or elsewhere.

        If something differs everything is loaded anew, once.

        Raises
        ------
        DataError
            If it then differs still, with what it is.
        """
        differing = self._differing(unit)
        if differing and unit.traces[1:] not in self._made_anew_for:
            self._made_anew_for.add(unit.traces[1:])
            self._made.clear()
            self.shared = None
            differing = self._differing(unit)
        if differing:
            raise DataError(
                f"{' and '.join(differing)}: expected what the run was laid out on, got other content where this cell is computed; "
                "leave data and weights alone during a run, give workers the same code, and run the same again."
            )

    def _differing(self, unit: Unit) -> list[str]:
        network, sha256 = self.encoder(unit.encoder)
        code = self._once("code", unit.encoder, lambda: self.code(network))
        here = dict(traces_of(self.dataset(unit.dataset), unit.clip, sha256, code))
        return [name for name, wanted in unit.traces if not here[name].same_as(wanted)]

    def code(self, encoder: nn.Module) -> dict[str, str]:
        """Digest all code that this run depends on with one encoder."""
        chosen = methods.build(self.config.methods), metrics.build(self.config.metrics)
        return code_of(self.config, encoder, *chosen, versions())

    def encoder(self, spec: str) -> tuple[nn.Module, str]:
        """Return the encoder of a specification, and the SHA-256 of its weights."""

        given = self.given[0]
        front_end = nets.shared_front_end(self.config.encoders or (self.config.encoder,), self.config.front_end)
        make = (lambda: nets.resolve(spec, front_end)) if given is None else lambda: (given, fingerprint(given))
        return self._once("encoder", spec, make)

    def prepared(self, unit: Unit) -> Prepared:
        """Return what the cells of a unit's data set, encoder and seed share."""

        key, micro_batch = (unit.dataset, unit.encoder), unit.perturbations_per_eval

        def head(encoder: nn.Module, dataset: Dataset) -> Head:
            # Its last digits depend on the number of threads, so that every process uses the same.
            with threads(1):
                return self._shared(f"head {key}", lambda: Head.fit(encoder, dataset))

        def make() -> Prepared:
            return prepare(self.config, self.encoder(key[1])[0], self.dataset(key[0]), 0, micro_batch, head)

        return replace(self._once("prepared", key, make), seed=unit.seed, perturbations_per_eval=micro_batch)

    def cells(self, unit: Unit) -> Iterator[Cell]:
        """Finish a unit's cells, one after another; `check` first."""
        self.check(unit)
        wanted = {name for name, _, _ in unit.todo}, {name for _, name, _ in unit.todo}
        prepared, clip = self.prepared(unit), (unit.dataset, unit.encoder, unit.clip)
        return cells(
            prepared,
            unit,
            {name: methods.resolve(name) for name in wanted[0]},
            {name: metrics.METRICS.get(name) for name in wanted[1]},
            lambda: self._once("models", clip, lambda: Models.of(prepared, prepared.dataset.clips[unit.clip])),
        )


def made_once(folder: Shared, name: str, make: Callable[[], T]) -> T:
    """Return what the processes of one run call `name`, made by the first that asks.

    The others wait for its file.

    What `make` raises is not kept, so that the next one tries for itself.

    Parameters
    ----------
    folder
        For these processes alone: what lies there is unpickled.
    name, make
        What it is, and how it is made.
    """
    path = Path(folder) / hashlib.sha256(name.encode()).hexdigest()
    with FileLock(f"{path}.lock"):
        if path.is_file():
            found: T = pickle.loads(path.read_bytes())
            return found
        made = make()
        with complete(path) as draft:
            draft.write_bytes(pickle.dumps(made))
        return made


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch, BLAS and OpenMP use at most `count` threads in what runs inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


_one_at_a_time = threading.Lock()
_made_for: OrderedDict[BenchmarkConfig, Resources] = OrderedDict()


def work(
    config: BenchmarkConfig, unit: Unit, count: int, shared: Shared | None = None
) -> tuple[list[Cell] | tuple[str, str], dict[str, Any]]:
    """Compute a unit in a worker process.

    Only one unit at a time is computed in a process, with `count` threads (0: as many as this Dask
    worker has): metrics use the process' global generators, and a worker must not take more cores
    than its share.

    Returns
    -------
    tuple
        The unit's cells, or the status and the reason why there are none; and what was found out
        about its data set and encoder.
    """
    with _one_at_a_time, threads(count or _own_threads()):
        resources = _own_resources(config, shared)
        try:
            return list(resources.cells(unit)), facts(resources, unit)
        except Exception as error:
            return outcome(error), {}


def warm_up(config: BenchmarkConfig, count: int, shared: Shared | None = None) -> None:
    """Prepare, in a worker process, what its first unit is likely to need."""
    with _one_at_a_time, threads(count or _own_threads()):
        first = Unit(config.datasets[0], config.encoders[0], config.seeds[0], 0, config.perturbations_per_eval or 1, ())
        _own_resources(config, shared).prepared(first)


def _own_resources(config: BenchmarkConfig, shared: Shared | None) -> Resources:
    if config not in _made_for:
        _made_for.clear()
        _made_for[config] = Resources(config, shared=shared)
    return _made_for[config]


def _own_threads() -> int:
    from distributed import get_worker

    return max(1, int(get_worker().state.nthreads))


def facts(resources: Resources, unit: Unit) -> dict[str, Any]:
    """Return what ``run.json`` says about a unit's data set and encoder.

    The keys are those of the store's notes.
    """
    sha256 = resources.encoder(unit.encoder)[1]
    return {accuracy_note(resources.config, unit.dataset, sha256): resources.prepared(unit).head_accuracy}


def accuracy_note(config: BenchmarkConfig, dataset: str, encoder_sha256: str) -> str:
    """Name the note of the store that holds how accurate a head is."""
    return f"head_accuracy {dataset} {encoder_sha256} {config.seed} {config.head_clips}"
