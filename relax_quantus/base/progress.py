"""Show how far a long call is, by a bar on stderr or by what the caller brings.

A function that takes ``show_progress``, True, False or a callable, passes it on to `progress_bar`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

Progress = Callable[..., Any]
"""Called with ``total``, ``what``, ``unit``, ``begun``; returns a context with ``update(n)``."""


def progress_bar(show_progress: bool | Progress, total: int, what: str, unit: str, begun: int = 0) -> Any:
    """Return a context manager whose ``update(n)`` counts `n` more of `total`.

    Parameters
    ----------
    show_progress
        True for tqdm's bar on stderr, False for none, or a callable as `Progress` says.
    total, begun
        How many things there are to do in all, and how many were done before.
    what, unit
        What is being done, and to what, in a word each: "read", "clip".

    Examples
    --------
    >>> with progress_bar(False, 3, "read", "clip") as bar:
    ...     bar.update()
    """
    if callable(show_progress):
        return show_progress(total=total, what=what, unit=unit, begun=begun)
    from tqdm.auto import tqdm

    return tqdm(total=total, initial=begun, desc=what, unit=unit, disable=not show_progress or sys.stderr is None)
