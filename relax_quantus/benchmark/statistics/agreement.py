"""Measure whether evaluators agree about methods, and metrics about one another.

An `Endpoint`, or oriented rows, enters; Kendall's coefficient of concordance W with a bootstrap
interval over sources and what shuffled rankings give, and matrices of rank correlations over
methods, leave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from relax_quantus.benchmark.statistics.endpoints import Endpoint
from relax_quantus.benchmark.statistics.intervals import FEWEST, Interval, resampling
from relax_quantus.benchmark.statistics.rows import measured, methods

if TYPE_CHECKING:
    import pandas as pd

LEAST_METHODS = 3
SHUFFLES = 2000


def kendall_w(scores: Any) -> Any:
    """Compute Kendall's W of `scores` (..., evaluators, methods).

    1 if all rank alike, 0 if not at all, NaN if nobody ranks at all.

    Spread of the rank sums over the most that the evaluators' own ranks allow, which is the
    correction for ties (Kendall and Gibbons 1990, ch. 6).

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


def chance(scores: npt.NDArray[np.float64], seed: int, shuffles: int) -> npt.NDArray[np.float64]:
    """Compute W of `scores` (evaluators, methods) with methods shuffled, ``(shuffles,)``.

    What no agreement at all gives: 1 / evaluators on average, never 0.
    """
    rng = np.random.default_rng([seed, *scores.shape])
    shuffled = rng.permuted(np.broadcast_to(scores, (shuffles, *scores.shape)), axis=-1)
    return np.asarray(kendall_w(shuffled))


@dataclass(frozen=True, eq=False)
class Agreement:
    """A measure of how alike m evaluators rank n methods.

    Attributes
    ----------
    w
        Kendall's W and the percentile interval of resampled sources, each time with new means and
        ranks.
    of_twins
        W of the shuffled twins of the same methods: evaluators may agree about the texture of maps
        of no information. NaN without twins.
    by_chance, p
        The 95th percentile of W when every evaluator's ranking is shuffled, and the share of
        shuffles that reach W: of these clips and maps.
    median, lowest
        Of Spearman's correlations between two evaluators each.
    evaluators, methods
        What was compared.
    winners
        Evaluator -> its best method.
    own_winners, own_by_chance
        Evaluators whose best method has this evaluator's fill or granularity, and how many there
        would be if each drew its winner at random.
    """

    w: Interval
    of_twins: float
    by_chance: float
    p: float
    median: float
    lowest: float
    evaluators: list[str]
    methods: list[str]
    winners: dict[str, str]
    own_winners: list[str]
    own_by_chance: float


def between_evaluators(endpoint: Endpoint, *, seed: int = 0, resamples: int = 1000) -> list[Agreement]:
    """Measure the agreement of an end point's evaluators, on one or two blocks without gaps.

    Ranked are the scores as they are. Scores minus twins are no better: all evaluators share the
    noise of a map's one twin, which then looks like agreement. Of the methods those with a twin are
    ranked, the strategies: a baseline that all rank last looks like agreement, too. Where fewer
    than `LEAST_METHODS` have a twin all methods are ranked.

    Not every map can be judged by every evaluator. So first all methods on the evaluators that
    judged them all, then, where there are more, all evaluators on the methods that all of them
    judged. A block takes two evaluators and `LEAST_METHODS` methods.
    """
    ranked = [m for m in endpoint.ranked if endpoint.covered(m)]
    paired = [m for m in ranked if m in endpoint.twins]
    has_twins = len(paired) >= LEAST_METHODS
    ranked = paired if has_twins else ranked
    shared = [e for e in endpoint.evaluators if all(e in endpoint.covered(m) for m in ranked)]
    blocks = [(ranked, shared)]
    if shared != endpoint.evaluators:
        everywhere = [m for m in ranked if endpoint.covered(m) == endpoint.evaluators]
        blocks.append((everywhere, endpoint.evaluators))
    found = [_agreement(endpoint, *block, has_twins, seed, resamples) for block in blocks]
    return [f for f in found if f is not None]


def _agreement(
    endpoint: Endpoint, ranked: list[str], evaluators: list[str], has_twins: bool, seed: int, resamples: int
) -> Agreement | None:
    if len(evaluators) < 2 or len(ranked) < LEAST_METHODS:
        return None
    shape = (len(evaluators), len(ranked))
    scores = endpoint.wide[[(m, e) for e in evaluators for m in ranked]]
    of_twins = math.nan
    if has_twins:
        twins = endpoint.wide[[(endpoint.twins[m], e) for e in evaluators for m in ranked]]
        of_twins = float(kendall_w(twins.groupby("source_group").mean().mean().to_numpy().reshape(shape)))
    values = scores.groupby("source_group").mean().dropna().to_numpy()
    n = len(values)
    if n == 0:
        return None
    means = values.mean(axis=0).reshape(shape)
    low = high = math.nan
    if n >= FEWEST:
        again = kendall_w((resampling(n, resamples, seed) @ values).reshape(-1, *shape))
        low, high = (float(q) for q in np.nanquantile(again, [0.025, 0.975]))
    w, shuffled = float(kendall_w(means)), chance(means, seed, SHUFFLES)
    correlations = spearman(means)[np.triu_indices(len(evaluators), 1)]
    winners = {e: ranked[int(np.argmax(row))] for e, row in zip(evaluators, means, strict=True)}
    return Agreement(
        w=Interval(w, low, high, n),
        of_twins=of_twins,
        by_chance=float(np.nanquantile(shuffled, 0.95)),
        p=float((1 + np.sum(shuffled >= w - 1e-12)) / (1 + len(shuffled))),
        median=float(np.nanmedian(correlations)) if np.isfinite(correlations).any() else math.nan,
        lowest=float(np.nanmin(correlations)) if np.isfinite(correlations).any() else math.nan,
        evaluators=evaluators,
        methods=ranked,
        winners=winners,
        own_winners=[e for e, m in winners.items() if e in endpoint.own[m]],
        own_by_chance=float(sum(np.mean([e in endpoint.own[m] for m in ranked]) for e in evaluators)),
    )


def spearman(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Correlate the lines of `scores` by rank; NaN for a line that is constant."""
    from scipy.stats import rankdata

    with np.errstate(all="ignore"):
        return np.atleast_2d(np.corrcoef(rankdata(scores, axis=1)))


def between_metrics(rows: pd.DataFrame, how: str = "spearman") -> pd.DataFrame:
    """Correlate the ranks that metrics give methods, metrics by metrics.

    NaN with fewer than `LEAST_METHODS` methods in common.

    Scores are turned so that higher is better first. `how` is "spearman" or "kendall".
    """
    found = measured(rows)
    found = found[found.method.isin(methods(found, ranked=True))]
    by_source = found.groupby(["metric", "method", "source_group"], sort=False).score.mean()
    means = by_source.groupby(["method", "metric"], sort=False).mean().unstack("metric")
    return means.corr(method=how, min_periods=LEAST_METHODS)  # type: ignore[arg-type]
