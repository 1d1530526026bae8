"""An encoder that counts its forwards, and a small batch for it."""

from __future__ import annotations

from collections.abc import Callable

from reference.models import rand, relu_encoder
from torch import Tensor

ENCODER = relu_encoder(12)
X = rand(2, 1, 4, 3)
MANY = 4000
"""So many masks that sizes are measured."""
FIELDS = ("importance", "uncertainty", "standard_error", "mean_similarity", "fully_masked_similarity", "neutral")


class Counting:
    """An encoder that notes how many rows each forward has."""

    def __init__(self, inner: Callable[[Tensor], Tensor] = ENCODER) -> None:
        self.inner, self.rows = inner, []

    def __call__(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return self.inner(x)
