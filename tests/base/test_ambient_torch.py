"""What the caller's program has switched on in torch
reaches the caller's encoder and nothing of ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from reference.models import rand, relu_encoder
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.base.networks import callers_torch, neutral_torch
from relax_quantus.relax import similarity
from relax_quantus.relax.estimators import ESTIMATORS
from relax_quantus.relax.fills import FILLS
from relax_quantus.relax.masks import STRATEGIES
from relax_quantus.views import boxes as regions
from relax_quantus.views import maps as plotting
from relax_quantus.views import sounds as listening

F32 = torch.float32
ENCODER = relu_encoder(24 * 16, size=6, dtype=F32)
X = rand(2, 1, 24, 16, dtype=F32)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def coarse_products() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


SURROUNDINGS: dict[str, Callable[[], Any]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float16 by default": lambda: default_dtype(torch.float16),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "float64 by default": lambda: default_dtype(torch.float64),
    "meta by default": lambda: default_device("meta"),  # whatever names no device ends there, as on a GPU
    "meta by context": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
    "gradients": torch.enable_grad,
    "deterministic": deterministic,
    "coarse products": coarse_products,
}
OF_THE_ENCODER = {"coarse products"}
"""What changes the caller's encoder, too, as the caller wants it."""


def state() -> tuple[Any, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
    )


class InDoubles(nn.Module):
    """An encoder whose products no setting makes coarser; it notes the setting it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = relu_encoder(24 * 16, size=6, dtype=torch.float64)
        self.products: set[str] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.products.add(torch.get_float32_matmul_precision())
        return self.inner(x.double()).float()


def everything(encoder: nn.Module = ENCODER) -> dict[str, Tensor]:
    """Maps by every strategy, fill, estimator and
    similarity, both domains, and what front ends make.
    """
    explained = {}
    for masks in STRATEGIES.own_names():
        explained[f"masks {masks}"] = rq.RELAX(encoder, masks).explain(X, "silence", n_samples=70)
    for fill in FILLS:
        explained[f"fill {fill}"] = rq.RELAX(encoder, "time").explain(X, fill, n_samples=40)
    for estimator in ESTIMATORS:
        explained[f"estimator {estimator}"] = rq.RELAX(encoder, estimator=estimator).explain(X, 0.5, n_samples=40)
    for kind in ("cosine", "dot", "negative_euclidean"):
        explained[f"similarity {kind}"] = rq.RELAX(encoder, "time", kind).explain(X, n_samples=40, reference=X[0])
    explained["amplitude"] = rq.RELAX(encoder, "frequency", domain="amplitude").explain(X, -4.6, n_samples=40)
    explained["tolerance"] = rq.RELAX(encoder, "time").explain(X, n_samples=600, tolerance=0.5)
    groups = torch.from_numpy(np.arange(24 * 16).reshape(1, 24, 16) // 48)
    explained["groups"] = rq.RELAX(encoder).explain(X, "blur", feature_mask=groups, n_samples=40)
    found = {name: e.centred() for name, e in explained.items()}
    found["error"] = explained["masks random"].standard_error
    found["u_relax"] = explained["masks random"].u_relax()
    found["spearman"] = explained["masks random"].spearman()
    similarities = rq.RELAX(encoder).similarities(X, n_samples=40)
    found["similarities"] = similarities
    found["estimate"] = rq.RELAX(encoder).estimate(X, similarities).importance
    found["explain_func"] = torch.from_numpy(rq.explain_func(encoder, X.numpy(), n_samples=40))
    return found


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return everything()


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_results_do_not_depend_on_what_the_caller_has_switched_on(name: str, expected: dict[str, Tensor]) -> None:
    encoder = InDoubles() if name in OF_THE_ENCODER else ENCODER
    expected = everything(encoder) if name in OF_THE_ENCODER else expected
    with SURROUNDINGS[name]():
        before = state()
        found = everything(encoder)
        assert state() == before
    assert found.keys() == expected.keys()
    assert not found["error"].is_inference()
    for what, values in expected.items():
        assert found[what].device == values.device, what
        torch.testing.assert_close(found[what], values, rtol=0, atol=0, equal_nan=True, msg=what)
    if isinstance(encoder, InDoubles):
        assert encoder.products == {"highest", "medium"}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_strategies_and_fills_by_themselves(name: str) -> None:
    def drawn() -> list[Tensor]:
        shape = (1, 24, 16)
        masks = [
            rq.masks.get(masks, edges=edges).sample(5, shape, torch.Generator("cpu").manual_seed(1))
            for masks in STRATEGIES.own_names()
            for edges in ("smooth", "hard")
        ]
        levels = [rq.fills.get(fill).level(X).expand_as(X) for fill in FILLS]
        noise = rq.fills.get("noise").draw(3, X, torch.Generator("cpu").manual_seed(1))
        return [*masks, *levels, noise]

    usual = drawn()
    with SURROUNDINGS[name]():
        found = drawn()
    for here, there in zip(found, usual, strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=0)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_front_ends_heads_and_similarity_models(name: str) -> None:
    wave = 0.1 * rand(16_000, dtype=F32)
    spectrum = rq.TransformFrontEnd(Spectrum(), sample_rate_hz=16_000)
    front_end, y = rq.LogMel(), np.arange(12) % 2
    many = rand(12, 1, 24, 16, dtype=F32) + torch.from_numpy(y.astype(np.float32))[:, None, None, None]

    def made(head: nn.Module, model: nn.Module) -> list[Tensor]:
        anchors = rq.SimilarityModel(ENCODER, model.anchors)
        fitted = rq.EmbeddingClassifier.fit(ENCODER, many, y)
        for module in (fitted, anchors):
            assert not any(v.is_inference() for v in module.state_dict().values())
        h = head.embed(many)  # by the caller's own rules
        return [front_end(wave), spectrum(wave), fitted.head.weight, anchors.anchors, head.head(h.float()), h]

    clf, model = rq.EmbeddingClassifier.fit(ENCODER, many, y), rq.SimilarityModel(ENCODER, ENCODER(many[:3]).detach())
    usual = made(clf, model)
    with SURROUNDINGS[name]():
        found = made(clf, model)
        assert clf(many).dtype == model(many).dtype == F32
        torch.testing.assert_close(clf(many), usual[4], rtol=0.05, atol=0.05)
    allowed = 1e-4 if name in OF_THE_ENCODER else 0
    for here, there in zip(found[:4], usual[:4], strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=allowed)


class Spectrum(nn.Module):
    """A transform with a matrix product, as mel filters are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", rand(8, 33, dtype=F32).abs())

    def forward(self, wave: Tensor) -> Tensor:
        return self.filters @ wave.unfold(-1, 33, 100).transpose(1, 2).abs()


