"""What the processes of one run on one machine need alike, made by the first that asks and read by the others.

A name and a way to make something enter; the thing leaves. It is kept as a file of a folder that belongs to the run and goes with it; while one
process makes it the others wait, instead of making it too and taking the cores from each other.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from relax_quantus.base.files import complete

T = TypeVar("T")


class Shelf:
    """Things on the disk, each made once.

    Parameters
    ----------
    folder
        For these processes alone: what lies there is unpickled.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def take(self, name: str, make: Callable[[], T]) -> T:
        """What is called `name`, made if nobody has yet; what `make` raises is not kept, so that the next one tries for itself."""
        path = self.folder / hashlib.sha256(name.encode()).hexdigest()
        with FileLock(f"{path}.lock"):
            if path.is_file():
                found: T = pickle.loads(path.read_bytes())
                return found
            made = make()
            with complete(path) as draft:
                draft.write_bytes(pickle.dumps(made))
            return made
