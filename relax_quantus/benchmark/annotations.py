"""Time-frequency boxes drawn by people: Raven's selection tables and Audacity's label tracks.

A text file enters, `Box` objects leave, in seconds and Hz; `bins` turns boxes into bins of the log-mel grid. Raven's table is tab-separated with a
header (Cornell Lab, Raven Pro manual, "selection tables"); Audacity's track has ``begin<tab>end<tab>label`` a line and, for a spectral selection, a
second line of a backslash, the lowest and the highest frequency, where -1 stands for "not set".
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from relax_quantus.drafts import write_text
from relax_quantus.errors import DataError
from relax_quantus.frontend import LogMelConfig, hz_to_mel

BEGIN, END, LOW, HIGH = "begin time (s)", "end time (s)", "low freq (hz)", "high freq (hz)"
LABELS = ("species", "annotation", "label", "class", "tag", "species code", "call type", "name")
FILE = "begin file"


@dataclass(frozen=True)
class Box:
    """One annotated sound: from `begin_s` to `end_s`, `low_hz` to `high_hz`, and what it is."""

    begin_s: float
    end_s: float
    low_hz: float
    high_hz: float
    label: str


def read(path: str | os.PathLike[str], label_column: str = "") -> list[Box]:
    """Read a selection table or label track, whichever it is; each box once.

    Parameters
    ----------
    path
        The text file, UTF-8 (or Windows-1252).
    label_column
        Of a selection table: the column that says what was heard; empty for the first of `LABELS` that it has.

    Raises
    ------
    DataError
        If it is neither, lacks a column, or a row is broken; the message names the line.
    """
    lines = _text(Path(path)).splitlines()
    first = next((line for line in lines if line.strip()), "")
    is_table = BEGIN in first.lower()
    boxes = _raven(path, lines, label_column) if is_table else _audacity(path, lines)
    return list(dict.fromkeys(boxes))


def is_annotation(path: Path) -> bool:
    """Whether a text file looks like a selection table or label track, by its first line."""
    try:
        first = next((line for line in _text(path).splitlines() if line.strip()), "")
    except DataError:
        return False
    if BEGIN in first.lower():
        return True
    parts = first.split("\t")
    return len(parts) >= 2 and all(_number(part) is not None for part in parts[:2])


def write_audacity(path: str | os.PathLike[str], boxes: Iterable[Box]) -> None:
    """Write a label track with spectral selections, as Audacity exports it."""
    text = "".join(f"{b.begin_s:.6f}\t{b.end_s:.6f}\t{b.label}\n\\\t{b.low_hz:.6f}\t{b.high_hz:.6f}\n" for b in boxes)
    write_text(path, text)


def _text(path: Path) -> str:
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected a readable annotation file, got {error}; check it.") from error
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return blob.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"{path}: expected text, got other bytes; export the annotations again.")


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _refuse(path: object, line: int, expected: str, got: object) -> NoReturn:
    raise DataError(f"{path}, line {line}: expected {expected}, got {got}; mend the line.")


def _raven(path: object, lines: Sequence[str], label_column: str) -> list[Box]:
    """Rows of a selection table; rows of several views of one selection become one box."""
    table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    columns = {str(name).strip().lower(): name for name in table.fieldnames or ()}
    for needed in (BEGIN, END, LOW, HIGH):
        if needed not in columns:
            listing = ", ".join(map(str, table.fieldnames or ()))
            raise DataError(f"{path}: expected a column {needed!r}, got {listing}; show it in Raven and save again.")
    wanted = [label_column.lower()] if label_column else [name for name in LABELS if name in columns]
    if not wanted or wanted[0] not in columns:
        known = f"a column {label_column!r}" if label_column else "a column that names what was heard"
        listing = ", ".join(map(str, table.fieldnames or ()))
        raise DataError(f"{path}: expected {known}, got {listing}; name it with label_column=.")
    boxes, files = [], set()
    for row in table:
        if not any((value or "").strip() for value in row.values() if not isinstance(value, list)):
            continue
        files.add((row.get(columns.get(FILE, ""), "") or "").strip())
        values = [_number(row[columns[name]]) for name in (BEGIN, END, LOW, HIGH)]
        boxes.append(_box(path, table.line_num, values, (row[columns[wanted[0]]] or "").strip()))
    if len(files) > 1:
        raise DataError(
            f"{path}: expected selections of one sound file, got {len(files)} in {FILE!r}; save a table a file."
        )
    return boxes


def _audacity(path: object, lines: Sequence[str]) -> list[Box]:
    """Labels of a label track; one without a spectral selection spans all frequencies."""
    boxes: list[Box] = []
    for number, line in enumerate(lines, start=1):
        parts = line.rstrip("\r\n").split("\t")
        if not line.strip():
            continue
        if parts[0] == "\\":
            low, high = [_number(part) for part in (*parts[1:3], "", "")[:2]]
            if not boxes or low is None or high is None:
                _refuse(path, number, "a label and then a backslash, lowest and highest frequency in Hz", repr(line))
            last = boxes.pop()
            limits = (max(low, 0.0), math.inf if high < 0 else high)
            boxes.append(_box(path, number, [last.begin_s, last.end_s, *limits], last.label))
            continue
        if len(parts) < 2:
            _refuse(path, number, "begin, end and label between tabs", repr(line[:40]))
        times = [_number(part) for part in parts[:2]]
        boxes.append(_box(path, number, [*times, 0.0, math.inf], parts[2].strip() if len(parts) > 2 else ""))
    return boxes


def _box(path: object, line: int, values: Sequence[float | None], label: str) -> Box:
    begin, end, low, high = values
    if begin is None or end is None or low is None or high is None:
        _refuse(path, line, "four numbers", ", ".join("nothing" if v is None else f"{v:g}" for v in values))
    if begin < 0 or end < begin:
        _refuse(path, line, "an end after the begin, neither below 0", f"{begin:g} to {end:g} s")
    if low < 0 or high <= low:
        _refuse(path, line, "a highest frequency above the lowest, neither below 0", f"{low:g} to {high:g} Hz")
    return Box(begin, end, low, high, label)


def bins(boxes: Iterable[Box], examples: int, config: LogMelConfig | None = None) -> npt.NDArray[np.bool_]:
    """Bins that boxes cover, bool ``(examples, 96, 64)``: frames whose middle lies in the time, bands whose middle lies in the frequencies.

    A box that is thinner than a band or shorter than a frame takes the nearest one.
    """
    config = config or LogMelConfig()
    frames = np.arange(examples * config.frames)
    window_s, hop_s = (n / config.sample_rate_hz for n in (config.window_samples, config.hop_samples))
    times = np.asarray(frames * hop_s + window_s / 2, dtype=np.float64)
    edges = hz_to_mel(config.band_edges_hz)
    middles = edges[1:-1]
    found = np.zeros((frames.size, config.mel_bands), dtype=bool)
    for box in boxes:
        low, high = float(hz_to_mel(box.low_hz)), float(hz_to_mel(min(box.high_hz, config.sample_rate_hz / 2)))
        if high < edges[0] or low > edges[-1] or box.begin_s > times[-1] + hop_s / 2:
            continue
        rows, columns = _inside(times, box.begin_s, box.end_s), _inside(middles, low, high)
        found[np.ix_(rows, columns)] = True
    return found.reshape(examples, config.frames, config.mel_bands)


def _inside(middles: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.int64]:
    """Indices of the middles within; the nearest if there is none."""
    within = np.flatnonzero((middles >= low) & (middles <= high))
    return within if within.size else np.array([int(np.abs(middles - (low + high) / 2).argmin())])
