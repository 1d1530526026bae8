"""Audio file -> mono float32 waveform.

First step of the flow: whatever libsndfile decodes (WAV, FLAC, OGG, MP3, 8-bit, A-law, any rate and channel count) enters; a mono float32
waveform, full scale at 1, leaves, at the file's own rate (`read_audio`) or at the encoder's (`load_waveform`, resampled by soxr or, on
request, torchaudio). Files are decoded, and by soxr resampled, block by block, so the memory needed is that of the result; `waveform_blocks`
hands the blocks out, and needs no more memory for an hour than for a second.

What cannot work is refused with an `AudioError` that names the file. What works but deserves a look comes with an `AudioWarning`: hardly any
level, channels that cancel, a damaged end, samples far above full scale, a sample rate so low that the encoder's upper bands stay empty. A
recording that is constant but not zero (an offset only) is accepted with a warning. Shortness is no reason for either: `load_examples` pads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soxr

from relax_quantus.audio import torchaudio_bridge
from relax_quantus.audio.decoding import BLOCK_SAMPLES, Recording
from relax_quantus.audio.quality import AudioWarning as AudioWarning
from relax_quantus.audio.quality import Heard, Level, Waveform
from relax_quantus.base import checks
from relax_quantus.base.registry import nearest
from relax_quantus.errors import ArgumentTypeError, ShapeError, UnknownNameError

SAMPLE_RATE_HZ = 16_000
RESAMPLERS = ("soxr", "torchaudio")
"""soxr's high-quality filter, or `torchaudio.functional.resample` with its own defaults."""
MOST_RATIO = 1000
"""Times that a rate is raised at most."""
MOST_COMPRESSED = 32
"""Samples that a byte of a file is taken to hold, at most, when room is made for them; more are read all the same."""


def read_audio(path: str | os.PathLike[str]) -> tuple[Waveform, int]:
    """Decode a file and mix it down to mono.

    Parameters
    ----------
    path
        Any file that libsndfile reads.

    Returns
    -------
    wave : numpy.ndarray of float32, shape (samples,)
        The mean of the channels, full scale at 1, at least one sample, not all zero.
    rate : int
        The file's own sample rate in Hz.

    Raises
    ------
    AudioError
        If the file is missing, unreadable, empty or not audio, or decodes to nothing, to silence, or to NaN or infinite samples; also if its
        channels cancel each other completely.

    Warns
    -----
    AudioWarning
        If the recording is nearly silent or constant, far above full scale or damaged towards its end, or if its channels nearly cancel.
    """
    with Recording(path) as recording:
        level = Level(recording)
        wave = _join(recording, level.mono_blocks(), recording.announced_frames)
        level.judge(Heard(wave), recording.rate_hz)
        return wave, recording.rate_hz


def load_waveform(
    path: str | os.PathLike[str], sample_rate_hz: int = SAMPLE_RATE_HZ, resampler: str = "soxr"
) -> Waveform:
    """Read a file as a mono float32 waveform (samples,) at `sample_rate_hz`, the same as `read_audio` followed by `resample`.

    Raises
    ------
    AudioError
        As `read_audio`, and if nothing is left at the new rate, or the file's own is less than a thousandth of it.
    UnknownNameError, MissingDependencyError
        As `resample`.

    Warns
    -----
    AudioWarning
        As `read_audio`; nearly silent refers to what is left at the new rate (a bat's call may lie wholly above it). Also if
        more than a tenth of the energy lies above half the new rate, or if the file's own rate is below 0.6 times `sample_rate_hz`.
    """
    sample_rate_hz, resampler = checks.integer("sample_rate_hz", sample_rate_hz), checked_resampler(resampler)
    with Recording(path) as recording:
        _refuse_unlikely_rate(recording, sample_rate_hz)
        level = Level(recording)
        if recording.rate_hz == sample_rate_hz:
            wave = _join(recording, level.mono_blocks(), recording.announced_frames)
        elif resampler == "torchaudio":
            wave = _join(recording, level.mono_blocks(), recording.announced_frames)
            wave = torchaudio_bridge.resample(wave, recording.rate_hz, sample_rate_hz)
        else:
            frames = recording.announced_frames
            expected = None if frames is None else math.ceil(frames * sample_rate_hz / recording.rate_hz) + 1
            wave = _join(recording, _resampled(level.mono_blocks(), recording.rate_hz, sample_rate_hz), expected)
        level.judge(Heard(wave), sample_rate_hz)
        return wave


def waveform_blocks(path: str | os.PathLike[str], sample_rate_hz: int | None = SAMPLE_RATE_HZ) -> Iterator[Waveform]:
    """Yield the waveform of `load_waveform` in blocks, joined the same bit for bit; memory does not grow with the recording.

    Parameters
    ----------
    path
        Any file that libsndfile reads.
    sample_rate_hz
        Resampled to by soxr; None keeps the file's own rate, as `read_audio` does.

    Raises
    ------
    AudioError
        As `load_waveform`; what needs the whole recording to be known (it is silent), only after the last block.

    Warns
    -----
    AudioWarning
        As `load_waveform`, after the last block.

    Examples
    --------
    >>> sum(block.size for block in waveform_blocks("hour.flac"))  # doctest: +SKIP
    57600000
    """
    with Recording(path) as recording:
        level, heard = Level(recording), Heard()
        rate_hz = recording.rate_hz if sample_rate_hz is None else checks.integer("sample_rate_hz", sample_rate_hz)
        _refuse_unlikely_rate(recording, rate_hz)
        blocks = level.mono_blocks()
        if rate_hz != recording.rate_hz:
            blocks = _resampled(blocks, recording.rate_hz, rate_hz)
        yield from heard.passing(blocks)
        level.judge(heard, rate_hz)


