"""Draw random cells with a random shift, and say how such masks are distributed.

One axis is cut into cells of equal width; each mask shifts the lattice by a uniform fraction of a
cell and keeps each cell with probability p. Smooth edges interpolate linearly between cell centres
(Petsiuk et al., RISE, BMVC 2018, section 3.2), hard edges do not. RISE stretches s cells over s + 1
and so changes their size; here the lattice is extended beyond the axis instead, so that every bin
has the same distribution of mask values and is kept with expectation p exactly.

`Lattice` is that distribution as weighted states, for expectations that need no encoder. A mask is
linear in its cells once the lattice's shift is known: A_t(shift) cells A_f(shift)'. A strategy
hands out one `Lattice` for each of the independent factors whose product its masks are; estimators
take exact expectations over them. Shifts become equidistant nodes: as cells are identically
distributed, an expectation given the shift is periodic in it, and the rectangle rule converges
fast. Cells are enumerated where there are few, else they come from a scrambled Sobol sequence
(Owen, "Randomly permuted (t,m,s)-nets and (t,s)-sequences", 1995).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import neutral_torch
from relax_quantus.relax.bound_masks import BoundMasks

ENUMERATED_CELLS = 12
SMOOTH_NODES = (16, 64)
HARD_NODES = 64
SOBOL_SEED = 20110413
GOLDEN = (math.sqrt(5) - 1) / 2
TENSORS = ("over_time", "over_frequency", "cells", "weights")


@dataclass(frozen=True)
class Lattice:
    """Hold one factor's distribution: weighted states, in G groups that share a shift.

    Parameters
    ----------
    over_time
        ``(G, T, rows)``: how cells spread over the frames; ``(1, 1, 1)`` ones for a factor that
        does not vary over time.
    over_frequency
        ``(G, F, columns)``: the same over the bands.
    cells
        ``(G, s, rows, columns)`` of zeros and ones.
    weights
        ``(G, s)``, positive, sum 1.
    cell_counts
        Cells that span each axis, without those beyond its ends; 1 where the factor does not vary.
    sampled
        Whether the cells are a sample, one of many banks, and not all that there are.
    """

    over_time: Tensor
    over_frequency: Tensor
    cells: Tensor
    weights: Tensor
    cell_counts: tuple[int, int]
    sampled: bool = False

    def __post_init__(self) -> None:
        for name in TENSORS:  # whatever torch's default type is
            object.__setattr__(self, name, getattr(self, name).float())

    @property
    def frames(self) -> int:
        """Return the entries along time, 1 where the factor does not vary."""
        return self.over_time.shape[1]

    @property
    def bands(self) -> int:
        """Return the entries along frequency, 1 where the factor does not vary."""
        return self.over_frequency.shape[1]

    def values(self, over_time: Tensor, over_frequency: Tensor) -> Tensor:
        """Apply ``(t, T)`` and ``(f, F)`` matrices to every state's mask: ``(G * s, t * f)``.

        The masks are not built.
        """
        left = over_time @ self.over_time
        right = over_frequency @ self.over_frequency
        return (left[:, None] @ self.cells @ right.transpose(1, 2)[:, None]).flatten(0, 1).flatten(1)

    def expectation(self, functions: Tensor) -> Tensor:
        """Compute E[g M] for functions ``(G * s, n)`` given at the states: ``(T, F, n)``."""
        groups, states = self.weights.shape
        rows, columns = self.cells.shape[2:]
        weighted = (self.cells * self.weights[:, :, None, None]).flatten(2).transpose(1, 2)
        cells = (weighted @ functions.reshape(groups, states, -1)).reshape(groups, rows, columns, -1)
        return torch.einsum("gta,gafn->tfn", self.over_time, torch.einsum("gfb,gabn->gafn", self.over_frequency, cells))

    def parts(self, states: int) -> Iterator[Lattice]:
        """Cut into lattices of whole groups and about so many states, over which results add up.

        Weights keep their values.
        """
        groups, each = self.weights.shape
        step = max(1, states // each)
        for start in range(0, groups, step):
            cut = {name: getattr(self, name)[start : start + step] for name in ("cells", "weights")}
            spread = {name: getattr(self, name) for name in ("over_time", "over_frequency")}
            yield replace(self, **cut, **{k: v[start : start + step] if len(v) > 1 else v for k, v in spread.items()})

    def to(self, device: torch.device | str) -> Lattice:
        """Move all tensors to `device`."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})


