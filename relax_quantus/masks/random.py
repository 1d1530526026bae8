"""`Random`: the grid of RELAX and RISE, a random subset of rectangular cells."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus import checks
from relax_quantus.masks.grid import EXTRA_CELLS, GridStrategy, along, axis_cells, interpolation


@dataclass(frozen=True)
class Random(GridStrategy):
    """Cells of a time-frequency grid, each kept by itself (Wickstrom et al., IJCV 2023, after RISE).

    Parameters
    ----------
    cells
        Rows (time) and columns (frequency) of the grid; 7 x 7 cells of an example are 0.137 s by 9.1 bands.
    """

    cells: tuple[int, int] = (7, 7)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.cells, tuple | list) or len(self.cells) != 2:
            checks.refuse("cells", "a pair (rows, columns)", repr(self.cells), "pass for example (7, 7)")
        object.__setattr__(self, "cells", tuple(checks.integer("cells", count) for count in self.cells))

    def draw(self, n: int, frames: int, bands: int, generator: torch.Generator) -> Tensor:
        """Draw ``(n, frames, bands)``; an axis of one entry has one cell and nothing to shift."""
        rows, columns = axis_cells(self.cells[0], frames), axis_cells(self.cells[1], bands)
        grid = (rows + EXTRA_CELLS, columns + EXTRA_CELLS)
        uniform = torch.rand(n, 2 + grid[0] * grid[1], generator=generator, dtype=torch.float32)
        values = (uniform[:, 2:] < self.keep_probability).float().reshape(n, *grid)
        over_time = interpolation(uniform[:, 0], rows, frames, self.edges)
        values = values[:, :1] if frames == 1 else along(values, *over_time, dim=1)
        if bands == 1:
            return values[:, :, :1]
        return along(values, *interpolation(uniform[:, 1], columns, bands, self.edges), dim=2)
