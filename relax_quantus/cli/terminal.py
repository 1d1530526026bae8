"""What a stream can show: colour, and a line that is drawn over.

The environment decides as elsewhere: NO_COLOR turns colour off, FORCE_COLOR on, TERM=dumb says that nothing can be drawn over; else it depends on
whether the stream is a terminal.
"""

from __future__ import annotations

import os
from typing import TextIO

COLOURS = {"red": 31, "yellow": 33}


def coloured(stream: TextIO) -> bool:
    """Whether colours may be written to a stream; NO_COLOR wins."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or redraws(stream)


def redraws(stream: TextIO | None) -> bool:
    """Whether a line on it can be replaced: it is a terminal, and not a dumb one."""
    return stream is not None and not stream.closed and stream.isatty() and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: str, stream: TextIO) -> str:
    """`text` in a colour of `COLOURS`, bold, where the stream may have it."""
    return f"\x1b[1;{COLOURS[colour]}m{text}\x1b[0m" if coloured(stream) else text
