"""Time-frequency boxes drawn by people: Raven's selection tables and Audacity's label tracks.

A text file enters, `Box` objects leave, in seconds of one recording and Hz; `bins` turns boxes into
bins of the log-mel grid. Raven's table is tab-separated with a header (Cornell Lab, Raven Pro
manual, "selection tables"); Audacity's track has ``begin<tab>end<tab>label`` a line and, for a
spectral selection, a second line of a backslash, the lowest and the highest frequency, where -1
stands for "not set". Both are also read as spreadsheets save them, see
`relax_quantus.base.text_files`.

Raven opens many files as one sequence. Its times then count from the first file; ``File Offset
(s)`` counts from the file that ``Begin File`` and ``Begin Path`` name, and these decide where a box
lies and whose it is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from relax_quantus.base.files import write_text
from relax_quantus.base.text_files import Numbers, cells, listed, read_text, table
from relax_quantus.errors import DataError
from relax_quantus.frontend.examples import Axis
from relax_quantus.frontend.log_mel import LogMelAxis, LogMelConfig
from relax_quantus.views.boxes import LABEL

BEGIN, END, LOW, HIGH = "begin time (s)", "end time (s)", "low freq (hz)", "high freq (hz)"
LABELS = ("species", "annotation", "label", "class", "tag", "species code", "call type", "name")
FILE, PATH, END_FILE, OFFSET = "begin file", "begin path", "end file", "file offset (s)"
SCORE = "score"
WHAT = "a readable annotation file"


@dataclass(frozen=True)
class Box:
    """One annotated sound: from `begin_s` to `end_s`, `low_hz` to `high_hz`, and what it is."""

    begin_s: float
    end_s: float
    low_hz: float
    high_hz: float
    label: str


@dataclass(frozen=True)
class Selection:
    """A row of a selection table.

    Its box in seconds of the file that it begins in, and the files that it names.

    Attributes
    ----------
    file
        Where it begins, as ``Begin Path`` or ``Begin File`` has it, with slashes; empty if the
        table does not say.
    end_file
        The name of the file where it ends if that is another; else, or if the table does not say,
        empty.
    file_start_s
        Where its file begins in the table's own times; None if the table does not say.
    """

    box: Box
    file: str
    end_file: str
    file_start_s: float | None


def read(
    path: str | os.PathLike[str], label_column: str = "", recording: str | os.PathLike[str] | None = None
) -> list[Box]:
    """Read a selection table or label track, whichever it is.

    Each box once, in seconds of its recording.

    Parameters
    ----------
    path
        The text file.
    label_column
        Of a selection table: the column that says what was heard; empty for the first of `LABELS`
        that it has.
    recording
        The sound file whose boxes are wanted: of a table of several files, only its rows are
        returned.

    Raises
    ------
    DataError
        If it is neither, lacks a column, a row is broken (the message names the line), or it is
        about other recordings.
    """
    text = read_text(path, WHAT)
    if not _is_table(text):
        return list(dict.fromkeys(_audacity(path, text.split("\n"))))
    return list(dict.fromkeys(_of_recording(path, _raven(path, text, label_column), recording)))


def is_annotation(path: Path) -> bool:
    """Tell whether a text file looks like a selection table or a label track.

    By its first lines, and for a label track by the ending .txt.
    """
    try:
        text = read_text(path, WHAT)
    except DataError:
        return False
    if _is_table(text):
        return True
    first = next((line for line in text.split("\n") if line.strip()), "")
    times = _fields(first)[:2]
    return path.suffix.lower() == ".txt" and len(times) == 2 and None not in map(Numbers(times).read, times)


def files_named(path: Path) -> list[str]:
    """List the files that a selection table names, with slashes, each once.

    In ``Begin Path`` or ``Begin File``; none of a label track.
    """
    text = read_text(path, WHAT)
    return list(dict.fromkeys(filter(None, map(_file_of, _rows(text))))) if _is_table(text) else []


def is_own(path: Path) -> bool:
    """Tell whether a selection table was written by this package and not labelled since.

    See `relax_quantus.views.boxes.write_raven`.
    """
    text = read_text(path, WHAT)
    rows = _rows(text) if _is_table(text) else []
    return bool(rows) and all(row.get("annotation") == LABEL and row.get(SCORE) for row in rows)


def same_file(named: str, recording: Path) -> bool:
    """Tell whether the name of a file in a table means a recording.

    It may have been converted to another format since.
    """
    name, own = PurePosixPath(named), recording.name.lower()
    return name.name.lower() == own or name.stem.lower() == Path(own).stem


def write_audacity(path: str | os.PathLike[str], boxes: Iterable[Box]) -> None:
    """Write a label track with spectral selections, as Audacity exports it.

    A highest frequency that is infinite is "not set".
    """
    text = "".join(
        f"{b.begin_s:.6f}\t{b.end_s:.6f}\t{b.label}\n\\\t{b.low_hz:.6f}\t{b.high_hz if b.high_hz < math.inf else -1:.6f}\n"
        for b in boxes
    )
    write_text(path, text)


def _is_table(text: str) -> bool:
    """Tell whether a text begins with a selection table's header."""
    return BEGIN in [name.lower() for name in table(text, BEGIN)[0]]


