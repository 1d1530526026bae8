"""All statistics of a run in one dictionary: end points, tests, ranks, agreement, variance.

Oriented rows enter (`rows.checked`), a dictionary that JSON can hold leaves; missing numbers are
None. End points (`END_POINTS`) are the crossed relevance gain in either view, as a share of what
could fall, and the area under ROC against what the encoder was shown (truth by construction):
scores as they are, with shuffled twins as a check of their level. Which of them are primary or
secondary, the run's configuration says, or nobody; metrics by themselves are exploratory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from relax_quantus.benchmark.config import END_POINTS
from relax_quantus.benchmark.statistics import agreement, families, intervals, ranks, variance
from relax_quantus.benchmark.statistics.comparisons import Comparison
from relax_quantus.benchmark.statistics.endpoints import Endpoint, crossed, is_crossed, normalised, without_a_fall
from relax_quantus.benchmark.statistics.rows import measured, pooled

if TYPE_CHECKING:
    import pandas as pd

SMALLEST_GAIN = 0.05
"""Gains nearer than that, as shares of what could fall, do not matter (docs/protocol.md)."""
SMALLEST_AUC = 0.05
DIFFERENCES = "raw"
"""How two methods are compared, as ``run.json`` records it."""
TRUTH = "AUC-region"
"""The metric that is the end point where the truth is made by construction; other metrics of a
region are exploratory.
"""
NO_ROLES: Mapping[str, str] = MappingProxyType({})
GAIN = "LIF - MIF area, difference of the score that remains when least and most influential parts go first"
SHARE = f"{GAIN}, as a share of how far it falls when everything goes (mean of encoder and evaluator)"


AMENDED = (
    "What was primary or secondary was chosen before this run for differences minus shuffled twins. Raw differences took their place on 29 November "
    "2026, after the scores had been seen, and are exploratory to that extent (docs/protocol.md)."
)
"""What a report says of runs that chose their end points under the earlier rule."""


@dataclass(frozen=True)
class MeasuredEndpoint:
    """An end point, and its role: empty if none was chosen."""

    key: str
    role: str
    view: str
    dataset: str
    endpoint: Endpoint


def roles_of(configuration: Mapping[str, Any]) -> dict[str, str]:
    """Read from a run's configuration the role of each end point, chosen before it began.

    "primary", "secondary", else "exploratory"; empty if nothing was chosen.

    Examples
    --------
    >>> roles_of({"primary": ["gain_embedding"]})
    {'gain_embedding': 'primary', 'gain_logit': 'exploratory', 'auc_region': 'exploratory'}
    """
    chosen = {key: role for role in ("primary", "secondary") for key in configuration.get(role) or ()}
    return {key: chosen.get(key, "exploratory") for key in END_POINTS} if chosen else {}


def amendment_of(run: Mapping[str, Any]) -> str:
    """Return `AMENDED` if a run chose end points under the earlier rule; else nothing.

    ``run.json`` then does not say that it chose raw differences.

    Examples
    --------
    >>> amendment_of({"configuration": {"primary": ["gain_embedding"]}, "differences": "raw"})
    ''
    """
    chose = any(roles_of(run.get("configuration", {})).values())
    return AMENDED if chose and run.get("differences") != DIFFERENCES else ""


def measured_endpoints(rows: pd.DataFrame, roles: Mapping[str, str] = NO_ROLES) -> Iterator[MeasuredEndpoint]:
    """Yield the end points that were measured, each data set by itself.

    Answers for different data are never pooled.
    """
    everything, _ = pooled(measured(rows))
    for dataset in dict.fromkeys(everything.dataset):
        main = everything[everything.dataset == dataset]
        for view in ("embedding", "logit"):
            found = crossed(main, view)
            if len(found):
                name, stated = f"Crossed relevance gain, {view} view", bool(found.fall.notna().any())
                smallest = SMALLEST_GAIN if stated or view == "embedding" else math.nan
                endpoint = Endpoint(name, normalised(found), smallest, SHARE if stated else GAIN)
                key = f"gain_{view}"
                yield MeasuredEndpoint(key, roles.get(key, ""), view, dataset, endpoint)
        truth = main[main.metric == TRUTH]
        if len(truth):
            name, unit = "AUC against what the encoder was shown", "area under ROC"
            endpoint, key = Endpoint(name, truth, SMALLEST_AUC, unit), "auc_region"
            yield MeasuredEndpoint(key, roles.get(key, ""), "embedding", dataset, endpoint)


def summarise(
    rows: pd.DataFrame, seed: int = 0, roles: Mapping[str, str] = NO_ROLES, amendment: str = ""
) -> dict[str, Any]:
    """Compute every number of the report that is not in a table of scores.

    `roles` are from `roles_of`, `amendment` is what `amendment_of` says.
    """
    main, left_out = pooled(measured(rows))
    return {
        "unit": "source group",
        "differences": DIFFERENCES,
        "amendment": amendment,
        "sources": int(main.source_group.nunique()),
        "clips": int(main[["dataset", "clip"]].drop_duplicates().shape[0]),
        "datasets": sorted(main.dataset.unique()),
        "encoders": sorted(main.encoder.unique()),
        "seeds": sorted(main.seed.unique()),
        "left_out_of_what_is_pooled": left_out,
        "statuses": {str(k): int(v) for k, v in rows[rows.part == ""].status.value_counts().items()},
        "endpoints": [
            described(measured_endpoint, rows, seed) for measured_endpoint in measured_endpoints(rows, roles)
        ],
        "exploratory": plain([c for c in exploratory(main, seed)]),
        "agreement_between_metrics": plain(agreement.between_metrics(main).to_dict()),
    }


def described(measured_endpoint: MeasuredEndpoint, rows: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    """Describe one end point: levels, ranks, comparisons, agreement of evaluators, variance."""
    endpoint = measured_endpoint.endpoint
    ranking = ranks.rank(endpoint.effects())
    tested = families.factors(endpoint, measured_endpoint.view, seed) + families.against_nulls(
        endpoint, measured_endpoint.view, seed
    )
    agreed = agreement.between_evaluators(endpoint, seed=seed)
    made: dict[str, Any] = plain(
        {
            "key": measured_endpoint.key,
            "name": endpoint.name,
            "dataset": measured_endpoint.dataset,
            "role": measured_endpoint.role,
            "unit": endpoint.unit,
            "smallest_effect": endpoint.smallest,
            "evaluators": endpoint.evaluators,
            "without_a_fall": [] if endpoint.single else without_a_fall(endpoint.rows),
            "methods": [level(endpoint, method, seed) for method in endpoint.methods],
            "ranking": {
                "ranks": ranking.ranks,
                "sources": ranking.n,
                "friedman_p": ranking.p,
                "critical_difference": ranking.critical_difference,
                "not_told_from_best": ranking.best,
            },
            "families": [
                {
                    "name": f.name,
                    "role": measured_endpoint.role if f.main else measured_endpoint.role and "exploratory",
                    "comparisons": [tell(c) for c in f.comparisons],
                }
                for f in tested
            ],
            "agreement": [asdict(block) for block in agreed],
            "variance": {m: told(endpoint, m) for m in endpoint.ranked},
            "conditions": list(conditions(measured_endpoint, rows, seed)),
        }
    )
    return made


def level(endpoint: Endpoint, method: str, seed: int = 0) -> dict[str, Any]:
    """Summarise one method: its level, minus its twin, own cells, advantage."""
    crossed_design = not endpoint.single
    nothing = intervals.mean([])
    return {
        "method": method,
        "foreign_evaluators": endpoint.foreign(method),
        "level": intervals.mean(endpoint.level(method), seed=seed),
        "minus_twin": intervals.mean(endpoint.level(method, True), seed=seed) if method in endpoint.twins else nothing,
        "own_cells": intervals.mean(endpoint.level(method, own=True), seed=seed) if crossed_design else nothing,
        "own_cell_advantage": intervals.mean(endpoint.advantage(method), seed=seed) if crossed_design else nothing,
        "own_cell_advantage_adjusted": intervals.mean(endpoint.advantage(method, True), seed=seed)
        if crossed_design
        else nothing,
    }


def told(endpoint: Endpoint, method: str) -> dict[str, Any]:
    """Split the variance of a method's score into its components."""
    on = endpoint.foreign(method)
    found = variance.components(endpoint.cells(method, on, minus_twin=False))
    return {"variances": found.variances, "shares": found.shares, "levels": found.levels, "notes": found.reasons}


