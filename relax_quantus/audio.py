"""Audio file -> mono float32 waveform.

First step of the flow: whatever libsndfile decodes (WAV, FLAC, OGG, MP3, 8-bit, A-law, any rate and channel count) enters; a mono float32
waveform, full scale at 1, leaves, at the file's own rate (`read_audio`) or at the encoder's (`load_waveform`, resampled by soxr or, on
request, torchaudio). Files are decoded, and by soxr resampled, block by block, so the memory needed is that of the result.

What cannot work is refused with an `AudioError` that names the file. What works but deserves a look comes with an `AudioWarning`: hardly any
level, channels that cancel, a damaged end, samples far above full scale, a sample rate so low that the encoder's upper bands stay empty. A
recording that is constant but not zero (an offset only) is accepted with a warning. Shortness is no reason for either: `load_examples` pads.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import soxr

from relax_quantus import checks, torchaudio_bridge
from relax_quantus.decoding import Recording
from relax_quantus.errors import ArgumentTypeError, ShapeError, UnknownNameError
from relax_quantus.registry import nearest

SAMPLE_RATE_HZ = 16_000
QUIET_PEAK = 1e-3
"""Half the range of the samples (-60 dB of full scale) below which a recording is called nearly silent."""
LOUD_PEAK = 4.0
"""Peak above which floating-point samples are taken for wrongly scaled ones (decoded MP3 goes to about 1.6)."""
CANCELLATION = 100
"""Share of the channels' mean energy, times their number, that mixing down may lose: for stereo 23 dB (independent channels lose 3)."""
LOW_RATE = 0.6
"""Share of the wanted sample rate below which a recording leaves much of the upper range empty."""
LOST_S = 0.25
"""Seconds that may be missing at the end before a warning: an MP3's announced length is off by a few frames."""
RESAMPLERS = ("soxr", "torchaudio")
"""soxr's high-quality filter, or `torchaudio.functional.resample` with its own defaults."""

Waveform = npt.NDArray[np.float32]


class AudioWarning(UserWarning):
    """A recording was accepted, but something about it may make its explanation misleading."""


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
        level = _Level(recording)
        wave = _join(recording, level.mono_blocks(), recording.announced_frames)
        level.judge(wave, recording.rate_hz)
        return wave, recording.rate_hz


def load_waveform(
    path: str | os.PathLike[str], sample_rate_hz: int = SAMPLE_RATE_HZ, resampler: str = "soxr"
) -> Waveform:
    """Read a file as a mono float32 waveform (samples,) at `sample_rate_hz`, the same as `read_audio` followed by `resample`.

    Raises
    ------
    AudioError
        As `read_audio`, and if nothing is left at the new rate.
    UnknownNameError, MissingDependencyError
        As `resample`.

    Warns
    -----
    AudioWarning
        As `read_audio`; nearly silent refers to what is left at the new rate (a bat's call may lie wholly above it). Also if
        the file's own rate is below 0.6 times `sample_rate_hz`.
    """
    sample_rate_hz, resampler = checks.integer("sample_rate_hz", sample_rate_hz), checked_resampler(resampler)
    with Recording(path) as recording:
        level = _Level(recording)
        if recording.rate_hz == sample_rate_hz:
            wave = _join(recording, level.mono_blocks(), recording.announced_frames)
        elif resampler == "torchaudio":
            wave = _join(recording, level.mono_blocks(), recording.announced_frames)
            wave = torchaudio_bridge.resample(wave, recording.rate_hz, sample_rate_hz)
        else:
            frames = recording.announced_frames
            expected = None if frames is None else math.ceil(frames * sample_rate_hz / recording.rate_hz) + 1
            wave = _join(recording, _resampled(level.mono_blocks(), recording.rate_hz, sample_rate_hz), expected)
        level.judge(wave, sample_rate_hz)
        return wave


