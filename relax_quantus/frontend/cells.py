"""Cells of masks in seconds and octaves: a grid and a size -> how many cells a strategy gets.

A `SoundGrid` enters (from a network's gains, or from any front end's axis), `Cells` leave: counts
that `relax_quantus.relax.masks` takes, and the size in seconds and octaves that came of them.
Numbers alone go on to RELAX.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from relax_quantus.base import checks
from relax_quantus.frontend.examples import Axis
from relax_quantus.frontend.log_mel import LogMelAxis

TIME_S = 0.12
OCTAVES = 1 / 3
"""Size of a cell where nothing else is asked for."""
SHORT_SHARE = 1 / 8
"""Of an example that lasts less than eight times `TIME_S`, a cell has this share."""
WINDOWS, BANDS = 2, 2
"""A cell holds at least so many windows and bands: in fewer, a gain cannot change."""
MASKS_A_CELL = 5
"""Masks that each cell of a strategy whose cells are drawn one by one must have."""
MOST_STRIPES = 24
"""Stripes of an axis at most, where stripes are drawn."""
UNNAMED_COLUMNS = 8
"""Cells over bands that are no frequencies."""
PUBLISHED = {"random": (7, 7), "time": (8, 1), "frequency": (1, 8), "time_frequency": (8, 8)}
"""Cells over VGGish's log-mel of 0.96 s where no size is asked for, equal in bands."""
STRATEGIES = ("random", "time", "frequency", "time_frequency")


