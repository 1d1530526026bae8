"""Read an audio file as a mono float32 waveform.

First step of the flow: whatever libsndfile decodes (WAV, FLAC, OGG, MP3, 8-bit, A-law, any rate and
channel count) enters; a mono float32 waveform, full scale at 1, leaves, at the file's own rate
(`read_audio`) or at the encoder's (`load_waveform`, resampled by soxr or, on request, torchaudio).
Files are decoded, and by soxr resampled, block by block, so the memory needed is that of the
result; `waveform_blocks` hands the blocks out, and needs as little for an hour as for a second.

What cannot work is refused with an `AudioError` that names the file. What works but deserves a look
comes with an `AudioWarning`: hardly any level, channels that cancel, a damaged end, samples far
above full scale, a sample rate so low that the encoder's upper bands stay empty. A recording that
is constant but not zero (an offset only) is accepted with a warning. Shortness is no reason for
either: `load_examples` pads.

python-soundfile and libsndfile decode; `Recording` adds what they lack on recordings as found in
the wild: plain refusals, the samples before a break in a damaged file, and quiet (libsndfile's MP3
decoder writes notes such as "Illegal Audio-MPEG-Header" straight to file descriptor 2).
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from relax_quantus.audio import torchaudio_bridge
from relax_quantus.audio.quality import AudioWarning as AudioWarning
from relax_quantus.audio.quality import (
    Heard,
    Level,
    Patched,
    Waveform,
    announced_share,
    lacks_last_page,
    unfinished_header,
)
from relax_quantus.base import checks
from relax_quantus.base.checks import printable
from relax_quantus.base.registry import nearest
from relax_quantus.errors import ArgumentTypeError, AudioError, ShapeError, UnknownNameError

SAMPLE_RATE_HZ = 16_000
RESAMPLERS = ("soxr", "torchaudio")
"""soxr's high-quality filter, or `torchaudio.functional.resample` with its own defaults."""
MOST_RATIO = 1000
"""Times that a rate is raised at most."""
MOST_COMPRESSED = 32
"""Samples that a byte of a file is taken to hold, at most, when room is made for them; more are
read all the same."""
BLOCK_SAMPLES = 1 << 18
"""Samples that one block holds, all channels together (1 MiB of float32)."""


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
        If the file is missing, unreadable, empty or not audio, or decodes to nothing, to silence,
        or to NaN or infinite samples; also if its channels cancel each other completely.

    Warns
    -----
    AudioWarning
        If the recording is nearly silent or constant, far above full scale or damaged towards its
        end, or if its channels nearly cancel.
    """
    with Recording(path) as recording:
        level = Level(recording)
        wave = _join(recording, level.mono_blocks(), recording.announced_frames)
        level.judge(Heard(wave), recording.rate_hz)
        return wave, recording.rate_hz


def load_waveform(
    path: str | os.PathLike[str], sample_rate_hz: int = SAMPLE_RATE_HZ, resampler: str = "soxr"
) -> Waveform:
    """Read a file as a mono float32 waveform (samples,) at `sample_rate_hz`.

    The waveform is the same as that of `read_audio` followed by `resample`.

    Raises
    ------
    AudioError
        As `read_audio`, and if nothing is left at the new rate, or the file's own is less than a
        thousandth of it.
    UnknownNameError, MissingDependencyError
        For the reasons that `resample` has.

    Warns
    -----
    AudioWarning
        As `read_audio`; nearly silent refers to what is left at the new rate (a bat's call may lie
        wholly above it). Also if more than a tenth of the energy lies above half the new rate, or
        if the file's own rate is below 0.6 times `sample_rate_hz`.
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
    """Yield the waveform of `load_waveform` in blocks; memory does not grow with the recording.

    Joined, the blocks are the same bit for bit.

    Parameters
    ----------
    path
        Any file that libsndfile reads.
    sample_rate_hz
        Resampled to by soxr; None keeps the file's own rate, as `read_audio` does.

    Raises
    ------
    AudioError
        As `load_waveform`; what needs the whole recording to be known (it is silent), only after
        the last block.

    Warns
    -----
    AudioWarning
        For the reasons that `load_waveform` has, after the last block.

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
    """Decode the first seconds of a file, as `read_audio` does the whole.

    What follows is neither decoded nor judged.

    Raises
    ------
    AudioError
        If the file is missing, unreadable, empty or not audio, or decodes to nothing, to NaN or to
        infinite samples.
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
    """Tell how long a recording is: its frames (one sample a channel) and its own rate in Hz."""

    frames: int
    rate_hz: int

    @property
    def seconds(self) -> float:
        """Length of the recording in seconds."""
        return self.frames / self.rate_hz


