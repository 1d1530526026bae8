"""The engine: datasets x encoders x seeds x clips x methods x metrics -> one tidy row each.

Seventh step of the benchmark's flow: a `BenchmarkConfig` enters, `Results` leaves. The `grid` says
which cells there are, the `store` which of them are finished, and the `workers` finish the others;
every finished cell is durably stored before the next begins.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from tqdm.auto import tqdm

from relax_quantus.base import checks
from relax_quantus.base.result_folder import require_ours
from relax_quantus.benchmark import metrics
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.datasets import Dataset
from relax_quantus.benchmark.engine import grid, workers
from relax_quantus.benchmark.engine.cells import Unit, without_scores
from relax_quantus.benchmark.engine.grid import Grid
from relax_quantus.benchmark.engine.resources import Resources, accuracy_note
from relax_quantus.benchmark.engine.results import NUMBERS, TABLES, WHERE, Results
from relax_quantus.benchmark.engine.store import Cell, Store
from relax_quantus.benchmark.methods import registry as methods
from relax_quantus.benchmark.methods.registry import Method
from relax_quantus.benchmark.metrics.metric import Metric
from relax_quantus.errors import CellError
from relax_quantus.relax.attribution import RELAX

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 20_000

Progress = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class RunLayout:
    """A run before it begins: what there is to do and on what."""

    config: BenchmarkConfig
    resources: Resources
    datasets: dict[str, Dataset]
    encoders: dict[str, str]
    methods: list[Method]
    metrics: list[Metric]
    grid: Grid

    def lost(self, unit: Unit, status: str, reason: str) -> list[Cell]:
        """Make the rows of a unit that could not be computed at all."""
        clip = self.datasets[unit.dataset].clips[unit.clip]
        by_name = {m.name: m for m in self.methods}, {m.name: m for m in self.metrics}
        return [
            Cell(key, without_scores(self.config, clip, by_name[0][method], by_name[1][metric], status, reason))
            for method, metric, key in unit.todo
        ]


def run(
    config: BenchmarkConfig,
    *,
    encoder: nn.Module | None = None,
    dataset: Dataset | None = None,
    show_progress: bool | Progress = True,
) -> Results:
    """Run a benchmark, or go on with one that stopped.

    Results are written if ``config.out`` names a folder.

    Parameters
    ----------
    config
        What to run.
    encoder, dataset
        To use instead of those that `config` names; in this process alone.
    show_progress
        Show a progress bar with the time left, on stderr; or what makes something else of it,
        called with ``total``, ``what``, ``unit`` and ``begun``, a context with ``update(n)``.

    Raises
    ------
    UnknownNameError
        For an unknown method, metric, data set, encoder, fill or estimator.
    DataError
        If the recordings cannot be used, or another process uses ``config.out``.
    CellError
        With ``config.strict``, at the first cell that fails or runs out of memory or time.
    """
    from relax_quantus.benchmark.report import output

    started = time.perf_counter()
    config = config.resolved(encoder_given=encoder is not None)
    if (encoder is not None or dataset is not None) and (config.workers > 1 or config.scheduler is not None):
        rule = "an encoder and a data set by specification"
        checks.refuse("workers", rule, "an object", "name them in the configuration, e.g. module:attribute")
    if config.out is not None:
        require_ours(Path(config.out), output.FILES)
    with Store(config.out) as store, workers.opened(config) as pool:
        if pool is not None:
            pool.warm(config)
        layout = layout_of(config, Resources(config, encoder, dataset, None if pool is None else pool.shared), store)
        laid_out_at = time.perf_counter()
        anew = layout.grid.anew(store)
        reused = _work_off(layout, store, pool, show_progress)
        seconds = {"survey": laid_out_at - started, "cells": time.perf_counter() - laid_out_at}
        results = _collected(layout, store, seconds, reused, anew)
        if config.out is not None:
            output.write(results, config.out)
    return results


def layout_of(config: BenchmarkConfig, resources: Resources, store: Store) -> RunLayout:
    """Load what the grid depends on, and lay it out."""
    chosen = methods.build(config.methods), metrics.build(config.metrics)
    networks = {spec: resources.encoder(spec) for spec in config.encoders}
    datasets = {spec: resources.dataset(spec) for spec in config.datasets}
    x = next(iter(datasets.values())).clips[0].x[None]
    micro_batches = {spec: _micro_batch(config, network, x, store) for spec, network in networks.items()}
    laid = grid.lay_out(config, datasets, networks, *chosen, micro_batches)
    encoders = {spec: sha256 for spec, (_, sha256) in networks.items()}
    return RunLayout(config, resources, datasets, encoders, *chosen, laid)


def _micro_batch(config: BenchmarkConfig, encoder: tuple[nn.Module, str], x: Tensor, store: Store) -> int:
    """Return the masked copies of a forward: as configured, as noted, or measured and noted."""
    note = f"micro_batch {encoder[1]}"
    found = config.perturbations_per_eval or store.note(note)
    if found is None:
        found = RELAX(encoder[0]).plan(x, config.n_samples).perturbations_per_eval
        store.put([], {note: found})
    return int(found)


def _work_off(layout: RunLayout, store: Store, pool: workers.Pool | None, show_progress: bool | Progress) -> int:
    """Finish what is not in the store; return how many cells were there."""
    config, places = layout.config, layout.grid.places
    done = store.keys(with_lost=not (config.retry or config.strict))
    units = layout.grid.units(done)
    reused = len(places) - sum(len(unit.todo) for unit in units)
    parts = {place.key: (place.identity, place.parts) for place in places}
    progress = show_progress if callable(show_progress) else functools.partial(_bar, shown=show_progress)
    shown = progress(total=len(places), what="benchmark", unit="cell", begun=reused)
    with shown as bar, closing(_batches(layout, store, units, pool)) as batches:
        for finished, notes in batches:
            store.put(finished, notes, dict(parts[cell.key] for cell in finished))
            bar.update(len(finished))
            if config.strict:
                _refuse_lost(finished)
    return reused


def _bar(total: int, what: str, unit: str, begun: int, shown: bool) -> Any:
    return tqdm(total=total, initial=begun, desc=what, unit=unit, disable=not shown or sys.stderr is None)


def _batches(
    layout: RunLayout, store: Store, units: list[Unit], pool: workers.Pool | None
) -> Generator[workers.Batch, None, None]:
    if pool is not None:
        return workers.elsewhere(layout.config, units, pool, layout.lost)
    here = functools.partial(workers.here, layout.resources, count=layout.config.threads, lost=layout.lost)
    return workers.noted(store, units, layout.lost, here)


def _refuse_lost(finished: list[Cell]) -> None:
    for cell in finished:
        if cell.lost:
            row = cell.rows[0]
            where = f"{row['metric']} of {row['method']} on clip {row['clip']}"
            raise CellError(
                f"strict: expected every cell to be computed, got {row['status']} in {where}: {row['reason']}; "
                "what is finished is kept: mend it and run the same again, or leave out strict."
            )


def _collected(
    layout: RunLayout, store: Store, seconds: dict[str, float], reused: int, anew: dict[str, int]
) -> Results:
    """Put the grid's cells together, in its order."""
    rows, curves, maps, forwards = _tables(layout.grid, store)
    for method in layout.methods:
        seconds[method.name] = float(maps[maps.method == method.name].seconds.sum())
    names = layout.grid.names
    pairs = [(dataset, encoder) for dataset in layout.datasets for encoder in layout.encoders]
    return Results(
        config=layout.config,
        rows=rows,
        curves=curves,
        maps=maps,
        datasets={names[spec]: dataset for spec, dataset in layout.datasets.items()},
        head_accuracies={
            (names[dataset], encoder): store.note(
                accuracy_note(layout.config, dataset, layout.encoders[encoder]), float("nan")
            )
            for dataset, encoder in pairs
        },
        encoders=layout.encoders,
        micro_batches=dict(layout.grid.micro_batches),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        cells=len(layout.grid.places),
        reused=reused,
        anew=anew,
        forwards=forwards,
    )


def _tables(laid: Grid, store: Store) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, int]:
    """Read rows, curves and maps of the grid's cells, and count the forwards behind them."""
    import pandas as pd

    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    forwards: dict[tuple[str, str, int, str], int] = {}
    for start in range(0, len(laid.places), CHUNK):
        places = laid.places[start : start + CHUNK]
        found = store.get([place.key for place in places])
        for p in places:
            forwards |= {(p.dataset, p.encoder, p.seed, key): n for key, n in found[p.key].forwards.items()}
        for name, columns in TABLES.items():
            records = []
            for place in places:
                where = {"dataset": laid.names[place.dataset], "encoder": place.encoder, "seed": place.seed}
                records += [{**where, **record} for record in getattr(found[place.key], name)]
            frame = pd.DataFrame(records, columns=list(columns))
            floats = [name for name in columns if name in NUMBERS]
            frames[name].append(frame.astype(dict.fromkeys(floats, "float64")))
    rows, curves, maps = (pd.concat(frames[name], ignore_index=True) for name in TABLES)
    once = [*WHERE, "clip", "method", "question", "n_samples"]
    return rows, curves, maps.drop_duplicates(once, ignore_index=True), sum(forwards.values())
