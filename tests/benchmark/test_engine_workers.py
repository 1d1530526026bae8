"""Who computes does not matter: processes of one
machine or workers of a cluster, some of them killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny_runs import TINY, same, until

from relax_quantus.benchmark import Results, run
from relax_quantus.errors import ArgumentError, DataError

pytestmark = pytest.mark.usefixtures("plugin")


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
    """A scheduler and two worker processes on the loopback
    interface: its address, and the folder where workers leave marks.
    """
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
    monkeypatch.setattr("relax_quantus.benchmark.engine.workers.WAIT_FOR_WORKERS_S", 1)
    with pytest.raises(DataError, match="scheduler: expected the address of a Dask scheduler that answers"):
        run(replace(TINY, scheduler="tcp://127.0.0.1:1"), show_progress=False)
