"""`Warped`: a strategy whose cells lie where each band is said to, not evenly over the bands."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.errors import ArgumentTypeError, ShapeError
from relax_quantus.relax.masks.grid import GridStrategy, Lattice

ENTRIES_A_CELL = 8
"""Places of a cell that a band can lie at."""


@dataclass(frozen=True)
class Warped(GridStrategy):
    r"""Draw a built-in strategy's masks with cells that are not equal in bands.

    Bands that are spaced evenly in Hz get cells that are equal in octaves; each mask is one of the
    strategy's on an even axis of cells, read where the bands lie. So a band keeps the strategy's
    distribution of values, and is kept with its probability.

    Parameters
    ----------
    keep_probability, edges
        The strategy's own; what is given here is not used.
    strategy
        What draws the masks, with as many cells over frequency as `positions` span.
    positions
        ``(F,)``: where each band lies, in cells from 0 to `cells`, rounded to an eighth of a cell.
    cells
        Cells that span the axis.

    Notes
    -----
    .. math:: m_{tf} = m'_{t, u(f)}

    with m' a mask of the strategy on an axis of eight entries a cell, and u(f) the entry at the
    band's position.

    Examples
    --------
    >>> from relax_quantus.relax.masks.stripes import Frequency
    >>> stripes = Frequency(stripes=2, edges="hard")
    >>> masks = Warped(strategy=stripes, positions=(0.1, 0.3, 0.6, 1.9), cells=2)
    >>> masks.sample(5, (1, 3, 4), torch.Generator().manual_seed(0)).shape
    torch.Size([5, 1, 1, 4])
    """

    strategy: GridStrategy = field(kw_only=True)
    positions: tuple[float, ...] | npt.NDArray[np.float64] = field(kw_only=True)
    cells: int = field(kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, GridStrategy):
            got = type(self.strategy).__name__
            checks.refuse("strategy", "a built-in strategy", got, "others know their own cells", ArgumentTypeError)
        cells = checks.integer("cells", self.cells)
        positions = np.asarray(self.positions, dtype=np.float64)
        if positions.ndim != 1 or positions.size == 0 or not ((positions >= 0) & (positions <= cells)).all():
            checks.refuse("positions", f"one number from 0 to {cells} a band", positions, "count in cells")
        object.__setattr__(self, "positions", tuple(float(at) for at in positions))
        for name in ("keep_probability", "edges"):
            object.__setattr__(self, name, getattr(self.strategy, name))

    @property
    def granularity(self) -> str:
        """Say what is masked at a time, in the words of the strategy."""
        return str(getattr(self.strategy, "granularity", "patch"))

    @property
    def entries(self) -> Tensor:
        """Entry of the even axis that each band reads, ``(F,)`` int64."""
        at = torch.tensor(self.positions, dtype=torch.float64) * ENTRIES_A_CELL
        return at.floor().clamp(0, self._size - 1).long()

    @property
    def _size(self) -> int:
        return ENTRIES_A_CELL * self.cells

    def columns(self, frames: int, bands: int) -> int:
        """Return how many columns the strategy has on the even axis."""
        return self.strategy.columns(frames, self._even(bands))

    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Build the strategy's masks on the even axis and read them where the bands lie."""
        return self._read(self.strategy.build(uniform, frames, self._even(bands)), bands)

    def factors(self, uniform: Tensor, frames: int, bands: int) -> tuple[Tensor, ...]:
        """The strategy's factors, read where the bands lie."""
        return tuple(self._read(f, bands) for f in self.strategy.factors(uniform, frames, self._even(bands)))

    def lattices(self, frames: int, bands: int, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """The strategy's distribution, read where the bands lie."""
        return tuple(
            lattice if bands == 1 else replace(lattice, over_frequency=self._rows(lattice.over_frequency))
            for lattice in self.strategy.lattices(frames, self._even(bands), at_least, bank)
        )

    def _even(self, bands: int) -> int:
        """Entries of the even axis; an axis of one band is left as it is."""
        if bands != len(self.positions):
            rule = f"{len(self.positions)} bands, one a position"
            checks.refuse("positions", rule, f"{bands} bands", "count cells on the masks' own grid", ShapeError)
        return 1 if bands == 1 else self._size

    def _read(self, masks: Tensor, bands: int) -> Tensor:
        """Read masks ``(n, T or 1, entries or 1)`` at the bands."""
        return masks if bands == 1 or masks.shape[-1] == 1 else masks.index_select(-1, self.entries.to(masks.device))

    def _rows(self, basis: Tensor) -> Tensor:
        """Read ``(G, entries or 1, columns)`` at the bands."""
        return basis if basis.shape[1] == 1 else basis.index_select(1, self.entries.to(basis.device))
