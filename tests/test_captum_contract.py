"""What Captum 0.9 asks of a third-party attribution: every point of the contract, and Captum's own tables through leave-one-out masks."""

from __future__ import annotations

import copy
import inspect
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, NoiseTunnel, PerturbationAttribution, visualization
from captum.metrics import infidelity, sensitivity_max
from reference.models import Bernoulli, LeaveOneOut, rand, relu_encoder
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError

EXACT = {"rtol": 0.0, "atol": 1e-12}
ENCODER = relu_encoder(12)
X = rand(3, 1, 4, 3)


def relax(**keywords: Any) -> rq.RELAX:
    return rq.RELAX(ENCODER, **keywords)


# -- the class ----------------------------------------------------------------------------------------------------------------------------


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


# -- inputs and outputs -------------------------------------------------------------------------------------------------------------------


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


# -- additional arguments and targets -----------------------------------------------------------------------------------------------------


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


# -- chunks, seeds, progress --------------------------------------------------------------------------------------------------------------


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


# -- what is left as it was ---------------------------------------------------------------------------------------------------------------


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


# -- NoiseTunnel, sensitivity, infidelity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel(nt_type: str) -> None:
    """Equals RELAX on the noisy copies that the tunnel draws, averaged by hand."""
    tunnel = NoiseTunnel(relax())
    torch.manual_seed(3)
    found = tunnel.attribute(X, nt_type=nt_type, nt_samples=4, stdevs=0.1, n_samples=25)
    torch.manual_seed(3)
    noise = torch.normal(0, torch.tensor(0.1).repeat(12, 1, 4, 3))
    noisy = X.repeat_interleave(4, dim=0) + noise
    maps = relax().attribute(noisy, n_samples=25).reshape(3, 4, 1, 4, 3)
    expected = {
        "smoothgrad": maps.mean(1),
        "smoothgrad_sq": maps.square().mean(1),
        "vargrad": maps.square().mean(1) - maps.mean(1).square(),
    }[nt_type]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert found.shape == X.shape


def test_noise_tunnel_takes_tuples_partial_batches_and_arguments() -> None:
    shift = rand(3, 1, 4, 3, seed=4)
    tunnel = NoiseTunnel(rq.RELAX(lambda x, s: ENCODER(x + s)))
    found = tunnel.attribute(
        (X,),
        nt_samples=3,
        nt_samples_batch_size=2,
        stdevs=0.0,
        additional_forward_args=shift,
        n_samples=15,
        baselines=0.5,
    )
    assert isinstance(found, tuple)
    expected = rq.RELAX(lambda x, s: ENCODER(x + s)).attribute(
        X, baselines=0.5, additional_forward_args=shift, n_samples=15
    )
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)


def test_sensitivity_at_radius_zero_is_zero() -> None:
    values = sensitivity_max(relax().attribute, X, perturb_radius=0.0, n_perturb_samples=3, n_samples=25)
    assert float(values.max()) < 1e-14  # matrix products of another batch size round differently
    unseeded = sensitivity_max(relax().attribute, X, perturb_radius=0.0, n_perturb_samples=3, n_samples=25, seed=None)
    assert float(unseeded.min()) > 1e-4


def test_sensitivity_at_a_small_radius_is_small_and_positive() -> None:
    torch.manual_seed(0)
    values = sensitivity_max(
        relax().attribute, X.float().double(), perturb_radius=0.02, n_perturb_samples=5, n_samples=60
    )
    assert bool(torch.isfinite(values).all())
    assert bool(((values > 0) & (values < 0.5)).all())


def deterministic(x: Tensor) -> tuple[Tensor, Tensor]:
    """A perturbation of each row that depends on the row alone, as Captum's metrics want it: (perturbation, perturbed input)."""
    perturbation = 0.3 * torch.sin(5 * x)
    return perturbation, x - perturbation


