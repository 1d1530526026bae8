"""Sound from maps: the two parts add up, and each
holds what the gain says, at any rate of the recording.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from relax_quantus.audio.reading import read_audio
from relax_quantus.errors import ArgumentError, MissingDependencyError, ShapeError
from relax_quantus.frontend.axes import BinAxis, SampleAxis
from relax_quantus.frontend.log_mel import LogMelAxis, LogMelConfig
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.sounds import gain, player, separate, write_sound
from relax_quantus.views.thresholds import FRACTION, standing_out

CENTRES_HZ = LogMelConfig().band_centres_hz


def decibels(part: np.ndarray, whole: np.ndarray) -> float:
    """Level of one signal against another."""
    energy, reference = (np.mean(np.square(signal, dtype=np.float64)) for signal in (part, whole))
    return float(10 * np.log10((energy + 1e-30) / reference))


def random_gains(examples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((examples, 1, 96, 64))


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 44_100, 96_000])
def test_parts_add_up_at_any_rate_with_a_partial_last_example(sweep: np.ndarray, rate: int) -> None:
    wave = resample_poly(sweep.astype(np.float64), rate, 16_000).astype(np.float32)  # 2 s: two examples and a bit
    parts = separate(wave, rate, random_gains(2))
    assert decibels(parts.kept + parts.removed - wave, wave) < -100
    assert parts.kept.shape == parts.removed.shape == wave.shape
    assert parts.kept.dtype == parts.removed.dtype == np.float32
    assert -40 < decibels(parts.kept, wave) < -1


def test_parts_of_a_stereo_recording_add_up(animal_sounds: Path) -> None:
    wave, rate = read_audio(animal_sounds / "lion" / "lion_001.flac")
    assert rate != 16_000
    parts = separate(wave, rate, random_gains(4))
    assert decibels(parts.kept + parts.removed - wave, wave) < -100


def test_full_gain_over_all_frequencies_is_the_original(sweep: np.ndarray) -> None:
    everything = BinAxis(every_s=0.01, size=3, bins_hz=(0.0, 4000.0, 8000.0))
    parts = separate(sweep, 16_000, np.ones((1, 1, 210, 3)), everything)
    assert decibels(parts.kept - sweep, sweep) < -100
    assert decibels(separate(sweep, 16_000, np.zeros((1, 1, 210, 3)), everything).removed - sweep, sweep) < -100


def test_full_gain_keeps_what_vggish_hears_only() -> None:
    time_s = np.arange(44_100) / 44_100
    heard, unheard = (np.sin(2 * np.pi * hz * time_s).astype(np.float32) for hz in (1000.0, 12_000.0))
    parts = separate(heard + unheard, 44_100, np.ones((1, 1, 96, 64)))
    inner = slice(2000, 42_000)
    assert decibels((parts.kept - heard)[inner], heard) < -50
    assert decibels((parts.removed - unheard)[inner], unheard) < -50


def test_bands_become_frequencies() -> None:
    rate, time_s = 22_050, np.arange(22_050) / 22_050
    low, high = (np.sin(2 * np.pi * hz * time_s).astype(np.float32) for hz in (500.0, 3000.0))
    gains = np.zeros((1, 1, 96, 64))
    gains[..., CENTRES_HZ < 1500] = 1.0
    parts = separate(low + high, rate, gains)
    inner = slice(rate // 10, rate * 8 // 10)
    assert decibels((parts.kept - low)[inner], low) < -50
    assert decibels((parts.removed - high)[inner], high) < -50


def test_frames_become_times() -> None:
    wave = np.random.default_rng(0).standard_normal(2 * 16_000).astype(np.float32)
    gains = np.zeros((2, 1, 96, 64))
    gains[0, 0, 40:60] = 1.0  # 0.41 to 0.61 s
    energy = np.square(separate(wave, 16_000, gains).kept)
    assert energy[: round(0.36 * 16_000)].max() == 0
    assert energy[round(0.66 * 16_000) :].max() == 0
    inner = slice(round(0.45 * 16_000), round(0.57 * 16_000))
    assert 0.8 < energy[inner].mean() < 1.0  # 125 to 7500 of 8000 Hz: 92 %


def test_what_was_not_explained_is_removed(sweep: np.ndarray) -> None:
    parts = separate(sweep, 16_000, np.ones((1, 1, 96, 64)))
    end = round(1.02 * 16_000)
    np.testing.assert_array_equal(parts.kept[end:], 0)
    np.testing.assert_array_equal(parts.removed[end:], sweep[end:])
    later = separate(sweep, 16_000, np.ones((1, 1, 96, 64)), LogMelAxis(start_s=0.96))
    assert not later.kept[: round(0.9 * 16_000)].any()


def test_no_musical_noise_from_a_gain_that_switches_everywhere() -> None:
    """A random on/off gain is the worst case. Musical noise is energy
    in few isolated bins: a spectrum far from noise's own distribution.
    """
    from scipy.signal import stft

    wave = np.random.default_rng(1).standard_normal(32_000).astype(np.float32)
    switched = (random_gains(2) > 0.5).astype(float)
    kept = separate(wave, 16_000, switched).kept
    power = np.abs(stft(kept, nperseg=512)[2][5:230, 5:115]) ** 2
    white = np.abs(stft(wave, nperseg=512)[2][5:230, 5:115]) ** 2
    peakiness = (np.quantile(p, 0.999) / np.mean(p) for p in (power, white))
    assert next(peakiness) < 2.0 * next(peakiness)


def test_gains_of_waveforms(sweep: np.ndarray) -> None:
    gains = np.zeros((2, 16_000))
    gains[0, 4000:12_000] = 1.0
    parts = separate(sweep, 16_000, gains, SampleAxis(rate_hz=16_000))
    assert decibels((parts.kept - sweep)[5000:11_000], sweep) < -100
    assert not parts.kept[13_000:].any()
    assert decibels(parts.kept + parts.removed - sweep, sweep) < -100


def test_short_and_silent_recordings() -> None:
    for samples in (1, 7, 200, 513):
        parts = separate(np.ones(samples, np.float32), 16_000, np.ones((1, 1, 96, 64)))
        np.testing.assert_allclose(parts.kept + parts.removed, 1, atol=1e-6)
    assert not separate(np.zeros(16_000, np.float32), 16_000, random_gains(1)).kept.any()


def test_blocks_do_not_show(sweep: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = separate(sweep, 16_000, random_gains(2)).kept
    monkeypatch.setattr("relax_quantus.views.sounds.BLOCK", 7)
    np.testing.assert_allclose(separate(sweep, 16_000, random_gains(2)).kept, whole, atol=1e-6)


def test_gain_rises_with_the_map() -> None:
    values = torch.randn(2, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    before = values.clone()
    soft, hard = gain(values, softness=0.5), gain(values, softness=0.0)
    order = np.argsort(values.numpy(), axis=None)
    assert (np.diff(soft.ravel()[order]) >= 0).all()
    assert 0 <= soft.min() < 0.05
    assert soft.max() <= 1
    assert set(np.unique(hard)) == {0.0, 1.0}
    assert hard.mean() == pytest.approx(float((values > FRACTION * values.max()).double().mean()))
    assert gain(values, threshold=float(values.median()), softness=0).mean() == pytest.approx(0.5, abs=1e-3)
    torch.testing.assert_close(values, before)


@pytest.mark.parametrize("softness", [0.1, 0.25, 2.0])
def test_gain_is_the_logistic_of_the_distance_in_standard_deviations(softness: float) -> None:
    values = np.random.default_rng(0).normal(3.0, 7.0, (1, 1, 20, 10))
    expected = 1 / (1 + np.exp(-(values - 4.0) / (softness * values.std())))
    np.testing.assert_allclose(gain(values, threshold=4.0, softness=softness), expected, atol=1e-12)


def test_gain_of_an_explanation_keeps_nothing_that_chance_draws(hears_a_corner: Explanation) -> None:
    e = hears_a_corner
    found, standing = gain(e), standing_out(e)
    assert (found[standing.bins] > 0.5).all()
    assert not found[~standing.among].any()
    nothing = dataclasses.replace(e, fully_masked_similarity=e.mean_similarity)
    assert not gain(nothing).any()
    assert not gain(dataclasses.replace(e, null_maxima=None)).any()
    assert gain(e, softness=0).tolist() == standing.bins.tolist()


def test_gain_of_maps_without_anything_that_stands_out() -> None:
    assert not gain(np.full((1, 1, 4, 4), 0.3)).any()
    assert not gain(np.full((1, 1, 4, 4), np.nan)).any()
    known = np.arange(8.0)
    known[5] = np.nan
    assert gain(known)[5] == 0
    assert gain(known)[7] > 0.5


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((np.zeros((10, 2), np.float32), 16_000, np.ones((1, 1, 96, 64))), "wave: expected shape"),
        ((np.zeros(0, np.float32), 16_000, np.ones((1, 1, 96, 64))), "wave: expected shape"),
        ((np.zeros(10, np.float32), 16_000, np.ones((96, 64))), "gains: expected shape"),
        ((np.zeros(10, np.float32), 16_000, np.ones((1, 1, 96, 32))), r"gains: expected shape \(n, 1, T, 64\)"),
    ],
)
def test_shapes_that_do_not_fit(arguments: tuple[np.ndarray, int, np.ndarray], match: str) -> None:
    with pytest.raises(ShapeError, match=match):
        separate(*arguments)


def test_values_that_cannot_be() -> None:
    wave = np.zeros(100, np.float32)
    with pytest.raises(ArgumentError, match="gains: expected numbers from 0 to 1"):
        separate(wave, 16_000, np.full((1, 1, 96, 64), np.nan))
    with pytest.raises(ArgumentError, match="axis: expected bands that are frequencies"):
        separate(wave, 16_000, np.ones((1, 1, 10, 13)), BinAxis(size=13, label="coefficient"))
    with pytest.raises(ArgumentError, match="softness"):
        gain(np.zeros(3), softness=-1.0)


@pytest.mark.parametrize("name", ["kept.wav", "kept.flac"])
def test_written_parts_add_up(sweep: np.ndarray, tmp_path: Path, name: str) -> None:
    parts = separate(0.01 * sweep, 16_000, random_gains(2))  # a quiet recording
    read = [
        soundfile.read(write_sound(tmp_path / f"{i}{name}", p, 16_000))
        for i, p in enumerate((parts.kept, parts.removed))
    ]
    assert [rate for _, rate in read] == [16_000, 16_000]
    assert decibels(read[0][0] + read[1][0] - 0.01 * sweep, 0.01 * sweep) < -60


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"path: expected a name that ends in .wav or .flac"):
        write_sound(tmp_path / "kept.mp3", np.zeros(10), 16_000)


def test_player_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    display = types.ModuleType("IPython.display")
    display.Audio = lambda data, rate, normalize: (data, rate, normalize)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    data, rate, normalize = player(np.array([0.1, 2.0], np.float32), 8000)
    assert (rate, normalize, data.max()) == (8000, False, 1.0)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(MissingDependencyError, match="IPython"):
        player(np.zeros(3), 8000)
