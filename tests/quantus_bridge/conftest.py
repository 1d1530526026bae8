"""Four examples, an encoder, and models that Quantus's metrics explain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from quantus_examples import Array, small_encoder
from torch import nn

import relax_quantus as rq
from relax_quantus.quantus_bridge import SimilarityModel, register_with_quantus, unregister_from_quantus


@pytest.fixture(scope="module")
def encoder() -> nn.Sequential:
    return small_encoder()


@pytest.fixture(scope="module")
def x() -> Array:
    """Four log-mel examples, each with a louder patch of its own."""
    x = np.random.default_rng(0).normal(-4, 0.3, size=(4, 1, 96, 64)).astype(np.float32)
    for i in range(4):
        x[i, 0, 20 * i : 20 * i + 24, 12 * i : 12 * i + 16] += 4
    return x


@pytest.fixture(scope="module")
def s(x: Array) -> Array:
    return (x > -2).astype(int)


@pytest.fixture(scope="module")
def clf(encoder: nn.Sequential, x: Array) -> rq.EmbeddingClassifier:
    many = torch.from_numpy(np.concatenate([x + 0.1 * i for i in range(4)]))
    return rq.EmbeddingClassifier.fit(encoder, many, torch.arange(16) % 4 // 2)


@pytest.fixture(scope="module")
def bank(encoder: nn.Sequential, x: Array) -> SimilarityModel:
    return SimilarityModel(encoder, encoder(torch.from_numpy(x)))


@pytest.fixture
def registered() -> Iterator[None]:
    register_with_quantus()
    yield
    unregister_from_quantus()
