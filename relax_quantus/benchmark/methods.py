"""Explanation methods under one roof: what a benchmark compares.

Fifth step of the benchmark's flow: a `Question` (an example, a model, towards what) enters; an `Attribution` leaves. RELAX methods explain the
embedding: the example's own, or `reference`. Captum's explain one output of the model: the logit of `target`, or the similarity to an anchor.
A strategy and its shuffled twin (same masks, permuted similarities) share one set of encoder forwards through `Similarities`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus import masks as mask_strategies
from relax_quantus.errors import ArgumentError
from relax_quantus.fills import FILLS, SILENCE
from relax_quantus.registry import Registry
from relax_quantus.relax import RELAX

REMEMBERED = 64
TWIN_STREAM = 2_654_435_761

Map = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Question:
    """What to explain.

    Attributes
    ----------
    x
        ``(1, 1, 96, 64)``.
    model
        A module with ``embed`` and ``encoder``: the classifier, or a similarity model.
    target
        Index of the model's output that gradient and occlusion methods explain.
    reference
        ``(D,)`` embedding towards which RELAX explains; None for the example's own.
    truth
        bool ``(96, 64)``, or None; only the oracle looks at it.
    n_samples, seed
        Masks, and what they are drawn from.
    fill, estimator
        Of RELAX; `fill` is also the others' baseline.
    """

    x: Tensor
    model: nn.Module
    target: int
    reference: Tensor | None = None
    truth: npt.NDArray[np.bool_] | None = None
    n_samples: int = 300
    seed: int = 0
    fill: str = "silence"
    estimator: str = "weighted"

    @property
    def baseline(self) -> Tensor:
        """The fill's level, broadcast to ``(1, 1, 96, 64)``."""
        return FILLS.get(self.fill).level(self.x).expand_as(self.x)


@dataclass(frozen=True, eq=False)
class Attribution:
    """A method's answer: float64 maps ``(96, 64)``. `centred` is 0 where a bin does not matter."""

    importance: Map
    centred: Map

    @property
    def positive(self) -> Map:
        """`centred`, clipped at 0."""
        return np.clip(self.centred, 0.0, None)


class NotApplicable(Exception):  # noqa: N818 - not an error: it ends up as a row's reason
    """Raised by a method that has no answer to a question, with the reason."""


def fingerprint(*values: Any) -> str:
    """SHA-256 over modules' weights, tensors' values and plain values."""
    digest = hashlib.sha256()
    for value in values:
        tensors = list(value.state_dict().values()) if isinstance(value, nn.Module) else [value]
        for entry in tensors:
            digest.update(entry.detach().cpu().contiguous().numpy().tobytes() if isinstance(entry, Tensor) else repr(entry).encode())
    return digest.hexdigest()


class Similarities:
    """Remembers the last similarities ``(N, 1)``, keyed by everything they depend on, weights included.

    Attributes
    ----------
    forwards
        Masked encoder forwards spent so far.
    """

    def __init__(self) -> None:
        self.forwards = 0
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._weights: WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], str]] = WeakKeyDictionary()

    def get(self, strategy: str, question: Question, compute: Callable[[], Tensor]) -> Tensor:
        """Return them, computed at most once while they are among the last ones."""
        q = question
        key = fingerprint(strategy, self._weights_of(q.model.encoder), q.x, q.reference, q.n_samples, q.seed, q.fill)
        if key not in self._known:
            self._known[key] = compute()
            self.forwards += q.n_samples
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _weights_of(self, encoder: Any) -> str:
        """Fingerprint of the weights, taken again only when one of them was changed in place; a plain callable is known by its identity."""
        if not isinstance(encoder, nn.Module):
            return str(id(encoder))
        versions = tuple(value._version for value in encoder.state_dict(keep_vars=True).values())
        known = self._weights.get(encoder)
        if known is None or known[0] != versions:
            known = self._weights[encoder] = (versions, fingerprint(encoder))
        return known[1]


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
        relax = RELAX(q.model.encoder, masks=self.masks, estimator=q.estimator)
        settings = {"n_samples": q.n_samples, "seed": q.seed}
        s = similarities.get(
            self.masks, q, lambda: relax.similarities(q.x, baselines=q.fill, reference=q.reference, **settings)
        )
        if self.twin_of:
            s = s[np.random.default_rng([q.seed, TWIN_STREAM]).permutation(len(s))]
        explanation = relax.estimate(q.x, s, seed=q.seed)
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
    """Captum's Occlusion by the fill: patches of 12 frames by 8 bands, half a patch apart."""
    from captum.attr import Occlusion

    with torch.no_grad():
        return _captum(
            Occlusion,
            question,
            sliding_window_shapes=(1, 12, 8),
            strides=(1, 6, 4),
            baselines=question.baseline,
            perturbations_per_eval=32,
        )


def _captum(kind: Any, question: Question, **settings: Any) -> Tensor:
    x = question.x.clone().requires_grad_(torch.is_grad_enabled())
    return torch.as_tensor(kind(question.model).attribute(x, target=question.target, **settings))


METHODS: Registry[Method] = Registry("method", "methods")


def _register_strategy(masks: str) -> None:
    name, twin = f"RELAX-{masks}", f"RELAX-{masks} twin"
    METHODS.register(name, lambda: Strategy(name, masks), f"RELAX with masks: {mask_strategies.STRATEGIES.summary(masks)}")
    METHODS.register(twin, lambda: Strategy(twin, masks, name), f"the same masks as {name}, similarities permuted: a null")


for _masks in mask_strategies.STRATEGIES.names():
    _register_strategy(_masks)
METHODS.register("energy", lambda: Simple("energy", energy, looks_at_model=False), "level above silence; ignores the model")
METHODS.register("oracle", lambda: Simple("oracle", oracle, looks_at_model=False), "the truth; synthetic calls only")
METHODS.register("Saliency", lambda: Simple("Saliency", saliency), "Captum: absolute gradient")
METHODS.register(
    "IntegratedGradients", lambda: Simple("IntegratedGradients", integrated_gradients), "Captum: from the fill, 32 steps"
)
METHODS.register("Occlusion", lambda: Simple("Occlusion", occlusion), "Captum: patches of 12 frames by 8 bands")


def build(names: tuple[str, ...]) -> list[Method]:
    """The methods of these names, once each."""
    if len(set(names)) < len(names):
        raise ArgumentError(f"methods: expected each name once, got {', '.join(names)}; remove the repeated ones.")
    return [METHODS.get(name) for name in names]
