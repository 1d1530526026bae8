"""What the command line says, to people or with ``--json`` to programs: one line at a time, and how an error reads as one line.

Errors and warnings go to stderr, results to stdout, all without wrapping or boxes, so that names can be copied and lines counted. Results are
lines of text, with ``--json`` one JSON object a line; with ``--quiet`` nothing is said but errors.
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TextIO

from relax_quantus.base.text import one_line as one_line
from relax_quantus.base.text import shown as shown
from relax_quantus.cli.option_names import spoken
from relax_quantus.cli.progress import progress as progress_of
from relax_quantus.cli.stopping import raise_if_asked
from relax_quantus.cli.terminal import painted, redraws
from relax_quantus.errors import RelaxQuantusError

debugging: ContextVar[bool] = ContextVar("debugging", default=False)


@dataclass(frozen=True)
class Manner:
    """How to speak: not at all unless something goes wrong, as JSON."""

    quiet: bool = False
    json: bool = False


FOR_PEOPLE = Manner()
manner: ContextVar[Manner] = ContextVar("manner", default=FOR_PEOPLE)


def _write(line: str, stream: TextIO | None) -> None:
    if stream is None:  # outside of the command line, whose streams last
        return
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(line, file=stream)
        stream.flush()
    else:
        print(line, file=stream, flush=True)


def result(line: str, kind: str | None = None, /, **facts: Any) -> None:
    """Write a line to stdout, above any progress bar; with ``--json`` the `facts` as an object of a `kind` instead, if it has one."""
    raise_if_asked()
    if manner.get().json:
        if kind is not None:
            _write(json.dumps({"type": kind, **machine(facts)}, allow_nan=False), sys.stdout)
    elif not manner.get().quiet:
        _write(line, sys.stdout)


def machine(value: Any) -> Any:
    """`value` as what JSON knows: paths are texts, numbers that are not finite are null."""
    if isinstance(value, dict):
        return {str(key): machine(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [machine(entry) for entry in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def for_people() -> bool:
    """Whether results are read by people: neither ``--json`` nor ``--quiet``."""
    return manner.get() == FOR_PEOPLE


def error(line: str, about: str | os.PathLike[str] | None = None) -> None:
    """Write ``error: ...`` to stderr as one line, above any progress bar; with ``--json`` an object on stdout, too."""
    _write(f"{painted('error:', 'red', sys.stderr)} {one_line(line)}", sys.stderr)
    if manner.get().json:
        result("", "error", about=about, message=one_line(line))


def warning(line: str) -> None:
    """Write ``warning: ...`` to stderr as one line, above any progress bar."""
    if not manner.get().quiet:
        _write(f"{painted('warning:', 'yellow', sys.stderr)} {one_line(line)}", sys.stderr)


def note(line: str) -> None:
    """Write a line about how things go to stderr, above any progress bar."""
    if not manner.get().quiet:
        _write(one_line(line), sys.stderr)


def report(problem: BaseException, about: str | os.PathLike[str] | None = None) -> None:
    """Write what went wrong to stderr as one line that names the file it is `about`; the traceback too when debugging."""
    text = complaint(problem)
    if about is not None and os.fspath(about) not in text and shown(about) not in text:
        text = f"{shown(about)}: {text}"
    if debugging.get():
        traceback.print_exception(problem, file=sys.stderr)
    error(text, about)


def complaint(problem: BaseException) -> str:
    """Say what went wrong, and what to do, in one line.

    Our own errors say it themselves; errors of the command line name the help to read; those of the file system name the file. Anything else
    is a defect of ours or of a library and is said to be unexpected.
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
    """Show each warning once, as one plain line; when debugging, say where warnings and errors come from. How to speak is forgotten at the end."""
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


def progress(total: int, what: str, unit: str, begun: int = 0) -> Any:
    """How far it is, on stderr, unless ``--quiet``; see `relax_quantus.cli.progress`."""
    return progress_of(total, what, unit, begun, say=None if manner.get().quiet else note)


def bars() -> bool:
    """Whether the library may draw its own progress bars."""
    return redraws(sys.stderr) and not manner.get().quiet
