"""Maps of a long recording, frame after frame -> as many columns as a picture has room for, in each the moment that says most.

A leaf of the flow beside the pictures: parts ``(rows, F)`` enter once, arrays ``(columns, F)`` leave. A mean over seconds would hide a short call; so
a column shows, band by band, the frame whose centred importance is farthest from 0, with everything else that is known of that very bin. The
spectrogram shows the loudest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from relax_quantus.base import checks

CENTRED, ERROR, Z, STANDING_OUT = "centred", "centred_standard_error", "z", "standing_out"
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Overview:
    """A recording in columns of `column_s` seconds each, the first beginning at 0 s.

    Attributes
    ----------
    spectrogram
        ``(columns, F)``.
    maps
        Name of a strategy -> name of a map -> ``(columns, F)``; `CENTRED` and `ERROR`, its own standard error, are among
        them; `Z`, and `STANDING_OUT`, 1 where the moment shown stands out and 0 elsewhere, may be.
    """

    spectrogram: Values
    maps: dict[str, dict[str, Values]]
    column_s: float

    def coarser(self, factor: int) -> Overview:
        """The same in columns `factor` times as long."""
        maps = {name: telling([kinds], factor) for name, kinds in self.maps.items()}
        return Overview(loudest([self.spectrogram], factor), maps, self.column_s * factor)


def loudest(parts: Iterable[Values], size: int) -> Values:
    """The highest of every `size` rows, ``(rows, F) -> (ceil(rows / size), F)``; NaN only where there is nothing else.

    Examples
    --------
    >>> loudest([np.array([[1.0], [3.0], [2.0]], np.float32)], 2).tolist()
    [[3.0], [2.0]]
    """
    found = [part["x"].max(axis=1) for part in _groups(({"x": part} for part in parts), size, -np.inf)]
    return np.concatenate(found)


def telling(parts: Iterable[Mapping[str, Values]], size: int) -> dict[str, Values]:
    """Of every `size` rows, and for each band, the one whose centred importance is farthest from 0.

    Parameters
    ----------
    parts
        Name of a map -> ``(rows, F)``, the same names in each part; `CENTRED` is among them, NaN where nothing is known.
    size
        Rows a column.

    Returns
    -------
    dict of numpy.ndarray
        By name, ``(ceil(rows / size), F)``.

    Examples
    --------
    >>> found = telling([{"centred": np.array([[0.1], [-0.3]]), "x": np.array([[5.0], [6.0]])}], 2)
    >>> found["centred"].tolist(), found["x"].tolist()
    ([[-0.3]], [[6.0]])
    """
    columns: dict[str, list[Values]] = {}
    for group in _groups(parts, size, np.nan):
        distance = np.nan_to_num(np.abs(group[CENTRED]), nan=-1.0)
        chosen = distance.argmax(axis=1)[:, None]
        for name, values in group.items():
            columns.setdefault(name, []).append(np.take_along_axis(values, chosen, axis=1)[:, 0])
    return {name: np.concatenate(values) for name, values in columns.items()}


def _groups(parts: Iterable[Mapping[str, Values]], size: int, padding: float) -> Iterable[dict[str, Values]]:
    """Parts ``(rows, F)`` as ``(columns, size, F)``, whatever their lengths; the last column is filled up."""
    size = checks.integer("size", size)
    rest: dict[str, Values] = {}
    for part in parts:
        joined = {name: np.concatenate([rest[name], v]) if name in rest else v for name, v in part.items()}
        rows = len(next(iter(joined.values()))) // size * size
        rest = {name: values[rows:] for name, values in joined.items()}
        if rows:
            yield {name: v[:rows].reshape(-1, size, v.shape[1]) for name, v in joined.items()}
    left = len(next(iter(rest.values()))) if rest else 0
    if left:
        wide = ((0, size - left), (0, 0))
        yield {name: np.pad(v, wide, constant_values=padding)[None] for name, v in rest.items()}
