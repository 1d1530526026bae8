"""A process that dies costs the cell that killed it, and nothing else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

import pytest

from relax_quantus.benchmark import BenchmarkConfig
from relax_quantus.benchmark.engine.cells import Unit
from relax_quantus.benchmark.engine.store import Cell
from relax_quantus.benchmark.engine.workers import Pool, elsewhere


class Fragile(Executor):
    """Finishes a unit 20 ms after it was sent; one with a
    deadly cell takes everything that is under way with it then.
    """

    def __init__(self, deadly: set[str], tried: Counter[str]) -> None:
        self.deadly, self.tried, self.broken = deadly, tried, False
        self.flying: list[Future[Any]] = []
        self.lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        with self.lock:
            if self.broken:
                raise BrokenExecutor
            future = Future[Any]()
            self.flying.append(future)
        keys = [key for _, _, key in args[1].todo]
        self.tried.update(keys)
        threading.Timer(0.02, self.finish, (future, keys)).start()
        return future

    def finish(self, future: Future[Any], keys: list[str]) -> None:
        with self.lock:
            if future.done():
                return
            if self.deadly.intersection(keys):
                self.broken = True
                for one in self.flying:
                    one.set_exception(BrokenExecutor())
            else:
                self.flying.remove(future)
                future.set_result(([Cell(key, [{"status": "ok"}]) for key in keys], {}))


def lost(unit: Unit, status: str, reason: str) -> list[Cell]:
    return [Cell(key, [{"status": status, "reason": reason}]) for _, _, key in unit.todo]


@pytest.mark.parametrize("deadly", [set(), {"0/0"}, {"3/1", "3/3", "5/2"}, {f"1/{cell}" for cell in range(4)}])
def test_only_cells_that_kill_their_worker_are_lost_and_no_cell_comes_twice(deadly: set[str]) -> None:
    tried, made = Counter[str](), list[Fragile]()

    def executor() -> Executor:
        if not made or made[-1].broken:
            made.append(Fragile(deadly, tried))
        return made[-1]

    units = [Unit("d", "e", 0, n, 1, tuple(("method", str(i), f"{n}/{i}") for i in range(4))) for n in range(8)]
    batches = list(elsewhere(BenchmarkConfig(), units, Pool(executor, lambda: 2, 1), lost))
    cells = [cell for batch, _ in batches for cell in batch]
    assert sorted(cell.key for cell in cells) == [key for unit in units for _, _, key in unit.todo]
    assert {cell.key for cell in cells if cell.lost} == deadly
    assert all("died each of three times" in cell.rows[0]["reason"] for cell in cells if cell.lost)
    assert {tried[key] for key in deadly} <= {3}, "a chance with its unit, with other cells, and alone"
    assert max(tried.values()) <= 3
    if deadly:
        singles = {cell.key for batch, _ in batches if len(batch) == 1 for cell in batch}
        assert deadly < singles, "after a death cells come, and are stored, one by one"
