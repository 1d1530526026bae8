"""Leaving masks out of a kernel ridge regression by
refitting without them, one or two at a time, in float64.
"""

from __future__ import annotations

import numpy as np


def weights(matrix: np.ndarray, ridge: float, predicted: int, left_out: tuple[int, ...]) -> np.ndarray:
    """Weight of each target, 0 for those left out, in
    the prediction of one from a fit to the others.
    """
    kept = [i for i in range(len(matrix)) if i not in left_out]
    inverse = np.linalg.inv(matrix[np.ix_(kept, kept)] + ridge * np.eye(len(kept)))
    found = np.zeros(len(matrix))
    found[kept] = matrix[predicted, kept] @ inverse
    return found


def coefficients(matrix: np.ndarray, ridge: float, targets: np.ndarray, left_out: int) -> np.ndarray:
    """Coefficients of the fit without one, with a 0 in its place."""
    kept = [i for i in range(len(matrix)) if i != left_out]
    found = np.zeros_like(targets)
    found[kept] = np.linalg.solve(matrix[np.ix_(kept, kept)] + ridge * np.eye(len(kept)), targets[kept])
    return found


def residual(matrix: np.ndarray, ridge: float, targets: np.ndarray, n: int, left_out: tuple[int, ...]) -> float:
    """A target minus its prediction."""
    return float(targets[n] - weights(matrix, ridge, n, left_out) @ targets)


def inflation(matrix: np.ndarray, ridge: float, targets: np.ndarray, masks: np.ndarray) -> float:
    """1 + sum over pairs of w_nj w_jn e_n e_j M_n M_j / sum
    of r_n^2 M_n^2, both summed over the masks' entries.

    w_nj is mask j's weight where the fit without n predicts n; e_n and e_j are the residuals of the
    fit without both.
    """
    count = len(targets)
    own = [weights(matrix, ridge, n, (n,)) for n in range(count)]
    shared = 0.0
    for n in range(count):
        for j in range(count):
            if j != n:
                e_n, e_j = (residual(matrix, ridge, targets, k, (n, j)) for k in (n, j))
                shared += own[n][j] * own[j][n] * e_n * e_j * float(masks[n] @ masks[j])
    alone = sum(residual(matrix, ridge, targets, n, (n,)) ** 2 * float(masks[n] @ masks[n]) for n in range(count))
    return 1 + shared / alone
