"""RELAX as Quantus calls it, as a function, and the
model of similarities; nothing that is given changes.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from quantus_examples import Array
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError, EncoderError, ShapeError, UnknownNameError
from relax_quantus.quantus_bridge import SimilarityModel, explain_func
from relax_quantus.relax.masks import Time

# explain_func


def test_it_is_relax_on_the_embedding(encoder: nn.Sequential, clf: nn.Module, x: Array) -> None:
    expected = rq.RELAX(encoder, "time").explain(torch.from_numpy(x), "background", n_samples=30, seed=3)
    keywords: dict[str, Any] = {"masks": "time", "baselines": "background", "n_samples": 30, "seed": 3}
    for model in (encoder, clf):
        importance = explain_func(model, x, **keywords, map="importance")
        np.testing.assert_allclose(importance, expected.importance.numpy(), atol=1e-6)
    centred = explain_func(clf, x, **keywords)
    np.testing.assert_allclose(centred, expected.centred().numpy(), atol=1e-6)
    np.testing.assert_array_equal(explain_func(clf, x, **keywords, map="centred"), centred)
    np.testing.assert_allclose(explain_func(clf, x, **keywords, map="positive"), centred.clip(0), atol=0)
    paper = rq.RELAX(encoder, Time(stripes=4), estimator="paper").attribute(torch.from_numpy(x), 0.0, n_samples=20)
    ours = explain_func(
        clf,
        x,
        masks=Time(stripes=4),
        baselines=np.zeros((4, 1, 96, 64)),
        estimator="paper",
        n_samples=20,
        map="importance",
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
