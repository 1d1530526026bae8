"""Write files in the one way in which the package does.

A draft beside the place is checked, flushed, and moved there when it is whole.

A path enters; the name of a new file in the same folder is given to whatever writes; the path holds
all of it afterwards, or what it held before. Names of drafts are drawn at random and made with
``O_EXCL``, so threads, containers and hosts that share a folder never share a draft. A draft is
locked as long as its writer lives, so those of killed processes can be told from those of running
ones (`sweep`).

Several results about one recording (`ResultFiles`) have one common name and are moved there
together. What is ours in a folder is known by content: the recording's .npz lists the digest of
every file beside it by what follows the common name, in the comment of the ZIP that it is. A file
that is not listed, or has been edited since, is not ours and is never replaced: the results then
get a name of their own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from relax_quantus.base.checks import shown
from relax_quantus.errors import ArgumentError, RelaxQuantusError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows, where the age of a draft alone tells
    fcntl = None

LOCK = ".relax-quantus.lock"
PART = ".part"
ABANDONED_S = 24 * 3600.0
"""After so long without a change, the draft of another host is nobody's any more."""
FLAGS = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
DIGITS = 8
LONGEST_STEM = 100
ARRAYS = "npz"
FILES = "files"
Digests = dict[str, list[str]]
_NAME = re.compile(rf"\.[0-9a-f]{{16}}-(?P<host>[0-9a-f]{{{DIGITS}}}){re.escape(PART)}(\..*)?", re.DOTALL)
_open: dict[str, Path] = {}
"""What the drafts of this process are to become."""


class Draft:
    """Make a new, empty file that nobody else writes to, in the folder of what it is to become.

    Parameters
    ----------
    path
        What it is to become: errors name it, and writers that choose the format by the ending of a
        name find that of this.

    Attributes
    ----------
    path
        Path of the draft, to write to.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        while self._descriptor is None:
            self.path = path.with_name(f".{secrets.token_hex(8)}-{_host()}{PART}{path.suffix}")
            with suppress(FileExistsError):
                self._descriptor = _held(os.open(self.path, FLAGS, 0o666))
        _open[self.path.name] = path
        if fcntl is None:  # files that are open cannot be moved there
            os.close(self._descriptor)
            self._descriptor = -1

    def flush(self) -> None:
        """Bring what was written to the disk.

        Some file systems say only then that they are full.
        """
        if self._descriptor is not None:
            with nullcontext() if self._descriptor >= 0 else self.path.open("rb+") as file:
                _sync(self._descriptor if file is None else file.fileno())

    def move(self, path: Path) -> None:
        """Give it the name `path`; a file of that name is replaced at once and whole."""
        os.replace(self.path, path)
        self._forget()

    def discard(self) -> None:
        """Remove it, if it was not moved."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            self._forget()

    def _forget(self) -> None:
        _open.pop(self.path.name, None)
        if self._descriptor is not None and self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = None


