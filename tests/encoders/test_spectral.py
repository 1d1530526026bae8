"""Masks as gains on a waveform's spectrum: what they keep, what takes the place of the rest,
and what RELAX makes of them.
"""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.encoders.contract import as_network
from relax_quantus.encoders.heard import amplitude
from relax_quantus.encoders.spectral import SpectrogramMasking
from relax_quantus.errors import ArgumentError, ArgumentTypeError, EncoderError, ShapeError
from relax_quantus.frontend.cells import cells_for
from relax_quantus.frontend.gain_bands import band_centres_hz, band_shares, window_for
from relax_quantus.relax.estimators import ESTIMATORS
from relax_quantus.relax.masks import STRATEGIES
from relax_quantus.relax.masks.warped import Warped

RATE = 8_000
DEVICES = [
    "cpu",
    *(["cuda"] if torch.cuda.is_available() else []),
    *(["mps"] if torch.backends.mps.is_available() else []),
]
CASES = [(250, 20.0), (16_000, 0.96), (48_000, 3.0), (256_000, 0.003), (256_000, 0.25)]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def uniform(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same(wave: Tensor) -> Tensor:
    """A network that hands out what it heard."""
    return wave


class Energies(nn.Module):
    """Embeds a second of sound by its energies in `parts` parts by `bands` bands; counts rows."""

    sample_rate_hz, example_samples = RATE, RATE

    def __init__(self, parts: int = 8, bands: int = 5) -> None:
        super().__init__()
        self.parts, self.bands = parts, bands
        self.scale = nn.Parameter(torch.ones(()))
        self.rows: list[int] = []

    def forward(self, wave: Tensor) -> Tensor:
        self.rows.append(len(wave))
        power = torch.fft.rfft(wave.reshape(len(wave), self.parts, -1)).abs().square()[..., 1:]
        return self.scale * power.unflatten(-1, (self.bands, -1)).mean(-1).flatten(1).add(1e-6).log()


def decibels(error: Tensor, of: Tensor) -> float:
    return 10 * math.log10(float(error.double().square().mean() / of.double().square().mean()) + 1e-300)


# --- the grid


@pytest.mark.parametrize(("rate_hz", "seconds"), CASES)
def test_the_grid_follows_from_the_network(rate_hz: int, seconds: float) -> None:
    samples = round(rate_hz * seconds)
    masking = SpectrogramMasking(same, sample_rate_hz=rate_hz, example_samples=samples)
    window = masking.stft.window_samples
    assert window & (window - 1) == 0
    if samples >= 128 * 64:
        assert 2**-0.5 <= window / (samples / 128) <= 2**0.5
    else:
        assert window == 64
    assert masking.hop_s * 4 == masking.window_s == window / rate_hz
    hz, lobe = masking.frequencies_hz, 4 * rate_hz / window
    assert (np.diff(hz) >= lobe * (1 - 1e-9)).all()
    assert hz[0] == pytest.approx(lobe)
    assert hz[-1] == pytest.approx(rate_hz / 2)
    steps = np.diff(np.log(hz))
    free = np.diff(hz)[1:] > 1.05 * lobe  # where the least width does not bind, ratios are equal
    if free.sum() > 1:
        np.testing.assert_allclose(steps[1:][free], steps[-1], rtol=0.05)
    gains = masking.gains(torch.zeros(2, samples))
    assert gains.shape == (2, 1, masking.times_s.size, hz.size)
    assert masking.times_s[0] == 0
    assert 0 <= masking.times_s[-1] - seconds < masking.hop_s
    assert masking.grid.frames == masking.times_s.size
    for strategy in ("random", "time_frequency"):
        assert cells_for(masking.grid, 500, strategy).rows > 1


def test_windows_of_every_length() -> None:
    assert [window_for(n) for n in (16, 64, 255, 256, 10_000, 16_000, 144_000)] == [4, 16, 32, 64, 64, 128, 1024]
    with pytest.raises(ArgumentError, match="samples: expected an integer of at least 16, got 15"):
        window_for(15)


def test_the_range_is_what_the_network_says_by_the_contract() -> None:
    def of(**facts: Any) -> SpectrogramMasking:
        return SpectrogramMasking(as_network(same, sample_rate_hz=RATE, example_samples=RATE, **facts))

    plain = SpectrogramMasking(same, sample_rate_hz=RATE, example_samples=RATE).frequencies_hz
    np.testing.assert_array_equal(of().frequencies_hz, plain)
    low, high = of(range_hz=(0.0, 3_000.0)).frequencies_hz[[0, -1]]
    assert (low, high) == (pytest.approx(plain[0]), pytest.approx(3_000))
    low, high = of(range_hz=(500.0, 3_000.0)).frequencies_hz[[0, -1]]
    assert (low, high) == (pytest.approx(500), pytest.approx(3_000))


@pytest.mark.parametrize("bands", [1, 2, 5, 20, 64, 500])
def test_bands_are_as_many_as_fit(bands: int) -> None:
    centres = np.asarray(band_centres_hz(100.0, 10_000.0, bands, 150.0))
    assert centres.size == min(bands, 67)
    if bands > 1:
        assert (centres[0], centres[-1]) == (pytest.approx(100), pytest.approx(10_000))
        assert (np.diff(centres) >= 150 * (1 - 1e-9)).all()
    shares = band_shares(tuple(centres), np.linspace(0, 12_000, 513))
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-12)


