"""Cell effects against what a linear encoder makes
exact, and against the crosses of product masks.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import relax_quantus as rq
from relax_quantus.relax.estimators.surrogate import averaging, cell_effects

STRATEGIES = list(rq.masks.STRATEGIES)


def effect_of_each_cell(values: Tensor, rows: int, columns: int) -> Tensor:
    return averaging(rows, values.shape[0]).double() @ values.double() @ averaging(columns, values.shape[1]).double().T


@pytest.mark.parametrize("edges", ["smooth", "hard"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_effects_of_a_similarity_that_is_linear_in_the_cells(name: str, edges: str) -> None:
    """With s = sum beta_c x_c over cells' mean mask
    values x, beta comes back from the exact importance.
    """
    strategy = rq.masks.get(name, edges=edges)
    lattices = strategy.lattices(24, 16, 1 << 13)  # type: ignore[attr-defined]
    counts = [max(pair) for pair in zip(*(lattice.cell_counts for lattice in lattices), strict=True)]
    sizes = (max(lattice.frames for lattice in lattices), max(lattice.bands for lattice in lattices))
    beta = torch.randn(counts, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second = torch.ones(1, 1, dtype=torch.float64)
    mean = torch.ones(1, 1, dtype=torch.float64)
    for lattice in lattices:
        eyes = torch.eye(lattice.frames), torch.eye(lattice.bands)
        values, share = lattice.values(*eyes).double(), lattice.weights.reshape(-1, 1).double()
        second = torch.kron(second, values.T @ (share * values))
        mean = mean * (share * values).sum(0).reshape(lattice.frames, lattice.bands)
    covariance = second - torch.outer(mean.reshape(-1), mean.reshape(-1))
    weights = averaging(counts[0], sizes[0]).double().T @ beta @ averaging(counts[1], sizes[1]).double()
    centred = (covariance @ weights.reshape(-1)).reshape(sizes) / mean
    effects = cell_effects(lattices, centred[None])
    where = [torch.arange(s) * c // s for c, s in zip(counts, sizes, strict=True)]
    torch.testing.assert_close(effects[0], beta[where[0]][:, where[1]], rtol=0, atol=0.02)


def test_product_masks_leave_no_cross() -> None:
    """Where only one patch matters, importance is
    raised along its row and column, effects are not.
    """

    def encoder(x: Tensor) -> Tensor:
        patch = x[:, 0, 36:48, 24:32].mean((1, 2))
        return torch.stack([1 - 0.2 * patch, 0.2 * patch], 1)

    relax = rq.RELAX(encoder, masks="time_frequency", similarity="dot", estimator="surrogate")
    found = relax.explain(torch.ones(1, 1, 96, 64), n_samples=1500)
    assert found.cell_effects is not None
    effects, importance = found.cell_effects[0, 0], found.centred()[0, 0]
    top = effects[42, 28]
    row = importance[42, 50:].abs().mean() / importance[42, 28].abs()
    row_of_effects = effects[42, 50:].abs().mean() / top.abs()
    assert row > 0.3
    assert row_of_effects < 0.1


def test_only_the_surrogate_has_effects() -> None:
    x = torch.rand(2, 1, 96, 64)
    plain = rq.RELAX(lambda z: z.flatten(1), estimator="weighted").explain(x, n_samples=40)
    assert plain.cell_effects is None
    known = rq.RELAX(lambda z: z.flatten(1)).explain(x, n_samples=40)
    assert known.cell_effects is not None
    assert known.cell_effects.shape == x.shape
