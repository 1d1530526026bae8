"""`Groups`: masks over the groups of a Captum feature mask, each group kept or replaced as one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.torch_state import neutral_torch


@dataclass(frozen=True)
class Groups:
    """Independent groups: geometry comes from the caller's feature mask, so the strategy's own cells do not apply.

    Parameters
    ----------
    keep_probability
        Probability of keeping a group.
    """

    keep_probability: float = 0.5

    def __post_init__(self) -> None:
        checks.fraction("keep_probability", self.keep_probability)

    @neutral_torch()
    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the next `n` masks ``(n, *shape)`` of zeros and ones; `shape` is (groups,)."""
        uniform = torch.rand(n, math.prod(shape), generator=generator, device=generator.device, dtype=torch.float32)
        return (uniform < self.keep_probability).float().reshape(n, *shape)
