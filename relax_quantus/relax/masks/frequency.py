"""`Frequency`: stripes over frequency, every frame alike: "in which bands did it sound?"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.relax.masks.grid import EXTRA_CELLS, GridStrategy, axis_cells
from relax_quantus.relax.masks.lattice import Lattice


@dataclass(frozen=True)
class Frequency(GridStrategy):
    r"""Stripes along the last axis.

    Answers "in which bands did it sound?"; all frames of a band share one value, so the map says nothing about time.

    Parameters
    ----------
    stripes
        Stripes that span the axis; 8 stripes of an example are 8 mel bands each.

    Notes
    -----
    .. math:: m_{tf} = \sum_{k} v_k(f)\, c_k, \qquad c_k \sim \mathrm{Bernoulli}(p) \text{ independent}

    with v the linear interpolation between stripe centres (1 in a stripe's own bands where edges are hard) of a lattice that each mask shifts by
    up to a whole stripe.

    Source: the setting of this project, RELAX's cells (Wickstrom et al., IJCV 131, 2023) stretched over all frames.
    """

    granularity: ClassVar[str] = "frequency"
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
