"""Synthesise animal calls: a class decides the modulation and the timbre.

The caller decides band, duration and everything else. Start of the benchmark's flow: a band, a
duration and a generator enter; a call of unit RMS ``(samples,)`` at 16 kHz leaves. Any class can be
asked for any band and any duration, so that neither tells the classes apart:

- bird: one almost pure tone, its frequency modulated fast (chirps, a trill, or steps between
  notes);
- dog: two to four short barks: a harmonic burst with noise, a hard attack and a pitch that drops;
- cat: one long harmonic glide, up and down, with a formant that sweeps through the band.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
NYQUIST_MARGIN_HZ = 7_600.0

Wave = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """The band in which a call's energy lies.

    Parameters
    ----------
    centre_hz
        Geometric centre.
    octaves
        Width.
    """

    centre_hz: float
    octaves: float

    @property
    def low_hz(self) -> float:
        """Lower edge in Hz."""
        return float(self.centre_hz * 2.0 ** (-self.octaves / 2))

    @property
    def high_hz(self) -> float:
        """Upper edge in Hz."""
        return float(self.centre_hz * 2.0 ** (self.octaves / 2))

    def at(self, position: npt.ArrayLike) -> Wave:
        """Return the frequency in Hz at `position`, from 0 (lower edge) to 1 (upper), geometric."""
        return np.asarray(self.low_hz * (self.high_hz / self.low_hz) ** np.asarray(position, dtype=np.float64))


def unit_rms(wave: Wave) -> Wave:
    """Scale a wave that is not silent to RMS 1."""
    return np.asarray(wave / np.sqrt(np.mean(wave**2)))


def envelope(samples: int, attack_s: float, release_s: float) -> Wave:
    """Make a raised-cosine attack and release, 1 between them, shape (samples,)."""
    gain = np.ones(samples)
    for seconds, where in ((attack_s, slice(None)), (release_s, slice(None, None, -1))):
        n = min(samples, max(2, round(seconds * SAMPLE_RATE_HZ)))
        gain[where][:n] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(n) / n)
    return gain


def harmonics(pitch_hz: Wave, weight: Callable[[Wave], Wave], rng: np.random.Generator) -> Wave:
    """Sum of the harmonics of a pitch track.

    Parameters
    ----------
    pitch_hz
        Fundamental at each sample, shape (samples,).
    weight
        Amplitude of a harmonic whose frequency track is given, shape (samples,) -> (samples,).
    rng
        Draws the phases.
    """
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    count = max(1, int(NYQUIST_MARGIN_HZ / pitch_hz.max()))
    wave = np.zeros_like(pitch_hz)
    for k in range(1, min(count, 40) + 1):
        wave += weight(k * pitch_hz) * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
    return wave


def octave_bump(frequency_hz: Wave, centre_hz: Wave | float, octaves: float) -> Wave:
    """Weigh frequencies by a Gaussian on the octave scale with standard deviation `octaves`."""
    return np.asarray(np.exp(-0.5 * (np.log2(frequency_hz / centre_hz) / octaves) ** 2))


def bird(band: Band, samples: int, rng: np.random.Generator) -> Wave:
    """Make an almost pure tone, modulated fast in frequency: chirps, a trill or stepped notes."""
    t = np.arange(samples) / SAMPLE_RATE_HZ
    rate_hz = rng.uniform(14.0, 26.0)
    cycle = rate_hz * t + rng.uniform(0, 1)
    kind = rng.integers(3)
    if kind == 0:
        position = cycle % 1.0 if rng.random() < 0.5 else 1.0 - cycle % 1.0
    elif kind == 1:
        position = 0.5 + 0.5 * np.sin(2 * np.pi * cycle)
    else:
        notes = rng.random(int(cycle[-1]) + 2)
        position = 0.75 * notes[cycle.astype(int)] + 0.25 * np.sin(np.pi * (cycle % 1.0))
    gaps = 0.65 - 0.35 * np.cos(2 * np.pi * (cycle % 1.0))
    phase = 2 * np.pi * np.cumsum(band.at(0.1 + 0.8 * position)) / SAMPLE_RATE_HZ
    tone = np.sin(phase) + 0.04 * np.sin(2 * phase)
    return unit_rms(tone * gaps * envelope(samples, 0.02, 0.03))


def dog(band: Band, samples: int, rng: np.random.Generator) -> Wave:
    """Make a bout of barks: noisy harmonic bursts with a hard attack and a falling pitch."""
    seconds = samples / SAMPLE_RATE_HZ
    barks = int(np.clip(round(seconds / rng.uniform(0.16, 0.26)), 1, 4))
    pitch_hz = band.low_hz / rng.uniform(1.2, 1.8)
    wave = np.zeros(samples)
    for start in np.linspace(0, samples, barks + 1)[:-1].astype(int):
        n = round(samples / barks * rng.uniform(0.4, 0.55))
        u = np.linspace(0, 1, n)
        track = pitch_hz * (1.0 + 0.35 * np.exp(-((u - 0.2) ** 2) / 0.04) - 0.35 * u)
        voice = unit_rms(harmonics(track, lambda f: octave_bump(f, band.centre_hz, 0.5 * band.octaves), rng))
        breath = unit_rms(band_noise(band, n, rng))
        gain = envelope(n, 0.006, 0.05) * np.exp(-2.0 * u)
        wave[start : start + n] += rng.uniform(0.8, 1.0) * gain * (voice + rng.uniform(0.3, 0.7) * breath)
    return unit_rms(wave)


def cat(band: Band, samples: int, rng: np.random.Generator) -> Wave:
    """Make a meow: one harmonic glide up and down under a formant that opens and closes."""
    u = np.linspace(0, 1, samples)
    peak = rng.uniform(0.3, 0.5)
    arch = np.sin(0.5 * np.pi * np.where(u < peak, u / peak, (1 - u) / (1 - peak)))
    pitch_hz = band.low_hz / rng.uniform(1.0, 1.8) * (0.85 + rng.uniform(0.25, 0.45) * arch)
    pitch_hz = pitch_hz * (1 + 0.008 * np.sin(2 * np.pi * rng.uniform(5, 7) * u * samples / SAMPLE_RATE_HZ))
    formant_hz = band.at(0.15 + 0.7 * arch)
    wave = harmonics(
        pitch_hz, lambda f: octave_bump(f, formant_hz, 0.35 * band.octaves) + 0.05 * (f < band.high_hz), rng
    )
    return unit_rms(wave * envelope(samples, 0.06, 0.12))


def band_noise(band: Band, samples: int, rng: np.random.Generator) -> Wave:
    """Make Gaussian noise under a Gaussian weight in octaves that spans `band`, (samples,)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency_hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ).astype(np.float64)
    frequency_hz[0] = 1e-3
    return np.asarray(np.fft.irfft(spectrum * octave_bump(frequency_hz, band.centre_hz, 0.5 * band.octaves), samples))


CALLS: dict[str, Callable[[Band, int, np.random.Generator], Wave]] = {"bird": bird, "cat": cat, "dog": dog}
CLASS_NAMES: tuple[str, ...] = tuple(CALLS)
