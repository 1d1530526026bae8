"""Masks and estimators of one's own: what they are asked, what they may do, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.models import Given, rand, relu_encoder
from torch import Tensor

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError, ShapeError
from relax_quantus.relax import call
from relax_quantus.relax.estimators import ESTIMATORS, Estimate, Weighted
from relax_quantus.relax.masks import BoundMasks
from relax_quantus.relax.masks.grid import DRAWING, GridDistribution

pytestmark = pytest.mark.usefixtures("few_states")

X = rand(3, 1, 12, 8)
ENCODER = relu_encoder(96)
FIELDS = ("importance", "uncertainty", "standard_error", "centred_standard_error", "mean_similarity", "neutral")


class Streaming:
    """Each bin by itself, drawn as asked for; notes what
    it is bound to and how many masks it is asked for.
    """

    def __init__(self) -> None:
        self.bound: list[Tensor] = []
        self.asked: list[int] = []

    def bind(self, x: Tensor) -> BoundMasks:
        self.bound.append(x)

        def draw(n: int, generator: torch.Generator) -> Tensor:
            self.asked.append(n)
            return (torch.rand(n, *x.shape[1:], generator=generator) < 0.5).float()

        return BoundMasks(draw)


class AtOnce(Streaming):
    """The same masks by `sample` alone."""

    bind = None  # type: ignore[assignment]

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        self.asked.append(n)
        return (torch.rand(n, *shape, generator=generator) < 0.5).float()


class Loud:
    """The more loudly, the more by one number than by
    another: masks differ by example, their numbers do not.
    """

    def bind(self, x: Tensor) -> BoundMasks:
        loud = x.double().sigmoid()

        def draw(n: int, generator: torch.Generator) -> Tensor:
            first, second = torch.rand(2 * n, generator=generator).reshape(n, 2).T.reshape(2, n, *[1] * x.ndim)
            return first * loud + second * (1 - loud)

        return BoundMasks(draw, by_example=True)


class Alone:
    """Of some masks ``(N, B, *s)``, those of one example, as an object with `sample` alone."""

    def __init__(self, masks: Tensor, example: int) -> None:
        self.masks = masks[:, example]

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return self.masks[:n]


def relax(masks: Any, estimator: Any = None, **keywords: Any) -> rq.RELAX:
    return rq.RELAX(ENCODER, masks, estimator=estimator, **keywords)


def assert_same(found: rq.Explanation, expected: rq.Explanation, rows: slice = slice(None)) -> None:
    for field in FIELDS:
        one, other = getattr(found, field)[rows], getattr(expected, field)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, equal_nan=True)


# -- masks that stream -----------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_masks_stream_and_are_those_of_asking_for_all(estimator: str) -> None:
    own, at_once = Streaming(), AtOnce()
    found, expected = (relax(m, estimator).explain(X, "noise", n_samples=150) for m in (own, at_once))
    assert len(own.bound) == 1
    assert own.bound[0] is X
    assert max(own.asked) <= 64
    assert sum(own.asked) == 150
    assert at_once.asked == [150]
    assert_same(found, expected)
    assert found.estimator == expected.estimator == ("paper" if estimator == "paper" else "weighted")


def test_a_tuple_of_inputs_is_bound_one_by_one_with_other_masks() -> None:
    own = Streaming()
    encoder: Callable[..., Tensor] = lambda a, b: ENCODER(a) + ENCODER(b)  # noqa: E731
    both = rq.RELAX(encoder, own).explain((X, X + 1), n_samples=60)
    assert [x is y for x, y in zip(own.bound, (X, own.bound[1]), strict=True)] == [True, True]
    assert len(own.bound) == 2
    assert not torch.equal(both[0].centred(), both[1].centred())


def test_what_the_input_carries_reaches_the_strategy() -> None:
    class Marked(Tensor):
        rate = 16_000

    own, x = Streaming(), X.as_subclass(Marked)
    relax(own).attribute(x, n_samples=50)
    assert own.bound[0].rate == 16_000  # type: ignore[attr-defined]


# -- masks that differ by example ------------------------------------------------------------------


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_each_example_under_its_own_masks_is_as_alone(estimator: str) -> None:
    """The reference explains one example after another with the very masks that were its own."""
    n = 130
    masks = Loud().bind(X).draw(n, torch.Generator().manual_seed(0))
    whole = relax(Loud(), estimator).explain(X, "noise", n_samples=n, null=True)
    for i in range(3):
        alone = relax(Alone(masks, i), estimator).explain(X[i : i + 1], "noise", n_samples=n, null=True)
        assert_same(whole, alone, slice(i, i + 1))
        torch.testing.assert_close(whole.null()[i : i + 1], alone.null(), rtol=1e-4, atol=0)
        torch.testing.assert_close(whole.p_value[i : i + 1], alone.p_value)
    again = relax(Loud(), estimator)
    assert torch.equal(again.attribute(X, "noise", n_samples=n), whole.importance)
    given = again.estimate(X, again.similarities(X, "noise", n_samples=n), baselines="noise")
    assert_same(given, whole)


def test_they_go_with_a_tolerance_and_with_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = relax(Loud()).explain(X, n_samples=400)
    until = relax(Loud()).explain(X, n_samples=400, tolerance=0.3, null=True)
    assert bool((until.n_samples < 400).any())
    for i, n in enumerate(until.n_samples.tolist()):
        alone = relax(Loud()).explain(X[i : i + 1], n_samples=n, null=True)
        assert_same(until, alone, slice(i, i + 1))
        torch.testing.assert_close(until.null()[i : i + 1], alone.null(), rtol=1e-4, atol=0)
    monkeypatch.setattr(call, "SUMS_BYTES", 1)
    assert_same(relax(Loud()).explain(X, n_samples=400), whole)


def test_integers_and_tuples_take_them_too() -> None:
    x = (4 * X).long()
    found = rq.RELAX(lambda z: ENCODER(z.double()), Loud()).explain(x, n_samples=50)
    assert found.importance.shape == x.shape
    both = rq.RELAX(lambda a, b: ENCODER(a) + ENCODER(b), Loud()).explain((X, X.flip(0)), n_samples=50)
    assert [e.importance.shape for e in both] == [X.shape, X.shape]


# -- what is refused -------------------------------------------------------------------------------


def bound(masks: Callable[[int], Any], **keywords: Any) -> Any:
    class Odd:
        def bind(self, x: Tensor) -> BoundMasks:
            return BoundMasks(lambda n, generator: masks(n), **keywords)

    return Odd()


@pytest.mark.parametrize(
    ("masks", "error", "match"),
    [
        (bound(lambda n: torch.ones(n + 1, 1, 12, 8)), ShapeError, r"^masks: expected 50 masks from draw\(50, "),
        (
            bound(lambda n: torch.ones(n, 1, 5, 8)),
            ShapeError,
            r"^masks: expected masks broadcastable to \(50, 1, 12, 8\)",
        ),
        (
            bound(lambda n: torch.full((n, 1, 12, 8), 2.0)),
            ArgumentError,
            r"^masks: expected values from 0 .* got 2 to 2",
        ),
        (bound(lambda n: torch.full((n, 1, 12, 8), torch.nan)), ArgumentError, "^masks: expected finite"),
        (
            bound(lambda n: torch.ones(n, 2, 1, 12, 8), by_example=True),
            ShapeError,
            "^masks: expected 50 masks from draw",
        ),
        (bound(lambda n: [[1.0]] * n), ArgumentTypeError, "^masks: expected a torch.Tensor"),
    ],
)
def test_masks_that_cannot_be_are_refused(masks: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        relax(masks).attribute(X, n_samples=50)


def test_what_bind_returns_and_what_an_object_can_do_is_checked() -> None:
    class Forgetful:
        def bind(self, x: Tensor) -> Any:
            return x

    with pytest.raises(ArgumentTypeError, match=r"^masks: expected BoundMasks from bind, got Tensor; return "):
        relax(Forgetful()).attribute(X, n_samples=50)
    with pytest.raises(ArgumentTypeError, match=r"^masks: expected a name or an object with sample.* or bind"):
        relax(object())


# -- groups ----------------------------------------------------------------------------------------

GROUPS = torch.arange(96).reshape(1, 1, 12, 8) // 20


def test_groups_are_bound_or_sampled_or_refused() -> None:
    class Grouping(Streaming):
        def bind_groups(self, count: int) -> BoundMasks:
            return self.bind(torch.empty(1, count))

    class Both(AtOnce):
        def bind(self, x: Tensor) -> BoundMasks:
            raise AssertionError("has nothing to say of groups")

    found, expected = (relax(m).explain(X, n_samples=80, feature_mask=GROUPS) for m in (Grouping(), Both()))
    assert_same(found, expected)
    with pytest.raises(
        ArgumentError, match=r"^feature_mask: expected masks that can be bound to groups, got Streaming"
    ):
        relax(Streaming()).attribute(X, n_samples=50, feature_mask=GROUPS)


# -- the distribution ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", DRAWING)
def test_who_draws_otherwise_does_not_inherit_the_distribution(method: str) -> None:
    """Overriding whatever decides which masks are drawn, by a class
    or by a class beside it; saying `lattices` again gives it back.
    """
    parent = rq.masks.TimeFrequency

    def same(self: Any, *args: Any) -> Any:
        return getattr(parent, method)(self, *args)

    beside = type("Beside", (), {method: same})
    for masks in (type("Own", (parent,), {method: same})(), type("Mixed", (beside, parent), {})()):
        assert masks.bind(X).distribution is None
        assert relax(masks).explain(X, n_samples=50).estimator == "weighted"
    said = type("Said", (parent,), {method: same, "lattices": parent.lattices})()
    assert relax(said).explain(X, n_samples=50).estimator == "surrogate"


@pytest.mark.parametrize("name", list(rq.masks.STRATEGIES))
def test_masks_of_ones_own_that_say_their_distribution_are_regressed(name: str) -> None:
    strategy = rq.masks.get(name)

    class Own:
        def bind(self, x: Tensor) -> BoundMasks:
            shape = tuple(x.shape[1:])
            known = GridDistribution(strategy, shape, x.device)  # type: ignore[arg-type]
            return BoundMasks(lambda n, generator: known.build(known.numbers(n, generator)), known)

    found, expected = (relax(m).explain(X, n_samples=90) for m in (Own(), strategy))
    assert found.estimator == "surrogate"
    for field in FIELDS:
        assert torch.equal(getattr(found, field), getattr(expected, field))


def test_a_distribution_that_is_not_known_after_all_is_done_without() -> None:
    class Unsure(GridDistribution):
        def lattices(self, at_least: int, bank: int = 0) -> Any:
            raise NotImplementedError

    class Own(rq.masks.Time):  # type: ignore[name-defined, misc]
        def bind(self, x: Tensor) -> BoundMasks:
            return BoundMasks(super().bind(x).draw, Unsure(self, tuple(x.shape[1:]), x.device))

    found, expected = relax(Own()).explain(X, n_samples=90), relax("time", "weighted").explain(X, n_samples=90)
    assert found.estimator == "weighted"
    assert torch.equal(found.importance, expected.importance)


@pytest.mark.parametrize("name", list(rq.masks.STRATEGIES))
@pytest.mark.parametrize("shape", [(12, 8), (1, 12, 8), (9,)])
def test_strategies_bind_what_they_sample(name: str, shape: tuple[int, ...]) -> None:
    strategy: Any = rq.masks.get(name)
    whole = strategy.sample(8, shape, torch.Generator().manual_seed(4))
    masks = strategy.bind(torch.zeros(2, *shape))
    generator = torch.Generator().manual_seed(4)
    assert torch.equal(torch.cat([masks.draw(n, generator) for n in (3, 5)]), whole)
    generator.manual_seed(4)
    numbers = torch.cat([masks.distribution.numbers(n, generator) for n in (3, 5)])
    assert torch.equal(masks.distribution.build(numbers), whole)
    generator.manual_seed(4)
    groups = strategy.bind_groups(5)
    assert groups.distribution is None
    drawn = [groups.draw(n, generator) for n in (3, 5)]
    assert torch.equal(torch.cat(drawn), groups.draw(8, generator.manual_seed(4)))


# -- estimators ------------------------------------------------------------------------------------


class Asked:
    """`weighted`, which notes what it is told; ``again`` draws the call's masks once more."""

    name = "asked"

    def __init__(self) -> None:
        self.told: list[tuple[BoundMasks, Tensor | None]] = []
        self.fed: list[Tensor] = []

    def start(self, masks: BoundMasks, contrast: Tensor | None) -> Any:
        self.told.append((masks, contrast))
        accumulator = Weighted().start()
        update = accumulator.update
        accumulator.update = lambda s, m: (self.fed.append(m), update(s, m))  # type: ignore[method-assign]
        return accumulator


