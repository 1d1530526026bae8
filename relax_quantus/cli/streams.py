"""Streams that may be closed or break: what is said goes to them as long as they take it, and the work goes on without them.

Daemons and GUI launchers start programs without stdout or stderr, readers such as ``head`` stop early, and disks run full under ``> file``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


class Lasting:
    """A text stream whose writes never fail: from the first that does on, what is written is dropped.

    Attributes
    ----------
    problem
        Why writing failed, once it has.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.problem: Exception | None = None

    def write(self, text: str) -> int:
        """Write `text` as far as the stream takes it."""
        if self.problem is None:
            try:
                self._stream.write(text)
            except UnicodeError:
                raise
            except (OSError, ValueError) as problem:  # broken or full; closed
                self._lose(problem)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write every one of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush as far as the stream takes it."""
        if self.problem is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as problem:
                self._lose(problem)

    def isatty(self) -> bool:
        """Whether somebody sits before it."""
        try:
            return self.problem is None and self._stream.isatty()
        except ValueError:
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, problem: Exception) -> None:
        self.problem = problem
        with contextlib.suppress(OSError, ValueError):  # what it still holds must go somewhere when Python ends
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, self._stream.fileno())
            finally:
                os.close(null)


@contextmanager
def lasting() -> Iterator[tuple[Lasting, Lasting]]:
    """Let stdout and stderr last; they are as before at the end. Where there is none, there is one that drops everything."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as null:
        streams = Lasting(before[0] or null), Lasting(before[1] or null)
        sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
        try:
            yield streams
        finally:
            for stream in streams:
                stream.flush()
            sys.stdout, sys.stderr = before


def occupy_closed() -> None:
    """Open the null device as each of the descriptors 0 to 2 that is closed, or the next file that is opened is taken for a stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
