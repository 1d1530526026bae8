"""RELAX by name in Quantus: registered and taken out again, and what is imported for it."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from quantus_examples import KEYWORDS, PER_EXAMPLE, Array
from torch import nn

from relax_quantus import quantus_bridge
from relax_quantus.errors import ArgumentError, ArgumentTypeError, MissingDependencyError, UnknownNameError
from relax_quantus.quantus_bridge import SimilarityModel, explain_func, register_with_quantus, unregister_from_quantus
from relax_quantus.relax.masks import STRATEGIES, Time

quantus = quantus_bridge.import_quantus()


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
