"""Text for one line of a message."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Escape whatever would break a one-line message: line breaks, control characters, undecodable bytes of a file name.

    Examples
    --------
    >>> printable("two\nlines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
