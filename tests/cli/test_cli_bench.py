"""`bench`: the table it prints, the files it writes, and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from command_line import call, refused

from relax_quantus.benchmark.config import PRESETS
from relax_quantus.benchmark.metrics import METRICS
from relax_quantus.benchmark.metrics.metric import MetricInput
from relax_quantus.benchmark.report.output import FILES

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make preset quick a matter of seconds."""
    small = {"methods": ("RELAX-time", "energy"), "metrics": ("Sparseness",), "head_clips": 12, "max_clips": 4}
    monkeypatch.setitem(PRESETS, "quick", small)
    monkeypatch.setattr("relax_quantus.benchmark.data.datasets.HELD_OUT_CLIPS", 6)


@pytest.mark.usefixtures("small_bench")
def test_bench_prints_the_table_and_writes_the_files(tmp_path: Path) -> None:
    result = call("bench", "--n-samples", 8, "--seed", 1, "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "RELAX-time" in result.stdout
    assert "N = 8 masks" in result.stdout
    written = [tmp_path / "out" / name for name in FILES]
    assert result.stdout.splitlines()[-len(FILES) :] == [str(path) for path in written]
    assert all(path.is_file() for path in written)


@pytest.mark.usefixtures("small_bench")
def test_bench_names_a_cell_that_could_not_be_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(case: MetricInput) -> float:
        raise ZeroDivisionError("planted")

    broken = dataclasses.replace(METRICS.get("Sparseness"), measure=breaks)
    monkeypatch.setattr(METRICS, "get", lambda name, **_: broken)
    result = call("bench", "--n-samples", 8, "--seed", 1, "--out", tmp_path / "out")
    assert result.exit_code == 1
    first = pd.read_csv(tmp_path / "out" / "results.csv").iloc[0]
    said = f"such as Sparseness of {first['method']} on {first['clip']} (failed: ZeroDivisionError: planted)"
    assert said in " ".join(result.stderr.split())


@pytest.mark.usefixtures("small_bench")
def test_bench_on_recordings_reports_the_bad_one(classes: Path, tone: Callable[..., Path], tmp_path: Path) -> None:
    for label, hz in (("high", 4100.0), ("low", 350.0)):
        tone(f"set/{label}/2.wav", hz)
        tone(f"set/{label}/3.wav", hz + 20)
    (classes / "low" / "bad.wav").write_text("no")
    result = call("bench", "--data", classes, "--max-clips", 4, "--n-samples", 8, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.wav" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (tmp_path / "out" / "results.csv").is_file()


def test_bench_refuses_what_cannot_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(call("bench", "--preset", "quik", "--out", out), "did you mean 'quick'")
    refused(call("bench", "--n-samples", 0, "--out", out), "--n-samples", "at least 1")
    refused(call("bench", "--data", tmp_path / "none", "--out", out), str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    refused(call("bench", "--out", tmp_path / "file"), "--out", str(tmp_path / "file"))
