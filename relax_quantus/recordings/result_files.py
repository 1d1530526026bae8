"""The files of one recording.

All drafted first, then moved together under one name that is free or whose files are ours.

What is ours is known by content: the recording's .npz lists the digest of every file beside it by
what follows the common name, in the comment of the ZIP that it is. A file that is not listed, or
has been edited since, is not ours and is never replaced: the results then get a name of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from relax_quantus.base.files import Draft, alone_in, digest, naming
from relax_quantus.base.text import shown

LONGEST_STEM = 100
ARRAYS = "npz"
FILES = "files"
Digests = dict[str, list[str]]


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
        """What to write the file to whose name is to end in ``.`` and `suffix`.

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