@pytest.mark.parametrize("samples", [1, 4])
def test_infidelity_of_a_batch_equals_that_of_its_examples(samples: int) -> None:
    forward = rq.SimilarityForward(ENCODER)
    reference = ENCODER(X).detach()
    maps = relax().explain(X, n_samples=60).centred()
    whole = infidelity(forward, deterministic, X, maps, additional_forward_args=reference, n_perturb_samples=samples)
    for i in range(3):
        row = slice(i, i + 1)
        alone = infidelity(
            forward, deterministic, X[row], maps[row], additional_forward_args=reference[row], n_perturb_samples=samples
        )
        torch.testing.assert_close(whole[row], alone, **EXACT)
        perturbation, perturbed = deterministic(X[row])
        change = forward(X[row], reference[row]) - forward(perturbed, reference[row])
        by_hand = ((maps[row] * perturbation).sum() - change).square()
        torch.testing.assert_close(alone, by_hand.detach(), rtol=0, atol=1e-12)
    assert float(whole.min()) > 0


# -- Captum's FeatureAblation tables ------------------------------------------------------------------------------------------------------


class MultiLayer(nn.Module):
    """Two linear layers with a ReLU between, weights written out; the model of Captum's own FeatureAblation tests."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        with torch.no_grad():
            self.first.weight.fill_(1.0)
            self.first.bias.copy_(torch.tensor([-10.0, 1.0, 1.0, 1.0]))
            self.second.weight.fill_(1.0)
            self.second.bias.copy_(torch.tensor([-1.0, 1.0]))
        self.double()

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        result: Tensor = self.second(torch.relu(self.first(x if add is None else x + add)))
        return result


class MultiInput(nn.Module):
    """Several inputs, summed and scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MultiLayer()

    def forward(
        self, a: Tensor, b: Tensor, c: Tensor | None = None, add: Tensor | None = None, scale: int = 1
    ) -> Tensor:
        return self.model(scale * (a + b + (0 if c is None else c)), add)  # type: ignore[no-any-return]


class Boolean(nn.Module):
    """Boolean inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MultiLayer()

    def forward(self, x: Tensor, add: Tensor | None = None, scale: float = 10.0) -> Tensor:
        assert x.dtype == torch.bool
        return self.model(x.double() * scale, add)  # type: ignore[no-any-return]


class Convolution(nn.Module):
    """One convolution, ReLU and a linear layer, for 4 x 4 images."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 2, 3), nn.Linear(8, 4)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.stack([torch.ones(1, 3, 3), -torch.ones(1, 3, 3)]))
            self.convolution.bias.copy_(torch.tensor([-50.0, 75.0]))
            self.linear.weight.copy_(torch.cat([torch.ones(4, 5), -torch.ones(4, 3)], 1))
            self.linear.bias.zero_()
        self.double()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        features = torch.relu(self.convolution(x if y is None else x + y)).reshape(-1, 8)
        return torch.relu(self.linear(features))


def d(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


IMAGE = torch.arange(16, dtype=torch.float64).reshape(1, 1, 4, 4)
BLOCKS = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]).reshape(1, 1, 4, 4)
SINGLE = d([20.0, 50.0, 30.0])
BATCH = d([20.0, 50.0, 30.0], [2.0, 10.0, 3.0])
A, B, C = (
    d([23.0, 100.0, 0.0], [20.0, 50.0, 30.0]),
    d([20.0, 50.0, 30.0], [0.0, 100.0, 0.0]),
    d([0.0, 100.0, 10.0], [20.0, 10.0, 13.0]),
)

