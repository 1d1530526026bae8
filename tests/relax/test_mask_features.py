"""Pairs of neighbouring bins against the windows that they stand for, counted one by one."""

from __future__ import annotations

import pytest
import torch

import relax_quantus as rq
from relax_quantus.relax.estimators.kernel_ridge import Mixed
from relax_quantus.relax.estimators.mask_features import NEIGHBOURS, QUADRATIC, FactorFeatures, neighbours


@pytest.mark.parametrize(("rows", "columns"), [(5, 4), (1, 3), (2, 1)])
def test_pairs_are_the_sum_over_windows(rows: int, columns: int) -> None:
    """sum over pairs = sum over 3 x 2 windows, those over the edge too, of the squared inner product within, a sixth each."""
    x, y = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    high, wide = NEIGHBOURS
    slow = 0.0
    for top in range(1 - high, rows):
        for left in range(1 - wide, columns):
            window = (slice(max(top, 0), top + high), slice(max(left, 0), left + wide))
            slow += float((x[window] * y[window]).sum()) ** 2 / (high * wide)
    first, second, window_share = neighbours(rows, columns)
    products = [values.flatten()[first] * values.flatten()[second] * window_share for values in (x, y)]
    assert float((products[0] * products[1]).sum()) == pytest.approx(slow, rel=1e-6)
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) == len(first)


def test_quadratic_forms_are_the_features_they_stand_for() -> None:
    """A combination of products of pairs, without building them, is the built features' product with the coefficients."""
    generator = torch.Generator().manual_seed(5)
    strategy = rq.masks.get("random")
    lattice = strategy.lattices(12, 10, 256)[0]
    features = FactorFeatures(lattice, torch.rand(2, 12, 10, generator=generator))
    masks = strategy.sample(40, (1, 12, 10), generator)[:, 0]
    mixed = features.weighted(features.averages(masks), 1)
    assert isinstance(mixed, Mixed)
    coefficients = torch.randn(mixed.linear.shape[1], 3, generator=generator)
    torch.testing.assert_close(mixed.combined(coefficients), mixed.linear @ coefficients, rtol=1e-4, atol=1e-5)


def test_pairs_have_mean_zero_and_their_share_of_the_variance() -> None:
    """Over the whole distribution each product of a pair is centred, and all together have the stated variance."""
    lattice = rq.masks.get("random", cells=(2, 3)).lattices(12, 10, 256)[0]
    features = FactorFeatures(lattice, torch.rand(1, 12, 10, generator=torch.Generator().manual_seed(6)))
    mixed = features.weighted(features.states, 0)
    assert isinstance(mixed, Mixed)
    share = lattice.weights.reshape(-1, 1)
    pairs = mixed.pairs.of(mixed.averages)
    assert float((share * pairs).sum(0).abs().max()) < 1e-5
    assert float((share * pairs.square()).sum()) == pytest.approx(QUADRATIC, rel=1e-3)
