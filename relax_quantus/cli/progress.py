"""How far a command is: a bar on a terminal; elsewhere, as in a cluster's log, a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from relax_quantus.cli.stopping import raise_if_asked
from relax_quantus.cli.terminal import redraws

EVERY_S = 30.0
"""Seconds between two plain lines, and before the first: what is done sooner says nothing."""


def progress(total: int, what: str, unit: str, begun: int = 0, *, say: Callable[[str], object] | None) -> Any:
    """A context whose ``update(n)`` is told of `n` more `unit` done; what can be said without a terminal goes to `say`, None for silence."""
    if say is None or not redraws(sys.stderr):
        return Lines(total, what, unit, begun, say or (lambda _: None))
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        """A bar at whose updates the command can be stopped."""

        def update(self, n: float | None = 1) -> bool | None:
            """Count `n` more."""
            raise_if_asked()
            return super().update(n)

    return Bar(
        total=total,
        initial=begun,
        desc=what,
        unit=unit,
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
        disable=False,
    )


class Lines:
    """Progress as lines of text, one at most every `EVERY_S`."""

    def __init__(self, total: int, what: str, unit: str, begun: int, say: Callable[[str], object]) -> None:
        self.total, self.what, self.unit, self.begun, self.say = total, what, unit, begun, say
        self.done, self.started = begun, time.monotonic()
        self.said = self.started

    def update(self, n: int = 1) -> None:
        """Count `n` more."""
        raise_if_asked()
        self.done += n
        now = time.monotonic()
        if now - self.said >= EVERY_S and self.done < self.total:
            self.said = now
            self.say(self.line(now - self.started))

    def line(self, seconds: float) -> str:
        """How far it is after so many seconds, and how long the rest may take, hours:minutes:seconds."""
        from tqdm import tqdm

        fresh = self.done - self.begun
        left = seconds / fresh * (self.total - self.done) if fresh else None
        times = tqdm.format_interval(seconds) + ("" if left is None else f", about {tqdm.format_interval(left)} left")
        return f"{self.what}: {self.done} of {self.total} {self.unit}s after {times}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass
