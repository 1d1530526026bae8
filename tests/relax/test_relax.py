"""RELAX's own behaviour beyond Captum's contract: masks of
users, streams, groups, twins, similarity objects, refusals.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference.models import Bernoulli, Given, rand, relu_encoder
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError, RelaxQuantusError, ShapeError, UnknownNameError
from relax_quantus.relax.execution import FORWARD_ROWS
from relax_quantus.relax.masks import Groups

ENCODER = relu_encoder(12)
X = rand(2, 1, 4, 3)


def relax(masks: Any = "random", **keywords: Any) -> rq.RELAX:
    return rq.RELAX(ENCODER, masks=masks, **keywords)


# -- similarities, estimate and the shuffled twin --------------------------------------------------


@pytest.mark.parametrize("estimator", list(rq.estimators.ESTIMATORS))
@pytest.mark.parametrize("strategy", list(rq.masks.STRATEGIES))
def test_similarities_and_estimate_reproduce_explain(strategy: str, estimator: str) -> None:
    explainer = relax(strategy, estimator=estimator)
    similarities = explainer.similarities(X, baselines="noise", n_samples=150, seed=4)
    assert similarities.shape == (150, 2)
    assert similarities.dtype == torch.float64
    assert similarities.device.type == "cpu"
    whole = explainer.explain(X, baselines="noise", n_samples=150, seed=4)
    again = explainer.estimate(X, similarities, baselines="noise", seed=4)
    for field in ("importance", "uncertainty", "standard_error", "mean_similarity", "neutral"):
        torch.testing.assert_close(getattr(again, field), getattr(whole, field), rtol=0, atol=1e-13)


def test_estimate_runs_no_encoder() -> None:
    def never(_: Tensor) -> Tensor:
        raise AssertionError("the encoder was called")

    rq.RELAX(never).estimate(X, rand(5, 2))


def test_the_shuffled_twin_keeps_the_masks() -> None:
    explainer = relax("time", estimator="paper")
    similarities = explainer.similarities(X, n_samples=100)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    twin = explainer.estimate(X, similarities[order])
    masks = rq.masks.get("time").sample(100, (1, 4, 3), torch.Generator().manual_seed(0)).double()
    by_hand = torch.einsum("nb,n...->b...", similarities[order], masks) / 100
    torch.testing.assert_close(twin.importance, by_hand.expand_as(X), rtol=0, atol=1e-12)
    torch.testing.assert_close(twin.neutral, explainer.explain(X, n_samples=100).neutral, rtol=0, atol=1e-12)
    assert not torch.allclose(twin.importance, explainer.attribute(X, n_samples=100))


def test_estimate_with_feature_groups_and_tuples() -> None:
    two = rq.RELAX(lambda a, b: a.flatten(1) * b.flatten(1))
    inputs, groups = (X, X + 1), (torch.arange(12).reshape(1, 1, 4, 3) // 4, None)
    similarities = two.similarities(inputs, feature_mask=groups, n_samples=70)
    again = two.estimate(inputs, similarities, feature_mask=groups)
    assert isinstance(again, tuple)
    for ours, theirs in zip(again, two.attribute(inputs, feature_mask=groups, n_samples=70), strict=True):
        torch.testing.assert_close(ours.importance, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("similarities", "error", "match"),
    [
        (torch.zeros(5, 3), ShapeError, r"^similarities: expected shape \(N, B\) = \(N, 2\), got"),
        (torch.zeros(5), ShapeError, r"^similarities: expected shape \(N, B\) = \(N, 2\), got"),
        (np.zeros((5, 2)), ArgumentTypeError, r"^similarities: expected a torch.Tensor .*got ndarray"),
        (torch.full((5, 2), float("nan")), ArgumentError, "^similarities: expected finite entries"),
    ],
)
def test_bad_similarities_are_refused(similarities: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        relax().estimate(X, similarities)


# -- masks of users --------------------------------------------------------------------------------


@pytest.mark.parametrize("per_eval", [1, 7, 64, 1000, None])
@pytest.mark.parametrize("batch", [1, 2, 60])
def test_a_users_masks_are_asked_for_exactly_n_samples(batch: int, per_eval: int | None) -> None:
    masks = (rand(150, 1, 4, 3, seed=1) > 0).double()
    user = Given(masks)
    x = rand(batch, 1, 4, 3)
    result = relax(user).attribute(x, n_samples=150, perturbations_per_eval=per_eval)
    assert user.asked == [(150, (1, 4, 3))]
    s = torch.stack([torch.nn.functional.cosine_similarity(ENCODER(x * m), ENCODER(x)) for m in masks]).detach()
    torch.testing.assert_close(result, torch.einsum("nb,n...->b...", s, masks) / masks.sum(0), rtol=0, atol=1e-12)


def test_each_tensor_of_a_tuple_gets_its_own_masks_in_order() -> None:
    a, b = rand(2, 3), rand(2, 1, 2, 2, seed=1)
    first, second = (rand(9, 3, seed=2) > 0).double(), (rand(9, 1, 2, 2, seed=3) > 0).double()
    first[0], second[0] = 1, 1
    user = Given(first, second)

    def encoder(p: Tensor, q: Tensor) -> Tensor:
        return torch.cat([p, q.flatten(1)], 1)

    maps = rq.RELAX(encoder, masks=user).attribute((a, b), n_samples=9)
    assert user.asked == [(9, (3,)), (9, (1, 2, 2))]
    s = torch.stack(
        [
            torch.nn.functional.cosine_similarity(encoder(a * m, b * k), encoder(a, b))
            for m, k in zip(first, second, strict=True)
        ]
    )
    for found, masks in zip(maps, (first, second), strict=True):
        torch.testing.assert_close(found, torch.einsum("nb,n...->b...", s, masks) / masks.sum(0), rtol=0, atol=1e-12)


def test_built_in_masks_of_a_tuple_are_independent() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def encoder(p: Tensor, q: Tensor) -> Tensor:
        seen.append((p.clone(), q.clone()))
        return torch.cat([p, q], 1)

    ones = torch.ones(1, 8, dtype=torch.float64)
    rq.RELAX(encoder, masks=rq.masks.get("time", edges="hard")).attribute((ones, ones.clone()), n_samples=200)
    p, q = (torch.cat(t)[1:] for t in zip(*seen, strict=True))
    assert not torch.equal(p, q)
    assert abs(float(((p - 0.5) * (q - 0.5)).mean()) / 0.25) < 0.15


class Broadcast:
    """One value a mask and frame, whatever the input's rank."""

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.rand(n, *[1] * (len(shape) - 2), shape[-2], 1, generator=generator)


