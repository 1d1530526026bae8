"""Kernel ridge regression of similarities on masks, with leave-one-out predictions in closed form.

Masks' features and similarities enter, a `Fit` leaves that predicts the similarity under any mask. The learning part of `surrogate`.

The kernel is a product over a mask's independent factors of a Gaussian plus a constant,
prod_k [exp(-|z_k - z'_k|^2 / 2) + 0.3], with features z_k scaled to unit total variance: the constant lets effects of one factor alone be
learnt from all masks. Leaving one mask out has a closed form (Craven and Wahba, "Smoothing noisy data with spline functions", 1979):
e_(-n) = alpha_n / (A^-1)_nn with A = K + lambda I and alpha = A^-1 y.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CONSTANT = 0.3
RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
RIDGE_MASKS = 384
FEWEST_MASKS = 32


@dataclass(frozen=True)
class Fit:
    """A fitted surrogate of ``d`` targets.

    Parameters
    ----------
    features
        Of the n masks it was fitted on, ``(n, g_k)`` a factor.
    coefficients
        ``(n, d)`` float64: the prediction is ``offset + kernel(mask, features) @ coefficients``.
    averaged
        ``(n, d)`` float64: the sum over the n fits that leave one mask out, minus n times `coefficients`: what tells their average from
        the whole fit.
    offset
        ``(d,)``.
    left_out
        ``(n, d)``: for each mask, its target minus the prediction of the fit without it.
    """

    features: tuple[Tensor, ...]
    coefficients: Tensor
    averaged: Tensor
    offset: Tensor
    left_out: Tensor

    def predict(self, features: tuple[Tensor, ...]) -> Tensor:
        """Predict ``(m, d)`` float64 for masks with these features."""
        return self.offset + (kernel(features, self.features) @ self.coefficients.float()).double()

    def coefficients_over(self, count: int) -> Tensor:
        """Coefficients of the average over `count` masks of the fit that predicted each: without itself, or whole for masks not fitted on."""
        return self.coefficients + self.averaged / count


def kernel(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> Tensor:
    """Kernel matrix ``(m, n)`` float32 between two sets of masks."""
    product: Tensor | None = None
    for a, b in zip(first, second, strict=True):
        factor = gaussian(a, b).add_(CONSTANT)
        product = factor if product is None else product.mul_(factor)
    assert product is not None
    return product


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    """exp(-|a - b|^2 / 2) for rows of ``(m, g)`` and ``(n, g)``."""
    half = torch.addmm(b.square().sum(1)[None] * -0.5, a, b.T)
    return half.sub_(a.square().sum(1)[:, None] * 0.5).clamp_max_(0).exp_()


def fit(features: tuple[Tensor, ...], targets: Tensor) -> Fit | None:
    """Fit targets ``(n, d)`` float64, all with the ridge that predicts the first best when left out.

    Returns
    -------
    Fit or None
        None where no ridge predicts the first target better than its mean, or there are fewer than 32 masks or distinct similarities.
    """
    n = len(targets)
    offset, scale = targets.mean(0), targets.std(0) if n > 1 else targets[0]
    if n < FEWEST_MASKS or not bool(scale[0] > 1e-9 * (1 + offset[0].abs())):
        return None
    standard = (targets - offset) / scale.clamp_min(torch.finfo(scale.dtype).tiny)
    matrix = kernel(features, features).double()
    few = slice(0, RIDGE_MASKS)
    errors = [leave_one_out(matrix[few, few], standard[few, :1], ridge)[2].square().mean() for ridge in RIDGES]
    best = int(torch.stack(errors).argmin())
    if not bool(errors[best] < standard[few, 0].square().mean()):
        return None
    inverse, coefficients, left_out = leave_one_out(matrix, standard, RIDGES[best])
    return Fit(features, coefficients * scale, -(inverse @ left_out) * scale, offset, left_out * scale)


def leave_one_out(matrix: Tensor, targets: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse ``(n, n)``, coefficients and left-out residuals ``(n, d)`` of a kernel matrix at one ridge; float64."""
    regular = matrix.clone()
    regular.diagonal().add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(regular))
    coefficients = inverse @ targets
    return inverse, coefficients, coefficients / inverse.diagonal()[:, None]
