"""`Frequency`: stripes over frequency, every frame alike: "in which bands did it sound?"."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from relax_quantus import checks
from relax_quantus.masks.grid import EXTRA_CELLS, GridStrategy, axis_cells
from relax_quantus.masks.lattice import Lattice


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

    def columns(self, frames: int, bands: int) -> int:
        """One shift and the cells."""
        return 1 + axis_cells(self.stripes, bands) + EXTRA_CELLS

    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Build ``(n, 1, bands)``."""
        return self.stripe_masks(uniform, axis_cells(self.stripes, bands), bands, self.keep_probability)[:, None, :]

    def lattices(self, frames: int, bands: int, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """One factor, along frequency."""
        return (self.stripe_lattice(axis_cells(self.stripes, bands), bands, self.keep_probability, -1, at_least, bank),)
