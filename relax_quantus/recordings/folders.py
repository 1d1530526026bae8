"""A folder -> the recordings in it.

The one listing that every command and every data set takes its recordings from.

Enters: a folder; leaves: `Found`, the recordings in a stable order, and what was left out with the
reason. Hidden files and what desktops leave in folders are no recordings, links are followed,
sounds that this package wrote are no recordings either. Whatever could be meant as a recording and
is not taken is mentioned once (`Found.remarks`), never dropped in silence.
"""

from __future__ import annotations

import contextlib
import json
import mimetypes
import os
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from relax_quantus.audio.reading import quiet_stderr
from relax_quantus.base.checks import printable
from relax_quantus.base.text_files import listed
from relax_quantus.errors import DataError
from relax_quantus.relax.masks import STRATEGIES

SUFFIXES = {f".{name}".lower() for name in soundfile.available_formats()} | {
    *(".aif", ".aifc", ".bwf", ".mp2", ".mpga", ".oga", ".opus", ".snd", ".sph", ".wave")
}
"""Ends of names that are taken for recordings.

A file of another name is, too, if libsndfile decodes it and it is no text or picture.
"""
NO_SOUNDS = {
    *(".ini", ".ipynb", ".lock", ".log", ".md", ".npy", ".npz", ".parquet", ".part", ".pt", ".safetensors"),
    *(".sqlite", ".textgrid", ".toml", ".xlsx", ".yaml", ".yml"),
}
"""Further ends of names that nobody takes for a recording.

Those of texts and pictures are Python's own.
"""
HIDDEN = {"__macosx", "$recycle.bin", "system volume information", "lost+found", "@eadir", "thumbs.db", "desktop.ini"}
"""What desktops and disks leave in folders without a dot, in lower case."""
PROGRAM = "relax_quantus"
"""How the note on the program begins in files that this package writes."""
SOUND_SUFFIXES = (".flac", ".wav")
"""Of the sounds that this package writes."""
PARTS = ("kept", "removed")
"""Ends of these sounds' names, before the suffix."""

FORMAT, UNSOUND, OWN = "a format that is not read", "hidden", "written by relax-quantus"
CLOSED, BROKEN, AGAIN = "cannot be entered", "leads nowhere", "read already"
REMARKS = {
    FORMAT: ("{n} file{s} in formats that are not read ({kinds})", "convert them to WAV or FLAC"),
    UNSOUND: ("{n} hidden recording{s}", "rename what is meant"),
    OWN: ("{n} sound{s} that relax-quantus wrote", "name one by itself to use it"),
    CLOSED: ("{n} folder{s} that cannot be entered", "change the permissions"),
    BROKEN: ("{n} recording{s} that are no files or links that lead nowhere", "mend or remove them"),
    AGAIN: ("{n} link{s} to folders that are read already", "leave them or remove them"),
}
"""What is said of each reason, and what to do."""

_TYPES = mimetypes.MimeTypes(filenames=())


@dataclass(frozen=True)
class Found:
    """What is in a folder and below it.

    Attributes
    ----------
    root
        The folder.
    recordings
        By path.
    left_out
        By path, each with its reason.
    texts
        Files beside them that nobody takes for recordings, such as tables.
    unlikely
        Those of the recordings whose names say something else, but which libsndfile decodes.
    """

    root: Path
    recordings: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...]
    texts: tuple[Path, ...] = ()
    unlikely: tuple[Path, ...] = ()

    def remarks(self) -> list[str]:
        """Say what was left out and why: a line a reason."""
        lines = []
        for reason, (what, remedy) in REMARKS.items():
            paths = [path for path, its in self.left_out if its == reason]
            if paths:
                said = what.format(n=len(paths), s="" if len(paths) == 1 else "s", kinds=_kinds(paths))
                lines.append(f"{_shown(self.root)}: left out {said}, such as {_shown(paths[0])}; {remedy}.")
        if self.unlikely:
            count, such = len(self.unlikely), _shown(self.unlikely[0])
            said = f"{count} file{'' if count == 1 else 's'} that are recordings whatever their names say"
            lines.append(f"{_shown(self.root)}: took {said} ({_kinds(self.unlikely)}), such as {such}.")
        return lines

    def why(self) -> str:
        """What was left out, in a few words for an error; empty if nothing was."""
        counts = Counter(reason for _, reason in self.left_out)
        return ", ".join(f"{count} left out ({reason})" for reason, count in counts.items())

    def lost(self) -> list[str]:
        """Name the folders in the root in which nothing is a recording, or which are empty."""
        kept = {path.relative_to(self.root).parts[0] for path in self.recordings}
        reasons = {FORMAT, UNSOUND, CLOSED, BROKEN}
        short = {path.relative_to(self.root).parts for path, reason in self.left_out if reason in reasons}
        names = {parts[0] for parts in short}
        folders = [path for path in self.root.iterdir() if path.is_dir() and not is_hidden(path)]
        return sorted(p.name for p in folders if p.name not in kept and (p.name in names or _is_empty(p)))


def _kinds(paths: Sequence[Path]) -> str:
    kinds = Counter(path.suffix.lower() or "no suffix" for path in paths)
    return listed([f"{count} {kind}" for kind, count in kinds.most_common()], 5)


