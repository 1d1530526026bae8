"""Plant real calls, at known times, in real recordings of other classes or their background.

A call may be limited to a known band. Fourth step of the benchmark's flow, beside `recordings`: a
folder of recordings enters; mixtures leave whose truth is where the planted call dominates the
rest. What is planted is the loudest stretch of one recording; what it is planted in comes from
another class and another source. Both are drawn among the recordings to explain, so that the head
has heard neither. Scored towards the clean stem's embedding; a mixture counts only where the
encoder responds, i.e. where the call moves the embedding of what it was planted in towards the
stem's.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from relax_quantus.audio.reading import checked_resampler
from relax_quantus.base import checks
from relax_quantus.benchmark.data.clips import Clip, Dataset
from relax_quantus.benchmark.data.recordings import listing
from relax_quantus.benchmark.data.sampling import Entry, Reader, Sample, draw, examples_of
from relax_quantus.benchmark.data.soundscapes import PEAK, SAMPLES, dominates
from relax_quantus.benchmark.data.synthetic_calls import SAMPLE_RATE_HZ, envelope
from relax_quantus.errors import DataError
from relax_quantus.frontend.front_end import FrontEnd

HOSTS = ("recording", "background")
DURATION_S = (0.3, 0.6)
HOST_RMS = 0.05
FADE_S = 0.01
QUIETEST = 0.2
WINDOW = 512
LOWEST_HZ, HIGHEST_HZ = 150.0, 7_500.0
SKIRT_OCTAVES = 1 / 6

Wave = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mixture:
    """A planted call in samples of one example.

    Attributes
    ----------
    stem, rest
        float32: the call alone, and what it was planted in; the clip is their sum.
    start_s, stop_s
        When the call sounds, in seconds.
    low_hz, high_hz
        Its band; 0 and half the sample rate if it was not limited.
    """

    stem: npt.NDArray[np.float32]
    rest: npt.NDArray[np.float32]
    start_s: float
    stop_s: float
    low_hz: float
    high_hz: float


def planted(
    path: str | os.PathLike[str],
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    snr_db: float = 0.0,
    octaves: float = 0.0,
    into: str = "recording",
    clips_per_source: int | None = None,
    front_end: FrontEnd | None = None,
) -> Dataset:
    """Plant calls of each class of a folder in recordings of other classes.

    Parameters
    ----------
    path
        Folder of recordings, see `recordings.listing`.
    max_clips, seed, head_clips, resampler, front_end
        As in `recordings.folder`. Which call goes where, and when, is drawn from the seed and the
        call's name alone: two levels or bands have the same calls and hosts at the same times.
    snr_db
        Mean power of the call while it sounds over that of its host at the same time, in the call's
        band, in dB.
    octaves
        Limit the call to a band of so many octaves around the middle of its energy; 0 leaves it
        whole.
    into
        ``"recording"``: the host's loudest example; ``"background"``: noise with the mean spectrum
        of the host's quietest fifth.
    clips_per_source
        As in `recordings.folder`, of calls and of hosts; several calls may still have one host.

    Raises
    ------
    DataError
        See `recordings.folder`; also if there is no host for any call.
    """
    snr_db = checks.real("snr_db", snr_db)
    if checks.real("octaves", octaves) < 0:
        checks.refuse("octaves", "a width of 0 or more", repr(octaves), "0 leaves the call whole")
    if into not in HOSTS:
        checks.refuse("into", " or ".join(map(repr, HOSTS)), repr(into), "pick one")
    reader = Reader(checked_resampler(resampler), front_end=front_end)
    entries = listing(path)
    classes = len({entry.label_name for entry in entries})
    wanted = max(max_clips, 2 * min(classes, max_clips + 1))
    sample = draw(entries, str(path), wanted, seed, head_clips, reader, of_a_source=clips_per_source)
    clips = mixtures(sample, max_clips, seed, snr_db, float(octaves), into)
    if not clips:
        raise DataError(f"{path}: expected recordings of different classes and sources to mix, got none; add some.")
    settings = f"snr_db={snr_db:g}" + (f",octaves={octaves:g}" if octaves else "")
    settings += "" if into == HOSTS[0] else f",into={into}"
    return sample.dataset(f"planted:{Path(path).resolve().name},{settings}", clips, needs_good_head=False)


def mixtures(sample: Sample, count: int, seed: int, snr_db: float, octaves: float, into: str) -> tuple[Clip, ...]:
    """Make clips with a planted call."""
    clips = []
    entries = [entry for entry, _ in sample.sampled]
    for call in entries[:count]:
        rng = np.random.default_rng([seed, zlib.crc32(call.name.encode()), 3])
        others = [e for e in entries if e.label_name != call.label_name and e.source_group != call.source_group]
        if not others:
            continue
        host = others[int(rng.integers(len(others)))]
        front_end = sample.reader.front_end
        size = {"rate_hz": front_end.rate_hz, "samples": front_end.example_samples}
        mixed = mix(_wave(sample, call), _wave(sample, host), rng, snr_db, octaves, into, **size)
        if mixed is None:
            continue
        clips.append(clip_of(mixed, call, host, sample.class_names, front_end))
    return tuple(clips)


def _wave(sample: Sample, entry: Entry) -> Wave:
    wave = sample.reader.wave(entry)
    return np.zeros(0) if wave is None else wave.astype(np.float64)


def clip_of(mixed: Mixture, call: Entry, host: Entry, class_names: tuple[str, ...], front_end: FrontEnd) -> Clip:
    """Return the mixture as a clip of the call's class, with its stem and truth."""
    return Clip(
        name=f"{call.name} in {host.name}",
        x=examples_of(mixed.stem + mixed.rest, front_end)[0],
        label=class_names.index(call.label_name),
        label_name=call.label_name,
        source_group=call.source_group,
        stem=examples_of(mixed.stem, front_end)[0],
        rest=examples_of(mixed.rest, front_end)[0],
        truth=dominates(mixed.stem, mixed.rest, front_end),
    )


