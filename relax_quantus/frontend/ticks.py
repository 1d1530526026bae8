"""Which frequencies to mark on a band axis, far enough apart to be read.

A leaf, used by every axis of `relax_quantus.frontend`: the ends of an axis in Hz and where frequencies lie on it enter,
round frequencies leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

TICKS_HZ = (250, 500, 1000, 2000, 4000, 7000)
HIGH_TICKS_HZ = (10_000, 15_000, 20_000, 30_000, 40_000, 60_000, 80_000, 100_000, 120_000, 150_000, 200_000)
FEWEST_TICKS = 3
"""Where the lists above give fewer, ticks are at round steps."""
LEAST_GAP = 0.06
"""Least distance of two ticks, as a share of the axis."""


def ticks_hz(low_hz: float, high_hz: float, position: Callable[[float], float], bands: int) -> list[int | float]:
    """Choose frequencies to mark on an axis from `low_hz` to `high_hz`, far enough apart to be read.

    Parameters
    ----------
    low_hz, high_hz
        Ends of the axis in Hz.
    position
        Frequency in Hz -> place on an axis of length `bands`.
    bands
        Number of bands F.

    Examples
    --------
    >>> ticks_hz(10_000, 120_000, lambda hz: hz / 1000, 120)
    [10000, 20000, 30000, 40000, 60000, 80000, 100000, 120000]
    >>> ticks_hz(3000, 3900, lambda hz: hz / 10, 90)
    [3000, 3200, 3400, 3600, 3800]
    """
    found = _apart([hz for hz in (*TICKS_HZ, *HIGH_TICKS_HZ) if low_hz <= hz <= high_hz], position, bands)
    if len(found) >= FEWEST_TICKS or not high_hz > low_hz:
        return found
    rough = (high_hz - low_hz) / 6
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(by for by in (1, 2, 5, 10) if by * power >= rough)
    steps = np.arange(np.ceil(low_hz / step - 1e-9), np.floor(high_hz / step + 1e-9) + 1)
    return _apart([round(float(hz), 6) for hz in steps * step], position, bands)


def _apart(wanted: Sequence[float], position: Callable[[float], float], bands: int) -> list[int | float]:
    found: list[int | float] = []
    for hz in wanted:
        if not found or position(hz) - position(found[-1]) >= LEAST_GAP * bands:
            found.append(int(hz) if float(hz).is_integer() else hz)
    return found
