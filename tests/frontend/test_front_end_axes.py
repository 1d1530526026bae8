"""Front ends of one's own on the command line: their seconds, Hz and
silence are what they say, or what can be measured, never a count.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ShapeError
from relax_quantus.frontend.axes import BinAxis
from relax_quantus.frontend.front_end import FrontEnd, of_object
from relax_quantus.frontend.log_mel import LogMelAxis, mel_centres_hz

RATE = 16_000
Write = Callable[..., Path]


class Spectrogram(nn.Module):
    """With the attributes of torchaudio's."""

    def __init__(
        self, n_fft: int = 400, win_length: int | None = None, hop_length: int = 160, pad: int = 0, center: bool = True
    ) -> None:
        super().__init__()
        self.n_fft, self.win_length, self.hop_length = n_fft, win_length or n_fft, hop_length
        self.pad, self.center, self.power, self.onesided = pad, center, 1.0, True

    def forward(self, wave: Tensor) -> Tensor:
        padded = nn.functional.pad(wave, (self.pad, self.pad))
        window = torch.hann_window(self.win_length)
        return torch.stft(
            padded, self.n_fft, self.hop_length, self.win_length, window, center=self.center, return_complex=True
        ).abs()


class MelScale(nn.Module):
    """With the attributes of torchaudio's."""

    def __init__(self, n_mels: int, sample_rate: int, n_stft: int) -> None:
        super().__init__()
        self.n_mels, self.sample_rate, self.f_min, self.f_max, self.mel_scale = n_mels, sample_rate, 0.0, 8000.0, "htk"
        centres = np.array(mel_centres_hz(0.0, 8000.0, n_mels))
        knots = np.concatenate([[0.0], centres, [8000.0]])
        hz = np.linspace(0, sample_rate / 2, n_stft)
        weights = np.stack([np.interp(hz, knots, row) for row in np.eye(n_mels, n_mels + 2, 1)], axis=1)
        self.register_buffer("fb", torch.from_numpy(weights).float())

    def forward(self, x: Tensor) -> Tensor:
        return (x.transpose(1, 2) @ self.fb).transpose(1, 2)


