"""What is finished stays, whatever stops a run, and the same command goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_runs import TINY, same, until

from relax_quantus.benchmark import BenchmarkConfig, Results, run
from relax_quantus.benchmark.engine.store import FILE, Cell, Store
from relax_quantus.errors import DataError

pytestmark = pytest.mark.usefixtures("plugin")

SCRIPT = """
import sys
from relax_quantus.benchmark import run
from dataclasses import replace
from tiny_runs import TINY
run(replace(TINY, out=sys.argv[1]), show_progress=False)
"""


def test_killed_at_any_moment_the_same_command_goes_on(serial: Results, tmp_path: Path) -> None:
    marks, out = tmp_path / "marks", tmp_path / "out"
    marks.mkdir()
    environment = {**os.environ, "ENGINE_TEST_MARKS": str(marks), "OMP_NUM_THREADS": "1"}
    for killed_after in (2, 7):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(out)], env=environment, cwd=Path(__file__).parent)
        until(lambda n=killed_after: len(list(marks.iterdir())) >= n)
        with pytest.raises(DataError, match=f"no other run is writing to, got .* in use by process {process.pid}"):
            Store(out)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with Store(out) as store:
        finished = len(store)
        assert store.note("micro_batch " + next(iter(serial.encoders.values()))) > 0
    assert 0 < finished < serial.cells
    resumed = run(replace(TINY, out=str(out)), show_progress=False)
    assert resumed.reused == finished
    same(resumed, serial)
    before = (out / "results.parquet").read_bytes()
    again = run(replace(TINY, out=str(out)), show_progress=False)
    assert again.reused == again.cells
    assert (out / "results.parquet").read_bytes() == before
    assert pd.read_parquet(out / "results.parquet").shape == serial.rows.shape
    assert pd.read_parquet(out / "curves.parquet").shape == serial.curves.shape


def test_what_was_finished_before_does_not_change_what_the_grid_rests_on(serial: Results, tmp_path: Path) -> None:
    part = replace(TINY, methods=("RELAX-time twin",), metrics=("Slow",), out=str(tmp_path))
    assert run(part, show_progress=False).forwards == 3 * 20
    whole = run(replace(TINY, out=str(tmp_path)), show_progress=False)
    assert whole.reused == 3
    same(whole, serial)


def test_a_torn_write_costs_only_the_cell_at_hand(tmp_path: Path) -> None:
    cells = [Cell(f"key{i}", [{"status": "ok", "value": 0.1 * i}]) for i in range(20)]
    with Store(tmp_path / "a") as store:
        for cell in cells:
            store.put([cell])
        log = (tmp_path / "a" / f"{FILE}-wal").read_bytes()
        torn = [len(log) * k // 7 + k for k in range(1, 7)]
        for number, length in enumerate(torn):
            (tmp_path / f"b{number}").mkdir()
            shutil.copy(tmp_path / "a" / FILE, tmp_path / f"b{number}" / FILE)
            (tmp_path / f"b{number}" / f"{FILE}-wal").write_bytes(log[:length])
    counts = []
    for number in range(len(torn)):
        with Store(tmp_path / f"b{number}") as store:
            found = store.get(cell.key for cell in cells)
            assert found == {cell.key: cell for cell in cells[: len(found)]}
            counts.append(len(found))
    assert counts == sorted(counts)
    assert 0 < counts[-1] < 20


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("not a database, but as long as the header of one " * 10)
    with pytest.raises(DataError, match=r"expected the store of a benchmark run, got .*move it away"):
        Store(tmp_path)
    (tmp_path / FILE).unlink()
    with Store(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(DataError, match="layout 99"):
        Store(tmp_path)


def test_what_changes_is_computed_and_what_is_added_alone(serial: Results, tmp_path: Path) -> None:
    config = replace(TINY, metrics=("AUC", "LocalLipschitz"), out=str(tmp_path / "out"))
    first = run(config, show_progress=False)
    assert (first.cells, first.reused) == (16, 0)
    more = replace(config, max_clips=4, seeds=(0, 1), methods=(*TINY.methods, "oracle"), metrics=("AUC", "Sparseness"))
    added = run(more, show_progress=False)
    assert (added.cells, added.reused) == (2 * 4 * 5 * 2, 12)
    changed = run(replace(config, n_samples=21), show_progress=False)
    assert changed.reused == 0
    relax = changed.rows.method == "RELAX-time"
    assert not np.allclose(changed.rows[relax].value, first.rows[relax].value)
    copies = run(replace(config, perturbations=3), show_progress=False)
    assert copies.reused == 12
    assert run(config, show_progress=False).reused == 16
    assert set(added.rows.seed) == {0, 1}
    pd.testing.assert_series_equal(
        added.rows[added.rows.seed == 0].merge(first.rows, on=["clip", "method", "metric"], suffixes=("", "_")).value,
        first.rows[first.rows.metric == "AUC"].value,
        check_index=False,
    )


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(serial: Results, tmp_path: Path) -> None:
    marks, out, file = tmp_path / "marks", tmp_path / "out", tmp_path / "grid.toml"
    marks.mkdir()
    names = ("datasets", "encoders", "methods", "metrics", "max_clips", "n_samples", "head_clips", "reexplain_clips")
    given = {name: getattr(TINY, name) for name in (*names, "reexplain_samples", "perturbations", "threads")}
    file.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in given.items()))
    heed = (
        "import signal, relax_quantus.cli.main as c; signal.signal(signal.SIGINT, signal.default_int_handler); c.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", heed, "bench", str(file), "--out", str(out)],
        env={**os.environ, "ENGINE_TEST_MARKS": str(marks), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: len(list(marks.iterdir())) >= 3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert (
        said.splitlines()[-1]
        == f"error: interrupted; every finished cell is kept in {out}, and the same command goes on"
    )
    resumed = run(BenchmarkConfig.from_file(file, out=str(out)), show_progress=False)
    assert resumed.reused >= 2
    same(resumed, serial)


def test_what_cannot_be_written_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    good = Cell("good", [{"value": 1.0, "status": "ok", "part": ""}])
    bad = Cell("bad", [{"value": np.float32(1.0), "status": "ok", "part": ""}])
    with Store(tmp_path / "s") as store:
        with pytest.raises(TypeError):
            store.put([good, bad])
        no_key: Any = object()
        with pytest.raises(sqlite3.Error):
            store.put([good, replace(good, key=no_key)])
        assert not store.keys()
        store.put([good], {"n": 1})
        assert store.keys() == {"good"}