def resample(wave: Waveform, rate_hz: int, to_rate_hz: int = SAMPLE_RATE_HZ, resampler: str = "soxr") -> Waveform:
    """Resample a floating-point waveform (samples,); the same array comes back if the rates agree.

    Parameters
    ----------
    wave
        ``(samples,)``, floating.
    rate_hz, to_rate_hz
        Sample rates in Hz.
    resampler
        ``"soxr"``, its high-quality filter; or ``"torchaudio"``, see `relax_quantus.torchaudio_bridge.resample`.

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
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _join(recording: Recording, blocks: Iterator[Waveform], expected: int | None) -> Waveform:
    """Join blocks into one array of about `expected` samples without holding both."""
    try:
        wave = np.empty(expected or 1 << 20, np.float32)
    except MemoryError:  # a damaged header may announce anything
        wave = np.empty(1 << 20, np.float32)
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


class _Level:
    """Mixes a recording down to mono and keeps, while its blocks pass by, what `judge` needs."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.frames = 0
        self.peak = 0.0
        self.low, self.high = math.inf, -math.inf
        self.channel_energy = 0.0
        self.mono_energy = 0.0

    def mono_blocks(self) -> Iterator[Waveform]:
        """Yield the mean of the channels, block by block."""
        for block in self.recording.blocks():
            if not np.isfinite(block).all():
                self.recording.refuse("finite samples", "NaN or infinite ones", "export the recording again")
            mono = block.mean(axis=1, dtype=np.float64)
            self.frames += len(block)
            self.peak = max(self.peak, float(block.max()), -float(block.min()))
            self.low, self.high = min(self.low, float(mono.min())), max(self.high, float(mono.max()))
            self.mono_energy += float(mono @ mono)
            self.channel_energy += float(np.square(block, dtype=np.float64).sum()) / self.recording.channels
            yield mono.astype(np.float32)

    @property
    def seconds(self) -> str:
        """What was decoded, for messages."""
        return f"{self.frames / self.recording.rate_hz:.2f} s"

    def judge(self, wave: Waveform, rate_hz: int) -> None:
        """Refuse a recording without sound and warn of doubtful ones, now that all of it has been read as `wave` at `rate_hz`."""
        refuse, channels = self.recording.refuse, self.recording.channels
        if self.frames == 0:
            problem = self.recording.problem
            got = f"a damaged file ({problem})" if problem else "a header without samples"
            refuse("at least one sample", got, "copy or record it again")
        if self.peak == 0.0:
            refuse("sound", f"{self.seconds} of digital silence", "leave it out or record it again")
        if self.mono_energy == 0.0:
            refuse("sound after mixing to mono", f"{channels} channels that cancel", "export one channel alone")
        if not wave.any():
            refuse("sound after resampling", f"silence from {self.seconds}", "use a longer or louder recording")
        if not np.isfinite(wave).all():
            refuse("samples around [-1, 1]", f"a peak of {self.peak:.3g}", "scale the recording down")
        remarks = (self._damage(), self._cancellation(), self._overload(), self._silence(wave), self._narrow(rate_hz))
        for remark in remarks:
            if remark:
                warnings.warn(f"{self.recording.name}: {remark}.", AudioWarning, stacklevel=3)

    def _damage(self) -> str:
        announced, problem = self.recording.announced_frames, self.recording.problem
        lost_s = 0.0 if announced is None else (announced - self.frames) / self.recording.rate_hz
        if not problem and lost_s <= LOST_S:
            return ""
        rest = "" if announced is None else f" of {announced / self.recording.rate_hz:.2f} s"
        why = problem or "the file ends early"
        return f"only the first {self.seconds}{rest} could be decoded ({why}); copy or record it again if you can"

    def _cancellation(self) -> str:
        if self.mono_energy * CANCELLATION * self.recording.channels >= self.channel_energy:
            return ""
        loss = 10 * math.log10(self.channel_energy / self.mono_energy)
        return f"its channels nearly cancel when mixed to mono ({loss:.0f} dB lost); export one channel alone"

    def _overload(self) -> str:
        if self.peak <= LOUD_PEAK:
            return ""
        return f"its peak is {self.peak:.3g} where full scale is 1; scale it to [-1, 1] if that is a mistake"

    def _silence(self, wave: Waveform) -> str:
        before, after = (self.high - self.low) / 2, float(wave.max() - wave.min()) / 2
        if self.high == self.low:
            return f"it is constant ({self.high:.3g}), an offset without sound; record it again"
        if before < QUIET_PEAK:
            return f"it is nearly silent ({20 * math.log10(before):.0f} dB of full scale); raise its level"
        if after < QUIET_PEAK:
            level = 20 * math.log10(max(after, 1e-12))
            return f"it is nearly silent ({level:.0f} dB of full scale) once resampled; its sound lies at higher frequencies"
        return ""

    def _narrow(self, rate_hz: int) -> str:
        own = self.recording.rate_hz
        return f"it is sampled at {own} Hz and holds nothing above {own // 2} Hz" if own < LOW_RATE * rate_hz else ""