def read_beginning(path: str | os.PathLike[str], seconds: float) -> tuple[Waveform, int]:
    """Decode the first seconds of a file, as `read_audio` does the whole; what follows is neither decoded nor judged.

    Raises
    ------
    AudioError
        If the file is missing, unreadable, empty or not audio, or decodes to nothing, to NaN or to infinite samples.
    """
    with Recording(path) as recording:
        wanted = max(1, math.ceil(seconds * recording.rate_hz))
        parts, samples = [], 0
        for block in Level(recording).mono_blocks():
            parts.append(block)
            samples += block.size
            if samples >= wanted:
                break
        if samples == 0:
            recording.refuse("at least one sample", "a header without samples", "copy or record it again")
        return np.concatenate(parts)[:wanted], recording.rate_hz


@dataclass(frozen=True)
class Extent:
    """How long a recording is: its frames (one sample a channel) and its own sample rate in Hz."""

    frames: int
    rate_hz: int

    @property
    def seconds(self) -> float:
        """Its length in seconds."""
        return self.frames / self.rate_hz


def measure_extent(path: str | os.PathLike[str]) -> Extent:
    """Measure a recording by decoding it, as headers may announce anything; memory does not grow with it.

    Raises
    ------
    AudioError
        If the file is missing, unreadable, empty or not audio, or decodes to nothing.
    """
    with Recording(path) as recording:
        frames = sum(len(block) for block in recording.blocks())
        if frames == 0:
            recording.refuse("at least one sample", "a header without samples", "copy or record it again")
        return Extent(frames, recording.rate_hz)


def resample(wave: Waveform, rate_hz: int, to_rate_hz: int = SAMPLE_RATE_HZ, resampler: str = "soxr") -> Waveform:
    """Resample a floating-point waveform (samples,); the same array comes back if the rates agree.

    Parameters
    ----------
    wave
        ``(samples,)``, floating.
    rate_hz, to_rate_hz
        Sample rates in Hz.
    resampler
        ``"soxr"``, its high-quality filter; or ``"torchaudio"``, see `relax_quantus.audio.torchaudio_bridge.resample`.

    Raises
    ------
    UnknownNameError
        If there is no such resampler.
    MissingDependencyError
        If it is torchaudio and that does not import.

    Examples
    --------
    >>> resample(np.zeros(44_100, np.float32), 44_100).shape
    (16000,)
    """
    rate_hz, to_rate_hz = checks.integer("rate_hz", rate_hz), checks.integer("to_rate_hz", to_rate_hz)
    resampler, wave = checked_resampler(resampler), np.asarray(wave)
    if wave.ndim != 1:
        checks.refuse("wave", "shape (samples,)", wave, "mix channels down to mono first", ShapeError)
    if wave.dtype.kind != "f":
        checks.refuse("wave", "floating-point samples", wave, "scale it to [-1, 1] first", ArgumentTypeError)
    if rate_hz == to_rate_hz:
        return wave
    wave = wave.astype(np.float32)
    if resampler == "torchaudio":
        return torchaudio_bridge.resample(wave, rate_hz, to_rate_hz)
    return np.asarray(soxr.resample(wave, rate_hz, to_rate_hz, quality="HQ"), dtype=np.float32)


def checked_resampler(name: str) -> str:
    """Return the name of a resampler, or say which there are; one that cannot be imported is refused here, before anything is read."""
    if name not in RESAMPLERS:
        rule, remedy = "the name of a resampler", nearest(name, list(RESAMPLERS))
        checks.refuse("resampler", rule, repr(name), remedy, UnknownNameError)
    if name == "torchaudio":
        torchaudio_bridge.import_torchaudio()
    return name


def _resampled(blocks: Iterator[Waveform], rate_hz: int, to_rate_hz: int) -> Iterator[Waveform]:
    """Resample block by block; what leaves is, joined, exactly what `resample` returns for the joined blocks."""
    stream = soxr.ResampleStream(rate_hz, to_rate_hz, 1, dtype="float32", quality="HQ")
    step = max(1, BLOCK_SAMPLES * rate_hz // to_rate_hz)  # what leaves is no larger than a block, either
    for block in blocks:
        for start in range(0, block.size, step):
            yield stream.resample_chunk(block[start : start + step])
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _refuse_unlikely_rate(recording: Recording, to_rate_hz: int) -> None:
    """Refuse a rate that only a damaged header announces: brought to `to_rate_hz`, the recording would be endless."""
    if recording.rate_hz * MOST_RATIO < to_rate_hz:
        rule = f"a sample rate of at least {-(-to_rate_hz // MOST_RATIO)} Hz, to be brought to {to_rate_hz} Hz"
        recording.refuse(rule, f"{recording.rate_hz} Hz", "correct its header")


def _join(recording: Recording, blocks: Iterator[Waveform], expected: int | None) -> Waveform:
    """Join blocks into one array of about `expected` samples without holding both."""
    believable = max(1 << 20, MOST_COMPRESSED * os.stat(recording.path).st_size)  # a header may announce anything
    wave = np.empty(min(expected or 1 << 20, believable), np.float32)
    used = 0
    try:
        for block in blocks:
            if used + block.size > wave.size:
                wave.resize(max(used + block.size, wave.size + wave.size // 4), refcheck=False)
            wave[used : used + block.size] = block
            used += block.size
    except MemoryError:
        recording.refuse("a recording that fits in memory", f"more than {used} samples", "cut it into shorter files")
    wave.resize(used, refcheck=False)
    return wave
