"""What a process needs to compute cells, made once and kept: data sets, encoders, and the heads fitted on them.

A `BenchmarkConfig` and a `Unit` enter, finished `Cell`s leave. The process that runs the benchmark has one workshop; so has each worker process,
which makes everything from the configuration by itself.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from relax_quantus.base.modules import fingerprint
from relax_quantus.benchmark import metrics
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.datasets import Dataset
from relax_quantus.benchmark.engine.cells import Judges, Unit, cells
from relax_quantus.benchmark.engine.grid import versions
from relax_quantus.benchmark.engine.head import Head
from relax_quantus.benchmark.engine.limits import outcome
from relax_quantus.benchmark.engine.origin import Origin, origin
from relax_quantus.benchmark.engine.preparation import Bench, load, prepare
from relax_quantus.benchmark.engine.shelf import Shelf
from relax_quantus.benchmark.engine.store import Cell
from relax_quantus.benchmark.methods import registry as methods
from relax_quantus.encoders import loading as nets
from relax_quantus.errors import DataError

KEPT = 2
T = TypeVar("T")


class Workshop:
    """Data sets, encoders and benches of one run, the last few of each.

    Parameters
    ----------
    config
        Resolved.
    encoder, dataset
        To use instead of those that `config` names.
    shelf
        Shared by the processes of a run: one makes the data sets and heads for all. None makes them here.
    """

    def __init__(
        self,
        config: BenchmarkConfig,
        encoder: nn.Module | None = None,
        dataset: Dataset | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.config, self.shelf = config, shelf
        self.given = encoder, dataset
        self._made: dict[str, OrderedDict[Any, Any]] = {}
        self._made_anew_for: set[Origin] = set()

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
        """The data set of a specification."""
        make = partial(load, self.config, spec)
        return self.given[1] or self._once("dataset", spec, lambda: self._shared(f"dataset {spec}", make))

    def _shared(self, name: str, make: Callable[[], T]) -> T:
        return make() if self.shelf is None else self.shelf.take(name, make)

    def check(self, unit: Unit) -> None:
        """See that everything here is what a unit's keys were computed from: a folder may have changed since it was read, here or elsewhere.

        If something differs everything is loaded anew, once.

        Raises
        ------
        DataError
            If it then differs still, with what it is.
        """
        differing = self._differing(unit)
        if differing and unit.origin[1:] not in self._made_anew_for:
            self._made_anew_for.add(unit.origin[1:])
            self._made.clear()
            self.shelf = None
            differing = self._differing(unit)
        if differing:
            raise DataError(
                f"{' and '.join(differing)}: expected what the run was laid out on, got other content where this cell is computed; "
                "leave data and weights alone during a run, give workers the same code, and run the same again."
            )

    def _differing(self, unit: Unit) -> list[str]:
        sha256 = self.encoder(unit.encoder)[1]
        here = dict(origin(self.dataset(unit.dataset), unit.clip, sha256, versions()))
        return [name for name, wanted in unit.origin if not here[name].same_as(wanted)]

    def encoder(self, spec: str) -> tuple[nn.Module, str]:
        """The encoder of a specification, and the SHA-256 of its weights."""

        given = self.given[0]
        front_end = nets.shared_front_end(self.config.encoders or (self.config.encoder,), self.config.front_end)
        make = (lambda: nets.resolve(spec, front_end)) if given is None else lambda: (given, fingerprint(given))
        return self._once("encoder", spec, make)

    def bench(self, unit: Unit) -> Bench:
        """What the cells of a unit's data set, encoder and seed share."""

        key, micro_batch = (unit.dataset, unit.encoder), unit.perturbations_per_eval

        def head(encoder: nn.Module, dataset: Dataset) -> Head:
            # Its last digits depend on the number of threads, so that every process uses the same.
            with threads(1):
                return self._shared(f"head {key}", lambda: Head.fit(encoder, dataset))

        def make() -> Bench:
            return prepare(self.config, self.encoder(key[1])[0], self.dataset(key[0]), 0, micro_batch, head)

        return replace(self._once("bench", key, make), seed=unit.seed, perturbations_per_eval=micro_batch)

    def cells(self, unit: Unit) -> Iterator[Cell]:
        """Finish a unit's cells, one after another; `check` first."""
        self.check(unit)
        wanted = {name for name, _, _ in unit.todo}, {name for _, name, _ in unit.todo}
        bench, clip = self.bench(unit), (unit.dataset, unit.encoder, unit.clip)
        return cells(
            bench,
            unit,
            {name: methods.resolve(name) for name in wanted[0]},
            {name: metrics.METRICS.get(name) for name in wanted[1]},
            lambda: self._once("judges", clip, lambda: Judges.of(bench, bench.dataset.clips[unit.clip])),
        )


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
_workshops: OrderedDict[BenchmarkConfig, Workshop] = OrderedDict()


def work(
    config: BenchmarkConfig, unit: Unit, count: int, shelf: Shelf | None = None
) -> tuple[list[Cell] | tuple[str, str], dict[str, Any]]:
    """Compute a unit in a worker process.

    Only one unit at a time is computed in a process, with `count` threads (0: as many as this Dask worker has): metrics use the process' global
    generators, and a worker must not take more cores than its share.

    Returns
    -------
    tuple
        The unit's cells, or the status and the reason why there are none; and what was found out about its data set and encoder.
    """
    with _one_at_a_time, threads(count or _own_threads()):
        workshop = _own_workshop(config, shelf)
        try:
            return list(workshop.cells(unit)), facts(workshop, unit)
        except Exception as error:
            return outcome(error), {}


def warm_up(config: BenchmarkConfig, count: int, shelf: Shelf | None = None) -> None:
    """Prepare, in a worker process, what its first unit is likely to need."""
    with _one_at_a_time, threads(count or _own_threads()):
        first = Unit(config.datasets[0], config.encoders[0], config.seeds[0], 0, config.perturbations_per_eval or 1, ())
        _own_workshop(config, shelf).bench(first)


def _own_workshop(config: BenchmarkConfig, shelf: Shelf | None) -> Workshop:
    if config not in _workshops:
        _workshops.clear()
        _workshops[config] = Workshop(config, shelf=shelf)
    return _workshops[config]


def _own_threads() -> int:
    from distributed import get_worker

    return max(1, int(get_worker().state.nthreads))


def facts(workshop: Workshop, unit: Unit) -> dict[str, Any]:
    """What ``run.json`` says about a unit's data set and encoder, under the key that it has in the store."""
    sha256 = workshop.encoder(unit.encoder)[1]
    return {accuracy_note(workshop.config, unit.dataset, sha256): workshop.bench(unit).head_accuracy}


def accuracy_note(config: BenchmarkConfig, dataset: str, encoder_sha256: str) -> str:
    """Key in the store of what the head of a data set and encoder gets right."""
    return f"head_accuracy {dataset} {encoder_sha256} {config.seed} {config.head_clips}"
