"""What the built-in strategies share: random cells, a random shift, smooth or hard edges.

One axis is cut into cells of equal width; each mask shifts the lattice by a uniform fraction of a cell and keeps each cell with probability
p. Smooth edges interpolate linearly between cell centres (Petsiuk et al., RISE, BMVC 2018, section 3.2), hard edges do not. RISE stretches
s cells over s + 1 and so changes their size; here the lattice is extended beyond the axis instead, so that every bin has the same
distribution of mask values and is kept with expectation p exactly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.torch_state import neutral_torch
from relax_quantus.relax.masks.lattice import (
    ENUMERATED_CELLS,
    Lattice,
    enumerated,
    node_shifts,
    shift_nodes,
    sobol_cells,
)

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
    moved = values.movedim(dim, 1)
    n, cells = moved.shape[:2]
    rows = moved.reshape(n * cells, -1)  # reading whole rows takes half the time of a gather
    below = (lower + cells * torch.arange(n)[:, None]).flatten()
    share = weight.reshape(-1, 1).expand(-1, rows.shape[1])
    read = torch.lerp(rows.index_select(0, below), rows.index_select(0, below + 1), share)
    return read.reshape(n, -1, *moved.shape[2:]).movedim(1, dim).contiguous()


def frames_and_bands(shape: tuple[int, ...]) -> tuple[int, int]:
    """Sizes of the two axes that masks vary on; one frame where there is a single axis."""
    return (shape[-2], shape[-1]) if len(shape) > 1 else (1, shape[-1])


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

    @neutral_torch()
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
        columns = self.columns(*frames_and_bands(shape))
        uniform = torch.rand(n, columns, generator=generator, device=generator.device, dtype=torch.float32)
        return self.from_numbers(uniform, shape)

    def from_numbers(self, uniform: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Turn uniforms ``(n, columns)`` into masks ``(n, *s)``, ``s`` broadcastable to `shape`: what `sample` returns."""
        masks = self.build(uniform, *frames_and_bands(shape))
        if len(shape) == 1:
            return masks[:, 0]
        return masks.reshape(len(masks), *[1] * (len(shape) - 2), *masks.shape[1:])

    @abstractmethod
    def columns(self, frames: int, bands: int) -> int:
        """Uniform numbers that one mask takes; `frames` is 1 where the input has a single axis."""

    @abstractmethod
    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Turn uniforms ``(n, columns)`` into masks ``(n, frames or 1, bands or 1)``, each row into its own."""

    def factors(self, uniform: Tensor, frames: int, bands: int) -> tuple[Tensor, ...]:
        """Independent factors whose product `build` returns, in the order of `lattices`."""
        return (self.build(uniform, frames, bands),)

    def lattices(self, frames: int, bands: int, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """Return the distribution of each factor as weighted states, at least so many where they cannot be enumerated; others for each `bank`.

        Raises
        ------
        NotImplementedError
            If a strategy does not say; estimators that need it then do without.
        """
        raise NotImplementedError

    def stripe_masks(self, uniform: Tensor, stripes: int, size: int, keep_probability: float) -> Tensor:
        """Turn uniforms ``(n, stripes + 3)`` into stripe masks ``(n, size)``: the first column shifts, the others pick cells."""
        cells = (uniform[:, 1:] < keep_probability).float()
        return along(cells, *interpolation(uniform[:, 0], stripes, size, self.edges), dim=1)

    def stripe_lattice(
        self, stripes: int, size: int, keep_probability: float, axis: int, at_least: int, bank: int
    ) -> Lattice:
        """States of one factor of stripes along `axis`, -2 or -1; `stripe_masks` draws from the same distribution."""
        nodes, cells = shift_nodes(stripes, size, self.edges, at_least), stripes + EXTRA_CELLS
        sampled = cells > ENUMERATED_CELLS
        if sampled:
            nodes = 2 ** math.ceil(math.log2(nodes))
            states = sobol_cells((nodes, 1), cells, keep_probability, at_least, bank)
            weights = torch.full(states.shape[1:2], 1 / states.shape[1])
        else:
            states, weights = enumerated(cells, keep_probability)
            states = states.expand(nodes, -1, -1)
        shifts, shares = node_shifts(nodes, stripes, size, self.edges, bank)
        basis, weights = axis_basis(shifts, stripes, size, self.edges), shares[:, None] * weights
        one = torch.ones(nodes, 1, 1)
        if axis == -2:
            return Lattice(basis, one, states[..., None], weights, (stripes, 1), sampled)
        return Lattice(one, basis, states[:, :, None], weights, (1, stripes), sampled)


def axis_basis(shifts: Tensor, cells: int, size: int, edges: str) -> Tensor:
    """How the cells of an axis spread over its entries at each shift, ``(nodes, size, cells + 2)``."""
    lower, weight = interpolation(shifts, cells, size, edges)
    basis = torch.zeros(len(shifts), size, cells + EXTRA_CELLS)
    basis.scatter_(2, lower[..., None], 1 - weight[..., None])
    return basis.scatter_add_(2, lower[..., None] + 1, weight[..., None])