def test_what_the_network_says_of_itself_is_used_and_can_be_overruled() -> None:
    net = Energies()
    masking = SpectrogramMasking(net)
    assert (masking.sample_rate_hz, masking.example_samples) == (RATE, RATE)
    assert SpectrogramMasking(net.forward).example_samples == RATE
    assert SpectrogramMasking(net, example_samples=RATE // 2).example_samples == RATE // 2
    assert SpectrogramMasking(net, range_hz=(100, 2000)).frequencies_hz[[0, -1]].tolist() == [100, 2000]
    assert SpectrogramMasking(net, hop_s=0.01).hop_s == 0.01
    assert len(SpectrogramMasking(net, bands=5).frequencies_hz) == 5


def test_any_length_where_the_network_takes_any() -> None:
    masking = SpectrogramMasking(same, sample_rate_hz=RATE)
    with pytest.raises(ArgumentError, match="example_samples: expected a network whose examples have one length"):
        masking.times_s  # noqa: B018
    for samples in (3001, 16):
        wave = noise(1, samples)
        gains = masking.gains(wave)
        assert gains.shape[2] == masking.times_s.size == masking.frames(samples)
        torch.testing.assert_close(masking(gains, wave), wave, rtol=0, atol=1e-5)


# --- filtering


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("rate_hz", "seconds"), CASES)
@pytest.mark.parametrize("fill", ["silence", "background", "noise", "waveform"])
def test_gains_of_one_change_nothing_and_of_zero_leave_the_fill(
    device: str, rate_hz: int, seconds: float, fill: str
) -> None:
    samples = round(rate_hz * seconds)
    wave, other = noise(2, samples).to(device), noise(samples, seed=1).to(device)
    masking = SpectrogramMasking(
        same, fill=other if fill == "waveform" else fill, sample_rate_hz=rate_hz, example_samples=samples
    ).to(device)
    gains = masking.gains(wave)
    assert decibels(masking(gains, wave) - wave, wave) < -100
    nothing = masking(torch.zeros_like(gains), wave)
    if fill == "silence":
        assert not nothing.any()
    elif fill == "waveform":
        assert decibels(nothing - other, wave) < -100
    else:
        assert -30 < decibels(nothing, wave) < 0


