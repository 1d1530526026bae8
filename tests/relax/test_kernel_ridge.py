"""Kernel ridge regression, what is left out against slow restatements."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relax_quantus.relax.estimators import kernel_ridge
from relax_quantus.relax.estimators.kernel_ridge import FEWEST_MASKS, Fit, LeaveOneOut, kernel
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
    """Prediction plus whole residual is the target: the coefficients are on the scale of the targets."""
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