def conditions(measured_endpoint: MeasuredEndpoint, rows: pd.DataFrame, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Summarise the end point for each encoder by itself, controls among them."""
    found = measured(rows)
    found = found[
        found.metric.isin(measured_endpoint.endpoint.rows.metric.unique())
        & (found.dataset == measured_endpoint.dataset)
    ]
    crossed_design = not measured_endpoint.endpoint.single
    for encoder, part in (normalised(found) if crossed_design else found).groupby("encoder", sort=False):
        alone = Endpoint(measured_endpoint.endpoint.name, part, measured_endpoint.endpoint.smallest)
        for method in alone.methods:
            nothing = intervals.mean([])
            yield {
                "encoder": str(encoder),
                "method": method,
                "score": intervals.mean(alone.level(method), seed=seed),
                "minus_twin": intervals.mean(alone.level(method, True), seed=seed)
                if method in alone.twins
                else nothing,
            }


def exploratory(rows: pd.DataFrame, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Mask strategies compared on every other metric: for ideas, not for claims."""
    others = rows[~is_crossed(rows)]
    for (dataset, metric), part in others.groupby(["dataset", "metric"], sort=False):
        endpoint = Endpoint(str(metric), part)
        relax = [v for v in families.variants(part) if v.kind == "RELAX"]
        for comparison in families.family(endpoint, families.matches(relax, "masks"), seed):
            yield {"dataset": dataset, "metric": metric, "category": part.category.iloc[0], **tell(comparison)}


def tell(comparison: Comparison) -> dict[str, Any]:
    """Put a comparison into an entry, with its verdict in words."""
    return {
        **asdict(comparison),
        "n": comparison.n,
        "significant": comparison.significant,
        "verdict": comparison.verdict,
    }


def plain(value: Any) -> Any:
    """Turn into what JSON takes: dictionaries, lists, texts, numbers, None."""
    if isinstance(value, intervals.Interval):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else None