def recordings_in(folder: str | os.PathLike[str]) -> Found:
    """List the recordings in a folder and below it.

    Links are followed, and no folder is read twice. A folder that cannot be entered is left out;
    the root raises.

    Raises
    ------
    OSError
        If the folder itself cannot be read.
    """
    root = Path(folder)
    recordings: list[Path] = []
    texts: list[Path] = []
    left_out: list[tuple[Path, str]] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [root], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        try:
            identity = os.stat(here)
            if (identity.st_dev, identity.st_ino) in seen:
                left_out.append((here, AGAIN))
                continue
            seen.add((identity.st_dev, identity.st_ino))
            with os.scandir(here) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            if here == root:
                raise
            left_out.append((here, CLOSED))
            continue
        for entry in inside:
            path = here / entry.name
            if is_hidden(entry):
                left_out += [(found, UNSOUND) for found in _hidden_recordings(path)]
            elif _is_folder(entry):
                (links if entry.is_symlink() else folders).append(path)
            elif (reason := _reason(path)) is None:
                recordings.append(path)
            elif reason:
                left_out.append((path, reason))
            else:
                texts.append(path)
        links.sort()
    recordings.sort()
    unlikely = tuple(path for path in recordings if path.suffix.lower() not in SUFFIXES)
    return Found(root, tuple(recordings), tuple(sorted(left_out)), tuple(sorted(texts)), unlikely)


def surveyed(root: Path) -> Found:
    """List what is in a folder.

    Raises
    ------
    DataError
        If the folder cannot be read.
    """
    try:
        return recordings_in(root)
    except OSError as error:
        raise DataError(f"{root}: expected a folder that can be read, got {error.strerror}; check it.") from error


def paths_in(folder: Path) -> list[Path]:
    """Return the recordings in a folder and below it, by path.

    What is left out is warned of, once for each reason.

    Raises
    ------
    DataError
        If there is none, or the folder cannot be read.
    """
    found = surveyed(folder)
    if not found.recordings:
        got = f"none, {found.why()}" if found.left_out else f"none; known are {' '.join(sorted(SUFFIXES))}"
        raise DataError(f"{folder}: expected recordings in the folder or below, got {got}.")
    for line in found.remarks():
        warnings.warn(line, stacklevel=2)
    return list(found.recordings)


def is_hidden(entry: os.DirEntry[str] | Path) -> bool:
    """Whether a name is one of those that people do not see or did not make.

    A dot before it, a desktop's own, hidden on Windows.
    """
    if entry.name.startswith(".") or entry.name.lower() in HIDDEN:
        return True
    if os.name != "nt":
        return False
    with contextlib.suppress(OSError):
        attributes: int = getattr(os.lstat(entry), "st_file_attributes", 0)
        return bool(attributes & stat.FILE_ATTRIBUTE_HIDDEN)
    return False


def is_own(path: Path) -> bool:
    """Whether a sound is one that `explain --sounds` wrote.

    It says so itself, or lies beside the arrays or the twin that it was written with.
    """
    stem, dot, part = path.stem.rpartition(".")
    if part not in PARTS or not dot or path.suffix.lower() not in SOUND_SUFFIXES:
        return False
    if _says_so(path) or any(_is_ours(npz) for npz in _arrays_beside(path.parent, stem)):
        return True
    twin = path.with_name(f"{stem}.{PARTS[1 - PARTS.index(part)]}{path.suffix}")
    return twin.is_file() and any(name in STRATEGIES for name in stem.split(".")[1:])


def _is_empty(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _reason(path: Path) -> str | None:
    """Why a file is no recording; None if it is one, empty if nobody would take it for one."""
    suffix = path.suffix.lower()
    kind = _TYPES.guess_type(f"x{suffix}")[0] or ""
    silent = suffix in NO_SOUNDS or kind.partition("/")[0] in ("text", "image", "font") or kind in _DOCUMENTS
    if silent and suffix not in SUFFIXES:
        return ""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return BROKEN
    except OSError:
        return BROKEN
    if is_own(path):
        return OWN
    return None if suffix in SUFFIXES or _decodes(path) else FORMAT


_DOCUMENTS = ("application/json", "application/pdf", "application/javascript", "application/xml")


def _decodes(path: Path) -> bool:
    """Whether libsndfile knows a file by its contents."""
    try:
        with quiet_stderr, soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else str(path)):
            return True
    except (soundfile.SoundFileError, OSError, TypeError, ValueError):
        return False


def _hidden_recordings(path: Path) -> list[Path]:
    """Files in or at a hidden place whose names are those of recordings; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        return [path] if path.suffix.lower() in SUFFIXES else []
    inside = (Path(root, name) for root, _, names in os.walk(path) for name in sorted(names))
    return [found for found in inside if found.suffix.lower() in SUFFIXES]


def _says_so(path: Path) -> bool:
    try:
        with quiet_stderr, soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else str(path)) as sound:
            return str(sound.software).startswith(PROGRAM)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError):
        return False


def _arrays_beside(folder: Path, stem: str) -> list[Path]:
    """The .npz files that a name may belong to: its stem ends before one of the dots."""
    parts = stem.split(".")
    return [folder / f"{'.'.join(parts[:count])}.npz" for count in range(1, len(parts))]


@cache
def _settings(path: Path, _changed_ns: int) -> str:
    """The program that an .npz says it is of."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return str(json.loads(str(arrays["settings"]))["program"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return ""


def _is_ours(path: Path) -> bool:
    try:
        changed_ns = path.stat().st_mtime_ns
    except OSError:
        return False
    return _settings(path, changed_ns).startswith(PROGRAM)


def _shown(path: Path) -> str:
    return printable(str(path))
