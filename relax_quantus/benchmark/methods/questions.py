"""Questions that methods answer, what a method is, and similarities that a twin shares.

A `Question` (an example, a model, towards what) enters a `Method`, an `Attribution` (its maps)
leaves: what methods and metrics exchange. `Similarities` remembers what the encoder has already
been run for.
"""

from __future__ import annotations

import hashlib
import math
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

from relax_quantus.base import networks
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.quantus_bridge import SimilarityModel
from relax_quantus.relax.fills import FILLS

REMEMBERED = 64
DIGITS = 16
KINDS = ("own", "stem", "region")
VIEWS = ("embedding", "logit")
OWN_GRANULARITIES = ("bin", "patch", "time", "frequency")

Map = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Question:
    """A question that a method answers with a map: what to explain, and how.

    Attributes
    ----------
    x
        ``(1, 1, T, F)``.
    model
        The classifier, for both views; or a similarity model, which has no logits. Both have an
        ``encoder``.
    target
        Index of the logit that methods in the logit view explain.
    reference
        ``(D,)`` embedding towards which methods in the embedding view explain; None for the
        example's own under `model`'s encoder.
    kind
        "own": towards the own embedding, and the predicted class; "stem": towards the clean stem's
        embedding, and the true class; "region": as "own", of an encoder that sees the region alone.
        One of `KINDS`.
    views
        Those that the question has an answer in.
    truth
        bool ``(T, F)``, or None; only the oracle looks at it.
    n_samples, seed
        Masks, and what they are drawn from.
    clip
        Number of the clip, from its name: a twin's permutation is the clip's own, and stays when
        the clip is explained again.
    fill, estimator, domain
        Of RELAX methods that do not name their own; `fill` is also the others' baseline.
    perturbations_per_eval
        Masks a forward of RELAX; None measures, and then rounding depends on what was fastest.
    """

    x: Tensor
    model: EmbeddingClassifier | SimilarityModel
    target: int
    reference: Tensor | None = None
    truth: npt.NDArray[np.bool_] | None = None
    n_samples: int = 300
    seed: int = 0
    clip: int = 0
    fill: str = "silence"
    estimator: str = "weighted"
    domain: str = "log"
    perturbations_per_eval: int | None = None
    kind: str = "own"
    views: tuple[str, ...] = VIEWS

    @property
    def baseline(self) -> Tensor:
        """The fill's level, broadcast to ``(1, 1, T, F)``."""
        return level_of(self.fill, self.x).expand_as(self.x)


def level_of(fill: str, x: Tensor) -> Tensor:
    """Return the level of a fill for examples, broadcastable to them.

    Silence is that of their front end where they say it.
    """
    silence = getattr(x, "silence", None)
    if fill == "silence" and silence is not None:
        return torch.as_tensor(silence, dtype=x.dtype, device=x.device)
    return FILLS.get(fill).level(x)


@dataclass(frozen=True, eq=False)
class Attribution:
    """A method's answer: float64 maps ``(T, F)``. `centred` is 0 where a bin does not matter."""

    importance: Map
    centred: Map

    @property
    def positive(self) -> Map:
        """Return `centred`, clipped at 0."""
        return np.clip(self.centred, 0.0, None)

    @property
    def magnitude(self) -> Map:
        """Return `centred` without its signs."""
        return np.abs(self.centred)


class Method(ABC):
    """One way of explaining.

    Attributes
    ----------
    name
        In full, as printed: the registered name and what it was given, in one order.
    base
        The registered name.
    masks, fill, edges, keep, estimator
        Its mask strategy, the fill and the estimator it names (empty: the question's), its edges,
        and what its masks keep; empty or NaN for methods without.
    uses_fill
        Whether its maps depend on a fill, so that one that names none has the question's.
    own_granularity
        What it masks at a time, one of `OWN_GRANULARITIES`: evaluators that remove the same are its
        own. Empty where it says nothing.
    twin_of
        For a shuffled twin the full name of the method that it is the null of; else empty.
    view
        "embedding" or "logit"; empty for methods that look at neither.
    looks_at_model
        False for methods that cannot depend on the model.
    family
        Full name of the method whose encoder forwards it shares, or its own.
    """

    name: str
    base: str = ""
    masks: str = ""
    fill: str = ""
    edges: str = ""
    keep: float = math.nan
    own_granularity: str = ""
    estimator: str = ""
    twin_of: str = ""
    view: str = ""
    looks_at_model: bool = True
    uses_fill: bool = False

    @abstractmethod
    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        """Answer a question.

        Raises
        ------
        NotApplicable
            If the method has no answer to such a question.
        """

    def forwards(self, n_samples: int) -> int:
        """Count the encoder forwards of one explanation, beside those of its `family`.

        A backward pass counts as two.
        """
        return 0

    @property
    def family(self) -> str:
        """Return whose encoder forwards it shares."""
        return self.twin_of or self.name


class NotApplicable(Exception):  # noqa: N818 - not an error: it ends up as a row's reason
    """Raised by a method that has no answer to a question, with the reason."""


def fingerprint(*values: Any) -> str:
    """Hash what tells modules apart, tensors' values and plain values by SHA-256."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, nn.Module):
            digest.update(str(networks.fingerprint(value) or id(value)).encode())
        elif isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


class Similarities:
    """The last similarities ``(N, 1)``, by everything they depend on, weights included.

    Attributes
    ----------
    forwards
        Masked encoder forwards spent so far.
    asked
        What was asked for, remembered or not, since this was last cleared: digest of everything it
        depends on -> its forwards.
    """

    def __init__(self) -> None:
        self.forwards = 0
        self.asked: dict[str, int] = {}
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._weights: WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], str]] = WeakKeyDictionary()

    def get(self, strategy: str, question: Question, compute: Callable[[], Tensor]) -> Tensor:
        """Return them, computed at most once while they are among the last ones.

        Parameters
        ----------
        strategy
            What masks and towards what, beside the question: two strategies of one text must have
            the same similarities.
        question, compute
            What is asked, and how it is found.
        """
        q = question
        weights = self._weights_of(q.model.encoder)
        settings = (q.n_samples, q.seed, q.fill, q.domain, q.perturbations_per_eval)
        key = fingerprint(strategy, weights, q.x, q.reference, *settings)
        self.asked[key[:DIGITS]] = q.n_samples
        if key not in self._known:
            self._known[key] = compute()
            self.forwards += q.n_samples
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _weights_of(self, encoder: Any) -> str:
        """Fingerprint the weights, again only when one of them was changed in place.

        A plain callable is known by its identity.
        """
        if not isinstance(encoder, nn.Module):
            return str(id(encoder))
        versions = tuple(value._version for value in encoder.state_dict(keep_vars=True).values())
        known = self._weights.get(encoder)
        if known is None or known[0] != versions:
            known = self._weights[encoder] = (versions, fingerprint(encoder))
        return known[1]
