"""What the built-in strategies share: random cells, a random shift, smooth or hard edges.

One axis is cut into cells of equal width; each mask shifts the lattice by a uniform fraction of a cell and keeps each cell with probability
p. Smooth edges interpolate linearly between cell centres (Petsiuk et al., RISE, BMVC 2018, section 3.2), hard edges do not. RISE stretches
s cells over s + 1 and so changes their size; here the lattice is extended beyond the axis instead, so that every bin has the same
distribution of mask values and is kept with expectation p exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus import checks

EXTRA_CELLS = 2


def axis_cells(cells: int, size: int) -> int:
    """Cells of an axis of `size` entries, never narrower than one entry."""
    return min(cells, size)


def interpolation(shift: Tensor, cells: int, size: int, edges: str) -> tuple[Tensor, Tensor]:
    """Where each entry of an axis lies between cells.

    Parameters
    ----------
    shift
        ``(n,)`` in [0, 1), the lattice's shift in cells.
    cells, size
        Cells that span the axis, and its number of entries.
    edges
        ``"smooth"`` or ``"hard"``.

    Returns
    -------
    lower, weight : Tensor
        ``(n, size)``: the cell below each entry, and the share of the next one (0 for hard edges).
    """
    position = (torch.arange(size, dtype=torch.float32) + 0.5) * (cells / size) + shift[:, None]
    lower = position.floor().clamp_(max=cells).long()
    weight = (position - lower).clamp_(0, 1) if edges == "smooth" else torch.zeros_like(position)
    return lower, weight


def along(values: Tensor, lower: Tensor, weight: Tensor, dim: int) -> Tensor:
    """Read cell `values` along `dim` at the entries that `interpolation` gave: ``(n, ..., cells, ...) -> (n, ..., size, ...)``."""
    view = [1] * values.ndim
    view[0], view[dim] = lower.shape
    shape = list(values.shape)
    shape[dim] = lower.shape[1]
    below, above, share = (entry.view(view).expand(shape) for entry in (lower, lower + 1, weight))
    return torch.lerp(values.gather(dim, below), values.gather(dim, above), share)


@dataclass(frozen=True)
class GridStrategy(ABC):
    """Base of the built-in strategies.

    Parameters
    ----------
    keep_probability
        Expected mask value of every bin, the same meaning for all strategies.
    edges
        ``"smooth"`` (linear between cell centres) or ``"hard"``.
    """

    keep_probability: float = 0.5
    edges: str = "smooth"

    def __post_init__(self) -> None:
        checks.fraction("keep_probability", self.keep_probability)
        if self.edges not in ("smooth", "hard"):
            checks.refuse("edges", "'smooth' or 'hard'", repr(self.edges), "pick one")

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the next `n` masks of the generator's stream.

        Parameters
        ----------
        n
            Number of masks; ``sample(3)`` then ``sample(5)`` gives the masks of ``sample(8)``.
        shape
            Shape of one input without its batch axis; the last two axes are time and frequency (or the last one is the only one).
        generator
            A CPU generator; the only source of randomness.

        Returns
        -------
        Tensor
            ``(n, *s)`` float32 on the CPU with values in [0, 1], ``s`` broadcastable to `shape`.
        """
        checks.integer("n", n)
        if len(shape) == 0 or 0 in shape:
            checks.refuse(
                "shape", "at least one axis without its batch axis, none empty", repr(tuple(shape)), "add an axis"
            )
        frames_bands = tuple(shape[-2:]) if len(shape) > 1 else (1, shape[-1])
        masks = self.draw(n, frames_bands[0], frames_bands[1], generator)
        if len(shape) == 1:
            return masks[:, 0]
        return masks.reshape(n, *[1] * (len(shape) - 2), *masks.shape[1:])

    @abstractmethod
    def draw(self, n: int, frames: int, bands: int, generator: torch.Generator) -> Tensor:
        """Draw masks ``(n, frames or 1, bands or 1)``; `frames` is 1 where the input has a single axis."""

    def stripe_masks(self, uniform: Tensor, stripes: int, size: int, keep_probability: float) -> Tensor:
        """Turn uniforms ``(n, stripes + 3)`` into stripe masks ``(n, size)``: the first column shifts, the others pick cells."""
        cells = (uniform[:, 1:] < keep_probability).float()
        return along(cells, *interpolation(uniform[:, 0], stripes, size, self.edges), dim=1)
