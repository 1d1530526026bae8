"""Define what a metric is and what it is given.

A `MetricInput` (one clip, one method, its maps, a way to explain again) enters a metric's
`measure`; one number, or `Scores` with parts and curves, leaves. `Metric` declares what it is:
category, direction as it really is, range, source, cost, which map, question, view and fill it
uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus.benchmark.global_generators import global_generators as global_generators
from relax_quantus.benchmark.methods.questions import Attribution, Map, Question, Similarities
from relax_quantus.benchmark.methods.registry import Method
from relax_quantus.frontend.examples import like

Values = npt.NDArray[np.float64]

CATEGORIES = ("faithfulness", "localisation", "robustness", "complexity", "randomisation")
ARROWS = {"up": "↑", "down": "↓"}


class Undefined(Exception):  # noqa: N818 - not an error: it ends up as a row's reason
    """Raised by a metric that is not defined for a map, with the reason."""


@dataclass(frozen=True, eq=False)
class MetricInput:
    """One clip explained by one method.

    Attributes
    ----------
    method
        What explained.
    question
        What was asked: the example's own embedding and predicted class, or, for localisation, the
        clean stem.
    attribution
        The answer.
    similarity_model
        ``x -> (B, 1)`` cosine to the example's own embedding.
    classifier
        ``x -> (B, classes)`` logits. Both remember what they embedded: for changed inputs, not for
        changed weights or gradients.
    perturbations
        Perturbed copies in robustness metrics.
    similarities
        Shared by a strategy and its twin.
    """

    method: Method
    question: Question
    attribution: Attribution
    similarity_model: nn.Module
    classifier: nn.Module
    perturbations: int
    similarities: Similarities

    @property
    def x(self) -> npt.NDArray[np.float32]:
        """Return the example, a fresh array ``(1, 1, T, F)``."""
        return self.question.x.detach().cpu().numpy().copy()

    def map(self, kind: str) -> Map:
        """Return a fresh copy of the map ``(1, 1, T, F)``.

        `kind` is "importance", "centred", "positive" or "magnitude".

        Raises
        ------
        Undefined
            If it is not finite or the same everywhere: nothing is ranked above anything.
        """
        return usable(getattr(self.attribution, kind))

    def ranks(self, draw: int = 0) -> Map:
        """Rank the bins of the centred map ``(1, 1, T, F)``, 1 the least.

        Ties are in random order, another order for each `draw`.
        """
        values = self.map("centred").reshape(-1)
        order = np.lexsort((np.random.default_rng([self.question.seed, 11, draw]).random(values.size), values))
        ranks = np.empty(values.size)
        ranks[order] = np.arange(1, values.size + 1)
        return ranks.reshape(1, 1, *self.attribution.centred.shape)

    def explain_func(self, kind: str, fresh_seeds: bool = False) -> Callable[..., Map]:
        """Make a Quantus explain function for this method, with the question's settings.

        Parameters
        ----------
        kind
            Which map.
        fresh_seeds
            Draw other masks at every call (the same series for a strategy and its twin); else the
            same masks at all.
        """
        calls = 0

        def explain(*, model: Any, inputs: npt.NDArray[np.floating], targets: Any = None, **_: Any) -> Map:
            nonlocal calls
            calls += fresh_seeds
            seed = self.question.seed + 7919 * calls
            maps = []
            for x in np.asarray(inputs, dtype=np.float32):
                asked = replace(
                    self.question, x=like(torch.from_numpy(x)[None], self.question.x), model=model, seed=seed
                )
                maps.append(usable(getattr(self.method.explain(asked, self.similarities), kind)))
            return np.concatenate(maps)

        return explain


def usable(values: Map) -> Map:
    """Return a fresh ``(1, 1, T, F)`` copy of a finite map that varies; else `Undefined`."""
    if not np.isfinite(values).all():
        raise Undefined("the map has NaN or infinite entries")
    if np.ptp(values) == 0:
        raise Undefined(f"the map is {values.flat[0]:.3g} everywhere")
    return values[None, None].copy()


def no_explanations(perturbations: int) -> int:
    """Return 0, for a metric that makes no map anew."""
    return 0


@dataclass(frozen=True)
class Scores:
    """The scores that a metric found.

    Attributes
    ----------
    value
        The score: what is compared and ranked.
    parts
        Named pieces of it, reported and never ranked: "MIF" and "LIF" (most- and
        least-influential-first), a layer.
    curves
        Order -> (shares removed 0 to 1, model output), both ``(steps + 1,)``.
    """

    value: float
    parts: dict[str, float] = field(default_factory=dict)
    curves: dict[str, tuple[Values, Values]] = field(default_factory=dict)


VIEWS = {
    "embedding": "similarity to own embedding",
    "logit": "predicted class's logit",
    "probability": "class probability",
    "": "nothing",
}
"""View -> what changed examples are scored by."""
GRANULARITIES = ("bin", "patch", "time", "frequency", "")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric: its name, how it is computed and how its scores are read.

    Attributes
    ----------
    name, category
        As printed; one of `CATEGORIES`.
    direction
        "up" or "down": which way is better, as measured, whatever Quantus declares.
    measure
        ``MetricInput -> float | Scores``; `score` gives `Scores` either way.
    map
        "importance", "centred", "positive" or "magnitude": the map it reads.
    question
        "own": the example's own embedding (Captum's: the predicted class); "stem": towards the
        clean call.
    view
        What changed examples are scored by: a key of `VIEWS`, "" if the metric changes none.
    granularity
        What is removed at a time, "bin", "patch", "time" or "frequency" stripe; "" if nothing is,
        or segments of the input's own.
    evaluator_fill
        Name of the fill that it puts in; "" if none.
    range
        Of its values, in words or as an interval.
    configuration
        The settings that its value depends on.
    source
        Whose it is.
    formula
        How its value comes about, in LaTeX.
    quantus
        The class of Quantus that it computes, or repairs; "" if none.
    forwards
        Encoder forwards a clip outside the explainer, at most, without ties in the map; what other
        metrics have embedded costs nothing again.
    explanations
        Maps a clip made anew, from ``config.perturbations``.
    reexplains
        Whether it explains again and again: then it runs on fewer clips, with fewer masks.
    """

    name: str
    category: str
    direction: str
    measure: Callable[[MetricInput], float | Scores]
    map: str = "centred"
    question: str = "own"
    view: str = ""
    granularity: str = ""
    evaluator_fill: str = ""
    range: str = "(-inf, inf)"
    configuration: str = ""
    source: str = ""
    formula: str = ""
    quantus: str = ""
    forwards: int = 0
    explanations: Callable[[int], int] = no_explanations
    reexplains: bool = False

    @property
    def heading(self) -> str:
        """Return the name and the better direction."""
        return f"{self.name} {ARROWS[self.direction]}"

    @property
    def evaluated_on(self) -> str:
        """Say what it scores changed examples by."""
        return VIEWS[self.view]

    def score(self, given: MetricInput) -> Scores:
        """Measure; a metric that gives one number gives `Scores` without parts."""
        found = self.measure(given)
        return found if isinstance(found, Scores) else Scores(float(found))


