"""`Lattice`: the distribution of a strategy's masks as weighted states, for expectations that need no encoder.

A mask of the built-in strategies is linear in its cells once the lattice's shift is known: A_t(shift) cells A_f(shift)'. A strategy hands out
one `Lattice` for each of the independent factors whose product its masks are; estimators take exact expectations over them.

Shifts become equidistant nodes: as cells are identically distributed, an expectation given the shift is periodic in it, and the rectangle
rule converges fast. Cells are enumerated where there are few, else they come from a scrambled Sobol sequence (Owen, "Randomly permuted
(t,m,s)-nets and (t,s)-sequences", 1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

ENUMERATED_CELLS = 12
SMOOTH_NODES = (16, 64)
HARD_NODES = 64
SOBOL_SEED = 20110413
GOLDEN = (math.sqrt(5) - 1) / 2
TENSORS = ("over_time", "over_frequency", "cells", "weights")


@dataclass(frozen=True)
class Lattice:
    """Weighted states of one factor, in G groups that share a shift.

    Parameters
    ----------
    over_time
        ``(G, T, rows)``: how cells spread over the frames; ``(1, 1, 1)`` ones for a factor that does not vary over time.
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
        """Entries along time, 1 where the factor does not vary."""
        return self.over_time.shape[1]

    @property
    def bands(self) -> int:
        """Entries along frequency, 1 where the factor does not vary."""
        return self.over_frequency.shape[1]

    def values(self, over_time: Tensor, over_frequency: Tensor) -> Tensor:
        """Apply ``(t, T)`` and ``(f, F)`` matrices to every state's mask: ``(G * s, t * f)``, without building the masks."""
        left = over_time @ self.over_time
        right = over_frequency @ self.over_frequency
        return (left[:, None] @ self.cells @ right.transpose(1, 2)[:, None]).flatten(0, 1).flatten(1)

    def expectation(self, functions: Tensor) -> Tensor:
        """E[g M] for functions ``(G * s, n)`` given at the states: ``(T, F, n)``."""
        groups, states = self.weights.shape
        rows, columns = self.cells.shape[2:]
        weighted = (self.cells * self.weights[:, :, None, None]).flatten(2).transpose(1, 2)
        cells = (weighted @ functions.reshape(groups, states, -1)).reshape(groups, rows, columns, -1)
        return torch.einsum("gta,gafn->tfn", self.over_time, torch.einsum("gfb,gabn->gafn", self.over_frequency, cells))

    def parts(self, states: int) -> Iterator[Lattice]:
        """Cut into lattices of whole groups and about so many states, whose weights keep their values: expectations over them add up."""
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

    With smooth edges the rectangle rule's error falls with the square of their number: 16 are within .2 % of a cell's variance; more where
    many states are asked for. With hard ones as many shifts as in the period of `node_shifts` are exact.
    """
    if edges == "smooth":
        wanted = 1 << max(0, math.ceil(math.log2(max(1, at_least) / 1024)))
        return min(max(SMOOTH_NODES[0], wanted), SMOOTH_NODES[1])
    return min(size // math.gcd(size, cells), HARD_NODES)


def node_shifts(nodes: int, cells: int, size: int, edges: str, bank: int = 0) -> tuple[Tensor, Tensor]:
    """Return the shifts of so many nodes, and their weights, sum 1; both ``(nodes,)``.

    With hard edges a bin changes its cell at the shifts (k + c / 2) / period only, where cells / size = c / period in lowest terms. Nodes
    enough for all intervals between these stand in an interval's middle or start, away from the changes, and share its weight. Otherwise they
    are equidistant, elsewhere for each `bank`.
    """
    common = math.gcd(size, cells)
    period, steps = size // common, cells // common
    if edges == "hard" and period <= nodes:
        interval = torch.arange(nodes) * period // nodes
        shifts = (interval + (0.5 if steps % 2 == 0 else 0.0)) / period
        return shifts, 1 / (period * torch.bincount(interval)[interval])
    return (torch.arange(nodes) + bank * GOLDEN % 1) / nodes, torch.full((nodes,), 1 / nodes)


def enumerated(cells: int, keep_probability: float) -> tuple[Tensor, Tensor]:
    """All combinations of `cells` cells, ``(2^cells, cells)``, and their probabilities."""
    states = (torch.arange(2**cells)[:, None] >> torch.arange(cells) & 1).float()
    kept = states.sum(1)
    return states, keep_probability**kept * (1 - keep_probability) ** (cells - kept)


def sobol_cells(nodes: tuple[int, int], cells: int, keep_probability: float, at_least: int, bank: int = 0) -> Tensor:
    """Cells ``(G, s, cells)`` of a scrambled Sobol sequence whose first two axes choose the pair of shift nodes, G = their product.

    Whole multiples of a power of two points are drawn, so that every pair of nodes (powers of two) gets equally many. Each `bank` is
    scrambled by itself.
    """
    groups = nodes[0] * nodes[1]
    count = groups * 2 ** max(0, math.ceil(math.log2(at_least / groups)))
    engine = torch.quasirandom.SobolEngine(2 + cells, scramble=True, seed=SOBOL_SEED + bank)  # type: ignore[no-untyped-call]
    uniform = engine.draw(count)
    limits = torch.tensor(nodes)
    node = (uniform[:, :2] * limits).long().minimum(limits - 1)
    order = torch.argsort(node[:, 0] * nodes[1] + node[:, 1], stable=True)
    return (uniform[order, 2:] < keep_probability).float().reshape(groups, -1, cells)
