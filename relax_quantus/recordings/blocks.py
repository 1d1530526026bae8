"""The finished blocks of one recording on disk, so that a stopped run goes on.

Each map is one array over the whole recording, of which every block writes its rows; what else
there is of a block is a file of its own, written last and brought to the disk, with the digests of
those rows. So a block that has its file is whole, however the run ended. The folder's name and
every block hold the key of what they depend on (`key_of`): blocks of
another recording, setting or version are never found.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from relax_quantus.base import checks
from relax_quantus.base.files import PART, complete, naming
from relax_quantus.base.networks import fingerprint
from relax_quantus.base.source import source_sha256
from relax_quantus.errors import DataError
from relax_quantus.recordings.explaining import Array, Block

if TYPE_CHECKING:
    from relax_quantus.recordings.plan import Plan
    from relax_quantus.recordings.session import Session

FOLDER = "unfinished"
KEY, LOCK, ROWS, CARRY = "key", ".lock", "rows", "carry/"
STRETCH = 1 << 16
"""Rows of unknown values that are written at a time."""


class BlockStore:
    """The blocks of one key on disk, for one process at a time.

    Parameters
    ----------
    out
        Where results go; blocks are in its folder "unfinished" until they are done.
    name
        What the folder is called, before the key.
    key
        Digest of everything that the blocks depend on.
    frames
        Frames of the whole recording.

    Raises
    ------
    DataError
        If another process works on the same.
    OSError
        If the folder cannot be written to.
    """

    def __init__(self, out: Path, name: str, key: str, frames: int = 0) -> None:
        self.key, self.frames, self.folder = key, frames, out / FOLDER / f"{name}-{key[:12]}"
        self._known: set[str] = set()
        _make(self.folder)
        self._lock = FileLock(self.folder / LOCK, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            remedy = "wait for that run, stop it, or choose another folder"
            checks.refuse("out", "a recording that no other run is explaining", str(self.folder), remedy, DataError)
        for draft in self.folder.glob(f".*{PART}*"):
            draft.unlink()

    def finished(self) -> int:
        """Return how many blocks there are, from the first on, that are whole and of this key."""
        number, self._known = 0, set()
        while (names := self._whole(number)) is not None:
            self._known |= names
            number += 1
        return number

    def put(self, number: int, block: Block) -> None:
        """Write a block; on disk when this returns."""
        digests = {name: self._write(name, block.first, values) for name, values in block.rows.items()}
        carry = {f"{CARRY}{label}/{kind}": v for label, of in block.carry.items() for kind, v in of.items()}
        described = {KEY: np.array(self.key), ROWS: np.array(json.dumps([block.first, digests]))}
        with complete(self._path(number)) as draft, draft.open("wb") as target:
            np.savez(target, **described, **carry, **block.each)  # type: ignore[arg-type]

    def carry(self, number: int) -> Mapping[str, Mapping[str, Array]]:
        """Return what the block after a stored one goes on from, by map and kind."""
        found: dict[str, dict[str, Array]] = {}
        with np.load(self._path(number), allow_pickle=False) as block:
            for name in block:
                if name.startswith(CARRY):
                    _, label, kind = name.split("/", 2)
                    found.setdefault(label, {})[kind] = block[name]
        return found

    def rows(self, name: str) -> Array | None:
        """Return a map of the whole recording as a memory map, ``(frames, F)``.

        None if no block has it.
        """
        if name not in self._known:
            return None
        found: Array = np.load(self._array(name), mmap_mode="r", allow_pickle=False)
        return found

    def each(self, name: str) -> Array | None:
        """Return what there is one of an example, of all; None if no block has it."""
        parts = []
        for number in range(len(list(self.folder.glob("block-*.npz")))):
            with np.load(self._path(number), allow_pickle=False) as block:
                if name not in block:
                    return None
                parts.append(np.atleast_1d(block[name]))
        return np.concatenate(parts)

    def remove(self) -> None:
        """Delete the blocks, and the folder of unfinished ones if nothing else is in it."""
        with contextlib.suppress(OSError):  # what cannot be removed now is found again, or empty
            for block in (*self.folder.glob("block-*.npz"), *self.folder.glob("map-*.npy")):
                block.unlink()
            (self.folder / LOCK).unlink()  # while it is held: who waits for it sees that it is gone
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

    def _array(self, name: str) -> Path:
        return self.folder / f"map-{name}.npy"

    def _write(self, name: str, first: int, values: Array) -> list[int]:
        """Write rows of a map; return their number and digest.

        Not through the memory map, where a full disk kills.
        """
        path, values = self._array(name), np.ascontiguousarray(values)
        with naming(path):
            if name not in self._known:
                _begin(path, self.frames, values, first)
                self._known.add(name)
            content = values.tobytes()
            with path.open("rb+") as target:
                target.seek(_offset(path) + first * values.itemsize * values.shape[1])
                target.write(content)
                target.flush()
                os.fsync(target.fileno())
        return [len(values), zlib.crc32(content)]

    def _whole(self, number: int) -> set[str] | None:
        """Return the names of the maps of a block; None if it is not whole and of this key."""
        try:
            with zipfile.ZipFile(self._path(number)) as archive:
                if archive.testzip() is not None:
                    return None
            with np.load(self._path(number), allow_pickle=False) as block:
                if str(block[KEY]) != self.key:
                    return None
                first, digests = json.loads(str(block[ROWS]))
            for name, (rows, digest) in digests.items():
                path = self._array(name)
                with path.open("rb") as source:
                    np.lib.format.read_magic(source)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(source)
                    source.seek(first * dtype.itemsize * shape[1], os.SEEK_CUR)
                    if zlib.crc32(source.read(rows * dtype.itemsize * shape[1])) != digest:
                        return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return set(digests)


def _make(folder: Path) -> None:
    """Make a folder whose parent another process may be removing."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def _begin(path: Path, frames: int, values: Array, first: int) -> None:
    """Begin the array of a map that blocks before did not have: their frames are unknown."""
    bands = values.shape[1]
    with path.open("wb") as target:
        header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": (frames, bands)}
        np.lib.format.write_array_header_1_0(target, header)
        for start in range(0, first, STRETCH):
            target.write(np.full((min(STRETCH, first - start), bands), np.nan, values.dtype).tobytes())


