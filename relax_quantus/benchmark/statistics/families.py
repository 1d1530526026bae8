"""Choose comparisons and their families by methods' names, never by their scores.

An `Endpoint` enters, families of `Comparison` leave, each corrected by Holm over itself. Two levels
of a factor (two strategies, two fills) are compared over the variants that agree in everything
else: "RELAX-time:fill=mean" with "RELAX-random:fill=mean". Differences of matched variants are
averaged cell by cell, so a source counts once in every comparison.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from relax_quantus.benchmark.statistics.comparisons import Comparison, compare, holm
from relax_quantus.benchmark.statistics.endpoints import Endpoint
from relax_quantus.benchmark.statistics.rows import methods

if TYPE_CHECKING:
    import pandas as pd

FACTORS = ("masks", "fill", "edges", "keep", "estimator", "kind")
TITLES = {
    "masks": "mask strategies",
    "fill": "fills",
    "edges": "edges of the masks",
    "keep": "kept fractions",
    "estimator": "estimators",
    "kind": "RELAX and REPEAT",
}
BASELINE = "energy"
MINUS_TWINS = "minus twins"
TWINS_CHECK = "strategies and their shuffled twins"


@dataclass(frozen=True)
class Variant:
    """A RELAX or REPEAT method, taken apart by its name and columns."""

    method: str
    kind: str
    masks: str
    fill: str
    edges: str
    keep: str
    estimator: str
    settings: tuple[str, ...]

    def level(self, factor: str) -> str:
        """Return its level of a factor; of masks, the strategy's name."""
        return f"{self.kind}-{self.masks}" if factor == "masks" else str(getattr(self, factor))

    def others(self, factor: str) -> tuple[str, ...]:
        """Return every setting of a method but the factor."""
        who = {"masks": (self.kind,), "kind": (self.masks,)}.get(factor, (self.kind, self.masks))
        return (*who, *(s for s in self.settings if not s.startswith(f"{factor}=")))


@dataclass(frozen=True)
class Family:
    """Comparisons that are corrected together.

    An end point's role, if it has one, is that of the `main` ones.
    """

    name: str
    comparisons: list[Comparison]
    main: bool = False


def settings(method: str) -> tuple[str, ...]:
    """Return the settings that a method's name gives after its colon, sorted.

    Examples
    --------
    >>> settings("RELAX-time:keep=0.3,fill=mean"), settings("energy")
    (('fill=mean', 'keep=0.3'), ())
    """
    return tuple(sorted(part for part in method.partition(":")[2].split(",") if part))


def variants(rows: pd.DataFrame) -> list[Variant]:
    """List the methods with masks, without twins, in order of appearance."""
    chosen = set(methods(rows, ranked=True))
    facts = rows[rows.method.isin(chosen) & (rows.masks != "")].drop_duplicates("method")
    return [
        Variant(r.method, r.base.partition("-")[0], r.masks, r.fill, r.edges, r.keep, r.estimator, settings(r.method))
        for r in cast("Iterable[Any]", facts.itertuples())
    ]


def towards(found: list[Variant], view: str) -> list[Variant]:
    """Select the methods that explain what is evaluated.

    For the logit, methods of ``view=logit`` where there are any.
    """
    logit = [v for v in found if "view=logit" in v.settings]
    if view == "logit" and logit:
        return logit
    return [v for v in found if v not in logit]


