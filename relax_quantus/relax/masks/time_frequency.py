"""`TimeFrequency`: the product of a time mask and a frequency mask, each keeping sqrt(p)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.relax.masks.grid import EXTRA_CELLS, GridStrategy, axis_cells
from relax_quantus.relax.masks.lattice import Lattice


@dataclass(frozen=True)
class TimeFrequency(GridStrategy):
    r"""Time stripes times frequency stripes; the expected kept fraction is p, as for the other strategies.

    Bins that share a row or a column stay correlated at any distance (sqrt(p) / (1 + sqrt(p)) = .41 at p = .5), which shows as crosses.

    Parameters
    ----------
    time_stripes, frequency_stripes
        Stripes that span each axis.

    Notes
    -----
    .. math:: m_{tf} = \Big(\sum_i w_i(t)\, c_i\Big) \Big(\sum_k v_k(f)\, d_k\Big), \qquad c_i, d_k \sim \mathrm{Bernoulli}(\sqrt p)

    with w and v as in `Time` and `Frequency`. The factors are independent, so every bin is kept with expectation p.

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
        """Two shifts and the cells of both axes."""
        return sum(1 + cells + EXTRA_CELLS for cells in self._cells(frames, bands))

    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Build ``(n, frames, bands)``; with a single axis, stripes along it that keep p."""
        factors = self.factors(uniform, frames, bands)
        return factors[0] if len(factors) == 1 else factors[0] * factors[1]

    def factors(self, uniform: Tensor, frames: int, bands: int) -> tuple[Tensor, ...]:
        """The stripes over time, ``(n, frames, 1)``, and over frequency, ``(n, 1, bands)``, without the one whose axis has one entry."""
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
        """Two factors, or one where there is a single axis."""
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
        """What each factor keeps."""
        return self.keep_probability if 1 in (frames, bands) else math.sqrt(self.keep_probability)
