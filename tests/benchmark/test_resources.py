"""What a worker computes from is what the keys say."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from relax_quantus.benchmark import BenchmarkConfig, metrics
from relax_quantus.benchmark.data.datasets import Dataset, synthetic
from relax_quantus.benchmark.data.fingerprints import Trace, traces_of
from relax_quantus.benchmark.engine import grid, resources
from relax_quantus.benchmark.engine.cells import Unit
from relax_quantus.benchmark.engine.resources import Resources, made_once, work
from relax_quantus.benchmark.methods import registry as methods

pytestmark = pytest.mark.usefixtures("plugin")

RATE = 16_000


def save(path: Path, hz: float) -> None:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * np.arange(RATE * 6 // 5) / RATE), RATE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resources, "_made_for", type(resources._made_for)())
    for name, hz in (("cat", 500), ("dog", 2000)):
        for k in range(4):
            save(tmp_path / name / f"{k}.wav", hz + 40 * k)
    return tmp_path


def laid_out(config: BenchmarkConfig) -> list[Unit]:
    """What a process that starts a run now hands to its workers."""
    mine = Resources(config)
    data = {spec: mine.dataset(spec) for spec in config.datasets}
    weights = {spec: mine.encoder(spec) for spec in config.encoders}
    chosen = methods.build(config.methods), metrics.build(config.metrics)
    return grid.lay_out(config, data, weights, *chosen, dict.fromkeys(weights, 8)).units(())


def config_of(folder: Path) -> BenchmarkConfig:
    return BenchmarkConfig(
        datasets=(f"recordings:path={folder}",),
        encoders=("net",),
        methods=("energy",),
        metrics=("Complexity",),
        max_clips=2,
        head_clips=4,
    ).resolved()


def test_a_worker_that_outlives_a_changed_folder_reads_it_anew(folder: Path) -> None:
    config = config_of(folder)
    before = laid_out(config)
    assert isinstance(work(config, before[0], 1)[0], list)
    for k in range(4):
        save(folder / "cat" / f"{k}.wav", 5000 + 100 * k)
    after = laid_out(config)
    assert [unit.clip for unit in after] == [unit.clip for unit in before]
    assert all(a.todo[0][2] != b.todo[0][2] for a, b in zip(after, before, strict=True))
    found = work(config, after[0], 1)[0]
    assert isinstance(found, list)
    fresh = next(Resources(config).cells(after[0]))
    assert [cell.key for cell in found] == [fresh.key]
    assert found[0].rows[0]["value"] == fresh.rows[0]["value"]


def test_cells_of_data_that_changed_during_the_run_fail_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(folder)
    units = laid_out(config)
    save(folder / "dog" / "0.wav", 3000)
    loads = []
    load = resources.load
    monkeypatch.setattr(resources, "load", lambda *given: loads.append(given) or load(*given))
    for unit in units:
        status, reason = work(config, unit, 1)[0]
        assert status == "failed"
        assert "expected what the run was laid out on, got other content" in reason
        assert reason.startswith(("DataError: head's examples", "DataError: clip"))
    assert len(loads) == 2, "read, read anew, and then left at that"
    for path in (folder / "dog").iterdir():
        path.unlink()
    monkeypatch.setattr(resources, "_made_for", type(resources._made_for)())
    assert work(config, units[0], 1)[0][0] == "failed"


@pytest.mark.parametrize("name", ["encoder", "code"])
def test_other_weights_or_another_version_fail_too(folder: Path, name: str) -> None:
    config = config_of(folder)
    unit = laid_out(config)[0]
    other = tuple((key, Trace("other") if key == name else value) for key, value in unit.traces)
    status, reason = work(config, replace(unit, traces=other), 1)[0]
    assert (status, reason.split(":")[1].strip()) == ("failed", name)


def test_traces_see_every_change_of_content_and_no_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relax_quantus.benchmark.data.datasets.HELD_OUT_CLIPS", 6)
    data = synthetic(3, 0, 12)
    wanted = traces_of(data, 1, "weights", {"a": "1"})

    def differing(other: Dataset, index: int = 1, weights: str = "weights", code: str = "1") -> list[str]:
        found = traces_of(other, index, weights, {"a": code})
        return [name for (name, a), (_, b) in zip(wanted, found, strict=True) if not a.same_as(b)]

    def with_x(x: torch.Tensor) -> Dataset:
        return replace(data, clips=(data.clips[0], replace(data.clips[1], x=x), *data.clips[2:]))

    x = data.clips[1].x
    assert not differing(synthetic(3, 0, 12))
    assert not differing(with_x(x * (1 + 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))))
    assert differing(data, index=2) == differing(data, index=7) == ["clip"]
    assert differing(with_x(x.roll(1, dims=-2))) == ["clip"]
    louder = x.clone()
    louder[0, 40:44, 20:24] += 1
    assert differing(with_x(louder)) == ["clip"]
    examples = data.training.x.clone()
    examples[7] += 0.1
    assert differing(replace(data, training=replace(data.training, x=examples))) == ["head's examples"]
    swapped = data.training.y.copy()
    swapped[:2] = swapped[1::-1]
    assert differing(replace(data, training=replace(data.training, y=swapped))) == ["head's examples"]
    assert differing(data, weights="others", code="2") == ["encoder", "code"]


def count_to_a_thousand(folder: Path) -> int:
    with (folder / "made").open("a") as marks:
        marks.write(".")
    time.sleep(0.3)
    return 1000


def take(folder: Path) -> int:
    return made_once(folder, "thousand", partial(count_to_a_thousand, folder))


def test_what_processes_share_is_made_once_while_the_others_wait(tmp_path: Path) -> None:
    with ThreadPoolExecutor(
        3
    ) as several:  # the lock is a file's: threads that open it wait for each other as processes do
        assert list(several.map(take, [tmp_path] * 3)) == [1000] * 3
    assert (tmp_path / "made").read_text() == "."

    def fails() -> int:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        made_once(tmp_path, "other", fails)
    assert made_once(tmp_path, "other", lambda: 3) == 3


def test_a_worker_with_a_shared_folder_finds_the_same_and_fits_nothing_again(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder)
    unit = laid_out(config)[0]
    first = Resources(config, shared=tmp_path)
    cells = list(first.cells(unit))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resources, "load", lambda *_: pytest.fail("read again"))
        patch.setattr("relax_quantus.benchmark.engine.prepared.Head.fit", lambda *_: pytest.fail("fitted again"))
        second = Resources(config, shared=tmp_path)
        assert [cell.rows[0]["value"] for cell in second.cells(unit)] == [cell.rows[0]["value"] for cell in cells]
        one, two = first.prepared(unit), second.prepared(unit)
    x = one.dataset.clips[0].x[None]
    torch.testing.assert_close(two.classifier(x), one.classifier(x), rtol=0, atol=0)
    assert two.head_accuracy == one.head_accuracy
    assert two.classifier.cross_validation == one.classifier.cross_validation