@pytest.mark.parametrize("masks", ["random", "time_frequency", Streaming(), AtOnce()])
def test_estimators_are_told_of_the_masks_and_can_draw_them_again(masks: Any) -> None:
    estimator = Asked()
    found = relax(masks, estimator).explain(X, -1.0, n_samples=100, seed=5)
    assert found.estimator == "asked"
    assert torch.equal(found.importance, relax(masks, "weighted").explain(X, -1.0, n_samples=100, seed=5).importance)
    ((told, contrast),) = estimator.told
    again = told.draw(100, torch.Generator().manual_seed(told.seed))
    assert torch.equal(torch.cat(estimator.fed), again.expand(100, *estimator.fed[0].shape[1:]))
    assert contrast is not None
    largest = (X + 1).abs().flatten(1).amax(1).reshape(3, 1, 1)
    torch.testing.assert_close(contrast.double(), (X[:, 0] + 1).abs() / largest, rtol=1e-6, atol=0)
    assert (told.distribution is not None) == isinstance(masks, str)


def test_estimators_are_not_told_of_a_distribution_that_is_not_that_of_all_masks() -> None:
    estimator = Asked()
    relax("time", estimator).explain(X, n_samples=60, feature_mask=GROUPS)
    rq.RELAX(lambda a, b: ENCODER(a) + ENCODER(b), "time", estimator=estimator).explain((X, X), n_samples=60)
    assert [(masks.distribution, c is None) for masks, c in estimator.told] == [
        (None, True),
        (None, False),
        (None, False),
    ]


def test_estimators_of_version_0_1_start_without_arguments() -> None:
    class Old:
        name = "old"

        def start(self) -> Any:
            return Weighted().start()

    found, expected = (relax("time", e).explain(X, n_samples=60) for e in (Old(), "weighted"))
    assert (found.estimator, expected.estimator) == ("old", "weighted")
    assert torch.equal(found.importance, expected.importance)


def test_an_accumulator_says_what_it_is_where_it_is_not_what_was_asked_for() -> None:
    class Fallen(type(Weighted().start())):  # type: ignore[misc]
        known_as = "something else"

        def __init__(self) -> None:
            super().__init__(known_as="something else")

        def finish(self) -> Estimate:
            estimate: Estimate = super().finish()
            return estimate

    class Mine:
        name = "mine"

        def start(self, masks: BoundMasks, contrast: Tensor | None) -> Any:
            return Fallen()

    assert relax("time", Mine()).explain(X, n_samples=60).estimator == "something else"
    assert relax(Loud(), Mine()).explain(X, n_samples=60).estimator == "something else"
    assert relax(Given(rand(60, 1, 12, 8).sigmoid())).explain(X, n_samples=60).estimator == "weighted"
