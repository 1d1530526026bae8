"""Maps that no explanation should lose to, or can beat: the level of each bin, and the truth.

Alone in a file so that their cells rest on nothing of RELAX and nothing of Captum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus.benchmark.methods.questions import Attribution, Method, NotApplicable, Question, Similarities
from relax_quantus.benchmark.methods.relax import as_map
from relax_quantus.relax.fills import SILENCE


@dataclass(frozen=True)
class Simple(Method):
    """A method that is one function of the question."""

    name: str
    function: Callable[[Question], Tensor]
    looks_at_model: bool = True
    fill: str = ""

    @property
    def base(self) -> str:  # type: ignore[override]
        """Return the name: there are no variants."""
        return self.name

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        """Evaluate the function; its importance is its centred map."""
        values = as_map(self.function(question))
        return Attribution(values, values)


def energy(question: Question) -> Tensor:
    """Return how far each bin is above digital silence."""
    return question.x - SILENCE


def oracle(question: Question) -> Tensor:
    """Return the truth itself: 1 where the call dominates, 0 elsewhere."""
    if question.truth is None:
        raise NotApplicable("the truth is not known for this clip")
    return torch.from_numpy(question.truth.astype("float32"))
