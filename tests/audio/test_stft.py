"""The overlap-add gives every waveform back, adds up, and filters by blocks as it does at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from relax_quantus.audio.stft import BLOCK, OVERLAP, Stft
from relax_quantus.errors import ArgumentTypeError, ShapeError
from relax_quantus.frontend.axes import SampleAxis
from relax_quantus.views import sounds


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def decibels(error: torch.Tensor, of: torch.Tensor) -> float:
    return 10 * math.log10(float(error.double().square().mean() / of.double().square().mean()) + 1e-300)


@pytest.mark.parametrize(("rate_hz", "seconds"), [(250, 20), (16_000, 0.96), (48_000, 3), (256_000, 0.003)])
@pytest.mark.parametrize("odd", [0, 1, 37])
@pytest.mark.parametrize("window_s_of_example", [1 / 128, 1 / 10])
def test_unchanged_spectra_give_the_waveform_back(
    rate_hz: int, seconds: float, odd: int, window_s_of_example: float
) -> None:
    """Float32 to -100 dB, overall and over the first and last samples,
    where other designs have fewer windows.
    """
    samples = round(rate_hz * seconds) + odd
    stft = Stft.of_window(seconds * window_s_of_example, rate_hz)
    wave = noise(2, samples)
    back = stft.inverse(stft.forward(wave), samples)
    assert decibels(back - wave, wave) < -120
    for end in (slice(0, 16), slice(samples - 16, samples)):
        assert decibels((back - wave)[:, end], wave[:, end]) < -100


@pytest.mark.parametrize("samples", [1, 2, 3, 63, 64, 65, 1000])
@pytest.mark.parametrize("hop", [1, 5, 16])
def test_every_length_down_to_one_sample(samples: int, hop: int) -> None:
    wave = noise(3, samples, dtype=torch.float64)
    stft = Stft(hop)
    spectrum = stft.forward(wave)
    assert spectrum.shape == (3, stft.frames(samples), stft.bins)
    torch.testing.assert_close(stft.inverse(spectrum, samples), wave, rtol=0, atol=1e-13)


def test_a_gain_and_its_complement_add_up() -> None:
    wave, stft = noise(1000, dtype=torch.float64), Stft(16)
    gains = torch.rand(stft.frames(1000), stft.bins, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kept, removed = (stft.inverse(stft.forward(wave) * g, 1000) for g in (gains, 1 - gains))
    torch.testing.assert_close(kept + removed, wave, rtol=0, atol=1e-13)


def test_windows_lie_where_they_say() -> None:
    """A click is in the four windows whose middles are within half a window, and in no other."""
    stft, wave = Stft(16), torch.zeros(1000)
    wave[500] = 1.0
    heard = stft.forward(wave).abs().amax(1) > 0
    assert (heard == ((stft.middles(1000) - 500).abs() < stft.window_samples // 2)).all()
    assert int(heard.sum()) == OVERLAP


def test_frequencies_are_where_a_tone_is_loudest() -> None:
    rate = 256_000
    stft, time_s = Stft(64), torch.arange(2560, dtype=torch.float64) / rate
    level = stft.forward(torch.sin(2 * torch.pi * 40_000 * time_s)).abs().mean(0)
    assert float(stft.frequencies_hz(rate)[level.argmax()]) == 40_000


def test_a_batch_is_its_rows() -> None:
    wave, stft = noise(2, 3, 500), Stft(8)
    assert torch.equal(stft.forward(wave)[1, 2], stft.forward(wave[1, 2]))


@pytest.mark.parametrize("samples", [100, 8 * BLOCK, 8 * (2 * BLOCK + 100) + 3])
def test_filtering_block_by_block_is_filtering_at_once(samples: int) -> None:
    stft, wave = Stft(8), noise(2, samples, dtype=torch.float64)
    gains = torch.rand(stft.frames(samples), stft.bins, dtype=torch.float64)
    expected = stft.inverse(stft.forward(wave) * gains, samples)
    torch.testing.assert_close(stft.filtered(wave, lambda some: gains[some]), expected, rtol=0, atol=1e-13)


def test_it_is_the_overlap_add_of_the_listening_output() -> None:
    """With the same windows and gains over time, `sounds.separate` and this give the same parts."""
    rate, samples = 16_000, 5001
    wave = noise(samples, dtype=torch.float64)
    stft = Stft.of_window(sounds.WINDOW_S, rate)
    gains = torch.linspace(0, 1, samples, dtype=torch.float64)[None]
    parts = sounds.separate(wave.numpy(), rate, gains, SampleAxis(rate_hz=rate))
    at = stft.middles(samples).clamp(0, samples).double().clamp(max=samples - 1)
    at_middles = torch.from_numpy(np.interp(at.numpy(), np.arange(samples), gains[0].numpy()))
    at_middles[stft.middles(samples) >= samples] *= 0.0  # beyond the last sample it keeps nothing
    kept = stft.filtered(wave, lambda some: at_middles[some, None])
    torch.testing.assert_close(kept.float(), torch.from_numpy(parts.kept), rtol=0, atol=1e-6)


def test_gradients_flow_both_ways() -> None:
    stft = Stft(2)
    wave = noise(2, 11, dtype=torch.float64).requires_grad_()
    gains = torch.rand(stft.frames(11), stft.bins, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, g: stft.inverse(stft.forward(w) * g, 11), (wave, gains))
    assert torch.autograd.gradcheck(lambda w, g: stft.filtered(w, lambda some: g[some]), (wave, gains))


def test_what_does_not_fit_is_refused() -> None:
    stft = Stft(4)
    with pytest.raises(ShapeError, match=r"wave: expected shape \(..., N\) with at least one sample"):
        stft.forward(torch.zeros(2, 0))
    with pytest.raises(ArgumentTypeError, match="wave: expected samples in float32 or float64"):
        stft.forward(torch.zeros(2, 9, dtype=torch.int16))
    with pytest.raises(ShapeError, match=r"spectrum: expected shape \(..., 7, 9\)"):
        stft.inverse(stft.forward(torch.zeros(9)), 13)
