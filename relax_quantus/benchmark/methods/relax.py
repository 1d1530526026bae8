"""RELAX as a benchmark method: a mask strategy in any variant, its shuffled twin, and REPEAT.

Stands below `methods`, which gives them names. A `Question` enters, an `Attribution` leaves. A
strategy, its twin and its REPEAT share one set of encoder forwards through `Similarities`. In the
logit view the similarity is replaced by the class's logit, which makes RELAX what it came from,
RISE (Petsiuk et al., BMVC 2018, eq. 6, with the logit for the probability): the same masks,
estimator, centring and twin.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.registry import nearest
from relax_quantus.benchmark.methods.questions import (
    Attribution,
    Map,
    Method,
    NotApplicable,
    Question,
    Similarities,
    fingerprint,
)
from relax_quantus.relax.attribution import RELAX
from relax_quantus.relax.call import Call
from relax_quantus.relax.masked_forward import MaskStream
from relax_quantus.relax.masks import STRATEGIES, MaskStrategy

TWIN_STREAM = 2_654_435_761
REPEATS = 10


@dataclass(frozen=True)
class Logit:
    """A class's logit of masked embeddings in place of a similarity.

    ``(h (B, D), h_masked (M, B, D)) -> (M, B)``.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, h: Tensor, h_masked: Tensor) -> Tensor:
        """Ignore the unmasked embedding."""
        return h_masked.double() @ self.weight.double() + self.bias.double()


@dataclass(frozen=True)
class Strategy(Method):
    """RELAX with one mask strategy, or its shuffled twin.

    Attributes
    ----------
    parameters
        Of the mask strategy, beside its defaults.
    domain, estimator
        Empty for the question's.
    """

    name: str
    base: str
    masks: str
    parameters: tuple[tuple[str, Any], ...] = ()
    fill: str = ""
    edges: str = ""
    keep: float = math.nan
    own_granularity: str = ""
    domain: str = ""
    estimator: str = ""
    view: str = "embedding"
    twin_of: str = ""
    uses_fill = True

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        """Explain by RELAX at N + 1 forwards, which the twin shares."""
        asked = self.asked(question)
        relax = self.relax(asked)
        s = self.similarities(asked, relax, similarities)
        explanation = relax.estimate(asked.x, s, baselines=asked.fill, seed=asked.seed)
        return Attribution(as_map(explanation.importance), as_map(explanation.centred()))

    def forwards(self, n_samples: int) -> int:
        """Count one forward a mask and one for the reference; none for a twin."""
        return 0 if self.twin_of else n_samples + 1

    def strategy(self) -> MaskStrategy:
        """Build the mask strategy."""
        return STRATEGIES.get(self.masks, **dict(self.parameters))

    def asked(self, question: Question) -> Question:
        """Return the question with what this method names itself.

        A question without an answer in the method's view is refused.
        """
        require_view(self.view, question)
        return replace(
            question,
            fill=self.fill or question.fill,
            domain=self.domain or question.domain,
            estimator=self.estimator or question.estimator,
        )

    def relax(self, q: Question) -> RELAX:
        """Build RELAX towards the reference or, in the logit view, towards the class."""
        measure = logit_of(q) if self.view == "logit" else "cosine"
        return RELAX(q.model.encoder, self.strategy(), similarity=measure, estimator=q.estimator, domain=q.domain)

    def similarities(self, q: Question, relax: RELAX, known: Similarities) -> Tensor:
        """Return similarities ``(N, 1)``.

        A twin's are permuted in an order of the clip's and the seed's own.
        """
        towards = fingerprint(q.target, q.model.head) if self.view == "logit" else "embedding"
        s = known.get(
            f"{self.masks}{self.parameters}{towards}",
            q,
            lambda: relax.similarities(
                q.x,
                baselines=q.fill,
                n_samples=q.n_samples,
                perturbations_per_eval=q.perturbations_per_eval,
                reference=q.reference,
                seed=q.seed,
            ),
        )
        if self.twin_of:
            s = s[np.random.default_rng([q.seed, TWIN_STREAM, q.clip]).permutation(len(s))]
        return s


