"""The kernel ridge regression against slow linear algebra, and the features that it compares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import relax_quantus as rq
from relax_quantus.relax.estimators import kernel_ridge
from relax_quantus.relax.estimators.kernel_ridge import (
    FEWEST_MASKS,
    NEIGHBOURS,
    QUADRATIC,
    FactorFeatures,
    Fit,
    LeaveOneOut,
    Mixed,
    kernel,
    neighbours,
)
from tests.reference import slow_ridge
from tests.reference.models import rand


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, Fit]:
    """A kernel matrix of 40 masks, the ridge, two standardised targets, masks and the fit."""
    ridge, n = 0.05, 40
    monkeypatch.setattr(kernel_ridge, "RIDGES", (ridge,))
    features = (rand(n, 3, seed=1, dtype=torch.float32) / 2, rand(n, 2, seed=2, dtype=torch.float32) / 2)
    first = features[0].double().sum(1)
    targets = torch.stack([first.sin() + 0.1 * rand(n, seed=3), first.square() + features[1].double()[:, 0]], 1)
    masks = torch.rand(n, 6, generator=torch.Generator().manual_seed(4))
    found = kernel_ridge.fit(features, targets, masks)
    assert found is not None
    standard = (targets - targets.mean(0)) / targets.std(0)
    matrix = kernel(features, features).double().tril()  # rounding in float32 leaves it not quite symmetric
    matrix = matrix + matrix.tril(-1).T
    return matrix.numpy(), ridge, standard.numpy(), masks.double().numpy(), found


def test_left_out_as_refitted(fitted: tuple[np.ndarray, float, np.ndarray, np.ndarray, Fit]) -> None:
    matrix, ridge, standard, _, found = fitted
    scale = found.left_out.numpy()[0] / [slow_ridge.residual(matrix, ridge, standard[:, d], 0, (0,)) for d in (0, 1)]
    for d in range(2):
        refitted = [slow_ridge.residual(matrix, ridge, standard[:, d], n, (n,)) for n in range(40)]
        np.testing.assert_allclose(found.left_out.numpy()[:, d], scale[d] * np.array(refitted), atol=1e-8)
        fits = np.stack([slow_ridge.coefficients(matrix, ridge, standard[:, d], n) for n in range(40)])
        np.testing.assert_allclose(found.coefficients_over(40).numpy()[:, d], scale[d] * fits.mean(0), atol=1e-7)
        whole = np.linalg.solve(matrix + ridge * np.eye(40), standard[:, d])
        expected = scale[d] * (fits.sum(0) + 60 * whole) / 100  # 60 more masks are predicted by the whole fit
        np.testing.assert_allclose(found.coefficients_over(100).numpy()[:, d], expected, atol=1e-7)


def test_left_out_is_what_the_average_of_fits_leaves(
    fitted: tuple[np.ndarray, float, np.ndarray, np.ndarray, Fit],
) -> None:
    """Prediction plus whole residual is the target:
    the coefficients are on the scale of the targets.
    """
    matrix, ridge, standard, _, found = fitted
    smoothed = matrix @ np.linalg.solve(matrix + ridge * np.eye(40), standard[:, 0])
    scale = found.left_out.numpy()[0, 0] / slow_ridge.residual(matrix, ridge, standard[:, 0], 0, (0,))
    predicted = found.predict(found.features).numpy()[:, 0]
    np.testing.assert_allclose(predicted, float(found.offset[0]) + scale * smoothed, atol=1e-5)


def test_two_left_out_as_refitted(fitted: tuple[np.ndarray, float, np.ndarray, np.ndarray, Fit]) -> None:
    matrix, ridge, standard, masks, found = fitted
    slow = slow_ridge.inflation(matrix, ridge, standard[:, 0], masks)
    assert found.inflation == pytest.approx(slow, abs=2e-4)
    assert abs(slow - 1) > 2e-3
    relative = masks / masks.mean(0) - 1
    centred = slow_ridge.inflation(matrix, ridge, standard[:, 0], relative)
    assert found.centred_inflation == pytest.approx(centred, abs=2e-4)
    assert abs(centred - slow) > 1e-3
    solver = LeaveOneOut(torch.from_numpy(matrix), ridge)
    weightings = [torch.from_numpy(m).float() for m in (masks, relative)]
    both = solver.inflations(torch.from_numpy(standard[:, :1]), weightings)
    assert both == pytest.approx([slow, centred], abs=2e-4)


def test_refuses_what_cannot_be_learnt() -> None:
    features, masks = (rand(64, 3, dtype=torch.float32),), torch.rand(64, 4)
    targets = torch.stack([features[0][:, 0], features[0][:, 1]], 1).double()
    assert kernel_ridge.fit(features, targets, masks) is not None
    few = FEWEST_MASKS - 1
    assert kernel_ridge.fit((features[0][:few],), targets[:few], masks[:few]) is None
    assert kernel_ridge.fit(features, torch.full((64, 2), 0.7, dtype=torch.float64), masks) is None
    assert kernel_ridge.fit((torch.zeros(64, 3),), rand(64, 2), masks) is None
    one = kernel_ridge.fit((features[0][:1],), targets[:1], masks[:1])
    assert one is None


@pytest.mark.parametrize(("rows", "columns"), [(5, 4), (1, 3), (2, 1)])
def test_pairs_are_the_sum_over_windows(rows: int, columns: int) -> None:
    """sum over pairs = sum over 3 x 2 windows, those over the
    edge too, of the squared inner product within, a sixth each.
    """
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
    """A combination of products of pairs, without building
    them, is the built features' product with the coefficients.
    """
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
    """Over the whole distribution each product of a pair
    is centred, and all together have the stated variance.
    """
    lattice = rq.masks.get("random", cells=(2, 3)).lattices(12, 10, 256)[0]
    features = FactorFeatures(lattice, torch.rand(1, 12, 10, generator=torch.Generator().manual_seed(6)))
    mixed = features.weighted(features.states, 0)
    assert isinstance(mixed, Mixed)
    share = lattice.weights.reshape(-1, 1)
    pairs = mixed.pairs.of(mixed.averages)
    assert float((share * pairs).sum(0).abs().max()) < 1e-5
    assert float((share * pairs.square()).sum()) == pytest.approx(QUADRATIC, rel=1e-3)
