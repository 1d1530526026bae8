"""RELAX in Quantus's metrics, under randomised weights, too."""

from __future__ import annotations

import copy
import functools
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quantus_examples import KEYWORDS, PER_EXAMPLE, Array, correlation
from torch import nn

from relax_quantus import quantus_bridge
from relax_quantus.quantus_bridge import SimilarityModel, explain_func

quantus = quantus_bridge.import_quantus()

CHEAP_METRICS = {
    "FaithfulnessCorrelation": {"nr_runs": 8, "subset_size": 600, "return_aggregate": False},
    "PixelFlipping": {"features_in_step": 1536},
    "RelevanceRankAccuracy": {},
    "RelevanceMassAccuracy": {},
    "LocalLipschitzEstimate": {"nr_samples": 2},
    "MaxSensitivity": {"nr_samples": 2},
    "Sparseness": {},
    "Complexity": {},
}


@pytest.mark.parametrize("name", CHEAP_METRICS)
def test_a_metric_of_each_category(name: str, clf: nn.Module, bank: SimilarityModel, x: Array, s: Array) -> None:
    for model, y in ((clf, np.array([0, 0, 1, 1])), (bank, np.arange(4))):
        metric = getattr(quantus, name)(**CHEAP_METRICS[name], **PER_EXAMPLE, display_progressbar=False)
        scores = metric(
            model=model,
            x_batch=x,
            y_batch=y,
            a_batch=None,
            s_batch=s,
            explain_func=explain_func,
            explain_func_kwargs=dict(KEYWORDS),
            softmax=False,
            device="cpu",
        )
        assert len(scores) == 4
        assert np.isfinite(np.array(scores, dtype=float)).all()


def layers(model: nn.Module, x: Array, y: Array, metric: str, function: Any = explain_func, **keywords: Any) -> Any:
    """Run a randomisation metric; progress bars off, one correlation a layer."""
    return getattr(quantus, metric)(**PER_EXAMPLE, **keywords, display_progressbar=False)(
        model=model,
        x_batch=x,
        y_batch=y,
        a_batch=None,
        explain_func=function,
        explain_func_kwargs=dict(KEYWORDS),
        softmax=metric == "EfficientMPRT",  # it takes an entropy of the outputs
    )


def test_mprt_explains_the_reinitialised_encoder(clf: nn.Module, bank: SimilarityModel, x: Array) -> None:
    explained: list[nn.Module] = []

    def spy(model: nn.Module, inputs: Array, targets: Array, **keywords: Any) -> Array:
        explained.append(copy.deepcopy(model))
        return explain_func(model, inputs, targets, **keywords)

    scores = layers(clf, x, np.array([0, 0, 1, 1]), "MPRT", spy, return_average_correlation=False)
    assert list(scores) == ["original", "head", "encoder.5", "encoder.2", "encoder.0"]
    assert np.mean(scores["original"]) == pytest.approx(1)
    assert np.mean(scores["head"]) == pytest.approx(1)
    assert max(np.mean(scores[layer]) for layer in ("encoder.2", "encoder.0")) < 0.98
    assert not torch.equal(explained[-1].encoder[0].weight, clf.encoder[0].weight)
    map_of_the_last = explain_func(explained[-1], x, **KEYWORDS)
    assert correlation(map_of_the_last, explain_func(clf, x, **KEYWORDS)) < 0.98
    on_embeddings = layers(bank, x, np.arange(4), "MPRT", return_average_correlation=False)
    assert list(on_embeddings) == ["original", "encoder.5", "encoder.2", "encoder.0"]
    assert on_embeddings["encoder.0"] == pytest.approx(scores["encoder.0"])


def test_efficient_mprt_on_embeddings(bank: SimilarityModel, x: Array) -> None:
    scores = layers(bank, x, np.arange(4), "EfficientMPRT")
    assert len(scores) == 4
    assert np.isfinite(scores).all()


def test_evaluate_with_functions(clf: nn.Module, x: Array) -> None:
    metrics = {
        "sparse": quantus.Sparseness(**PER_EXAMPLE),
        "sensitive": quantus.MaxSensitivity(nr_samples=2, **PER_EXAMPLE),
    }
    methods = {name: functools.partial(explain_func, masks=name) for name in ("time", "frequency")}
    keywords = dict(KEYWORDS)
    results = quantus.evaluate(metrics, methods, clf, x, np.array([0, 0, 1, 1]), explain_func_kwargs=keywords)
    assert keywords == KEYWORDS
    assert set(results) == {"time", "frequency"}
    for name in methods:
        direct = explain_func(clf, x, masks=name, **KEYWORDS)
        expected = metrics["sparse"](model=clf, x_batch=x, y_batch=np.zeros(4, int), a_batch=direct)
        assert results[name]["sparse"] == pytest.approx(expected)
        assert len(results[name]["sensitive"]) == 4


class Hears(nn.Module):
    """A network that hears bands 20 to 29 alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., 20:30].flatten(1).exp()


def test_which_map_shows_what_a_network_hears() -> None:
    """By importance a map in the right place has the mass of
    chance and is nowhere sparse; the default is not importance.
    """
    x = np.random.default_rng(0).normal(-3, 1, (6, 1, 96, 64)).astype(np.float32)
    s = np.zeros(x.shape, int)
    s[..., 20:30] = 1
    chance = s.mean()

    def scores(**keywords: str) -> tuple[float, float]:
        a = explain_func(Hears(), x, n_samples=500, **keywords)
        common = {"model": Hears(), "x_batch": x, "y_batch": np.zeros(6, int), "a_batch": a}
        quiet = {"disable_warnings": True, "display_progressbar": False}
        mass = quantus.RelevanceMassAccuracy(**quiet)(**common, s_batch=s)
        return float(np.mean(mass)), float(np.mean(quantus.Sparseness(**quiet)(**common)))

    importance, centred, positive = (scores(map=name) for name in ("importance", "centred", "positive"))
    assert importance[0] == pytest.approx(chance, abs=0.02)
    assert importance[1] < 0.02
    for mass, sparseness in (centred, positive):
        assert 0.45 < mass < 0.7
        assert 0.6 < sparseness < 0.8
    assert scores() == centred
    quantus_bridge.register_with_quantus()
    try:
        named = quantus.explain(Hears(), x, np.zeros(6, int), method="RELAX-random", n_samples=60)
    finally:
        quantus_bridge.unregister_from_quantus()
    np.testing.assert_array_equal(named, explain_func(Hears(), x, n_samples=60, map="centred"))


def test_the_table_in_the_docs_says_of_every_metric_which_map_it_wants() -> None:
    text = (Path(__file__).parents[2] / "docs" / "how_to" / "quantus.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("|") and '`"' in line and "," in line]
    listed = {name.strip(): what for what, names, _ in rows for name in names.split(",") if name.strip().isidentifier()}
    classes = {c.__name__: c for group in quantus.AVAILABLE_METRICS.values() for c in group.values()}
    assert set(classes) <= set(listed)
    for name, cls in classes.items():
        takes_magnitudes = inspect.signature(cls).parameters["abs"].default
        assert (
            takes_magnitudes == ("abs=True" in listed[name] or "mass" in listed[name])
            or name == "RelevanceMassAccuracy"
        )
