"""Planted recordings: levels, times, bands and truth against independent computation."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.planted import (
    HOST_RMS,
    background,
    band_around,
    band_limited,
    loudest_stretch,
    mix,
    planted,
)
from relax_quantus.benchmark.data.soundscapes import SAMPLES, dominates
from relax_quantus.benchmark.engine.prepared import Prepared, prepare
from relax_quantus.benchmark.methods.questions import NotApplicable
from relax_quantus.errors import ArgumentError, ArgumentTypeError, DataError
from relax_quantus.frontend.log_mel import LogMelConfig

RATE = 16_000


def chirps(seed: int, low: float, high: float, seconds: float = 1.6) -> np.ndarray:
    """A sound in a band, pulsed, over faint noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    sweep = np.sin(2 * np.pi * (low * t + (high - low) * t**2 / (2 * seconds)) + rng.uniform(0, 6))
    return 0.3 * sweep * (np.sin(2 * np.pi * 3 * t) > 0) + 0.003 * rng.standard_normal(t.size)


@pytest.fixture
def zoo(tmp_path):
    for number, (name, low, high) in enumerate((("cat", 400, 900), ("dog", 1500, 2500), ("frog", 3500, 5000))):
        (tmp_path / name).mkdir()
        for k in range(6):
            soundfile.write(tmp_path / name / f"{k}.wav", chirps(10 * number + k, low, high), RATE)
    return tmp_path


def spectrogram(wave: np.ndarray) -> np.ndarray:
    """Magnitudes ``(96, 257)`` of the frames that an example has, by plain numpy."""
    frames = np.stack([wave[160 * i : 160 * i + 400] for i in range(96)]) * (
        0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    )
    return np.abs(np.fft.rfft(frames, 512))


@pytest.mark.parametrize("octaves", [0.0, 1.5])
@pytest.mark.parametrize("snr_db", [-6.0, 6.0])
def test_the_call_is_planted_at_the_stated_level_time_and_band(octaves, snr_db):
    call, host = chirps(0, 1500, 2500), np.random.default_rng(1).standard_normal(3 * RATE)
    mixed = mix(call, host, np.random.default_rng(2), snr_db, octaves)
    start, stop = round(mixed.start_s * RATE), round(mixed.stop_s * RATE)
    assert 0.3 <= mixed.stop_s - mixed.start_s <= 0.6
    assert not mixed.stem[:start].any()
    assert not mixed.stem[stop:].any()
    rest = mixed.rest.astype(np.float64)
    if octaves:
        rest = band_limited(rest, mixed.low_hz, mixed.high_hz)
    found = 10 * np.log10(np.mean(mixed.stem[start:stop].astype(float) ** 2) / np.mean(rest[start:stop] ** 2))
    assert found == pytest.approx(snr_db, abs=0.05)
    power = np.abs(np.fft.rfft(mixed.stem)) ** 2
    hz = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    inside = (hz >= mixed.low_hz) & (hz <= mixed.high_hz)
    assert power[inside].sum() / power.sum() > 0.98
    if octaves:
        assert mixed.high_hz / mixed.low_hz == pytest.approx(2**octaves)
        assert mixed.low_hz < 2000 < mixed.high_hz
    assert np.abs(mixed.stem + mixed.rest).max() <= 0.9 + 1e-6


def test_the_truth_is_where_the_stem_has_more_energy_computed_without_the_front_end():
    config = LogMelConfig()
    mixed = mix(
        chirps(0, 1500, 2500), np.random.default_rng(1).standard_normal(RATE), np.random.default_rng(2), 6.0, 1.5
    )
    truth = dominates(mixed.stem, mixed.rest)
    stem, rest = spectrogram(mixed.stem), spectrogram(mixed.rest)
    edges, hz = config.band_edges_hz, np.fft.rfftfreq(512, 1 / RATE)
    agree, told = 0, 0
    for band in range(8, 64):
        bins = (hz > edges[band]) & (hz < edges[band + 2])
        call, other = stem[:, bins].mean(1), rest[:, bins].mean(1)
        clear = (call > 2 * other) & (call > 0.1) | (call < 0.5 * other)
        told += clear.sum()
        agree += (truth[clear, band] == (call > other)[clear]).sum()
    assert told > 2000
    assert agree / told > 0.99
    frames = np.flatnonzero(truth.any(1)) * 0.01
    assert frames.min() >= mixed.start_s - 0.025
    assert frames.max() <= mixed.stop_s
    middles = config.band_centres_hz[np.flatnonzero(truth.any(0))]
    assert middles.min() > mixed.low_hz / 1.25
    assert middles.max() < mixed.high_hz * 1.25


def test_a_quieter_call_has_less_truth_at_the_same_time(zoo):
    loud, quiet = (planted(zoo, 3, 0, 30, snr_db=db) for db in (10, -10))
    assert [clip.name for clip in loud.clips] == [clip.name for clip in quiet.clips]
    for one, two in zip(loud.clips, quiet.clips, strict=True):
        assert one.truth.sum() > two.truth.sum()
        assert not (two.truth & ~one.truth).mean() > 0.01


