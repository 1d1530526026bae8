"""`explain` on long recordings: one map over the whole, the same however it is read, stopped or gone on with, in bounded memory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner, Result

import relax_quantus as rq
from relax_quantus import cli
from relax_quantus.benchmark.annotations import read as read_boxes
from relax_quantus.commands import front_ends
from relax_quantus.commands.explain import prepare
from relax_quantus.commands.long_recordings import plan as plans
from relax_quantus.commands.long_recordings.store import BlockStore
from relax_quantus.commands.requests.explain import ExplainRequest
from relax_quantus.commands.requests.shared import EncoderOptions
from relax_quantus.errors import DataError
from relax_quantus.regions import regions

FEW = ("--masks", "time", "--n-samples", "8")
RATE = 16_000
ENCODER = '''
import time
import torch
from torch import nn
from torch.nn import functional

class Cheap(nn.Module):
    """Loudness in coarse cells; as slow as it is told to be."""

    slow_s = {slow_s}

    def forward(self, x):
        time.sleep(self.slow_s)
        return functional.avg_pool2d(x.exp(), (8, 16)).flatten(1)

network = Cheap()
'''


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def encoder(tmp_path: Path) -> Callable[..., str]:
    """Write an encoder of one's own."""

    def write(slow_s: float = 0.0, name: str = "cheap") -> str:
        (tmp_path / f"{name}.py").write_text(ENCODER.format(slow_s=slow_s), encoding="utf-8")
        return f"{tmp_path / name}.py:network"

    return write


def recording(path: Path, seconds: float, every_s: float = 13.7) -> tuple[Path, np.ndarray]:
    """Noise with a chirp of 0.4 s every so often; returns the path and when they begin. Written a second at a time."""
    generator, begins = np.random.default_rng(1), np.arange(3.3, seconds - 1, every_s)
    t = np.arange(round(0.4 * RATE)) / RATE
    call = 0.3 * np.sin(2 * np.pi * (1500 * t + 800 * t**2)) * np.hanning(t.size)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as target:
        for begin_s in np.arange(0, seconds, 10.0):
            wave = 0.003 * generator.standard_normal(round(min(10.0, seconds - begin_s) * RATE) + t.size)
            for at_s in begins[(begins > begin_s - 0.4) & (begins < begin_s + 10)]:
                at = round((at_s - begin_s) * RATE)
                part = slice(max(at, 0), min(at + t.size, wave.size))
                wave[part] += call[part.start - at : part.stop - at]
            target.write(wave[: wave.size - t.size])
    return path, begins


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["explain", *(str(a) for a in arguments)])


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


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


def start(path: Path, out: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "relax_quantus", "explain", str(path), "--out", str(out), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, stdout=subprocess.PIPE)


def blocks(out: Path) -> list[Path]:
    return sorted(out.glob("unfinished/*/block-*.npz"))


def test_killed_and_started_again_it_goes_on_and_is_the_same(tmp_path: Path, encoder: Callable[..., str]) -> None:
    path, _ = recording(tmp_path / "calls.wav", 150.0)
    asked = ("--encoder", encoder(0.004), *FEW, "--hop", 0.5, "--max-examples", 0)
    process = start(path, tmp_path / "killed", *asked)
    deadline = time.monotonic() + 120
    while len(blocks(tmp_path / "killed")) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    kept = blocks(tmp_path / "killed")
    assert 2 <= len(kept) < 7
    changed_at = [block.stat().st_mtime_ns for block in kept]
    (kept[0].parent / ".77.part").write_bytes(b"half a block")
    again = start(path, tmp_path / "killed", *asked)
    while again.poll() is None and len(blocks(tmp_path / "killed")) <= len(kept):
        time.sleep(0.005)
    assert [block.stat().st_mtime_ns for block in kept if block.exists()] in (changed_at, [])
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert f"calls.wav: going on after {48 * len(kept)} of 299 examples" in said
    assert explain(path, "--out", tmp_path / "whole", *asked).exit_code == 0
    same(arrays(tmp_path / "killed" / "calls.npz"), arrays(tmp_path / "whole" / "calls.npz"))
    assert (tmp_path / "killed" / "calls.png").read_bytes() == (tmp_path / "whole" / "calls.png").read_bytes()
    assert not (tmp_path / "killed" / "unfinished").exists()


