"""A folder of labelled recordings -> its entries: path, class and source of each.

A folder with one folder a class, or with a ``clips.csv`` (columns ``file``, ``label``,
``source_group``). `fit_recordings` fits on these, and the benchmark draws its data sets from them.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from relax_quantus.base.text_files import read_text, table
from relax_quantus.errors import DataError
from relax_quantus.recordings.folders import surveyed

TABLE = "clips.csv"


@dataclass(frozen=True)
class Entry:
    """One recording: its path, the name to print, class, source, and fold if it has one."""

    path: Path
    name: str
    label_name: str
    source_group: str
    fold: int = 0


def listing(folder: str | os.PathLike[str]) -> list[Entry]:
    """List a folder's recordings in a stable order, by its ``clips.csv`` or its subfolders.

    Raises
    ------
    DataError
        If the folder is missing or has no recording, the table lacks a column, or there is only
        one class.

    Warns
    -----
    UserWarning
        Of what is left out, once for each reason, and of classes that are left without a recording.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(
            f"{root}: expected a folder of recordings, got {'a file' if root.exists() else 'no such folder'}."
        )
    entries, remarks, why = _from_table(root) if (root / TABLE).is_file() else _from_folders(root)
    why = f" ({why})" if why else ""
    if not entries:
        raise DataError(
            f"{root}: expected recordings, one folder a class or a {TABLE}, got none{why}; put WAV or FLAC files in folders."
        )
    classes = {entry.label_name for entry in entries}
    if len(classes) < 2:
        raise DataError(
            f"{root}: expected at least two classes, got only {classes.pop()!r}{why}; add a folder of another class."
        )
    for line in remarks:
        warnings.warn(line, stacklevel=2)
    return entries


def _from_table(root: Path) -> tuple[list[Entry], list[str], str]:
    """Return the table's entries, warnings of what is left out, and these in a few words."""
    path = root / TABLE
    columns, rows = table(read_text(path, "a CSV table"), "file")
    for column in ("file", "label"):
        if rows and column not in (name.lower() for name in columns):
            raise DataError(f"{path}: expected a column {column!r}, got {', '.join(columns)}; add it.")
    entries = [
        Entry(root / name, name, row["label"], row.get("source_group") or name)
        for _, row in rows
        if row["file"] and row["label"]
        for name in [_with_slashes(row["file"], root)]
    ]
    short = [str(line) for line, row in rows if not (row["file"] and row["label"])]
    more = f" and {len(short) - 1} more" if len(short) > 1 else ""
    remarks = [f"{path}: left out line {short[0]}{more}, without a file or a label; fill them in."] if short else []
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise DataError(f"{path}: expected each file once, got {entry.name} twice; keep one of the rows.")
        seen.add(entry.name)
    return entries, remarks, f"{len(short)} lines without a file or a label" if short else ""


def _with_slashes(name: str, root: Path) -> str:
    """Return a name with slashes, if that of the table has Windows's backslashes."""
    return name if "\\" not in name or (root / name).exists() else PureWindowsPath(name).as_posix()


def _from_folders(root: Path) -> tuple[list[Entry], list[str], str]:
    """Return the same as `_from_table`, for a folder with one folder a class."""
    found = surveyed(root)
    inside = [path for path in found.recordings if len(path.relative_to(root).parts) > 1]
    stray = [path for path in found.recordings if path.parent == root]
    remarks, why = found.remarks(), list(filter(None, [found.why()]))
    for name in found.lost():
        remarks.append(f"{root / name}: no recording in this folder can be read; the class is left out.")
    if stray:
        why.append(f"{len(stray)} in no class's folder")
        said = f"{len(stray)} recording{'s' if len(stray) > 1 else ''} in no class's folder, such as {stray[0].name}"
        remarks.append(f"{root}: left out {said}; put them into folders, or write a {TABLE}.")
    first: dict[Path, str] = {}
    taken: set[tuple[str, Path]] = set()
    entries = []
    for path in inside:
        name, real = path.relative_to(root).as_posix(), path.resolve()
        label = path.relative_to(root).parts[0]
        if (label, real) not in taken:  # two links to one recording are one recording
            taken.add((label, real))
            entries.append(Entry(path, name, label, first.setdefault(real, name)))
    return entries, remarks, ", ".join(why)
