"""`Time`: stripes over time, every band alike: "when did it sound?"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.relax.masks.grid import EXTRA_CELLS, GridStrategy, axis_cells
from relax_quantus.relax.masks.lattice import Lattice


@dataclass(frozen=True)
class Time(GridStrategy):
    r"""Stripes along the time axis (-2); an input with a single axis is striped along that.

    Answers "when did it sound?"; all bands of a frame share one value, so the map says nothing about frequency.

    Parameters
    ----------
    stripes
        Stripes that span the axis; 8 stripes of an example last 0.12 s each.

    Notes
    -----
    .. math:: m_{tf} = \sum_{i} w_i(t)\, c_i, \qquad c_i \sim \mathrm{Bernoulli}(p) \text{ independent}

    with w the linear interpolation between stripe centres (1 in a stripe's own frames where edges are hard) of a lattice that each mask shifts by
    up to a whole stripe.

    Source: the setting of this project, RELAX's cells (Wickstrom et al., IJCV 131, 2023) stretched over all bands.
    """

    granularity: ClassVar[str] = "time"
    stripes: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer("stripes", self.stripes)

    def columns(self, frames: int, bands: int) -> int:
        """One shift and the cells."""
        return 1 + axis_cells(self.stripes, bands if frames == 1 else frames) + EXTRA_CELLS

    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Build ``(n, frames, 1)``, or ``(n, 1, bands)`` where there is one axis."""
        size = bands if frames == 1 else frames
        profile = self.stripe_masks(uniform, axis_cells(self.stripes, size), size, self.keep_probability)
        return profile[:, None, :] if frames == 1 else profile[:, :, None]

    def lattices(self, frames: int, bands: int, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """One factor, along time or the only axis."""
        size, axis = (bands, -1) if frames == 1 else (frames, -2)
        return (self.stripe_lattice(axis_cells(self.stripes, size), size, self.keep_probability, axis, at_least, bank),)
