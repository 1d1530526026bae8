"""Metrics on planted maps: known values, what is left as it was,
what is refused. The trials of every metric: test_metric_trials.py.
"""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from relax_quantus.benchmark.methods.questions import Attribution, NotApplicable, Question, Similarities
from relax_quantus.benchmark.methods.registry import Method
from relax_quantus.benchmark.metrics import CATEGORIES, METRICS, MetricInput, Undefined, build
from relax_quantus.benchmark.metrics.embedding_cache import CachedEncoder
from relax_quantus.benchmark.metrics.metric import global_generators
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.relax.fills import SILENCE
from relax_quantus.relax.similarity import SimilarityModel

PLANT = np.zeros((96, 64), dtype=bool)
PLANT[24:60, 16:40] = True


class Planted(nn.Module):
    """Embeds the mean level of four parts of the planted region, and, faintly, of the whole."""

    def forward(self, x: Tensor) -> Tensor:
        region = (x - SILENCE)[:, 0, 24:60, 16:40]
        parts = region.reshape(len(x), 2, 18, 2, 12).mean((2, 4)).flatten(1)
        return torch.cat([parts, torch.ones_like(parts[:, :1])], 1)


class Fixed(Method):
    """Always the same map."""

    def __init__(self, values: np.ndarray) -> None:
        self.name, self.values = "fixed", values

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        return Attribution(self.values, self.values)


class FirstLayerWeights(Fixed):
    """A map that changes with the encoder's weights."""

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        weight = next(question.model.encoder.parameters()).detach().numpy().ravel()
        values = np.resize(weight, (96, 64)).astype(np.float64)
        return Attribution(values, values)


class WeightsAndMasks(Fixed):
    """A map of the encoder's weights and of noise that is drawn anew with the masks."""

    def __init__(self, values: np.ndarray, noise: float) -> None:
        super().__init__(values)
        self.noise = noise

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        weight = next(question.model.encoder.parameters()).detach().numpy().ravel()
        drawn = np.random.default_rng(question.seed).normal(size=(96, 64))
        values = np.resize(weight / weight.std(), (96, 64)) + self.noise * drawn
        return Attribution(values, values)


def case(values: np.ndarray, method: Method | None = None, encoder: nn.Module | None = None, **changes) -> MetricInput:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 96, 64, generator=generator) * 2 + 1 + 2 * torch.from_numpy(PLANT)
    encoder = encoder or Planted()
    size = encoder(x).shape[1]
    classifier = EmbeddingClassifier.__new__(EmbeddingClassifier)
    nn.Module.__init__(classifier)
    classifier.encoder, classifier.head = encoder, nn.Linear(size, 2)
    with torch.no_grad():
        classifier.head.weight.copy_(torch.stack([torch.ones(size), -torch.ones(size)]))
        classifier.head.bias.zero_()
    classifier.eval()
    method = method or Fixed(values)
    question = Question(x, classifier, 0, truth=PLANT, **changes)
    own = SimilarityModel(encoder, encoder(x).detach()).eval()
    attribution = Attribution(values, values)
    return MetricInput(method, question, attribution, own, classifier, 3, Similarities())


NOISE = np.random.default_rng(0).normal(size=(96, 64)) * 0.01
CHANCE = np.random.default_rng(1).normal(size=(96, 64))


def test_known_values():
    perfect = case(PLANT.astype(float))
    for name in ("AUC", "RankAccuracy", "MassAccuracy"):
        assert METRICS.get(name).score(perfect).value == pytest.approx(1.0)
    one_bin = np.zeros((96, 64))
    one_bin[3, 3] = 1.0
    assert METRICS.get("Sparseness").score(case(one_bin)).value == pytest.approx(1 - 1 / 6144, abs=2e-3)
    assert METRICS.get("Complexity").score(case(one_bin)).value == pytest.approx(0.0, abs=1e-6)
    even = np.ones((96, 64))
    even[0, 0] = 1.0001
    assert METRICS.get("Complexity").score(case(even)).value == pytest.approx(np.log(6144), abs=1e-4)