@dataclass(frozen=True)
class SoundGrid:
    """Frames and bands that masks lie on.

    Parameters
    ----------
    frames
        Number of frames T.
    hop_s
        Seconds from one to the next.
    window_s
        Seconds that one sees.
    bands_hz
        Centre of each band in Hz, rising, ``(F,)``; empty where bands are no frequencies.

    Examples
    --------
    >>> SoundGrid(100, 0.01, 0.025, (100.0, 200.0, 400.0)).duration_s
    1.0
    """

    frames: int
    hop_s: float
    window_s: float
    bands_hz: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        checks.integer("frames", self.frames)
        checks.positive("hop_s", self.hop_s)
        bands = np.asarray(self.bands_hz)
        if bands.ndim != 1 or (np.diff(bands) <= 0).any() or (bands < 0).any():
            checks.refuse("bands_hz", "rising frequencies, none negative", repr(self.bands_hz), "sort them")

    @classmethod
    def of_axis(cls, axis: Axis, frames: int) -> SoundGrid:
        """Take the grid of so many frames of a front end's axis."""
        centres = () if axis.centres_hz is None else tuple(float(hz) for hz in axis.centres_hz)
        return cls(frames, axis.hop_s, axis.window_s, centres)

    @property
    def duration_s(self) -> float:
        """Return what the frames span, in seconds."""
        return self.frames * self.hop_s

    def positions(self, octaves: float) -> npt.NDArray[np.float64]:
        """Place each band on an axis of cells of so many octaves, or of two bands if that is more.

        Parameters
        ----------
        octaves
            Size of a cell.

        Returns
        -------
        numpy.ndarray of float64
            ``(F,)``, in cells, from half the first band's width up. Where bands are spaced by
            ratios, equal steps are equal steps in log frequency; where they are spaced evenly and
            wide, equal steps are equal steps in Hz.

        Examples
        --------
        >>> grid = SoundGrid(1, 0.01, 0.02, tuple(2.0 ** np.arange(0, 3, 0.25)))
        >>> grid.positions(1.0)[[0, 4, 8]].round(3)
        array([0.125, 1.125, 2.125])
        """
        widths = self._widths(octaves)
        return np.asarray(np.cumsum(widths) - widths / 2)

    def cells(self, octaves: float) -> float:
        """Cells that all bands span, not yet a whole number; see `positions`."""
        return float(self._widths(octaves).sum())

    def _widths(self, octaves: float) -> npt.NDArray[np.float64]:
        return np.minimum(band_octaves(self.bands_hz) / octaves, 1 / BANDS)

    def rows(self, time_s: float) -> int:
        """Count the cells over time, as nearly of so many seconds as whole ones can be."""
        least_s = WINDOWS * max(self.window_s, self.hop_s)
        return max(1, min(round(self.duration_s / time_s), math.floor(self.duration_s / least_s + 1e-9)))

    def columns(self, octaves: float) -> int:
        """Count the cells over frequency, as nearly of so many octaves as whole ones can be."""
        if not self.bands_hz:
            return UNNAMED_COLUMNS
        return max(1, min(round(self.cells(octaves)), len(self.bands_hz) // BANDS))


def band_octaves(bands_hz: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Return the width of each band in octaves, ``(F,)``; one octave if it is the only band.

    Examples
    --------
    >>> band_octaves((100.0, 200.0, 400.0))
    array([1., 1., 1.])
    """
    if len(bands_hz) < 2:
        return np.ones(len(bands_hz))
    log = np.log2(np.maximum(np.asarray(bands_hz, dtype=np.float64), np.finfo(np.float64).tiny))
    if bands_hz[0] == 0:  # an octave under the second band, as 0 Hz has no logarithm
        log[0] = log[1] - 1
    return np.asarray(np.gradient(log))


@dataclass(frozen=True)
class Cells:
    """Describe how a strategy cuts a grid.

    Parameters
    ----------
    strategy
        Its name.
    rows, columns
        Cells over time and over frequency; 1 along an axis on which the strategy does not vary.
    time_s
        Seconds that a cell lasts; the whole duration where there is one row.
    octaves
        Height of the cells that are spaced by ratios; where bands are so wide that none is, of the
        highest. The whole range where there is one column, NaN where bands are no frequencies.
    positions
        ``(F,)``: where each band lies, in cells, from 0 to `columns`.
    asked
        Seconds and octaves as asked for, or as by default, before the grid and the number of masks
        limited them.
    """

    strategy: str
    rows: int
    columns: int
    time_s: float
    octaves: float
    positions: npt.NDArray[np.float64] = field(repr=False, compare=False)
    asked: tuple[float, float]

    @property
    def parameters(self) -> dict[str, Any]:
        """Return what `relax_quantus.relax.masks.get` takes for the strategy.

        Examples
        --------
        >>> grid = SoundGrid(300, 0.01, 0.02, tuple(100 * 2.0 ** np.arange(0, 6, 0.1)))
        >>> cells_for(grid, 500, "time").parameters
        {'stripes': 24}
        """
        if self.strategy == "random":
            return {"cells": (self.rows, self.columns)}
        if self.strategy == "time_frequency":
            return {"time_stripes": self.rows, "frequency_stripes": self.columns}
        return {"stripes": self.rows if self.strategy == "time" else self.columns}

    def __str__(self) -> str:
        """Say the size, such as ``0.125 s by 0.33 octaves (24 x 16 cells)``."""
        time = f"{self.time_s:.3g} s" if self.rows > 1 else ""
        height = f"{self.octaves:.2g} octaves" if self.octaves == self.octaves else "bands"
        height = height if self.columns > 1 else ""
        return (
            f"{' by '.join(part for part in (time, height) if part) or 'one cell'} ({self.rows} x {self.columns} cells)"
        )


def cells_for(
    grid: SoundGrid, n_samples: int, strategy: str, time_s: float | None = None, octaves: float | None = None
) -> Cells:
    """Count a strategy's cells on a grid, from their size in seconds and octaves.

    Parameters
    ----------
    grid
        What masks lie on.
    n_samples
        Number of masks N: ``random`` gets at most N / 5 cells.
    strategy
        ``"random"``, ``"time"``, ``"frequency"`` or ``"time_frequency"``; the latter three get at
        most 24 stripes an axis.
    time_s
        Seconds of a cell; None for 0.12 s, or an eighth of the example where that is less. At least
        two windows.
    octaves
        Octaves of a cell; None for a third. At least two bands, at every frequency.

    Returns
    -------
    Cells
        Where there would be too many, both axes are coarsened by one factor; ``Cells.time_s`` and
        ``Cells.octaves`` are the size that came of it. VGGish's log-mel of 0.96 s keeps the
        strategies' own numbers unless a size is given.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For a strategy without cells in these units, or sizes that are not positive.

    Examples
    --------
    >>> grid = SoundGrid(300, 0.01, 0.02, tuple(100 * 2.0 ** np.arange(0, 6, 0.1)))
    >>> str(cells_for(grid, 3000, "random"))
    '0.12 s by 0.33 octaves (25 x 18 cells)'
    >>> str(cells_for(grid, 500, "random"))
    '0.273 s by 0.75 octaves (11 x 8 cells)'
    """
    if strategy not in STRATEGIES:
        rule = f"one of {', '.join(STRATEGIES)}"
        checks.refuse("strategy", rule, repr(strategy), "give others their own parameters")
    n_samples = checks.integer("n_samples", n_samples)
    asked_s = min(TIME_S, SHORT_SHARE * grid.duration_s) if time_s is None else checks.positive("time_s", time_s)
    asked_octaves = OCTAVES if octaves is None else checks.positive("octaves", octaves)
    published = PUBLISHED[strategy] if time_s is None and octaves is None and grid == log_mel_grid() else None
    if published is not None:
        rows, columns = published
        positions = np.asarray((np.arange(len(grid.bands_hz)) + 0.5) * (columns / len(grid.bands_hz)), np.float64)
        height = float(band_octaves(grid.bands_hz).sum()) / columns
    else:
        rows = grid.rows(asked_s) if strategy != "frequency" else 1
        columns = grid.columns(asked_octaves) if strategy != "time" else 1
        rows, columns = _coarsened(rows, columns, n_samples / MASKS_A_CELL if strategy == "random" else None)
        positions, height = _positions(grid, asked_octaves, columns)
    asked = (float(asked_s), float(asked_octaves))
    return Cells(strategy, rows, columns, grid.duration_s / rows, height, positions, asked)


def log_mel_grid() -> SoundGrid:
    """Return the grid of VGGish's examples, 96 frames by 64 bands."""
    axis = LogMelAxis()
    return SoundGrid.of_axis(axis, axis.config.frames)


def _coarsened(rows: int, columns: int, most: float | None) -> tuple[int, int]:
    """Divide both axes by one factor if there are too many cells; each keeps one at least."""
    stripes = max(rows, columns) / MOST_STRIPES
    factor = max(1.0, stripes if most is None else math.sqrt(rows * columns / max(most, 1.0)))
    if factor == 1.0:
        return rows, columns
    fewer = [max(1, math.floor(count / factor + 1e-9)) for count in (rows, columns)]
    for axis in (0, 1):  # one that cannot be divided further leaves the rest to the other
        if most is not None and fewer[0] * fewer[1] > max(most, 1.0):
            fewer[axis] = max(1, int(most // fewer[1 - axis]))
    return fewer[0], fewer[1]


def _positions(grid: SoundGrid, octaves: float, columns: int) -> tuple[npt.NDArray[np.float64], float]:
    """Place the bands on an axis of so many cells; also the octaves of the smallest cells."""
    if not grid.bands_hz:
        return np.zeros(0), math.nan
    widths = band_octaves(grid.bands_hz)
    if columns == 1:
        return (np.arange(widths.size) + 0.5) / widths.size, float(widths.sum())
    low, high = min(octaves, float(widths.min())), max(octaves, 2 * float(widths.sum()))
    for _ in range(60):  # more octaves a cell, fewer cells
        middle = math.sqrt(low * high)
        low, high = (middle, high) if grid.cells(middle) > columns else (low, middle)
    found = grid.positions(high)
    return np.asarray(found * (columns / grid.cells(high))), max(high, BANDS * float(widths.min()))