PERTURBATIONS = 3
"""Perturbed copies that the printed cost supposes."""


def cost(metric: Metric) -> str:
    """Say how many encoder forwards, or maps made anew, a clip costs."""
    made = metric.explanations(PERTURBATIONS)
    if metric.category == "robustness":
        return f"{made} maps anew with {PERTURBATIONS} copies"
    return f"{made} maps anew" if made else f"{metric.forwards} forwards" if metric.forwards else "no forwards"


def summary(metric: Metric) -> str:
    """Describe a metric in one line: category, direction, range, configuration, cost, source."""
    better = "higher" if metric.direction == "up" else "lower"
    of = "" if metric.quantus in ("", metric.name) else f"; {metric.quantus} in Quantus"
    return f"{metric.category}, {better} is better, {metric.range}; {metric.configuration}; {cost(metric)} ({metric.source}{of})"


QUANTUS_COMMON: dict[str, Any] = {
    "abs": False,
    "normalise": True,
    "normalise_func_kwargs": {"normalise_axes": (1, 2, 3)},
    "return_aggregate": False,
    "disable_warnings": True,
    "display_progressbar": False,
}


def scalar(values: Any) -> float:
    """Return the one score of a one-example batch."""
    return float(np.asarray(values, dtype=np.float64).reshape(-1)[0])


def outputs(model: nn.Module, x: Tensor, target: int) -> npt.NDArray[np.float64]:
    """Return model output `target` of ``(n, 1, T, F)``, shape (n,)."""
    with torch.no_grad():
        return np.asarray(model(x)[:, target].double().cpu().numpy())
