"""Files that enter and leave the commands: each recording once, and places that can be written to.

Nothing is decoded here: whether a recording can be used shows when it is read. How files are written is in `relax_quantus.base.files`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from relax_quantus.base.files import complete as complete
from relax_quantus.base.files import sweep
from relax_quantus.base.text import shown
from relax_quantus.errors import ArgumentError


def unique(paths: Sequence[Path]) -> list[Path]:
    """`paths` without those that lead to a file that is already in the list."""
    first: dict[Path, Path] = {}
    for path in paths:
        first.setdefault(path.resolve(), path)
    return list(first.values())


def writable_folder(path: Path) -> Path:
    """Make `path` a folder that can be written to, or say why not; what killed runs left half-written in it is removed.

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
    sweep(path)
    return path


def writable_file(path: Path, is_ours: Callable[[Path], bool]) -> Path:
    """Make sure that a file `path` can be written, or say why not; its folder is made if need be.

    Raises
    ------
    ArgumentError
        If it is a folder, or there and not one that `is_ours`.
    """
    if path.is_dir():
        raise ArgumentError(f"--out: expected a file, got the folder {shown(path)}; name a file in it.")
    if os.path.lexists(path) and not (path.is_file() and is_ours(path)):
        raise ArgumentError(
            f"--out: expected a new name or a file of relax-quantus's own kind, got {shown(path)}, which is another; name a new one."
        )
    writable_folder(path.parent)
    return path
