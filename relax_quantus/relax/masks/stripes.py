"""Mask stripes over time, over frequency, or both.

`Time` asks "when did it sound?", `Frequency` "in which bands?", `TimeFrequency` both at once.
A stripe is a cell of `relax_quantus.relax.masks.grid` that spans the other axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.relax.masks.grid import EXTRA_CELLS, GridStrategy, Lattice, axis_cells


@dataclass(frozen=True)
class Time(GridStrategy):
    r"""Stripes along the time axis (-2); an input with a single axis is striped along that.

    Answers "when did it sound?"; all bands of a frame share one value, so the map says nothing
    about frequency.

    Parameters
    ----------
    stripes
        Stripes that span the axis; 8 stripes of an example last 0.12 s each.

    Notes
    -----
    .. math:: m_{tf} = \sum_{i} w_i(t)\, c_i,
       \qquad c_i \sim \mathrm{Bernoulli}(p) \text{ independent}

    with w the linear interpolation between stripe centres (1 in a stripe's own frames where edges
    are hard) of a lattice that each mask shifts by up to a whole stripe.

    Source: the setting of this project, RELAX's cells (Wickstrom et al., IJCV 131, 2023) stretched
    over all bands.
    """

    granularity: ClassVar[str] = "time"
    stripes: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer("stripes", self.stripes)

    def columns(self, frames: int, bands: int) -> int:
        """Count the uniforms of a mask: one shift and the cells."""
        return 1 + axis_cells(self.stripes, bands if frames == 1 else frames) + EXTRA_CELLS

    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Build ``(n, frames, 1)``, or ``(n, 1, bands)`` where there is one axis."""
        size = bands if frames == 1 else frames
        profile = self.stripe_masks(uniform, axis_cells(self.stripes, size), size, self.keep_probability)
        return profile[:, None, :] if frames == 1 else profile[:, :, None]

    def lattices(self, frames: int, bands: int, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """Return one factor's distribution, along time or the only axis."""
        size, axis = (bands, -1) if frames == 1 else (frames, -2)
        return (self.stripe_lattice(axis_cells(self.stripes, size), size, self.keep_probability, axis, at_least, bank),)


@dataclass(frozen=True)
class Frequency(GridStrategy):
    r"""Stripes along the last axis.

    Answers "in which bands did it sound?"; all frames of a band share one value, so the map says
    nothing about time.

    Parameters
    ----------
    stripes
        Stripes that span the axis; 8 stripes of an example are 8 mel bands each.

    Notes
    -----
    .. math:: m_{tf} = \sum_{k} v_k(f)\, c_k,
       \qquad c_k \sim \mathrm{Bernoulli}(p) \text{ independent}

    with v the linear interpolation between stripe centres (1 in a stripe's own bands where edges
    are hard) of a lattice that each mask shifts by up to a whole stripe.

    Source: the setting of this project, RELAX's cells (Wickstrom et al., IJCV 131, 2023) stretched
    over all frames.
    """

    granularity: ClassVar[str] = "frequency"
    stripes: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer("stripes", self.stripes)

    def columns(self, frames: int, bands: int) -> int:
        """Count the uniforms of a mask: one shift and the cells."""
        return 1 + axis_cells(self.stripes, bands) + EXTRA_CELLS

    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Build ``(n, 1, bands)``."""
        return self.stripe_masks(uniform, axis_cells(self.stripes, bands), bands, self.keep_probability)[:, None, :]

    def lattices(self, frames: int, bands: int, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """Return one factor's distribution, along frequency."""
        return (self.stripe_lattice(axis_cells(self.stripes, bands), bands, self.keep_probability, -1, at_least, bank),)


@dataclass(frozen=True)
class TimeFrequency(GridStrategy):
    r"""Mask by time stripes times frequency stripes; the expected kept fraction is p.

    Bins that share a row or a column stay correlated at any distance (sqrt(p) / (1 + sqrt(p)) = .41
    at p = .5), which shows as crosses.

    Parameters
    ----------
    time_stripes, frequency_stripes
        Stripes that span each axis.

    Notes
    -----
    .. math:: m_{tf} = \Big(\sum_i w_i(t)\, c_i\Big) \Big(\sum_k v_k(f)\, d_k\Big),
       \qquad c_i, d_k \sim \mathrm{Bernoulli}(\sqrt p)

    with w and v as in `Time` and `Frequency`. The factors are independent, so every bin is kept
    with expectation p.

    Source: the setting of this project.
    """

    granularity: ClassVar[str] = "patch"
    time_stripes: int = 8
    frequency_stripes: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.integer("time_stripes", self.time_stripes)
        checks.integer("frequency_stripes", self.frequency_stripes)

    def columns(self, frames: int, bands: int) -> int:
        """Count the uniforms of a mask: two shifts and the cells of both axes."""
        return sum(1 + cells + EXTRA_CELLS for cells in self._cells(frames, bands))

    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Build ``(n, frames, bands)``; with a single axis, stripes along it that keep p."""
        factors = self.factors(uniform, frames, bands)
        return factors[0] if len(factors) == 1 else factors[0] * factors[1]

    def factors(self, uniform: Tensor, frames: int, bands: int) -> tuple[Tensor, ...]:
        """Build the stripes over time, ``(n, frames, 1)``, and frequency, ``(n, 1, bands)``.

        The one whose axis has one entry is left out.
        """
        rows, columns = self._cells(frames, bands)
        cut = 1 + rows + EXTRA_CELLS
        share = self._share(frames, bands)
        factors = []
        if frames > 1 or bands == 1:
            factors.append(self.stripe_masks(uniform[:, :cut], rows, frames, share)[:, :, None])
        if bands > 1:
            factors.append(self.stripe_masks(uniform[:, cut:], columns, bands, share)[:, None, :])
        return tuple(factors)

    def lattices(self, frames: int, bands: int, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """Return the distributions of two factors, or of one where there is a single axis."""
        rows, columns = self._cells(frames, bands)
        share = self._share(frames, bands)
        lattices = []
        if frames > 1 or bands == 1:
            lattices.append(self.stripe_lattice(rows, frames, share, -2, at_least, bank))
        if bands > 1:
            lattices.append(self.stripe_lattice(columns, bands, share, -1, at_least, bank))
        return tuple(lattices)

    def _cells(self, frames: int, bands: int) -> tuple[int, int]:
        return axis_cells(self.time_stripes, frames), axis_cells(self.frequency_stripes, bands)

    def _share(self, frames: int, bands: int) -> float:
        """Return the probability with which each factor keeps a cell."""
        return self.keep_probability if 1 in (frames, bands) else math.sqrt(self.keep_probability)