def measure_extent(path: str | os.PathLike[str]) -> Extent:
    """Measure a recording by decoding it, as headers may announce anything.

    Memory does not grow with it.

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
        ``"soxr"``, its high-quality filter; or ``"torchaudio"``, see
        `relax_quantus.audio.torchaudio_bridge.resample`.

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
    """Return the name of a resampler, or say which there are.

    One that cannot be imported is refused here, before anything is read.
    """
    if name not in RESAMPLERS:
        rule, remedy = "the name of a resampler", nearest(name, list(RESAMPLERS))
        checks.refuse("resampler", rule, repr(name), remedy, UnknownNameError)
    if name == "torchaudio":
        torchaudio_bridge.import_torchaudio()
    return name


def _resampled(blocks: Iterator[Waveform], rate_hz: int, to_rate_hz: int) -> Iterator[Waveform]:
    """Resample block by block.

    What leaves is, joined, exactly what `resample` returns for the joined blocks.
    """
    stream = soxr.ResampleStream(rate_hz, to_rate_hz, 1, dtype="float32", quality="HQ")
    step = max(1, BLOCK_SAMPLES * rate_hz // to_rate_hz)  # what leaves is no larger than a block, either
    for block in blocks:
        for start in range(0, block.size, step):
            yield stream.resample_chunk(block[start : start + step])
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _refuse_unlikely_rate(recording: Recording, to_rate_hz: int) -> None:
    """Refuse a rate that only a damaged header announces.

    Brought to `to_rate_hz`, the recording would be endless.
    """
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


class _QuietStderr:
    """Send file descriptor 2 to the null device while at least one thread is inside.

    Where it is closed, the null device is left there.

    Threads share one redirection: the first in sets it, the last out lifts it, so that no thread
    saves another's null device as the real one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._redirect()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._saved is not None:
                os.dup2(self._saved, 2)
                os.close(self._saved)
                self._saved = None

    def _redirect(self) -> None:
        if os.environ.get("RELAX_QUANTUS_HIDDEN_STATE") == "off":  # see relax_quantus.relax.execution
            return
        with contextlib.suppress(Exception):  # sys.stderr may be None, closed or replaced
            sys.stderr.flush()  # else what it still holds would be lost
        try:
            null = os.open(os.devnull, os.O_WRONLY)
        except OSError:  # no descriptor left: chatter is the lesser evil
            return
        if null == 2:  # it was closed; it now stays the null device, or the next file opened would be taken for stderr
            return
        try:
            self._saved = os.dup(2)
            os.dup2(null, 2)
        except OSError as error:
            if error.errno == errno.EBADF:  # closed, with 0 or 1 closed as well: as above
                os.dup2(null, 2)
        os.close(null)


quiet_stderr = _QuietStderr()


class _ForwardReader(soundfile.SoundFile):  # type: ignore[misc]
    """Read a file in which python-soundfile does not seek after each block.

    Seeking fails in a truncated FLAC and garbles some MP3s.
    """

    def seekable(self) -> bool:
        return False


