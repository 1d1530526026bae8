"""Small encoders and mask objects that tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Given:
    """A user's mask object: hands out given masks in order and records what it is asked for."""

    def __init__(self, *masks: Tensor) -> None:
        self.queues = [torch.as_tensor(m, dtype=torch.float64) for m in masks]
        self.asked: list[tuple[int, tuple[int, ...]]] = []

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Give the next queue's masks, one queue a call."""
        masks = self.queues[len(self.asked) % len(self.queues)]
        self.asked.append((n, tuple(shape)))
        return masks[:n]


class Bernoulli:
    """A user's mask object: independent entries."""

    def __init__(self, keep: float = 0.5) -> None:
        self.keep = keep

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ``(n, *shape)``."""
        return (torch.rand(n, *shape, generator=generator, dtype=torch.float64) < self.keep).double()


class LeaveOneOut:
    """Leave-one-group-out masks over all tensors of an input: mask
    n drops group n, counted through the tensors in tuple order.
    """

    def __init__(self) -> None:
        self.position = 0

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Give ``(n, *shape)`` with row position + g dropping entry g of this tensor."""
        size = int(torch.tensor(shape).prod())
        masks = torch.ones(n, size, dtype=torch.float64)
        for g in range(size):
            masks[self.position + g, g] = 0
        self.position += size
        return masks.reshape(n, *shape)


def relu_encoder(features: int, size: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Any shape with `features` entries -> flat -> linear
    -> ReLU -> linear -> `size`, with fixed random weights.
    """
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(features, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return model.to(dtype).eval()


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers from a generator of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
