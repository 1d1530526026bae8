"""Laws of the synthetic soundscapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relax_quantus.benchmark.data.degradations import DECOYS, decoy, low_pass, reverberate
from relax_quantus.benchmark.data.soundscapes import CALL_FREE, SAMPLES, Nuisance, class_of, soundscape, soundscapes
from relax_quantus.benchmark.data.synthetic_calls import CALLS, CLASS_NAMES, SAMPLE_RATE_HZ, Band
from relax_quantus.errors import ArgumentError
from relax_quantus.frontend.log_mel import LogMel


@pytest.fixture(scope="module")
def scapes():
    return soundscapes(36, seed=5, call_free_every=6)


def test_a_clip_does_not_depend_on_how_many_are_made(scapes):
    alone = soundscape(5, 7, class_of(7, 6))
    np.testing.assert_array_equal(alone.wave, scapes[7].wave)
    np.testing.assert_array_equal(alone.truth, scapes[7].truth)
    assert not np.array_equal(alone.wave, soundscape(6, 7, alone.label).wave)


def test_everything_but_the_call_is_drawn_without_looking_at_the_class():
    for index in range(5):
        nuisances = {label: soundscape(3, index, label).nuisance for label in range(-1, len(CLASS_NAMES))}
        assert len(set(nuisances.values())) == 1


def test_nuisance_ranges_are_those_of_any_class():
    draws = [Nuisance.draw(np.random.default_rng([1, i, 0])) for i in range(200)]
    assert {draw.decoy for draw in draws} == set(DECOYS)
    assert all(draw.decoy_db > 0 for draw in draws), "decoys are louder than the call"
    assert all(draw.onset_s + draw.duration_s <= SAMPLES / SAMPLE_RATE_HZ for draw in draws)
    assert np.ptp([draw.band.centre_hz for draw in draws]) > 1_000
    assert np.ptp([draw.level_db for draw in draws]) > 12


def test_stem_and_rest_add_up_to_the_wave(scapes):
    for scape in scapes:
        np.testing.assert_array_equal(scape.stem + scape.rest, scape.wave)
        assert scape.wave.shape == (SAMPLES,)
        assert np.isfinite(scape.wave).all()
        assert 1e-3 < np.abs(scape.wave).max() <= 1.0


def test_truth_is_where_the_stem_dominates(scapes):
    front_end = LogMel()
    for scape in scapes:
        stem, rest = (front_end(part)[0, 0].exp() - 0.01 for part in (scape.stem, scape.rest))
        expected = (stem > rest) & (stem > 0.01)
        agreement = (torch.from_numpy(scape.truth) == expected).float().mean()
        assert agreement > 0.999


def test_every_call_has_a_truth_and_a_call_free_clip_has_none(scapes):
    for scape in scapes:
        share = scape.truth.mean()
        if scape.label_name == CALL_FREE:
            assert share == 0
            assert not scape.stem.any()
        else:
            assert 0.01 < share < 0.6, scape.source_group


def test_classes_take_turns_around_call_free_clips():
    assert [class_of(i, 6) for i in range(12)] == [0, 1, 2, 0, 1, -1, 2, 0, 1, 2, 0, -1]
    assert [class_of(i) for i in range(4)] == [0, 1, 2, 0]


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_a_call_of_any_class_fills_the_band_and_the_duration_it_is_given(name):
    band, samples = Band(1_800.0, 1.3), 9_000
    shares, peaks = [], []
    for seed in range(5):
        call = CALLS[name](band, samples, np.random.default_rng(seed))
        assert call.shape == (samples,)
        assert np.sqrt(np.mean(call**2)) == pytest.approx(1.0)
        power = np.abs(np.fft.rfft(call)) ** 2
        hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ)
        shares.append(power[(hz > band.low_hz / 1.5) & (hz < band.high_hz * 1.5)].sum() / power.sum())
        peaks.append(hz[power.argmax()])
        assert np.mean(call[: samples // 2] ** 2) > 0.2
        assert np.mean(call[samples // 2 :] ** 2) > 0.2
    assert np.mean(shares) > 0.8
    assert all(band.low_hz / 1.5 < peak < band.high_hz * 1.5 for peak in peaks)


@pytest.mark.parametrize("kind", DECOYS)
def test_a_decoy_stays_away_from_the_call(kind):
    band, start, stop = Band(1_500.0, 1.2), 4_000, 12_000
    for seed in range(8):
        wave = decoy(kind, band, start, stop, SAMPLES, np.random.default_rng(seed))
        assert wave.any() == (kind != "none")
        during = np.where((np.arange(SAMPLES) >= start) & (np.arange(SAMPLES) < stop), wave, 0.0)
        power = np.abs(np.fft.rfft(during * np.hanning(SAMPLES))) ** 2
        hz = np.fft.rfftfreq(SAMPLES, 1 / SAMPLE_RATE_HZ)
        inside = power[(hz > band.low_hz) & (hz < band.high_hz)].sum()
        assert inside <= 0.05 * max((np.abs(np.fft.rfft(wave)) ** 2).sum(), 1.0), seed


def test_the_chain_is_linear():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4_000))
    for through in (
        lambda w: low_pass(w, 5_000.0),
        lambda w: reverberate(w, 0.2, 0.3, np.random.default_rng(1)),
    ):
        np.testing.assert_allclose(through(a) + through(b), through(a + b), atol=1e-9)


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="seed: expected an integer of at least 0"):
        soundscape(-1, 0, 0)
    with pytest.raises(ArgumentError, match="count"):
        soundscapes(0, 0)