def test_products_of_heads_and_similarity_models_are_not_lowered() -> None:
    h = rand(7, 6, dtype=F32)
    clf = rq.EmbeddingClassifier.fit(nn.Identity(), h, np.arange(7) % 2)
    model = rq.SimilarityModel(nn.Identity(), h[:2])
    game = rq.SimilarityForward(nn.Identity(), lambda a, b: b @ a.T @ torch.ones(len(a), 1))
    usual = clf(h), model(h), game(h, h)
    with torch.autocast("cpu", torch.bfloat16):
        found = clf(h), model(h), game(h, h)
    for here, there in zip(found, usual, strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=0)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_pictures_boxes_and_sounds(name: str, tmp_path: Path) -> None:
    mpl.use("Agg")
    explanation = rq.RELAX(relu_encoder(96 * 64, dtype=F32), "time_frequency").explain(
        x := rand(1, 1, 96, 64, dtype=F32), n_samples=40
    )
    wave = 0.1 * np.random.default_rng(0).standard_normal(15_600).astype(np.float32)

    def made() -> list[Any]:
        parts = listening.separate(wave, 16_000, listening.gain(explanation.centred()))
        figure = plotting.explanation_figure(x, {"time_frequency": explanation})
        assert plotting.save_png(figure, tmp_path / "picture.png").stat().st_size > 0
        assert explanation.plot(x) is not None
        return [
            parts.kept,
            len(regions.regions(explanation.centred())),
            rq.stitch(explanation, 0.96).importance.numpy(),
        ]

    usual = made()
    with SURROUNDINGS[name]():
        found = made()
    for here, there in zip(found, usual, strict=True):
        np.testing.assert_array_equal(here, there)


