"""A folder of real recordings as a benchmark `Dataset`.

Fourth step of the benchmark's flow, beside `datasets.synthetic`: a folder with one folder a class, or with a ``clips.csv`` (columns ``file``,
``label``, ``source_group``), enters; a class-balanced sample spread over the sources leaves, each clip as its loudest example, with the other
recordings' examples for the head, as `sampling` draws them.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import soundfile

from relax_quantus.audio import checked_resampler
from relax_quantus.benchmark.clips import Dataset
from relax_quantus.benchmark.sampling import Entry, Reader, draw, loudest
from relax_quantus.errors import DataError

__all__ = ["SUFFIXES", "Entry", "folder", "listing", "loudest"]

SUFFIXES = {f".{name}".lower() for name in soundfile.available_formats()} | {".aif", ".oga", ".opus", ".snd", ".wave"}
TABLE = "clips.csv"


def listing(folder: str | os.PathLike[str]) -> list[Entry]:
    """Recordings of a folder, in a stable order: from its ``clips.csv`` if it has one, else one class a subfolder.

    Raises
    ------
    DataError
        If the folder is missing or has no recording, the table lacks a column, or there is only one class.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(
            f"{root}: expected a folder of recordings, got {'a file' if root.exists() else 'no such folder'}."
        )
    entries = _from_table(root) if (root / TABLE).is_file() else _from_folders(root)
    if not entries:
        raise DataError(
            f"{root}: expected recordings, one folder a class or a {TABLE}, got none; put WAV or FLAC files in folders."
        )
    classes = {entry.label_name for entry in entries}
    if len(classes) < 2:
        raise DataError(
            f"{root}: expected at least two classes, got only {classes.pop()!r}; add a folder of another class."
        )
    return entries


def _from_table(root: Path) -> list[Entry]:
    try:
        with (root / TABLE).open(newline="", encoding="utf-8-sig") as source:
            rows = list(csv.DictReader(source))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{root / TABLE}: expected a CSV table, got {error}; save it as UTF-8 CSV.") from error
    for column in ("file", "label"):
        if rows and rows[0].get(column) is None:
            raise DataError(
                f"{root / TABLE}: expected a column {column!r}, got {', '.join(map(str, rows[0]))}; add it."
            )
    entries = [
        Entry(root / row["file"], row["file"], row["label"], row.get("source_group") or row["file"])
        for row in rows
        if row["file"] and row["label"]
    ]
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise DataError(f"{root / TABLE}: expected each file once, got {entry.name} twice; keep one of the rows.")
        seen.add(entry.name)
    return entries


def _from_folders(root: Path) -> list[Entry]:
    files = sorted(path for path in root.glob("*/**/*") if path.is_file() and path.suffix.lower() in SUFFIXES)
    return [
        Entry(p, p.relative_to(root).as_posix(), p.relative_to(root).parts[0], p.relative_to(root).as_posix())
        for p in files
    ]


def folder(
    path: str | os.PathLike[str],
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    clips_per_source: int | None = None,
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
        See `relax_quantus.audio.resample`; one that does not import is refused before anything is read.

    Raises
    ------
    DataError
        See `listing`; also if fewer than two classes are left once bad recordings are skipped.
    """
    reader = Reader(checked_resampler(resampler))
    sample = draw(listing(path), str(path), max_clips, seed, head_clips, reader, of_a_source=clips_per_source)
    return sample.dataset(Path(path).resolve().name)
