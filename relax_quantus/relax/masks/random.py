"""Mask a random subset of rectangular cells: the grid of RELAX and RISE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.relax.masks.grid import (
    EXTRA_CELLS,
    GridStrategy,
    Lattice,
    along,
    axis_basis,
    axis_cells,
    interpolation,
    node_shifts,
    shift_nodes,
    sobol_cells,
)


@dataclass(frozen=True)
class Random(GridStrategy):
    r"""Keep cells of a time-frequency grid, each by itself (Wickstrom et al., IJCV 2023).

    Parameters
    ----------
    cells
        Rows (time) and columns (frequency) of the grid; 7 x 7 cells of an example are 0.137 s by
        9.1 bands.

    Notes
    -----
    .. math:: m_{tf} = \sum_{i,k} w_i(t)\, v_k(f)\, c_{ik},
       \qquad c_{ik} \sim \mathrm{Bernoulli}(p) \text{ independent}

    with w and v the linear interpolation between cell centres (1 in a cell's own bins where edges
    are hard) of a lattice that each mask shifts by up to a whole cell along either axis. Every bin
    is kept with expectation p, the keep probability.

    Source: Petsiuk et al., "RISE", BMVC 2018, section 3.2; Wickstrom et al., "RELAX", IJCV 131,
    2023. Departure: RISE stretches its cells to make room for the shift; here the lattice goes on
    beyond the axis, so that all bins have the same distribution.
    """

    granularity: ClassVar[str] = "patch"
    cells: tuple[int, int] = (7, 7)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.cells, tuple | list) or len(self.cells) != 2:
            checks.refuse("cells", "a pair (rows, columns)", repr(self.cells), "pass for example (7, 7)")
        object.__setattr__(self, "cells", tuple(checks.integer("cells", count) for count in self.cells))

    def columns(self, frames: int, bands: int) -> int:
        """Count the uniforms of a mask: two shifts and the cells."""
        rows, columns = self._grid(frames, bands)
        return 2 + (rows + EXTRA_CELLS) * (columns + EXTRA_CELLS)

    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Build ``(n, frames, bands)``; an axis of one entry has one cell and nothing to shift."""
        rows, columns = self._grid(frames, bands)
        grid = (rows + EXTRA_CELLS, columns + EXTRA_CELLS)
        values = (uniform[:, 2:] < self.keep_probability).float().reshape(-1, *grid)
        over_time = interpolation(uniform[:, 0], rows, frames, self.edges)
        values = values[:, :1] if frames == 1 else along(values, *over_time, dim=1)
        if bands == 1:
            return values[:, :, :1]
        return along(values, *interpolation(uniform[:, 1], columns, bands, self.edges), dim=2)

    def lattices(self, frames: int, bands: int, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """Return the distribution of the one factor, over both axes."""
        rows, columns = self._grid(frames, bands)
        (over_time, time_weights), (over_frequency, frequency_weights) = (
            self._axis(count, size, bank) for count, size in ((rows, frames), (columns, bands))
        )
        nodes, grid = (len(over_time), len(over_frequency)), (over_time.shape[2], over_frequency.shape[2])
        cells = sobol_cells(nodes, grid[0] * grid[1], self.keep_probability, at_least, bank)
        weights = torch.outer(time_weights, frequency_weights).reshape(-1, 1).expand(cells.shape[:2]) / cells.shape[1]
        over_time, over_frequency = over_time.repeat_interleave(nodes[1], dim=0), over_frequency.repeat(nodes[0], 1, 1)
        cells = cells.reshape(*cells.shape[:2], *grid)
        return (Lattice(over_time, over_frequency, cells, weights, (rows, columns), sampled=True),)

    def _grid(self, frames: int, bands: int) -> tuple[int, int]:
        return axis_cells(self.cells[0], frames), axis_cells(self.cells[1], bands)

    def _axis(self, cells: int, size: int, bank: int) -> tuple[Tensor, Tensor]:
        """Spread cells over an axis at each of its shift nodes, a power of two, with weights.

        An axis of one entry has one cell.
        """
        if size == 1:
            return torch.ones(1, 1, 1), torch.ones(1)
        nodes = 2 ** math.ceil(math.log2(shift_nodes(cells, size, self.edges)))
        shifts, weights = node_shifts(nodes, cells, size, self.edges, bank)
        return axis_basis(shifts, cells, size, self.edges), weights
