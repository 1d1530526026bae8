"""`explain`: what it writes, which recordings it takes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_line import FEW, call, refused, run
from torch import Tensor

import relax_quantus
from relax_quantus.base import files
from relax_quantus.frontend.axes import COUNTED, BinAxis
from relax_quantus.frontend.log_mel import LogMelAxis
from relax_quantus.recordings.plan import Plan
from relax_quantus.recordings.writing import example_length, lasting

pytestmark = pytest.mark.usefixtures("one_thread")


# explain


def test_explain_writes_a_picture_and_arrays(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip = tone(hz=4000.0, seconds=2.0)
    result = call("explain", clip, "--out", tmp_path / "out", "--n-samples", 40, "--seed", 3)
    assert (result.exit_code, result.stderr) == (0, f"{clip}: nothing stands out (random)\n")
    assert result.stdout == f"{tmp_path / 'out' / 'tone.png'}\n"
    assert (tmp_path / "out" / "tone.png").read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "out" / "tone.npz", allow_pickle=False) as arrays:
        settings = json.loads(str(arrays["settings"]))
        assert arrays["x"].shape == (2, 1, 96, 64)
        assert arrays["embedding"].shape == (2, 128)
        assert arrays["times_s"].shape == (2, 96)
        assert arrays["times_s"][1, 0] == pytest.approx(0.96 + 0.0125)
        assert arrays["frequencies_hz"].shape == (64,)
        assert arrays["frequencies_hz"][0] < arrays["frequencies_hz"][-1]
        for name in relax_quantus.relax.masks.STRATEGIES:
            for kind in ("importance", "uncertainty", "standard_error", "centred_standard_error"):
                assert arrays[f"{kind}_{name}"].shape == (2, 1, 96, 64)
            assert arrays[f"mean_similarity_{name}"].shape == arrays[f"null_statistic_{name}"].shape == (2,)
            assert arrays[f"null_maxima_{name}"].shape == (2, 200)
        encoder = relax_quantus.load_encoder("vggish_mini")
        expected = relax_quantus.RELAX(encoder, masks="frequency").attribute(
            torch.from_numpy(arrays["x"]), "silence", n_samples=40, seed=3
        )
        np.testing.assert_allclose(arrays["importance_frequency"], expected.numpy(), atol=1e-5)
    assert settings["clip"] == str(clip)
    assert (settings["n_samples"], settings["seed"], settings["baseline"]) == (40, 3, "silence")


def test_two_clips_of_one_name_and_a_second_run(tone: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    a, b, c = tone("a/same.wav", 500.0), tone("b/same.wav", 2000.0), tone("c/same.wav", 5000.0)
    first = call("explain", a, b, "--out", out, *FEW).stdout.splitlines()
    assert len(set(first)) == 2
    assert first[0] == str(out / "same.png")
    arrays = [np.load(Path(name).with_suffix(".npz"))["x"] for name in first]
    assert not np.array_equal(*arrays)
    again = call("explain", b, c, "--out", out, *FEW).stdout.splitlines()
    assert again[0] == first[1]
    assert again[1] not in first
    assert np.array_equal(np.load(Path(first[0]).with_suffix(".npz"))["x"], arrays[0])
    assert call("explain", a, "--out", out, *FEW).stdout.splitlines() == first[:1]
    assert len(list(out.iterdir())) == 6


def test_a_picture_of_someone_elses_is_not_replaced(tone: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "tone.png").write_bytes(b"mine")
    result = call("explain", tone(), "--out", tmp_path, *FEW)
    assert result.exit_code == 0
    assert result.stdout.strip() != str(tmp_path / "tone.png")
    assert (tmp_path / "tone.png").read_bytes() == b"mine"


def test_max_examples_cuts_with_a_warning(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip = tone(seconds=5.0)
    result = call("explain", clip, "--out", tmp_path / "out", "--max-examples", 2, *FEW)
    assert result.exit_code == 0
    assert f"warning: {clip}: explained are the first 2 of 5 examples, 1.9 of 5.0 s" in result.stderr
    cut = np.load(tmp_path / "out" / "tone.npz")["x"]
    torch.testing.assert_close(torch.from_numpy(cut), relax_quantus.load_examples(clip)[:2])


def test_a_bad_clip_in_a_batch_is_reported_and_the_rest_done(tone: Callable[..., Path], tmp_path: Path) -> None:
    good, bad, other = tone("a.wav"), tmp_path / "b.wav", tone("c.wav")
    bad.write_text("not audio")
    result = call("explain", good, bad, other, "--out", tmp_path / "out", *FEW)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [str(tmp_path / "out" / f"{n}.png") for n in "ac"]
    (problem,) = [line for line in result.stderr.splitlines() if "nothing stands out" not in line]
    assert str(bad) in problem


def test_a_folder_is_searched_and_each_recording_done_once(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip = tone("in/deep/a.wav")
    tone("in/b.flac", subtype="PCM_16")
    (tmp_path / "in" / "notes.txt").write_text("no sound")
    shutil.copy(clip, tmp_path / "in" / ".hidden.wav")
    result = call("explain", tmp_path / "in", clip, "--out", tmp_path / "out", *FEW)
    assert result.exit_code == 0
    (warning,) = [line for line in result.stderr.splitlines() if "nothing stands out" not in line]
    assert "left out 1 hidden recording, such as" in warning
    assert result.stdout.splitlines() == [str(tmp_path / "out" / f"{n}.png") for n in "ba"]


def silent(path: Path) -> None:
    soundfile.write(path, np.zeros(16_000), 16_000)


def no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), 16_000)


def not_finite(path: Path) -> None:
    soundfile.write(path, np.array([0.1, np.nan, 0.2] * 6000), 16_000, subtype="FLOAT")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(range(256)) * 20),
        no_samples,
        silent,
        not_finite,
        lambda path: None,
        lambda path: path.mkdir(),
    ],
    ids=["empty", "not-audio", "no-samples", "silent", "not-finite", "missing", "folder-without-sound"],
)
def test_recordings_that_cannot_be_used_are_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    clip = tmp_path / "bad.wav"
    make(clip)
    refused(call("explain", clip, "--out", tmp_path / "out", *FEW), str(clip))


def test_odd_file_names_stay_on_one_line(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip = tone("$a$ \\frac{ two\nlines \u00e9\u4e2d.wav")
    result = call("explain", clip, "--out", tmp_path / "out", *FEW)
    assert result.exit_code == 0
    assert [line.rpartition(": ")[2] for line in result.stderr.splitlines()] == ["nothing stands out"]
    assert len(result.stdout.splitlines()) == 1
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.wav"))
    bad.write_text("no")
    refused(call("explain", bad, "--out", tmp_path / "out", *FEW), "bad\\udcff.wav")


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda h: h * torch.nan, "finite"),
        (lambda h: h[:, None], "shape"),
        (lambda h: h * 0, "non-zero"),
        (lambda h: h[:1].repeat(len(h) + 1, 1), "shape"),
    ],
    ids=["nan", "3-d", "zero", "rows"],
)
def test_bad_encoders_are_refused(
    make: Callable[[Tensor], Tensor],
    part: str,
    odd_encoder: Callable[..., str],
    tone: Callable[..., Path],
    tmp_path: Path,
) -> None:
    clip = tone(seconds=2.0)
    result = call("explain", clip, "--out", tmp_path / "out", "--encoder", odd_encoder(make), *FEW)
    refused(result, str(clip), "encoder", part)
    assert not list((tmp_path / "out").iterdir())


def test_an_example_without_embedding_is_left_blank(
    odd_encoder: Callable[..., str], write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    wave = np.concatenate([np.zeros(15_600), 0.3 * np.random.default_rng(0).standard_normal(16_400)])
    clip = write_wav(wave.astype(np.float32))
    name = odd_encoder(lambda h: (h + 4.6).relu())
    result = call("explain", clip, "--out", tmp_path / "out", "--encoder", name, *FEW)
    assert result.exit_code == 0
    assert "1 of 2 examples have an all-zero embedding" in result.stderr
    importance = np.load(tmp_path / "out" / "clip.npz")["importance_time"]
    assert np.isnan(importance[0]).all()
    assert np.isfinite(importance[1]).all()


def test_out_must_be_a_folder_that_can_be_written_to(tone: Callable[..., Path], tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    refused(call("explain", tone(), "--out", taken, *FEW), "--out", str(taken))
    refused(call("explain", tone(), "--out", taken / "below", *FEW), "--out", "taken")
    refused(call("explain", tone(), "--out", "/proc/nowhere", *FEW), "--out", "/proc/nowhere")
    assert taken.read_text() == "a file"


def test_a_full_disk_stops_with_the_file_named_and_leaves_nothing_half(
    tone: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    result = call("explain", tone(), "--out", tmp_path / "out", *FEW)
    refused(result, str(tmp_path / "out" / "tone.npz"), "No space left on device")
    assert not list((tmp_path / "out").iterdir())


def test_a_draft_that_fails_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("older")

    def write() -> None:
        with files.complete(path) as draft:
            draft.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert path.read_text() == "older"


# bench


def test_a_name_that_the_terminal_cannot_show_does_not_end_a_batch(tone: Callable[..., Path], tmp_path: Path) -> None:
    clips = [tone(f"{name}.wav") for name in ("鳥", "b")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = run("explain", *clips, "--out", tmp_path / "out", *FEW, env=environment)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["b.png", "鳥.png"]


def test_the_end_that_is_left_out_is_said_everywhere(
    write_wav: Callable[..., Path], sweep: np.ndarray, tmp_path: Path
) -> None:
    """2.8 s are two examples, 1.935 s with the last window, and a rest."""
    clip = write_wav(np.concatenate([sweep, sweep])[:44_800])
    result = call("explain", clip, "--out", tmp_path / "o", "--masks", "time", "--n-samples", 4, "--html", "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == [
        f"warning: {clip}: the last 0.86 s make no whole example and are left out",
        f"{clip}: nothing stands out",
    ]
    assert json.loads(result.stdout.splitlines()[0])["left_out_s"] == pytest.approx(0.865)
    with np.load(tmp_path / "o" / "clip.npz") as arrays:
        assert json.loads(str(arrays["settings"]))["left_out_s"] == pytest.approx(0.865)
    assert "1.92 s of 2.80 s explained (the last 0.86 s are left out)" in (tmp_path / "o" / "clip.html").read_text(
        "utf-8"
    )


def test_the_picture_says_what_is_left_out() -> None:
    clip = Plan(Path("a.wav"), LogMelAxis(), per_example=96, hop=96, count=2, in_all=2, block=2, seconds=2.8)
    assert lasting(clip) == "of 2.80 s, the last 0.86 s are left out"
    assert lasting(replace(clip, seconds=1.95)) == "the recording lasts 1.95 s"
    counted = BinAxis(every_s=1.0, size=64, time_label=COUNTED)
    assert (example_length(replace(clip, axis=counted)), example_length(clip)) == ("96 frames", "0.96 s")
