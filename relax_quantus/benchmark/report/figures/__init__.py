"""Figures of a benchmark, from its results alone.

A `report.reading.Folder` and its statistics enter, ``figures/*.png`` and ``*.pdf`` leave. Besides
`relax_quantus.views.maps` and `waveform_plotting` only this package imports matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relax_quantus.benchmark.report.figures import flipping, heat, scores, style
from relax_quantus.benchmark.report.layout import slug
from relax_quantus.benchmark.report.results_folder import Folder
from relax_quantus.benchmark.statistics import intervals, ranks
from relax_quantus.benchmark.statistics.endpoints import Endpoint, is_crossed
from relax_quantus.benchmark.statistics.rows import measured, methods, pooled
from relax_quantus.benchmark.statistics.summary import MeasuredEndpoint, measured_endpoints

if TYPE_CHECKING:
    import pandas as pd

MANY, FEW = 24, 14
PANELS = 9


def draw(found: Folder, to: Path) -> Iterator[Path]:
    """Draw every figure that the results have the numbers for."""
    main, _ = pooled(measured(found.rows))
    several = main.dataset.nunique() > 1
    for measured_endpoint in measured_endpoints(found.rows):
        name = f"{measured_endpoint.key}-{measured_endpoint.dataset}" if several else measured_endpoint.key
        for kind, made in of_endpoint(measured_endpoint, found):
            yield from style.save(made, to / f"{kind}-{slug(name)}")
    for dataset in dict.fromkeys(main.dataset):
        others = main[(main.dataset == dataset) & ~is_crossed(main)]
        for name, made in of_categories(others, dataset):
            yield from style.save(made, to / slug(f"{name}-{dataset}" if several else name))


def of_endpoint(measured_endpoint: MeasuredEndpoint, found: Folder) -> Iterator[tuple[str, Any]]:
    """Draw critical differences, heat map, curves and runtime of one end point."""
    e = measured_endpoint.endpoint
    title = f"{e.name} ({measured_endpoint.dataset})"
    names, said = style.labels(e.rows, FEW)
    ranking = ranks.rank(style.averaged(e.effects(), names))
    note = f"; {said}" if said else ""
    if ranking.pairwise is not None:
        yield "critical-difference", scores.critical_difference(ranking, title + note)
    if not e.single:
        yield "evaluators", evaluators(e, title)
        if found.curves is not None:
            strategies, _ = style.labels(e.rows, 0)
            table = flipping.by_source(found.curves, e.rows, strategies)
            if len(table):
                yield (
                    "curves",
                    flipping.draw(
                        table,
                        list(dict.fromkeys(strategies.values())),
                        measured_endpoint.view,
                        f"{title}, mean over fills of evaluator and explainer",
                    ),
                )
    if found.maps is not None:
        points = _points(e, found.maps, names)
        if len(points):
            yield "runtime", scores.runtime(points, title + note, f"{e.name.lower()} (95 % interval)")


def evaluators(e: Endpoint, title: str) -> Any:
    """Draw every method's mean over sources on every evaluator, own cells outlined."""
    import pandas as pd

    names, said = style.labels(e.rows, MANY)
    means = e.wide.groupby("source_group").mean().mean()
    chosen = [m for m in e.methods if m in names]
    order = sorted(e.evaluators, key=lambda x: (list(flipping.WORDS).index(x.split(" / ")[0]), x))
    values = pd.DataFrame(
        [[means.get((m, x), float("nan")) for x in order] for m in chosen], index=chosen, columns=order
    )
    own = pd.DataFrame([[float(x in e.own[m]) for x in order] for m in chosen], index=chosen, columns=order)
    values, own = style.averaged(values.T, names).T, style.averaged(own.T, names).T == 1
    said = f"; {said}" if said else ""
    return heat.draw(
        values, f"{title}{said}\noutlined: the method's own fill or granularity", "gain, mean over source groups", own
    )


def _points(e: Endpoint, maps: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    seconds = maps.groupby("method").seconds.median()
    made = {}
    for label in dict.fromkeys(names.values()):
        mine = [m for m in e.methods if names.get(m) == label and seconds.get(m, 0) > 0]
        levels = [e.level(m) for m in mine]
        if mine and any(len(level) for level in levels):
            found = intervals.mean(pd.concat(levels, axis=1).mean(axis=1))
            made[label] = {
                "seconds": seconds[mine].median(),
                "value": found.value,
                "low": found.low,
                "high": found.high,
            }
    return pd.DataFrame.from_dict(made, orient="index")


def of_categories(rows: pd.DataFrame, dataset: str) -> Iterator[tuple[str, Any]]:
    """Draw box plots of each category's metrics, and every method's average rank in them."""
    import pandas as pd

    names, said = style.labels(rows, FEW) if len(rows) else ({}, "")
    note = f"; {said}" if said else ""
    by_category: dict[str, list[pd.Series]] = {}
    for category, part in rows.groupby("category", sort=False):
        tables, directions = {}, {}
        for metric, mine in part.groupby("metric", sort=False):
            levels = mine[mine.method.isin(methods(mine))].groupby(["source_group", "method"], sort=False).value.mean()
            tables[str(metric)] = style.averaged(levels.unstack("method"), names)
            directions[str(metric)] = mine.direction.iloc[0]
            sign = -1 if mine.direction.iloc[0] == "down" else 1
            ranked = style.averaged(levels.unstack("method")[methods(mine, ranked=True)], names)
            by_category.setdefault(str(category), []).append((sign * ranked.mean()).rank(ascending=False))
        for i, chosen in enumerate(_panels(list(tables))):
            title = f"{str(category).capitalize()} ({dataset}), one value a source group{note}"
            made = scores.boxes({m: tables[m] for m in chosen}, directions, title)
            yield f"boxes-{category}" + (f"-{i + 1}" if i else ""), made
    if by_category:
        table = pd.DataFrame({c: pd.concat(found, axis=1).mean(axis=1) for c, found in by_category.items()})
        title = f"Average rank of the means over a category's metrics ({dataset}){note}\n1 is best; categories measure different things"
        yield "categories", heat.draw(table, title, "average rank", colours="cividis_r", digits=1)


def _panels(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), PANELS):
        yield names[start : start + PANELS]
