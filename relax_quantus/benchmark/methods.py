"""Explanation methods under one roof: what a benchmark compares.

Fifth step of the benchmark's flow: a `Question` (an example, a model, towards what) enters; an `Attribution` leaves. RELAX methods explain the
embedding: the example's own, or `reference`. Captum's explain one output of the model: the logit of `target`, or the similarity to an anchor.
A strategy and its shuffled twin (same masks, permuted similarities) share one set of encoder forwards through `Similarities`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from relax_quantus import masks as mask_strategies
from relax_quantus.benchmark.questions import Attribution, Map, NotApplicable, Question, Similarities
from relax_quantus.errors import ArgumentError
from relax_quantus.explanation import Explanation
from relax_quantus.fills import SILENCE
from relax_quantus.registry import Registry
from relax_quantus.relax import RELAX

TWIN_STREAM = 2_654_435_761


class Method(ABC):
    """One way of explaining.

    Attributes
    ----------
    name
        As printed.
    masks, twin_of
        Its mask strategy and, for a shuffled twin, the method it is the twin of; empty for others.
    looks_at_model
        False for methods that cannot depend on the model.
    """

    name: str
    masks: str = ""
    twin_of: str = ""
    looks_at_model: bool = True

    @abstractmethod
    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        """Answer a question.

        Raises
        ------
        NotApplicable
            If the method has no answer to such a question.
        """


@dataclass(frozen=True)
class Strategy(Method):
    """RELAX with one mask strategy, or its shuffled twin."""

    name: str
    masks: str
    twin_of: str = ""

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        """Cost: N forwards, shared with the twin."""
        q = question
        relax = RELAX(q.model.encoder, masks=self.masks, estimator=q.estimator, domain=q.domain)
        s = similarities.get(
            self.masks,
            q,
            lambda: relax.similarities(
                q.x, baselines=q.fill, n_samples=q.n_samples, reference=q.reference, seed=q.seed
            ),
        )
        if self.twin_of:
            s = s[np.random.default_rng([q.seed, TWIN_STREAM, q.clip]).permutation(len(s))]
        explanation = cast(Explanation, relax.estimate(q.x, s, baselines=q.fill, seed=q.seed))
        return Attribution(as_map(explanation.importance), as_map(explanation.centred()))


@dataclass(frozen=True)
class Simple(Method):
    """A method that is one function of the question."""

    name: str
    function: Callable[[Question], Tensor]
    looks_at_model: bool = True

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        """Its importance is its centred map."""
        values = as_map(self.function(question))
        return Attribution(values, values)


def as_map(values: Tensor) -> Map:
    """A map ``(1, 1, 96, 64)`` as float64 ``(96, 64)``."""
    return values.detach().reshape(values.shape[-2:]).cpu().numpy().astype(np.float64)


def energy(question: Question) -> Tensor:
    """How far each bin is above digital silence."""
    return question.x - SILENCE


def oracle(question: Question) -> Tensor:
    """The truth itself: 1 where the call dominates, 0 elsewhere."""
    if question.truth is None:
        raise NotApplicable("the truth is not known for this clip")
    return torch.from_numpy(question.truth.astype(np.float32))


def saliency(question: Question) -> Tensor:
    """Captum's Saliency, absolute gradient."""
    from captum.attr import Saliency

    return _captum(Saliency, question)


def integrated_gradients(question: Question) -> Tensor:
    """Captum's IntegratedGradients from the fill, 32 steps."""
    from captum.attr import IntegratedGradients

    return _captum(IntegratedGradients, question, baselines=question.baseline, n_steps=32)


def occlusion(question: Question) -> Tensor:
    """Captum's Occlusion by the fill: 64 patches of 12 frames by 8 bands side by side."""
    from captum.attr import Occlusion

    with torch.no_grad():
        return _captum(
            Occlusion,
            question,
            sliding_window_shapes=(1, 12, 8),
            strides=(1, 12, 8),
            baselines=question.baseline,
            perturbations_per_eval=32,
        )


def _captum(kind: Any, question: Question, **settings: Any) -> Tensor:
    x = question.x.clone().requires_grad_(torch.is_grad_enabled())
    return torch.as_tensor(kind(question.model).attribute(x, target=question.target, **settings))


METHODS: Registry[Method] = Registry("method", "methods")


def _register_strategy(masks: str) -> None:
    name, twin = f"RELAX-{masks}", f"RELAX-{masks} twin"
    METHODS.register(
        name, lambda: Strategy(name, masks), f"RELAX with masks: {mask_strategies.STRATEGIES.summary(masks)}"
    )
    METHODS.register(
        twin, lambda: Strategy(twin, masks, name), f"the same masks as {name}, similarities permuted: a null"
    )


for _masks in mask_strategies.STRATEGIES.names():
    _register_strategy(_masks)
METHODS.register(
    "energy", lambda: Simple("energy", energy, looks_at_model=False), "level above silence; ignores the model"
)
METHODS.register("oracle", lambda: Simple("oracle", oracle, looks_at_model=False), "the truth; synthetic calls only")
METHODS.register("Saliency", lambda: Simple("Saliency", saliency), "Captum: absolute gradient")
METHODS.register(
    "IntegratedGradients",
    lambda: Simple("IntegratedGradients", integrated_gradients),
    "Captum: from the fill, 32 steps",
)
METHODS.register("Occlusion", lambda: Simple("Occlusion", occlusion), "Captum: 64 patches of 12 frames by 8 bands")


def build(names: tuple[str, ...]) -> list[Method]:
    """The methods of these names, once each."""
    if len(set(names)) < len(names):
        raise ArgumentError(f"methods: expected each name once, got {', '.join(names)}; remove the repeated ones.")
    return [METHODS.get(name) for name in names]
