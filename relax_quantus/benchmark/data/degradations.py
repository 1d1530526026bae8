"""Add to a call what a recording adds: room, other sounds, noise and band limit.

None of them knows the class. Second step of the benchmark's flow: calls ``(samples,)`` enter; waves
of the same length with a reverberant tail, coloured noise, decoys (louder than the call and
irrelevant) and distractors (insect-like) leave. Everything linear, so that stem + rest is the
recording.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import next_fast_len

from relax_quantus.benchmark.data.synthetic_calls import SAMPLE_RATE_HZ, Band, Wave, band_noise, envelope, unit_rms

DECOYS = ("none", "tone", "clicks", "thump", "hum")


def reverberate(wave: Wave, decay_s: float, wet: float, rng: np.random.Generator) -> Wave:
    """Add a decaying diffuse tail, cut at the wave's end, that falls by 60 dB in `decay_s`.

    The decay is exponential.
    """
    tail = int(min(decay_s, 0.6) * SAMPLE_RATE_HZ)
    if tail < 16 or wet <= 0:
        return wave
    t = np.arange(tail) / SAMPLE_RATE_HZ
    response = rng.standard_normal(tail) * np.exp(-6.9 * t / decay_s)
    response[: SAMPLE_RATE_HZ // 500] = 0.0
    response *= wet / np.sqrt((response**2).sum())
    response[0] = 1.0
    length = next_fast_len(wave.size + tail, real=True)
    return np.asarray(np.fft.irfft(np.fft.rfft(wave, length) * np.fft.rfft(response, length), length)[: wave.size])


def coloured_noise(samples: int, exponent: float, rng: np.random.Generator) -> Wave:
    """Make noise of unit RMS with power 1 / f**exponent above 50 Hz: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency_hz = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ), 50.0)
    return unit_rms(np.fft.irfft(spectrum * frequency_hz ** (-exponent / 2), samples))


def low_pass(wave: Wave, cutoff_hz: float, rate_hz: int = SAMPLE_RATE_HZ) -> Wave:
    """Limit the band as a recorder does: zero-phase, 24 dB an octave above `cutoff_hz`."""
    frequency_hz = np.fft.rfftfreq(wave.size, 1 / rate_hz)
    return np.asarray(np.fft.irfft(np.fft.rfft(wave) / np.sqrt(1 + (frequency_hz / cutoff_hz) ** 8), wave.size))


def decoy(kind: str, call_band: Band, call_from: int, call_to: int, samples: int, rng: np.random.Generator) -> Wave:
    """Make a sound that is not an animal, away from the call in time or in frequency.

    It has unit RMS over its own duration; "none" gives zeros. ``tone`` lies at least 1.2 octaves
    from the call's band centre; ``clicks`` lie where the call is not (the longer side of it);
    ``thump`` and ``hum`` below 300 Hz.
    """
    wave = np.zeros(samples)
    t = np.arange(samples) / SAMPLE_RATE_HZ
    if kind == "tone":
        away = 2.0 ** (0.5 * call_band.octaves + rng.uniform(0.6, 0.9))
        high = call_band.centre_hz * away
        pitch_hz = high if high < 6_000 and rng.random() < 0.5 else max(200.0, call_band.centre_hz / away)
        start, n = int(rng.integers(0, samples * 2 // 3)), int(rng.integers(samples // 8, samples // 4))
        wave[start : start + n] = np.sqrt(2) * np.sin(2 * np.pi * pitch_hz * t[:n]) * envelope(n, 0.01, 0.01)
    elif kind == "clicks":
        low, high = (0, call_from) if call_from > samples - call_to else (call_to, samples)
        n = SAMPLE_RATE_HZ // 125
        for _ in range(3):
            start = int(rng.integers(low, max(low + 1, high - n)))
            click = rng.standard_normal(n) * np.exp(-8 * np.arange(n) / n)
            wave[start : start + n] += unit_rms(click)[: samples - start]
    elif kind == "thump":
        start, n = int(rng.integers(0, samples * 2 // 3)), SAMPLE_RATE_HZ // 5
        burst = np.sin(2 * np.pi * rng.uniform(60, 160) * t[:n]) * np.exp(-4 * t[:n] / t[n])
        wave[start : start + n] = unit_rms(burst)[: samples - start]
    elif kind == "hum":
        pitch_hz = rng.uniform(50, 120)
        wave = unit_rms(sum((np.sin(2 * np.pi * k * pitch_hz * t) / k for k in (1, 2, 3)), np.zeros(samples)))
    return wave


def insects(samples: int, rng: np.random.Generator) -> Wave:
    """Make an insect-like distractor of unit RMS: a narrow high band, pulsed at 30 to 70 Hz."""
    band = Band(float(rng.uniform(4_500, 6_800)), 0.15)
    t = np.arange(samples) / SAMPLE_RATE_HZ
    pulses = np.clip(np.sin(2 * np.pi * rng.uniform(30, 70) * t), 0, None)
    return unit_rms(band_noise(band, samples, rng) * pulses)
