"""What the command line prints and what stops it: lines, progress, Ctrl-C and SIGTERM.

Errors and warnings go to stderr and results to stdout, without wrapping or boxes, so that names
can be copied and lines counted. Results are lines of text, with ``--json`` one JSON object a line;
with ``--quiet`` only errors are printed. A stream that is closed or breaks ends nothing: daemons
start programs without stdout or stderr, readers such as ``head`` stop early, disks run full.

A stop signal raises an exception where it arrives, as Python does it, and is remembered. If it
arrived in a callback of a library that swallows exceptions, the next line that is printed or the
next step that is counted raises it again (`raise_if_asked`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self, TextIO, cast

from relax_quantus.base.checks import one_line as one_line
from relax_quantus.base.checks import shown as shown
from relax_quantus.errors import RelaxQuantusError

READER_GONE = 128 + 13
"""Exit code for a closed pipe, 128 + SIGPIPE; Windows does not know that signal."""
debugging: ContextVar[bool] = ContextVar("debugging", default=False)

COLOURS = {"red": 31, "yellow": 33}
EVERY_S = 30.0
"""Seconds before the first line of progress where there is no bar, and between two of them."""

_SAME = (
    *(
        "annotations",
        "away",
        "corpus",
        "data",
        "domain",
        "encoder",
        "estimator",
        "fine_tune",
        "front_end",
        "masks",
        "max_clips",
    ),
    *(
        "html",
        "max_examples",
        "n_samples",
        "out",
        "precision",
        "preset",
        "reference",
        "resampler",
        "retry",
        "scheduler",
    ),
    *("seed", "sha256", "similarity", "sounds", "strict", "time_limit", "tolerance", "weights", "workers"),
)
OPTIONS = {
    **{name: f"--{name.replace('_', '-')}" for name in _SAME},
    "baselines": "--baseline",
    "fill": "--baseline",
    "forward_func": "--encoder",
    "hop_s": "--hop",
    "layer": "--encoder NAME:layer",
    "model": "--encoder",
    "normalize": "--encoder NAME:normalize",
    "pooling": "--encoder NAME:pooling",
    "transform": "--front-end",
}
"""Name of an argument in the library and of the option that stands for it."""


# Results, errors and warnings


@dataclass(frozen=True)
class Manner:
    """Say what is printed: errors only (`quiet`), results as JSON (`json`)."""

    quiet: bool = False
    json: bool = False


FOR_PEOPLE = Manner()
manner: ContextVar[Manner] = ContextVar("manner", default=FOR_PEOPLE)


def _write(line: str, stream: TextIO | None) -> None:
    if stream is None:  # only outside of `lasting`
        return
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(line, file=stream)
        stream.flush()
    else:
        print(line, file=stream, flush=True)


def result(line: str, kind: str | None = None, /, **facts: Any) -> None:
    """Print a result on stdout, above any progress bar.

    With ``--json`` an object of type `kind` with the `facts` is printed instead, or nothing if
    there is no `kind`.
    """
    raise_if_asked()
    if manner.get().json:
        if kind is not None:
            _write(json.dumps({"type": kind, **machine(facts)}, allow_nan=False), sys.stdout)
    elif not manner.get().quiet:
        _write(line, sys.stdout)


def machine(value: Any) -> Any:
    """Convert `value` to what JSON knows: paths become strings, NaN and infinity null."""
    if isinstance(value, dict):
        return {str(key): machine(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [machine(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def for_people() -> bool:
    """Return whether results are printed as text: neither ``--json`` nor ``--quiet``."""
    return manner.get() == FOR_PEOPLE


def error(line: str, about: str | os.PathLike[str] | None = None) -> None:
    """Print ``error: ...`` as one line on stderr; with ``--json`` also an object on stdout."""
    _write(f"{painted('error:', 'red', sys.stderr)} {one_line(line)}", sys.stderr)
    if manner.get().json:
        result("", "error", about=about, message=one_line(line))


def warning(line: str) -> None:
    """Print ``warning: ...`` as one line on stderr, above any progress bar."""
    if not manner.get().quiet:
        _write(f"{painted('warning:', 'yellow', sys.stderr)} {one_line(line)}", sys.stderr)


def note(line: str) -> None:
    """Print a remark as one line on stderr, above any progress bar."""
    if not manner.get().quiet:
        _write(one_line(line), sys.stderr)


def report(problem: BaseException, about: str | os.PathLike[str] | None = None) -> None:
    """Print an error as one line that names the file it is `about`; with ``--debug`` trace it."""
    text = complaint(problem)
    if about is not None and os.fspath(about) not in text and shown(about) not in text:
        text = f"{shown(about)}: {text}"
    if debugging.get():
        traceback.print_exception(problem, file=sys.stderr)
    error(text, about)


def complaint(problem: BaseException) -> str:
    """Say in one line what went wrong and what to do.

    The package's own errors say so themselves; errors of the command line name the help to read,
    and those of the file system the file. Anything else is a defect, and is called unexpected.
    """
    if isinstance(problem, RelaxQuantusError):
        return spoken(str(problem))
    if hasattr(problem, "format_message"):
        context = getattr(problem, "ctx", None)
        hint = f" See '{context.command_path} --help'." if context is not None else ""
        text = str(problem.format_message())
        return text + ("" if text.endswith((".", "?")) else ".") + hint
    if isinstance(problem, OSError) and problem.strerror:
        where = f"{shown(problem.filename)}: " if isinstance(problem.filename, str | bytes | os.PathLike) else ""
        return f"{where}{problem.strerror}"
    if isinstance(problem, MemoryError):
        return "out of memory; use shorter recordings, fewer at once or a smaller --max-examples"
    return f"unexpected {type(problem).__name__}: {problem}; add --debug for the traceback"


@contextmanager
def plain() -> Iterator[None]:
    """Print each warning once, as one line, with ``--debug`` with where it comes from.

    What ``--quiet``, ``--json`` and ``--debug`` have set is reset at the end.
    """
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        text = spoken(str(message)) + (f" ({category.__name__}, {filename}:{lineno})" if debugging.get() else "")
        if text not in seen:
            seen.add(text)
            warning(text)

    tokens = debugging.set(False), manner.set(FOR_PEOPLE)
    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield
        finally:
            debugging.reset(tokens[0])
            manner.reset(tokens[1])


def spoken(text: str) -> str:
    """Replace the argument at the beginning of a message by its option, and advice by a command's.

    Examples
    --------
    >>> spoken("baselines: expected the name of a fill, got 'silense'")
    "--baseline: expected the name of a fill, got 'silense'"
    >>> spoken("masks.wav: expected sound")
    'masks.wav: expected sound'
    """
    text = text.replace("; max_examples=0 explains all of it", "; --max-examples 0 explains all of it")
    argument, colon, rest = text.partition(":")
    name, equals, value = argument.partition("=")
    if not colon or name not in OPTIONS or (equals and not value):
        return text
    return f"{OPTIONS[name]}{' ' if equals else ''}{value}:{rest}"


# Progress


def bars() -> bool:
    """Return whether progress bars may be drawn."""
    return redraws(sys.stderr) and not manner.get().quiet


class Progress:
    """Show how far a command is, and stop it where that was asked for.

    A bar on a terminal; elsewhere, as in a cluster's log, a line at most every `EVERY_S`; nothing
    with ``--quiet``. A context manager.
    """

    def __init__(self, total: int, what: str, unit: str, begun: int = 0) -> None:
        self.total, self.what, self.unit, self.begun = total, what, unit, begun
        self.done, self.started = begun, time.monotonic()
        self.said = self.started
        self.bar: Any = None
        if bars():
            from tqdm import tqdm

            shown_as: dict[str, Any] = {"desc": what, "unit": unit, "leave": False, "dynamic_ncols": True}
            self.bar = tqdm(total=total, initial=begun, file=sys.stderr, disable=False, **shown_as)

    def update(self, n: int = 1) -> None:
        """Count `n` more."""
        raise_if_asked()
        self.done += n
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(n)
        elif now - self.said >= EVERY_S and self.done < self.total:
            self.said = now
            note(self.line(now - self.started))

    def set_postfix(self, **facts: object) -> None:
        """Show `facts` after the bar, if there is one."""
        if self.bar is not None:
            self.bar.set_postfix(facts)

    def line(self, seconds: float) -> str:
        """Say how far it is after so many `seconds`, and how long the rest may take."""
        from tqdm import tqdm

        fresh = self.done - self.begun
        left = seconds / fresh * (self.total - self.done) if fresh else None
        times = tqdm.format_interval(seconds) + ("" if left is None else f", about {tqdm.format_interval(left)} left")
        return f"{self.what}: {self.done} of {self.total} {self.unit}s after {times}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


progress = Progress


# Streams


def coloured(stream: TextIO) -> bool:
    """Return whether `stream` may have colours; NO_COLOR wins over FORCE_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or redraws(stream)


