"""Networks as their users have them: in training mode, of a
fixed batch, in another type, in 16 bits, without a batch axis.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference.models import rand, relu_encoder
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.base.networks import evaluation_mode, modules_behind
from relax_quantus.errors import ArgumentTypeError, EncoderError, ShapeError
from relax_quantus.relax import execution

F32 = torch.float32
X = rand(4, 1, 24, 16, dtype=F32)


def convolutional() -> nn.Sequential:
    generator = torch.Generator().manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(3), nn.Flatten()
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return net.train()


# -- training mode ---------------------------------------------------------------------------------


class Wrapper:
    """A callable that holds a network in an attribute."""

    def __init__(self, net: nn.Module) -> None:
        self.inside = {"net": [net]}

    def __call__(self, x: Tensor) -> Tensor:
        return self.inside["net"][0](x)

    def embed(self, x: Tensor) -> Tensor:
        return self(x)


FORMS: dict[str, Callable[[nn.Module], Any]] = {
    "module": lambda net: net,
    "submodule": lambda net: nn.Sequential(nn.Identity().eval(), net).eval() and _only_inside(net),
    "method": lambda net: net.forward,
    "lambda": lambda net: lambda x: net(x),
    "partial": lambda net: functools.partial(torch.nn.Module.__call__, net),
    "object": Wrapper,
    "object's method": lambda net: Wrapper(net).embed,
    "default": lambda net: _with_default(net),
}


def _only_inside(net: nn.Module) -> nn.Module:
    """A network in eval mode one part of which is in training mode."""
    whole = nn.Sequential(nn.Identity(), net).eval()
    net.train()
    return whole


def _with_default(net: nn.Module) -> Callable[[Tensor], Tensor]:
    def encode(x: Tensor, inner: nn.Module = net) -> Tensor:
        return inner(x)

    return encode


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_samples", [20, 200])
def test_a_network_in_training_mode_is_run_in_eval_mode_and_left_as_found(form: str, n_samples: int) -> None:
    net = convolutional()
    net[3].eval()
    encoder = FORMS[form](net)
    expected_modes, before = [m.training for m in net.modules()], {k: v.clone() for k, v in net.state_dict().items()}
    relax = rq.RELAX(encoder, "time")
    batch = relax.explain(X, "silence", n_samples=n_samples).importance
    alone = relax.attribute(X[:1], "silence", n_samples=n_samples)
    torch.testing.assert_close(alone, batch[:1], rtol=0, atol=1e-5)
    assert [m.training for m in net.modules()] == expected_modes
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    evaluated = rq.RELAX(net.eval(), "time").attribute(X, "silence", n_samples=n_samples)
    torch.testing.assert_close(batch, evaluated, rtol=0, atol=1e-5)


@pytest.mark.parametrize("run", ["attribute", "explain", "similarities", "plan"])
def test_modes_come_back_when_it_raises(run: str) -> None:
    net = convolutional()
    net.append(Refusing())
    with pytest.raises(KeyError):
        getattr(rq.RELAX(net), run)(X)
    assert all(m.training for m in net.modules())


class Refusing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("mine")


class Counting(nn.Module):
    """Changes buffers in eval mode: in place, by replacing one, and a cache that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("cache", torch.zeros(0), persistent=False)
        self.register_buffer("nothing", None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.mean().reshape(1)
        if len(self.cache) < x.shape[-1]:
            self.cache = torch.arange(x.shape[-1], dtype=x.dtype)
        return (x * self.cache).flatten(1)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_buffers_do_not_change(mode: Any) -> None:
    net = Counting()
    with mode():
        rq.RELAX(net).attribute(X, n_samples=20)
        rq.explain_func(net, X.numpy(), n_samples=20)
        rq.EmbeddingClassifier.fit(net, X, np.array([0, 1, 0, 1]))
    assert int(net.calls) == 0
    assert float(net.mean) == 0
    assert len(net.cache) == 16  # a cache that grew is still the network's


def test_threads_that_share_a_network_leave_it_in_its_mode() -> None:
    net, inside, errors = convolutional(), [], []
    both = threading.Barrier(2)

    def work(first: bool) -> None:
        try:
            with evaluation_mode(net):
                both.wait(10)
                if first:
                    return
                both.wait(10)
                inside.append(any(m.training for m in net.modules()))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    threads[0].join(10)
    both.wait(10)
    threads[1].join(10)
    assert not errors
    assert inside == [False]
    assert all(m.training for m in net.modules())


def test_only_modules_that_an_encoder_runs_are_looked_for() -> None:
    assert modules_behind(torch.relu) == []
    assert modules_behind(abs) == []
    cycle: list[Any] = []
    cycle.append(cycle)
    assert modules_behind(functools.partial(print, cycle)) == []


# -- fixed batches ---------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Takes so many examples at a time and no other number, as exported and traced networks do."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.net = rows, convolutional()
        self.net[0] = nn.Conv2d(1, 6, 5, 3)

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        if len(x) != self.rows:
            raise ValueError(f"takes {self.rows} examples, got {len(x)}")
        return self.net(x)


@pytest.mark.parametrize(("rows", "batch", "masks"), [(1, 1, 1), (8, 1, 8), (8, 4, 2), (4, 4, 1), (7, 1, 7)])
@pytest.mark.parametrize("n_samples", [3, 64, 130])
def test_what_the_caller_fixed_holds_for_every_forward(rows: int, batch: int, masks: int, n_samples: int) -> None:
    net, x = Fixed(rows).eval(), X[:batch]
    relax, free = rq.RELAX(net, "time"), rq.RELAX(net.net, "time")
    keywords: dict[str, Any] = {"n_samples": n_samples, "baselines": "noise"}
    for kind in ("random", "time_frequency"):
        found = rq.RELAX(net, kind).explain(x, perturbations_per_eval=masks, **keywords)
        expected = rq.RELAX(net.net, kind).explain(x, **keywords)
        for field in ("importance", "fully_masked_similarity", "mean_similarity"):
            torch.testing.assert_close(getattr(found, field), getattr(expected, field), rtol=0, atol=2e-5)
    found = relax.attribute(x, reference=X[3], perturbations_per_eval=masks, **keywords)
    torch.testing.assert_close(found, free.attribute(x, reference=X[3], **keywords), rtol=0, atol=2e-5)
    assert relax.plan(x, n_samples, masks).perturbations_per_eval == min(masks, n_samples)
    ours = rq.explain_func(net, x.numpy(), n_samples=n_samples, perturbations_per_eval=masks)
    np.testing.assert_allclose(ours, rq.explain_func(net.net, x.numpy(), n_samples=n_samples), atol=2e-5)


@pytest.mark.parametrize(("rows", "batch", "masks"), [(1, 1, 1), (8, 4, 2)])
def test_fixed_batches_under_a_tolerance_with_arguments_and_timed_precisions(
    rows: int, batch: int, masks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = Fixed(rows).eval(), X[:batch]
    stopped = rq.RELAX(net, "time").explain(x, n_samples=900, perturbations_per_eval=masks, tolerance=0.3)
    free = rq.RELAX(net.net, "time").explain(x, n_samples=900, tolerance=0.3)
    assert torch.equal(stopped.n_samples, free.n_samples)
    torch.testing.assert_close(stopped.importance, free.importance, rtol=0, atol=2e-5)
    argued = rq.RELAX(net, "time").attribute(
        x, additional_forward_args=torch.ones(batch, 2), n_samples=31, perturbations_per_eval=masks
    )
    torch.testing.assert_close(argued, rq.RELAX(net.net, "time").attribute(x, n_samples=31), rtol=0, atol=2e-5)
    monkeypatch.setattr(execution, "has_bfloat16", lambda _: True)
    automatic = rq.RELAX(net, "time", precision="auto")
    automatic.attribute(x, n_samples=900, perturbations_per_eval=masks)


def test_what_takes_any_batch_is_run_on_no_more_rows_than_before() -> None:
    rows = []

    def encoder(x: Tensor) -> Tensor:
        rows.append(len(x))
        return x.flatten(1)

    rq.RELAX(encoder, "time").explain(X, n_samples=10, perturbations_per_eval=4)
    assert rows == [4, 4, 16, 16, 8]


def test_an_encoder_that_takes_nothing_says_so_itself() -> None:
    def encoder(x: Tensor) -> Tensor:
        raise ValueError(f"never {len(x)}")

    with pytest.raises(ValueError, match="never 4"):
        rq.RELAX(encoder).attribute(X, n_samples=9, perturbations_per_eval=3)


# -- types and axes --------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
@pytest.mark.parametrize("weights", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_samples", [20, 200])
def test_float64_inputs_of_a_float32_network_work_and_the_other_way_round(
    given: torch.dtype, weights: torch.dtype, n_samples: int
) -> None:
    net = convolutional().eval()
    expected = rq.RELAX(net).explain(X, "silence", n_samples=n_samples)
    found = rq.RELAX(net.to(weights)).explain(X.to(given), "silence", n_samples=n_samples)
    assert found.importance.dtype == found.standard_error.dtype == given
    torch.testing.assert_close(found.importance.float(), expected.importance, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        found.fully_masked_similarity.float(), expected.fully_masked_similarity, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("encoder", [lambda net: net, lambda net: lambda x: net(x)], ids=["module", "lambda"])
def test_inputs_of_a_type_that_the_weights_do_not_take_are_named(encoder: Any) -> None:
    net = convolutional().eval().half()
    line = (
        r"^inputs: expected torch.float16, the type of the encoder's weights, got .*float32; convert them with [^\n]*$"
    )
    with pytest.raises(ArgumentTypeError, match=line):
        rq.RELAX(encoder(net)).attribute(X, n_samples=9)


@pytest.mark.parametrize(
    ("x", "missing"),
    [(X[0], "None"), (X[:1, 0], "None"), (X[0, 0], "None, None")],
    ids=["(1,T,F)", "(1,T,F)'", "(T,F)"],
)
def test_a_missing_batch_axis_is_named(x: Tensor, missing: str) -> None:
    line = (
        rf"^inputs: expected examples of shape \(B, \.\.\.\), .* the encoder takes inputs\[{missing}\], so pass that\.$"
    )
    net = nn.Sequential(*convolutional().eval(), nn.Linear(54, 5)).eval()
    for function in (lambda: rq.RELAX(net).attribute(x, n_samples=9), lambda: rq.explain_func(net, x.numpy())):
        with pytest.raises(ShapeError, match=line):
            function()


def test_other_misfits_stay_the_encoders_own() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        rq.RELAX(convolutional()).attribute(rand(2, 3, 24, 16, dtype=F32), n_samples=9)
    with pytest.raises(EncoderError, match="embeddings of shape"):
        rq.RELAX(nn.Identity()).attribute(X, n_samples=9)


@pytest.mark.parametrize("shape", [(2, 3, 24, 16), (2, 24, 16), (2, 384), (2, 1, 4, 6, 16)])
def test_explain_func_takes_what_relax_takes(shape: tuple[int, ...]) -> None:
    x = rand(*shape, dtype=F32)
    encoder = relu_encoder(x[0].numel(), dtype=F32)
    expected = rq.RELAX(encoder).explain(x, 0.0, n_samples=30).centred()
    found = rq.explain_func(encoder, x.numpy(), baselines=0.0, n_samples=30)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


# -- 16 bits and whole numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("masks", ["random", "time_frequency"])
def test_maps_of_inputs_in_16_bits_are_float32(dtype: torch.dtype, masks: str) -> None:
    x = rand(2, 1, 24, 16, dtype=torch.float64).to(dtype)
    encoder = relu_encoder(24 * 16, size=6, dtype=torch.float64)
    found = rq.RELAX(lambda x: encoder(x.double()), masks).explain(x, "mean", n_samples=100)
    exact = rq.RELAX(encoder, masks).explain(
        x.double(), x.float().mean((1, 2, 3), keepdim=True).to(dtype).double(), n_samples=100
    )
    spread = float(exact.importance.std())
    for field in (
        "importance",
        "uncertainty",
        "standard_error",
        "neutral",
        "mean_similarity",
        "fully_masked_similarity",
    ):
        assert getattr(found, field).dtype == F32
    # What is left is the rounding of the masked copies to the inputs' type, which the encoder
    # wants.
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(found.centred(), exact.centred().float(), rtol=0, atol=max(1e-6, rounding * spread))
    assert found.importance.unique().numel() > 0.9 * found.importance.numel()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_maps_of_whole_numbers_are_float32(dtype: torch.dtype) -> None:
    x = (rand(2, 1, 24, 16) > 0).to(dtype)
    encoder = relu_encoder(24 * 16, dtype=F32)
    found = rq.RELAX(lambda x: encoder(x.float())).explain(x, n_samples=50)
    assert found.importance.dtype == found.mean_similarity.dtype == F32


def test_similarities_of_embeddings_in_16_bits_are_float32() -> None:
    h = rand(3, 8, dtype=torch.bfloat16)
    assert rq.SimilarityModel(nn.Identity(), h)(h).dtype == F32
    for kind in ("cosine", "dot", "negative_euclidean"):
        assert rq.SimilarityForward(nn.Identity(), kind)(h, h).dtype == F32


@pytest.mark.parametrize("form", ["scripted", "traced", "frozen", "exported"])
def test_compiled_networks_are_explained_as_they_are(form: str) -> None:
    net = convolutional()
    with torch.no_grad():
        forms: dict[str, Callable[[], Any]] = {
            "scripted": lambda: torch.jit.script(net),  # in training mode
            "traced": lambda: torch.jit.trace(net.eval(), X[:1]),
            "frozen": lambda: torch.jit.freeze(torch.jit.script(net.eval())),
            "exported": lambda: torch.export.export(net.eval(), (X[:1],)).module(),  # one example at a time
        }
        made = forms[form]()
    x, masks = (X[:1], 1) if form == "exported" else (X, None)
    found = rq.RELAX(made, "time").attribute(x, n_samples=130, perturbations_per_eval=masks)
    torch.testing.assert_close(found, rq.RELAX(net.eval(), "time").attribute(x, n_samples=130), rtol=0, atol=1e-5)
    if form == "scripted":
        assert made.training
    model = rq.SimilarityModel(made, made(X[:1]).detach())
    assert rq.explain_func(model, X[:1].numpy(), n_samples=20, perturbations_per_eval=1).shape == (1, 1, 24, 16)


class Hidden(nn.Module):
    """A network that its module does not know as a part."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = [inner]

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.inner[0](x)
        return h


@pytest.mark.parametrize("way", ["in a list of a module", "in a comprehension", "in a callable's slot", "by a module"])
def test_networks_that_no_search_finds_run_in_eval_mode(way: str) -> None:
    inner = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 4), nn.Dropout(0.5))
    inner.train()

    class Slots:
        __slots__ = ("f",)

        def __init__(self) -> None:
            self.f = inner

        def __call__(self, x: Tensor) -> Tensor:
            h: Tensor = self.f(x)
            return h

    module = types.ModuleType("mine")
    module.net = inner  # type: ignore[attr-defined]
    ways: dict[str, Any] = {
        "in a list of a module": Hidden(inner),
        "in a comprehension": lambda x: torch.cat([inner(part) for part in x.split(8)]),
        "in a callable's slot": Slots(),
        "by a module": lambda x: module.net(x),
    }
    x = torch.rand(3, 1, 8, 6, generator=torch.Generator().manual_seed(0))
    relax = rq.RELAX(ways[way], masks="time", estimator="weighted")
    before = inner[1].running_mean.clone()
    batch = relax.explain(x, n_samples=60)
    assert torch.equal(inner[1].running_mean, before)
    assert all(part.training for part in inner.modules())
    alone = relax.explain(x[1:2], n_samples=60)
    torch.testing.assert_close(batch.importance[1:2], alone.importance)
