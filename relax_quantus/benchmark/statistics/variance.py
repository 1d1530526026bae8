"""Divide a score's variance among data, encoders, recordings, clips and masks.

One score a cell enters (an end point's method, or a difference of two); `Components` leave. The
model is ``y = mean + dataset + encoder + source + clip + clip x encoder + rest``, all random; with
several mask seeds the rest is what another draw of the masks changes. Moments rather than
likelihood (Rao 1971's MINQUE with unit weights, on pairs): half the squared difference of two
observations is, in expectation, the sum of the components in which the two differ; a non-negative
least squares over all pairs solves for them. It needs no balance and never fails to converge; a
component whose levels cannot be told from another's is NaN with the reason.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FACTORS = {
    "dataset": ("dataset",),
    "encoder": ("encoder",),
    "source": ("source_group",),
    "clip": ("source_group", "dataset", "clip"),
    "clip x encoder": ("source_group", "dataset", "clip", "encoder"),
}
"""Component -> the columns whose combination makes its levels, from coarse to fine."""
REST = "mask seed"


@dataclass(frozen=True)
class Components:
    """Variances by component, their sum, and why some are missing.

    Attributes
    ----------
    variances
        Component -> variance in squared units of the score; NaN where it cannot be told.
    levels
        Component -> number of levels seen.
    reasons
        Component -> why it is NaN, or what it includes.
    """

    variances: dict[str, float]
    levels: dict[str, int]
    reasons: dict[str, str]

    @property
    def shares(self) -> dict[str, float]:
        """Component -> its share of the sum of those that could be told."""
        total = sum(v for v in self.variances.values() if math.isfinite(v))
        return {k: v / total if total > 0 else math.nan for k, v in self.variances.items()}


def components(cells: pd.Series) -> Components:
    """Estimate variance components of one score a cell; `cells` is indexed by `rows.CELL`."""
    values = cells.dropna()
    frame = values.rename("y").reset_index()
    n = len(frame)
    codes = {name: _codes(frame, columns) for name, columns in FACTORS.items()}
    codes[REST] = np.arange(n)
    levels = {name: len(np.unique(code)) for name, code in codes.items()} | {REST: frame["seed"].nunique()}
    told, reasons = _distinct(codes)
    if n < 3 or not told:
        nothing = dict.fromkeys(codes, math.nan)
        return Components(nothing, levels, dict.fromkeys(codes, f"{n} scores are too few"))
    solved = dict(zip(told, _solve(frame["y"].to_numpy(dtype=np.float64), [codes[k] for k in told]), strict=True))
    return Components({name: solved.get(name, math.nan) for name in codes}, levels, reasons)


def _codes(frame: pd.DataFrame, columns: tuple[str, ...]) -> Any:
    return frame.groupby(list(columns), sort=False).ngroup().to_numpy()


def _distinct(codes: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Select components with at least two levels that no coarser one has already.

    The coarser one then says what it includes.
    """
    told: list[str] = []
    reasons: dict[str, str] = {}
    merged: dict[str, list[str]] = {}
    for name, code in codes.items():
        if len(np.unique(code)) < 2:
            reasons[name] = "one level only"
            continue
        same = next((other for other in told if _same_partition(codes[other], code)), None)
        if same is None:
            told.append(name)
        else:
            reasons[name] = f"cannot be told from {same}"
            merged.setdefault(same, []).append(name)
    return told, reasons | {name: f"includes {', '.join(others)}" for name, others in merged.items()}


def _same_partition(a: Any, b: Any) -> bool:
    pairs = len(set(zip(a.tolist(), b.tolist(), strict=True)))
    return bool(pairs == len(np.unique(a)) == len(np.unique(b)))


def _solve(y: Any, codes: list[Any]) -> Any:
    """Solve non-negative least squares of half squared differences on "differ in k".

    Over all pairs, without listing pairs.

    Pairs are summed by which of the factors agree: sums within the groups of every subset of
    factors, then inclusion and exclusion. Each kind of pair is weighted by the number of its pairs.
    """
    from scipy.optimize import nnls

    factors = codes[:-1] if len(np.unique(codes[-1])) == len(y) else codes
    centred = y - y.mean()
    subsets = [s for r in range(len(factors) + 1) for s in itertools.combinations(range(len(factors)), r)]
    agree = {s: _pair_sums(centred, [factors[k] for k in s]) for s in subsets}
    lines, targets = [], []
    for subset in subsets:
        exactly = np.zeros(2)
        for other in subsets:
            if set(subset) <= set(other):
                exactly += (-1) ** (len(other) - len(subset)) * agree[other]
        pairs, half_squares = exactly
        if pairs > 0.5:
            weight = math.sqrt(pairs)
            lines.append([weight * (k not in subset) for k in range(len(codes))])
            targets.append(half_squares / weight)
    return nnls(np.array(lines), np.array(targets))[0]


def _pair_sums(y: Any, factors: list[Any]) -> Any:
    """Count pairs that agree in all `factors`, and sum their half squared differences."""
    group = np.zeros(len(y), dtype=int)
    for codes in factors:
        group = np.unique(group * (codes.max() + 1) + codes, return_inverse=True)[1]
    count, total, squares = (np.bincount(group, weights=w) for w in (np.ones(len(y)), y, y**2))
    return np.array([(count * (count - 1) / 2).sum(), ((count * squares - total**2) / 2).sum()])
