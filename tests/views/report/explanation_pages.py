"""Explanations and companions with names that would
break a careless page, and what a page carries.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import torch

from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.page import Companion, Layer, Recording

HOSTILE = "<script>alert(1)</script>&\"'é.wav"


def explanation(seed: int, examples: int = 2) -> Explanation:
    """A smooth map with one hill an example, and made-up errors."""
    frame, band = torch.meshgrid(torch.arange(96.0), torch.arange(64.0), indexing="ij")
    hills = [
        torch.exp(-(((frame - 20 - 15 * seed - 20 * i) / 9) ** 2) - ((band - 15 - 10 * seed) / 7) ** 2)
        for i in range(examples)
    ]
    importance = 0.8 + 0.1 * torch.stack(hills)[:, None]
    mean = importance.mean(dim=(1, 2, 3))
    return Explanation(
        importance=importance,
        uncertainty=0.02 + 0.01 * torch.rand(importance.shape, generator=torch.Generator().manual_seed(seed)),
        standard_error=torch.full_like(importance, 0.01) + 0.01 * (band / 64),
        centred_standard_error=torch.full_like(importance, 0.002) + 0.002 * (frame / 96),
        null_maxima=torch.linspace(1, 3, 200).expand(examples, -1),
        null_statistic=torch.full((examples,), 30.0),
        mean_similarity=mean,
        fully_masked_similarity=torch.full((examples,), 0.4),
        n_samples=torch.full((examples,), 500),
        neutral=mean.reshape(-1, 1, 1, 1),
        estimator="weighted",
    )


def layers(fills: tuple[str, ...] = ("silence", "noise")) -> list[Layer]:
    return [
        Layer(strategy, fill, explanation(i + 2 * j))
        for i, strategy in enumerate(("random", "time_frequency"))
        for j, fill in enumerate(fills)
    ]


def companions(wave: np.ndarray) -> list[Companion]:
    """One recording towards which, and two that stand for what is away."""
    noise = torch.rand(1, 1, 96, 64, generator=torch.Generator().manual_seed(9))
    heard = [Recording(f"{name} {HOSTILE}", noise, wave, 16_000, "1 s") for name in ("first", "second", "third")]
    away = Companion("away", "crowd", torch.tensor([-0.25, torch.nan]), heard[1:], "and 12 more")
    return [Companion("towards", HOSTILE, torch.tensor([0.5, 0.75]), heard[:1]), away]


def payload(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    return dict(json.loads(found[1]))
