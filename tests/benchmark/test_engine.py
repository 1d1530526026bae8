"""The engine: what is finished stays, whatever stops a run; who computes does not matter; what fails is a row."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from relax_quantus.benchmark import BenchmarkConfig, Results, forecast, grid, run
from relax_quantus.benchmark.limits import TimeLimitExceeded, outcome, time_limit
from relax_quantus.benchmark.runner import survey_of
from relax_quantus.benchmark.store import FILE, Cell, Store
from relax_quantus.benchmark.workshop import Workshop
from relax_quantus.errors import ArgumentError, ArgumentTypeError, CellError, DataError, UnknownNameError

pytestmark = pytest.mark.usefixtures("plugin")

TINY = BenchmarkConfig(
    datasets=("tiny",),
    encoders=("net",),
    methods=("RELAX-time", "RELAX-time twin", "energy", "Saliency"),
    metrics=("Slow", "SRG-patch-silence", "AUC", "LocalLipschitz"),
    max_clips=3,
    n_samples=20,
    head_clips=12,
    reexplain_clips=1,
    reexplain_samples=10,
    perturbations=2,
    threads=1,
)
SCRIPT = """
import sys
from relax_quantus.benchmark import run
from dataclasses import replace
from test_engine import TINY
run(replace(TINY, out=sys.argv[1]), show_progress=False)
"""


@pytest.fixture(scope="module")
def serial(plugin: Path) -> Results:
    """An uninterrupted run in this process."""
    return run(TINY, show_progress=False)


def same(found: Results, wanted: Results, rtol: float = 0.0) -> None:
    """All but the times is equal."""
    for name in ("rows", "curves"):
        a, b = (getattr(r, name).drop(columns="seconds", errors="ignore") for r in (found, wanted))
        pd.testing.assert_frame_equal(a, b, check_exact=rtol == 0, **({"rtol": rtol, "atol": 1e-9} if rtol else {}))
    assert found.head_accuracies == wanted.head_accuracies
    assert found.forwards == wanted.forwards, (
        "a property of the grid, not of what was remembered while it was worked off"
    )


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------------------ nothing is lost


def test_rows_hold_scores_parts_and_curves(serial: Results) -> None:
    rows = serial.rows
    assert set(rows.dataset) == {"tiny"}
    assert set(rows.encoder) == {"net"}
    assert set(rows.status) == {"ok"}
    assert serial.cells == 4 * (3 * 3 + 1) == len(rows[rows.part == ""])
    assert (rows[(rows.metric == "Slow") & (rows.part == "part")].value == 1).all()
    assert list(serial.curves[serial.curves.metric == "Slow"].value[:2]) == [1.0, 0.5]
    assert set(serial.maps.question) == {"own", "stem"}
    assert serial.forwards == 3 * 2 * 20 + 3 * 10, (
        "own and stem of three clips; one clip explained again, and two copies of it"
    )
    twin = rows[rows.twin_of == "RELAX-time"]
    assert set(twin.method) == {"RELAX-time twin"}


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


# --------------------------------------------------------------------------------------------------------- what fails is a row


def test_failures_are_rows_and_the_rest_goes_on(tmp_path: Path) -> None:
    metrics = ("Failing", "Hungry", "Endless", "Sparseness")
    config = replace(TINY, methods=("energy",), metrics=metrics, max_clips=2, time_limit=0.5, out=str(tmp_path))
    rows = run(config, show_progress=False).rows
    assert list(rows.status) == ["failed", "out_of_memory", "timeout", "ok"] * 2
    assert rows.reason[0] == "ZeroDivisionError: planted failure"
    assert rows.reason[2] == "past its time limit of 0.5 s"
    assert rows.value[:3].isna().all()
    started = time.monotonic()
    assert run(config, show_progress=False).reused == 8
    assert time.monotonic() - started < 20
    assert run(replace(config, retry=True), show_progress=False).reused == 2
    with pytest.raises(CellError, match=r"strict: .*got failed in Failing of energy on clip clip0: ZeroDivisionError"):
        run(replace(config, strict=True), show_progress=False)


def test_a_map_past_its_limit_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def explain(self, question, similarities):
        calls.append(question.kind)
        time.sleep(30)

    monkeypatch.setattr("relax_quantus.benchmark.methods.Simple.explain", explain)
    config = replace(TINY, methods=("energy",), metrics=("Sparseness", "Complexity"), max_clips=1, time_limit=0.3)
    rows = run(config, show_progress=False).rows
    assert list(rows.status) == ["timeout", "timeout"]
    assert calls == ["own"]


def test_data_that_cannot_be_prepared_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("relax_quantus.benchmark.workshop.prepare", broken)
    rows = run(replace(TINY, methods=("energy",), metrics=("Sparseness",)), show_progress=False).rows
    assert set(rows.status) == {"out_of_memory"}
    assert list(rows["clip"]) == ["clip0", "clip1", "clip2"]


def test_the_time_limit_holds_in_any_thread_and_leaves_nothing_behind() -> None:
    caught: list[BaseException] = []

    def spin() -> None:
        try:
            with time_limit(0.2):
                while True:
                    sum(range(1000))
        except TimeLimitExceeded as error:
            caught.append(error)
        with time_limit(0.2):
            pass
        time.sleep(0.4)

    thread = threading.Thread(target=spin)
    thread.start()
    thread.join(20)
    assert outcome(caught[0]) == ("timeout", "past its time limit of 0.2 s")
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeLimitExceeded, match=r"limit of 0\.2 s"), time_limit(0.2):
        time.sleep(20)
    with time_limit(0.1):
        pass
    time.sleep(0.2)
    assert signal.getsignal(signal.SIGALRM) is before


# ------------------------------------------------------------------------------------------------------------------- it grows


def test_two_processes_find_the_same_although_one_is_killed_again_and_again(serial: Results) -> None:
    config = replace(TINY, workers=2, threads=None, metrics=(*TINY.metrics, "Deadly"))
    found = run(config, show_progress=False)
    deadly = found.rows.metric == "Deadly"
    gone = deadly & (found.rows["clip"] == "clip1") & (found.rows.method == "energy")
    assert list(found.rows[gone].status) == ["failed"]
    assert "worker process died each of three times" in found.rows[gone].reason.item()
    assert (found.rows[deadly & ~gone].value == max(1, (os.cpu_count() or 1) // 2)).all()
    rest = found.rows[~deadly].drop(columns="seconds").reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, serial.rows.drop(columns="seconds"), rtol=1e-5, atol=1e-9)


def test_workers_need_specifications() -> None:
    with pytest.raises(ArgumentError, match="workers: expected an encoder and a data set by specification"):
        run(replace(TINY, workers=2), encoder=torch.nn.Flatten())


@pytest.fixture
def cluster(tmp_path: Path, plugin: Path) -> Iterator[tuple[str, Path]]:
    """A scheduler and two worker processes on the loopback interface: its address, and the folder where workers leave marks."""
    distributed = pytest.importorskip("distributed")
    marks, file = tmp_path / "marks", tmp_path / "scheduler.json"
    marks.mkdir()
    environment = {**os.environ, "ENGINE_TEST_MARKS": str(marks), "OMP_NUM_THREADS": "1"}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    commands = [[*dask, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-dashboard"]
    worker += ["--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--local-directory", str(tmp_path)]
    log = (tmp_path / "log").open("w")
    processes = []
    try:
        for command in [*commands, worker, worker]:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        until(file.is_file)
        address = json.loads(file.read_text())["address"]
        with distributed.Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)  # else the first has finished everything before the second is there
        yield address, marks
    finally:
        for process in processes:
            process.kill()
            process.wait()
        log.close()


def test_a_cluster_finds_the_same_although_a_worker_is_killed(serial: Results, cluster: tuple[str, Path]) -> None:
    address, marks = cluster
    found: list[Results] = []
    thread = threading.Thread(target=lambda: found.append(run(replace(TINY, scheduler=address), show_progress=False)))
    thread.start()

    def workers() -> list[int]:
        """Who began each slow cell, in order."""
        return [int(name.split("_")[1]) for name in sorted(mark.name for mark in marks.iterdir())]

    until(lambda: len(set(workers())) == 2, 100)
    before = workers()
    killed = before[-1]  # has just begun a slow cell
    assert thread.is_alive()
    os.kill(killed, signal.SIGKILL)
    assert not found, "the run is under way when a worker is killed"
    (survivor,) = set(before) - {killed}
    thread.join(120)
    assert not thread.is_alive()
    same(found[0], serial, rtol=1e-5)
    after = workers()[len(before) :]
    assert after.count(survivor) >= 1
    assert after.count(killed) <= 1, "one may have begun just before the kill; what follows is the other worker's"


def test_no_scheduler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("relax_quantus.benchmark.workers.WAIT_FOR_WORKERS_S", 1)
    with pytest.raises(DataError, match="scheduler: expected the address of a Dask scheduler that answers"):
        run(replace(TINY, scheduler="tcp://127.0.0.1:1"), show_progress=False)


# ------------------------------------------------------------------------------------------------------------------- the grid


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("n_sample = 3", ArgumentError, "n_sample: expected a benchmark setting; did you mean 'n_samples'"),
        ('methods = ["RELAX-tiem"]', UnknownNameError, "did you mean 'RELAX-time'"),
        ('methods = ["RELAX-time:fil=mean"]', ArgumentTypeError, "fil: .*did you mean 'fill'"),
        ('metrics = ["SRG-bin-silense"]', UnknownNameError, "metrics: .*did you mean 'SRG-bin-silence'"),
        ('datasets = ["sinthetic"]', UnknownNameError, "data: .*did you mean 'synthetic'"),
        ('encoders = ["vgish_mini"]', UnknownNameError, "encoder: .*did you mean 'vggish_mini'"),
        ('preset = "papre"', UnknownNameError, "did you mean 'paper'"),
        ('fill = "silense"', UnknownNameError, "did you mean 'silence'"),
        ("seeds = 3", ArgumentTypeError, r"seeds: expected a list of whole numbers, got 3; write \[0, 1\]"),
        ("seeds = [1, 1]", ArgumentError, "seeds: expected each once"),
        ('primary = ["gain_embeding"]', UnknownNameError, "did you mean 'gain_embedding'"),
        (
            'primary = ["auc_region"]\nsecondary = ["auc_region"]',
            ArgumentError,
            "secondary: expected end points that are not primary",
        ),
        ('n_samples = "many"', ArgumentTypeError, "n_samples: expected an integer"),
        ("strict = 1", ArgumentTypeError, "strict: expected true or false"),
        ("time_limit = 0", ArgumentError, "time_limit: expected a finite number above 0"),
        ("workers = 0", ArgumentError, "workers: expected an integer of at least 1"),
        ("methods = [", DataError, "expected a TOML file of benchmark settings"),
    ],
)
def test_a_grid_is_validated(tmp_path: Path, text: str, error: type[Exception], said: str) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(text)
    with pytest.raises(error, match=said):
        BenchmarkConfig.from_file(file).resolved()


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(
        'preset = "default"\ndatasets = ["tiny", "tiny:seed=5"]\nencoders = ["net", "random:of=net,seed=1"]\nseeds = [1, 2]\n'
        'methods = ["RELAX-time:fill=mean", "RELAX-time twin:fill=mean"]\nmetrics = ["Sparseness"]\nmax_clips = 1\n'
        "n_samples = 8\nhead_clips = 12\n"
    )
    found = run(BenchmarkConfig.from_file(file), show_progress=False)
    assert len(found.rows) == found.cells == 2 * 2 * 2 * 1 * 2
    assert list(found.datasets) == ["tiny", "tiny:seed=5"]
    assert found.rows.value.nunique() == 16
    where = found.rows[["dataset", "encoder", "seed"]].drop_duplicates()
    assert len(where) == 8


def test_all_seeds_of_a_clip_come_one_after_another(tmp_path: Path) -> None:
    config = replace(TINY, seeds=(0, 1), metrics=("AUC",), methods=("energy", "Saliency")).resolved()
    with Store(None) as store:
        laid = survey_of(config, Workshop(config), store).grid
    clips = [unit.clip for unit in laid.units(())]
    assert clips == [clip for clip in range(3) for _ in range(4)]
    assert [unit.clip for unit in laid.units({p.key for p in laid.places if p.clip == 1})] == [0] * 4 + [2] * 4


def test_without_curves_the_scores_are_the_same_and_no_curve_is_stored(serial: Results, tmp_path: Path) -> None:
    config = replace(TINY, out=str(tmp_path), curves=False)
    found = run(config, show_progress=False)
    assert found.curves.empty
    assert len(serial.curves)
    pd.testing.assert_series_equal(found.rows.value, serial.rows.value)
    again = run(replace(config, curves=True), show_progress=False)
    pd.testing.assert_frame_equal(again.curves, serial.curves)


def test_a_dry_run_counts_what_the_run_does(serial: Results, tmp_path: Path) -> None:
    config = replace(TINY, out=str(tmp_path / "out"), workers=2)
    guess = forecast(config)
    assert (guess.cells, guess.done, guess.clips) == (serial.cells, 0, 3)
    assert guess.maps == len(serial.maps)
    assert guess.forwards >= serial.forwards
    assert not (tmp_path / "out").exists()
    assert "in 2 such workers" in "\n".join(guess.lines())
    run(replace(config, workers=1, metrics=("AUC",)), show_progress=False)
    assert forecast(config).done == 12


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(serial: Results, tmp_path: Path) -> None:
    marks, out, file = tmp_path / "marks", tmp_path / "out", tmp_path / "grid.toml"
    marks.mkdir()
    names = ("datasets", "encoders", "methods", "metrics", "max_clips", "n_samples", "head_clips", "reexplain_clips")
    given = {name: getattr(TINY, name) for name in (*names, "reexplain_samples", "perturbations", "threads")}
    file.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in given.items()))
    heed = "import signal, relax_quantus.cli as c; signal.signal(signal.SIGINT, signal.default_int_handler); c.main()"
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


def test_other_code_is_another_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    before = grid.versions()
    monkeypatch.setattr(grid, "source_sha256", lambda: "other")
    assert grid.versions() != before
