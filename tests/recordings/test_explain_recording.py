"""Recordings as a library: what the command line can do, a call does."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_line import call
from torch import Tensor, nn
from torch.nn import functional

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError, ShapeError, UnknownNameError
from relax_quantus.recordings import session as sessions
from relax_quantus.recordings.session import Hooks
from relax_quantus.views.boxes import regions

pytestmark = pytest.mark.usefixtures("one_thread")
RATE = 16_000


class Cheap(nn.Module):
    """Loudness in coarse cells."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x.exp(), (8, 16)).flatten(1)


def chirps(seconds: float, every_s: float = 2.3) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    wave = 0.003 * np.random.default_rng(0).standard_normal(t.size)
    for begin_s in np.arange(0.7, seconds - 0.5, every_s):
        wave += 0.3 * np.sin(2 * np.pi * 2000 * t) * np.exp(-(((t - begin_s) / 0.06) ** 2))
    return wave.astype(np.float32)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "chirps.wav"
    soundfile.write(path, chirps(4.0), RATE, subtype="FLOAT")
    return path


def test_the_call_the_samples_and_the_command_say_the_same(clip: Path, tmp_path: Path) -> None:
    asked = ("--masks", "time", "--masks", "random", "--n-samples", 20, "--seed", 3)
    assert call("explain", clip, "--out", tmp_path / "out", *asked, "--annotations", "--sounds").exit_code == 0
    masks = ("time", "random")
    found = rq.explain_recording(clip, masks=masks, n_samples=20, seed=3)
    wave, rate = rq.read_audio(clip)
    heard = rq.explain_recording(wave, masks=masks, n_samples=20, seed=3, sample_rate_hz=rate)
    found.save(tmp_path / "found.npz")
    with np.load(tmp_path / "out" / "chirps.npz") as theirs, np.load(tmp_path / "found.npz") as ours:
        assert set(theirs) == set(ours)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
        for name in masks:
            np.testing.assert_array_equal(heard.maps[name].importance.ravel(), ours[f"importance_{name}"].ravel())
        assert json.loads(str(ours["settings"]))["masks"] == list(masks)
    table = (tmp_path / "out" / "chirps.random.selections.txt").read_text(encoding="utf-8").splitlines()
    assert [float(line.split("\t")[3]) for line in table[1:]] == pytest.approx(
        [r.begin_s for r in found.regions("random")], abs=1e-6
    )
    kept = soundfile.read(tmp_path / "out" / "chirps.time.kept.flac")[0]
    np.testing.assert_allclose(found.sounds("time").kept, kept, atol=1e-6)


