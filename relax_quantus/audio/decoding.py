"""Audio file -> blocks of float32 samples, forwards, once, without the decoder's chatter.

The first half of the first step of the flow, used only by `relax_quantus.audio.reading`: a path enters; blocks ``(n, channels)`` of float32 samples,
full scale at 1, leave at the file's own rate. python-soundfile and libsndfile decode; this module adds what they lack on recordings as found
in the wild: plain refusals, the samples before a break in a damaged file, and quiet (libsndfile's MP3 decoder writes notes such as
"Illegal Audio-MPEG-Header" straight to file descriptor 2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import soundfile

from relax_quantus.audio import unclosed
from relax_quantus.base import checks
from relax_quantus.base.checks import printable
from relax_quantus.errors import ArgumentTypeError, AudioError

BLOCK_SAMPLES = 1 << 18
"""Samples that one block holds, all channels together (1 MiB of float32)."""


class _QuietStderr:
    """Send file descriptor 2 to the null device while at least one thread is inside; where it is closed, leave the null device there.

    Threads share one redirection: the first in sets it, the last out lifts it, so that no thread saves another's null device as the real one.
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
    """A file in which python-soundfile does not seek after each block: that fails in a truncated FLAC and garbles some MP3s."""

    def seekable(self) -> bool:
        return False


class Recording:
    """An open recording. Use it in a ``with`` statement and read `blocks` once.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    name : str
        The path as it is shown in messages, on one line whatever characters it holds.
    rate_hz, channels : int
        Its own sample rate and number of channels.
    announced_frames : int or None
        Frames (one sample a channel) that its header announces, None if it does not say. The blocks may hold fewer, or more.
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
        self._patched: unclosed.Patched | None = None
        self._require_file()
        self._source = self._open()
        self.rate_hz = int(self._source.samplerate)
        self.channels = int(self._source.channels)
        self._is_ogg = self._source.format == "OGG"
        known = 0 <= self._source.frames < 2**40 and not self._is_ogg  # Ogg announces nothing: that is its last page's
        share = unclosed.announced_share(self._source.extra_info)
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
                unfinished = unclosed.unfinished_header(self.path) if source.frames == 0 else None
                if unfinished is None:
                    return source
                source.close()
                self._patched = unclosed.Patched(self.path, *unfinished)
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
                if self._is_ogg and self.problem is None and unclosed.lacks_last_page(self.path):
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
