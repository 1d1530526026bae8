"""Trials of every registered metric on a planted model whose relevant region is known.

Oracle beats chance beats anti-oracle in the stated direction; shuffled twins score at chance; neither neighbours nor the size of the batch change a
score; a repeat gives the same. What each trial plants is stated a category; where a law has no meaning, so is why.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from relax_quantus.benchmark import methods
from relax_quantus.benchmark.methods import Method
from relax_quantus.benchmark.metrics import METRICS, Case
from relax_quantus.benchmark.metrics.remembering import Remembering
from relax_quantus.benchmark.questions import Attribution, Question, Similarities
from relax_quantus.heads import EmbeddingClassifier
from relax_quantus.similarity_model import SimilarityModel

PLANT = np.zeros((96, 64), dtype=bool)
PLANT[24:60, 16:40] = True
SHARE = float(PLANT.mean())
NOISE = np.random.default_rng(0).normal(size=(96, 64)) * 0.01
TWINS = 8


def of(*categories: str) -> list[str]:
    return [name for name in METRICS if METRICS.get(name).category in categories]


class Planted(nn.Module):
    """Embeds how far four parts of the region lie above the background's mean of 2, beside a constant."""

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
    """A mixture of a fixed map with the encoder's weights, or with noise drawn from the masks' seed."""

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
) -> Case:
    encoder = encoder or Planted()
    asked = Remembering(encoder, remember) if remember else encoder
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
    return Case(method, question, attribution, own, classifier(asked), 2, similarities)


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


@pytest.mark.parametrize("name", METRICS.names())
def test_oracle_beats_chance_beats_anti_oracle(name):
    metric = METRICS.get(name)
    *groups, encoder = trio(name)
    sign = 1 if metric.direction == "up" else -1
    oracle, chance, anti = (np.mean([sign * metric.score(case(m, encoder)).value for m in group]) for group in groups)
    assert oracle > chance > anti


CHANCE = {"AUC": 0.5, "RankAccuracy": SHARE, "TopKIntersection": SHARE, "PointingGame": SHARE, "MassAccuracy": SHARE}
NO_CHANCE = {
    "complexity": "a twin's map has its strategy's texture, and with it its complexity: no value is that of no information",
    "robustness": "a twin permutes nearly the same similarities in the same way: it is as steady as its strategy",
}


def twins(encoder: nn.Module, twin: bool) -> list[Case]:
    method = methods.resolve("RELAX-random twin" if twin else "RELAX-random")
    return [case(method, encoder, seed=seed) for seed in range(TWINS)]


@pytest.fixture(scope="module")
def strategies() -> dict[tuple[str, bool], list[Case]]:
    planted = Planted()
    made = {("planted", twin): twins(planted, twin) for twin in (True, False)}
    return {**made, ("convolutional", True): twins(convolutional(), True)}


def above_chance(name: str, cases: list[Case]) -> np.ndarray:
    """Scores less what no information scores.

    That is a number where one is known. Elsewhere no information scores the same with its map the other way round, and the difference is 0.
    """
    metric = METRICS.get(name)
    scores = np.array([metric.score(c).value for c in cases])
    if metric.category == "randomisation" or "0 at chance" in metric.range or name in CHANCE:
        return scores - CHANCE.get(name, 0.0)
    reversed_maps = (Attribution(-c.attribution.importance, -c.attribution.centred) for c in cases)
    return scores - [metric.score(replace(c, attribution=a)).value for c, a in zip(cases, reversed_maps, strict=True)]


@pytest.mark.parametrize("name", METRICS.names())
def test_shuffled_twins_score_at_chance(name, strategies):
    category = METRICS.get(name).category
    if category in NO_CHANCE:
        pytest.skip(NO_CHANCE[category])
    encoder = "convolutional" if category == "randomisation" else "planted"
    scores = above_chance(name, strategies[encoder, True])
    error = scores.std(ddof=1) / np.sqrt(TWINS)
    if name == "PointingGame":  # hits or misses
        error = np.sqrt(SHARE * (1 - SHARE) / TWINS)
    assert abs(scores.mean()) <= stats.t.ppf(0.9995, TWINS - 1) * error
    if category in ("faithfulness", "localisation"):
        informed = above_chance(name, strategies[encoder, False])
        sign = 1 if METRICS.get(name).direction == "up" else -1
        assert sign * informed.mean() > stats.t.ppf(0.975, TWINS - 1) * error, "the strategy itself is told from chance"