def mix(
    call: Wave,
    host: Wave,
    rng: np.random.Generator,
    snr_db: float,
    octaves: float = 0.0,
    into: str = "recording",
    *,
    rate_hz: int = SAMPLE_RATE_HZ,
    samples: int = SAMPLES,
) -> Mixture | None:
    """Plant the loudest stretch of `call` in `host`; None if either is silent.

    Parameters
    ----------
    call, host
        Recordings at `rate_hz` of any length.
    rng
        Draws the call's duration (0.3 to 0.6 s), its onset and, if `into` is a background, the
        noise.
    snr_db, octaves, into
        As in `planted`.
    rate_hz, samples
        Sample rate of both, and how many samples to make.
    """
    duration_s, place = rng.uniform(*DURATION_S), rng.random()
    n = min(round(float(duration_s) * rate_hz), call.size, samples)
    if n == 0 or host.size == 0:
        return None
    part = loudest_stretch(call, n) * envelope(n, FADE_S, FADE_S)
    low_hz, high_hz = band_around(part, octaves, rate_hz) if octaves else (0.0, rate_hz / 2)
    start = int(place * (samples - n + 1))
    stem = np.zeros(samples)
    stem[start : start + n] = band_limited(part, low_hz, high_hz, rate_hz) if octaves else part
    rest = background(host, rng, samples) if into == "background" else loudest_stretch(host, samples)
    level = np.sqrt(np.mean(rest**2))
    within = slice(start, start + n)
    call_power = np.mean(stem[within] ** 2)
    if level == 0 or call_power == 0:
        return None
    rest *= HOST_RMS / level
    heard = (band_limited(rest, low_hz, high_hz, rate_hz) if octaves else rest)[within]
    host_power = max(float(np.mean(heard**2)), HOST_RMS**2 * 1e-4)
    stem *= np.sqrt(10 ** (snr_db / 10) * host_power / call_power)
    scale = min(1.0, PEAK / np.abs(stem + rest).max())
    return Mixture(
        (scale * stem).astype(np.float32),
        (scale * rest).astype(np.float32),
        start / rate_hz,
        (start + n) / rate_hz,
        low_hz,
        high_hz,
    )


def loudest_stretch(wave: Wave, samples: int) -> Wave:
    """Copy the stretch of so many samples with the most energy.

    A shorter recording is continued by its mirror image.
    """
    if wave.size < samples:
        return np.pad(wave, (0, samples - wave.size), mode="symmetric")
    energy = np.concatenate([[0.0], np.cumsum(wave**2)])
    start = int((energy[samples:] - energy[:-samples]).argmax())
    return wave[start : start + samples].copy()


def band_around(wave: Wave, octaves: float, rate_hz: int = SAMPLE_RATE_HZ) -> tuple[float, float]:
    """Return the edges in Hz of a band around the median frequency of the wave's energy.

    The band lies within 150 Hz to 7.5 kHz.
    """
    power = np.abs(np.fft.rfft(wave)) ** 2
    hz = np.fft.rfftfreq(wave.size, 1 / rate_hz)
    power[(hz < LOWEST_HZ) | (hz > HIGHEST_HZ)] = 0.0
    total = np.cumsum(power)
    middle = float(hz[int(np.searchsorted(total, total[-1] / 2))])
    middle = min(max(middle, LOWEST_HZ * 2 ** (octaves / 2)), HIGHEST_HZ / 2 ** (octaves / 2))
    return max(middle / 2 ** (octaves / 2), 20.0), min(middle * 2 ** (octaves / 2), rate_hz / 2)


def band_limited(wave: Wave, low_hz: float, high_hz: float, rate_hz: int = SAMPLE_RATE_HZ) -> Wave:
    """Limit a wave to a band, zero-phase, so that nothing is left outside.

    The raised-cosine skirts, a sixth of an octave wide, lie inside the edges.
    """
    hz = np.maximum(np.fft.rfftfreq(wave.size, 1 / rate_hz), 1e-3)
    below, above = (np.log2(hz / low_hz) / SKIRT_OCTAVES, np.log2(high_hz / hz) / SKIRT_OCTAVES)
    gain = 0.5 - 0.5 * np.cos(np.pi * np.clip(np.minimum(below, above), 0, 1))
    return np.asarray(np.fft.irfft(np.fft.rfft(wave) * gain, wave.size))


def background(host: Wave, rng: np.random.Generator, samples: int = SAMPLES) -> Wave:
    """Make Gaussian noise ``(samples,)`` with the spectrum of the host's quietest windows.

    The spectrum is the mean power spectrum of the quietest fifth of the windows that are not
    silent.
    """
    host = host if host.size >= WINDOW else np.pad(host, (0, WINDOW - host.size), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(host, WINDOW)[:: WINDOW // 2] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(windows)) ** 2
    energy = power.sum(1)
    power, energy = power[energy > 0], energy[energy > 0]
    if not len(power):
        return np.zeros(samples)
    kept = np.argsort(energy)[: max(1, int(QUIETEST * len(energy)))]
    shape = np.sqrt(power[kept].mean(0))
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    at = np.linspace(0, len(shape) - 1, len(spectrum))
    return np.asarray(np.fft.irfft(spectrum * np.interp(at, np.arange(len(shape)), shape), samples))