@contextmanager
def complete(path: str | os.PathLike[str], check: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Give a draft's name to write to, and replace `path` by it at the end.

    It is left as it was if anything goes wrong.

    Parameters
    ----------
    path
        What is to be written. The path of a draft is given back as it is: whoever made that moves
        it.
    check
        Called with the draft when it is written; what it raises keeps `path` as it was.

    Raises
    ------
    OSError
        If `path` cannot be written, as on a full disk; the message names it.
    """
    path = Path(path)
    if path.name in _open:
        with naming(_open[path.name]):
            yield path
            if check is not None:
                check(path)
        return
    with naming(path):
        draft = Draft(path)
        try:
            yield draft.path
            if check is not None:
                check(draft.path)
            draft.flush()
            draft.move(path)
        finally:
            draft.discard()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors of the file system name `path`, not a draft."""
    try:
        yield
    except OSError as error:
        if isinstance(error, RelaxQuantusError) or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text as UTF-8 with the line ends that it has; return its path."""
    with complete(path) as draft, draft.open("w", encoding="utf-8", newline="") as target:
        target.write(text)
    return Path(path)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of what is done here in a folder.

    This holds for other hosts, too, as far as its file system has locks.
    """
    from filelock import FileLock

    path = folder / LOCK
    with FileLock(path):
        try:
            yield
        finally:
            with suppress(OSError):  # whoever waits for it finds that it is gone and makes a new one
                path.unlink()


def sweep(folder: Path) -> None:
    """Remove drafts that killed processes left in a folder.

    These are those of this host that nobody holds, and those of any that are a day old.
    """
    with suppress(OSError):
        for path in list(folder.glob(f".*{PART}*")):
            named = _NAME.fullmatch(path.name)
            if named is not None and path.name not in _open:
                with suppress(OSError):
                    _sweep(path, named["host"] == _host())


def writable_folder(path: Path) -> Path:
    """Make `path` a folder that can be written to, or say why not.

    Drafts that killed runs left in it are removed.

    Raises
    ------
    ArgumentError
        If it is a file or cannot be written to.
    """
    if path.exists() and not path.is_dir():
        raise ArgumentError(f"out: expected a folder, got the file {shown(path)}; name a folder.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ArgumentError(
            f"out: expected a folder that can be written to, got {shown(path)} ({error.strerror}); name another."
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
        raise ArgumentError(f"out: expected a file, got the folder {shown(path)}; name a file in it.")
    if os.path.lexists(path) and not (path.is_file() and is_ours(path)):
        raise ArgumentError(
            f"out: expected a new name or a file of relax-quantus's own kind, got {shown(path)}, which is another; name a new one."
        )
    writable_folder(path.parent)
    return path


def _sweep(path: Path, ours: bool) -> None:
    abandoned = time.time() - path.stat().st_mtime > ABANDONED_S
    if not (ours and fcntl is not None):
        if abandoned:
            path.unlink()
        return
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where it is held, or where there are no locks
        path.unlink()
    except BlockingIOError:
        pass
    except OSError:
        if abandoned:
            path.unlink()
    finally:
        os.close(descriptor)


def _held(descriptor: int) -> int | None:
    """Lock a new draft; return None if somebody swept it away before that."""
    if fcntl is None:
        return descriptor
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return None


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # what cannot be flushed at all
            raise


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:DIGITS]


class ResultFiles:
    """Write files about `clip` into `out`.

    Nothing of it is there before `publish`, and all of it after.

    What an earlier run wrote about the same recording is then replaced or, where this one writes no
    such file, removed.

    To be used in a ``with`` statement, which removes drafts that were not published. Nothing may
    stop the program in the context `uninterrupted`, in which files are moved.
    """

    def __init__(
        self, clip: Path, out: Path, uninterrupted: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self.clip, self.out, self._uninterrupted = clip, out, uninterrupted
        self._drafts: dict[str, Draft] = {}

    def draft(self, suffix: str) -> Path:
        """Return the path to write a file to whose name is to end in ``.`` and `suffix`.

        Raises
        ------
        OSError
            If the folder cannot be written to.
        """
        path = self.out / f"{plain_stem(self.clip)}.{suffix}"
        with naming(path):
            self._drafts[suffix] = Draft(path)
        return self._drafts[suffix].path

    def publish(self) -> str:
        """Give every file its name; return what these begin with.

        Other processes wait, and a stop comes before or after.

        Raises
        ------
        OSError
            If they cannot be moved.
        """
        digests = {suffix: _short(draft.path) for suffix, draft in self._drafts.items() if suffix != ARRAYS}
        for suffix, draft in self._drafts.items():
            with naming(self.out / f"{plain_stem(self.clip)}.{suffix}"):
                draft.flush()
        with alone_in(self.out), self._uninterrupted():
            stem, known = self._name()
            arrays = self._drafts[ARRAYS]
            with naming(self.out / f"{stem}.{ARRAYS}"):
                # older digests are kept: killed between two moves, files would be of either kind
                _add_files(arrays.path, known | {s: [*known.get(s, [])[-1:], new] for s, new in digests.items()})
                arrays.flush()
                arrays.move(self.out / f"{stem}.{ARRAYS}")
            for suffix in digests:
                with naming(self.out / f"{stem}.{suffix}"):
                    self._drafts[suffix].move(self.out / f"{stem}.{suffix}")
            for suffix in set(known) - set(digests):  # of an earlier run that was asked for more
                path = self.out / f"{stem}.{suffix}"
                with suppress(OSError):
                    if (
                        path.parent == self.out
                        and path.is_file()
                        and not path.is_symlink()
                        and _short(path) in known[suffix]
                    ):
                        path.unlink()
        return stem

    def _name(self) -> tuple[str, Digests]:
        """Return the first name under which nothing would be lost, and digests of what is there."""
        kept = None
        for stem in stems_for(self.clip):
            taken, known = self._taken(stem)
            if taken is None:
                if kept is not None:
                    warnings.warn(
                        f"{shown(self.clip)}: {shown(kept)} was not written by relax-quantus, or was changed since, and is "
                        f"kept; the results are called {shown(stem)}; move that file away to have its name",
                        stacklevel=4,
                    )
                return stem, known
            kept = kept or (
                taken if clip_of(self.out / f"{stem}.{ARRAYS}") in (None, str(self.clip.resolve())) else None
            )
        raise AssertionError  # there is always another name

    def _taken(self, stem: str) -> tuple[Path | None, Digests]:
        """Return the first file of a name that is not ours to replace, and digests of ours."""
        arrays = self.out / f"{stem}.{ARRAYS}"
        known: Digests = {}
        if os.path.lexists(arrays):
            if clip_of(arrays) != str(self.clip.resolve()):
                return arrays, {}
            known = _files_of(arrays)
        for suffix in self._drafts:
            path = self.out / f"{stem}.{suffix}"
            if suffix != ARRAYS and os.path.lexists(path):
                found = _short(path) if path.is_file() and not path.is_symlink() else ""
                if found not in known.get(suffix, []):
                    return path, {}
                known[suffix] = [found]
        return None, known

    def __enter__(self) -> ResultFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for draft in self._drafts.values():
            draft.discard()


def stems_for(clip: Path) -> Iterator[str]:
    """Yield names, without suffix, that the results of `clip` may have, the plainest first.

    That is the clip's own name; then, with a few characters that depend on where the clip lies;
    then, with a number. So the same clip gets the same name again.
    """
    plain = plain_stem(clip)
    yield plain
    longer = f"{plain}-{hashlib.sha256(os.fsencode(clip.resolve())).hexdigest()[:8]}"
    yield longer
    number = 2
    while True:
        yield f"{longer}-{number}"
        number += 1


def plain_stem(clip: Path) -> str:
    """Return the clip's own name without suffix, as far as a file may be called so."""
    return "".join(c if c.isprintable() else "_" for c in clip.stem).lstrip(".")[:LONGEST_STEM] or "clip"


def _short(path: Path) -> str:
    """Return as much of a file's SHA-256 as tells it from others: a ZIP's comment is short."""
    return digest(path)[:32]


def clip_of(result: Path) -> str | None:
    """Return the recording that a .npz of ours is about; None if it is not one of ours."""
    try:
        with np.load(result, allow_pickle=False) as arrays:
            return str(json.loads(str(arrays["settings"]))["clip"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _files_of(result: Path) -> Digests:
    """Return the digests that a .npz of ours lists."""
    try:
        with zipfile.ZipFile(result) as archive:
            found = json.loads(archive.comment)
        return {str(suffix): [str(d) for d in known] for suffix, known in found[FILES].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        return {}


def _add_files(result: Path, digests: Digests) -> None:
    """List digests in a .npz that is written.

    In the comment of the ZIP that it is, which is no array.
    """
    with zipfile.ZipFile(result, "a") as archive:
        archive.comment = json.dumps({FILES: digests}, sort_keys=True).encode()
