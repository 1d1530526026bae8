"""The benchmark with other front ends than VGGish's:
shape, rate, axis and silence are those of its examples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import relax_quantus as rq
from relax_quantus.benchmark.annotations import Box, bins
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data import datasets
from relax_quantus.benchmark.data.region import draw
from relax_quantus.benchmark.engine.runner import run
from relax_quantus.encoders import loading
from relax_quantus.frontend import BinAxis, Examples, LogMelAxis

SOURCE = """
import torch
from torch import nn
import relax_quantus as rq

def small():
    return rq.LogMel(rq.LogMelConfig(sample_rate_hz=8000, mel_max_hz=3500.0, mel_bands=20, frames=50))

class Decibels(nn.Module):
    hop_s, first_s = 0.02, 0.01
    frequencies_hz = torch.linspace(250, 3750, 12)

    def forward(self, wave):
        power = torch.stft(wave, 160, 160, 160, torch.hann_window(160), False, return_complex=True).abs().square()
        return 10 * (power[:, 2:74].reshape(len(wave), 12, 6, -1).mean(2) + 1e-8).log10()

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d((10, 10)), nn.Flatten(), nn.Linear(100, 16), nn.Tanh()).eval()

def decibels():
    return rq.TransformFrontEnd(Decibels(), frames=40, sample_rate_hz=8000), net()
"""
METRICS = ("SRG-patch-silence", "PixelFlipping", "Selectivity", "RegionPerturbation", "ROAD-embedding", "AUC-region")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of calls at 8 and at 16 kHz, and the networks."""
    root, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    (root / "mine.py").write_text(SOURCE)
    for label, hz in (("low", 500.0), ("high", 2000.0)):
        (root / "rec" / label).mkdir(parents=True)
        for i in range(4):
            rate = (8000, 16_000)[i % 2]
            t = np.arange(2 * rate) / rate
            wave = 0.3 * np.sin(2 * np.pi * hz * (1 + 0.03 * i) * t) * (t % 1 < 0.4)
            soundfile.write(root / "rec" / label / f"{i}.wav", wave + 0.01 * rng.standard_normal(t.size), rate)
    return root


def specifications(folder: Path, kind: str) -> dict[str, str]:
    """The settings of a run that say which encoder and front end."""
    mine = folder / "mine.py"
    return (
        {"encoder": f"{mine}:decibels"} if kind == "pair" else {"encoder": f"{mine}:net", "front_end": f"{mine}:small"}
    )


@pytest.mark.parametrize("kind", ["pair", "log-mel of 8 kHz"])
@pytest.mark.parametrize("data", ["recordings", "planted", "shortcut"])
def test_every_clip_is_what_the_front_end_makes(folder: Path, kind: str, data: str) -> None:
    said = specifications(folder, kind)
    front_end = loading.shared_front_end((said["encoder"],), said.get("front_end", "log_mel"))
    made = datasets.resolve(f"{data}:path={folder / 'rec'}", max_clips=2, head_clips=8, front_end=front_end)
    shape = (1, 40, 12) if kind == "pair" else (1, 50, 20)
    for clip in made.clips:
        assert isinstance(clip.x, Examples)
        assert (tuple(clip.x.shape), clip.x.axis, clip.x.sample_rate_hz) == (shape, front_end.axis, 8000)
        assert clip.x.source is None
        assert clip.truth is None or clip.truth.shape == shape[1:]
        assert data != "planted" or 0 < clip.truth.mean() < 0.9
    assert made.training.x.shape[1:] == made.held_out.x.shape[1:] == shape


@pytest.mark.parametrize("kind", ["pair", "log-mel of 8 kHz"])
def test_a_run_scores_methods_on_them(folder: Path, kind: str) -> None:
    config = BenchmarkConfig(
        datasets=(f"planted:path={folder / 'rec'}",),
        methods=("RELAX-time", "FeatureAblation", "Occlusion"),
        metrics=METRICS,
        max_clips=1,
        head_clips=8,
        n_samples=16,
        perturbations_per_eval=16,
        **specifications(folder, kind),
    )
    rows = run(config).rows
    assert set(rows.status) <= {"ok", "not_applicable"}, rows[["metric", "status", "reason"]]
    assert np.isfinite(rows[rows.metric == "PixelFlipping"].value).all()


def test_silence_is_that_of_the_front_end(folder: Path) -> None:
    from relax_quantus.benchmark.methods.questions import level_of

    front_end = loading.shared_front_end((f"{folder / 'mine.py'}:decibels",))
    x = datasets.resolve(f"recordings:path={folder / 'rec'}", max_clips=2, front_end=front_end).clips[0].x[None]
    np.testing.assert_allclose(level_of("silence", x).expand_as(x), -80.0, atol=1e-4)


def test_boxes_are_marked_on_any_axis() -> None:
    boxes = [Box(0.2, 0.4, 1000.0, 2000.0, "a")]
    linear = BinAxis(every_s=0.1, first_s=0.05, size=8, bins_hz=tuple(np.arange(250.0, 4250.0, 500.0)))
    found = bins(boxes, 2, linear, 5)
    assert found.shape == (2, 5, 8)
    assert np.argwhere(found[0]).tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    assert not found[1].any()
    assert not bins([Box(0, 1, 9000.0, 9900.0, "a")], 1, linear, 5).any()
    config = rq.LogMelConfig(sample_rate_hz=8000, mel_max_hz=3500.0, mel_bands=20, frames=50)
    np.testing.assert_array_equal(bins(boxes, 1, config), bins(boxes, 1, LogMelAxis(config), 50))


def test_regions_are_as_long_in_seconds_whatever_the_frames() -> None:
    x = np.random.default_rng(0).standard_normal((1, 200, 40)).astype(np.float32)
    axis = BinAxis(every_s=0.005, size=40)
    for seed in range(10):
        region = draw(Examples.of(torch.from_numpy(x), axis, 0.0, 8000), "a", seed)
        frames, bands = region.any(1).sum(), region.any(0).sum()
        assert 40 <= frames <= 96
        assert 8 <= bands <= 20
