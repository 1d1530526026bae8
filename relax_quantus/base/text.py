"""Text for one line of a message."""

from __future__ import annotations

import os
import re
from typing import Any


def printable(text: str) -> str:
    r"""Escape whatever would break a one-line message: line breaks, control characters, undecodable bytes of a file name.

    Examples
    --------
    >>> printable("two\nlines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shown(path: str | bytes | os.PathLike[Any]) -> str:
    r"""Return a path as printable text on one line: what does not print or decode is escaped.

    Examples
    --------
    >>> print(shown("a" + chr(10) + "b.wav"))
    a\nb.wav
    """
    return printable(os.fsdecode(path))


def one_line(text: str) -> str:
    """Join the lines of `text` and replace what cannot be encoded."""
    text = re.sub(r"\s*[\r\n]+\s*", " ", text.strip())
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