def test_what_an_explanation_of_a_recording_has(clip: Path, tmp_path: Path) -> None:
    found = rq.explain_recording(clip, Cheap(), ("time", "frequency"), n_samples=40, hop_s=0.48)
    frames = 7 * 48 + 48
    assert list(found.maps) == ["time", "frequency"]
    for values in (found.importance, found.centred, found.uncertainty, found.standard_error, found.x):
        assert values.shape == (frames, 64)
    np.testing.assert_array_equal(found.centred, found.importance - found.maps["time"].neutral)
    assert found.times_s.shape == (frames,)
    assert found.frequencies_hz is not None
    assert found.frequencies_hz.shape == (64,)
    assert found.embedding.shape[0] == 7
    assert found.probabilities is None
    assert found.settings["hop_s"] == pytest.approx(0.48)
    assert found.settings["encoder"] == "Cheap"
    parts, wave = found.sounds(), rq.read_audio(clip)[0]
    np.testing.assert_allclose(parts.kept + parts.removed, wave, atol=1e-6)
    assert found.to_html(tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!")
    assert found.plot().axes
    with pytest.raises(UnknownNameError, match=r"name: expected the name of a map, got 'tiem'.*time"):
        found.regions("tiem")


def test_it_writes_what_is_asked_for_and_takes_back_what_is_not(clip: Path, tmp_path: Path) -> None:
    found, out, moments = rq.explain_recording(clip, masks="time", n_samples=20), tmp_path / "a" / "b", []

    @contextmanager
    def undisturbed() -> Iterator[None]:
        moments.append(sorted(path.name for path in out.glob("chirps*")))
        yield
        moments.append(sorted(path.name for path in out.glob("chirps*")))

    written = found.write(out, html=True, annotations=True, uninterrupted=undisturbed)
    names = sorted(["chirps.html", "chirps.npz", "chirps.png", "chirps.time.labels.txt", "chirps.time.selections.txt"])
    assert moments == [[], names]
    assert set(written.files) == {"picture", "arrays", "page", "selections", "labels"}
    assert written.files["labels"] == {"time": out / "chirps.time.labels.txt"}
    assert written.regions == {"time": found.regions()}
    assert written.entry is not None
    assert written.entry.link == "chirps.html"

    written = found.write(out)
    assert (written.regions, written.entry) == (None, None)
    assert written.files == {"picture": out / "chirps.png", "arrays": out / "chirps.npz"}
    assert sorted(path.name for path in out.iterdir()) == ["chirps.npz", "chirps.png"]


def test_regions_follow_the_rule_of_pictures_and_of_stitched_maps(clip: Path) -> None:
    found = rq.explain_recording(clip, Cheap(), "time", n_samples=200)
    whole = regions(found.first.explanation(), end_s=4.0, highest_hz=RATE / 2)
    assert found.verdict == found.first.verdict == found.first.bounds.in_words
    assert "nothing stands out" not in found.verdict
    assert len(whole) > 0
    assert found.regions() == whole
    overlapping = rq.explain_recording(clip, Cheap(), "time", n_samples=200, hop_s=0.48)
    x = rq.load_examples(clip, hop_s=0.48)
    stitched = rq.explain_overlapping(rq.RELAX(Cheap(), masks="time"), x, 0.48, "silence", n_samples=200, null=True)
    of_stitched = regions(stitched, end_s=4.0, highest_hz=RATE / 2)
    assert [r.bins for r in of_stitched] == [r.bins for r in overlapping.regions()]
    noise = rq.explain_recording(
        0.1 * np.random.default_rng(1).standard_normal(RATE), nn.Flatten(), "time", n_samples=8, sample_rate_hz=RATE
    )
    assert noise.regions() == []
    assert "nothing stands out" in noise.verdict


def test_a_long_recording_is_on_disk_and_the_same(tmp_path: Path) -> None:
    wave = chirps(70.0, 7.0)
    asked = {"n_samples": 8, "hop_s": 0.5, "max_examples": 0}
    found = rq.explain_recording(wave, Cheap(), "time", sample_rate_hz=RATE, **asked)  # type: ignore[arg-type]
    assert isinstance(found.importance, np.memmap)
    folder = Path(str(found.importance.filename)).parent
    x = rq.LogMel().frames(torch.from_numpy(wave)).unfold(0, 96, 50).transpose(1, 2)[:, None].contiguous()
    expected = rq.explain_overlapping(rq.RELAX(Cheap(), masks="time"), x, 0.5, "silence", n_samples=8)
    np.testing.assert_allclose(found.importance, expected.importance, atol=1e-6)
    np.testing.assert_allclose(found.times_s, expected.times_s)
    assert found.sounds().kept.shape == wave.shape
    found.save(tmp_path / "long.npz")
    with np.load(tmp_path / "long.npz") as arrays:
        np.testing.assert_array_equal(arrays["importance_time"], found.importance)
    del found
    gc.collect()
    assert not folder.exists()


def test_a_session_loads_once_and_says_nothing(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = rq.Session(rq.ExplainSettings(masks=rq.masks.get("time"), n_samples=6, max_examples=2, away=clip))
    for name in ("load", "load_anchor"):
        monkeypatch.setattr(sessions, name, None)
    with pytest.warns(UserWarning, match=r"explained are the first 2 of 4 examples.*max_examples=0 explains all"):
        first = session.explain(clip)
    with pytest.warns(UserWarning, match="less than one example; padded"):
        padded = session.explain(chirps(0.6), sample_rate_hz=RATE)
    assert (first.plan.count, padded.plan.count, list(first.maps)) == (2, 1, ["time"])
    assert session.question == "the clip's own embedding, away from chirps.wav"
    assert capsys.readouterr() == ("", "")


def test_progress_is_told_and_may_stop_it(clip: Path) -> None:
    told: list[int] = []

    class Bar:
        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: int) -> None:
            told.append(n)

    settings = rq.ExplainSettings(Cheap(), ("time", "random"), n_samples=4)
    rq.Session(settings, hooks=Hooks(lambda *_: Bar())).explain(clip)
    assert sum(told) == 2 * 4
    rq.explain_recording(clip, Cheap(), "time", n_samples=4, progress=True)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"n_samples": 0}, ArgumentError, "n_samples: expected an integer of at least 1"),
        ({"hop_s": -1.0}, ArgumentError, "hop_s: expected"),
        ({"max_examples": 0.5}, ArgumentTypeError, "max_examples: expected an integer"),
        ({"masks": "tiem"}, UnknownNameError, "expected the name of a mask strategy"),
        ({"baselines": ("silence", "hush")}, UnknownNameError, "expected the name of a fill"),
        ({"baselines": 0.0}, ArgumentTypeError, "baselines: expected the name of a fill"),
        ({"corpus": "folder"}, ArgumentError, "corpus: expected none without similarity 'centred_cosine'"),
        ({"similarity": "centred_cosine"}, ArgumentError, "corpus: expected a folder of recordings"),
        ({"encoder": 3}, ArgumentTypeError, "encoder: expected a name, or a torch.nn.Module"),
    ],
)
def test_errors_name_the_argument(changes: dict[str, object], error: type[Exception], said: str, clip: Path) -> None:
    with pytest.raises(error, match=said):
        rq.explain_recording(clip, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recording", "rate", "error", "said"),
    [
        (np.zeros(9), None, ArgumentError, "sample_rate_hz: expected the rate"),
        (np.zeros((2, 9)), RATE, ShapeError, "recording: expected a file, or a waveform"),
        (np.zeros(9, int), RATE, ArgumentTypeError, "recording: expected floating-point samples"),
        (np.full(9, np.nan), RATE, ArgumentError, "recording: expected"),
        ("clip.wav", RATE, ArgumentError, "sample_rate_hz: expected none with a file"),
    ],
)
def test_recordings_that_are_none_are_refused(recording: object, rate: int, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        rq.explain_recording(recording, Cheap(), sample_rate_hz=rate)  # type: ignore[arg-type]


def test_front_ends_and_encoders_of_ones_own_are_objects(clip: Path, write_wav: Callable[..., Path]) -> None:
    fine = rq.LogMel(rq.LogMelConfig(mel_bands=32))
    assert rq.explain_recording(clip, Cheap(), "time", n_samples=4, front_end=fine).importance.shape[1] == 32
    with pytest.raises(ArgumentError, match="weights: expected none with a module"):
        rq.explain_recording(clip, Cheap(), weights="cheap.pth")
    waves = rq.explain_recording(clip, nn.AvgPool1d(100), "time", n_samples=4, front_end="waveform:seconds=1")
    assert waves.importance.shape == (4 * RATE, 1)
    assert waves.sounds().kept.shape == (4 * RATE,)
