"""How a command is stopped from outside, by Ctrl-C or SIGTERM, and the exit code that a shell expects then.

The signal is raised where it arrives, as Python does it, and remembered: where that was in the callback of a library, which cannot pass it on, the
next thing that is said or counted raises it again (`raise_if_asked`).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

READER_GONE = 128 + 13
"""The exit code for a closed pipe: SIGPIPE's number, which Windows does not know."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as from a cluster's scheduler: to stop as at Ctrl-C."""


class _Asked:
    """Which stop was asked for and not yet answered, and how many parts of the program must not be interrupted now."""

    kind: type[KeyboardInterrupt] | None = None
    held = 0


def exit_code(stop: BaseException | type[BaseException]) -> int:
    """128 and the signal's number, as shells count."""
    kind = stop if isinstance(stop, type) else type(stop)
    return 128 + int(signal.SIGTERM if issubclass(kind, Terminated) else signal.SIGINT)


def heed_signals() -> None:
    """Let Ctrl-C and SIGTERM stop the process at any moment; where Ctrl-C is ignored, as in a shell's background jobs, it stays so."""
    _Asked.kind = None
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, _: Any) -> None:
    ask(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
    raise_if_asked()


def ask(kind: type[KeyboardInterrupt]) -> None:
    """Note a stop; SIGTERM counts more than Ctrl-C."""
    if _Asked.kind is not Terminated:
        _Asked.kind = kind


def asked() -> type[KeyboardInterrupt] | None:
    """Which stop was asked for, if any."""
    return _Asked.kind


def raise_if_asked() -> None:
    """Stop where it was asked for and the exception was lost on its way."""
    if _Asked.kind is not None and not _Asked.held:
        raise _Asked.kind


def answered() -> type[KeyboardInterrupt] | None:
    """Say that a stop has been seen to, and return which it was."""
    kind, _Asked.kind = _Asked.kind, None
    return kind


@contextmanager
def held() -> Iterator[None]:
    """Put a stop off until the end of what must not be done by halves."""
    _Asked.held += 1
    try:
        yield
    finally:
        _Asked.held -= 1
    raise_if_asked()
