"""An encoder that fine-tuning makes better, and examples to tune it on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from relax_quantus.heads.holding_out import Labelled

T, F = 16, 8
FAST = {"learning_rate": 1e-2}


class Deaf(nn.Module):
    """An encoder that hears the level of one band well and
    the pattern that tells the classes apart hardly at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, (1, F)), nn.BatchNorm2d(6), nn.ReLU())
        self.dropout = nn.Dropout(0.1)
        self.embeddings = nn.Linear(6, 4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            self.embeddings.weight[:, 1:] *= 0.05

    def forward(self, x: Tensor) -> Tensor:
        return self.embeddings(self.dropout(self.features(x).mean((2, 3))))


def data(n: int = 96, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Two classes that differ in whether band 2 and
    band 5 go up and down together; groups of four.
    """
    generator = torch.Generator().manual_seed(seed)
    x = 0.1 * torch.randn(n, 1, T, F, generator=generator)
    y = torch.arange(n) // 4 % 2
    beat = torch.randn(n, T, generator=generator).sign()
    x[:, 0, :, 2] += beat
    x[:, 0, :, 5] += beat * (2 * y[:, None] - 1)
    return x, y, torch.arange(n) // 4


def labelled(labels: list[int], codes: list[int], clips: list[int] | None = None) -> Labelled:
    n = len(labels)
    names = [f"class{c}" for c in range(max(labels) + 1)]
    return Labelled(
        torch.zeros(n), np.array(labels), np.array(codes), np.arange(n) if clips is None else np.array(clips), names
    )
