"""Read a folder laid out as ESC-50, ``meta/esc50.csv`` and ``audio/``, as a data set.

Fourth step of the benchmark's flow, beside `recordings`: the folder of Piczak's ESC-50 (ACM
Multimedia 2015), or any with the columns ``filename``, ``fold``, ``category`` and, where they are,
``src_file`` (the recording that a clip was cut from: the source group) and ``esc10``, enters; a
`Dataset` leaves. Folds keep sources apart by design: clips of one fold are explained and judged,
the head is fitted on the others.
"""

from __future__ import annotations

import os
from pathlib import Path

from relax_quantus.audio.reading import checked_resampler
from relax_quantus.base import checks
from relax_quantus.base.text_files import read_text
from relax_quantus.base.text_files import table as read_table
from relax_quantus.benchmark.data.clips import Dataset
from relax_quantus.benchmark.data.sampling import Entry, Reader, draw
from relax_quantus.errors import DataError
from relax_quantus.frontend.front_end import FrontEnd

TABLE = Path("meta") / "esc50.csv"
AUDIO = "audio"
NEEDED = ("filename", "fold", "category")


def listing(folder: str | os.PathLike[str], esc10: bool = False) -> list[Entry]:
    """List the recordings of the table, in its order.

    Raises
    ------
    DataError
        If the table is missing, lacks a column, has a fold that is no number, or names nothing.
    """
    table = Path(folder) / TABLE
    if not table.is_file():
        raise DataError(f"{table}: expected ESC-50's table, got no such file; pass the folder that holds meta/.")
    columns, lines = read_table(read_text(table, "ESC-50's table"), NEEDED[0])
    rows = [row for _, row in lines]
    for column in (*NEEDED, *(("esc10",) if esc10 else ())):
        if rows and column not in rows[0]:
            raise DataError(f"{table}: expected a column {column!r}, got {', '.join(columns)}; add it.")
    entries = [_entry(table, row) for row in rows if not esc10 or row["esc10"].strip().lower() in ("true", "1")]
    if not entries:
        raise DataError(f"{table}: expected clips, got none; check the table.")
    return entries


def _entry(table: Path, row: dict[str, str]) -> Entry:
    name, fold = row["filename"], (row["fold"] or "").strip()
    if not fold.isdigit():
        raise DataError(f"{table}: expected a whole number as the fold of {name}, got {fold!r}; mend the row.")
    source = row.get("src_file") or name
    return Entry(table.parents[1] / AUDIO / name, name, row["category"], source, int(fold))


def esc50(
    path: str | os.PathLike[str],
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    fold: int = 1,
    esc10: bool = False,
    front_end: FrontEnd | None = None,
) -> Dataset:
    """Sample a folder in ESC-50's layout.

    Parameters
    ----------
    path
        The folder that holds ``meta/`` and ``audio/``.
    max_clips, seed, head_clips, resampler, front_end
        As in `recordings.folder`.
    fold
        Whose clips are explained, and on which the head is judged; it is fitted on the other folds.
    esc10
        Only the ten classes of ESC-10, which carry the freer licence.

    Raises
    ------
    DataError
        See `listing`; also if the fold, or what is left without it, lacks a class.
    """
    checks.integer("fold", fold)
    entries = listing(path, esc10)
    folds = sorted({entry.fold for entry in entries})
    if fold not in folds or len(folds) < 2:
        known = ", ".join(map(str, folds))
        raise DataError(f"{path}: expected fold {fold} and others to fit the head on, got folds {known}; pick another.")
    reader = Reader(checked_resampler(resampler), front_end=front_end)
    sample = draw(entries, str(path), max_clips, seed, head_clips, reader, lambda entry: entry.fold == fold)
    return sample.dataset(f"esc50:{Path(path).resolve().name},fold={fold}" + (",esc10=true" if esc10 else ""))
