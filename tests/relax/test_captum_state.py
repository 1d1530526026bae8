"""What Captum asks of a call besides its result: chunks and seeds
that do not matter or do, progress, and nothing changed afterwards.
"""

from __future__ import annotations

import copy
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from reference.models import Bernoulli, rand
from small_relax import ENCODER, EXACT, X, relax
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError

# -- chunks, seeds, progress -----------------------------------------------------------------------


@pytest.mark.parametrize("baselines", ["silence", "noise"])
@pytest.mark.parametrize("per_eval", [1, 3, 64, 1000])
def test_perturbations_per_eval_never_changes_the_result(per_eval: int, baselines: str) -> None:
    expected = relax().explain(X, baselines=baselines, n_samples=150)
    found = relax().explain(X, baselines=baselines, n_samples=150, perturbations_per_eval=per_eval)
    for field in ("importance", "uncertainty", "mean_similarity"):
        torch.testing.assert_close(getattr(found, field), getattr(expected, field), **EXACT)


@pytest.mark.parametrize(
    ("value", "error"), [(0, ArgumentError), (-1, ArgumentError), (2.5, ArgumentTypeError), (True, ArgumentTypeError)]
)
def test_perturbations_per_eval_is_validated(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^perturbations_per_eval: expected an integer of at least 1, got"):
        relax().attribute(X, n_samples=3, perturbations_per_eval=value)


def test_seeds() -> None:
    def run(seed: int | None) -> Tensor:
        return relax().attribute(X, baselines="noise", n_samples=20, seed=seed)

    assert torch.equal(run(0), run(0))
    assert torch.equal(relax().attribute(X, baselines="noise", n_samples=20), run(0))
    assert not torch.equal(run(0), run(1))
    assert not torch.equal(run(None), run(None))
    assert torch.equal(run(2**63 - 1), run(2**63 - 1))


@pytest.mark.parametrize("seed", [0, None])
def test_global_generators_are_untouched(seed: int | None) -> None:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    relax().explain(X, baselines="noise", n_samples=20, seed=seed)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == str(states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_global_seeds_have_no_influence() -> None:
    torch.manual_seed(1)
    first = relax().attribute(X, baselines="noise", n_samples=20)
    torch.manual_seed(2)
    assert torch.equal(relax().attribute(X, baselines="noise", n_samples=20), first)


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    relax().attribute(X, n_samples=100)
    assert capsys.readouterr().err == ""
    relax().attribute(X, n_samples=100, show_progress=True)
    text = capsys.readouterr().err
    last = re.split(r"[\r\n]+", text.strip())[-1]
    assert last.startswith("RELAX attribution: 100%")
    assert "100/100" in last


# -- what is left as it was ------------------------------------------------------------------------


class Dropping(nn.Module):
    """An encoder with dropout, batch norm and parameters that want gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


@pytest.mark.parametrize("training", [True, False])
def test_the_encoders_mode_and_gradients_are_left_as_found(training: bool) -> None:
    encoder = Dropping().double().train(training)
    encoder.layers[1].eval()
    encoder.layers[4].weight.requires_grad_(False)
    modes = [m.training for m in encoder.modules()]
    encoder.layers[1].weight.grad = torch.ones_like(encoder.layers[1].weight)
    x = X.clone().requires_grad_()
    rq.RELAX(encoder).attribute(x, n_samples=9)
    assert [m.training for m in encoder.modules()] == modes
    assert [p.requires_grad for p in encoder.parameters()] == [True, True, True, True, False, True]
    assert torch.equal(encoder.layers[1].weight.grad, torch.ones_like(encoder.layers[1].weight))
    assert all(p.grad is None for p in list(encoder.parameters())[1:])
    assert x.requires_grad
    assert x.grad is None


def test_callers_tensors_are_not_changed() -> None:
    masks = Bernoulli().sample(20, (1, 4, 3), torch.Generator().manual_seed(0))

    class Keeps:
        def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
            return masks

    tensors = {
        "x": X.clone(),
        "level": rand(1, 4, 3),
        "reference": rand(3, 4),
        "groups": torch.arange(12).reshape(1, 1, 4, 3) // 3,
        "masks": masks,
    }
    before = copy.deepcopy(tensors)
    versions = {name: t._version for name, t in tensors.items()}
    rq.RELAX(ENCODER, masks=Keeps()).explain(
        tensors["x"], baselines=tensors["level"], reference=tensors["reference"], n_samples=20
    )
    rq.RELAX(ENCODER).explain(tensors["x"], baselines="blur", feature_mask=tensors["groups"], n_samples=20)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, before[name])
        assert tensor._version == versions[name]


@pytest.mark.parametrize(
    "reference", [None, rand(1, 1, 4, 3, seed=8), rand(3, 1, 4, 3, seed=8)], ids=["own", "one", "each"]
)
def test_an_encoder_that_writes_into_its_input_does_no_harm(reference: Tensor | None) -> None:
    x, other = X.clone(), None if reference is None else reference.clone()
    in_place = nn.Sequential(nn.ReLU(inplace=True), ENCODER)
    found = rq.RELAX(in_place).explain(x, baselines=-0.5, reference=other, n_samples=20)
    expected = rq.RELAX(nn.Sequential(nn.ReLU(), ENCODER)).explain(x, baselines=-0.5, reference=other, n_samples=20)
    assert torch.equal(x, X)
    assert other is None or torch.equal(other, reference)
    torch.testing.assert_close(found.importance, expected.importance, **EXACT)
    torch.testing.assert_close(found.fully_masked_similarity, expected.fully_masked_similarity, **EXACT)


def test_no_state_between_calls() -> None:
    explainer = relax()
    before = dict(vars(explainer))
    first = explainer.attribute(X, n_samples=20)
    explainer.attribute((rand(2, 12, seed=4),), baselines="mean", n_samples=30, reference=rand(4), seed=5)
    with pytest.raises(ArgumentError):
        explainer.attribute(X, n_samples=0)
    assert vars(explainer) == before
    assert torch.equal(explainer.attribute(X, n_samples=20), first)