def test_broadcastable_masks_equal_expanded_ones() -> None:
    masks = Broadcast().sample(40, (1, 4, 3), torch.Generator().manual_seed(3)).double()
    expected = relax(Given(masks.expand(40, 1, 4, 3))).attribute(X, n_samples=40)
    torch.testing.assert_close(relax(Broadcast()).attribute(X, n_samples=40, seed=3), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float32])
def test_masks_of_any_type(dtype: torch.dtype) -> None:
    masks = (rand(20, 1, 4, 3, seed=1) > 0).double()

    class Typed:
        def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
            return masks.to(dtype)

    torch.testing.assert_close(
        relax(Typed()).attribute(X, n_samples=20), relax(Given(masks)).attribute(X, n_samples=20), rtol=0, atol=1e-12
    )


class Returns:
    """A mask object that returns one given thing."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (
            torch.zeros(0, 1, 4, 3),
            ShapeError,
            r"^masks: expected 5 masks from sample\(5, \(1, 4, 3\), generator\), got .*\(0, 1, 4, 3\)",
        ),
        (torch.ones(4, 1, 4, 3), ShapeError, "^masks: expected 5 masks"),
        (torch.tensor(1.0), ShapeError, "^masks: expected 5 masks"),
        (torch.ones(5, 2, 2), ShapeError, r"^masks: expected masks broadcastable to \(5, 1, 4, 3\)"),
        (torch.full((5, 1, 4, 3), 1.5), ArgumentError, "^masks: expected values from 0 .*to 1 .*, got 1.5 to 1.5"),
        (torch.full((5, 1, 4, 3), -0.1), ArgumentError, "^masks: expected values from 0"),
        (torch.full((5, 1, 4, 3), float("nan")), ArgumentError, "^masks: expected finite entries"),
        (np.ones((5, 1, 4, 3)), ArgumentTypeError, r"^masks: expected a torch.Tensor .*got ndarray"),
    ],
)
def test_bad_masks_are_refused(value: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        relax(Returns(value)).attribute(X, n_samples=5)


# -- streams and chunks ----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", list(rq.masks.STRATEGIES))
def test_the_first_masks_of_a_seed_do_not_depend_on_how_many_follow(strategy: str) -> None:
    few, many = (relax(strategy).similarities(X, n_samples=n, seed=2) for n in (70, 200))
    torch.testing.assert_close(many[:70], few, rtol=0, atol=1e-14)


@pytest.mark.parametrize("per_eval", [None, 5])
def test_large_batches_equal_single_examples(per_eval: int | None) -> None:
    """More examples than one forward takes by default."""
    x = rand(FORWARD_ROWS + 12, 1, 4, 3, seed=9)
    whole = relax().explain(x, baselines="noise", n_samples=30, perturbations_per_eval=per_eval)
    for i in (0, 1, FORWARD_ROWS - 1, FORWARD_ROWS, len(x) - 1):
        alone = relax().explain(x[i : i + 1], baselines="noise", n_samples=30)
        torch.testing.assert_close(whole.importance[i : i + 1], alone.importance, rtol=0, atol=1e-12)
        torch.testing.assert_close(whole.standard_error[i : i + 1], alone.standard_error, rtol=0, atol=1e-12)


def test_forwards_hold_as_many_masks_as_asked_for() -> None:
    rows: list[int] = []

    def encoder(x: Tensor) -> Tensor:
        rows.append(len(x))
        return ENCODER(x)

    rq.RELAX(encoder).attribute(X, n_samples=100, perturbations_per_eval=20)
    assert rows[0] == 2
    assert sum(rows[1:]) == 200
    assert max(rows) == 40


def test_memory_does_not_grow_with_n() -> None:
    """At most 2^22 mask entries are drawn at a time."""
    asked: list[int] = []

    class Counting(rq.masks.Time):
        def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
            asked.append(n)
            return super().sample(n, shape, generator)

    x = torch.ones(1, 1024, 1024)
    rq.RELAX(lambda z: z[:, 0, :2] + 1, masks=Counting()).attribute(x, n_samples=10)
    assert max(asked) <= 4
    assert sum(asked) == 10


# -- feature masks ---------------------------------------------------------------------------------


def test_feature_mask_keeps_and_replaces_groups_as_one() -> None:
    groups = torch.tensor([[7, 7, 2], [2, 2, 7], [9, 9, 9], [2, 7, 9]]).reshape(1, 1, 4, 3)
    index = torch.tensor([[1, 1, 0], [0, 0, 1], [2, 2, 2], [0, 1, 2]]).reshape(1, 4, 3)
    result = relax(rq.masks.get("time", keep_probability=0.3)).explain(X, feature_mask=groups, n_samples=300, seed=5)
    masks = Groups(0.3).sample(300, (3,), torch.Generator().manual_seed(5)).double()[:, index]
    by_hand = relax(Given(masks)).explain(X, n_samples=300)
    for field in ("importance", "uncertainty", "standard_error", "neutral"):
        torch.testing.assert_close(getattr(result, field), getattr(by_hand, field), rtol=0, atol=1e-12)
    for group in (2, 7, 9):
        assert result.importance[0][groups[0] == group].unique().numel() == 1


@pytest.mark.parametrize("shape", [(4, 3), (1, 4, 3), (1, 1, 4, 3), (2, 1, 4, 3), (4, 1)])
def test_feature_masks_broadcast(shape: tuple[int, ...]) -> None:
    groups = (torch.arange(4).reshape(4, 1) // 2).expand(shape)
    expected = relax().attribute(
        X, feature_mask=(torch.arange(4).reshape(1, 1, 4, 1) // 2).expand(1, 1, 4, 3), n_samples=20
    )
    torch.testing.assert_close(relax().attribute(X, feature_mask=groups, n_samples=20), expected, rtol=0, atol=1e-14)


class OwnKeep(Bernoulli):
    """A user's masks that happen to have a `keep_probability`."""

    keep_probability = 0.9

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        self.shapes.append(tuple(shape))
        return super().sample(n, shape, generator)


