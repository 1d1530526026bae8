"""Every metric class of the installed Quantus is used or excluded
with a reason, and the reasons and repairs are as stated.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import quantus
import quantus.metrics
import torch
from quantus.functions.perturb_func import noisy_linear_imputation
from quantus.metrics.base import Metric as QuantusMetric
from quantus.metrics.faithfulness.sufficiency import BatchSufficiency
from torch import nn
from typer.testing import CliRunner

from relax_quantus.benchmark.methods.questions import Attribution, Question, Similarities
from relax_quantus.benchmark.methods.registry import Simple
from relax_quantus.benchmark.metrics import METRICS, QUICK, MetricInput, __main__, summary
from relax_quantus.benchmark.metrics.excluded import EXCLUDED
from relax_quantus.benchmark.metrics.imputation import impute
from relax_quantus.benchmark.metrics.metric import CATEGORIES, GRANULARITIES, QUANTUS_COMMON, VIEWS
from relax_quantus.cli.main import app
from relax_quantus.relax.fills import FILLS, SILENCE
from relax_quantus.relax.similarity import SimilarityModel

BASES = {"Metric", "BatchedMetric"}
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
COMMON = {**QUANTUS_COMMON}
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(4, 1, 96, 64))).astype(np.float32)
MAPS = RNG.random((4, 1, 96, 64))
ZEROS = np.zeros(4, dtype=int)
EXAMPLES = (X, ZEROS, MAPS)


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 4, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(384, 3))
        return nn.Sequential(*layers).eval()


NETWORK = network()


def of_the_input(model, inputs, targets, **_):
    return np.abs(inputs).astype(np.float64)


AGAIN = {"explain_func": of_the_input, "explain_func_kwargs": {}}


def test_every_metric_class_of_quantus_is_accounted_for_once():
    found = set()
    for module in pkgutil.walk_packages(quantus.metrics.__path__, "quantus.metrics."):
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, QuantusMetric):
                found.add(name)
    used = {METRICS.get(name).quantus for name in METRICS} - {""}
    excluded = [entry.name for entry in EXCLUDED]
    assert sorted(excluded) == sorted(set(excluded) - used), "none twice, none both used and excluded"
    assert found - BASES == used | set(excluded), "a class of Quantus is unaccounted for, or an account has no class"


@pytest.mark.parametrize("name", METRICS.names())
def test_every_entry_says_what_it_is(name):
    metric = METRICS.get(name)
    assert metric.name == name
    assert metric.category in CATEGORIES
    assert metric.view in VIEWS
    assert metric.granularity in GRANULARITIES
    assert metric.evaluator_fill in ("", *FILLS)
    assert all((metric.range, metric.configuration, metric.source))
    assert (metric.forwards > 0) == (metric.view != "")
    assert (metric.explanations(3) > 0) == metric.reexplains
    assert METRICS.summary(name) == summary(metric)


def test_crossed_evaluators_are_complete_and_the_quick_ones_registered():
    crossed = {
        (m.view, m.granularity, m.evaluator_fill) for m in map(METRICS.get, METRICS) if m.name.startswith("SRG-")
    }
    assert crossed == {
        (view, granularity, fill)
        for view in ("embedding", "logit")
        for granularity in ("bin", "patch", "time", "frequency")
        for fill in ("silence", "mean", "background")
    }
    assert set(QUICK) <= set(METRICS)
    assert {METRICS.get(name).category for name in QUICK} == set(CATEGORIES)


def test_listing_and_page_show_used_and_excluded():
    lines = CliRunner().invoke(app, ["list", "metrics"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [*METRICS, *(entry.name for entry in EXCLUDED)]
    assert all(entry.reason in line for entry, line in zip(EXCLUDED, lines[-len(EXCLUDED) :], strict=True))
    page = DOCS.read_text(encoding="utf-8")
    for table in (__main__.used(), __main__.excluded()):
        assert table in page, "python -m relax_quantus.benchmark.metrics docs/metrics.md brings it up to date"


# Metrics computed here, against Quantus where Quantus is right


def planted(values: np.ndarray) -> MetricInput:
    x, model = torch.from_numpy(X[:1]), SimilarityModel(NETWORK, NETWORK(torch.from_numpy(X[:1])).detach()).eval()
    question = Question(x, model, 0)
    method = Simple("fixed", lambda question: torch.from_numpy(values))
    return MetricInput(method, question, Attribution(values, values), model, model, 3, Similarities())


CASE = planted(MAPS[0, 0])


def of_quantus(name: str, **settings) -> np.ndarray:
    metric = getattr(quantus, name)(perturb_baseline=SILENCE, **COMMON, **settings)
    return np.asarray(metric(CASE.similarity_model, X[:1], ZEROS[:1], MAPS[:1], softmax=False)[0])


def test_curves_and_correlations_are_those_of_quantus():
    flipped = METRICS.get("PixelFlipping").score(CASE)
    np.testing.assert_allclose(
        flipped.curves["MIF"][1][1:], of_quantus("PixelFlipping", features_in_step=192), atol=1e-6
    )
    curve = [1.0, *of_quantus("Selectivity", patch_size=16)]
    assert METRICS.get("Selectivity").score(CASE).value == pytest.approx(np.trapezoid(curve, dx=1 / 24), abs=1e-6)
    falls = of_quantus("RegionPerturbation", patch_size=8, regions_evaluation=32)
    assert METRICS.get("RegionPerturbation").score(CASE).value == pytest.approx(falls.mean(), abs=1e-6)
    for name, settings in (
        ("FaithfulnessEstimate", {"features_in_step": 192}),
        ("MonotonicityCorrelation", {"features_in_step": 192, "nr_samples": 1}),
    ):
        assert METRICS.get(name).score(CASE).value == pytest.approx(float(of_quantus(name, **settings)), abs=1e-4)


def test_faithfulness_correlation_is_that_of_quantus():
    np.random.seed(0)  # noqa: NPY002 - Quantus draws from the global generator
    theirs = float(of_quantus("FaithfulnessCorrelation", nr_runs=50, subset_size=614))
    assert METRICS.get("FaithfulnessCorrelation").score(CASE).value == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("eighths", [1, 4])
def test_imputation_is_that_of_quantus(eighths):
    x, removed = X[0, 0].astype(np.float64), np.random.default_rng(1).permutation(6144)[: 768 * eighths]
    theirs = noisy_linear_imputation(x[None], removed, noise=0.0)[0]
    np.testing.assert_allclose(impute(x, removed, 0.0, np.random.default_rng(0)), theirs, atol=1e-4)


# The excluded ones, as their reasons say


def test_monotonicity_is_vacuous():
    metric = quantus.Monotonicity(features_in_step=768, **COMMON)
    assert all(all(metric(NETWORK, X, ZEROS, maps)) for maps in (MAPS, 1 - MAPS, RNG.random(MAPS.shape)))


def test_infidelity_is_bound_to_the_maps_scale():
    metric = quantus.Infidelity(perturb_patch_sizes=[16], n_perturb_samples=1, **{**COMMON, "normalise": False})
    once, ten_times = (np.array(metric(NETWORK, X, ZEROS, scale * MAPS)) for scale in (1, 10))
    np.testing.assert_allclose(ten_times / once, 100, rtol=0.01)


def test_a_clip_alone_has_no_score_in_metrics_that_compare_clips():
    with pytest.raises(ValueError, match="at least 2"):
        quantus.SensitivityN(features_in_step=768, **COMMON)(NETWORK, X[:1], ZEROS[:1], MAPS[:1])
    plain = {key: value for key, value in COMMON.items() if key != "normalise_func_kwargs"}
    alone = quantus.Sufficiency(**{**plain, "abs": True})(NETWORK, X[:1], ZEROS[:1], MAPS[:1])
    assert float(alone[0]) == 0
    assert float(quantus.Consistency(**COMMON)(NETWORK, X[:1], ZEROS[:1], MAPS[:1], **AGAIN)[0]) == 0


def test_some_metrics_raise_on_every_input():
    plain = {key: value for key, value in COMMON.items() if key != "normalise_func_kwargs"}
    with pytest.raises(ValueError, match="reshape"):
        BatchSufficiency(**{**plain, "abs": True})(NETWORK, *EXAMPLES)
    with pytest.raises(ValueError, match="broadcast"):
        quantus.NonSensitivity(features_in_step=768, **{**COMMON, "abs": True})(NETWORK, *EXAMPLES)
    with pytest.raises(AttributeError, match="trapz"):
        quantus.IROF(**COMMON)(NETWORK, *EXAMPLES)


def test_continuity_ignores_its_perturbation_and_divides_by_nothing():
    def broken(*args, **kwargs):
        raise RuntimeError

    calls = iter(range(100))

    def masks(model, inputs, targets, **_):
        return np.random.default_rng(next(calls)).random(inputs.shape)

    metric = quantus.Continuity(nr_steps=27, perturb_func=broken, **COMMON)
    scores = metric(NETWORK, *EXAMPLES, explain_func=masks, explain_func_kwargs={})
    assert min(scores) > 1e11


@pytest.mark.parametrize(
    "name", ["RelativeInputStability", "RelativeOutputStability", "RelativeRepresentationStability"]
)
def test_one_bin_near_zero_decides_relative_stability(name):
    scores = []
    for smallest in (1e-3, 1e-6):

        def nearly_flat(model, inputs, targets, smallest=smallest, **_):
            base = np.ones((1, 1, 96, 64))
            base[0, 0, 0, 0] = smallest
            return base + 0.01 * (inputs - X[:1])

        def shake(arr, indices=None, **_):
            return arr + np.random.default_rng(1).uniform(-0.01, 0.01, arr.shape).astype(np.float32)

        metric = getattr(quantus, name)(nr_samples=1, perturb_func=shake, **COMMON)
        y = NETWORK(torch.from_numpy(X[:1])).argmax(1).numpy()
        first = nearly_flat(NETWORK, X[:1], y)
        again = {"explain_func": nearly_flat, "explain_func_kwargs": {}}
        scores.append(float(metric(model=NETWORK, x_batch=X[:1], y_batch=y, a_batch=first, **again)[0]))
    assert scores[1] > 100 * scores[0]


def test_attribution_localisation_is_mass_accuracy():
    truth = (RNG.random(MAPS.shape) < 0.1).astype(int)
    settings = {**COMMON, "abs": True}
    both = [getattr(quantus, name)(**settings) for name in ("AttributionLocalisation", "RelevanceMassAccuracy")]
    first, second = (np.array(metric(NETWORK, *EXAMPLES, truth)) for metric in both)
    np.testing.assert_allclose(first, second, rtol=1e-9)


def test_maps_without_classes_score_one_in_random_logit():
    scores = quantus.RandomLogit(num_classes=3, **COMMON)(NETWORK, X, ZEROS, of_the_input(None, X, None), **AGAIN)
    np.testing.assert_allclose(scores, 1)


def test_smooth_mprt_ignores_explain_func():
    def never(**kwargs):
        raise AssertionError

    metric = quantus.SmoothMPRT(nr_samples=1, **COMMON)
    scores = metric(NETWORK, *EXAMPLES, explain_func=never, explain_func_kwargs={"method": "Saliency"})
    assert scores


def test_equality_of_floats_makes_every_map_fail():
    assert not any(quantus.Completeness(**COMMON)(NETWORK, *EXAMPLES))
    gradient = {"explain_func": lambda model, inputs, targets, **_: 3.0 * inputs, "explain_func_kwargs": {}}
    assert not any(quantus.InputInvariance(**{**COMMON, "normalise": False})(NETWORK, X, ZEROS, 3.0 * X, **gradient))
