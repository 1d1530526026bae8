"""A folder of real recordings as a benchmark `Dataset`.

Fourth step of the benchmark's flow, beside `datasets.synthetic`: a folder with one folder a class, or with a ``clips.csv`` (columns ``file``,
``label``, ``source_group``), enters; a class-balanced sample spread over the sources leaves, each clip as its loudest example, with the other
recordings' examples for the head, as `sampling` draws them.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path, PureWindowsPath

from relax_quantus.audio.reading import checked_resampler
from relax_quantus.base.text_files import read_text, table
from relax_quantus.benchmark.data.clips import Dataset
from relax_quantus.benchmark.data.sampling import Entry, Reader, draw, loudest
from relax_quantus.errors import DataError
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.recordings.folders import Found, recordings_in

__all__ = ["Entry", "folder", "listing", "loudest"]

TABLE = "clips.csv"


def listing(folder: str | os.PathLike[str]) -> list[Entry]:
    """Recordings of a folder, in a stable order: from its ``clips.csv`` if it has one, else one class a subfolder.

    Raises
    ------
    DataError
        If the folder is missing or has no recording, the table lacks a column, or there is only one class.

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
    """The table's entries, what to say of what is left out, and the same in a few words."""
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
    """A file's name as it is found on this system: Windows separates folders by backslashes, which are letters elsewhere."""
    return name if "\\" not in name or (root / name).exists() else PureWindowsPath(name).as_posix()


def _from_folders(root: Path) -> tuple[list[Entry], list[str], str]:
    """As `_from_table`, of a folder with one folder a class."""
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


def folder(
    path: str | os.PathLike[str],
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    clips_per_source: int | None = None,
    front_end: FrontEnd | None = None,
) -> Dataset:
    """Sample a folder of recordings.

    Parameters
    ----------
    path
        See the module's text.
    max_clips
        Clips to explain: balanced over classes, spread over sources.
    seed
        Of the choice.
    head_clips
        Recordings for the head, balanced over classes; those of a sampled clip's source are held out wherever the class has another source.
    clips_per_source
        Explain at most so many clips of one source: what is said of sources gains more from another source than from another clip.
    resampler
        See `relax_quantus.audio.reading.resample`; one that does not import is refused before anything is read.
    front_end
        Makes the examples; None for VGGish's.

    Raises
    ------
    DataError
        See `listing`; also if fewer than two classes are left once bad recordings are skipped.
    """
    reader = Reader(checked_resampler(resampler), front_end=front_end)
    sample = draw(listing(path), str(path), max_clips, seed, head_clips, reader, of_a_source=clips_per_source)
    return sample.dataset(Path(path).resolve().name)