def matches(found: Iterable[Variant], factor: str) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Map (level a, level b) to the pairs of methods that differ in this factor alone."""
    table: dict[str, dict[tuple[str, ...], str]] = {}
    for variant in found:
        if variant.level(factor):
            table.setdefault(variant.level(factor), {}).setdefault(variant.others(factor), variant.method)
    made = {}
    for a, b in itertools.combinations(table, 2):
        pairs = [(table[a][key], table[b][key]) for key in table[a] if key in table[b]]
        if pairs:
            made[a, b] = pairs
    return made


def averaged(
    endpoint: Endpoint, pairs: list[tuple[str, str]], minus_twins: bool = False
) -> tuple[Any, int, tuple[str, ...]]:
    """Average the pairs' differences by cell, then by source.

    With the fewest evaluators of any pair, and the granularities of all.

    Pairs without any evaluator do not count.
    """
    import pandas as pd

    found = [endpoint.difference_of_cells(a, b, minus_twins) for a, b in pairs]
    usable = [(cells, evaluators) for cells, evaluators in found if evaluators and cells.notna().any()]
    if not usable:
        return [], 0, ()
    cells = pd.concat([cells for cells, _ in usable], axis=1).mean(axis=1, skipna=False)
    units = dict.fromkeys(e.split(" / ")[0] for _, on in usable for e in on)
    fewest = min(len(on) for _, on in usable)
    return endpoint.by_source(cells), fewest, () if endpoint.single else tuple(units)


def factors(endpoint: Endpoint, view: str, seed: int = 0) -> list[Family]:
    """Make a family for each factor of which there are two levels.

    Strategies also among the explainers of each fill, where there are several.

    The main ones, strategies and fills over all variants, compare scores as they are. They are
    given once more minus twins: a twin is expected to score the same whatever its masks, so that
    its draws add noise to a difference and nothing else.
    """
    found = towards(variants(endpoint.rows), view)
    relax = [v for v in found if v.kind == "RELAX"]
    fills = list(dict.fromkeys(v.fill for v in relax))
    chosen = [(TITLES[factor], factor, found if factor == "kind" else relax) for factor in FACTORS]
    if len(fills) > 1:
        chosen[1:1] = [(f"{TITLES['masks']}, fill {f}", "masks", [v for v in relax if v.fill == f]) for f in fills]
    main = [TITLES["masks"], TITLES["fill"]]
    made = [
        Family(title, family(endpoint, matches(among, factor), seed), title in main) for title, factor, among in chosen
    ]
    if any(v.method in endpoint.twins for v in relax):
        again = [(title, factor, among) for title, factor, among in chosen if title in main]
        made += [
            Family(f"{title}, {MINUS_TWINS}", family(endpoint, matches(among, factor), seed, True))
            for title, factor, among in again
        ]
    return [f for f in made if f.comparisons]


def family(
    endpoint: Endpoint, pairs: dict[tuple[str, str], list[tuple[str, str]]], seed: int, minus_twins: bool = False
) -> list[Comparison]:
    """Compare levels over their matched variants, corrected together."""
    return holm([_compared(endpoint, a, b, matched, seed, minus_twins) for (a, b), matched in pairs.items()])


def _compared(
    endpoint: Endpoint, a: str, b: str, pairs: list[tuple[str, str]], seed: int, minus_twins: bool = False
) -> Comparison:
    differences, evaluators, units = averaged(endpoint, pairs, minus_twins)
    found = compare(a, b, differences, smallest=endpoint.smallest, evaluators=evaluators, seed=seed)
    return replace(found, units=units)


def against_nulls(endpoint: Endpoint, view: str, seed: int = 0) -> list[Family]:
    """Compare each strategy with its shuffled twin and with the clip's energy.

    The twin checks that the strategy knows anything.
    """
    strategies: dict[str, list[Variant]] = {}
    for variant in towards(variants(endpoint.rows), view):
        strategies.setdefault(variant.level("masks"), []).append(variant)
    twins, energy = [], []
    for name, mine in strategies.items():
        pairs = [(v.method, endpoint.twins[v.method]) for v in mine if v.method in endpoint.twins]
        if pairs:
            twins.append(_compared(endpoint, name, "its shuffled twin", pairs, seed))
        if BASELINE in endpoint.methods:
            energy.append(_compared(endpoint, name, BASELINE, [(v.method, BASELINE) for v in mine], seed))
    named = ((TWINS_CHECK, twins), ("strategies and plain energy", energy))
    return [Family(name, holm(family)) for name, family in named if family]
