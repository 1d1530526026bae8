"""A model whose relevant region is planted, and maps that are
right, know nothing and are wrong: what metrics are tried on.

The trials (``test_metric_trials.py``) want oracle before chance before anti-oracle; the
documentation draws their scores.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from relax_quantus.benchmark.methods.questions import Attribution, Question, Similarities
from relax_quantus.benchmark.methods.registry import Method
from relax_quantus.benchmark.metrics import METRICS, MetricInput
from relax_quantus.benchmark.metrics.embedding_cache import CachedEncoder
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.relax.similarity import SimilarityModel

PLANT = np.zeros((96, 64), dtype=bool)
PLANT[24:60, 16:40] = True
SHARE = float(PLANT.mean())
NOISE = np.random.default_rng(0).normal(size=(96, 64)) * 0.01


class Planted(nn.Module):
    """Embeds how far four parts of the region lie above
    the background's mean of 2, beside a constant.
    """

    def forward(self, x: Tensor) -> Tensor:
        parts = (x[:, 0, 24:60, 16:40] - 2).reshape(len(x), 2, 18, 2, 12).mean((2, 4)).flatten(1).clamp(min=0)
        return torch.cat([parts, torch.ones_like(parts[:, :1])], 1)


def example(seed: int = 0) -> Tensor:
    """Noise around 2, the planted region 2 louder, ``(1, 1, 96, 64)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 1, 96, 64, generator=generator) * 2 + 1 + 2 * torch.from_numpy(PLANT)


def convolutional() -> nn.Module:
    """A small encoder whose last digits depend on the size of the batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 8, 8, 6), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 6))
        return nn.Sequential(*layers).eval()


class Fixed(Method):
    """Always the same map."""

    def __init__(self, values: np.ndarray) -> None:
        self.name, self.values = "fixed", values

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        return Attribution(self.values, self.values)


class Follows(Fixed):
    """The region, changed in proportion to how far the input is from the example."""

    def __init__(self, gain: float) -> None:
        super().__init__(PLANT + NOISE)
        self.gain = gain

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        values = self.values + self.gain * (question.x - example())[0, 0].numpy()
        return Attribution(values, values)


class OfWeights(Fixed):
    """A mixture of a fixed map with the encoder's
    weights, or with noise drawn from the masks' seed.
    """

    def __init__(self, fixed: float, weights: float = 0.0, noise: float = 0.0) -> None:
        super().__init__(PLANT + NOISE)
        self.parts = fixed, weights, noise

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        weight = next(question.model.encoder.parameters()).detach().numpy().ravel()
        others = np.resize(weight / weight.std(), (96, 64)), np.random.default_rng(question.seed).normal(size=(96, 64))
        values = sum(share * part for share, part in zip(self.parts, (self.values, *others), strict=True))
        return Attribution(values, values)


class Loses(Fixed):
    """One map for the trained weights, another for any other."""

    def __init__(self, values: np.ndarray, other: np.ndarray, encoder: nn.Module) -> None:
        super().__init__(values)
        self.other, self.trained = other, next(encoder.parameters()).detach().clone()

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        same = torch.equal(next(question.model.encoder.parameters()), self.trained)
        values = self.values if same else self.other
        return Attribution(values, values)


def case(
    method: Method,
    encoder: nn.Module | None = None,
    remember: int | None = 16,
    seed: int = 0,
    x: int = 0,
    attribution: Attribution | None = None,
) -> MetricInput:
    encoder = encoder or Planted()
    asked = CachedEncoder(encoder, remember) if remember else encoder
    size = encoder(example()).shape[1]
    weight = torch.stack([torch.ones(size), torch.zeros(size)])
    bias = torch.tensor([-8.4, 0.0])  # the class is lost when a seventeenth of the region's level is

    def classifier(encoder: nn.Module) -> EmbeddingClassifier:
        made = EmbeddingClassifier.__new__(EmbeddingClassifier)
        nn.Module.__init__(made)
        made.encoder, made.head = encoder, nn.Linear(size, 2)
        made.head.weight.data, made.head.bias.data = weight, bias
        return made.eval()

    question = Question(example(x), classifier(encoder), 0, truth=PLANT, n_samples=40, seed=seed, clip=seed)
    similarities = Similarities()
    own = SimilarityModel(asked, asked(example(x)).detach()).eval()
    attribution = attribution or method.explain(question, similarities)
    return MetricInput(method, question, attribution, own, classifier(asked), 2, similarities)


def chance_maps(n: int) -> list[Method]:
    return [Fixed(np.random.default_rng(seed).normal(size=(96, 64))) for seed in range(1, 1 + n)]


def trio(name: str) -> tuple[list[Method], list[Method], list[Method], nn.Module]:
    """Oracles, chance and anti-oracles of a metric, and the encoder that they explain."""
    category, weights = METRICS.get(name).category, nn.Sequential(nn.Flatten(), nn.Linear(6144, 4))
    if category in ("faithfulness", "localisation"):
        return (
            [Fixed(PLANT + NOISE)],
            chance_maps(24 if category == "localisation" else 8),
            [Fixed(1.0 - PLANT + NOISE)],
            Planted(),
        )
    if category == "complexity":  # says nothing of right and wrong: a bin is simpler than a region than everything
        one = np.zeros((96, 64))
        one[30, 30] = 1
        return [Fixed(one)], [Fixed(PLANT + 0.0)], [Fixed(1 + NOISE)], Planted()
    if category == "robustness":  # a map that does not move, moves a little, moves much
        return [Follows(0.0)], [Follows(0.05)], [Follows(0.5)], Planted()
    if name == "MPRT":  # a map of the weights, half of them, none of them
        return [OfWeights(0, 1)], [OfWeights(1, 0.2)], [OfWeights(1)], weights
    if name == "MPRT-ceiling":  # no noise from the masks, some, only noise
        return [OfWeights(1)], [OfWeights(1, noise=0.2)], [OfWeights(0, noise=1)], weights
    if name == "EfficientMPRT":  # structure lost with the weights, nothing lost, structure won
        noise = np.random.default_rng(2).normal(size=(96, 64))
        pairs = ((PLANT + NOISE, noise), (noise, noise), (noise, PLANT + NOISE))
        return (*([Loses(a, b, weights)] for a, b in pairs), weights)
    raise AssertionError(f"{name}: a new metric needs an oracle, a chance and an anti-oracle here")


def names(metric: str) -> tuple[str, str, str]:
    """What the three of `trio` are called."""
    category = METRICS.get(metric).category
    if category == "complexity":
        return "one bin", "a region", "everything"
    if category == "robustness":
        return "does not move", "moves a little", "moves much"
    return {
        "MPRT": ("all of the weights", "partly of the weights", "ignores the weights"),
        "MPRT-ceiling": ("no noise of masks", "some noise", "noise alone"),
        "EfficientMPRT": ("loses its structure", "keeps it", "gains structure"),
    }.get(metric, ("oracle", "chance", "anti-oracle"))
