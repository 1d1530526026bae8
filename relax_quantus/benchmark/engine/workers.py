"""Units of work handed to this process, to worker processes on this machine, or to a Dask cluster.

Units enter; finished cells leave, in any order, each batch with what was found out about its data
set and encoder. No death of a process stops a run for good:

- A worker process that dies (killed, perhaps for memory) costs what was under way: those units are
  tried again at the end cell by cell, cells that were under way at another death once more, each
  with nothing beside it, and only one that kills its worker even then becomes a row that says so
  (`elsewhere`).
- With one worker, a cell that makes the system kill its process takes the run with it, and the same
  command would end there again and again. So what stores a finished cell also notes, in the same
  transaction, which cell is begun next; whatever ends within Python, an interrupt or an error,
  takes that back. A note that a run finds when it begins tells of a death, and after three of one
  cell that cell is given up (`noted`).
"""

from __future__ import annotations

import concurrent.futures
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

from relax_quantus.base import checks
from relax_quantus.base.extras import require
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.engine.cells import Unit
from relax_quantus.benchmark.engine.limits import outcome
from relax_quantus.benchmark.engine.resources import Resources, Shared, facts, threads, warm_up, work
from relax_quantus.benchmark.engine.store import Cell, Store
from relax_quantus.errors import DataError

Batch = tuple[list[Cell], dict[str, Any]]
Lost = Callable[[Unit, str, str], list[Cell]]
AHEAD = 2
"""Units at or on their way to each worker, so that none has to wait."""
WAIT_FOR_WORKERS_S = 60
COUNT_AGAIN_S = 5.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
DEAD = "failed", "the worker process died each of three times (killed, perhaps for memory), the last time alone"


@dataclass(frozen=True)
class Pool:
    """Workers behind an executor.

    Attributes
    ----------
    executor
        Makes it, also in the place of one that broke.
    size
        How many workers there are at the moment.
    threads
        Of each; 0 for what a Dask worker was started with.
    shared
        Folder where processes of one machine share what they need alike; None where they may be on
        several.
    """

    executor: Callable[[], Executor]
    size: Callable[[], int]
    threads: int
    shared: Shared | None = None

    def warm(self, config: BenchmarkConfig) -> None:
        """Let every worker begin to load what the first unit needs.

        What goes wrong shows when that unit is computed.
        """
        executor = self.executor()
        for _ in range(self.size()):
            executor.submit(warm_up, config, self.threads, self.shared)


def here(resources: Resources, units: list[Unit], count: int | None, lost: Lost) -> Iterator[Batch]:
    """Compute in this process, with `count` threads if it is given, each cell a batch."""
    with nullcontext() if count is None else threads(count):
        for unit in units:
            try:
                known = facts(resources, unit)
            except Exception as error:
                yield lost(unit, *outcome(error)), {}
                continue
            for cell in resources.cells(unit):
                yield [cell], known


def elsewhere(config: BenchmarkConfig, units: list[Unit], pool: Pool, lost: Lost) -> Generator[Batch, None, None]:
    """Compute in the workers of a pool, each unit a batch; after a death each cell.

    Parameters
    ----------
    config
        Resolved; a worker makes everything else from it.
    units
        What to do.
    pool
        The workers.
    lost
        Makes the rows of a unit that could not be computed, from a status and a reason.
    """
    suspects = yield from _fly(config, units, pool, lost)
    cells = [replace(unit, todo=(entry,)) for unit in suspects for entry in unit.todo]
    for cell in (yield from _fly(config, cells, pool, lost)):
        if (yield from _fly(config, [cell], pool, lost)):
            yield lost(cell, *DEAD), {}


def _fly(config: BenchmarkConfig, units: list[Unit], pool: Pool, lost: Lost) -> Generator[Batch, None, list[Unit]]:
    """Compute units; return those that were under way when a worker died."""
    executor = pool.executor()
    waiting, flying, suspects = deque(units), dict[Future[Any], Unit](), list[Unit]()
    try:
        while waiting or flying:
            broken = False
            try:
                while waiting and len(flying) < AHEAD * max(1, pool.size()):
                    flying[executor.submit(work, config, waiting[0], pool.threads, pool.shared)] = waiting[0]
                    waiting.popleft()
            except BrokenExecutor:
                broken = True
            for future in concurrent.futures.wait(flying, return_when=concurrent.futures.FIRST_COMPLETED).done:
                error = _raised(future)
                if _is_death(error):
                    suspects.append(flying.pop(future))
                    broken = broken or isinstance(error, BrokenExecutor)
                    continue
                unit = flying.pop(future)
                if error is not None:  # it could not even be sent, or come back
                    yield lost(unit, *outcome(error)), {}
                    continue
                cells, known = future.result()
                yield (cells, known) if isinstance(cells, list) else (lost(unit, *cells), known)
            if broken:
                suspects += flying.values()
                flying.clear()
                executor = pool.executor()
    finally:
        for future in flying:
            future.cancel()
    return suspects