def test_a_bundled_encoder_is_the_same_whatever_the_default_type_and_goes_to_the_default_device() -> None:
    usual = rq.load_encoder("vggish_mini").state_dict()
    with default_dtype(torch.float16), torch.inference_mode():
        found = rq.load_encoder("vggish_mini").state_dict()
    for key, value in usual.items():
        assert not found[key].is_inference()
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)
    with torch.device("meta"):
        assert {p.device.type for p in rq.load_encoder("vggish_mini").parameters()} == {"meta"}


# -- the caller's own code has the caller's torch --------------------------------------------------


def test_the_encoder_has_the_callers_settings_and_the_precision_of_the_call() -> None:
    seen: list[tuple[Any, ...]] = []

    def encoder(x: Tensor) -> Tensor:
        ones = torch.ones(3)
        seen.append((ones.dtype, ones.device.type, torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()))
        return ENCODER(x)

    with default_dtype(torch.float64), default_device("meta"), torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            rq.RELAX(encoder, "time").explain(X, n_samples=20)
        assert set(seen) == {(torch.float64, "meta", False, True)}
        seen.clear()
        rq.RELAX(encoder, "time", precision="bfloat16").explain(X, n_samples=20)
        assert {autocast for _, _, autocast, _ in seen} == {True}


def test_callables_of_the_callers_have_the_callers_settings() -> None:
    seen = []

    def fill(x: Tensor) -> Tensor:
        seen.append(torch.ones(1).dtype)
        return x.mean()

    def compare(h: Tensor, masked: Tensor) -> Tensor:
        seen.append(torch.ones(1).dtype)
        return similarity.cosine(h, masked)

    with default_dtype(torch.float64):
        rq.RELAX(ENCODER, "time", compare).explain(X, fill, n_samples=20)
    assert set(seen) == {torch.float64}


def test_gradients_flow_back_through_modules_of_ours() -> None:
    x = X.clone().requires_grad_()
    model = rq.SimilarityModel(ENCODER, ENCODER(X).detach())
    with torch.autocast("cpu", torch.bfloat16):
        model(x).sum().backward()
    assert x.grad is not None
    wave = (0.1 * rand(16_000, dtype=F32)).requires_grad_()
    rq.LogMel()(wave).sum().backward()
    assert wave.grad is not None


def test_an_error_leaves_everything_as_it_was() -> None:
    def broken(x: Tensor) -> Tensor:
        raise KeyError("mine")

    with default_dtype(torch.float64), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        before = state()
        with pytest.raises(KeyError, match="mine"):
            rq.RELAX(broken).explain(X, n_samples=20)
        assert state() == before


def test_nesting_gives_the_callers_settings_back_inside_and_ours_after() -> None:
    with default_dtype(torch.float64), neutral_torch():
        with neutral_torch(), callers_torch():
            assert torch.get_default_dtype() == torch.float64
            with neutral_torch():
                assert torch.get_default_dtype() == torch.float32
            assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("precision", ["medium", "high"])
def test_our_own_products_keep_all_digits(precision: str) -> None:
    products: Any = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul
    torch.set_float32_matmul_precision(precision)
    try:
        usual = [p.fp32_precision for p in products]
        with neutral_torch():
            assert {p.fp32_precision for p in products} == {"ieee"}
            with callers_torch():
                assert [p.fp32_precision for p in products] == usual
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


def test_threads_that_share_a_default_type_end_with_it() -> None:
    usual, found, errors = rq.RELAX(ENCODER, "time").attribute(X, n_samples=64), [], []

    def work() -> None:
        try:
            for _ in range(3):
                found.append(rq.RELAX(ENCODER, "time").attribute(X, n_samples=64))
        except Exception as error:
            errors.append(error)

    with default_dtype(torch.bfloat16):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.get_default_dtype() == torch.bfloat16
    assert not errors
    assert len(found) == 12
    assert all(torch.equal(values, usual) for values in found)