class MelSpectrogram(nn.Module):
    """With the attributes of torchaudio's, which says itself
    neither whether it is centred nor how it is padded ...
    """

    def __init__(self, n_mels: int = 40, **settings: Any) -> None:
        super().__init__()
        self.spectrogram = Spectrogram(**settings)
        self.sample_rate, self.n_fft, self.hop_length = RATE, self.spectrogram.n_fft, self.spectrogram.hop_length
        self.mel_scale = MelScale(n_mels, RATE, self.n_fft // 2 + 1)

    def forward(self, wave: Tensor) -> Tensor:
        return self.mel_scale(self.spectrogram(wave))


class AmplitudeToDB(nn.Module):
    """With the attributes of torchaudio's."""

    def __init__(self, top_db: float | None) -> None:
        super().__init__()
        self.top_db = top_db

    def forward(self, x: Tensor) -> Tensor:
        decibels = 20 * x.clamp(min=1e-5).log10()
        return decibels if self.top_db is None else decibels.clamp(min=float(decibels.max()) - self.top_db)


class Pooled(nn.Module):
    """Every other frame of what comes in, on average."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool1d(x, 2)


class Unknown(nn.Module):
    """Says nothing."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.run = inner.forward

    def forward(self, wave: Tensor) -> Tensor:
        return self.run(wave)


def front_end(transform: nn.Module, frames: int = 30) -> FrontEnd:
    return of_object("mine", rq.TransformFrontEnd(transform, log_offset=0.01, frames=frames))


def moment(made: FrontEnd, at_s: float, seconds: float = 60.0) -> float:
    """Where the axis has a short tone of 2 kHz that lies at `at_s`."""
    time_s = np.arange(round(seconds * made.rate_hz)) / made.rate_hz
    wave = 1e-4 * np.random.default_rng(0).standard_normal(time_s.size)
    on = np.abs(time_s - at_s) < 0.05
    wave[on] += 0.5 * np.sin(2 * np.pi * 2000 * time_s[on])
    x = made.make(wave.astype(np.float32))
    energy = x.double().exp().sum(-1).reshape(-1).numpy()
    weight = np.clip(energy - np.median(energy), 0, None) ** 2
    return float((weight * made.axis.times_s(energy.size)).sum() / weight.sum())


TRANSFORMS: dict[str, Callable[[], nn.Module]] = {
    "centred": Spectrogram,
    "uncentred": lambda: Spectrogram(2048, hop_length=500, center=False),
    "short window": lambda: Spectrogram(1024, win_length=256, hop_length=128, center=False),
    "padded": lambda: Spectrogram(512, hop_length=160, pad=1600),
    "mel": lambda: MelSpectrogram(n_fft=512, hop_length=200),
    "mel, uncentred and padded": lambda: MelSpectrogram(n_fft=1024, hop_length=200, center=False, pad=300),
    "pooled": lambda: nn.Sequential(Spectrogram(), Pooled()),
}


@pytest.mark.parametrize("says", [True, False], ids=["says", "says nothing"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_tone_is_where_it_is(name: str, says: bool) -> None:
    transform = TRANSFORMS[name]()
    made = front_end(transform if says else Unknown(transform))
    assert made.axis.in_seconds
    for at_s in (3.0, 50.0):
        assert moment(made, at_s) == pytest.approx(at_s, abs=0.006)


def test_bands_are_those_that_its_parts_say() -> None:
    np.testing.assert_allclose(
        front_end(MelSpectrogram(40)).axis.centres_hz,
        mel_centres_hz(0, 8000, 40),  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(
        front_end(nn.Sequential(Spectrogram(), Pooled())).axis.centres_hz,
        np.linspace(0, 8000, 201),  # type: ignore[arg-type]
    )
    for transform in (Unknown(Spectrogram()), nn.Sequential(Spectrogram(), Flipped())):
        axis = front_end(transform).axis
        assert (axis.centres_hz, axis.label) == (None, "band")


class Flipped(nn.Module):
    """Has as many bands as its spectrogram, in another order."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


class Own(nn.Module):
    """A front end that hands VGGish's own examples through."""

    def __init__(self, config: rq.LogMelConfig) -> None:
        super().__init__()
        self.inner = rq.LogMel(config)

    def forward(self, wave: Tensor) -> Tensor:
        return self.inner(wave) * 2.0


@pytest.mark.parametrize("frames", [96, 300, 77])
def test_own_examples_of_any_length_are_in_seconds_and_hz(frames: int) -> None:
    config = rq.LogMelConfig(frames=frames, mel_bands=80, window_s=0.032)
    for found in (rq.LogMel(config), Own(config)):
        made = of_object("mine", found)
        assert moment(made, 50.0) == pytest.approx(50.0, abs=0.006)
        np.testing.assert_allclose(made.axis.centres_hz, config.band_centres_hz)  # type: ignore[arg-type]
    assert of_object("mine", rq.LogMel(config)).axis == LogMelAxis(config)


class Said:
    """A callable that says what it is."""

    sample_rate_hz = RATE

    def __init__(self, **said: Any) -> None:
        self.__dict__.update(said)

    def __call__(self, wave: Tensor) -> Tensor:
        x = (Spectrogram(320)(wave[None])[0].T + 1e-3).log()
        return x[: len(x) // 50 * 50].reshape(-1, 1, 50, 161)


def test_what_it_says_itself_counts() -> None:
    hz = np.linspace(0, 8000, 161)
    axis = of_object("mine", Said(hop_s=0.5, first_s=-0.25, window_s=2.0, frequencies_hz=hz)).axis
    np.testing.assert_allclose(axis.times_s(3), [-0.25, 0.25, 0.75])
    np.testing.assert_allclose(axis.centres_hz, hz)  # type: ignore[arg-type]
    assert (axis.window_s, axis.label, axis.heading) == (2.0, "frequency (Hz)", "Said")
    measured = of_object("mine", Said(frequencies_hz=torch.from_numpy(hz)))
    assert moment(measured, 50.0) == pytest.approx(50.0, abs=0.006)
    assert of_object("mine", Said(hop_s=0.01)).axis.first_s == 0.0


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"frequencies_hz": [1.0, 2.0]}, ShapeError, r"frequencies_hz: expected one frequency a band, shape \(161,\)"),
        ({"frequencies_hz": np.linspace(8000, 0, 161)}, ArgumentError, "rising frequencies"),
        ({"hop_s": -1.0}, ArgumentError, "hop_s"),
        ({"first_s": "soon"}, ArgumentError, "first_s: expected the middle"),
    ],
)
def test_what_it_cannot_be_is_refused(said: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        of_object("mine", Said(**said))


def test_frames_that_nobody_knows_are_counted_aloud() -> None:
    noise = torch.rand(2, 1, 40, 8, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="when its frames are could not be found out"):
        axis = of_object("mine", lambda wave: noise).axis
    assert isinstance(axis, BinAxis)
    assert (axis.in_seconds, axis.time_label, axis.label) == (False, "frame", "band")
    np.testing.assert_array_equal(axis.times_s(3), [0, 1, 2])


# ------------------------------------------------------------------------------------------ silence


def test_silence_is_what_a_muted_part_of_this_recording_becomes(write_wav: Write) -> None:
    """With top_db it lies so far below the loudest moment, wherever digital silence alone lies."""
    noise = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    made = of_object("mine", rq.TransformFrontEnd(nn.Sequential(Spectrogram(), AmplitudeToDB(40.0)), frames=30))
    for level in (0.5, 0.001):
        wave = (level * noise).astype(np.float32)
        muted = wave.copy()
        muted[8000:24_000] = 0
        expected = made.make(muted).flatten(0, 2)[100]
        reading = made.read(write_wav(wave))
        torch.testing.assert_close(torch.as_tensor(reading.silence).flatten(), expected, rtol=0, atol=1.5)
        assert float(reading.silence.max()) < float(reading.examples.quantile(0.05))  # type: ignore[union-attr]


def test_silence_beside_a_sound_in_python() -> None:
    front = rq.TransformFrontEnd(nn.Sequential(Spectrogram(), AmplitudeToDB(60.0)))
    wave = torch.from_numpy(0.1 * np.random.default_rng(0).standard_normal(8000)).float()
    x = front(wave)
    torch.testing.assert_close(front.silence(beside=wave), torch.full((1, 1, 1, 201), float(x.max()) - 60.0))
    assert float(front.silence().max()) == -100.0
    with pytest.raises(ShapeError, match=r"beside: expected shape \(samples,\)"):
        front.silence(beside=wave[None])


def test_silence_of_a_callable_follows_the_recording_too(write_wav: Write) -> None:
    def normalised(wave: Tensor) -> Tensor:
        x = (Spectrogram(320)(wave[None])[0].T + 1e-3).log()
        x = (x - x.mean()) / x.std()
        return x[: len(x) // 50 * 50].reshape(-1, 1, 50, 161)

    made = of_object("mine", normalised)
    wave = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    silence = made.read(write_wav(wave)).silence
    assert isinstance(silence, Tensor)
    muted = wave.copy()
    muted[RATE : 2 * RATE] = 0
    expected = made.make(muted)[3, 0, 0].mean()
    assert float(silence.mean()) == pytest.approx(float(expected), abs=0.4)


def test_a_loud_silence_is_warned_of() -> None:
    relax = rq.RELAX(lambda x: x.flatten(1), masks="time")
    decibels = -60 + 5 * torch.randn(2, 1, 20, 8, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="baselines: expected silence at the bottom of the input"):
        relax.explain(decibels, "silence", n_samples=4)
    with pytest.warns(UserWarning, match="silence at the bottom"):
        rq.explain_func(nn.Flatten(), decibels, n_samples=4)


@pytest.mark.filterwarnings("error")
def test_a_quiet_silence_is_not() -> None:
    relax = rq.RELAX(lambda x: x.flatten(1), masks="time")
    x = rq.LogMel()(torch.zeros(RATE)) + 0.0
    x[..., 40:, :] = 1.0
    relax.explain(x, "silence", n_samples=50)
    relax.explain(x - 60, -80.0, n_samples=50)
