"""Read text files as editors and spreadsheets write them: text, cells and numbers.

Enters: a file that a person made (a table, a list of clips, settings); leaves: its text, whatever
its encoding and line ends, or a refusal that says what the file is. Tables may be separated by
tabs, semicolons or commas, quote their cells, and write a decimal comma.
"""

from __future__ import annotations

import codecs
import csv
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from relax_quantus.errors import DataError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks; that of UTF-32 begins as that of UTF-16 does, and is looked for first."""
DELIMITERS = ("\t", ";", ",")
MOST_LINES = 20
"""Lines that one row of a table may go over."""
KINDS = {
    b"PK\x03\x04": "a spreadsheet or another ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"%PDF": "a PDF",
    b"RIFF": "a sound or another RIFF file",
    b"fLaC": "a sound",
    b"OggS": "a sound",
}
"""How files begin that are taken for text files by their names."""
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
SPACES = re.compile(r"[\s\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}]")


def read_text(path: str | os.PathLike[str], what: str, *, legacy: bool = True) -> str:
    r"""Read a text file; line ends become ``\n``, and a byte order mark is taken off.

    Parameters
    ----------
    path
        UTF-8, UTF-16 or UTF-32, with a byte order mark or (UTF-8, UTF-16) without.
    what
        What the file should be, for messages.
    legacy
        Whether other bytes are read as Windows-1252; else they are refused.

    Raises
    ------
    DataError
        If it cannot be read or is no text; the message says what it is.
    """
    try:
        blob = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        got = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: expected {what}, got {got}; check it.") from error
    text, got = _decoded(blob, legacy)
    if text is None:
        raise DataError(f"{path}: expected {what}, got {got}; save it as text in UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(blob: bytes, legacy: bool) -> tuple[str | None, str]:
    """Decode the text, or return None and what the bytes are."""
    for start, kind in KINDS.items():
        if blob.startswith(start):
            return None, kind
    marked = next(((mark, name) for mark, name in MARKS if blob.startswith(mark)), None)
    if marked is not None:
        mark, name = marked
        try:
            return blob[len(mark) :].decode(name), ""
        except UnicodeDecodeError:
            return None, f"bytes that are no {name.upper()}, which its byte order mark announces"
    zeros = [blob[k:4096:2].count(0) for k in (0, 1)]
    if any(zeros):
        name = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        try:
            text = blob.decode(name)
        except UnicodeDecodeError:
            text = "\0"
        return (None, "bytes that are no text") if "\0" in text or min(zeros) else (text, "")
    for encoding in ("utf-8", *(("cp1252",) if legacy else ())):
        try:
            return blob.decode(encoding), ""
        except UnicodeDecodeError:
            continue
    return None, "bytes that are no UTF-8"


def cells(line: str, delimiter: str) -> list[str]:
    r"""Split a line into its cells without the quotes around them.

    Quotes that do not pair are part of the text.

    Examples
    --------
    >>> cells('1;"wren; young";5" pipe', ";")
    ['1', 'wren; young', '5" pipe']
    """
    try:
        found = next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        found = line.split(delimiter)
    return [cell.strip() for cell in found]


def table(text: str, column: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a table with a header, separated by whatever makes `column` one of its columns.

    Parameters
    ----------
    text
        As `read_text` returns it. Empty lines, and Excel's ``sep=;`` before the header, are left
        out.
    column
        Name of a column that the table must have, in lower case.

    Returns
    -------
    columns : list of str
        Names of the columns as the file has them.
    rows : list of (int, dict)
        The line's number, and its cells by the columns' names in lower case; missing cells are
        empty.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if lines and re.fullmatch(r"\"?sep=.?\"?", lines[0][1].strip(), re.IGNORECASE):
        lines = lines[1:]
    if not lines:
        return [], []
    header = lines[0][1]
    found = delimiter_of(header, column)
    columns = cells(header, found)
    keys = [name.lower() for name in columns]
    rows = []
    for number, values in _records(lines[1:], found, len(columns)):
        if any(values):
            rows.append((number, dict(zip(keys, [*values, *[""] * (len(keys) - len(values))], strict=False))))
    return columns, rows


def _records(lines: list[tuple[int, str]], delimiter: str, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Yield lines as cells.

    A quoted cell may go on over the next lines if the row is whole then.
    """
    place = 0
    while place < len(lines):
        number, line = lines[place]
        values, used = cells(line, delimiter), 1
        if len(values) < columns and '"' in line:
            for longer in range(2, MOST_LINES + 1):
                joined = "\n".join(line for _, line in lines[place : place + longer])
                try:
                    together = next(csv.reader([joined], delimiter=delimiter, strict=True))
                except csv.Error:
                    continue
                if len(together) == columns:
                    values, used = [" ".join(cell.split()) for cell in together], longer
                break
        yield number, values
        place += used


def delimiter_of(header: str, column: str) -> str:
    """Return what separates a header's columns.

    That is what makes `column` one of them, else what there is most of.
    """
    for delimiter in DELIMITERS:
        if column in [name.lower() for name in cells(header, delimiter)]:
            return delimiter
    return max(DELIMITERS, key=header.count)


class Numbers:
    """Read numbers as one file writes them: with a decimal point, or with a decimal comma.

    Parameters
    ----------
    texts
        All numbers of the file, which decide together.

    Examples
    --------
    >>> Numbers(["0,3", "1500"]).read("0,3"), Numbers(["0.3", "1,500"]).read("1,500")
    (0.3, 1500.0)
    """

    def __init__(self, texts: Iterable[str]) -> None:
        given = [SPACES.sub("", text) for text in texts]
        commas = [text for text in given if "," in text]
        both = [text for text in commas if "." in text]
        if both:
            self.comma = all(text.rindex(",") > text.rindex(".") for text in both)
        else:
            self.comma = bool(commas) and not any("." in text for text in given)
        self.unclear = self.comma and not both and all(GROUPED.fullmatch(text) for text in commas)

    def read(self, text: str) -> float | None:
        """Return the number, None if it is none, not finite, or could be two."""
        text = SPACES.sub("", text)
        if self.comma:
            if "," in text and self.unclear:
                return None
            whole, comma, rest = text.partition(",")
            if "." in whole and not GROUPED.fullmatch(whole.replace(".", ",")):
                return None
            text = whole.replace(".", "") + (f".{rest}" if comma else "")
        elif "," in text:
            if not GROUPED.fullmatch(text):
                return None
            text = text.replace(",", "")
        try:
            value = float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) else None


def listed(names: Sequence[str], most: int = 12) -> str:
    """Join names for a message, the first few of many.

    Examples
    --------
    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
