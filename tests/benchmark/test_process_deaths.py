"""With one worker a cell that kills the process, again and again,
is given up at last; what only interrupts a run does not count.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from relax_quantus.benchmark import BenchmarkConfig, run
from relax_quantus.benchmark.engine.cells import Unit
from relax_quantus.benchmark.engine.store import Cell, Store
from relax_quantus.benchmark.engine.workers import DEATHS, GIVEN_UP_AFTER, REASON, UNDER_WAY, Batch, noted

SMALL = BenchmarkConfig(
    datasets=("tiny",),
    encoders=("net",),
    methods=("energy", "Saliency"),
    metrics=("Slow", "Deadly", "AUC"),
    max_clips=2,
    n_samples=10,
    head_clips=12,
    threads=1,
)
AGAIN_AND_AGAIN = """
import os, sys
from dataclasses import asdict, replace
from relax_quantus.benchmark import run
from test_process_deaths import SMALL
for _ in range(int(sys.argv[2])):  # imported once; each try is a process of its own
    child = os.fork()
    if not child:
        run(replace(SMALL, out=sys.argv[1]), show_progress=False)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
UNITS = [Unit("d", "e", 0, n, 1, tuple(("method", str(i), f"{n}/{i}") for i in range(3))) for n in range(2)]
KEYS = [key for unit in UNITS for _, _, key in unit.todo]


@pytest.mark.usefixtures("plugin")
def test_a_cell_that_kills_the_process_is_given_up_and_the_rest_goes_on(tmp_path: Path) -> None:
    marks, out = tmp_path / "marks", tmp_path / "out"
    marks.mkdir()
    said = subprocess.run(
        [sys.executable, "-c", AGAIN_AND_AGAIN, str(out), str(GIVEN_UP_AFTER + 1)],
        env={**os.environ, "ENGINE_TEST_MARKS": str(marks), "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert said.stdout.split() == [str(-signal.SIGKILL)] * GIVEN_UP_AFTER + ["0"], said.stderr
    found = pd.read_parquet(out / "results.parquet")
    failed = found[found.status == "failed"]
    assert failed[["clip", "method", "metric", "reason"]].to_numpy().tolist() == [["clip1", "energy", "Deadly", REASON]]
    assert len(found[found.metric == "Deadly"]) == 4
    assert len(list(marks.iterdir())) == 4, "no finished cell was computed again"
    whole = run(replace(SMALL, metrics=("Slow", "AUC")), show_progress=False).rows
    rest = found[found.metric != "Deadly"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest.drop(columns="seconds"), whole.drop(columns="seconds"), check_exact=True)


@pytest.mark.usefixtures("plugin")
def test_a_command_that_is_terminated_has_not_died(tmp_path: Path) -> None:
    file, out = tmp_path / "grid.toml", tmp_path / "out"
    given = {**asdict(SMALL), "metrics": ["Endless"]}
    names = ("datasets", "encoders", "methods", "metrics", "max_clips", "n_samples", "head_clips")
    file.write_text("".join(f"{name} = {json.dumps(given[name])}\n" for name in names))
    command = [sys.executable, "-m", "relax_quantus", "bench", str(file), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 100
    while not under_way(out):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    with Store(out) as store:
        assert len(store) == 0
        assert store.note(UNDER_WAY) is None
        assert store.note(DEATHS, {}) == {}


def under_way(folder: Path) -> bool:
    """Whether a run says there that a cell is begun; its store is locked, so its log is read."""
    log = folder / "cells.sqlite-wal"
    return log.is_file() and UNDER_WAY.encode() in log.read_bytes()


def lost(unit: Unit, status: str, reason: str) -> list[Cell]:
    return [Cell(key, [{"status": status, "reason": reason}]) for _, _, key in unit.todo]


def begun(store: Store, stop_at: str = "", error: BaseException | None = None) -> list[str]:
    """Keys that were computed; before each the store says that it is under way."""
    computed = []

    def compute(units: list[Unit]) -> Iterator[Batch]:
        for unit in units:
            for _, _, key in unit.todo:
                assert store.note(UNDER_WAY) == key
                if key == stop_at:
                    assert error is not None
                    raise error
                computed.append(key)
                yield [Cell(key, [{"status": "ok"}])], {"more": key}

    done = store.keys()
    units = [replace(u, todo=tuple(entry for entry in u.todo if entry[2] not in done)) for u in UNITS]
    with closing(noted(store, [u for u in units if u.todo], lost, compute)) as batches:
        for cells, notes in batches:
            store.put(cells, notes)
    return computed


def test_each_cell_is_under_way_before_it_is_computed_and_none_in_the_end() -> None:
    with Store(None) as store:
        assert begun(store) == KEYS
        assert store.note(UNDER_WAY) is None
        assert store.note("more") == KEYS[-1]
        assert begun(store) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a defect")])
def test_what_ends_within_python_does_not_count(error: BaseException) -> None:
    with Store(None) as store:
        for _ in range(GIVEN_UP_AFTER + 1):
            with pytest.raises(type(error)):
                begun(store, stop_at=KEYS[4], error=error)
            assert store.note(UNDER_WAY) is None
        assert store.note(DEATHS, {}) == {}
        assert begun(store) == KEYS[4:]


def test_what_ends_where_cells_are_stored_does_not_count() -> None:
    with Store(None) as store:
        with closing(noted(store, UNITS, lost, lambda units: iter([([Cell("0/0", [])], {})]))) as batches:
            next(batches)
            assert store.note(UNDER_WAY) == "0/0"
        assert store.note(UNDER_WAY) is None


def test_deaths_are_counted_by_cell_and_another_try_has_all_its_chances_anew() -> None:
    with Store(None) as store:
        for times in range(1, GIVEN_UP_AFTER):
            store.put([], {UNDER_WAY: KEYS[1]})  # what a dead process leaves
            with pytest.raises(KeyboardInterrupt):
                begun(store, stop_at=KEYS[0], error=KeyboardInterrupt())
            assert store.note(DEATHS) == {KEYS[1]: times}
        store.put([], {UNDER_WAY: KEYS[3]})
        with pytest.raises(KeyboardInterrupt):
            begun(store, stop_at=KEYS[0], error=KeyboardInterrupt())
        store.put([], {UNDER_WAY: KEYS[1]})
        assert begun(store) == [KEYS[0], *KEYS[2:]]
        assert store.get([KEYS[1]])[KEYS[1]].rows == [{"status": "failed", "reason": REASON}]
        assert store.note(DEATHS) == {KEYS[3]: 1}, "given up once; a retry begins anew"


@pytest.mark.usefixtures("plugin")
def test_it_costs_one_write_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    puts = []
    put = Store.put

    def counting(self: Store, cells: Any, notes: Any = None, *rest: Any) -> None:
        puts.append((len(list(cells)), dict(notes or {})))
        put(self, cells, notes, *rest)

    monkeypatch.setattr(Store, "put", counting)
    config = replace(SMALL, metrics=("AUC", "Slow"), perturbations_per_eval=4, out=str(tmp_path))
    found = run(config, show_progress=False)
    assert [n for n, _ in puts] == [0] + [1] * found.cells