def test_calls_and_hosts_are_of_other_classes_and_sources_and_the_head_has_heard_neither(zoo):
    data = planted(zoo, 6, 3, 30, snr_db=0)
    assert len(data.clips) == 6
    assert len({clip.name for clip in data.clips}) == 6
    for clip in data.clips:
        call, host = clip.name.split(" in ")
        assert call.split("/")[0] != host.split("/")[0]
        assert clip.label_name == call.split("/")[0] == data.class_names[clip.label]
        assert clip.source_group == call
        assert not {call, host} & set(data.training.clips)
        assert clip.stem.shape == clip.x.shape == (1, 96, 64)
    assert data.name.endswith(",snr_db=0")
    assert not data.needs_good_head
    assert {c.name for c in planted(zoo, 6, 4, 30).clips} != {c.name for c in data.clips}


def test_mixtures_are_the_sum_of_stem_and_host(zoo):
    data = planted(zoo, 3, 0, 30, snr_db=20)
    for clip in data.clips:
        loud = torch.from_numpy(clip.truth)
        assert (clip.x - clip.stem)[0][loud].abs().median() < 0.2
        assert (clip.x - clip.rest)[0][~loud].abs().median() < 0.2


def test_a_background_has_the_spectrum_of_the_quiet_part_and_no_call():
    rng = np.random.default_rng(0)
    wave = band_limited(rng.standard_normal(2 * RATE), 500, 1500) * 0.01
    wave[RATE:][:8000] += np.sin(2 * np.pi * 4000 * np.arange(8000) / RATE)
    made = background(wave, rng)
    power, hz = np.abs(np.fft.rfft(made)) ** 2, np.fft.rfftfreq(SAMPLES, 1 / RATE)
    assert power[(hz > 400) & (hz < 1650)].sum() / power.sum() > 0.95
    halves = np.mean(made[: SAMPLES // 2] ** 2) / np.mean(made[SAMPLES // 2 :] ** 2)
    assert 0.8 < halves < 1.25
    assert not background(np.zeros(5000), rng).any()


def test_odd_material_is_mixed_or_refused():
    rng = np.random.default_rng(0)
    tiny, silent, host = rng.standard_normal(300), np.zeros(RATE), rng.standard_normal(2000)
    assert mix(silent, host, rng, 0.0) is None
    assert mix(tiny, silent, rng, 0.0) is None
    assert mix(tiny, np.zeros(0), rng, 0.0) is None
    mixed = mix(tiny, host, rng, 0.0)
    assert np.isfinite(mixed.stem).all()
    assert np.sqrt(np.mean(mixed.rest.astype(float) ** 2)) == pytest.approx(HOST_RMS, rel=1e-3)
    assert loudest_stretch(np.arange(5.0), 2).tolist() == [3, 4]
    assert loudest_stretch(np.array([1.0, 2]), 5).tolist() == [1, 2, 2, 1, 1]
    low, high = band_around(np.sin(2 * np.pi * 7000 * np.arange(RATE) / RATE), 2.0)
    assert high <= 8000
    assert low > 20


class HearsTheQuietOnly(nn.Module):
    """The encoder on each band's tenth percentile over time, which a short
    call leaves as it was: deaf to calls, and not to what surrounds them.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x.quantile(0.1, dim=-2, keepdim=True).expand_as(x))


def counted(prepared: Prepared) -> list[str]:
    """The clips to which the encoder is said to respond."""
    found = []
    for clip in prepared.dataset.clips:
        with contextlib.suppress(NotApplicable):
            found.append(prepared.ask("stem", clip).kind)
    return found


def test_mixtures_count_where_the_call_moves_the_embedding_and_only_there(zoo):
    data = planted(zoo, 9, 0, 30, snr_db=6)
    prepared = prepare(BenchmarkConfig(n_samples=8), "vggish_mini", data, perturbations_per_eval=8)
    asked = prepared.ask("stem", data.clips[0])
    assert asked.kind == "stem"
    assert asked.target == data.clips[0].label
    torch.testing.assert_close(asked.reference, prepared.encoder(data.clips[0].stem[None])[0])
    assert len(counted(prepared)) >= 8
    deaf = replace(prepared, encoder=HearsTheQuietOnly(prepared.encoder))
    assert not counted(deaf), "its similarities to the stem differ between hosts, half of them lie above the median"
    with pytest.raises(
        NotApplicable, match=r"does not respond to the call: similarity to it 0\.\d+, 0\.\d+ without it"
    ):
        deaf.ask("stem", data.clips[0])
    unknown = replace(data, clips=tuple(replace(clip, rest=None) for clip in data.clips))
    assert len(counted(replace(deaf, dataset=unknown))) == len(data.clips), "nothing to compare with"


def test_what_cannot_be_planted_is_refused(zoo, tmp_path):
    with pytest.raises(ArgumentError, match="into: expected 'recording' or 'background'"):
        planted(zoo, into="noise")
    with pytest.raises(ArgumentTypeError, match="snr_db: expected a number"):
        planted(zoo, snr_db="loud")
    with pytest.raises(ArgumentError, match="octaves: expected a width of 0 or more"):
        planted(zoo, octaves=-1)
    lines = ["file,label,source_group"] + [f"{n}/{k}.wav,{n},one" for n in ("cat", "dog") for k in range(6)]
    (zoo / "clips.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="different classes and sources"):
        planted(zoo, 4)


def test_real_recordings(animal_sounds):
    data = planted(animal_sounds, 4, 1, 20, snr_db=3, octaves=2, into="background")
    assert len(data.clips) == 4
    shares = [clip.truth.mean() for clip in data.clips]
    assert all(0.002 < share < 0.5 for share in shares), shares
    for clip in data.clips:
        inside = torch.from_numpy(clip.truth)
        assert clip.x[0][inside].mean() > clip.x[0][~inside].mean()
