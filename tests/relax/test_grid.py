"""The distribution of the built-in masks as weighted states:
closed forms, the masks themselves, and goldens of their draws.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import relax_quantus as rq
from relax_quantus.relax.masks import grid
from relax_quantus.relax.masks.grid import Lattice, enumerated, node_shifts, shift_nodes, sobol_cells
from tests.reference.spline import hard_overlap, smooth_overlap

NAMES = rq.masks.STRATEGIES.names()
SIZES = [(50, 33), (12, 8), (1, 20), (7, 1), (1, 1)]
STATES = 1 << 13


def strategy(name: str, edges: str, keep: float = 0.5) -> grid.GridStrategy:
    """A strategy with default cells."""
    found = rq.masks.get(name, edges=edges, keep_probability=keep)
    assert isinstance(found, grid.GridStrategy)
    return found


def some(size: int, most: int = 9) -> Tensor:
    """Positions of up to `most` entries of an axis, the first two among them."""
    return torch.unique(torch.cat([torch.arange(min(2, size)), torch.linspace(0, size - 1, most - 1).long()]))


def second_moments(lattice: Lattice, frames: Tensor, bands: Tensor) -> tuple[Tensor, Tensor]:
    """E[M] and E[M M'] of a lattice at some entries."""
    values = lattice.values(torch.eye(lattice.frames)[frames], torch.eye(lattice.bands)[bands]).double()
    share = lattice.weights.reshape(-1, 1).double()
    return (share * values).sum(0), values.T @ (share * values)


def overlap(positions: Tensor, size: int, cells: int, edges: str, interpolated: bool) -> Tensor:
    """Correlation of one axis' entries."""
    function = smooth_overlap if edges == "smooth" else hard_overlap
    rows = [[function((p - q) * cells / size) if interpolated else 1.0 for q in positions.tolist()] for p in positions]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("edges", ["smooth", "hard"])
@pytest.mark.parametrize("name", NAMES)
def test_moments_have_their_closed_form(name: str, edges: str, keep: float, size: tuple[int, int]) -> None:
    lattices = strategy(name, edges, keep).lattices(*size, STATES)
    share = keep ** (1 / len(lattices))
    for lattice in lattices:
        frames, bands = some(lattice.frames), some(lattice.bands)
        mean, second = second_moments(lattice, frames, bands)
        grid_axes = lattice.cells.shape[2:]  # a grid's axis of one entry has one cell and no shift
        along_time = overlap(frames, lattice.frames, lattice.cell_counts[0], edges, grid_axes[0] > 1)
        along_frequency = overlap(bands, lattice.bands, lattice.cell_counts[1], edges, grid_axes[1] > 1)
        expected = share**2 + share * (1 - share) * torch.kron(along_time, along_frequency)
        assert abs(float(lattice.weights.double().sum()) - 1) < 1e-5
        assert bool((lattice.weights > 0).all())
        tolerance = 0.01 if lattice.sampled else 2e-5
        torch.testing.assert_close(mean, torch.full_like(mean, share), atol=tolerance, rtol=0)
        one = lattice.expectation(torch.ones(lattice.weights.numel(), 1))[frames][:, bands, 0].flatten().double()
        torch.testing.assert_close(one, mean, atol=2e-5, rtol=0)
        tolerance = (0.03 if lattice.sampled else 2e-5 if edges == "hard" else 5e-4) + 1e-9
        torch.testing.assert_close(second, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("edges", ["smooth", "hard"])
@pytest.mark.parametrize("name", NAMES)
def test_states_are_masks_that_the_strategy_builds(name: str, edges: str, size: tuple[int, int]) -> None:
    """Uniforms with a state's shift and cells are built
    into the mask that `values` applies matrices to.
    """
    masks, keep = strategy(name, edges), 0.5
    lattices = masks.lattices(*size, STATES)
    share = keep ** (1 / len(lattices))
    for k, lattice in enumerate(lattices):
        groups, per_group = lattice.weights.shape
        picked = torch.arange(groups).repeat_interleave(2)[:300]
        state = (picked * 7919) % per_group
        cells = torch.where(lattice.cells[picked, state] > 0, share / 2, (1 + share) / 2)
        shifts = (grid_shifts if name == "random" else stripe_shifts)(lattice, edges)[picked]
        if name == "random":
            rows, columns = (c if s == 1 else c + 2 for c, s in zip(lattice.cell_counts, size, strict=True))
            full = torch.full((len(picked), lattice.cell_counts[0] + 2, lattice.cell_counts[1] + 2), 0.99)
            full[:, :rows, :columns] = cells
            uniform = torch.cat([shifts, full.flatten(1)], 1)
            built = masks.build(uniform, *size)
        else:
            stripes, length = max(lattice.cell_counts), max(lattice.frames, lattice.bands)
            uniform = torch.cat([shifts, cells.flatten(1)], 1)
            built = masks.stripe_masks(uniform, stripes, length, share)
        generator = torch.Generator().manual_seed(k)
        over_time, over_frequency = (torch.rand(3, n, generator=generator) for n in (lattice.frames, lattice.bands))
        expected = over_time @ built.reshape(len(picked), lattice.frames, lattice.bands) @ over_frequency.T
        values = lattice.values(over_time, over_frequency).reshape(groups, per_group, -1)[picked, state]
        torch.testing.assert_close(values, expected.flatten(1), atol=2e-4, rtol=1e-4)


def stripe_shifts(lattice: Lattice, edges: str) -> Tensor:
    """Shift ``(G, 1)`` of each group of a factor of stripes."""
    size = max(lattice.frames, lattice.bands)
    return node_shifts(len(lattice.weights), max(lattice.cell_counts), size, edges)[0][:, None]


def grid_shifts(lattice: Lattice, edges: str) -> Tensor:
    """Shifts ``(G, 2)`` of each group of a grid; an axis of one entry has none."""
    axes = []
    for cells, size in zip(lattice.cell_counts, (lattice.frames, lattice.bands), strict=True):
        nodes = 2 ** math.ceil(math.log2(shift_nodes(cells, size, edges)))
        axes.append(torch.zeros(1) if size == 1 else node_shifts(nodes, cells, size, edges)[0])
    return torch.cartesian_prod(*axes)


@pytest.mark.parametrize("edges", ["smooth", "hard"])
@pytest.mark.parametrize("name", ["time", "frequency", "time_frequency"])
def test_sampled_states_agree_with_all(name: str, edges: str, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = strategy(name, edges)
    exact = masks.lattices(50, 33, STATES)
    monkeypatch.setattr(grid, "ENUMERATED_CELLS", 0)
    for all_states, sampled in zip(exact, masks.lattices(50, 33, 1 << 15), strict=True):
        assert sampled.sampled
        assert not all_states.sampled
        frames, bands = some(sampled.frames), some(sampled.bands)
        generator = torch.Generator().manual_seed(0)
        weigh = torch.rand(len(frames) * len(bands), generator=generator)
        maps = []
        for lattice in (all_states, sampled):  # a nonlinear function of the mask
            values = lattice.values(torch.eye(lattice.frames)[frames], torch.eye(lattice.bands)[bands])
            maps.append(lattice.expectation(torch.sin(3 * values @ weigh / len(weigh))[:, None]))
        torch.testing.assert_close(maps[1], maps[0], atol=0.01, rtol=0)


@pytest.mark.parametrize("edges", ["smooth", "hard"])
def test_banks_are_different_samples_of_one_distribution(edges: str) -> None:
    """Their average comes nearer to the truth than one: its
    error would not fall if they shared shifts or cells.
    """
    masks, size = strategy("random", edges), (96, 40)
    frames, bands = some(size[0]), some(size[1])
    weigh = overlap(frames, size[0], 7, edges, True), overlap(bands, size[1], 7, edges, True)
    truth = 0.25 + 0.25 * torch.kron(*weigh)
    banks = [second_moments(masks.lattices(*size, STATES, bank)[0], frames, bands)[1] - truth for bank in range(12)]
    alone = torch.stack(banks).square().mean().sqrt()
    together = torch.stack(banks).mean(0).square().mean().sqrt()
    assert together < 0.5 * alone


@pytest.mark.parametrize(("cells", "size"), [(8, 50), (7, 20), (8, 33), (4, 6), (7, 64), (3, 7)])
def test_hard_nodes_are_exact_and_away_from_changes(cells: int, size: int) -> None:
    """Every bin's cell at a node is that of all shifts
    nearby, and the weights are the lengths of such intervals.
    """
    period = size // math.gcd(size, cells)
    for nodes in (period, 2 ** math.ceil(math.log2(period))):
        shifts, weights = node_shifts(nodes, cells, size, "hard")
        below = [grid.interpolation(shifts + nudge, cells, size, "hard")[0] for nudge in (-1e-3, 0.0, 1e-3)]
        assert torch.equal(below[0], below[1])
        assert torch.equal(below[1], below[2])
        lengths: dict[tuple[int, ...], float] = {}
        fine, fine_weights = node_shifts(1 << 13, cells, size, "smooth")
        for row, weight in zip(grid.interpolation(fine, cells, size, "hard")[0].tolist(), fine_weights, strict=True):
            lengths[tuple(row)] = lengths.get(tuple(row), 0.0) + float(weight)
        found: dict[tuple[int, ...], float] = {}
        for row, weight in zip(below[1].tolist(), weights, strict=True):
            found[tuple(row)] = found.get(tuple(row), 0.0) + float(weight)
        # an interval's ends may lie at 0 and 1, where the cells are numbered one further
        assert abs(sum(found.values()) - 1) < 1e-6
        for row, weight in found.items():
            same = [
                w
                for other, w in lengths.items()
                if other in (row, tuple(r + 1 for r in row), tuple(r - 1 for r in row))
            ]
            assert abs(sum(same) - weight) < 2e-3


def test_enumerated_probabilities() -> None:
    states, weights = enumerated(4, 0.3)
    assert len({tuple(s) for s in states.tolist()}) == 16
    torch.testing.assert_close(weights, torch.prod(torch.where(states > 0, 0.3, 0.7), 1))


def test_sobol_cells_are_balanced() -> None:
    cells = sobol_cells((4, 8), 6, 0.25, 1 << 12)
    assert cells.shape == (32, 128, 6)
    torch.testing.assert_close(cells.mean((0, 1)), torch.full((6,), 0.25), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(50, 33), (1, 20), (7, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_masks_are_the_product_of_their_factors(name: str, size: tuple[int, int]) -> None:
    masks = strategy(name, "smooth", 0.3)
    uniform = torch.rand(6, masks.columns(*size), generator=torch.Generator().manual_seed(2))
    factors = masks.factors(uniform, *size)
    assert len(factors) == len(masks.lattices(*size, 1))
    product = factors[0] if len(factors) == 1 else factors[0] * factors[1]
    assert torch.equal(product, masks.build(uniform, *size))
    sampled = masks.sample(6, size, torch.Generator().manual_seed(2))
    assert torch.equal(sampled, masks.build(uniform, *size))
    halves = [masks.build(part, *size) for part in (uniform[:2], uniform[2:])]
    assert torch.equal(torch.cat(halves), masks.build(uniform, *size))
    for factor, lattice in zip(factors, masks.lattices(*size, 1), strict=True):
        assert tuple(factor.shape[1:]) == (lattice.frames, lattice.bands)


GOLDEN = {
    # strategy, edges: two entries of mask 3, and a weighted sum over all masks. Commit 149cab8,
    # before masks were built from their uniforms: rq.masks.get(name, edges=edges).sample(40, (1,
    # 50, 33), torch.Generator().manual_seed(5))
    ("random", "smooth"): (0.386219, 0.822543, 1641666.4),
    ("random", "hard"): (0, 0, 1679024.0),
    ("time", "smooth"): (0, 0, 1680055.3),
    ("time", "hard"): (0, 0, 1641544.0),
    ("frequency", "smooth"): (0, 0, 1681019.2),
    ("frequency", "hard"): (0, 0, 1659937.0),
    ("time_frequency", "smooth"): (0.755733, 0.12809, 1647875.9),
    ("time_frequency", "hard"): (0, 0, 1601932.0),
}


@pytest.mark.parametrize(("name", "edges"), GOLDEN)
def test_masks_of_a_seed_stay_what_they_were(name: str, edges: str) -> None:
    masks = (
        strategy(name, edges).sample(40, (1, 50, 33), torch.Generator().manual_seed(5)).double().expand(40, 1, 50, 33)
    )
    weights = torch.arange(masks.numel()).reshape(masks.shape) % 97
    found = float(masks[3, 0, 7, 5]), float(masks[3, 0, 29, 21]), float((masks * weights).sum())
    first, second, total = GOLDEN[name, edges]
    assert found == (pytest.approx(first, abs=1e-5), pytest.approx(second, abs=1e-5), pytest.approx(total, abs=0.2))
