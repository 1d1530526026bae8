"""Stopping a command by Ctrl-C or SIGTERM, and the exit code that a shell expects then.

A signal raises an exception where it arrives, as Python does it, and is remembered. If it arrived
in a callback of a library that swallows exceptions, the next line that is printed or the next step
that is counted raises it again (`raise_if_asked`).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

READER_GONE = 128 + 13
"""Exit code for a closed pipe, 128 + SIGPIPE; Windows does not know that signal."""


class Terminated(KeyboardInterrupt):
    """Raised at SIGTERM, as from a cluster's scheduler; handled as Ctrl-C."""


class _Asked:
    """The stop that was asked for, and how many `held` blocks must not be interrupted now."""

    kind: type[KeyboardInterrupt] | None = None
    held = 0


def exit_code(stop: BaseException | type[BaseException]) -> int:
    """Return 128 plus the signal's number, as shells do."""
    kind = stop if isinstance(stop, type) else type(stop)
    return 128 + int(signal.SIGTERM if issubclass(kind, Terminated) else signal.SIGINT)


def heed_signals() -> None:
    """Install the handlers of Ctrl-C and SIGTERM.

    Where Ctrl-C is ignored, as in a shell's background jobs, it stays ignored.
    """
    _Asked.kind = None
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, _: Any) -> None:
    ask(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
    raise_if_asked()


def ask(kind: type[KeyboardInterrupt]) -> None:
    """Remember a stop; SIGTERM counts more than Ctrl-C."""
    if _Asked.kind is not Terminated:
        _Asked.kind = kind


def asked() -> type[KeyboardInterrupt] | None:
    """Return the stop that was asked for, or None."""
    return _Asked.kind


def raise_if_asked() -> None:
    """Raise the stop that was asked for, unless a `held` block is running."""
    if _Asked.kind is not None and not _Asked.held:
        raise _Asked.kind


def answered() -> type[KeyboardInterrupt] | None:
    """Forget the stop that was asked for, as it has been handled, and return it."""
    kind, _Asked.kind = _Asked.kind, None
    return kind


@contextmanager
def held() -> Iterator[None]:
    """Put a stop off until the end of the block, which must be done as a whole."""
    _Asked.held += 1
    try:
        yield
    finally:
        _Asked.held -= 1
    raise_if_asked()
