"""Finished blocks of one recording, on disk: a file each, so that a run that was stopped, however, goes on from them.

A block is written under another name, brought to the disk, and then given its own, so that what bears it is whole. The folder's name and every
block hold the key of what they depend on (see `plan`): blocks of another recording, setting or version are never found.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from relax_quantus.base import checks
from relax_quantus.base.files import PART, complete
from relax_quantus.errors import DataError

FOLDER = "unfinished"
KEY, LOCK = "key", ".lock"
Array = npt.NDArray[Any]


def _make(folder: Path) -> None:
    """Make a folder whose parent another process may be removing."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


class BlockStore:
    """The blocks of one key, for one process at a time.

    Parameters
    ----------
    out
        Where results go; blocks are in its folder "unfinished" until they are done.
    name
        What the folder is called, before the key.
    key
        Digest of everything that the blocks depend on.

    Raises
    ------
    DataError
        If another process works on the same.
    OSError
        If the folder cannot be written to.
    """

    def __init__(self, out: Path, name: str, key: str) -> None:
        self.key, self.folder = key, out / FOLDER / f"{name}-{key[:12]}"
        _make(self.folder)
        self._lock = FileLock(self.folder / LOCK, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            remedy = "wait for that run, stop it, or choose another folder"
            checks.refuse("--out", "a recording that no other run is explaining", str(self.folder), remedy, DataError)
        for draft in self.folder.glob(f".*{PART}*"):
            draft.unlink()

    def finished(self) -> int:
        """How many blocks there are, from the first on, that are whole and of this key."""
        number = 0
        while self._is_whole(number):
            number += 1
        return number

    def put(self, number: int, arrays: Mapping[str, Array]) -> None:
        """Write a block; on disk when this returns."""
        with complete(self._path(number)) as draft, draft.open("wb") as target:
            np.savez(target, **{KEY: np.array(self.key)}, **arrays)  # type: ignore[arg-type]

    def get(self, number: int, name: str) -> Array | None:
        """One array of a block; None if it has none of that name."""
        with np.load(self._path(number), allow_pickle=False) as block:
            return np.asarray(block[name]) if name in block else None

    def names(self, number: int) -> list[str]:
        """What a block has."""
        with np.load(self._path(number), allow_pickle=False) as block:
            return list(block)

    def remove(self) -> None:
        """Delete the blocks, and the folder of unfinished ones if nothing else is in it."""
        with contextlib.suppress(OSError):  # what cannot be removed now is found again, or empty
            for block in self.folder.glob("block-*.npz"):
                block.unlink()
            (self.folder / LOCK).unlink()  # while it is held: who waits for it finds that it is gone
            self.folder.rmdir()
            self.folder.parent.rmdir()  # if nothing else is in it
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.release()

    def __enter__(self) -> BlockStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, number: int) -> Path:
        return self.folder / f"block-{number:06d}.npz"

    def _is_whole(self, number: int) -> bool:
        try:
            with zipfile.ZipFile(self._path(number)) as archive:
                if archive.testzip() is not None:
                    return False
            return str(self.get(number, KEY)) == self.key
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return False
