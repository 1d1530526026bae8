"""`Time`: stripes over time, every band alike: "when did it sound?"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus import checks
from relax_quantus.masks.grid import EXTRA_CELLS, GridStrategy, axis_cells


@dataclass(frozen=True)
class Time(GridStrategy):
    """Stripes along the time axis (-2); an input with a single axis is striped along that.

    Parameters
    ----------
    stripes
        Stripes that span the axis; 8 stripes of an example last 0.12 s each.
    """

    stripes: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer("stripes", self.stripes)

    def draw(self, n: int, frames: int, bands: int, generator: torch.Generator) -> Tensor:
        """Draw ``(n, frames, 1)``, or ``(n, 1, bands)`` where there is one axis."""
        size = bands if frames == 1 else frames
        stripes = axis_cells(self.stripes, size)
        uniform = torch.rand(n, 1 + stripes + EXTRA_CELLS, generator=generator, dtype=torch.float32)
        profile = self.stripe_masks(uniform, stripes, size, self.keep_probability)
        return profile[:, None, :] if frames == 1 else profile[:, :, None]