def test_a_constant_explanation_is_perfectly_robust_and_not_random():
    fixed = case(PLANT + NOISE, encoder=nn.Sequential(nn.Flatten(), nn.Linear(6144, 4)))
    for name in ("LocalLipschitz", "MaxSensitivity"):
        assert METRICS.get(name).score(fixed).value == 0.0
    scores = METRICS.get("MPRT").score(fixed)
    assert scores.value == pytest.approx(0.0)
    assert list(scores.parts.values()) == pytest.approx([1.0, 1.0, 1.0])
    assert METRICS.get("MPRT-ceiling").score(fixed).value == pytest.approx(1.0)


def test_mprt_is_the_ceiling_minus_the_encoders_layers_so_that_noise_gains_nothing():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6144, 4))
    noise = np.random.default_rng(2).normal(size=(96, 64))
    found = {}
    for name, masks in (("of the weights", 0.0), ("of the weights, noisy", 1.0), ("noise", 1e6)):
        method = WeightsAndMasks(noise, masks)
        given = case(noise, method, encoder)
        given = replace(given, attribution=method.explain(given.question, given.similarities))
        scores = METRICS.get("MPRT").score(given)
        encoders = [value for layer, value in scores.parts.items() if layer.startswith("encoder")]
        assert scores.value == pytest.approx(scores.parts["original"] - np.mean(encoders))
        assert METRICS.get("MPRT-ceiling").score(given).value == pytest.approx(scores.parts["original"])
        found[name] = scores.value
    assert found["of the weights"] > 0.9 > 0.6 > found["of the weights, noisy"] > 0.3
    assert abs(found["noise"]) < 0.05, "its correlation with the map of random weights is the lowest, and says nothing"


