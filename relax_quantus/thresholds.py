"""Which value a share of a map's bins exceeds: what "the highest fifth" means to sounds, annotations and pages alike.

A leaf of the flow: maps of any shape enter, numbers leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus import checks
from relax_quantus.torch_state import neutral_torch

SHARE = 0.2
"""The share of bins that stands for "what matters" unless said otherwise."""

BINS = 1 << 16
"""Of the histogram that says which few values of a map in parts have to be sorted."""

Values = npt.NDArray[np.float64]


@neutral_torch()
def as_values(values: Tensor | npt.NDArray[Any]) -> Values:
    """The map as a float64 array, off its device and graph; the caller's is not changed."""
    return np.asarray(torch.as_tensor(values).detach().cpu().double().numpy())


def level(values: Tensor | npt.NDArray[Any], share: float = SHARE) -> float:
    """The value that `share` of the finite bins exceed, over all examples together; NaN if no bin is finite.

    Parameters
    ----------
    values
        A map of any shape, best centred (`relax_quantus.Explanation.centred`): the plain importance of different examples lies at different
        heights. NaN marks bins without an explanation.
    share
        Between 0 and 1.

    Raises
    ------
    ArgumentError
        If `share` is not between 0 and 1.

    Examples
    --------
    >>> level(np.arange(11.0), 0.2)
    8.0
    """
    checks.fraction("share", share)
    found = as_values(values)
    finite = found[np.isfinite(found)]
    return float(np.quantile(finite, 1.0 - share)) if finite.size else float("nan")


@dataclass(frozen=True)
class Scale:
    """What a map's values are to be read against: the `level` that a share exceeds, and their standard deviation; NaN if none is finite."""

    level: float
    deviation: float


def scale_of_parts(parts: Callable[[], Iterable[Tensor | npt.NDArray[Any]]], share: float = SHARE) -> Scale:
    """`level` of a map too long for the memory, in three passes over its parts.

    Parameters
    ----------
    parts
        Called three times; yields the same parts, of any shapes, each time.
    share
        Between 0 and 1.

    Raises
    ------
    ArgumentError
        If `share` is not between 0 and 1.

    Examples
    --------
    >>> round(scale_of_parts(lambda: (np.arange(6.0), np.arange(6.0, 11.0))).level, 3)
    8.0
    """
    checks.fraction("share", share)
    low, high, count, total = np.inf, -np.inf, 0, 0.0
    for part in parts():
        finite = _finite(part)
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            count, total = count + finite.size, total + float(finite.sum())
    if not count:
        return Scale(float("nan"), float("nan"))
    counts, squares, mean = np.zeros(BINS, dtype=np.int64), 0.0, total / count
    width = (high - low) / (BINS - 1) or 1.0
    for part in parts():
        finite = _finite(part)
        squares += float(np.square(finite - mean).sum())
        counts += np.bincount(_bins(finite, low, width), minlength=BINS)
    position = (1.0 - share) * (count - 1)
    below, above = _order_statistics(parts, counts, (int(position), min(int(position) + 1, count - 1)), low, width)
    return Scale(below + (above - below) * (position - int(position)), float(np.sqrt(squares / count)))


def _order_statistics(
    parts: Callable[[], Iterable[Tensor | npt.NDArray[Any]]],
    counts: npt.NDArray[np.int64],
    ranks: tuple[int, int],
    low: float,
    width: float,
) -> tuple[float, float]:
    """The values of two ranks that are equal or follow one another, by a histogram: only their bins are kept and sorted."""
    cumulated = np.cumsum(counts)
    wanted = [int(np.searchsorted(cumulated, rank, side="right")) for rank in ranks]
    kept = []
    for part in parts():
        finite = _finite(part)
        kept.append(finite[np.isin(_bins(finite, low, width), wanted)])
    values = np.sort(np.concatenate(kept))
    before = int(cumulated[wanted[0]] - counts[wanted[0]])
    return float(values[ranks[0] - before]), float(values[ranks[1] - before])


def _bins(finite: Values, low: float, width: float) -> npt.NDArray[np.int64]:
    return np.asarray(np.rint((finite - low) / width), dtype=np.int64)


def _finite(part: Tensor | npt.NDArray[Any]) -> Values:
    found = as_values(part)
    return np.asarray(found[np.isfinite(found)])