@dataclass(frozen=True)
class Repeat(Strategy):
    """REPEAT: how often a bin is important, over repeated runs of RELAX.

    Wickstrom et al., AAAI 2025, arXiv 2412.08513.

    Each of K runs marks the bins whose importance R is at least the run's mean, weighted by R / max
    R (eq. 3 and 5; the mean is the threshold that the paper found best); the map is the mean over
    the runs (eq. 4). The paper gives each run all N masks. Here the K runs share the N masks of
    RELAX, N / K each, one after another from one stream, so that it costs what RELAX costs and can
    be compared with it at equal forwards; a run has at least two masks, so that fewer than 2 K
    masks make fewer runs. R is the self-normalised estimate, as in the authors' code.

    Attributes
    ----------
    repeats
        K.
    """

    repeats: int = REPEATS
    shares_with: str = ""

    @property
    def family(self) -> str:
        """Return the name of RELAX with the same masks."""
        return self.shares_with

    def forwards(self, n_samples: int) -> int:
        """Return 0: REPEAT reuses RELAX's forwards."""
        return 0

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        """Explain from the similarities of RELAX with the same masks, at no forwards of its own."""
        q = self.asked(question)
        s = self.similarities(q, self.relax(q), similarities)
        if len(s) < 4:
            raise NotApplicable(f"REPEAT wants at least two runs of two masks, and there are {len(s)} masks")
        runs = min(self.repeats, len(s) // 2)
        probability = torch.zeros(q.x.shape[1:], dtype=torch.float64)
        for importance in self.runs(q, s, runs):
            if float(importance.max()) <= 0:
                raise NotApplicable("no similarity is positive, and REPEAT weighs by the largest")
            probability += (importance >= importance.mean()) * importance / importance.max() / runs
        values = as_map(probability)
        return Attribution(values, values)

    def runs(self, q: Question, s: Tensor, runs: int) -> list[Tensor]:
        """Estimate each run's importance ``(1, T, F)``, sum s M / sum M.

        Where a run keeps a bin never it is the mean similarity.
        """
        call = Call(q.x, n_samples=len(s), seed=q.seed).checked(self.strategy())
        stream, shape = MaskStream.of(call), q.x.shape[1:]
        draw, found = stream.reader(0), []
        for part in torch.tensor_split(s[:, 0].double(), runs):
            masks = draw(len(part)).double()
            masks = masks[:, 0] if stream.bound[0].by_example else masks
            kept = masks.sum(0)
            weighed = torch.tensordot(part, masks, dims=1)
            found.append(torch.where(kept > 0, weighed / kept.clamp(min=1e-12), part.mean()).expand(shape))
        return found


def logit_of(question: Question) -> Logit:
    """Return the logit of the question's class as what RELAX averages."""
    head = cast(Any, question.model).head
    return Logit(head.weight[question.target].detach().cpu(), head.bias[question.target].detach().cpu())


def require_view(view: str, question: Question) -> None:
    """Refuse a view that the question has no answer in, or the model no logits for."""
    if view and view not in question.views:
        raise NotApplicable(f"this question has no answer in the {view} view, only in the {question.views[0]} view")
    if view == "logit" and not hasattr(question.model, "head"):
        raise NotApplicable("the model has no logits")


def as_map(values: Tensor) -> Map:
    """Turn a map ``(1, 1, T, F)`` into float64 ``(T, F)``."""
    return values.detach().reshape(values.shape[-2:]).cpu().numpy().astype(np.float64)


def mask_parameters(masks: str, edges: str, keep: float, cells: str) -> tuple[tuple[str, Any], ...]:
    """Read the parameters of a mask strategy from what a method's name says.

    One that the strategy does not have is refused.
    """
    accepted = inspect.signature(STRATEGIES.factory(masks)).parameters
    given: dict[str, Any] = {}
    if edges:
        given["edges"] = edges
    if not math.isnan(keep):
        given["keep_probability"] = keep
    if cells:
        counts = cell_counts(cells)
        both = counts if len(counts) == 2 else counts * 2
        if "cells" in accepted:
            given["cells"] = both
        elif "time_stripes" in accepted:
            given["time_stripes"], given["frequency_stripes"] = both
        elif "stripes" in accepted and len(counts) == 1:
            given["stripes"] = counts[0]
        else:
            rule = "one number of stripes" if "stripes" in accepted else f"none with the masks {masks!r}"
            checks.refuse("cells", rule, repr(cells), "write for example cells=12, or leave it out")
    for key in given:
        if key not in accepted:
            spoken = {"keep_probability": "keep"}.get(key, key)
            checks.refuse(spoken, f"a setting of the masks {masks!r}", spoken, nearest(spoken, list(accepted)))
    STRATEGIES.get(masks, **given)
    return tuple(sorted(given.items()))


def cell_counts(cells: str) -> tuple[int, ...]:
    """Read the numbers in "8" or "12x8".

    Examples
    --------
    >>> cell_counts("12x8"), cell_counts("7")
    ((12, 8), (7,))
    """
    parts = cells.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        checks.refuse("cells", "rows x columns, such as 12x8, or one number", repr(cells), "write it so")
    return tuple(int(part) for part in parts)