def _rows(text: str) -> list[dict[str, str]]:
    return [row for _, row in table(text, BEGIN)[1]]


def _file_of(row: dict[str, str]) -> str:
    """Return where a row begins, with slashes.

    The path if there is one, as two folders may have files of one name.
    """
    name, path = (row.get(key, "").replace("\\", "/") for key in (FILE, PATH))
    if name and path and PurePosixPath(path).name.lower() != name.rpartition("/")[2].lower():
        path = f"{path.rstrip('/')}/{name}"  # some versions name the folder alone
    return path or name


def _fields(line: str) -> list[str]:
    """Split a label track's line into its fields."""
    return cells(line, "\t" if "\t" in line else ";")


def _refuse(path: object, line: int, expected: str, got: object) -> NoReturn:
    raise DataError(f"{path}, line {line}: expected {expected}, got {got}; mend the line.")


def _raven(path: object, text: str, label_column: str) -> list[Selection]:
    """Read the rows of a selection table."""
    columns, rows = table(text, BEGIN)
    known = [name.lower() for name in columns]
    for needed in (BEGIN, END, LOW, HIGH):
        if needed not in known:
            listing = ", ".join(columns)
            raise DataError(f"{path}: expected a column {needed!r}, got {listing}; show it in Raven and save again.")
    wanted = [label_column.lower()] if label_column else [name for name in LABELS if name in known]
    if not wanted or wanted[0] not in known:
        rule = f"a column {label_column!r}" if label_column else "a column that names what was heard"
        raise DataError(f"{path}: expected {rule}, got {', '.join(columns)}; name it with label_column=.")
    numbers = Numbers(row.get(name, "") for _, row in rows for name in (BEGIN, END, LOW, HIGH, OFFSET))
    selections = []
    for line, row in rows:
        begin, end, low, high = _numbers(path, line, [row[name] for name in (BEGIN, END, LOW, HIGH)], numbers)
        box = _box(path, line, begin, end, low, high, row[wanted[0]])
        start_s = None
        if row.get(OFFSET):
            offset_s = numbers.read(row[OFFSET])
            if offset_s is None or offset_s < 0:
                _refuse(path, line, f"a number in {OFFSET!r}, not below 0", repr(row[OFFSET]))
            start_s = box.begin_s - offset_s
            box = Box(offset_s, offset_s + (box.end_s - box.begin_s), box.low_hz, box.high_hz, box.label)
        end_file = row.get(END_FILE, "").replace("\\", "/").rpartition("/")[2]
        file = _file_of(row)
        crosses = end_file.lower() != PurePosixPath(file).name.lower()
        selections.append(Selection(box, file, end_file if crosses else "", start_s))
    return selections


def _of_recording(
    path: object, selections: Sequence[Selection], recording: str | os.PathLike[str] | None
) -> Sequence[Box]:
    """Select the boxes of one recording, in its own seconds.

    Rows of others are left out, and what reaches into it is cut at its beginning.
    """
    files = sorted({s.file for s in selections} - {""})
    names = [PurePosixPath(name).name for name in files]
    if recording is None:
        if len(files) > 1:
            rule, got = "selections of one sound file", f"{len(files)} in {FILE!r}"
            raise DataError(f"{path}: expected {rule}, got {got}; save a table a file, or name the recording.")
        return [s.box for s in selections]
    recording = Path(recording)
    own = {"", *_own_files(files, recording)}
    mine = [s for s in selections if s.file in own]
    if selections and not mine:
        rule, got = f"selections of {recording.name}", f"those of {listed(names, 3)} in {FILE!r}"
        raise DataError(f"{path}: expected {rule}, got {got}; rename the table or the recording, or leave it out.")
    unknown = [s for s in mine if s.file_start_s is None]
    if len(files) > 1 and unknown:
        rule, got = f"a column {OFFSET!r} in a table of several sound files", "none, or an empty cell"
        raise DataError(f"{path}: expected {rule}, got {got}; show it in Raven and save again.")
    starts = [s.file_start_s for s in mine if s.file and s.file_start_s is not None]
    boxes = []
    for s in selections:
        if s.file in own:
            boxes.append(s.box)
        elif starts and s.file_start_s is not None and s.end_file and same_file(s.end_file, recording):
            end_s = s.file_start_s + s.box.end_s - starts[0]
            if end_s > 0:
                boxes.append(Box(0.0, end_s, s.box.low_hz, s.box.high_hz, s.box.label))
    return boxes


