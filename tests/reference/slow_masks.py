"""Masks of the built-in strategies, one entry at a time, from the uniforms that they are made of.

Grid masks as in RISE (Petsiuk et al., BMVC 2018, section 3.2): random cells, enlarged linearly
between cell centres, shifted by up to a cell. Departure from RISE: the lattice goes on beyond the
axis (two more cells) instead of being stretched, so every bin is kept alike. Uniforms of one mask:
first the shift of each axis, then one a cell, row by row.
"""

from __future__ import annotations

import math

import numpy as np


def profile(cells: list[float], shift: float, across: int, size: int, smooth: bool) -> list[float]:
    """Values of one axis of `size` entries that `across` cells
    span; entry i's centre lies at (i + 1/2) / size of the axis.
    """
    values = []
    for i in range(size):
        position = (
            i + 0.5
        ) / size * across + shift  # in cells; cell k's centre is at k, or it fills [k, k + 1) with hard edges
        below = math.floor(position)
        share = position - below if smooth else 0.0
        values.append((1 - share) * cells[below] + share * cells[below + 1])
    return values


def stripes(uniform: np.ndarray, across: int, size: int, keep: float, smooth: bool) -> list[float]:
    """One stripe mask."""
    cells = [1.0 if u < keep else 0.0 for u in uniform[1:]]
    return profile(cells, float(uniform[0]), across, size, smooth)


def random_grid(
    uniform: np.ndarray, cells: tuple[int, int], size: tuple[int, int], keep: float, smooth: bool
) -> np.ndarray:
    """One mask ``(T, F)`` of the random grid."""
    rows, columns = cells[0] + 2, cells[1] + 2
    grid = [[1.0 if uniform[2 + r * columns + c] < keep else 0.0 for c in range(columns)] for r in range(rows)]
    wide = [profile(row, float(uniform[1]), cells[1], size[1], smooth) for row in grid]
    mask = np.zeros(size)
    for f in range(size[1]):
        mask[:, f] = profile([row[f] for row in wide], float(uniform[0]), cells[0], size[0], smooth)
    return mask


def time_frequency(
    uniform: np.ndarray, across: tuple[int, int], size: tuple[int, int], keep: float, smooth: bool
) -> np.ndarray:
    """One mask ``(T, F)``: time stripes times frequency stripes, each keeping sqrt(keep)."""
    cut = 1 + across[0] + 2
    time = stripes(uniform[:cut], across[0], size[0], math.sqrt(keep), smooth)
    frequency = stripes(uniform[cut:], across[1], size[1], math.sqrt(keep), smooth)
    return np.array([[t * f for f in frequency] for t in time])
