"""Trials of every registered metric on a planted model whose relevant region is known.

Oracle beats chance beats anti-oracle in the stated direction; shuffled twins score at chance;
neither neighbours nor the size of the batch change a score; a repeat gives the same. What each
trial plants is stated a category; where a law has no meaning, so is why.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference.metric_trials import NOISE, PLANT, SHARE, Fixed, Planted, case, convolutional, example, trio
from scipy import stats
from torch import nn

from relax_quantus.benchmark.methods import registry as methods
from relax_quantus.benchmark.methods.questions import Attribution
from relax_quantus.benchmark.methods.registry import Method
from relax_quantus.benchmark.metrics import METRICS, MetricInput
from relax_quantus.benchmark.metrics.metric import Undefined
from relax_quantus.relax.masks import STRATEGIES

TWINS, FEW = 24, 8
"""How many twins are scored; few where each score explains again."""


def of(*categories: str) -> list[str]:
    return [name for name in METRICS if METRICS.get(name).category in categories]


@pytest.mark.parametrize("name", METRICS.names())
def test_oracle_beats_chance_beats_anti_oracle(name):
    metric = METRICS.get(name)
    *groups, encoder = trio(name)
    sign = 1 if metric.direction == "up" else -1
    oracle, chance, anti = (np.mean([sign * metric.score(case(m, encoder)).value for m in group]) for group in groups)
    assert oracle > chance > anti


CHANCE = {"AUC": 0.5, "RankAccuracy": SHARE, "TopKIntersection": SHARE, "PointingGame": SHARE, "MassAccuracy": SHARE}
CHANCE |= {"AUC-region": 0.5, "AUC-region-absolute": 0.5, "MassAccuracy-region-absolute": SHARE}
NO_CHANCE = {
    "complexity": "a twin's map has its strategy's texture, and with it its complexity: no value is that of no information",
    "robustness": "a twin permutes nearly the same similarities in the same way: it is as steady as its strategy",
}


def twins(encoder: nn.Module, twin: bool) -> list[MetricInput]:
    method = methods.resolve("RELAX-random twin" if twin else "RELAX-random")
    return [case(method, encoder, seed=seed) for seed in range(TWINS if twin else FEW)]


@pytest.fixture(scope="module")
def strategies() -> dict[tuple[str, bool], list[MetricInput]]:
    planted = Planted()
    made = {("planted", twin): twins(planted, twin) for twin in (True, False)}
    return {**made, ("convolutional", True): twins(convolutional(), True)}


def above_chance(name: str, cases: list[MetricInput]) -> np.ndarray:
    """Scores less what no information scores.

    That is a number where one is known. Elsewhere no information scores the same with its map the
    other way round, and the difference is 0.
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
    n = FEW if category == "randomisation" else TWINS
    scores = above_chance(name, strategies[encoder, True][:n])
    error = scores.std(ddof=1) / np.sqrt(n)
    if name == "PointingGame":  # hits or misses
        error = np.sqrt(SHARE * (1 - SHARE) / n)
    assert abs(scores.mean()) <= stats.t.ppf(0.995, n - 1) * error
    if category in ("faithfulness", "localisation"):
        informed = above_chance(name, strategies[encoder, False])
        sign = 1 if METRICS.get(name).direction == "up" else -1
        assert sign * informed.mean() > stats.t.ppf(0.975, n - 1) * error, "the strategy itself is told from chance"


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

    for rows in (None, 5):
        given = case(method, encoder, rows, attribution=maps[0])
        if metric.reexplains:  # what goes through together there are masked copies
            given = replace(given, question=replace(given.question, perturbations_per_eval=rows or 40))
        assert metric.score(given).value == pytest.approx(first, rel=1e-4, abs=1e-6), rows


@pytest.mark.parametrize("name", ["MPRT", "EfficientMPRT"])
def test_a_map_that_is_negative_everywhere_scores_as_the_same_map_lifted(name):
    encoder, inner = convolutional(), methods.resolve("RELAX-time_frequency")

    class Lowered(Method):
        name = "lowered"

        def explain(self, question, similarities):
            found = inner.explain(question, similarities)
            return replace(found, centred=found.centred - found.centred.max() - 0.01)

    metric = METRICS.get(name)
    assert (case(Lowered(), encoder).attribution.centred < 0).all()
    found, wanted = (metric.score(case(method, encoder)).value for method in (Lowered(), inner))
    assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("fresh_seeds", [False, True])
def test_examples_explained_again_do_not_know_their_neighbours(fresh_seeds, explained):
    encoder, method, maps = explained
    given = case(method, encoder, attribution=maps[0])
    both = np.concatenate([given.x, example(1).numpy()])
    alone = given.explain_func("centred", fresh_seeds)(model=given.question.model, inputs=given.x)
    together = given.explain_func("centred", fresh_seeds)(model=given.question.model, inputs=both)
    np.testing.assert_array_equal(together[:1], alone)


def test_a_map_that_is_the_same_in_every_unit_is_not_judged_by_these_units():
    stripes = Fixed(np.repeat(np.arange(64.0)[None], 96, axis=0))
    for view in ("SRG", "SRG-logit"):
        given = case(stripes)
        before = given.similarity_model.encoder.forwards
        with pytest.raises(Undefined, match="the map is the same in every time stripe: it cannot rank them"):
            METRICS.get(f"{view}-time-silence").score(given)
        assert given.similarity_model.encoder.forwards == before
        assert METRICS.get(f"{view}-frequency-silence").score(given).value != 0


@pytest.mark.parametrize("masks", STRATEGIES.names())
def test_what_a_strategys_maps_can_rank_is_measured_and_follows_from_its_masks(masks):
    """No list says which units a strategy can rank:
    its maps vary over an axis exactly if its masks do.
    """
    drawn = methods.resolve(f"RELAX-{masks}").strategy().sample(2, (1, 96, 64), torch.Generator().manual_seed(0))
    shape = (1, 1, 1, 1, *drawn.shape)
    for name in (f"RELAX-{masks}", f"RELAX-{masks} twin"):
        given = case(methods.resolve(name), convolutional())
        for unit, varies in (("time", shape[-2] > 1), ("frequency", shape[-1] > 1), ("bin", True), ("patch", True)):
            metric = METRICS.get(f"SRG-{unit}-mean")
            if varies:
                assert np.isfinite(metric.score(given).value), (name, unit)
            else:
                with pytest.raises(Undefined, match=f"in every {unit} stripe"):
                    metric.score(given)


@pytest.mark.parametrize("view", ["SRG", "SRG-logit"])
def test_the_fall_is_that_of_the_whole_example_replaced_whatever_the_map(view):
    falls = [METRICS.get(f"{view}-{u}-silence").score(case(Fixed(m))).parts["fall"]
             for u in ("bin", "patch", "time", "frequency") for m in (PLANT + NOISE, NOISE - PLANT)]  # fmt: skip
    given = case(Fixed(PLANT + NOISE))
    model, target = (given.similarity_model, 0) if view == "SRG" else (given.classifier, given.question.target)
    whole, none = (float(model(x)[0, target]) for x in (given.question.x, torch.full((1, 1, 96, 64), math.log(0.01))))
    np.testing.assert_allclose(falls, whole - none, rtol=1e-5)
    assert falls[0] > 0


def test_ties_are_averaged_over_ten_orders_only_where_they_matter():
    rough, flat = case(Fixed(PLANT.astype(float))), case(Fixed(PLANT + NOISE))
    for given, low, high in ((flat, 15, 17), (rough, 70, 151)):
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
