"""`explain` on long recordings: one map over the
whole, the same however it is read, in bounded memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from recorded_calls import FEW, RATE, arrays, explain, recording

import relax_quantus as rq
from relax_quantus.benchmark.annotations import read as read_boxes
from relax_quantus.frontend import front_end as front_ends
from relax_quantus.recordings import plan as plans
from relax_quantus.views.boxes import regions


def test_end_to_end_it_is_todays_result_bit_for_bit(tmp_path: Path, sweep: np.ndarray) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.tile(sweep, 3)[:80_000], RATE, subtype="PCM_16")
    few = ("--masks", "time", "--masks", "random", "--n-samples", 8)
    assert explain(path, "--out", tmp_path / "a", *few).exit_code == 0
    done = explain(path, "--out", tmp_path / "b", *few, "--hop", 0.96)
    assert done.exit_code == 0, done.output
    clip, whole = arrays(tmp_path / "a" / "clip.npz"), arrays(tmp_path / "b" / "clip.npz")
    for name in ("time", "random"):
        for kind in ("importance", "uncertainty", "standard_error", "cell_effects"):
            if f"{kind}_{name}" in clip:
                np.testing.assert_array_equal(whole[f"{kind}_{name}"], clip[f"{kind}_{name}"].reshape(-1, 64))
        np.testing.assert_array_equal(whole[f"mean_similarity_{name}"], clip[f"mean_similarity_{name}"])
        assert whole[f"neutral_{name}"].shape == (480, 64)
    np.testing.assert_array_equal(whole["x"], clip["x"].reshape(-1, 64))
    np.testing.assert_array_equal(whole["times_s"], clip["times_s"].ravel())
    np.testing.assert_array_equal(whole["embedding"], clip["embedding"])


def test_it_is_what_python_gives(tmp_path: Path) -> None:
    path, _ = recording(tmp_path / "calls.wav", 8.0)
    assert explain(path, "--out", tmp_path, *FEW, "--hop", 0.4, "--seed", 3).exit_code == 0
    relax = rq.RELAX(rq.load_encoder("vggish_mini"), masks="time")
    found = rq.explain_overlapping(relax, rq.load_examples(path, hop_s=0.4), 0.4, "silence", n_samples=8, seed=3)
    stitched = arrays(tmp_path / "calls.npz")
    np.testing.assert_allclose(stitched["importance_time"], found.importance, atol=1e-6)
    np.testing.assert_allclose(stitched["standard_error_time"], found.standard_error, atol=1e-6)
    np.testing.assert_allclose(stitched["times_s"], found.times_s)
    np.testing.assert_allclose(stitched["example_start_s"], 0.4 * np.arange(18), atol=1e-12)


def test_ten_minutes_light_up_where_the_calls_are(tmp_path: Path, encoder: Callable[..., str]) -> None:
    path, begins = recording(tmp_path / "calls.wav", 600.0)
    asked = ("--encoder", encoder(), "--masks", "time", "--n-samples", 40, "--hop", 0.48, "--max-examples", 0)
    done = explain(path, "--out", tmp_path / "out", *asked, "--annotations", "--sounds", "--html")
    assert done.exit_code == 0, done.output
    assert [Path(line).name for line in done.stdout.splitlines()] == ["calls.png", "calls.html"]
    whole = arrays(tmp_path / "out" / "calls.npz")
    assert whole["importance_time"].shape == (len(whole["times_s"]), 64) == (59_952, 64)
    centred = (whole["importance_time"] - whole["neutral_time"]).mean(axis=1)
    for begin in begins:  # the highest moment within two seconds around each call is in it
        near = np.flatnonzero(np.abs(whole["times_s"] - begin - 0.2) < 1.0)
        assert begin - 0.06 < whole["times_s"][near[centred[near].argmax()]] < begin + 0.46
    boxes = read_boxes(tmp_path / "out" / "calls.time.selections.txt")
    with_call = [any(b.begin_s < begin + 0.2 < b.end_s for b in boxes) for begin in begins]
    assert np.mean(with_call) > 0.95
    by_hand = regions((whole["importance_time"] - whole["neutral_time"])[None, None])
    np.testing.assert_allclose([b.begin_s for b in boxes], [r.begin_s for r in by_hand], atol=1e-5)
    parts = [soundfile.read(tmp_path / "out" / f"calls.time.{part}.flac")[0] for part in ("kept", "removed")]
    np.testing.assert_allclose(parts[0] + parts[1], soundfile.read(path)[0], atol=1e-5)
    assert os.path.getsize(tmp_path / "out" / "calls.html") < 8e6
    assert "An overview, without sounds" in (tmp_path / "out" / "calls.html").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "unfinished").exists()
    settings = json.loads(str(whole["settings"]))
    assert settings["hop_s"] == 0.48
    assert settings["examples"] == settings["examples_in_all"] == 1248


def test_silence_in_between_has_no_explanation(tmp_path: Path, encoder: Callable[..., str]) -> None:
    path, _ = recording(tmp_path / "calls.wav", 150.0)
    network = Path(encoder().removesuffix(":network"))
    network.write_text(network.read_text().replace("x.exp()", "x.add(4.6).relu().round(decimals=3)"), encoding="utf-8")
    wave, _ = soundfile.read(path)
    wave[40 * RATE : 130 * RATE] = 0
    soundfile.write(path, wave, RATE, subtype="PCM_16")
    asked = ("--encoder", f"{network}:network", *FEW, "--hop", 0.48, "--max-examples", 0)
    done = explain(path, "--out", tmp_path / "out", *asked, "--annotations", "--sounds", "--html")
    assert done.exit_code == 0, done.output
    assert re.search(r"warning: .*calls.wav: 18[0-9] of 311 examples have an all-zero embedding", done.stderr)
    whole = arrays(tmp_path / "out" / "calls.npz")
    unknown = np.isnan(whole["importance_time"]).all(axis=1)
    assert unknown[(whole["times_s"] > 41) & (whole["times_s"] < 129)].all()
    assert not unknown[(whole["times_s"] < 40) | (whole["times_s"] > 131)].any()
    wave[:] = 1e-5
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    refused = explain(path, "--out", tmp_path / "out", *asked)
    assert refused.exit_code == 1
    assert "zero" in refused.stderr


def test_limits_and_what_is_said_of_them(tmp_path: Path, encoder: Callable[..., str]) -> None:
    path, _ = recording(tmp_path / "calls.wav", 70.0)
    asked = (path, "--out", tmp_path / "out", "--encoder", encoder(), *FEW)
    first = explain(*asked)
    assert (
        "explained are the first 60 of 72 examples, 57.6 of 70.0 s; --max-examples 0 explains all of it" in first.stderr
    )
    assert arrays(tmp_path / "out" / "calls.npz")["importance_time"].shape == (60, 1, 96, 64)
    done = explain(*asked, "--max-examples", 0)
    assert done.stderr.splitlines()[0] == f"warning: {path}: the last 0.86 s make no whole example and are left out"
    assert " in 66 of its 72 examples; nothing stands out" in done.stderr.splitlines()[1]
    assert arrays(tmp_path / "out" / "calls.npz")["importance_time"].shape == (72 * 96, 64)
    limited = explain(*asked, "--hop", 0.48)
    assert "explained are the first 60 of 144 examples, 29.3 of 70.0 s" in limited.stderr
    short = explain(path, "--out", tmp_path / "short", "--encoder", encoder(), *FEW, "--max-examples", 7, "--hop", 0.9)
    assert "first 7 of 77" in short.stderr
    soundfile.write(tmp_path / "short.wav", np.random.default_rng(0).random(8000) - 0.5, RATE)
    padded = explain(tmp_path / "short.wav", *asked[1:], "--hop", 0.48)
    assert "padded with silence" in padded.stderr
    assert arrays(tmp_path / "out" / "short.npz")["importance_time"].shape == (96, 64)


def test_a_page_of_overlapping_examples_plays(tmp_path: Path, encoder: Callable[..., str]) -> None:
    path, _ = recording(tmp_path / "calls.wav", 45.0)
    asked = ("--encoder", encoder(), *FEW, "--hop", 0.48, "--html", "--json")
    done = explain(path, "--out", tmp_path / "out", *asked)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "calls.html").read_text(encoding="utf-8")
    assert [text.count(f'data-part="{part}"') for part in ("original", "kept", "removed")] == [1, 1, 1]
    assert "Space</kbd> plays" in text
    assert "without sounds" not in text
    left_s = arrays(tmp_path / "out" / "calls.npz")["times_s"][-1] + 0.0125
    told = json.loads(done.stdout.splitlines()[0])
    assert told["left_out_s"] == pytest.approx(45.0 - left_s, abs=1e-6)
    assert f"the last {told['left_out_s']:.2f} s are left out" in text


def test_what_cannot_be_read_in_blocks_is_refused_with_a_reason(
    tmp_path: Path, encoder: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = recording(tmp_path / "calls.wav", 70.0)
    asked = (path, "--out", tmp_path / "out", *FEW)
    network = tmp_path / "mine.py"
    network.write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return x[:, ::160].abs()\nnetwork = Net()\n",
        encoding="utf-8",
    )
    own = ("--encoder", f"{network}:network", "--front-end", "waveform:seconds=1")
    done = explain(*asked, *own, "--hop", 0.5)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "--hop: expected a front end whose recordings can be read in blocks" in done.stderr
    assert "a value a sample" in done.stderr
    assert "--max-examples: expected a number" in explain(*asked, *own, "--max-examples", 0).stderr
    assert explain(*asked, *own, "--max-examples", 65).exit_code == 0
    assert arrays(tmp_path / "out" / "calls.npz")["importance_time"].shape == (65, 16_000)
    monkeypatch.setattr(plans, "Recording", lambda path: soundfile.SoundFile(path))
    done = explain(*asked, "--encoder", encoder(), "--hop", 2.0)
    assert "--hop: expected from 0.01 (a frame) to 0.96 s (an example), got 2.0" in done.stderr


def test_only_the_beginning_is_kept_of_a_clip_that_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = recording(tmp_path / "calls.wav", 20.0)
    front_end = front_ends.log_mel()
    whole = front_end.read(path)
    monkeypatch.setattr(front_ends, "load_waveform", None)  # would need memory for all of it
    cut = front_end.read(path, 3)
    assert (cut.in_all, cut.seconds) == (whole.in_all, whole.seconds) == (20, 20.0)
    assert torch.equal(cut.examples, whole.examples[:3])


MEASURE = """
import resource, sys
import torch
torch.set_num_threads(1)
from typer.testing import CliRunner
from relax_quantus.cli import main as cli
done = CliRunner().invoke(cli.app, sys.argv[1:])
assert done.exit_code == 0, done.output
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_the_recording(tmp_path: Path, encoder: Callable[..., str]) -> None:
    def peak_mib(seconds: float) -> float:
        path, _ = recording(tmp_path / f"{seconds}.wav", seconds)
        asked = ("--encoder", encoder(), "--masks", "time", "--n-samples", 4, "--max-examples", 0, "--annotations")
        command = [sys.executable, "-c", MEASURE, "explain", path, "--out", tmp_path / "out", *asked]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=250, check=True)
        return float(done.stdout.splitlines()[-1])

    # 12 minutes more, drawn in as many columns: 44 MiB of samples, and 18 MiB for each of six maps
    assert peak_mib(1440.0) - peak_mib(720.0) < 30