def _raised(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except concurrent.futures.CancelledError as error:
        raise DataError(
            "scheduler: expected it to stay, got no connection to it; every finished cell is kept, and the same command goes on."
        ) from error


def _is_death(error: BaseException | None) -> bool:
    """Tell whether a worker died of what it was doing.

    Dask says so after it has killed several.
    """
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


@contextmanager
def opened(config: BenchmarkConfig) -> Iterator[Pool | None]:
    """Start the workers that a configuration asks for, and stop them at the end.

    None stands for this process.
    """
    if config.scheduler is not None:
        with _dask(config.scheduler) as pool:
            yield pool
    elif config.workers > 1:
        with _processes(config) as pool:
            yield pool
    else:
        yield None


def threads_of(config: BenchmarkConfig) -> int:
    """Return the threads of each local worker: as configured, or its share of the cores."""
    import joblib

    return config.threads or max(1, joblib.cpu_count() // config.workers)


@contextmanager
def _processes(config: BenchmarkConfig) -> Iterator[Pool]:
    from joblib.externals.loky import get_reusable_executor

    count = threads_of(config)
    environment = dict.fromkeys(THREAD_VARIABLES, str(count))

    def executor() -> Executor:
        made: Executor = get_reusable_executor(
            max_workers=config.workers, initializer=ignore_interrupts, env=environment
        )
        return made

    with TemporaryDirectory(prefix="relax_quantus-", ignore_cleanup_errors=True) as folder:
        try:
            yield Pool(executor, lambda: config.workers, count, folder)
        finally:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that writes the store."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _dask(address: str) -> Iterator[Pool]:
    require("dask", "scheduler")
    import distributed

    try:
        client = distributed.Client(address, timeout=WAIT_FOR_WORKERS_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        checks.refuse(
            "scheduler", "the address of a Dask scheduler that answers", f"{address!r} ({error})", "start it", DataError
        )
    counted = [0.0, 0]

    def size() -> int:
        if time.monotonic() - counted[0] > COUNT_AGAIN_S:
            counted[:] = time.monotonic(), len(client.nthreads())
        return int(counted[1])

    try:
        try:
            client.wait_for_workers(1, timeout=WAIT_FOR_WORKERS_S)
        except TimeoutError:
            checks.refuse("scheduler", "at least one worker", f"none at {address}", "start `dask worker`", DataError)
        yield Pool(lambda: client.get_executor(pure=False), size, 0)
    finally:
        client.close()


UNDER_WAY, DEATHS = "under_way", "deaths"
GIVEN_UP_AFTER = 3
"""Deaths in one cell: who kills a healthy run by hand may meet the same long cell twice."""
REASON = f"the process died {GIVEN_UP_AFTER} times while this was computed (killed, perhaps for memory)"


def noted(
    store: Store, units: list[Unit], lost: Lost, compute: Callable[[list[Unit]], Iterator[Batch]]
) -> Generator[Batch, None, None]:
    """Yield the batches of `compute`, each with the note of the cell that is begun next.

    Close it before the store is closed.

    Parameters
    ----------
    store
        Where the batches are put, each before the next is asked for.
    units
        What to do.
    lost
        Makes the rows of cells that are given up, from a status and a reason.
    compute
        Computes the cells of units in their order.
    """
    deaths = counted(store)
    units, hopeless = parted(units, {key for key, times in deaths.items() if times >= GIVEN_UP_AFTER})
    for unit in hopeless:
        for _, _, key in unit.todo:
            del deaths[key]  # another try begins anew
        yield lost(unit, "failed", REASON), {DEATHS: deaths}
    following = iter([key for unit in units for _, _, key in unit.todo][1:])
    try:
        if units:
            store.put([], {UNDER_WAY: units[0].todo[0][2]})
        for cells, notes in compute(units):
            begun = [next(following, None) for _ in cells]
            yield cells, {**notes, UNDER_WAY: begun[-1]}
    finally:
        if store.note(UNDER_WAY) is not None:
            store.put([], {UNDER_WAY: None})


def counted(store: Store) -> dict[str, int]:
    """Count deaths by the key of the cell that was under way, the latest included."""
    deaths: dict[str, int] = store.note(DEATHS, {})
    key = store.note(UNDER_WAY)
    if key is not None:
        deaths[key] = deaths.get(key, 0) + 1
        store.put([], {DEATHS: deaths, UNDER_WAY: None})
    return deaths


def parted(units: list[Unit], hopeless: set[str]) -> tuple[list[Unit], list[Unit]]:
    """Split units into those without the hopeless cells and those of these alone."""
    parts: tuple[list[Unit], list[Unit]] = [], []
    for unit in units:
        for part, wanted in zip(parts, (False, True), strict=True):
            todo = tuple(entry for entry in unit.todo if (entry[2] in hopeless) == wanted)
            if todo:
                part.append(unit if todo == unit.todo else replace(unit, todo=todo))
    return parts