@pytest.fixture(scope="module")
def explained() -> tuple[nn.Module, Method, list[Attribution]]:
    encoder, method = convolutional(), methods.resolve("RELAX-time_frequency")
    return encoder, method, [case(method, encoder, x=x).attribution for x in (0, 1)]


@pytest.mark.parametrize("name", METRICS.names())
def test_neither_neighbours_nor_batch_size_nor_a_repeat_change_a_score(name, explained):
    metric, (encoder, method, maps) = METRICS.get(name), explained
    first = metric.score(case(method, encoder, attribution=maps[0])).value
    assert np.isfinite(first)
    assert metric.score(case(method, encoder, attribution=maps[0])).value == first, "a repeat"

    alone, neighbour = case(method, encoder, attribution=maps[0]), case(method, encoder, x=1, attribution=maps[1])
    metric.score(replace(neighbour, similarities=alone.similarities))
    alone.similarity_model(neighbour.question.x)
    alone.classifier(torch.cat([neighbour.question.x] * 5))
    assert metric.score(alone).value == first, "after a neighbour, in one memory with it"

    for rows in () if metric.reexplains else (None, 5):
        given = case(method, encoder, rows, attribution=maps[0])
        assert metric.score(given).value == pytest.approx(first, rel=1e-4, abs=1e-6), rows


@pytest.mark.parametrize("fresh_seeds", [False, True])
def test_examples_explained_again_do_not_know_their_neighbours(fresh_seeds, explained):
    encoder, method, maps = explained
    given = case(method, encoder, attribution=maps[0])
    both = np.concatenate([given.x, example(1).numpy()])
    alone = given.explain_func("centred", fresh_seeds)(model=given.question.model, inputs=given.x)
    together = given.explain_func("centred", fresh_seeds)(model=given.question.model, inputs=both)
    np.testing.assert_array_equal(together[:1], alone)


def test_a_map_that_is_the_same_in_every_unit_gains_exactly_nothing():
    stripes = Fixed(np.repeat(np.arange(64.0)[None], 96, axis=0))
    for view in ("SRG", "SRG-logit"):
        scores = METRICS.get(f"{view}-time-silence").score(case(stripes))
        assert scores.value == pytest.approx(0.0, abs=1e-12)
        assert scores.parts["MIF"] == pytest.approx(scores.parts["LIF"])
        assert METRICS.get(f"{view}-frequency-silence").score(case(stripes)).value != 0


def test_ties_are_averaged_over_ten_orders_only_where_they_matter():
    rough, flat = case(Fixed(PLANT.astype(float))), case(Fixed(PLANT + NOISE))
    for given, low, high in ((flat, 31, 33), (rough, 150, 311)):
        before = given.similarity_model.encoder.forwards
        METRICS.get("SRG-bin-silence").score(given)
        asked = given.similarity_model.encoder.forwards - before
        assert low - 2 <= asked <= high
        METRICS.get("SRG-logit-bin-silence").score(given)
        assert given.similarity_model.encoder.forwards - before == asked, "the other view costs nothing"


def test_parts_and_curves_make_up_the_score():
    scores = METRICS.get("SRG-patch-mean").score(case(Fixed(PLANT + NOISE)))
    assert scores.value == pytest.approx(scores.parts["LIF"] - scores.parts["MIF"])
    for order, (shares, values) in scores.curves.items():
        assert shares[0] == 0
        assert shares[-1] == 1
        assert values[0] == pytest.approx(1.0)
        assert np.trapezoid(values, shares) == pytest.approx(scores.parts[order])
