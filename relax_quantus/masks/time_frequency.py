"""`TimeFrequency`: the product of a time mask and a frequency mask, each keeping sqrt(p)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus import checks
from relax_quantus.masks.grid import EXTRA_CELLS, GridStrategy, axis_cells


@dataclass(frozen=True)
class TimeFrequency(GridStrategy):
    """Time stripes times frequency stripes; the expected kept fraction is p, as for the other strategies.

    Bins that share a row or a column stay correlated at any distance (sqrt(p) / (1 + sqrt(p)) = .41 at p = .5), which shows as crosses.

    Parameters
    ----------
    time_stripes, frequency_stripes
        Stripes that span each axis.
    """

    time_stripes: int = 8
    frequency_stripes: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer("time_stripes", self.time_stripes)
        checks.integer("frequency_stripes", self.frequency_stripes)

    def draw(self, n: int, frames: int, bands: int, generator: torch.Generator) -> Tensor:
        """Draw ``(n, frames, bands)``; with a single axis, stripes along it that keep p."""
        rows, columns = axis_cells(self.time_stripes, frames), axis_cells(self.frequency_stripes, bands)
        uniform = torch.rand(n, 2 + rows + columns + 2 * EXTRA_CELLS, generator=generator, dtype=torch.float32)
        cut = 1 + rows + EXTRA_CELLS
        over_time, over_frequency = uniform[:, :cut], uniform[:, cut:]
        if frames == 1:
            return self.stripe_masks(over_frequency, columns, bands, self.keep_probability)[:, None, :]
        if bands == 1:
            return self.stripe_masks(over_time, rows, frames, self.keep_probability)[:, :, None]
        share = math.sqrt(self.keep_probability)
        time = self.stripe_masks(over_time, rows, frames, share)
        frequency = self.stripe_masks(over_frequency, columns, bands, share)
        return time[:, :, None] * frequency[:, None, :]
