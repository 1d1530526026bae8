"""The classifier equals scikit-learn, weighs groups
alike, lets gradients through, and survives its file.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, Saliency
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError, DataError, EncoderError, ShapeError, WeightsError
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.heads.logistic import _folds, fit_logistic


def small_encoder(seed: int = 0) -> nn.Sequential:
    """A random convolution, smooth enough for finite
    differences, with a dropout that eval mode has to switch off.
    """
    encoder = nn.Sequential(
        nn.Conv2d(1, 4, 8, stride=8), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(384, 12)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return encoder.eval()


def examples(n: int, classes: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Overlapping classes: a level that depends on the class, and noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    return torch.randn(n, 1, 96, 64, generator=generator) + 0.12 * y.view(-1, 1, 1, 1), y


@pytest.fixture
def encoder() -> nn.Sequential:
    return small_encoder()


@pytest.mark.parametrize("classes", [2, 3])
def test_logits_are_scikit_learns(encoder: nn.Sequential, classes: int) -> None:
    x, y = examples(45, classes)
    names = ["bird", "cat", "dog"][:classes]
    clf = rq.EmbeddingClassifier.fit(encoder, x, y, names)
    with torch.no_grad():
        h, logits = encoder(x), clf(x)
    scaler = StandardScaler().fit(h.double().numpy())
    z = scaler.transform(h.double().numpy())
    theirs = LogisticRegression(C=clf.cross_validation.C, tol=1e-6, max_iter=5000).fit(z, y.numpy())
    decision = torch.from_numpy(theirs.decision_function(z)).float()
    ours = logits[:, 1] - logits[:, 0] if classes == 2 else logits
    torch.testing.assert_close(ours, decision, atol=2e-4, rtol=1e-4)
    proba = torch.from_numpy(theirs.predict_proba(z)).float()
    torch.testing.assert_close(clf.predict_proba(x), proba, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(clf.predict(x), torch.from_numpy(theirs.predict(z)))
    torch.testing.assert_close(clf.embed(x), encoder(x))
    assert clf.class_names == tuple(names)
    assert 0 < clf.cross_validation.accuracy < 1
    assert len(clf.cross_validation.fold_accuracies) == 5


def test_gradients_are_finite_differences() -> None:
    encoder = small_encoder().double()
    x, y = examples(12, 3)
    clf = EmbeddingClassifier.fit(encoder, x, y)
    clf.head.double()
    x = x[:1].double()
    bins = (..., slice(30, 33), slice(10, 12))

    def logits(values: Tensor) -> Tensor:
        changed = x.clone()
        changed[bins] = values
        return torch.as_tensor(clf(changed))

    assert torch.autograd.gradcheck(logits, x[bins].clone().requires_grad_())


@pytest.mark.parametrize("method", [Saliency, IntegratedGradients])
def test_captum_runs_on_it(encoder: nn.Sequential, method: type) -> None:
    x, y = examples(9, 3)
    clf = EmbeddingClassifier.fit(encoder, x, y)
    attribution = method(clf).attribute(x, target=y)
    assert attribution.shape == x.shape
    assert attribution.abs().amax() > 0


def test_each_group_weighs_the_same() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    h = rng.normal(size=(30, 6)) + labels[:, None] * 0.8
    groups = np.arange(30) // 3 * 3 + labels
    once = fit_logistic(h, labels, np.unique(groups, return_inverse=True)[1])
    repeats = np.where(groups == 4, 7, np.where(groups == 9, 3, 1))
    often = [np.repeat(a, repeats, axis=0) for a in (h, labels, np.unique(groups, return_inverse=True)[1])]
    more = fit_logistic(*often)
    assert once[2].C == more[2].C
    np.testing.assert_allclose(more[0], once[0], atol=1e-3)
    np.testing.assert_allclose(more[1], once[1], atol=1e-3)
    assert more[2].accuracy == pytest.approx(once[2].accuracy)
    unweighted = fit_logistic(often[0], often[1], np.arange(len(often[0])))
    assert np.abs(unweighted[0] - once[0]).max() > 0.02


def test_no_group_is_in_two_folds_and_every_fold_has_every_class() -> None:
    codes = np.repeat(np.arange(21), 2)
    labels = codes % 3
    fold = _folds(labels, codes)
    assert sorted(set(fold)) == [0, 1, 2, 3, 4]
    assert all(len(set(fold[codes == g])) == 1 for g in range(21))
    assert all(set(labels[fold == k]) == {0, 1, 2} for k in range(5))


@pytest.mark.parametrize(("groups", "folds"), [([0, 0, 1, 1, 2, 2, 3, 3], 0), ([0, 1, 2, 3, 4, 5, 6, 6], 3)])
def test_number_of_folds_follows_the_smallest_class(encoder: nn.Sequential, groups: list[int], folds: int) -> None:
    x, _ = examples(8, 2)
    labels = [0, 0, 0, 0, 0, 0, 1, 1] if folds == 0 else [0, 0, 0, 0, 1, 1, 1, 1]
    clf = EmbeddingClassifier.fit(encoder, x, labels, groups=groups)
    assert len(clf.cross_validation.fold_accuracies) == folds
    if folds == 0:
        assert clf.cross_validation.C == 1
        assert clf.cross_validation.accuracy is None


def test_string_groups_are_number_groups(encoder: nn.Sequential) -> None:
    x, y = examples(20, 2)
    numbers = torch.arange(20) // 4 * 2 + y
    a = EmbeddingClassifier.fit(encoder, x, y, groups=numbers)
    b = EmbeddingClassifier.fit(encoder, x, y.tolist(), groups=[f"clip-{g}" for g in numbers.tolist()])
    torch.testing.assert_close(a.head.weight, b.head.weight, atol=0, rtol=0)


def test_nothing_but_the_head_is_touched(encoder: nn.Sequential) -> None:
    encoder.train()
    encoder[1].eval()
    encoder[0].weight.requires_grad_(False)
    modes = [module.training for module in encoder.modules()]
    before = copy.deepcopy(encoder.state_dict())
    x, y = examples(80, 2)
    x_before, torch_state, numpy_state = x.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    clf = EmbeddingClassifier.fit(encoder, x, y)
    assert [module.training for module in encoder.modules()] == modes
    assert clf.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert [p.requires_grad for p in encoder.parameters()] == [False, True, True, True, True, True]
    assert all(p.grad is None for p in encoder.parameters())
    assert torch.equal(x, x_before)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    evaluated = EmbeddingClassifier.fit(encoder.eval(), x, y)
    assert not evaluated.training
    torch.testing.assert_close(clf.head.weight, evaluated.head.weight, atol=0, rtol=0)


def test_any_callable_and_precision_will_do() -> None:
    x, y = examples(40, 2)
    clf = EmbeddingClassifier.fit(lambda x: x.mean((1, 2)), x, y)
    assert isinstance(clf, nn.Module)
    assert clf(x).dtype == torch.float32
    torch.testing.assert_close(copy.deepcopy(clf)(x), clf(x))
    half = EmbeddingClassifier.fit(small_encoder().to(torch.bfloat16), x, y)
    assert half(x.to(torch.bfloat16)).dtype == torch.float32


def test_dead_units_do_no_harm() -> None:
    x, y = examples(40, 2)

    def dead(x: Tensor) -> Tensor:
        h = x.mean((1, 2))
        return torch.cat([h, torch.zeros(len(x), 3), torch.full((len(x), 1), 7.0)], dim=1)

    clf = EmbeddingClassifier.fit(dead, x, y)
    assert bool(torch.isfinite(clf(x)).all())
    plain = EmbeddingClassifier.fit(lambda x: x.mean((1, 2)), x, y)
    torch.testing.assert_close(clf(x), plain(x), atol=1e-3, rtol=1e-3)


def test_save_and_load(encoder: nn.Sequential, tmp_path: Path) -> None:
    x, y = examples(30, 3)
    clf = EmbeddingClassifier.fit(encoder, x, y, ["Vögel", "cat", "dog"])
    path = tmp_path / "head.safetensors"
    path.write_text("an older file")
    clf.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["head.safetensors"]
    again = rq.EmbeddingClassifier.load(str(path), encoder)
    torch.testing.assert_close(again(x), clf(x), atol=0, rtol=0)
    assert again.class_names == clf.class_names
    assert again.cross_validation == clf.cross_validation
    assert EmbeddingClassifier.load(path, nn.Sequential(encoder).eval())(x).equal(clf(x))
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["class_names"]) == ["Vögel", "cat", "dog"]


def test_another_encoder_is_refused(encoder: nn.Sequential, tmp_path: Path) -> None:
    x, y = examples(20, 2)
    path = tmp_path / "head"
    EmbeddingClassifier.fit(encoder, x, y).save(path)
    other = small_encoder(seed=5)
    with pytest.raises(WeightsError, match="head: expected the encoder it was fitted on, Sequential"):
        EmbeddingClassifier.load(path, other)
    with pytest.warns(UserWarning, match="expected the encoder it was fitted on"):
        EmbeddingClassifier.load(path, other, strict=False)
    with pytest.warns(UserWarning, match="got function"):
        loaded = EmbeddingClassifier.load(path, lambda x: x.mean((1, 2)))
    with pytest.raises(EncoderError, match=r"shape \(20, 12\), got a Tensor of shape \(20, 64\)"):
        loaded(x)


def write_other(path: Path, metadata: dict[str, str]) -> None:
    save_file({"weight": torch.zeros(2, 12), "bias": torch.zeros(2)}, path, metadata)


def test_damaged_and_foreign_files_are_named(encoder: nn.Sequential, tmp_path: Path) -> None:
    x, y = examples(20, 2)
    whole = tmp_path / "whole"
    EmbeddingClassifier.fit(encoder, x, y).save(whole)
    with safe_open(whole, "pt") as file:
        metadata = file.metadata()
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-5])
    (tmp_path / "text").write_text("hello, this is not a head")
    (tmp_path / "empty").write_bytes(b"")
    write_other(tmp_path / "foreign", {"format": "pt"})
    write_other(tmp_path / "newer", {**metadata, "version": "3"})
    write_other(tmp_path / "encoderless", {**metadata, "version": "2"})
    write_other(tmp_path / "names", {**metadata, "class_names": '["a", "b", "c"]'})
    write_other(tmp_path / "json", {**metadata, "cross_validation": "{"})
    save_file({"weight": torch.full((2, 12), torch.nan), "bias": torch.zeros(2)}, tmp_path / "nan", metadata)
    save_file({"weight": torch.zeros(2, 12)}, tmp_path / "biasless", metadata)
    for name in (
        "cut",
        "text",
        "empty",
        "foreign",
        "newer",
        "names",
        "json",
        "nan",
        "biasless",
        "missing",
        "encoderless",
    ):
        with pytest.raises(WeightsError, match=f"{name}: expected"):
            EmbeddingClassifier.load(tmp_path / name, encoder)
    with pytest.raises(WeightsError, match="expected"):
        EmbeddingClassifier.load(tmp_path, encoder)
    with pytest.raises(WeightsError, match="no-such-folder"):
        EmbeddingClassifier.fit(encoder, x, y).save(tmp_path / "no-such-folder" / "head")


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        (lambda x: x.mean((1, 2)) * torch.nan, "NaN"),
        (lambda x: x[:, 0], r"shape \(10, D\), got a Tensor of shape \(10, 96, 64\)"),
        (lambda x: x.mean((1, 2, 3)), r"shape \(10, D\)"),
        (lambda x: x.mean((1, 2))[:3], r"shape \(10, D\)"),
        (lambda x: [0], r"shape \(10, D\)"),
        (lambda x: x.mean((1, 2)) * 0, "not zero"),
        (lambda x: torch.ones(len(x), 4), "differ between examples"),
    ],
)
def test_broken_encoders_are_refused(broken: Any, match: str) -> None:
    with pytest.raises(EncoderError, match=match):
        EmbeddingClassifier.fit(broken, *examples(10, 2))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"y": [0] * 9 + [5]}, ArgumentError, "from 0 to 2"),
        ({"y": [-1] + [0, 1] * 4 + [2]}, ArgumentError, "-1 to 2"),
        ({"y": [0.0, 1.0] * 5}, ArgumentTypeError, "integers"),
        ({"y": ["a", "b"] * 5}, ArgumentTypeError, "integers"),
        ({"y": [0, 1, 2]}, ShapeError, "each of the 10 examples"),
        ({"y": [1] * 10}, DataError, "one class only, 'b'"),
        ({"y": [0, 1] * 5}, DataError, "none of .'c'."),
        ({"class_names": ["a", "b"]}, ArgumentError, "one for each class name"),
        ({"class_names": ["a", "b", "b"]}, ArgumentError, "different names"),
        ({"class_names": "abc"}, ArgumentTypeError, "list of names"),
        ({"groups": [1, 2]}, ShapeError, "each of the 10 examples"),
        ({"groups": [None] * 10}, ArgumentError, "missing"),
        ({"groups": [[1]] * 10}, ArgumentTypeError, "numbers or strings"),
        ({"x": torch.zeros(10, 96, 64)}, ShapeError, "examples of shape"),
        ({"x": torch.full((10, 1, 96, 64), torch.nan)}, ArgumentError, "finite"),
        ({"encoder": 3}, ArgumentTypeError, "callable"),
    ],
)
def test_arguments_that_cannot_work_are_refused(change: dict[str, Any], error: type[Exception], match: str) -> None:
    x, y = examples(10, 3)
    arguments = {"encoder": lambda x: x.mean((1, 2)), "x": x, "y": y, "class_names": ["a", "b", "c"], "groups": None}
    with pytest.raises(error, match=match):
        EmbeddingClassifier.fit(**(arguments | change))