def test_mprt_sees_new_weights_and_leaves_out_head_and_original():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6144, 4))
    values = np.resize(encoder[1].weight.detach().numpy().ravel(), (96, 64)).astype(np.float64)
    planted = case(values, FirstLayerWeights(values), encoder)
    before = encoder[1].weight.detach().clone()
    assert METRICS.get("MPRT").score(planted).value == pytest.approx(1.0, abs=0.1)
    assert METRICS.get("MPRT-ceiling").score(planted).value == pytest.approx(1.0)
    torch.testing.assert_close(encoder[1].weight.detach(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_says_what_it_is_and_leaves_everything_as_it_was(name):
    metric = METRICS.get(name)
    assert metric.category in CATEGORIES
    assert metric.direction in ("up", "down")
    assert metric.map in ("importance", "centred", "positive", "magnitude")
    given = case(PLANT + NOISE, encoder=nn.Sequential(nn.Flatten(), nn.Linear(6144, 4)))
    x, values = given.question.x.clone(), given.attribution.centred.copy()
    states = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()  # noqa: NPY002
    first = metric.score(given).value
    assert np.isfinite(first)
    assert metric.score(given).value == first, "the same case twice"
    assert torch.equal(given.question.x, x)
    np.testing.assert_array_equal(given.attribution.centred, values)
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == states[2]


def test_every_category_has_what_a_comparison_needs():
    counts = {category: sum(m.category == category for m in build(tuple(METRICS.names()))) for category in CATEGORIES}
    assert counts.pop("randomisation") >= 1
    assert min(counts.values()) >= 2


@pytest.mark.parametrize(
    ("values", "reason"), [(np.zeros((96, 64)), "0 everywhere"), (np.full((96, 64), np.nan), "NaN")]
)
def test_maps_without_an_order_are_undefined(values, reason):
    with pytest.raises(Undefined, match=reason):
        METRICS.get("PixelFlipping").score(case(values))
    with pytest.raises(Undefined, match=reason):
        METRICS.get("Sparseness").score(case(values))


def test_negative_maps_are_undefined_only_where_a_positive_map_is_read():
    below = -1.0 + PLANT * 0.5
    assert METRICS.get("AUC").score(case(below)).value == pytest.approx(1.0)
    assert METRICS.get("PixelFlipping").score(case(below)).value < 1
    with pytest.raises(Undefined, match="0 everywhere"):
        METRICS.get("MassAccuracy").score(case(below))


def test_a_map_of_either_sign_finds_the_region_by_its_size_alone():
    signs = np.where(np.random.default_rng(0).random((96, 64)) < 0.5, -1.0, 1.0)
    either, wrong = (case(values) for values in (PLANT * signs, np.where(PLANT, -1.0, 0.0)))
    for found in (either, wrong):
        assert METRICS.get("AUC-region-absolute").score(found).value == 1
        assert METRICS.get("MassAccuracy-region-absolute").score(found).value == pytest.approx(1)
    assert METRICS.get("AUC-region").score(either).value == pytest.approx(0.5, abs=0.04)
    assert METRICS.get("AUC-region").score(wrong).value == 0


def test_without_truth_localisation_does_not_apply():
    planted = case(PLANT + NOISE)
    for truth in (None, np.zeros((96, 64), dtype=bool)):
        with pytest.raises(NotApplicable):
            METRICS.get("AUC").score(replace(planted, question=replace(planted.question, truth=truth)))


def test_ties_are_broken_at_random_not_by_place():
    stripes = np.repeat(np.arange(64.0)[None], 96, axis=0)
    planted = case(stripes)
    ranks, again, other = planted.ranks()[0, 0], planted.ranks()[0, 0], planted.ranks(1)[0, 0]
    np.testing.assert_array_equal(ranks, again)
    assert not np.array_equal(ranks, other)
    assert sorted(ranks[:, 3]) == list(range(3 * 96 + 1, 4 * 96 + 1))
    assert abs(np.corrcoef(ranks[:, 3], np.arange(96))[0, 1]) < 0.4


def test_global_generators_come_back():
    def draw() -> float:
        return float(np.random.random())  # noqa: NPY002

    def interrupted() -> None:
        with global_generators(3):
            draw()
            raise RuntimeError

    before = np.random.get_state()[1].copy()  # noqa: NPY002
    with global_generators(3):
        first = draw()
    with pytest.raises(RuntimeError):
        interrupted()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    with global_generators(3):
        assert draw() == first


def test_remembered_embeddings_are_the_encoders_and_cost_nothing_twice():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6144, 4))
    remembering, x = CachedEncoder(encoder), torch.rand(5, 1, 96, 64)
    torch.testing.assert_close(remembering(x[:2]), encoder(x[:2]), check_stride=False)
    torch.testing.assert_close(remembering(x.flip(0)), encoder(x.flip(0)))
    assert remembering.forwards == 5
    assert not remembering(x).requires_grad
    copied = deepcopy(remembering)
    nn.init.zeros_(copied[1].weight)
    assert torch.equal(copied(x), copied[1].bias.expand(5, 4)), "a copy with other weights does not remember"


def test_every_forward_has_the_same_number_of_examples():
    """So that the last digits of an embedding do
    not depend on what else is asked, or was before.
    """
    sizes = []

    class Encoder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x.flatten(1)[:, :4]

    x = torch.rand(40, 1, 96, 64)
    remembering = CachedEncoder(Encoder(), rows=16)
    for asked in (x[:1], x[:20], x):
        torch.testing.assert_close(remembering(asked), asked.flatten(1)[:, :4], rtol=0, atol=0)
    assert set(sizes) == {16}
    assert remembering.forwards == 40


def test_flipping_and_subsets_are_looked_up_and_change_nothing():
    plain = case(np.abs(CHANCE))
    remembering = CachedEncoder(plain.similarity_model.encoder)
    shared = replace(plain, similarity_model=SimilarityModel(remembering, plain.similarity_model.anchors))
    for name, forwards in (("PixelFlipping", 33), ("FaithfulnessCorrelation", 50), ("SRG-patch-silence", 14)):
        before = remembering.forwards
        assert METRICS.get(name).score(shared).value == pytest.approx(METRICS.get(name).score(plain).value, abs=1e-6)
        assert remembering.forwards - before == forwards, name
    other = replace(shared, attribution=Attribution(CHANCE.T.reshape(96, 64), CHANCE.T.reshape(96, 64)))
    before = remembering.forwards
    METRICS.get("FaithfulnessCorrelation").score(other)
    assert remembering.forwards == before, "the same subsets for every method"