@pytest.fixture
def stopped(tmp_path: Path, encoder: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `explain`; told to, stop it once two blocks are on disk."""
    put = BlockStore.put

    def run(path: Path, *arguments: object, stop: bool = True, name: str = "cheap") -> Result:
        def put_and_stop(store: BlockStore, number: int, found: dict[str, np.ndarray]) -> None:
            put(store, number, found)
            if stop and number == 1:
                raise DataError("stopped")

        monkeypatch.setattr(BlockStore, "put", put_and_stop)
        given = (*FEW, "--hop", 0.5, "--max-examples", 0, *arguments)
        return explain(path, "--out", tmp_path / "out", "--encoder", encoder(name=name), *given)

    return run


def test_other_settings_a_changed_file_or_network_never_find_the_blocks(
    tmp_path: Path, stopped: Callable[..., Result]
) -> None:
    path, _ = recording(tmp_path / "calls.wav", 110.0)
    assert stopped(path).exit_code == 1
    assert len(blocks(tmp_path / "out")) == 2
    assert "going on" not in stopped(path, "--seed", 1, stop=False).stderr
    assert len(blocks(tmp_path / "out")) == 2  # those of the first are still there for it
    changed = path.read_bytes()
    recording(path, 110.0, 9.0)
    assert "going on" not in stopped(path, stop=False).stderr
    path.write_bytes(changed)
    assert "going on after 96 of 219 examples" in stopped(path, stop=False).stderr


def test_the_key_is_of_everything_that_blocks_depend_on(tmp_path: Path, encoder: Callable[..., str]) -> None:
    path, _ = recording(tmp_path / "calls.wav", 70.0)
    other, _ = recording(tmp_path / "other.wav", 2.0, 1.0)
    named, network = encoder(), tmp_path / "cheap.py"
    bare = ExplainRequest([path], tmp_path, ["time"], EncoderOptions(named), n_samples=8, hop=0.5, max_examples=0)

    def key(request: ExplainRequest) -> str:
        models = prepare(request)
        plan = plans.plan_for(path, request, models)
        assert plan is not None
        return plans.key_of(plan, request, models)

    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"n_samples": 9},
        {"masks": ["random"]},
        {"baseline": ["background"]},
        {"baseline": ["silence", "background"]},
        {"hop": 0.48},
        {"max_examples": 100},
        {"tolerance": 0.1},
        {"estimator": "weighted"},
        {"reference": other},
        {"away": other},
        {"similarity": "dot"},
        {"similarity": "centred_cosine", "corpus": other},
        {"domain": "amplitude"},
        {"precision": "bfloat16"},
        {"encoder": EncoderOptions("vggish_mini")},
    ]
    keys = [key(bare), *(key(replace(bare, **change)) for change in changes)]
    with network.open("a", encoding="utf-8") as source:
        source.write("# another network, of the same weights\n")
    keys.append(key(bare))
    recording(path, 70.0, 9.0)
    keys.append(key(bare))
    assert len(set(keys)) == len(keys)
    assert (
        key(replace(bare, html=True, sounds=True, annotations=True)) == keys[-1]
    )  # what is written depends on the blocks, not they on it


def test_a_damaged_block_is_made_again(tmp_path: Path, stopped: Callable[..., Result]) -> None:
    path, _ = recording(tmp_path / "calls.wav", 110.0)
    assert stopped(path, stop=False).exit_code == 0
    whole = arrays(tmp_path / "out" / "calls.npz")
    assert stopped(path).exit_code == 1
    damaged = blocks(tmp_path / "out")[1]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(content)
    assert "going on after 48 of 219" in stopped(path, stop=False).stderr
    same(arrays(tmp_path / "out" / "calls.npz"), whole)


def test_two_runs_of_one_thing_are_refused(tmp_path: Path) -> None:
    with BlockStore(tmp_path, "clip", "k" * 64), pytest.raises(DataError, match="that no other run is explaining"):
        BlockStore(tmp_path, "clip", "k" * 64)
    BlockStore(tmp_path, "clip", "k" * 64).remove()


def test_several_recordings_go_on_where_the_command_stopped(tmp_path: Path, stopped: Callable[..., Result]) -> None:
    paths = [recording(tmp_path / name, 70.0, every)[0] for name, every in (("a.wav", 5.0), ("b.wav", 7.0))]
    assert stopped(paths[0], paths[1]).exit_code == 1
    assert len(blocks(tmp_path / "out")) == 4
    done = stopped(paths[0], paths[1], "--html", stop=False)
    assert done.stderr.count("going on after 96 of 139") == 2
    assert [Path(line).name for line in done.stdout.splitlines()] == [
        "a.png",
        "a.html",
        "b.png",
        "b.html",
        "index.html",
    ]


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
    assert explain(*asked, "--max-examples", 0).stderr == ""
    assert arrays(tmp_path / "out" / "calls.npz")["importance_time"].shape == (72 * 96, 64)
    limited = explain(*asked, "--hop", 0.48)
    assert "explained are the first 60 of 144 examples, 29.3 of 70.0 s" in limited.stderr
    short = explain(path, "--out", tmp_path / "short", "--encoder", encoder(), *FEW, "--max-examples", 7, "--hop", 0.9)
    assert "first 7 of 77" in short.stderr
    soundfile.write(tmp_path / "short.wav", np.random.default_rng(0).random(8000) - 0.5, RATE)
    padded = explain(tmp_path / "short.wav", *asked[1:], "--hop", 0.48)
    assert "padded with silence" in padded.stderr
    assert arrays(tmp_path / "out" / "short.npz")["importance_time"].shape == (96, 64)


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
from relax_quantus import cli
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
