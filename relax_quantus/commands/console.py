"""What the command line says to people: one line at a time, progress bars, and how an error reads as one line.

Errors and warnings go to stderr, results to stdout, all without wrapping, boxes or colour, so that names can be copied and lines counted.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from relax_quantus.commands.option_names import spoken
from relax_quantus.errors import RelaxQuantusError

debugging: ContextVar[bool] = ContextVar("debugging", default=False)


def shown(path: str | bytes | os.PathLike[Any]) -> str:
    r"""The path as printable text on one line: control characters and bytes that do not decode are escaped.

    Examples
    --------
    >>> print(shown("a" + chr(10) + "b.wav"))
    a\nb.wav
    """
    text = os.fsdecode(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str) -> str:
    """Join the lines of `text` and replace what cannot be encoded."""
    text = re.sub(r"\s*[\r\n]+\s*", " ", text.strip())
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _write(line: str, stream: TextIO) -> None:
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(line, file=stream)
        stream.flush()
    else:
        print(line, file=stream, flush=True)


def result(line: str) -> None:
    """Write a line to stdout, above any progress bar."""
    _write(line, sys.stdout)


def error(line: str) -> None:
    """Write ``error: ...`` to stderr as one line, above any progress bar."""
    _write(f"error: {one_line(line)}", sys.stderr)


def warning(line: str) -> None:
    """Write ``warning: ...`` to stderr as one line, above any progress bar."""
    _write(f"warning: {one_line(line)}", sys.stderr)


def report(problem: BaseException, about: str | os.PathLike[str] | None = None) -> None:
    """Write what went wrong to stderr as one line that names the file it is `about`; the traceback too when debugging."""
    text = complaint(problem)
    if about is not None and os.fspath(about) not in text and shown(about) not in text:
        text = f"{shown(about)}: {text}"
    if debugging.get():
        traceback.print_exception(problem, file=sys.stderr)
    error(text)


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
def plain(debug: bool = False) -> Iterator[None]:
    """Show each warning once, as one plain line; with `debug`, say where warnings and errors come from."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        text = spoken(str(message)) + (f" ({category.__name__}, {filename}:{lineno})" if debug else "")
        if text not in seen:
            seen.add(text)
            warning(text)

    token = debugging.set(debug)
    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield
        finally:
            debugging.reset(token)


def progress(total: int, what: str, unit: str) -> Any:
    """A progress bar with time left on stderr; silent where stderr is not a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, file=sys.stderr, disable=None, leave=False, dynamic_ncols=True)