@pytest.mark.parametrize("gain", ["dB", "amplitude"])
@pytest.mark.parametrize("fill", ["silence", "noise"])
def test_masks_are_a_slow_multiplication_bin_by_bin(gain: str, fill: str) -> None:
    """Against a loop over windows and bins, with numpy's transform and the window written out."""
    samples, hop = 150, 4
    wave = noise(1, samples, dtype=torch.float64)
    masking = SpectrogramMasking(same, 3, hop / RATE, fill, gain=gain, sample_rate_hz=RATE, range_hz=(500, 3000))
    # with zeros and ones among them
    gains = uniform(*masking.gains(wave).shape, dtype=torch.float64).round(decimals=1)
    found = masking(gains, wave)[0].numpy()

    def sound(values: np.ndarray, factor: Any) -> np.ndarray:
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(4 * hop) / (4 * hop))
        padded, out = np.zeros(samples + 8 * hop), np.zeros(samples + 8 * hop)
        padded[4 * hop : 4 * hop + samples] = values
        for middle in range(-hop, samples + 2 * hop, hop):
            where = slice(middle + 2 * hop, middle + 6 * hop)
            bins = np.fft.rfft(padded[where] * hann)
            for b in range(bins.size):
                bins[b] *= factor(middle, b * RATE / (4 * hop))
            out[where] += np.fft.irfft(bins) * hann / 1.5
        return out[4 * hop : 4 * hop + samples]

    def factor(middle: int, hz: float) -> float:
        frame = min(max(middle // hop, 0), gains.shape[2] - 1)
        masks = gains[0, 0, frame].numpy()
        levels = masks if gain == "amplitude" else np.where(masks > 0, 10 ** (-60 * (1 - masks) / 20), 0)
        return float(np.interp(hz, masking.frequencies_hz, levels))

    expected = sound(wave[0].numpy(), factor)
    if fill == "noise":
        under = masking(torch.zeros_like(gains), wave)[0].numpy()
        spectrum = masking.hear(wave).fill
        assert spectrum is not None
        expected = (
            expected
            + masking.stft.inverse(
                spectrum
                * (
                    1
                    - torch.tensor(
                        [
                            [factor((i - 1) * hop, b * RATE / (4 * hop)) for b in range(2 * hop + 1)]
                            for i in range(spectrum.shape[1])
                        ],
                        dtype=torch.float64,
                    )
                ),
                samples,
            )[0].numpy()
        )
        assert under.any()
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("mask", [0.0, 0.25, 0.5, 2 / 3, 1.0])
def test_a_tone_in_a_band_is_weakened_to_the_level_that_the_mask_says(mask: float) -> None:
    """The closed form: a steady tone at a band's centre, that band masked in all frames,
    the others kept or silent.
    """
    masking = SpectrogramMasking(same, 8, sample_rate_hz=RATE, example_samples=RATE)
    hz = float(
        masking.stft.frequencies_hz(RATE)[
            np.argmin(np.abs(masking.stft.frequencies_hz(RATE).numpy() - masking.frequencies_hz[4]))
        ]
    )
    wave = torch.sin(2 * torch.pi * hz * torch.arange(RATE, dtype=torch.float64) / RATE)[None]
    gains = masking.gains(wave)
    gains[..., 3:6] = mask  # a main lobe lies within the neighbours' centres
    inner = slice(RATE // 4, 3 * RATE // 4)
    expected = 0.0 if mask == 0 else 10 ** (-3 * (1 - mask))
    torch.testing.assert_close(masking(gains, wave)[:, inner], expected * wave[:, inner], rtol=0, atol=1e-9)
    rest = masking.gains(wave) * 0
    rest[..., 3:6] = 1
    torch.testing.assert_close(masking(rest, wave)[:, inner], wave[:, inner], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("hz", "band"), [(62.5, 0), (0.0, 0), (3906.25, -1), (4000.0, -1)])
def test_energy_beyond_the_outermost_bands_belongs_to_them(hz: float, band: int) -> None:
    masking = SpectrogramMasking(same, 8, 0.032, sample_rate_hz=RATE, example_samples=RATE, range_hz=(400, 3000))
    wave = torch.cos(2 * torch.pi * hz * torch.arange(RATE, dtype=torch.float64) / RATE)[None]
    gains, inner = masking.gains(wave), slice(RATE // 4, 3 * RATE // 4)
    gains[..., band] = 0
    torch.testing.assert_close(masking(gains, wave)[:, inner], 0 * wave[:, inner], rtol=0, atol=1e-9)
    alone = torch.zeros_like(gains)
    alone[..., band] = 1
    torch.testing.assert_close(masking(alone, wave)[:, inner], wave[:, inner], rtol=0, atol=1e-9)


def test_the_ends_of_the_waveform_belong_to_the_first_and_last_frame() -> None:
    masking = SpectrogramMasking(same, sample_rate_hz=RATE, example_samples=RATE)
    wave = noise(1, RATE, dtype=torch.float64)
    window = masking.stft.window_samples
    for end, samples in ((slice(0, 5), slice(0, window // 2)), (slice(-5, None), slice(-window // 2, None))):
        gains = masking.gains(wave)
        gains[:, :, end] = 0
        kept = masking(gains, wave)
        assert not kept[:, samples][:, : 4 if end.start == 0 else None][:, -4:].any()
        assert decibels(kept[:, RATE // 4 : -RATE // 4] - wave[:, RATE // 4 : -RATE // 4], wave) < -200


def test_levels_are_those_of_the_docstring() -> None:
    m = torch.tensor([0.0, 1e-9, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(20 * amplitude(m, "dB")[1:].log10(), torch.tensor([-60.0, -30.0, 0.0]).double())
    assert amplitude(m, "dB")[0] == 0
    assert amplitude(m, "amplitude") is m


@pytest.mark.parametrize("fill", ["silence", "noise", "rows"])
def test_masks_commute_with_batches(fill: str) -> None:
    """Each row is as it is alone, if waveforms come once, repeated, or transformed before."""
    wave = noise(3, RATE, dtype=torch.float64)
    masking = SpectrogramMasking(
        same, fill=noise(3, RATE, seed=1) if fill == "rows" else fill, sample_rate_hz=RATE, max_batch=4
    )
    gains = uniform(6, *masking.gains(wave).shape[1:], dtype=torch.float64)
    together = masking(gains, wave)
    for heard in (wave.repeat(2, 1), masking.hear(wave)):
        assert torch.equal(masking(gains, heard), together)
    masking.forget()
    assert torch.equal(masking(gains, wave.repeat(2, 1)), together)
    if fill != "rows":
        for i in range(6):
            alone = masking(gains[i : i + 1], wave[i % 3 : i % 3 + 1])
            torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-13)


def test_waveforms_are_transformed_once_however_many_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    masking = SpectrogramMasking(Energies())
    wave = noise(2, RATE)
    seen: list[int] = []
    forward = masking.stft.forward
    monkeypatch.setattr(type(masking.stft), "forward", lambda self, w: seen.append(len(w)) or forward(w))
    gains = masking.gains(wave)
    rq.RELAX(masking).attribute(gains, baselines=0.0, additional_forward_args=wave, n_samples=100)
    assert seen == [2]
    wave[0, 0] += 1  # changed in place: what was kept is of no use
    masking(gains, wave)
    assert seen == [2, 2]


def test_what_is_kept_can_be_dropped_and_is_never_pickled() -> None:
    masking = SpectrogramMasking(Energies())
    wave = noise(1, RATE)
    masking.gains(wave)
    assert masking.last is not None
    again = pickle.loads(pickle.dumps(masking))
    assert again.last is None
    assert torch.equal(again(masking.gains(wave), wave), masking(masking.gains(wave), wave))
    masking.forget()
    assert masking.last is None
    assert copy.deepcopy(masking).sample_rate_hz == RATE


# --- fills


@pytest.mark.parametrize("fill", ["background", "noise"])
def test_the_background_has_the_quiet_level_of_every_band(fill: str) -> None:
    """A loud call over coloured noise: the fill has the noise's 10th percentile, band by band,
    and nothing of the call.
    """
    time_s = torch.arange(4 * RATE, dtype=torch.float64) / RATE
    hum = noise(1, 4 * RATE, dtype=torch.float64)
    hum = hum + 0.5 * torch.nn.functional.pad(hum, (1, 0))[:, :-1]  # loud below, quiet above
    call = 30 * torch.sin(2 * torch.pi * 2000 * time_s) * ((time_s > 1) & (time_s < 3))
    masking = SpectrogramMasking(same, 12, fill=fill, sample_rate_hz=RATE)
    filled = masking.filtered(masking.gains(hum) * 0, hum + call)
    inner = slice(8, -8)
    found = 10 * (10 ** (masking.levels_db(filled)[0, 0, inner] / 10)).mean(0).log10()
    quiet = masking.levels_db(hum)[0, 0, inner].quantile(0.1, dim=0)
    torch.testing.assert_close(found, quiet, rtol=0, atol=1.5)


def test_noise_fluctuates_and_background_does_not() -> None:
    wave = noise(1, 4 * RATE)
    spread = {}
    for fill in ("background", "noise"):
        masking = SpectrogramMasking(same, fill=fill, sample_rate_hz=RATE)
        heard = masking.stft.forward(masking(masking.gains(wave) * 0, wave))[:, 8:-8, 4:-4].abs()
        spread[fill] = float(heard.std() / heard.mean())
    assert spread["background"] < 0.4 < 0.5 < spread["noise"]


def test_a_hiss_is_one_draw_from_its_seed() -> None:
    wave = noise(2, RATE)
    before = torch.get_rng_state()
    made = [SpectrogramMasking(same, fill="noise", sample_rate_hz=RATE, seed=s) for s in (0, 0, 1)]
    fills = [m(m.gains(wave) * 0, wave) for m in made]
    assert torch.equal(fills[0], fills[1])
    assert not torch.allclose(fills[0], fills[2], atol=0.01)
    assert torch.equal(before, torch.get_rng_state())
    one = made[0](made[0].gains(wave[1:]) * 0, wave[1:])
    # of the batch it knows nothing
    torch.testing.assert_close(one, fills[0][1:], rtol=0, atol=1e-6)


def test_levels_are_those_of_a_sine() -> None:
    masking = SpectrogramMasking(same, 8, sample_rate_hz=RATE, example_samples=RATE)
    wave = 0.1 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)[None]
    levels = masking.levels_db(wave)
    assert levels.shape == masking.gains(wave).shape
    band = int(np.argmin(np.abs(masking.frequencies_hz - 1000)))
    assert int(levels[0, 0, 60].argmax()) == band
    # a mean over the band's bins
    assert float(levels[0, 0, 60, band]) == pytest.approx(-20 - 6, abs=6)
    assert float(masking.levels_db(wave * 0).max()) == -120


# --- the network


def test_forwards_are_no_larger_than_the_network_allows() -> None:
    net = Energies()
    masking = SpectrogramMasking(net, max_batch=5)
    wave = noise(1, RATE)
    gains = uniform(13, *masking.gains(wave).shape[1:])
    expected = SpectrogramMasking(Energies())(gains, wave)
    torch.testing.assert_close(masking(gains, wave), expected)
    assert net.rows == [5, 5, 3]
    net.rows.clear()
    fixed = SpectrogramMasking(net, fixed_batch=4)
    torch.testing.assert_close(fixed(gains, wave), expected)
    assert net.rows == [4, 4, 4, 4]


def test_memory_does_not_grow_with_masks() -> None:
    """In a process of its own: what three hundred masks take beyond what fifty take."""
    code = """
import resource, torch
import relax_quantus as rq
torch.set_num_threads(1)
net = lambda wave: wave.reshape(len(wave), 16, -1).square().mean(2)
masking = rq.SpectrogramMasking(net, fill="noise", sample_rate_hz=48_000, example_samples=144_000)
wave = torch.randn(1, 144_000, generator=torch.Generator().manual_seed(0))
gains, relax = masking.gains(wave), rq.RELAX(masking, masks="time_frequency", estimator="weighted")
for masks in (50, 300):
    relax.attribute(gains, baselines=0.0, additional_forward_args=wave, n_samples=masks)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    few, many = (int(line) for line in done.stdout.split())
    kibibyte = 1 if sys.platform == "linux" else 1024  # macOS counts bytes
    assert (many - few) / kibibyte < 24 * 1024  # the filtered waveforms alone are 165 MiB


def test_the_network_is_left_as_found_and_moves_along() -> None:
    net = Energies().train()
    masking = SpectrogramMasking(net.forward)
    assert masking.training
    assert net.training
    masking.double()
    assert net.scale.dtype == torch.float64
    wave = noise(1, RATE)
    assert masking(masking.gains(wave), wave).dtype == torch.float64
    assert SpectrogramMasking(net.eval()).training is False


def test_autocast_of_the_caller_reaches_the_network_alone() -> None:
    wave = noise(1, RATE)
    masking = SpectrogramMasking(same, sample_rate_hz=RATE)
    expected = masking(masking.gains(wave), wave)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(masking(masking.gains(wave), wave), expected)


def test_gradients_flow_to_gains_and_waveforms() -> None:
    for fill in ("silence", "noise"):
        masking = SpectrogramMasking(lambda w: w.square()[:, ::7], 3, 4 / RATE, fill, sample_rate_hz=RATE, max_batch=1)
        wave = noise(2, 40, dtype=torch.float64).requires_grad_()
        gains = uniform(*masking.gains(wave.detach()).shape, dtype=torch.float64).clamp_min(0.3).requires_grad_()
        assert torch.autograd.gradcheck(masking, (gains, wave))
        heard = masking.hear(wave.detach())
        assert torch.autograd.gradcheck(lambda g, m=masking, h=heard: m(g, h), (gains,))


def test_gradients_flow_after_inference_mode() -> None:
    masking = SpectrogramMasking(Energies())
    wave = noise(1, RATE)
    with torch.inference_mode():
        gains = masking.gains(wave)
        masking(gains, wave)
    gains = masking.gains(wave).requires_grad_()
    masking(gains, wave).sum().backward()
    assert gains.grad is not None


# --- with RELAX


@pytest.mark.parametrize("strategy", list(STRATEGIES))
@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_every_strategy_and_estimator(strategy: str, estimator: str) -> None:
    masking = SpectrogramMasking(Energies(), bands=16, hop_s=0.02)
    wave = noise(2, RATE)
    gains = masking.gains(wave)
    relax = rq.RELAX(masking, masks=strategy, estimator=estimator)
    e = relax.explain(gains, 0.0, None, wave, n_samples=60)
    assert e.importance.shape == gains.shape
    assert torch.isfinite(e.importance).all()
    torch.testing.assert_close(
        relax.attribute(gains, baselines=0.0, additional_forward_args=masking.hear(wave), n_samples=60), e.importance
    )


def test_references_tolerances_and_batches() -> None:
    masking = SpectrogramMasking(Energies(), bands=16, hop_s=0.02)
    wave = noise(2, RATE)
    gains = masking.gains(wave)
    relax = rq.RELAX(masking, masks="time_frequency")
    other = Energies()(noise(2, RATE, seed=5)).detach()
    for reference in (other, (None, other), gains * 0.5):
        e = relax.explain(gains, 0.0, None, wave, n_samples=64, reference=reference, tolerance=0.5)
        assert e.importance.shape == gains.shape
        assert (e.n_samples <= 64).all()
    whole = relax.attribute(gains, 0.0, None, wave, n_samples=64)
    alone = relax.attribute(gains[1:], 0.0, None, wave[1:], n_samples=64)
    torch.testing.assert_close(alone, whole[1:], rtol=1e-5, atol=1e-6)


def auc(score: np.ndarray, call: np.ndarray, other: np.ndarray) -> float:
    """Probability that a bin of the call scores higher than one of the other."""
    return float(np.mean(score[call][:, None] > score[other]) + np.mean(score[call][:, None] == score[other]) / 2)


class ToneDetector(nn.Module):
    """Hears where in a second, in 16 parts, a tone at 1500 Hz rises above the bins around it."""

    sample_rate_hz, example_samples = RATE, RATE

    def forward(self, wave: Tensor) -> Tensor:
        power = torch.fft.rfft(wave.reshape(len(wave), 16, -1)).abs().square()
        at = round(1500 * RATE // 16 / RATE)
        around = power[..., at - 12 : at + 13].mean(-1)
        return (power[..., at] / (around + 0.05)).log1p()


@pytest.mark.parametrize("strategy", ["random", "time_frequency"])
@pytest.mark.parametrize("fill", ["silence", "background"])
def test_a_tone_that_a_network_listens_for_is_found_beside_a_louder_burst(strategy: str, fill: str) -> None:
    """The map must point at the tone's time and frequency, and its shuffled twin must not."""
    time_s = torch.arange(RATE) / RATE
    wave = 0.02 * noise(1, RATE) + 0.3 * torch.sin(2 * torch.pi * 1500 * time_s) * ((time_s > 0.25) & (time_s < 0.375))
    wave = wave + 0.5 * noise(1, RATE, seed=3) * ((time_s > 0.6) & (time_s < 0.725))
    masking = SpectrogramMasking(ToneDetector(), bands=16, fill=fill)
    gains = masking.gains(wave)
    relax = rq.RELAX(masking, masks=masks_in_units(masking, strategy), similarity="dot")
    similarities = relax.similarities(gains, 0.0, None, wave, n_samples=400)
    score = relax.estimate(gains, similarities, baselines=0.0).importance[0, 0].numpy()
    shuffled = similarities[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    twin = relax.estimate(gains, shuffled, baselines=0.0).importance[0, 0].numpy()
    times, hz = masking.times_s[:, None], masking.frequencies_hz[None]
    call = (times > 0.25) & (times < 0.375) & (abs(hz - 1500) < 300)
    assert auc(score, call, ~call) > 0.9
    burst = (times > 0.6) & (times < 0.725) & (hz > 0)
    assert auc(score, call, burst) > 0.95
    assert abs(auc(twin, call, ~call) - 0.5) < 0.45


def masks_in_units(masking: SpectrogramMasking, strategy: str) -> Warped:
    cells = cells_for(masking.grid, 400, strategy)
    return Warped(strategy=rq.masks.get(strategy, **cells.parameters), positions=cells.positions, cells=cells.columns)


def test_the_bundled_encoder_hears_through_its_front_end() -> None:
    """A chirp in the first half: what is masked by silence sounds to the encoder as silence does,
    and the map finds the chirp.
    """
    net = nn.Sequential(rq.LogMel(), rq.load_encoder("vggish_mini")).eval()
    masking = SpectrogramMasking(net, sample_rate_hz=16_000, example_samples=15_600, range_hz=(125, 7500))
    time_s = torch.arange(15_600) / 16_000
    wave = (torch.sin(2 * torch.pi * (1000 * time_s + 3000 * time_s**2)) * (time_s < 0.45) + 0.001 * noise(15_600))[
        None
    ]
    gains = masking.gains(wave)
    torch.testing.assert_close(masking(gains, wave), net(wave), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(masking(0 * gains, wave), net(0 * wave), rtol=1e-3, atol=1e-4)
    score = rq.RELAX(masking, masks="time").attribute(gains, 0.0, None, wave, n_samples=100)[0, 0].mean(1)
    assert score[masking.times_s < 0.4].mean() > score[masking.times_s > 0.6].mean()


# --- the network's own spectrogram


class OwnSpectrogram(Energies):
    """The same through a spectrogram that it hands out: log power, 8 frames by 5 bands."""

    frequencies_hz = tuple(400.0 + 800.0 * np.arange(5))

    def spectrogram(self, wave: Tensor) -> Tensor:
        return super().forward(wave).reshape(-1, 1, 8, 5)

    def from_spectrogram(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def forward(self, wave: Tensor) -> Tensor:
        return self.from_spectrogram(self.spectrogram(wave))


@pytest.mark.parametrize("fill", ["silence", "background", "waveform"])
def test_masks_on_the_networks_own_spectrogram(fill: str) -> None:
    net = OwnSpectrogram()
    wave, other = noise(2, RATE), noise(1, RATE, seed=1)
    masking = SpectrogramMasking(net, fill=other if fill == "waveform" else fill, space="input")
    gains = masking.gains(wave)
    assert gains.shape == (2, 1, 8, 5)
    assert masking.times_s.tolist() == [(i + 0.5) / 8 for i in range(8)]
    assert masking.frequencies_hz.tolist() == list(net.frequencies_hz)
    torch.testing.assert_close(masking(gains, wave), net(wave))
    nothing = masking(gains * 0, wave)
    if fill == "silence":
        torch.testing.assert_close(nothing, net(wave * 0))
    if fill == "waveform":
        torch.testing.assert_close(nothing, net(other).expand(2, -1), rtol=0, atol=1e-4)
    half = masking(gains * 0.5, wave)
    torch.testing.assert_close(half, (net(wave) + nothing) / 2, rtol=1e-5, atol=1e-4)
    e = rq.RELAX(masking, masks="random").explain(gains, 0.0, None, wave, n_samples=60)
    assert e.importance.shape == gains.shape
    assert masking.levels_db(wave).shape == gains.shape
    assert masking.axis.bands == 5
    with pytest.raises(ArgumentError, match="space: expected 'stft' to hear what is masked"):
        masking.filtered(gains, wave)


def test_a_changed_network_is_asked_for_its_spectrogram_again() -> None:
    net = OwnSpectrogram()
    masking = SpectrogramMasking(net, space="input")
    wave = noise(1, RATE)
    before = masking(masking.gains(wave), wave)
    with torch.no_grad():
        net.scale.mul_(2)
    torch.testing.assert_close(masking(masking.gains(wave), wave), 2 * before)


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"net": "birdnet"},
            ArgumentTypeError,
            r"net: expected a callable \(n, samples\) -> \(n, D\), got birdnet; pass",
        ),
        ({"net": same}, ArgumentError, "sample_rate_hz: expected the network's sample rate in Hz, got none; pass"),
        ({"space": "input"}, ArgumentError, r"space: expected net.spectrogram\(waveform\) and net.from_spectrogram"),
        ({"space": "stf"}, ArgumentError, "space: expected one of stft, input, got 'stf'; did you mean 'stft'"),
        ({"gain": "db"}, ArgumentError, "gain: expected one of dB, amplitude, got 'db'; did you mean 'dB'"),
        ({"fill": "backgrund"}, ArgumentError, "fill: expected one of silence, background, noise, .*'background'"),
        ({"fill": 0.0}, ArgumentTypeError, "fill: expected a name .* or a waveform, got float"),
        ({"fill": torch.zeros(9)}, ShapeError, r"fill: expected 8000 samples \(1 s\), as the network takes"),
        ({"range_hz": (0, 5000)}, ArgumentError, "range_hz: expected 0 <= lowest < highest <= 4000 Hz"),
        ({"bands": 0}, ArgumentError, "bands: expected an integer of at least 1"),
        ({"hop_s": 0}, ArgumentError, "hop_s: expected a finite number above 0"),
        ({"max_batch": 0}, ArgumentError, "max_batch: expected an integer of at least 1"),
        ({"example_samples": 9}, ArgumentError, "example_samples: expected an integer of at least 16"),
    ],
)
def test_arguments_that_cannot_work_are_refused_in_a_line(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        SpectrogramMasking(**{"net": Energies(), **arguments})
    assert "\n" not in str(caught.value)


def test_waveforms_and_gains_that_do_not_fit_are_refused() -> None:
    masking = SpectrogramMasking(Energies())
    wave = noise(2, RATE)
    gains = masking.gains(wave)
    with pytest.raises(ShapeError, match=r"waveform: expected waveforms of shape \(B, samples\)"):
        masking.gains(wave[0])
    with pytest.raises(ShapeError, match=r"waveform: expected 8000 samples \(1 s\), as the network takes"):
        masking.gains(wave[:, 1:])
    with pytest.raises(ArgumentTypeError, match="waveform: expected floating-point samples"):
        masking.gains(wave.int())
    with pytest.raises(ArgumentError, match="waveform: expected finite entries"):
        masking.gains(wave * torch.inf)
    with pytest.raises(ShapeError, match=r"gains: expected shape \(n, 1, 501, 8\), n a multiple of 2 waveforms"):
        masking(gains[:1], wave)
    with pytest.raises(ShapeError, match="gains: expected shape"):
        masking(gains[..., 1:], wave)
    with pytest.raises(EncoderError, match="net: expected 2 rows for 2 waveforms"):
        SpectrogramMasking(lambda w: w.mean(), sample_rate_hz=RATE, example_samples=RATE)(gains, wave)
    with pytest.raises(ShapeError, match="fill: expected a waveform of 8000 samples, one or 2"):
        SpectrogramMasking(same, fill=noise(3, RATE), sample_rate_hz=RATE).gains(wave)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert masking.gains(wave.half()).dtype == torch.float32
