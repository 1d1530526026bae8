"""Record, mix and code waveforms by a random chain that knows nothing of the class.

Second step of the training flow, and the remedy for recording-chain shortcuts. ``(B, 15 600)`` at
16 kHz enters and leaves. No function here takes a label, and the number of random draws does not
depend on the waveforms: the chain's stream is the same whatever is recorded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RATE_HZ = 16_000


@dataclass(frozen=True)
class ChainConfig:
    """Probabilities and ranges of the recording chain; SNR is between RMS over the excerpt."""

    reverberation: float = 0.15
    background: float = 0.35
    background_snr_db: tuple[float, float] = (-5.0, 20.0)
    equaliser_db_per_octave: float = 3.0
    high_pass: float = 0.5
    high_pass_hz: tuple[float, float] = (40.0, 500.0)
    low_pass: float = 0.4
    noise_floor: float = 0.5
    noise_snr_db: tuple[float, float] = (10.0, 50.0)
    peak_db: tuple[float, float] = (-30.0, 0.0)
    clipping: float = 0.1
    band_limit: float = 0.5
    band_limit_hz: tuple[float, float] = (2_500.0, 8_000.0)


def uniform(low: float, high: float, n: int, generator: torch.Generator) -> Tensor:
    """Draw (n, 1) numbers between two bounds."""
    return low + (high - low) * torch.rand(n, 1, generator=generator)


def log_uniform(low: float, high: float, n: int, generator: torch.Generator) -> Tensor:
    """Draw (n, 1) numbers between two bounds, uniform in the logarithm."""
    return uniform(math.log(low), math.log(high), n, generator).exp()


def happens(probability: float, n: int, generator: torch.Generator) -> Tensor:
    """Draw (n, 1) booleans."""
    return torch.rand(n, 1, generator=generator) < probability


def rms(wave: Tensor) -> Tensor:
    """Return the RMS level of each waveform, (B, samples) -> (B, 1); never zero."""
    return wave.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-7)


def peak_normalised(wave: Tensor) -> Tensor:
    """Scale each waveform to peak 1; silence stays silence."""
    return wave / wave.abs().amax(-1, keepdim=True).clamp_min(1e-7)


def reverberate(wave: Tensor, generator: torch.Generator) -> Tensor:
    """Add a diffuse tail: Gaussian noise under an exponential of 0.1 to 0.8 s (RT60).

    The direct-to-reverberant ratio is 0 to 15 dB.
    """
    n, samples = wave.shape
    if n == 0:
        return wave
    rt60_s = uniform(0.1, 0.8, n, generator)
    ratio_db = uniform(0.0, 15.0, n, generator)
    tail = torch.randn(n, RATE_HZ // 2, generator=generator)
    seconds = torch.arange(tail.shape[-1]) / RATE_HZ
    tail = tail * torch.exp(-6.91 * seconds / rt60_s) * (seconds > 0.003)
    tail = tail / tail.square().sum(-1, keepdim=True).sqrt() * 10 ** (-ratio_db / 20)
    tail[:, 0] += 1.0
    size = samples + tail.shape[-1]
    wet: Tensor = torch.fft.irfft(torch.fft.rfft(wave, size) * torch.fft.rfft(tail, size), size)
    return wet[:, :samples]


def channel_gain(frequencies: Tensor, n: int, config: ChainConfig, generator: torch.Generator) -> Tensor:
    """Draw the microphone's amplitude response (n, bins): tilt, high-pass, gentle low-pass.

    The high-pass has 12 dB an octave; the low-pass begins at 2 to 8 kHz.
    """
    octaves = torch.log2(frequencies.clamp_min(50.0) / 1000.0)
    tilt = uniform(-config.equaliser_db_per_octave, config.equaliser_db_per_octave, n, generator)
    gain = 10 ** (tilt * octaves / 20)
    corner = log_uniform(*config.high_pass_hz, n, generator)
    high = 1.0 / (1.0 + (corner / frequencies.clamp_min(1.0)) ** 4).sqrt()
    gain = torch.where(happens(config.high_pass, n, generator), gain * high, gain)
    low = 1.0 / (1.0 + (frequencies / log_uniform(2_000.0, 8_000.0, n, generator)) ** 8).sqrt()
    return torch.where(happens(config.low_pass, n, generator), gain * low, gain)


def coloured_noise(n: int, samples: int, generator: torch.Generator) -> Tensor:
    """Draw noise (n, samples) of unit RMS whose spectrum slopes by -9 to +3 dB an octave."""
    if n == 0:
        return torch.zeros(0, samples)
    bins = samples // 2 + 1
    frequencies = torch.linspace(0, RATE_HZ / 2, bins)
    slope = uniform(-9.0, 3.0, n, generator) / 6.02
    spectrum = torch.complex(torch.randn(n, bins, generator=generator), torch.randn(n, bins, generator=generator))
    noise = torch.fft.irfft(spectrum * (frequencies.clamp_min(60.0) / 1000.0) ** slope, samples)
    return torch.as_tensor(noise / rms(noise))


def lossy_spectrum(wave: Tensor, generator: torch.Generator) -> Tensor:
    """Quantise short-time spectra as a perceptual codec does.

    Coefficients far below their neighbourhood vanish, the rest get coarse steps.
    """
    n, samples = wave.shape
    if n == 0:
        return wave
    masking_db = uniform(12.0, 35.0, n, generator)
    steps = uniform(1.0, 4.0, n, generator)[:, :, None]
    window = torch.hann_window(512)
    spectrum = torch.stft(wave, 512, 256, window=window, return_complex=True)
    magnitude = spectrum.abs()
    around = torch.nn.functional.max_pool1d(magnitude.transpose(1, 2).flatten(0, 1)[:, None], 17, 1, 8)
    around = around.reshape(n, magnitude.shape[2], -1).transpose(1, 2)
    step = (around * 10 ** (-masking_db[:, :, None] / 20) * steps).clamp_min(1e-9)
    quantised = torch.round(magnitude / step) * step
    return torch.istft(spectrum * (quantised / magnitude.clamp_min(1e-9)), 512, 256, window=window, length=samples)


def quantise(wave: Tensor, generator: torch.Generator) -> Tensor:
    """Code each waveform: not (40 %), 8 bits (15 %), mu-law (15 %), a lossy spectrum (30 %)."""
    kind = torch.rand(wave.shape[0], generator=generator)
    out = wave.clone()
    eight, mu, lossy = (kind < 0.15), (kind >= 0.15) & (kind < 0.3), (kind >= 0.3) & (kind < 0.6)
    out[eight] = torch.round(wave[eight] * 127) / 127
    companded = torch.sign(wave[mu]) * torch.log1p(255 * wave[mu].abs()) / math.log(256)
    companded = torch.round(companded * 127) / 127
    out[mu] = torch.sign(companded) * torch.expm1(companded.abs() * math.log(256)) / 255
    out[lossy] = lossy_spectrum(wave[lossy], generator)
    return out


def record(wave: Tensor, background: Tensor, generator: torch.Generator, config: ChainConfig | None = None) -> Tensor:
    """Send waveforms through random recording chains.

    Parameters
    ----------
    wave
        (B, samples), any level.
    background
        (B, samples) of unit RMS, drawn without regard to what is in `wave`.
    generator
        Draws everything.
    config
        Probabilities and ranges.

    Returns
    -------
    Tensor
        (B, samples), within [-1, 1].
    """
    config = config or ChainConfig()
    n, samples = wave.shape
    wave = peak_normalised(wave)
    wet = happens(config.reverberation, n, generator).flatten()
    wave = wave.index_copy(0, wet.nonzero().flatten(), reverberate(wave[wet], generator))
    snr_db = uniform(*config.background_snr_db, n, generator)
    mixed = wave + background * rms(wave) * 10 ** (-snr_db / 20)
    wave = torch.where(happens(config.background, n, generator), mixed, wave)
    frequencies = torch.linspace(0, RATE_HZ / 2, samples // 2 + 1)
    response = channel_gain(frequencies, n, config, generator)
    wave = torch.fft.irfft(torch.fft.rfft(wave) * response, samples)
    floor = (
        coloured_noise(n, samples, generator) * rms(wave) * 10 ** (-uniform(*config.noise_snr_db, n, generator) / 20)
    )
    wave = torch.where(happens(config.noise_floor, n, generator), wave + floor, wave)
    peak = 10 ** (uniform(*config.peak_db, n, generator) / 20)
    peak = torch.where(happens(config.clipping, n, generator), 1.0 + 2.0 * peak, peak)
    wave = quantise((peak_normalised(wave) * peak).clamp(-1.0, 1.0), generator)
    limit = log_uniform(*config.band_limit_hz, n, generator)
    kept = (frequencies <= limit) | ~happens(config.band_limit, n, generator)
    return torch.as_tensor(torch.fft.irfft(torch.fft.rfft(wave) * kept, samples).clamp(-1.0, 1.0))
