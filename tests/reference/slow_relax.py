"""RELAX by its definitions, one mask and one bin at a time, in Python floats.

Wickstrom et al., "RELAX: Representation Learning Explainability", IJCV 131:1584-1610, 2023 (arXiv
2112.10161).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

Vector = np.ndarray


def cosine(a: Vector, b: Vector) -> float:
    """Equation 2; 0 where `b` is all zeros."""
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    lengths = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b))
    return dot / lengths if lengths else 0.0


def paper(similarities: Vector, masks: np.ndarray) -> tuple[Vector, Vector]:
    """R_j = (1/N) sum_n s_n M_nj and U_j = (1/N) sum_n
    (s_n - R_j)^2 M_nj; similarities (N,), masks (N, P).
    """
    n, bins = masks.shape
    importance, uncertainty = np.zeros(bins), np.zeros(bins)
    for j in range(bins):
        importance[j] = sum(similarities[i] * masks[i, j] for i in range(n)) / n
        uncertainty[j] = sum((similarities[i] - importance[j]) ** 2 * masks[i, j] for i in range(n)) / n
    return importance, uncertainty


def weighted(similarities: Vector, masks: np.ndarray) -> tuple[Vector, Vector]:
    """C_j = sum s M / sum M and V_j = sum M (s - C)^2 / sum M, in two passes."""
    n, bins = masks.shape
    importance, uncertainty = np.zeros(bins), np.zeros(bins)
    for j in range(bins):
        weight = sum(masks[i, j] for i in range(n))
        importance[j] = sum(similarities[i] * masks[i, j] for i in range(n)) / weight
        uncertainty[j] = sum((similarities[i] - importance[j]) ** 2 * masks[i, j] for i in range(n)) / weight
    return importance, uncertainty


def one_pass(similarities: Vector, masks: np.ndarray) -> tuple[Vector, Vector]:
    """The official package's recursion (West 1979): W += M; R += M
    (s - R) / W; U += M (s - R_new)(s - R_old); at the end U / W.
    """
    n, bins = masks.shape
    weight, importance, total = np.full(bins, 1e-300), np.zeros(bins), np.zeros(bins)
    for i in range(n):
        weight = weight + masks[i]
        before = importance.copy()
        importance = importance + masks[i] * (similarities[i] - importance) / weight
        total = total + masks[i] * (similarities[i] - importance) * (similarities[i] - before)
    return importance, total / weight


def weighted_error(similarities: Vector, masks: np.ndarray) -> Vector:
    """Standard error of a ratio of means by linearisation (Cochran
    1977, section 2.11): residuals M (s - C), N - 1 degrees of freedom.
    """
    n, bins = masks.shape
    importance, _ = weighted(similarities, masks)
    errors = np.zeros(bins)
    for j in range(bins):
        residuals = [masks[i, j] * (similarities[i] - importance[j]) for i in range(n)]
        errors[j] = math.sqrt(sum(r * r for r in residuals) / (n - 1) / n) / (masks[:, j].sum() / n)
    return errors


def paper_error(similarities: Vector, masks: np.ndarray) -> Vector:
    """Standard error of a mean: the standard deviation of s M over sqrt(N)."""
    return np.array([np.std(similarities * masks[:, j], ddof=1) / math.sqrt(len(masks)) for j in range(masks.shape[1])])


def weighted_centred_error(similarities: Vector, masks: np.ndarray) -> Vector:
    """Standard error of sum s M / sum M minus the mean
    of s: of the mean of each mask's influence on it.
    """
    importance, _ = weighted(similarities, masks)
    n, bins = masks.shape
    errors = np.zeros(bins)
    for j in range(bins):
        influence = [
            masks[i, j] / masks[:, j].mean() * (similarities[i] - importance[j])
            - (similarities[i] - similarities.mean())
            for i in range(n)
        ]
        errors[j] = math.sqrt(sum(v * v for v in influence) / (n - 1) / n)
    return errors


def paper_centred_error(similarities: Vector, masks: np.ndarray) -> Vector:
    """Standard error of the mean of (s - s-bar) (M - M-bar)."""
    n, bins = masks.shape
    errors = np.zeros(bins)
    for j in range(bins):
        products = (similarities - similarities.mean()) * (masks[:, j] - masks[:, j].mean())
        errors[j] = math.sqrt(sum((v - products.mean()) ** 2 for v in products) / (n - 1) / n)
    return errors


def all_masks(d: int) -> Iterator[tuple[int, ...]]:
    """All 2^d binary masks."""
    return itertools.product((0, 1), repeat=d)


def bernoulli_masks(d: int, quarters: int) -> np.ndarray:
    """Binary masks in which each occurs as often as
    iid Bernoulli(quarters / 4) says, ``(N, d)``.
    """
    rows = []
    for mask in all_masks(d):
        kept = sum(mask)
        rows += [mask] * (quarters**kept * (4 - quarters) ** (d - kept))
    masks = np.array(rows, dtype=np.float64)
    return masks[:: 2**d] if quarters == 2 else masks  # at 1/2 all are equally often, so once each is enough


def binomial(n: int, p: float, f: Callable[[int], float]) -> float:
    """E f(K) for K ~ Binomial(n, p)."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) * f(k) for k in range(n + 1))


def banzhaf(game: Callable[[tuple[int, ...]], float], d: int, p: float) -> Vector:
    """p-Banzhaf values: the expected gain of player
    j when the others join with probability p each.
    """
    values = np.zeros(d)
    for j in range(d):
        for others in all_masks(d - 1):
            weight = p ** sum(others) * (1 - p) ** (d - 1 - sum(others))
            values[j] += weight * (game((*others[:j], 1, *others[j:])) - game((*others[:j], 0, *others[j:])))
    return values
