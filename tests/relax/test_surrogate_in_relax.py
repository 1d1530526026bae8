"""The surrogate estimator as RELAX uses it: when it is taken, inputs of every kind, and devices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import relax_quantus as rq
from tests.reference.models import Bernoulli, rand, relu_encoder

pytestmark = pytest.mark.usefixtures("few_states")

NAMES = rq.masks.STRATEGIES.names()


class Squared(rq.masks.Random):  # type: ignore[name-defined, misc]
    """A user's strategy that changes what a built-in
    one draws, but not what it says of its distribution.
    """

    def build(self, uniform: Tensor, frames: int, bands: int) -> Tensor:
        """Square the values."""
        return super().build(uniform, frames, bands).square()


def test_says_what_it_was() -> None:
    x, encoder = rand(2, 1, 6, 5), relu_encoder(30)
    for name in NAMES:
        explained = rq.RELAX(encoder, masks=name, estimator="surrogate").explain(x, n_samples=40)
        assert explained.estimator == "surrogate"
    for masks, options in ((Bernoulli(), {}), ("random", {"feature_mask": torch.arange(30).reshape(1, 1, 6, 5) // 4})):
        found, weighted = (
            rq.RELAX(encoder, masks=masks, estimator=e).explain(x, n_samples=40, **options)
            for e in ("surrogate", "weighted")
        )
        assert found.estimator == "weighted"
        assert torch.equal(found.importance, weighted.importance)
    both = rq.RELAX(lambda a, b: encoder(a) + encoder(b), estimator="surrogate").explain((x, x + 1), n_samples=40)
    assert [e.estimator for e in both] == ["weighted", "weighted"]
    changed = rq.RELAX(encoder, masks=Squared(), estimator="surrogate").explain(x, n_samples=40)
    assert changed.estimator == "weighted"


INPUTS = {
    "bands alone": rand(2, 9),
    "no channel": rand(2, 6, 5),
    "channels": rand(2, 3, 6, 5),
    "one band": rand(2, 1, 6, 1),
    "one entry": rand(2, 1),
    "bool": rand(2, 6, 5) > 0,
    "integer": (4 * rand(2, 6, 5)).long(),
    "complex": torch.complex(rand(2, 6, 5), rand(2, 6, 5, seed=1)),
    "half": rand(2, 1, 6, 5).half(),
    "huge": 1e200 * rand(2, 1, 6, 5),
    "tiny": 1e-200 * rand(2, 1, 6, 5),
    "equal to the fill": torch.zeros(2, 1, 6, 5, dtype=torch.float64),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_every_kind(name: str, kind: str) -> None:
    x = INPUTS[kind]
    scale = float(x.abs().max()) or 1.0 if x.is_floating_point() else 1.0

    def encoder(copies: Tensor) -> Tensor:
        flat = (copies.abs() if copies.is_complex() else copies.double() / scale).flatten(1).double()
        return (flat @ rand(flat.shape[1], 3, seed=3)).tanh() + 0.5

    weighted, found = (
        rq.RELAX(encoder, masks=name, estimator=e).explain(x, n_samples=150) for e in ("weighted", "surrogate")
    )
    assert found.estimator == "surrogate"
    assert found.importance.shape == x.shape
    assert torch.equal(found.standard_error.isnan(), weighted.standard_error.isnan())
    assert bool(found.standard_error.isnan().any()) == (
        kind == "equal to the fill" or (kind, name) == ("one entry", "random")
    )
    error = 6 * weighted.standard_error.double().nan_to_num(0) + 1e-3
    assert bool(((found.importance - weighted.importance).abs().double() <= error).all())


@pytest.mark.parametrize("name", NAMES)
def test_estimate_repeats_explain(name: str) -> None:
    x, relax = rand(2, 1, 6, 5), rq.RELAX(relu_encoder(30), masks=name, estimator="surrogate")
    whole = relax.explain(x, baselines=-1.0, n_samples=150)
    again = relax.estimate(x, relax.similarities(x, baselines=-1.0, n_samples=150), baselines=-1.0)
    torch.testing.assert_close(again.importance, whole.importance, atol=1e-9, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_on_the_cpu() -> None:
    for name in NAMES:
        found = [
            rq.RELAX(relu_encoder(30, dtype=torch.float32).to(device), masks=name, estimator="surrogate").explain(
                rand(2, 1, 6, 5, dtype=torch.float32).to(device), n_samples=1500
            )
            for device in ("cpu", "cuda")
        ]
        assert found[1].importance.is_cuda
        torch.testing.assert_close(found[1].importance.cpu(), found[0].importance, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_any_default_type_of_torch(name: str) -> None:
    """Features are float32 whatever new tensors are by default."""
    x = torch.rand(1, 1, 12, 8, generator=torch.Generator().manual_seed(1))
    maps = []
    for dtype in (torch.float32, torch.float64):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            maps.append(rq.RELAX(lambda z: z.flatten(1).sigmoid(), masks=name).attribute(x, n_samples=200))
        finally:
            torch.set_default_dtype(before)
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-5)


def test_it_is_the_default() -> None:
    explanation = rq.RELAX(lambda z: z.flatten(1)).explain(torch.rand(1, 1, 12, 8), n_samples=40)
    assert explanation.estimator == rq.estimators.DEFAULT == "surrogate"