Case = tuple[Callable[..., Any], tuple[Tensor, ...], dict[str, Any]]
CASES: dict[str, Case] = {
    "one example": (MultiLayer(), (SINGLE,), {"target": 0}),
    "grouped": (MultiLayer(), (SINGLE,), {"target": 0, "feature_mask": (torch.tensor([[0, 0, 1]]),)}),
    "unordered groups": (MultiLayer(), (SINGLE,), {"target": 1, "feature_mask": (torch.tensor([[2, 5, 2]]),)}),
    "a baseline": (MultiLayer(), (SINGLE,), {"target": 0, "baselines": 4}),
    "a tensor baseline": (MultiLayer(), (SINGLE,), {"target": 0, "baselines": d([10.0, 40.0, 0.5])}),
    "a batch": (MultiLayer(), (BATCH,), {"target": 0}),
    "a batch, targets each": (MultiLayer(), (BATCH,), {"target": torch.tensor([1, 0])}),
    "a batch, additional argument": (MultiLayer(), (BATCH,), {"target": 0, "additional_forward_args": d([1.0, 2.0, 3.0], [-30.0, 0.0, 9.0])}),
    "two inputs": (MultiInput(), (A, B), {"target": 0}),
    "three inputs, scaled": (MultiInput(), (A, B, C), {"target": 0, "additional_forward_args": (None, 3)}),
    "three inputs, groups": (
        MultiInput(),
        (A, B, C),
        {
            "target": 1,
            "additional_forward_args": (d([1.0, 1.0, 1.0], [2.0, -8.0, 3.0]), 2),
            "feature_mask": (torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])),
        },
    ),
    "three inputs, baselines": (
        MultiInput(), (A, B, C), {"target": 0, "additional_forward_args": (None, 3), "baselines": (2, 0.5, d([1.0, 2.0, 3.0]))},
    ),
    "boolean": (Boolean(), (torch.tensor([[True, False, True]]),), {"target": 0}),
    "boolean, groups": (Boolean(), (torch.tensor([[True, True, False]]),), {"target": 0, "feature_mask": (torch.tensor([[1, 0, 1]]),)}),
    "boolean, baseline": (Boolean(), (torch.tensor([[True, False, True]]),), {"target": 0, "baselines": True}),
    "boolean, argument": (Boolean(), (torch.tensor([[False, True, True]]),), {"target": 1, "additional_forward_args": d([5.0, 0.0, -20.0])}),
    "image": (Convolution(), (IMAGE,), {"target": 0}),
    "image, blocks": (Convolution(), (IMAGE,), {"target": 0, "feature_mask": (BLOCKS,)}),
    "two images": (Convolution(), (IMAGE, 2 * IMAGE.flip(-1)), {"target": 2, "feature_mask": (BLOCKS, BLOCKS.flip(-1))}),
}  # fmt: skip


def difference(h: Tensor, masked: Tensor) -> Tensor:
    return (h - masked).squeeze(-1)


@pytest.mark.parametrize("per_eval", [1, 4, None])
@pytest.mark.parametrize("case", CASES)
def test_feature_ablation_tables(case: str, per_eval: int | None) -> None:
    """FA_g = sum of C over all groups - (G - 1) C_g, with G groups in all tensors together, each left out once."""
    model, inputs, keywords = CASES[case]
    groups = keywords.get("feature_mask") or tuple(torch.arange(x[0].numel()).reshape(1, *x.shape[1:]) for x in inputs)
    total = sum(int(torch.unique(g).numel()) for g in groups)
    maps = rq.RELAX(model, masks=LeaveOneOut(), similarity=difference).attribute(
        inputs, n_samples=total, perturbations_per_eval=per_eval, **keywords
    )
    sums = torch.zeros(len(inputs[0]), dtype=torch.float64)
    for found, group in zip(maps, groups, strict=True):
        flat = group.flatten()
        for g in torch.unique(flat):
            sums += found.flatten(1)[:, int((flat == g).nonzero()[0])].double()
    table = FeatureAblation(model).attribute(inputs, **{**keywords, "feature_mask": offset(groups)})
    for found, expected in zip(maps, table, strict=True):
        ours = sums.reshape(-1, *[1] * (found.ndim - 1)) - (total - 1) * found.double()
        atol = 1e-9 if found.dtype == torch.float64 else 2e-4
        torch.testing.assert_close(ours, expected.double(), rtol=0, atol=atol)
    assert max(float(t.abs().max()) for t in table) > 0


def offset(groups: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Number the groups of each tensor on from the last tensor's, so that Captum ablates them one at a time."""
    numbered, start = [], 0
    for group in groups:
        index = torch.unique(group, return_inverse=True)[1]
        numbered.append(index + start)
        start += int(index.max()) + 1
    return tuple(numbered)


# -- visualization ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_window() -> Iterator[None]:
    backend = mpl.get_backend()
    mpl.use("Agg")
    yield
    mpl.use(backend)


@pytest.mark.usefixtures("_no_window")
@pytest.mark.parametrize(
    ("method", "sign"),
    [
        ("heat_map", "all"),
        ("heat_map", "positive"),
        ("blended_heat_map", "absolute_value"),
        ("masked_image", "positive"),
    ],
)
def test_captums_pictures_take_the_map(method: str, sign: str) -> None:
    e = relax().explain(X, n_samples=50)
    for values in (e.centred(), e.importance):
        picture = values[0].permute(1, 2, 0).numpy()
        original = X[0].permute(1, 2, 0).numpy()
        figure, _ = visualization.visualize_image_attr(picture, original, method=method, sign=sign, use_pyplot=False)
        assert figure.axes
