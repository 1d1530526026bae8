"""`explain` with --html, --sounds and --annotations: what it writes, and under which names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner, Result

from relax_quantus.benchmark.annotations import read
from relax_quantus.cli import main as cli

FEW = ("--n-samples", "60", "--masks", "time", "--masks", "random")


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["explain", *(str(a) for a in arguments), *FEW])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_everything_for_one_clip(write_wav: Callable[..., Path], sweep: np.ndarray, tmp_path: Path) -> None:
    path = write_wav(np.stack([sweep, 0.5 * sweep], axis=1), rate=22_050, name="<script>&.wav")
    done = explain(path, "--out", tmp_path / "out", "--html", "--sounds", "--annotations")
    assert done.exit_code == 0, done.output
    assert [Path(line).name for line in done.stdout.splitlines()] == ["<script>&.png", "<script>&.html"]
    html = (tmp_path / "out" / "<script>&.html").read_text(encoding="utf-8")
    assert "<h1>&lt;script&gt;&amp;.wav</h1>" in html
    assert html.count("<audio") == 3
    assert "0.96 s of 1.45 s explained" in html
    for name in ("time", "random"):
        kept, removed = (
            soundfile.read(tmp_path / "out" / f"<script>&.{name}.{part}.flac") for part in ("kept", "removed")
        )
        assert kept[1] == removed[1] == 22_050
        np.testing.assert_allclose(kept[0] + removed[0], 0.75 * sweep, atol=1e-5)
        boxes = read(tmp_path / "out" / f"<script>&.{name}.selections.txt")
        assert [b.begin_s for b in boxes] == [
            b.begin_s for b in read(tmp_path / "out" / f"<script>&.{name}.labels.txt")
        ]
        assert boxes
        assert all(0 <= b.begin_s < b.end_s < 0.98 for b in boxes)


def test_several_clips_get_an_index(write_wav: Callable[..., Path], sweep: np.ndarray, tmp_path: Path) -> None:
    clips = [write_wav(sweep[:8000], name=name) for name in ("a b.wav", "index.wav")]
    done = explain(*clips, "--out", tmp_path / "out", "--html")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].endswith("all-recordings.html")
    index = (tmp_path / "out" / "all-recordings.html").read_text(encoding="utf-8")
    assert re.findall(r'href="([^"]+html)"', index) == ["a%20b.html", "index.html"]
    assert "0.50 s explained, padded with silence to 0.96 s, towards" in index


def test_several_fills_in_one_page(write_wav: Callable[..., Path], sweep: np.ndarray, tmp_path: Path) -> None:
    path, alone = write_wav(sweep[:16_000]), tmp_path / "alone"
    fills = ("--baseline", "silence", "--baseline", "background", "--baseline", "silence")
    done = explain(path, "--out", tmp_path / "out", *fills, "--html", "--sounds", "--annotations")
    assert done.exit_code == 0, done.output
    html = (tmp_path / "out" / "clip.html").read_text(encoding="utf-8")
    assert re.findall(r'name="fill" value="(\w+)"', html) == ["silence", "background"]
    assert explain(path, "--out", alone, "--baseline", "background").exit_code == 0
    with np.load(tmp_path / "out" / "clip.npz") as both, np.load(alone / "clip.npz") as one:
        assert json.loads(str(both["settings"]))["baselines"] == ["silence", "background"]
        for name in ("time", "random"):
            np.testing.assert_array_equal(both[f"importance_{name}.background"], one[f"importance_{name}"])
            assert not np.array_equal(both[f"importance_{name}.background"], both[f"importance_{name}.silence"])
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"clip.time.background.kept.flac", "clip.random.silence.labels.txt"} <= names


def test_every_fill_must_be_known(write_wav: Callable[..., Path], sweep: np.ndarray, tmp_path: Path) -> None:
    fills = ("--baseline", "silence", "--baseline", "blurr")
    refused = explain(write_wav(sweep[:16_000]), "--out", tmp_path / "out", *fills)
    assert refused.exit_code == 2
    assert "did you mean 'blur'" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_more_than_asked_for(write_wav: Callable[..., Path], sweep: np.ndarray, tmp_path: Path) -> None:
    assert explain(write_wav(sweep[:16_000]), "--out", tmp_path / "out").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["clip.npz", "clip.png"]


@pytest.mark.parametrize(
    ("rate", "seconds", "options"),
    [
        (4_000, 2.0, ()),
        (16_000, 0.25, ()),
        (44_100, 1 / 3, ()),
        (11_025, 2.97, ("--max-examples", "0", "--hop", "0.48")),
    ],
)
def test_annotations_lie_within_the_recording(
    write_wav: Callable[..., Path], tmp_path: Path, rate: int, seconds: float, options: tuple[str, ...]
) -> None:
    times_s = np.arange(round(rate * seconds)) / rate
    noise = 0.001 * np.random.default_rng(0).standard_normal(times_s.size)
    wave = 0.3 * np.sin(2 * np.pi * rate / 8 * times_s) * (times_s > times_s[-1] - 0.2) + noise
    path = write_wav(wave, rate=rate, name="clip.wav")
    done = explain(path, "--out", tmp_path / "out", "--annotations", *options)
    assert done.exit_code == 0, done.output
    for name in ("time", "random"):
        for kind in ("selections", "labels"):
            boxes = read(tmp_path / "out" / f"clip.{name}.{kind}.txt", recording=path)
            assert boxes
            assert all(b.begin_s < b.end_s <= wave.size / rate and b.high_hz <= rate / 2 for b in boxes)
    text = (tmp_path / "out" / "clip.time.selections.txt").read_text()
    assert "\tclip.wav\t" in text
