"""How a command is stopped from outside, and the exit code that a shell expects then: Ctrl-C, SIGTERM, or nobody left who reads its output."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM, as from a cluster's scheduler: to stop as at Ctrl-C."""


class ReaderGoneError(Exception):
    """Whoever read stdout, such as ``head``, has stopped."""


def exit_code(stop: BaseException) -> int:
    """128 and the signal's number, as shells count."""
    number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
    return 128 + int(number)


def heed_termination() -> None:
    """Let SIGTERM end the process as Ctrl-C does, so that no half-written file stays behind."""

    def terminate(*_: Any) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)


def forget_reader() -> int:
    """Send what is still to be written to stdout nowhere, and return the exit code for a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13  # SIGPIPE's number, which Windows does not know
