"""Files that enter and leave the commands: recordings in folders, places that can be written to, names that do not collide.

Nothing is decoded here: whether a recording can be used shows when it is read. A result is never half a file and never replaces that of
another recording.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from relax_quantus.commands.console import shown
from relax_quantus.errors import ArgumentError, DataError


def recordings_in(folder: Path) -> list[Path]:
    """List every recording in `folder` and below it, sorted by path; what is left out is warned of, once for each reason.

    Raises
    ------
    DataError
        If there is none, or the folder cannot be read.
    """
    from relax_quantus.benchmark.recordings import surveyed
    from relax_quantus.folders import SUFFIXES

    found = surveyed(folder)
    if not found.recordings:
        got = f"none, {found.why()}" if found.left_out else f"none; known are {' '.join(sorted(SUFFIXES))}"
        raise DataError(f"{folder}: expected recordings in the folder or below, got {got}.")
    for line in found.remarks():
        warnings.warn(line, stacklevel=2)
    return list(found.recordings)


def unique(paths: Sequence[Path]) -> list[Path]:
    """`paths` without those that lead to a file that is already in the list."""
    first: dict[Path, Path] = {}
    for path in paths:
        first.setdefault(path.resolve(), path)
    return list(first.values())


def writable_folder(path: Path) -> Path:
    """Make `path` a folder that can be written to, or say why not.

    Raises
    ------
    ArgumentError
        If it is a file or cannot be written to.
    """
    if path.exists() and not path.is_dir():
        raise ArgumentError(f"--out: expected a folder, got the file {shown(path)}; name a folder.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ArgumentError(
            f"--out: expected a folder that can be written to, got {shown(path)} ({error.strerror}); name another."
        ) from error
    return path


def writable_file(path: Path) -> Path:
    """Make sure that a file `path` can be written, or say why not; its folder is made if need be."""
    if path.is_dir():
        raise ArgumentError(f"--out: expected a file, got the folder {shown(path)}; name a file in it.")
    writable_folder(path.parent)
    return path


@contextmanager
def complete(path: Path) -> Iterator[Path]:
    """Give a draft's name to write to; `path` is replaced by it at the end, and left as it was if anything goes wrong."""
    draft = path.with_name(f".{os.getpid()}.part")
    try:
        yield draft
        os.replace(draft, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        draft.unlink(missing_ok=True)