def test_a_users_masks_are_asked_for_groups() -> None:
    user = OwnKeep()
    relax(user).attribute(X, feature_mask=torch.arange(12).reshape(1, 1, 4, 3) // 5, n_samples=8)
    assert user.shapes == [(3,)]


def test_groups_of_one_tensor_leave_the_others_geometry() -> None:
    """A None in a tuple of feature masks: that tensor keeps the strategy's own stripes."""
    seen: list[Tensor] = []

    def encoder(p: Tensor, q: Tensor) -> Tensor:
        seen.append(q.clone())
        return torch.cat([p.flatten(1), q.flatten(1)], 1)

    p, q = torch.ones(1, 6, dtype=torch.float64), torch.ones(1, 1, 6, 4, dtype=torch.float64)
    striped = rq.masks.get("time", edges="hard", stripes=3)
    rq.RELAX(encoder, masks=striped).attribute((p, q), feature_mask=(torch.arange(6)[None] // 2, None), n_samples=60)
    copies = torch.cat(seen[1:])
    assert bool((copies == copies[..., :1]).all())
    changes = (copies[:, 0, 1:, 0] != copies[:, 0, :-1, 0]).sum(1)
    assert int(changes.max()) <= 3


@pytest.mark.parametrize(
    ("feature_mask", "error", "match"),
    [
        (torch.zeros(1, 1, 4, 3), ArgumentTypeError, "^feature_mask: expected integer group numbers"),
        (
            torch.zeros(5, 3, dtype=torch.int64),
            ShapeError,
            r"^feature_mask: expected something broadcastable to \(2, 1, 4, 3\)",
        ),
        (
            torch.arange(2).reshape(2, 1, 1, 1),
            ArgumentError,
            "^feature_mask: expected the same groups for every example",
        ),
        ([0, 1], ArgumentTypeError, r"^feature_mask: expected a torch.Tensor"),
        ((torch.zeros(1, dtype=torch.int64),) * 2, ShapeError, "^feature_mask: expected 1 entries, one a tensor"),
    ],
)
def test_bad_feature_masks_are_refused(feature_mask: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        relax().attribute(X, feature_mask=feature_mask, n_samples=5)


# -- similarity objects ----------------------------------------------------------------------------


def test_a_similarity_of_ones_own() -> None:
    masks = (rand(12, 1, 4, 3, seed=1) > 0).double()
    result = relax(Given(masks), similarity=lambda h, hm: (h * hm).sum(-1)).similarities(X, n_samples=12)
    dots = torch.stack([(ENCODER(X * m) * ENCODER(X)).sum(-1) for m in masks]).detach()
    torch.testing.assert_close(result, dots, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "similarity", [lambda h, hm: hm, lambda h, hm: (h * hm).sum(), lambda h, hm: 1.0, lambda h, hm: (h * hm).sum(-1).T]
)
def test_similarities_of_a_wrong_shape_are_refused(similarity: Any) -> None:
    with pytest.raises(ShapeError, match=r"^similarity: expected a tensor of \(M, B\) = \(\d+, 2\) similarities, got"):
        relax(similarity=similarity).attribute(X, n_samples=5)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"masks": "randon"}, UnknownNameError, "^masks: .*got 'randon'; did you mean 'random'"),
        (
            {"masks": 7},
            ArgumentTypeError,
            r"^masks: expected a name or an object with sample.*, got int; names: random, time",
        ),
        ({"masks": rq.masks.Time}, ArgumentTypeError, r"^masks: expected a name or an object with sample"),
        ({"similarity": "cosin"}, UnknownNameError, "^similarity: .*did you mean 'cosine'"),
        ({"similarity": 3}, ArgumentTypeError, "^similarity: expected a name or a callable, got int"),
        ({"estimator": "papper"}, UnknownNameError, "^estimator: .*did you mean 'paper'"),
        ({"estimator": 3}, ArgumentTypeError, "^estimator: expected a name or an Estimator, got int"),
    ],
)
def test_bad_constructor_arguments_are_refused(keywords: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        rq.RELAX(ENCODER, **keywords)


def test_encoders_are_callable() -> None:
    with pytest.raises(ArgumentTypeError, match=r"^forward_func: expected a callable, got str"):
        rq.RELAX("vggish")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"n_samples": 0}, ArgumentError, "^n_samples: expected an integer of at least 1, got 0"),
        ({"n_samples": -5}, ArgumentError, "^n_samples: expected an integer of at least 1"),
        ({"n_samples": 2.0}, ArgumentTypeError, "^n_samples: expected an integer"),
        ({"n_samples": True}, ArgumentTypeError, "^n_samples: expected an integer"),
        ({"seed": -1}, ArgumentError, "^seed: expected an integer of at least 0"),
        ({"seed": 2**63}, ArgumentError, r"^seed: expected an integer below 2\*\*63"),
        ({"seed": 0.5}, ArgumentTypeError, "^seed: expected an integer"),
        ({"seed": torch.Generator()}, ArgumentTypeError, "^seed: expected an integer"),
    ],
)
def test_bad_numbers_are_refused(keywords: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        relax().attribute(X, **{"n_samples": 5, **keywords})


@pytest.mark.parametrize(
    ("inputs", "error", "match"),
    [
        (rand(5), ShapeError, r"^inputs: expected shape \(B, ...\) with at least two axes"),
        (torch.zeros(0, 1, 4, 3), ShapeError, r"^inputs: expected shape \(B, ...\)"),
        (torch.zeros(2, 0), ShapeError, r"^inputs: expected shape \(B, ...\)"),
        (
            torch.full((1, 1, 4, 3), float("nan")),
            ArgumentError,
            "^inputs: expected finite entries, .*12 NaN or infinite",
        ),
        (
            np.zeros((1, 1, 4, 3)),
            ArgumentTypeError,
            r"^inputs: expected a torch.Tensor or a tuple of them, got ndarray",
        ),
        ((), ArgumentError, "^inputs: expected a tensor or a tuple of tensors, got an empty tuple"),
        ((X, X[:1]), ShapeError, "^inputs: expected 2 examples in every tensor"),
    ],
)
def test_bad_inputs_are_refused(inputs: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        relax().attribute(inputs, n_samples=5)


def test_every_refusal_is_of_one_family_and_of_the_built_in_kind() -> None:
    with pytest.raises(RelaxQuantusError):
        relax().attribute(X, n_samples=0)
    with pytest.raises(ValueError, match="n_samples: "):
        relax().attribute(X, n_samples=0)
    with pytest.raises(TypeError, match="n_samples: "):
        relax().attribute(X, n_samples="3")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'n_sample'"):
        relax().attribute(X, n_sample=3)  # type: ignore[call-arg]


# -- domains, the fill alone, and derived figures --------------------------------------------------


def test_amplitude_blends_magnitudes() -> None:
    """x and the fill are logarithms: exp(x~) = m exp(x) + (1 - m) exp(fill)."""
    masks = torch.rand(9, 1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    masks[0], masks[1] = 0, 1
    seen: list[Tensor] = []

    def encoder(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x.flatten(1).exp()

    rq.RELAX(encoder, masks=Given(masks), domain="amplitude").attribute(X, baselines="silence", n_samples=9)
    copies, m = torch.cat(seen[1:]).reshape(9, *X.shape), masks[:, None]
    torch.testing.assert_close(copies.exp(), m * X.exp() + (1 - m) * 0.01, rtol=1e-12, atol=0)
    assert torch.equal(copies[1], X)
    assert torch.equal(copies[0], torch.full_like(X, np.log(0.01)))


@pytest.mark.parametrize("strategy", list(rq.masks.STRATEGIES))
def test_hard_masks_make_both_domains_equal(strategy: str) -> None:
    hard = rq.masks.get(strategy, edges="hard")
    log, amplitude = (relax(hard, domain=d).attribute(X, baselines="noise", n_samples=40) for d in ("log", "amplitude"))
    torch.testing.assert_close(log, amplitude, rtol=0, atol=1e-12)
    smooth = [relax(strategy, domain=d).attribute(X, n_samples=40) for d in ("log", "amplitude")]
    assert not torch.allclose(*smooth)


def test_unknown_domains_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"^domain: expected 'log' or 'amplitude', got 'power'"):
        relax(domain="power")


@pytest.mark.parametrize("batch", [2, FORWARD_ROWS + 5])
def test_the_fill_alone(batch: int) -> None:
    x = rand(batch, 1, 4, 3)
    expected = torch.nn.functional.cosine_similarity(ENCODER(torch.full_like(x, 0.7)), ENCODER(x)).detach()
    result = relax().explain(x, baselines=0.7, n_samples=5)
    torch.testing.assert_close(result.fully_masked_similarity, expected, rtol=0, atol=1e-12)
    away = relax().explain(x, baselines=0.7, n_samples=5, reference=(None, rand(4, seed=2))).fully_masked_similarity
    towards = torch.nn.functional.cosine_similarity(ENCODER(torch.full_like(x, 0.7)), rand(1, 4, seed=2)).detach()
    torch.testing.assert_close(away, expected - towards, rtol=0, atol=1e-12)
    assert bool(torch.isnan(relax().estimate(x, rand(5, batch)).fully_masked_similarity).all())


# -- SimilarityForward -----------------------------------------------------------------------------


def test_similarity_forward_is_the_cosine_to_the_reference() -> None:
    reference = rand(2, 4, seed=3)
    forward = rq.SimilarityForward(ENCODER)
    torch.testing.assert_close(
        forward(X, reference), torch.nn.functional.cosine_similarity(ENCODER(X), reference), rtol=0, atol=1e-14
    )
    assert isinstance(forward, nn.Module)
    x = X.clone().requires_grad_()
    forward(x, reference).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0
