"""Do evaluators agree about methods, and metrics about one another?

An `Endpoint`, or oriented rows, enters; Kendall's coefficient of concordance W with a bootstrap interval over sources, and matrices of rank
correlations over methods, leave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from relax_quantus.benchmark.statistics.crossing import Endpoint
from relax_quantus.benchmark.statistics.intervals import FEWEST, Estimate, resampling
from relax_quantus.benchmark.statistics.rows import measured, methods

if TYPE_CHECKING:
    import pandas as pd

LEAST_METHODS = 3


def kendall_w(scores: Any) -> Any:
    """W of `scores` (..., evaluators, methods): 1 if all rank alike, 0 if not at all, NaN if nobody ranks at all.

    Spread of the rank sums over the most that the evaluators' own ranks allow, which is the correction for ties (Kendall and Gibbons 1990, ch. 6).

    Examples
    --------
    >>> float(kendall_w([[1, 2, 3], [10, 20, 30]])), float(kendall_w([[1, 2, 3], [3, 2, 1]]))
    (1.0, 0.0)
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.asarray(scores, dtype=np.float64), axis=-1)
    m, n = ranks.shape[-2:]
    away = ranks - (n + 1) / 2
    spread, most = (away.sum(axis=-2) ** 2).sum(axis=-1), m * (away**2).sum(axis=(-2, -1))
    with np.errstate(all="ignore"):
        return np.where((most > 0) & (m > 1), spread / most, np.nan)


@dataclass(frozen=True, eq=False)
class Agreement:
    """How alike m evaluators rank n methods.

    Attributes
    ----------
    w
        Kendall's W and the percentile interval of resampled sources, each time with new means and ranks.
    median, lowest
        Of Spearman's correlations between two evaluators each.
    evaluators, methods
        What was compared.
    winners
        Evaluator -> its best method.
    own_winners
        Evaluators whose best method has this evaluator's fill or granularity.
    """

    w: Estimate
    median: float
    lowest: float
    evaluators: list[str]
    methods: list[str]
    winners: dict[str, str]
    own_winners: list[str]


def between_evaluators(endpoint: Endpoint, *, seed: int = 0, resamples: int = 1000) -> Agreement | None:
    """Agreement of an end point's evaluators; None with fewer than two evaluators or `LEAST_METHODS` methods that all of them measured."""
    ranked = [m for m in endpoint.ranked if endpoint.covered(m)]
    evaluators = [e for e in endpoint.evaluators if all(e in endpoint.covered(m) for m in ranked)]
    if len(evaluators) < 2 or len(ranked) < LEAST_METHODS:
        return None
    columns = [(m, e) for e in evaluators for m in ranked]
    values = endpoint.wide[columns].groupby("source_group").mean().dropna().to_numpy()
    n, shape = len(values), (len(evaluators), len(ranked))
    if n == 0:
        return None
    means = values.mean(axis=0).reshape(shape)
    low = high = math.nan
    if n >= FEWEST:
        again = kendall_w((resampling(n, resamples, seed) @ values).reshape(-1, *shape))
        low, high = (float(q) for q in np.nanquantile(again, [0.025, 0.975]))
    correlations = spearman(means)[np.triu_indices(len(evaluators), 1)]
    winners = {e: ranked[int(np.argmax(row))] for e, row in zip(evaluators, means, strict=True)}
    return Agreement(
        w=Estimate(float(kendall_w(means)), low, high, n),
        median=float(np.nanmedian(correlations)) if np.isfinite(correlations).any() else math.nan,
        lowest=float(np.nanmin(correlations)) if np.isfinite(correlations).any() else math.nan,
        evaluators=evaluators,
        methods=ranked,
        winners=winners,
        own_winners=[e for e, m in winners.items() if e in endpoint.own[m]],
    )


def spearman(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Spearman's correlations of the lines of `scores`; NaN for a line that is constant."""
    from scipy.stats import rankdata

    with np.errstate(all="ignore"):
        return np.atleast_2d(np.corrcoef(rankdata(scores, axis=1)))


def between_metrics(rows: pd.DataFrame, how: str = "spearman") -> pd.DataFrame:
    """Rank correlations of metrics over methods, metrics by metrics; NaN with fewer than `LEAST_METHODS` methods in common.

    Scores are turned so that higher is better first. `how` is "spearman" or "kendall".
    """
    found = measured(rows)
    found = found[found.method.isin(methods(found, ranked=True))]
    by_source = found.groupby(["metric", "method", "source_group"], sort=False).score.mean()
    means = by_source.groupby(["method", "metric"], sort=False).mean().unstack("metric")
    return means.corr(method=how, min_periods=LEAST_METHODS)  # type: ignore[arg-type]
