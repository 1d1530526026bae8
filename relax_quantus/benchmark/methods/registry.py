"""Explanation methods under one roof: what a benchmark compares, by name.

Fifth step of the benchmark's flow: ``name`` or ``name:key=value,...`` enters, a `Method` leaves,
which answers questions. Strategies take ``fill, edges, keep, cells, domain, estimator, view``;
Captum's methods ``fill, view``; what is left out is the question's or the strategy's own. RELAX in
the embedding view explains towards the question's reference; any method with ``view=logit``
explains the class's logit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from relax_quantus.base import checks
from relax_quantus.base.registry import Registry, nearest, parse
from relax_quantus.benchmark.methods.baselines import Simple, energy, oracle
from relax_quantus.benchmark.methods.captum import CAPTUM, WITHOUT_BASELINE, CaptumMethod
from relax_quantus.benchmark.methods.questions import OWN_GRANULARITIES, VIEWS, Method
from relax_quantus.benchmark.methods.relax import REPEATS, Repeat, Strategy, as_map, mask_parameters
from relax_quantus.errors import ArgumentError, UnknownNameError
from relax_quantus.relax import masks as mask_strategies
from relax_quantus.relax.call import DOMAINS
from relax_quantus.relax.estimators import ESTIMATORS
from relax_quantus.relax.fills import FILLS

__all__ = ["METHODS", "Method", "Simple", "Strategy", "as_map", "build", "names", "resolve"]

TWIN = " twin"


METHODS: Registry[Method] = Registry("method", "methods", "relax_quantus.methods")


def full_name(base: str, settings: dict[str, Any]) -> str:
    """Write a name and its settings, each in one way.

    Examples
    --------
    >>> full_name("RELAX-time", {"fill": "mean", "keep": 0.30, "edges": ""})
    'RELAX-time:fill=mean,keep=0.3'
    """
    given = {key: value for key, value in settings.items() if value != "" and value == value}
    parts = [f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in given.items()]
    return f"{base}:{','.join(parts)}" if parts else base


def one_of(argument: str, value: object, known: list[str]) -> str:
    """Return `value` if it is empty or known; else say which is nearest."""
    if value not in ("", *known):
        checks.refuse(argument, "a known name", repr(value), nearest(str(value), known), UnknownNameError)
    return str(value)


def _strategy(
    masks: str,
    kind: str,
    twin: bool,
    fill: str,
    edges: str,
    keep: float,
    cells: object,
    domain: str,
    estimator: str,
    view: str,
    repeats: int,
) -> Method:
    """Build a strategy, its REPEAT, or the twin of either."""
    one_of("fill", fill, FILLS.names())
    one_of("domain", domain, list(DOMAINS))
    one_of("estimator", estimator, ESTIMATORS.names())
    one_of("view", view, list(VIEWS))
    if not (isinstance(keep, float) and math.isnan(keep)):
        keep = checks.fraction("keep", keep)
    edges = str(edges)
    parameters = mask_parameters(masks, edges, keep, str(cells))
    built = mask_strategies.get(masks, **dict(parameters))
    settings = {"fill": fill, "edges": edges, "keep": keep, "cells": str(cells), "domain": domain}
    named = {**settings, "estimator": estimator, "view": "" if view == VIEWS[0] else view}
    own = {**named, "repeats": repeats} if kind == "REPEAT" and repeats != REPEATS else named
    base = f"{kind}-{masks}"
    common: dict[str, Any] = {
        "name": full_name(base + TWIN if twin else base, own),
        "base": base + TWIN if twin else base,
        "masks": masks,
        "parameters": parameters,
        "fill": fill,
        "edges": edges or str(getattr(built, "edges", "")),
        "keep": float(getattr(built, "keep_probability", keep)),
        "own_granularity": one_of("granularity", getattr(built, "granularity", ""), list(OWN_GRANULARITIES)),
        "domain": domain,
        "estimator": estimator,
        "view": view,
        "twin_of": full_name(base, own) if twin else "",
    }
    if kind == "REPEAT":
        checks.integer("repeats", repeats, low=2)
        return Repeat(**common, repeats=repeats, shares_with=full_name(f"RELAX-{masks}", named))
    return Strategy(**common)


def _register_strategy(masks: str) -> None:
    """Register RELAX and REPEAT with some masks, and their twins."""

    def relax(twin: bool) -> Callable[..., Method]:
        def build(
            fill: str = "",
            edges: str = "",
            keep: float = math.nan,
            cells: str = "",
            domain: str = "",
            estimator: str = "",
            view: str = VIEWS[0],
        ) -> Method:
            return _strategy(masks, "RELAX", twin, fill, edges, keep, cells, domain, estimator, view, REPEATS)

        return build

    def repeat(twin: bool) -> Callable[..., Method]:
        def build(
            fill: str = "",
            edges: str = "",
            keep: float = math.nan,
            cells: str = "",
            domain: str = "",
            repeats: int = REPEATS,
        ) -> Method:
            return _strategy(masks, "REPEAT", twin, fill, edges, keep, cells, domain, "", VIEWS[0], repeats)

        return build

    summary = mask_strategies.STRATEGIES.summary(masks)
    for kind, make, what in (
        ("RELAX", relax, f"RELAX with masks: {summary}"),
        ("REPEAT", repeat, "how often a bin is important in 10 runs of RELAX with a tenth of the masks each"),
    ):
        name = f"{kind}-{masks}"
        METHODS.register(name, make(False), what)
        METHODS.register(name + TWIN, make(True), f"the same masks as {name}, similarities permuted: a null")


def _captum(name: str, fill: str = "", view: str = VIEWS[0]) -> Method:
    """Build one of Captum's methods."""
    one_of("fill", fill, FILLS.names())
    one_of("view", view, list(VIEWS))
    attribute, cost, _ = CAPTUM[name]
    own = full_name(name, {"fill": fill, "view": "" if view == VIEWS[0] else view})
    return CaptumMethod(own, attribute, cost, name, fill, view, uses_fill=name not in WITHOUT_BASELINE)