def redraws(stream: TextIO | None) -> bool:
    """Return whether a line on `stream` can be replaced: it is a terminal and not a dumb one."""
    return stream is not None and not stream.closed and stream.isatty() and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: str, stream: TextIO) -> str:
    """Return `text` in bold and in a colour of `COLOURS`, where `stream` may have colours."""
    return f"\x1b[1;{COLOURS[colour]}m{text}\x1b[0m" if coloured(stream) else text


class Lasting:
    """Write to a text stream that may break: after the first failure, drop what is written.

    Attributes
    ----------
    problem
        The error of the first write that failed, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.problem: Exception | None = None

    def write(self, text: str) -> int:
        """Write `text` unless the stream has failed."""
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
        """Flush unless the stream has failed."""
        if self.problem is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as problem:
                self._lose(problem)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        try:
            return self.problem is None and self._stream.isatty()
        except ValueError:
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, problem: Exception) -> None:
        self.problem = problem
        # What the stream still holds must go somewhere when Python ends.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, self._stream.fileno())
            finally:
                os.close(null)


@contextmanager
def lasting() -> Iterator[tuple[Lasting, Lasting]]:
    """Make stdout and stderr `Lasting`, and put them back at the end; a missing one drops all."""
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
    """Open the null device as each closed descriptor of 0 to 2, or a file would be taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


# Stopping


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
