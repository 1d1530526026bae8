"""Files whose recorder or copy stopped early: what their headers do not say, and what their ends tell.

Used by `relax_quantus.audio.decoding` alone. A header that was written first and never finished announces no samples although they follow
(`unfinished_header`): the file is read as if it said "until the end". A file that was cut announces more than it holds (`announced_share`),
or, as Ogg announces nothing, lacks its last page (`lacks_last_page`).
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

UNTIL_THE_END = b"\xff\xff\xff\xff"
"""How WAV and AU announce that samples last until the end of the file."""
UNKNOWN_BYTES = 0x7FFF0000
"""Sizes from here on are written by programs that do not know the size, such as into a pipe."""
ANNOUNCED = re.compile(
    r"^\s*(?:data|SSND|BODY|Data Size|riff|Riff size)\s*:\s*(\d+)\s+\(should be (\d+)\)", re.MULTILINE
)
"""libsndfile's own note on a size that the file does not have."""
LARGEST_PAGE = 27 + 255 + 255 * 255
"""Bytes of an Ogg page (RFC 3533)."""
END_OF_STREAM = 4
"""Flag in an Ogg page's header."""


class Patched(io.FileIO):
    """A file of which some bytes read as others.

    Parameters
    ----------
    path
        The file.
    place
        Where the other bytes begin.
    other
        These.
    """

    def __init__(self, path: Path, place: int, other: bytes) -> None:
        super().__init__(path, "rb")
        self._place, self._other = place, other

    def readinto(self, buffer: object, /) -> int:
        """Read, and put in the other bytes."""
        start = self.tell()
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = super().readinto(view)
        first, last = max(start, self._place), min(start + count, self._place + len(self._other))
        if first < last:
            view[first - start : last - start] = self._other[first - self._place : last - self._place]
        return count


def unfinished_header(path: Path) -> tuple[int, bytes] | None:
    """Find a size of 0 before samples that follow it all the same; where it is, and what to read in its place.

    Parameters
    ----------
    path
        A WAV (RIFF or RF64) or AU file; of others nothing is known.
    """
    size = path.stat().st_size
    with path.open("rb") as source:
        start = source.read(12)
        if start[:4] == b".snd" and start[8:12] == bytes(4):
            offset = int.from_bytes(start[4:8], "big")
            return (8, UNTIL_THE_END) if size > offset else None
        if start[:4] not in (b"RIFF", b"RF64") or start[8:12] != b"WAVE":
            return None
        place, long_size = 12, None
        while place + 8 <= size:
            source.seek(place)
            name, length = source.read(4), int.from_bytes(source.read(4), "little")
            if name == b"ds64":
                long_size = place + 16
            if name == b"data":
                rest = size - place - 8
                if rest == 0 or _are_chunks(source, place + 8 + length, size):
                    return None
                if start[:4] == b"RF64" and long_size is not None:
                    source.seek(long_size)
                    return None if any(source.read(8)) else (long_size, rest.to_bytes(8, "little"))
                return (place + 4, UNTIL_THE_END) if length == 0 else None
            place += 8 + length + length % 2
    return None


def _are_chunks(source: io.BufferedReader, place: int, size: int) -> bool:
    """Whether chunks follow up to the end of the file: a WAV that is truly empty may have some behind its samples."""
    if place >= size:
        return False
    while place + 8 <= size:
        source.seek(place)
        name, length = source.read(4), int.from_bytes(source.read(4), "little")
        if not name.isascii() or not name.decode("ascii").isprintable():
            return False
        place += 8 + length + length % 2
    return size <= place <= size + 1


def announced_share(log: str) -> float:
    """How many times as much as there is libsndfile's log says that a header announces; 1 where it says nothing, or nothing believable."""
    for announced, held in ((int(a), int(b)) for a, b in ANNOUNCED.findall(log)):
        if held and held < announced < UNKNOWN_BYTES:
            return announced / held
    return 1.0


def lacks_last_page(path: Path) -> bool:
    """Whether an Ogg file ends without the page that says that it is the last, or within it."""
    size = os.stat(path).st_size
    with path.open("rb") as source:
        source.seek(max(0, size - 2 * LARGEST_PAGE))
        end = source.read()
    place = end.rfind(b"OggS")
    while place >= 0:
        segments = end[place + 26] if len(end) > place + 26 else 0
        table = end[place + 27 : place + 27 + segments]
        whole = len(table) == segments and len(end) >= place + 27 + segments + sum(table) and len(end) > place + 26
        if end[place + 4 : place + 5] == b"\0" or not whole:
            return not (whole and end[place + 5] & END_OF_STREAM)
        place = end.rfind(b"OggS", 0, place)
    return True
