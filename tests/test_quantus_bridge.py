"""RELAX inside Quantus: as a function, by name, under randomised weights; nothing that it is given changes."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus import quantus_bridge
from relax_quantus.errors import (
    ArgumentError,
    ArgumentTypeError,
    EncoderError,
    MissingDependencyError,
    ShapeError,
    UnknownNameError,
)
from relax_quantus.masks import STRATEGIES, Time
from relax_quantus.quantus_bridge import SimilarityModel, explain_func, register_with_quantus, unregister_from_quantus

quantus = quantus_bridge.import_quantus()

Array = npt.NDArray[Any]
PER_EXAMPLE = {"normalise_func_kwargs": {"normalise_axes": (1, 2, 3)}, "disable_warnings": True}
KEYWORDS = {"n_samples": 24, "map": "positive"}


def small_encoder() -> nn.Sequential:
    encoder = nn.Sequential(
        nn.Conv2d(1, 4, 8, stride=8),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(120, 16),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return encoder.eval()


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


def correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


# explain_func


def test_it_is_relax_on_the_embedding(encoder: nn.Sequential, clf: nn.Module, x: Array) -> None:
    expected = rq.RELAX(encoder, "time").explain(torch.from_numpy(x), "background", n_samples=30, seed=3)
    keywords: dict[str, Any] = {"masks": "time", "baselines": "background", "n_samples": 30, "seed": 3}
    for model in (encoder, clf):
        np.testing.assert_allclose(explain_func(model, x, **keywords), expected.importance.numpy(), atol=1e-6)
    centred = explain_func(clf, x, **keywords, map="centred")
    np.testing.assert_allclose(centred, expected.centred().numpy(), atol=1e-6)
    np.testing.assert_allclose(explain_func(clf, x, **keywords, map="positive"), centred.clip(0), atol=0)
    paper = rq.RELAX(encoder, Time(stripes=4), estimator="paper").attribute(torch.from_numpy(x), 0.0, n_samples=20)
    ours = explain_func(
        clf, x, masks=Time(stripes=4), baselines=np.zeros((4, 1, 96, 64)), estimator="paper", n_samples=20
    )
    np.testing.assert_allclose(ours, paper.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "returned"),
    [(np.float32, np.float32), (np.float64, np.float64), (np.float16, np.float32), (np.int64, np.float32)],
)
@pytest.mark.parametrize("weights", [torch.float32, torch.float64])
def test_types_shapes_and_finiteness(
    encoder: nn.Sequential, x: Array, given: type, returned: type, weights: torch.dtype
) -> None:
    model = copy.deepcopy(encoder).to(weights)
    for n_samples in (1, 8):
        a = explain_func(model, x.astype(given)[::-1], n_samples=n_samples)
        assert isinstance(a, np.ndarray)
        assert a.shape == x.shape
        assert a.dtype == returned
        assert np.isfinite(a).all()


def test_large_batches_are_chunked_and_equal_single_calls(encoder: nn.Sequential, x: Array) -> None:
    seen = []

    def spy(inputs: Tensor) -> Tensor:
        seen.append(len(inputs))
        return torch.as_tensor(encoder(inputs))

    many = np.concatenate([x + 0.01 * i for i in range(25)])
    together = explain_func(spy, many, n_samples=6)
    assert max(seen) <= 48
    alone = np.concatenate([explain_func(encoder, many[i : i + 1], n_samples=6) for i in (0, 57, 99)])
    np.testing.assert_allclose(together[[0, 57, 99]], alone, atol=1e-5)
    np.testing.assert_allclose(explain_func(encoder, many, n_samples=6, perturbations_per_eval=4), together, atol=1e-5)


def test_nothing_given_is_changed(encoder: nn.Sequential, x: Array) -> None:
    model = nn.Sequential(copy.deepcopy(encoder), nn.BatchNorm1d(16), nn.Dropout(0.5)).train()
    model[0].eval()
    modes, weights = [m.training for m in model.modules()], copy.deepcopy(model.state_dict())
    keywords = {"n_samples": 10, "baselines": np.full((1, 1, 96, 64), -4.0)}
    inputs, kept = x.copy(), copy.deepcopy(keywords)
    inputs.setflags(write=False)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = explain_func(model, inputs, np.zeros(4), **keywords)
    second = explain_func(model, inputs, np.ones(4), **keywords, method="any label of quantus.evaluate", device="cpu")
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(inputs, x)
    np.testing.assert_array_equal(keywords["baselines"], kept["baselines"])
    assert sorted(keywords) == sorted(kept)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    fresh = [explain_func(model, x, n_samples=10, seed=None) for _ in range(2)]
    assert np.abs(fresh[0] - fresh[1]).max() > 0
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"nr_samples": 3}, TypeError, "nr_samples"),
        ({"map": "centered"}, UnknownNameError, "did you mean 'centred'"),
        ({"masks": "tiem"}, UnknownNameError, "did you mean 'time'"),
        ({"baselines": "silense"}, UnknownNameError, "did you mean 'silence'"),
        ({"n_samples": 0}, ArgumentError, "n_samples"),
        ({"inputs": np.zeros((1, 96, 64))}, ShapeError, "inputs: expected examples of shape"),
        ({"inputs": np.full((1, 1, 96, 64), np.nan)}, ArgumentError, "inputs: expected finite"),
        ({"inputs": np.array([["a"]])}, ArgumentTypeError, "inputs: expected an array of numbers"),
        ({"model": 3}, ArgumentTypeError, "model: expected"),
        ({"model": lambda x: x.mean((1, 2)) * 0}, EncoderError, "non-zero"),
        ({"model": lambda x: x[:, 0]}, EncoderError, "shape"),
        ({"device": "meta"}, ArgumentError, "device: expected the model's own, cpu"),
    ],
)
def test_what_cannot_work_is_refused(
    encoder: nn.Sequential, x: Array, change: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        explain_func(**({"model": encoder, "inputs": x, "n_samples": 4} | change))


# SimilarityModel


def test_similarity_model(encoder: nn.Sequential, bank: SimilarityModel, x: Array) -> None:
    inputs = torch.from_numpy(x)
    expected = nn.functional.cosine_similarity(encoder(inputs)[:, None], bank.anchors[None], dim=-1)
    torch.testing.assert_close(bank(inputs), expected)
    torch.testing.assert_close(bank.embed(inputs), encoder(inputs))
    assert not bank.anchors.requires_grad
    assert "anchors" in dict(bank.named_buffers())
    assert not bank.training
    assert bool((SimilarityModel(lambda x: x.mean((1, 2)) * 0, torch.ones(1, 64))(inputs) == 0).all())
    torch.testing.assert_close(copy.deepcopy(bank)(inputs), bank(inputs))


@pytest.mark.parametrize(
    ("anchors", "error", "match"),
    [
        (torch.eye(3)[:, :2], ArgumentError, r"zeros only in rows \[2\]"),
        (torch.ones(3), ShapeError, r"shape \(n, D\)"),
        (torch.ones(0, 3), ShapeError, "at least one"),
        (torch.full((1, 3), torch.nan), ArgumentError, "finite"),
    ],
)
def test_anchors_that_cannot_work_are_refused(anchors: Tensor, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        SimilarityModel(nn.Flatten(), anchors)


def test_an_encoder_of_another_size_is_refused(x: Array) -> None:
    with pytest.raises(EncoderError, match=r"shape \(4, 3\), got a Tensor of shape \(4, 6144\)"):
        SimilarityModel(nn.Flatten(), torch.ones(1, 3))(torch.from_numpy(x))


# In Quantus's metrics

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


# Registration

PLACES = ("quantus", "quantus.evaluation", "quantus.functions.explanation_func")


def test_registration_is_idempotent_and_reversible() -> None:
    before = {place: sys.modules[place].explain for place in PLACES}
    listing = quantus.AVAILABLE_XAI_METHODS_CAPTUM
    names = list(listing)
    unregister_from_quantus()
    register_with_quantus()
    ours = quantus.explain
    register_with_quantus()
    assert all(sys.modules[place].explain is ours for place in PLACES)
    assert ours is not before["quantus"]
    assert [n for n in listing if n.startswith("RELAX")] == ["RELAX", *(f"RELAX-{name}" for name in STRATEGIES)]
    unregister_from_quantus()
    assert all(sys.modules[place].explain is before[place] for place in PLACES)
    assert quantus.AVAILABLE_XAI_METHODS_CAPTUM is listing
    assert listing == names
    unregister_from_quantus()
    assert quantus.explain is before["quantus"]


def test_a_patch_on_top_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    original = quantus.explain
    register_with_quantus()

    def patch() -> None: ...

    monkeypatch.setattr(quantus, "explain", patch)
    unregister_from_quantus()
    assert quantus.explain is patch
    assert quantus.evaluation.explain is original
    monkeypatch.setattr(quantus, "explain", original)


@pytest.mark.usefixtures("registered")
def test_explain_by_name(clf: nn.Module, x: Array) -> None:
    y = np.zeros(4, int)
    for name in STRATEGIES:
        named = quantus.explain(clf, x, y, method=f"RELAX-{name}", n_samples=8)
        np.testing.assert_array_equal(named, explain_func(clf, x, masks=name, n_samples=8))
    plain = quantus.explain(clf, x, y, method="RELAX", n_samples=8, masks=Time(stripes=4))
    np.testing.assert_array_equal(plain, explain_func(clf, x, masks=Time(stripes=4), n_samples=8))


@pytest.mark.usefixtures("registered")
def test_new_strategies_are_known_at_once(clf: nn.Module, x: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES._factories, "halves", (functools.partial(Time, stripes=2), ""))
    named = quantus.explain(clf, x, np.zeros(4, int), method="RELAX-halves", n_samples=8)
    np.testing.assert_array_equal(named, explain_func(clf, x, masks=Time(stripes=2), n_samples=8))
    register_with_quantus()
    assert "RELAX-halves" in quantus.available_methods_captum()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"method": "RELAX-tiem"}, UnknownNameError, "got 'RELAX-tiem'; did you mean 'time'"),
        ({"method": "RELAX-time", "masks": "random"}, ArgumentTypeError, "masks: expected none"),
        ({"method": "RELAX", "nr_samples": 3}, TypeError, "nr_samples"),
        ({"n_samples": 3}, ArgumentError, "method: expected a name beside n_samples"),
        ({"method": "Salience"}, KeyError, "Salience"),
    ],
)
def test_wrong_names_are_refused(
    clf: nn.Module, x: Array, keywords: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        quantus.explain(clf, x, np.zeros(4, int), **keywords)


def test_other_methods_stay_quantuss(clf: nn.Module, x: Array) -> None:
    y = np.array([0, 0, 1, 1])
    expected = {method: quantus.explain(clf, x, y, method=method) for method in ("Saliency", "IntegratedGradients")}
    register_with_quantus()
    try:
        for method, a in expected.items():
            np.testing.assert_array_equal(quantus.explain(clf, x, y, method=method), a)
        with pytest.warns(UserWarning, match="without specifying 'method'"):
            quantus.explain(clf, x, y)
    finally:
        unregister_from_quantus()


@pytest.mark.usefixtures("registered")
def test_evaluate_with_dictionaries(clf: nn.Module, x: Array) -> None:
    metrics = {"sensitive": quantus.MaxSensitivity(nr_samples=2, **PER_EXAMPLE)}
    methods = {"RELAX-time": {"method": "RELAX-time", **KEYWORDS}, "Saliency": {"method": "Saliency"}}
    results = quantus.evaluate(metrics, methods, clf, x, np.array([0, 0, 1, 1]))
    assert len(results["RELAX-time"]["sensitive"]) == len(results["Saliency"]["sensitive"]) == 4


@pytest.mark.usefixtures("registered")
def test_smooth_mprt_sees_it(bank: SimilarityModel, x: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def spy(model: nn.Module, *arguments: Any, **keywords: Any) -> Array:
        calls.append(keywords)
        return explain_func(model, *arguments, **keywords)

    monkeypatch.setattr(quantus_bridge, "explain_func", spy)
    metric = quantus.SmoothMPRT(
        **PER_EXAMPLE, nr_samples=2, display_progressbar=False, return_average_correlation=False
    )
    scores = metric(
        model=bank,
        x_batch=x,
        y_batch=np.arange(4),
        a_batch=None,
        explain_func=quantus.explain,
        explain_func_kwargs={"method": "RELAX-frequency", **KEYWORDS},
        softmax=False,
        device="cpu",
    )
    assert list(scores) == ["original", "encoder.0", "encoder.2", "encoder.5"]
    assert len(calls) == 2 * (2 + 3)
    assert all(call["masks"] == "frequency" for call in calls)
    assert np.mean(scores["encoder.5"]) < 0.98


# Imports


def test_quantus_is_imported_by_the_registration_alone() -> None:
    code = "import sys, relax_quantus.quantus_bridge as b; b.explain_func; assert 'quantus' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "quantus":
                raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "quantus")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(MissingDependencyError, match=r"libGL.so.1.*apt-get install libgl1"):
        register_with_quantus()