def _offset(path: Path) -> int:
    with path.open("rb") as source:
        np.lib.format.read_magic(source)
        np.lib.format.read_array_header_1_0(source)
        return source.tell()


def key_of(plan: Plan, session: Session) -> str:
    """Return the SHA-256 of all on which blocks depend: recording, settings, weights, code."""
    with plan.path.open("rb") as source:
        recording = hashlib.file_digest(source, "sha256").hexdigest()
    depends = {
        **session.described(),
        "recording": recording,
        "path": str(plan.path.resolve()),
        "plan": [plan.seconds, plan.padding, plan.hop, plan.count, plan.block],
        "estimator": session.settings.estimator,
        "code": source_sha256(),
        "torch": torch.__version__,
        "encoder_code": _code_of(session.encoder),
        "head": None if session.classifier is None else fingerprint(session.classifier.head),
        "tensors": [_digest(t) for t in _tensors(session)],
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _tensors(session: Session) -> list[Any]:
    """Return what maps are towards, away from, and centred on."""
    anchors = [None if anchor is None else anchor.embedding for anchor in (session.towards, session.away)]
    return [*anchors, *(getattr(relax.similarity, "mean", None) for relax in session.explainers.values())]


def _digest(value: Any) -> str | None:
    if not isinstance(value, Tensor):
        return None
    return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _code_of(encoder: nn.Module) -> list[str]:
    """Return digests of the files that define the encoder's modules.

    Weights alone do not say what a network does.
    """
    files = set()
    for module in encoder.modules():
        try:
            file = inspect.getsourcefile(type(module))
        except TypeError:  # defined at a prompt
            file = None
        if file is not None and not type(module).__module__.startswith("torch."):
            files.add(file)
    return sorted(hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if Path(file).is_file())
