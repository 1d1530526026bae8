"""What Captum 0.9 asks of a third-party attribution: the class,
what enters and leaves, additional arguments and targets.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from captum.attr import PerturbationAttribution
from reference.models import Bernoulli, rand, relu_encoder
from small_relax import ENCODER, EXACT, X, relax
from torch import Tensor

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError

# -- the class -------------------------------------------------------------------------------------


def test_class_and_signature() -> None:
    assert issubclass(rq.RELAX, PerturbationAttribution)
    parameters = inspect.signature(rq.RELAX.attribute).parameters
    assert list(parameters) == [
        "self", "inputs", "baselines", "target", "additional_forward_args", "feature_mask", "n_samples", "perturbations_per_eval",
        "show_progress", "reference", "seed",
    ]  # fmt: skip
    keyword_only = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    assert keyword_only == ["reference", "seed"]
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    assert defaults == {
        "baselines": None, "target": None, "additional_forward_args": None, "feature_mask": None, "n_samples": 3000,
        "perturbations_per_eval": None, "show_progress": False, "reference": None, "seed": 0,
    }  # fmt: skip


def test_name_delta_and_future() -> None:
    assert relax().get_name() == "RELAX"
    assert relax().has_convergence_delta() is False
    with pytest.raises(NotImplementedError, match="attribute_future"):
        relax().attribute_future()
    assert relax().forward_func is ENCODER


def test_the_wrapped_function_still_runs_without_gradients() -> None:
    """log_usage lies outside no_grad: `__wrapped__`, which NoiseTunnel calls, keeps no_grad."""
    wrapped = rq.RELAX.attribute.__wrapped__
    assert hasattr(wrapped, "__wrapped__")
    grads: list[bool] = []

    def encoder(x: Tensor) -> Tensor:
        grads.append(torch.is_grad_enabled())
        return ENCODER(x)

    wrapped(rq.RELAX(encoder), X, n_samples=3)
    assert grads
    assert not any(grads)
    assert torch.is_grad_enabled()


# -- inputs and outputs ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strategy", list(rq.masks.STRATEGIES))
@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 7), (2, 2, 5, 4), (2, 2, 3, 4, 3), (1, 1)])
def test_ranks_shapes_and_types(shape: tuple[int, ...], strategy: str, dtype: torch.dtype) -> None:
    x = rand(*shape, dtype=dtype)
    encoder = relu_encoder(x[0].numel(), dtype=dtype)
    result = rq.RELAX(encoder, masks=strategy).attribute(x, n_samples=9)
    assert isinstance(result, Tensor)
    assert result.shape == x.shape
    assert result.dtype == dtype
    assert result.device == x.device
    assert result.is_contiguous()
    assert not result.requires_grad


def test_inputs_that_are_not_contiguous() -> None:
    x = rand(3, 1, 3, 4).transpose(2, 3)
    result = relax().attribute(x, n_samples=9)
    assert result.is_contiguous()
    torch.testing.assert_close(result, relax().attribute(x.contiguous(), n_samples=9), **EXACT)


def test_tuples_in_tuples_out() -> None:
    alone = relax().attribute(X, n_samples=9)
    one = relax().attribute((X,), n_samples=9)
    assert isinstance(one, tuple)
    assert len(one) == 1
    assert torch.equal(one[0], alone)
    a, b = rand(2, 5), rand(2, 1, 3, 2, seed=1)
    two = rq.RELAX(lambda p, q: torch.cat([p, q.flatten(1)], 1)).attribute((a, b), n_samples=9)
    assert isinstance(two, tuple)
    assert [t.shape for t in two] == [a.shape, b.shape]
    explained = rq.RELAX(lambda p, q: torch.cat([p, q.flatten(1)], 1)).explain((a, b), n_samples=9)
    assert isinstance(explained, tuple)
    assert torch.equal(explained[1].importance, two[1])


@pytest.mark.parametrize("inputs", [[X], [X, X]])
def test_lists_are_rejected(inputs: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^inputs: expected a torch.Tensor or a tuple of them, got list"):
        relax().attribute(inputs, n_samples=3)


def test_boolean_inputs_default_to_false() -> None:
    x = torch.tensor([[True, False, True, True]])
    seen: list[Tensor] = []

    def encoder(z: Tensor) -> Tensor:
        seen.append(z.clone())
        return z.double() + 1

    result = rq.RELAX(encoder, masks=Bernoulli()).attribute(x, n_samples=50)
    assert result.dtype == torch.float32
    assert all(z.dtype == torch.bool for z in seen)
    assert not bool(torch.cat(seen)[:, 1].any())
    assert 0 < float(torch.cat(seen[1:])[:, 0].double().mean()) < 1


@pytest.mark.parametrize("estimator", list(rq.estimators.ESTIMATORS))
@pytest.mark.parametrize("baselines", [None, *rq.fills.FILLS])
def test_a_batch_equals_the_loop_over_its_examples(baselines: str | None, estimator: str) -> None:
    explainer = relax(estimator=estimator)
    whole = explainer.explain(X, baselines=baselines, n_samples=70)
    for i in range(3):
        alone = explainer.explain(X[i : i + 1], baselines=baselines, n_samples=70)
        for field in (
            "importance",
            "uncertainty",
            "standard_error",
            "mean_similarity",
            "neutral",
            "fully_masked_similarity",
        ):
            torch.testing.assert_close(getattr(whole, field)[i : i + 1], getattr(alone, field), **EXACT)


# -- additional arguments and targets --------------------------------------------------------------


def conditioned(x: Tensor, shift: Tensor, power: int, scale: Tensor) -> Tensor:
    """An encoder with a tensor an example, a plain number, and another tensor an example."""
    return ENCODER(x + shift) ** power + scale[:, None]


@pytest.mark.parametrize("per_eval", [1, 2, 7, None])
def test_additional_arguments_stay_with_their_examples(per_eval: int | None) -> None:
    shift, scale = rand(3, 1, 4, 3, seed=4), rand(3, seed=5)
    explainer = rq.RELAX(conditioned)
    whole = explainer.attribute(
        X, additional_forward_args=(shift, 2, scale), n_samples=20, perturbations_per_eval=per_eval
    )
    for i in range(3):
        row = slice(i, i + 1)
        alone = explainer.attribute(X[row], additional_forward_args=(shift[row], 2, scale[row]), n_samples=20)
        torch.testing.assert_close(whole[row], alone, **EXACT)
        by_hand = rq.RELAX(lambda z, row=row: conditioned(z, shift[row], 2, scale[row])).attribute(X[row], n_samples=20)
        torch.testing.assert_close(whole[row], by_hand, **EXACT)


def test_a_single_additional_argument_needs_no_tuple() -> None:
    shift = rand(3, 1, 4, 3, seed=4)
    explainer = rq.RELAX(lambda x, s: ENCODER(x + s))
    tuple_form = explainer.attribute(X, additional_forward_args=(shift,), n_samples=9)
    assert torch.equal(explainer.attribute(X, additional_forward_args=shift, n_samples=9), tuple_form)


def test_targets_are_refused_with_the_cosine() -> None:
    with pytest.raises(
        ArgumentError, match=r"^target: expected None with a cosine, got a target, which leaves a scalar"
    ):
        relax().attribute(X, target=1, n_samples=3)


def minus_distance(h: Tensor, masked: Tensor) -> Tensor:
    return -(masked - h).abs().sum(-1)


@pytest.mark.parametrize("target", [1, torch.tensor([0, 3, 1]), [0, 3, 1]], ids=["int", "tensor", "list"])
@pytest.mark.parametrize("per_eval", [1, 5, None])
def test_targets_are_selected_with_another_similarity(target: Any, per_eval: int | None) -> None:
    whole = relax(similarity=minus_distance).attribute(X, target=target, n_samples=20, perturbations_per_eval=per_eval)
    for i in range(3):
        column = target if isinstance(target, int) else int(target[i])
        alone = rq.RELAX(lambda x, c=column: ENCODER(x)[:, c : c + 1], similarity=minus_distance).attribute(
            X[i : i + 1], n_samples=20
        )
        torch.testing.assert_close(whole[i : i + 1], alone, **EXACT)
