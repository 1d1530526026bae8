"""Methods by name: variants, twins, views, what they cost, and laws that each must obey."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.clips import Clip
from relax_quantus.benchmark.engine.cells import described
from relax_quantus.benchmark.methods.questions import NotApplicable, Question, Similarities
from relax_quantus.benchmark.methods.registry import METHODS, build, resolve
from relax_quantus.benchmark.metrics import METRICS
from relax_quantus.errors import ArgumentError, ArgumentTypeError, UnknownNameError
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.heads.logistic import CrossValidation
from relax_quantus.relax.attribution import RELAX
from relax_quantus.relax.fills import FILLS, SILENCE
from relax_quantus.relax.masks import STRATEGIES
from relax_quantus.relax.similarity import SimilarityModel

PLANT = np.zeros((96, 64), dtype=bool)
PLANT[24:60, 16:40] = True


class Planted(nn.Module):
    """Embeds mean levels of four parts of the planted
    region beside a constant; `forwards` counts examples.
    """

    forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        region = (x - SILENCE)[:, 0, 24:60, 16:40]
        parts = region.reshape(len(x), 2, 18, 2, 12).mean((2, 4)).flatten(1)
        return torch.cat([parts, torch.ones_like(parts[:, :1])], 1)


def question(n_samples: int = 64, encoder: nn.Module | None = None, **changes) -> Question:
    x = torch.rand(1, 1, 96, 64, generator=torch.Generator().manual_seed(0)) * 2 + 1
    weight = torch.tensor([[1.0, 1, 1, 1, 0], [-1.0, -1, -1, -1, 0]])
    validation = CrossValidation.__new__(CrossValidation)
    model = EmbeddingClassifier(encoder or Planted(), weight, torch.zeros(2), ("a", "b"), validation).eval()
    return Question(x, model, 0, truth=PLANT, n_samples=n_samples, perturbations_per_eval=16, **changes)


def contrast(values: np.ndarray) -> float:
    """Mean inside the plant minus mean outside, in standard deviations of the map."""
    return float((values[PLANT].mean() - values[~PLANT].mean()) / values.std())


LOOKING = [name for name in METHODS if METHODS.get(name).looks_at_model and not METHODS.get(name).twin_of]
TWINS = [name for name in METHODS if METHODS.get(name).twin_of]


@pytest.mark.parametrize("view", ["embedding", "logit"])
@pytest.mark.parametrize("name", LOOKING)
def test_every_method_finds_what_the_model_looks_at_in_both_views(name, view):
    if name.startswith("REPEAT") and view == "logit":
        with pytest.raises(ArgumentTypeError, match="view"):
            resolve(f"{name}:view=logit")
        return
    method = resolve(f"{name}:view={view}" if view == "logit" else name)
    asked = question(n_samples=120)
    found = method.explain(asked, Similarities())
    assert found.centred.shape == (96, 64)
    assert np.isfinite(found.centred).all()
    assert contrast(found.centred) > 0.3
    assert method.view == view


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_keeps_the_masks_and_knows_nothing(name):
    twin, similarities = resolve(name), Similarities()
    found = [contrast(twin.explain(question(n_samples=32, seed=s, clip=s), similarities).importance) for s in range(8)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found)) + 0.05
    assert twin.twin_of in METHODS
    assert twin.masks == METHODS.get(twin.twin_of).masks


@pytest.mark.parametrize("name", METHODS.names())
def test_nothing_outside_is_touched_and_the_same_question_has_the_same_answer(name):
    method, asked = METHODS.get(name), question(n_samples=40)
    x = asked.x.clone()
    states = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()  # noqa: NPY002
    first = method.explain(asked, Similarities()).centred
    again = method.explain(asked, Similarities()).centred
    np.testing.assert_array_equal(first, again)
    assert torch.equal(asked.x, x)
    assert not asked.x.requires_grad
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == states[2]


@pytest.mark.parametrize("name", [n for n in METHODS if n in ("GradientShap", "KernelShap", "Lime", "RELAX-random")])
def test_another_seed_draws_anew(name):
    one, other = (METHODS.get(name).explain(question(seed=s), Similarities()).centred for s in (0, 1))
    assert not np.allclose(one, other)


@pytest.mark.parametrize("name", [n for n in METHODS if not n.endswith("twin")])
def test_forwards_are_what_is_declared(name):
    encoder = Planted()
    method = METHODS.get(name)
    method.explain(question(n_samples=64, encoder=encoder), Similarities())
    if name in ("Saliency", "InputXGradient", "IntegratedGradients", "GradientShap"):
        assert encoder.forwards <= method.forwards(64) <= 3 * encoder.forwards + 3, "a backward pass counts as two"
    elif name.startswith("REPEAT"):
        assert method.forwards(64) == 0
        assert METHODS.get(method.family).masks == method.masks
    else:
        assert abs(encoder.forwards - method.forwards(64)) <= 3


def test_strategy_twin_and_repeat_share_forwards():
    encoder, similarities = Planted(), Similarities()
    family = build(("RELAX-time", "RELAX-time twin", "REPEAT-time", "REPEAT-time twin"))
    asked = question(n_samples=64, encoder=encoder)
    for method in family:
        method.explain(asked, similarities)
    assert similarities.forwards == 64
    resolve("RELAX-time:keep=0.3").explain(asked, similarities)
    resolve("RELAX-time:fill=mean").explain(asked, similarities)
    resolve("RELAX-time:view=logit").explain(asked, similarities)
    assert similarities.forwards == 4 * 64, "another variant has similarities of its own"


def test_variants_are_relax_with_these_settings():
    asked = question(n_samples=50)
    found = resolve("RELAX-time:fill=mean,edges=hard,keep=0.3,cells=12").explain(asked, Similarities())
    from relax_quantus.relax.masks import Time

    relax = RELAX(asked.model.encoder, Time(keep_probability=0.3, edges="hard", stripes=12), estimator="weighted")
    expected = relax.explain(asked.x, "mean", n_samples=50, perturbations_per_eval=16, seed=0)
    np.testing.assert_allclose(found.importance, expected.importance[0, 0].numpy(), atol=1e-6)


def test_the_logit_view_is_the_mean_logit_over_the_masks_that_keep_a_bin():
    asked, n = question(n_samples=30), 30
    found = resolve("RELAX-random:view=logit,edges=hard").explain(asked, Similarities()).importance
    masks = STRATEGIES.get("random", edges="hard").sample(n, (1, 96, 64), torch.Generator().manual_seed(0))
    copies = torch.where(masks.bool(), asked.x, torch.tensor(SILENCE))
    logits = asked.model(copies)[:, 0].detach()
    expected = (logits[:, None, None] * masks[:, 0]).sum(0) / masks[:, 0].sum(0)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_repeat_is_the_papers_mean_of_weighted_thresholded_runs():
    asked = question(n_samples=40)
    found = resolve("REPEAT-random:repeats=4").explain(asked, Similarities()).importance
    masks = STRATEGIES.get("random").sample(40, (1, 96, 64), torch.Generator().manual_seed(0))[:, 0].double().numpy()
    relax = RELAX(asked.model.encoder, "random")
    s = relax.similarities(asked.x, baselines="silence", n_samples=40, seed=0)[:, 0].numpy()
    expected = np.zeros((96, 64))
    for k in range(4):
        part, m = s[10 * k : 10 * k + 10], masks[10 * k : 10 * k + 10]
        kept = m.sum(0)
        importance = np.where(kept > 0, np.tensordot(part, m, 1) / np.maximum(kept, 1e-12), part.mean())
        important = importance >= importance.mean()
        expected += important * importance / importance.max() / 4
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.min() >= 0
    assert found.max() <= 1


def test_gradients_vanish_at_the_own_embedding_but_maps_do_not():
    asked = question()
    x = asked.x.clone().requires_grad_()
    h = asked.model.encoder(x)
    torch.nn.functional.cosine_similarity(h, h.detach()).backward()
    assert x.grad.abs().max() < 1e-6, "why the inner product is taken"
    for name in ("Saliency", "InputXGradient"):
        assert np.abs(METHODS.get(name).explain(asked, Similarities()).centred).max() > 1e-5


def test_towards_a_reference_the_gradient_is_the_cosines():
    asked = question()
    reference = asked.model.encoder(asked.x.flip(-1)).detach()[0]
    found = METHODS.get("Saliency").explain(replace(asked, reference=reference), Similarities()).centred
    x = asked.x.clone().requires_grad_()
    torch.nn.functional.cosine_similarity(asked.model.encoder(x), reference[None]).backward()
    np.testing.assert_allclose(found, x.grad.abs()[0, 0].numpy(), atol=1e-7)


def test_integrated_gradients_and_shap_add_up_to_the_change():
    asked = question(n_samples=200)
    model, h = asked.model, asked.model.encoder(asked.x)
    for fill in ("silence", "mean"):
        baseline = FILLS.get(fill).level(asked.x).expand_as(asked.x)
        cosine = 1 - float(torch.nn.functional.cosine_similarity(model.encoder(baseline), h))
        logit = float((model(asked.x) - model(baseline))[0, 0])
        for name, change in ((f"IntegratedGradients:fill={fill}", cosine), ("KernelShap:fill=" + fill, cosine)):
            values = resolve(name).explain(asked, Similarities()).centred
            patches = values[::12, ::8] if name.startswith("Kernel") else values
            assert patches.sum() == pytest.approx(change, rel=0.02, abs=2e-3), name
        values = resolve(f"IntegratedGradients:fill={fill},view=logit").explain(asked, Similarities()).centred
        assert values.sum() == pytest.approx(logit, rel=1e-3)


def test_names_are_written_in_one_way_and_say_everything():
    method = resolve("RELAX-time:keep=0.30,edges=hard,fill=mean")
    assert method.name == "RELAX-time:fill=mean,edges=hard,keep=0.3"
    assert (method.base, method.masks, method.fill, method.edges, method.keep) == (
        "RELAX-time",
        "time",
        "mean",
        "hard",
        0.3,
    )
    twin = resolve("RELAX-time twin:fill=mean")
    assert (twin.name, twin.base, twin.twin_of) == (
        "RELAX-time twin:fill=mean",
        "RELAX-time twin",
        "RELAX-time:fill=mean",
    )
    assert resolve("Lime:fill=background,view=logit").name == "Lime:fill=background,view=logit"
    plain = resolve("RELAX-random")
    assert (plain.fill, plain.edges, plain.keep, plain.view) == ("", "smooth", 0.5, "embedding")
    assert np.isnan(resolve("Saliency").keep)
    assert resolve("REPEAT-time:keep=0.3").family == "RELAX-time:keep=0.3"
    assert resolve("RELAX-time_frequency:cells=12x8").parameters == (("frequency_stripes", 8), ("time_stripes", 12))
    assert resolve("RELAX-random:cells=5").parameters == (("cells", (5, 5)),)
    for spec in ("RELAX-random:keep=0.7,cells=12x8,domain=amplitude,estimator=surrogate", "REPEAT-time:repeats=5"):
        assert resolve(resolve(spec).name).name == spec


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ("RELAX-tme", UnknownNameError, "did you mean 'RELAX-time'|RELAX-time"),
        ("RELAX-time:fil=mean", ArgumentTypeError, "did you mean 'fill'"),
        ("RELAX-time:fill=silense", UnknownNameError, "did you mean 'silence'"),
        ("RELAX-time:edges=soft", ArgumentError, "edges: expected 'smooth' or 'hard'"),
        ("RELAX-time:keep=1.5", ArgumentError, "keep: expected a number strictly between 0 and 1"),
        ("RELAX-time:cells=4x4", ArgumentError, "cells: expected one number of stripes"),
        ("RELAX-random:cells=4y4", ArgumentError, "cells: expected rows x columns"),
        ("RELAX-time:domain=amp", UnknownNameError, "did you mean 'amplitude'"),
        ("RELAX-time:estimator=weigted", UnknownNameError, "did you mean 'weighted'"),
        ("Saliency:view=logits", UnknownNameError, "did you mean 'logit'"),
        ("Saliency:keep=0.3", ArgumentTypeError, "keep: expected a parameter"),
        ("energy:fill=mean", ArgumentTypeError, "fill: expected a parameter"),
        ("REPEAT-time:repeats=1", ArgumentError, "repeats: expected an integer of at least 2"),
        ("RELAX-time:keep", ArgumentError, "key=value"),
        ("RELAX-time:fill=none", UnknownNameError, "fill"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_nearest(spec, error, text):
    with pytest.raises(error, match=text):
        resolve(spec)


def test_the_same_method_twice_is_refused():
    with pytest.raises(ArgumentError, match="each name once"):
        build(("RELAX-time:keep=0.3,fill=mean", "RELAX-time:fill=mean,keep=0.30"))


def test_questions_without_an_answer_say_so():
    asked = question()
    logit_only = replace(asked, views=("logit",))
    with pytest.raises(NotApplicable, match="no answer in the embedding view"):
        METHODS.get("RELAX-time").explain(logit_only, Similarities())
    resolve("RELAX-time:view=logit").explain(logit_only, Similarities())
    anchored = replace(asked, model=SimilarityModel(Planted(), torch.ones(1, 5)))
    for name in ("Saliency:view=logit", "RELAX-time:view=logit"):
        with pytest.raises(NotApplicable, match="the model has no logits"):
            resolve(name).explain(anchored, Similarities())
    METHODS.get("Saliency").explain(anchored, Similarities())
    with pytest.raises(NotApplicable, match="two runs of two masks"):
        METHODS.get("REPEAT-time").explain(replace(asked, n_samples=3), Similarities())


def test_masks_registered_later_are_methods_at_once():
    class Halves:
        def sample(self, n, shape, generator):
            return torch.rand(n, 1, 96, 1, generator=generator).round()

    STRATEGIES.register("halves", Halves, "test")
    try:
        method = resolve("RELAX-halves")
        found = method.explain(question(), Similarities()).importance
        assert method.edges == ""
        assert np.isfinite(found).all()
        with pytest.raises(ArgumentError, match="keep: expected a setting of the masks 'halves'"):
            resolve("RELAX-halves:keep=0.3")
        repeat = resolve("REPEAT-halves").explain(question(), Similarities()).importance
        assert repeat.shape == (96, 64)
    finally:
        STRATEGIES._factories.pop("halves")
        for name in [n for n in METHODS if "halves" in n]:
            METHODS._factories.pop(name)


@pytest.mark.parametrize(
    ("name", "fill", "estimator"),
    [
        ("energy", "silence", ""),
        ("oracle", "", ""),
        ("Saliency", "", ""),
        ("IntegratedGradients", "mean", ""),
        ("Occlusion:fill=background", "background", ""),
        ("RELAX-time", "mean", "surrogate"),
        ("RELAX-time twin:fill=silence,estimator=paper", "silence", "paper"),
    ],
)
def test_rows_say_which_fill_a_map_owes_itself_to_and_which_estimator(name, fill, estimator):
    """A method shares its fill with evaluators even where it only starts
    from it; energy is the level above silence whatever the run's fill.
    """
    config = BenchmarkConfig(fill="mean", estimator="surrogate")
    clip = Clip("clip", torch.zeros(1, 96, 64), 0, "bird", "source")
    row = described(config, clip, resolve(name), METRICS.get("AUC"))
    assert (row["fill"], row["estimator"]) == (fill, estimator)
