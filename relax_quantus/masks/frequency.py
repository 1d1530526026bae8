"""`Frequency`: stripes over frequency, every frame alike: "in which bands did it sound?"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus import checks
from relax_quantus.masks.grid import EXTRA_CELLS, GridStrategy, axis_cells


@dataclass(frozen=True)
class Frequency(GridStrategy):
    """Stripes along the last axis.

    Parameters
    ----------
    stripes
        Stripes that span the axis; 8 stripes of an example are 8 mel bands each.
    """

    stripes: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer("stripes", self.stripes)

    def draw(self, n: int, frames: int, bands: int, generator: torch.Generator) -> Tensor:
        """Draw ``(n, 1, bands)``."""
        stripes = axis_cells(self.stripes, bands)
        uniform = torch.rand(n, 1 + stripes + EXTRA_CELLS, generator=generator, dtype=torch.float32)
        return self.stripe_masks(uniform, stripes, bands, self.keep_probability)[:, None, :]