def _register_captum(name: str) -> None:
    def build(fill: str = "", view: str = VIEWS[0]) -> Method:
        return _captum(name, fill, view)

    METHODS.register(name, build, f"Captum: {CAPTUM[name][2]}")


def _register_all() -> None:
    """Register RELAX of every mask strategy of ours, the baselines and Captum's methods."""
    _register_masks(mask_strategies.STRATEGIES.own_names())
    METHODS.register(
        "energy",
        lambda: Simple("energy", energy, looks_at_model=False, fill="silence"),
        "level above silence; ignores the model",
    )
    METHODS.register("oracle", lambda: Simple("oracle", oracle, looks_at_model=False), "the truth, where it is known")
    for name in CAPTUM:
        _register_captum(name)


def _register_masks(names: list[str]) -> None:
    """Register strategies that are not yet; masks may be added at any time."""
    for masks in names:
        if f"RELAX-{masks}" not in METHODS.own_names():
            _register_strategy(masks)


_register_all()


def names() -> list[str]:
    """List all methods, those of other distributions and with their masks included."""
    _register_masks(mask_strategies.STRATEGIES.names())
    return METHODS.names()


def resolve(spec: str) -> Method:
    """Build the method of a specification.

    Parameters
    ----------
    spec
        Such as ``"RELAX-time:fill=mean,edges=hard,keep=0.3,cells=12"``, ``"RELAX-time
        twin:fill=mean"`` or ``"Saliency:view=logit"``.

    Raises
    ------
    UnknownNameError, ArgumentError, ArgumentTypeError
        For an unknown name or setting, with the nearest; for a value that cannot work.

    Examples
    --------
    >>> method = resolve("RELAX-random:keep=0.30,fill=mean")
    >>> method.name, method.masks, method.edges, method.keep
    ('RELAX-random:fill=mean,keep=0.3', 'random', 'smooth', 0.3)
    """
    _register_masks(mask_strategies.STRATEGIES.names())
    parsed = parse("methods", spec)
    if parsed.target is not None:
        checks.refuse("methods", "NAME or NAME:key=value,...", repr(spec), "settings are key=value")
    return METHODS.get(parsed.name, **parsed.settings)


def build(names: tuple[str, ...]) -> list[Method]:
    """Build the methods of these specifications, once each."""
    methods = [resolve(name) for name in names]
    full = [method.name for method in methods]
    if len(set(full)) < len(full):
        raise ArgumentError(f"methods: expected each name once, got {', '.join(full)}; remove the repeated ones.")
    return methods