def _own_files(files: Sequence[str], recording: Path) -> set[str]:
    """Select which of the named files mean a recording.

    Of one name in several folders, the folders that are its own.
    """
    fitting = [name for name in files if same_file(name, recording)]
    best = max((shared_folders(name, recording) for name in fitting), default=0)
    return {name for name in fitting if shared_folders(name, recording) == best}


def shared_folders(named: str, recording: Path) -> int:
    """Count the folders that a named file and a recording have in common.

    From the innermost one out.
    """
    theirs = [part.lower() for part in reversed(PurePosixPath(named).parts[:-1])]
    own = [part.lower() for part in reversed(recording.absolute().parts[:-1])]
    count = 0
    for one, other in zip(theirs, own, strict=False):
        if one != other:
            break
        count += 1
    return count


def _audacity(path: object, lines: Sequence[str]) -> list[Box]:
    """Read the labels of a label track; one without a spectral selection spans all frequencies."""
    rows = [(number, _fields(line)) for number, line in enumerate(lines, start=1) if line.strip()]
    numbers = Numbers(text for _, parts in rows for text in (parts[1:3] if parts[0] == "\\" else parts[:2]))
    boxes: list[Box] = []
    for number, parts in rows:
        if parts[0] == "\\":
            low, high = [numbers.read(part) for part in (*parts[1:3], "", "")[:2]]
            if not boxes or low is None or high is None:
                rule = "a label and then a backslash, lowest and highest frequency in Hz"
                _refuse(path, number, rule, repr(" ".join(parts)))
            last = boxes.pop()
            limits = (max(low, 0.0), math.inf if high < 0 else high)
            boxes.append(_box(path, number, last.begin_s, last.end_s, *limits, last.label))
            continue
        if len(parts) < 2:
            _refuse(path, number, "begin, end and label between tabs", repr(parts[0][:40]))
        begin, end = _numbers(path, number, parts[:2], numbers)
        boxes.append(_box(path, number, begin, end, 0.0, math.inf, parts[2] if len(parts) > 2 else ""))
    return boxes


def _numbers(path: object, line: int, texts: Sequence[str], numbers: Numbers) -> list[float]:
    """Parse the numbers of a line."""
    values = [numbers.read(text) for text in texts]
    if None in values:
        count = {2: "two", 4: "four"}[len(texts)]
        unclear = "numbers whose commas have one meaning (write a decimal point)"
        pairs = zip(values, texts, strict=True)
        got = ", ".join(text if value is not None else repr(text) if text else "nothing" for value, text in pairs)
        _refuse(path, line, unclear if numbers.unclear else f"{count} numbers", got)
    return [value for value in values if value is not None]


def _box(path: object, line: int, begin: float, end: float, low: float, high: float, label: str) -> Box:
    if begin < 0 or end < begin:
        _refuse(path, line, "an end after the begin, neither below 0", f"{begin:g} to {end:g} s")
    if low < 0 or high <= low:
        _refuse(path, line, "a highest frequency above the lowest, neither below 0", f"{low:g} to {high:g} Hz")
    return Box(begin, end, low, high, label)


def bins(
    boxes: Iterable[Box], examples: int, axis: LogMelConfig | Axis | None = None, frames: int | None = None
) -> npt.NDArray[np.bool_]:
    """Mark the bins that boxes cover.

    Frames whose middle lies in the time, bands whose middle lies in the frequencies.

    A box that is thinner than a band or shorter than a frame takes the nearest one.

    Parameters
    ----------
    boxes
        In seconds and Hz.
    examples
        How many examples.
    axis
        What their axes stand for, or a log-mel's constants; None for VGGish's.
    frames
        Frames T of an example; None for those of the log-mel.

    Returns
    -------
    numpy.ndarray
        bool ``(examples, T, F)``.
    """
    axis = axis if isinstance(axis, Axis) else LogMelAxis(axis or LogMelConfig())
    constants = axis.config if isinstance(axis, LogMelAxis) else LogMelConfig()
    per_example = constants.frames if frames is None else frames
    found = np.zeros((examples * per_example, axis.bands), dtype=bool)
    for box in boxes:
        rows = axis.frames_of_s(box.begin_s, box.end_s, len(found))
        found[np.ix_(rows, axis.bands_of_hz(box.low_hz, box.high_hz))] = True
    return found.reshape(examples, per_example, axis.bands)