class Recording:
    """Open a recording. Use it in a ``with`` statement and read `blocks` once.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    name : str
        The path as it is shown in messages, on one line whatever characters it holds.
    rate_hz, channels : int
        The file's own sample rate in Hz and its number of channels.
    announced_frames : int or None
        Frames (one sample a channel) that its header announces, None if it does not say. The blocks
        may hold fewer, or more.
    problem : str or None
        Why decoding stopped before the end, once `blocks` is exhausted.

    Raises
    ------
    AudioError
        If the file is missing, a folder, unreadable, empty or not audio.
    """

    def __init__(self, path: str | bytes | os.PathLike[Any]) -> None:
        try:
            self.path = Path(os.fsdecode(path))
        except TypeError:
            checks.refuse("path", "a path", type(path).__name__, "pass a str or a pathlib.Path", ArgumentTypeError)
        self.name = printable(str(self.path))
        self.problem: str | None = None
        self._patched: Patched | None = None
        self._require_file()
        self._source = self._open()
        self.rate_hz = int(self._source.samplerate)
        self.channels = int(self._source.channels)
        self._is_ogg = self._source.format == "OGG"
        known = 0 <= self._source.frames < 2**40 and not self._is_ogg  # Ogg announces nothing: that is its last page's
        share = announced_share(self._source.extra_info)
        self.announced_frames: int | None = round(self._source.frames * share) if known else None

    def refuse(self, expected: str, got: str, remedy: str) -> NoReturn:
        """Raise an AudioError that names the file."""
        checks.refuse(self.name, expected, got, remedy, AudioError)

    def _require_file(self) -> None:
        expected = "a readable audio file"
        try:
            status = os.stat(self.path)
            if stat.S_ISDIR(status.st_mode):
                self.refuse(expected, "a folder", "pass a file inside it")
            if not stat.S_ISREG(status.st_mode):
                self.refuse(expected, "a device or pipe", "save the recording to a file first")
            with open(self.path, "rb"):
                pass
        except FileNotFoundError:
            self.refuse(expected, "no such file", "check the path")
        except PermissionError:
            self.refuse(expected, "no permission to read it", "change its permissions or copy it")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.refuse(expected, printable(reason), "check the path")
        if status.st_size == 0:
            self.refuse("a recording", "an empty file (0 bytes)", "copy or record it again")

    def _open(self) -> soundfile.SoundFile:
        file = os.fsencode(self.path) if os.name == "posix" else str(self.path)
        try:
            with quiet_stderr:
                source = _ForwardReader(file)
                unfinished = unfinished_header(self.path) if source.frames == 0 else None
                if unfinished is None:
                    return source
                source.close()
                self._patched = Patched(self.path, *unfinished)
                return _ForwardReader(self._patched)
        except soundfile.LibsndfileError as error:
            reason = str(error.error_string).strip().rstrip(".")
            if "not a regular file" in reason:  # the MP3 decoder's misleading word for "no MPEG frame found"
                reason = "Format not recognised"
        except (TypeError, ValueError):  # a name ending in .raw: no header, hence no rate
            reason = "headerless samples of unknown rate"
        self.refuse("audio that libsndfile decodes", printable(reason), "convert it to WAV or FLAC")

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield ``(n, channels)`` float32 blocks in order; each is overwritten by the next."""
        block = np.empty((max(1, BLOCK_SAMPLES // self.channels), self.channels), np.float32)
        noisy = self._source.subtype.startswith("MPEG")
        while self.problem is None:
            block.fill(np.nan)  # marks what a failing read leaves unwritten: its return value is lost with the error
            try:
                with quiet_stderr if noisy else contextlib.nullcontext():
                    read = len(self._source.read(out=block))
            except soundfile.LibsndfileError as error:
                self.problem = printable(str(error.error_string).strip().removeprefix("Error : ").rstrip("."))
                unwritten = np.isnan(block).all(axis=1)
                read = int(unwritten.argmax()) if unwritten.any() else len(block)
            if read == 0:
                if self._is_ogg and self.problem is None and lacks_last_page(self.path):
                    self.problem = "the file ends early"
                return
            yield block[:read]

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with quiet_stderr if self._source.subtype.startswith("MPEG") else contextlib.nullcontext():
            self._source.close()
        if self._patched is not None:
            self._patched.close()