def shift_nodes(cells: int, size: int, edges: str, at_least: int = 0) -> int:
    """Number of equidistant shifts over [0, 1) that stand for all; a power of two or exact.

    With smooth edges the rectangle rule's error falls with the square of their number: 16 are
    within .2 % of a cell's variance; more where many states are asked for. With hard ones as many
    shifts as in the period of `node_shifts` are exact.
    """
    if edges == "smooth":
        wanted = 1 << max(0, math.ceil(math.log2(max(1, at_least) / 1024)))
        return min(max(SMOOTH_NODES[0], wanted), SMOOTH_NODES[1])
    return min(size // math.gcd(size, cells), HARD_NODES)


def node_shifts(nodes: int, cells: int, size: int, edges: str, bank: int = 0) -> tuple[Tensor, Tensor]:
    """Return the shifts of so many nodes, and their weights, sum 1; both ``(nodes,)``.

    With hard edges a bin changes its cell at the shifts (k + c / 2) / period only, where cells /
    size = c / period in lowest terms. Nodes enough for all intervals between these stand in an
    interval's middle or start, away from the changes, and share its weight. Otherwise they are
    equidistant, elsewhere for each `bank`.
    """
    common = math.gcd(size, cells)
    period, steps = size // common, cells // common
    if edges == "hard" and period <= nodes:
        interval = torch.arange(nodes) * period // nodes
        shifts = (interval + (0.5 if steps % 2 == 0 else 0.0)) / period
        return shifts, 1 / (period * torch.bincount(interval)[interval])
    return (torch.arange(nodes) + bank * GOLDEN % 1) / nodes, torch.full((nodes,), 1 / nodes)


def enumerated(cells: int, keep_probability: float) -> tuple[Tensor, Tensor]:
    """List all combinations of `cells` cells, ``(2^cells, cells)``, and their probabilities."""
    states = (torch.arange(2**cells)[:, None] >> torch.arange(cells) & 1).float()
    kept = states.sum(1)
    return states, keep_probability**kept * (1 - keep_probability) ** (cells - kept)


def sobol_cells(nodes: tuple[int, int], cells: int, keep_probability: float, at_least: int, bank: int = 0) -> Tensor:
    """Draw cells ``(G, s, cells)`` from a scrambled Sobol sequence.

    Its first two axes choose the pair of shift nodes; G is the product of their numbers.

    Whole multiples of a power of two points are drawn, so that every pair of nodes (powers of two)
    gets equally many. Each `bank` is scrambled by itself.
    """
    groups = nodes[0] * nodes[1]
    count = groups * 2 ** max(0, math.ceil(math.log2(at_least / groups)))
    engine = torch.quasirandom.SobolEngine(2 + cells, scramble=True, seed=SOBOL_SEED + bank)  # type: ignore[no-untyped-call]
    uniform = engine.draw(count)
    limits = torch.tensor(nodes)
    node = (uniform[:, :2] * limits).long().minimum(limits - 1)
    order = torch.argsort(node[:, 0] * nodes[1] + node[:, 1], stable=True)
    return (uniform[order, 2:] < keep_probability).float().reshape(groups, -1, cells)


EXTRA_CELLS = 2


def axis_cells(cells: int, size: int) -> int:
    """Count the cells of an axis of `size` entries, never narrower than one entry."""
    return min(cells, size)


def interpolation(shift: Tensor, cells: int, size: int, edges: str) -> tuple[Tensor, Tensor]:
    """Find where each entry of an axis lies between cells.

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
    """Read cell `values` along `dim` at the entries that `interpolation` gave.

    ``(n, ..., cells, ...) -> (n, ..., size, ...)``.
    """
    moved = values.movedim(dim, 1)
    n, cells = moved.shape[:2]
    rows = moved.reshape(n * cells, -1)  # reading whole rows takes half the time of a gather
    below = (lower + cells * torch.arange(n)[:, None]).flatten()
    share = weight.reshape(-1, 1).expand(-1, rows.shape[1])
    read = torch.lerp(rows.index_select(0, below), rows.index_select(0, below + 1), share)
    return read.reshape(n, -1, *moved.shape[2:]).movedim(1, dim).contiguous()


def frames_and_bands(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the sizes of the two axes that masks vary on; one frame if there is one axis."""
    return (shape[-2], shape[-1]) if len(shape) > 1 else (1, shape[-1])


@dataclass(frozen=True)
class GridStrategy(ABC):
    """Draw masks of cells on a grid: the base of the built-in strategies.

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
            Shape of one input without its batch axis; the last two axes are time and frequency (or
            the last one is the only one).
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
        return self.from_numbers(self.numbers(n, shape, generator), shape)

    def bind(self, x: Tensor) -> BoundMasks:
        """Bind the masks to an input ``(B, *shape)``, and say how they are distributed.

        They use its shape alone.

        Of a subclass that draws otherwise than the class whose `lattices` it has, the distribution
        is not known.
        """
        shape = tuple(x.shape[1:])
        known = GridDistribution(self, shape, x.device) if says_its_distribution(type(self)) else None
        return BoundMasks(lambda n, generator: self.sample(n, shape, generator), known)

    def bind_groups(self, count: int) -> BoundMasks:
        """Bind masks to a feature mask's groups, each kept or replaced by itself."""
        return Groups(self.keep_probability).bind_groups(count)

    def numbers(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the uniforms ``(n, columns)`` that the next n masks are built from."""
        columns = self.columns(*frames_and_bands(shape))
        return torch.rand(n, columns, generator=generator, device=generator.device, dtype=torch.float32)

    def from_numbers(self, uniform: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Turn uniforms ``(n, columns)`` into masks ``(n, *s)``, as `sample` returns them."""
        masks = self.build(uniform, *frames_and_bands(shape))
        if len(shape) == 1:
            return masks[:, 0]
        return masks.reshape(len(masks), *[1] * (len(shape) - 2), *masks.shape[1:])

    @abstractmethod
    def columns(self, frames: int, bands: int) -> int:
        """Count the uniforms that one mask takes; `frames` is 1 where there is a single axis."""

    @abstractmethod
    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Turn uniforms ``(n, columns)`` row by row into ``(n, frames or 1, bands or 1)``."""

    def factors(self, uniform: Tensor, frames: int, bands: int) -> tuple[Tensor, ...]:
        """Build the factors whose product `build` returns, in the order of `lattices`."""
        return (self.build(uniform, frames, bands),)

    def lattices(self, frames: int, bands: int, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """Return each factor's distribution as weighted states, others for each `bank`.

        There are at least so many where they cannot be enumerated.

        Raises
        ------
        NotImplementedError
            If a strategy does not say; estimators that need it then do without.
        """
        raise NotImplementedError

    def stripe_masks(self, uniform: Tensor, stripes: int, size: int, keep_probability: float) -> Tensor:
        """Turn uniforms ``(n, stripes + 3)`` into stripe masks ``(n, size)``.

        The first column shifts, the others pick cells.
        """
        cells = (uniform[:, 1:] < keep_probability).float()
        return along(cells, *interpolation(uniform[:, 0], stripes, size, self.edges), dim=1)

    def stripe_lattice(
        self, stripes: int, size: int, keep_probability: float, axis: int, at_least: int, bank: int
    ) -> Lattice:
        """Return the distribution of one factor of stripes along `axis`, -2 or -1.

        `stripe_masks` draws from it.
        """
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


DRAWING = ("sample", "numbers", "from_numbers", "columns", "build", "factors", "stripe_masks")
"""Methods of `GridStrategy` that decide which masks are drawn."""


def says_its_distribution(strategy: type[GridStrategy]) -> bool:
    """Tell whether `lattices` describes the masks: no subclass of its class draws otherwise."""

    def definer(method: str) -> int:
        return next(i for i, cls in enumerate(strategy.__mro__) if method in vars(cls))

    return all(definer("lattices") <= definer(drawing) for drawing in DRAWING)


@dataclass(frozen=True)
class GridDistribution:
    """Hold the distribution of a strategy's masks of one shape.

    Methods are as in `relax_quantus.relax.bound_masks.Distribution`.
    """

    strategy: GridStrategy
    shape: tuple[int, ...]
    device: torch.device

    def numbers(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw the uniforms ``(n, columns)`` that the next n masks are built from."""
        return self.strategy.numbers(n, self.shape, generator)

    def build(self, numbers: Tensor) -> Tensor:
        """Build masks ``(n, *s)`` from their numbers."""
        return self.strategy.from_numbers(numbers, self.shape)

    def factors(self, numbers: Tensor) -> tuple[Tensor, ...]:
        """Build the masks' factors, ``(n, T or 1, F or 1)`` each."""
        return self.strategy.factors(numbers, *frames_and_bands(self.shape))

    def lattices(self, at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        """Return each factor's distribution, on the input's device."""
        found = self.strategy.lattices(*frames_and_bands(self.shape), at_least, bank)
        return tuple(lattice.to(self.device) for lattice in found)


def axis_basis(shifts: Tensor, cells: int, size: int, edges: str) -> Tensor:
    """Spread an axis's cells over its entries at each shift, ``(nodes, size, cells + 2)``."""
    lower, weight = interpolation(shifts, cells, size, edges)
    basis = torch.zeros(len(shifts), size, cells + EXTRA_CELLS)
    basis.scatter_(2, lower[..., None], 1 - weight[..., None])
    return basis.scatter_add_(2, lower[..., None] + 1, weight[..., None])


@dataclass(frozen=True)
class Groups:
    """Keep groups independently: the geometry comes from the caller's feature mask.

    Parameters
    ----------
    keep_probability
        Probability of keeping a group.
    """

    keep_probability: float = 0.5

    def __post_init__(self) -> None:
        checks.fraction("keep_probability", self.keep_probability)

    @neutral_torch()
    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the next `n` masks ``(n, *shape)`` of zeros and ones; `shape` is (groups,)."""
        uniform = torch.rand(n, math.prod(shape), generator=generator, device=generator.device, dtype=torch.float32)
        return (uniform < self.keep_probability).float().reshape(n, *shape)

    def bind_groups(self, count: int) -> BoundMasks:
        """Bind masks to so many groups."""
        return BoundMasks(lambda n, generator: self.sample(n, (count,), generator))
