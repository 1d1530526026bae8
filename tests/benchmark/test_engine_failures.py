"""What fails, runs out of memory or takes too long is a row, and the rest goes on."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import TINY

from relax_quantus.benchmark import run
from relax_quantus.benchmark.engine.limits import TimeLimitExceeded, outcome, time_limit
from relax_quantus.errors import CellError

pytestmark = pytest.mark.usefixtures("plugin")


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

    monkeypatch.setattr("relax_quantus.benchmark.methods.registry.Simple.explain", explain)
    config = replace(TINY, methods=("energy",), metrics=("Sparseness", "Complexity"), max_clips=1, time_limit=0.3)
    rows = run(config, show_progress=False).rows
    assert list(rows.status) == ["timeout", "timeout"]
    assert calls == ["own"]


def test_data_that_cannot_be_prepared_are_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("relax_quantus.benchmark.engine.resources.prepare", broken)
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
