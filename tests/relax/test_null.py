"""What chance alone draws: permuted similarities, against
the estimator itself and against networks without effects.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.models import Given, rand, relu_encoder
from torch import Tensor

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError
from relax_quantus.relax import estimation
from relax_quantus.relax.call import masked_tensor
from relax_quantus.relax.masked_forward import MaskStream, child_generator
from relax_quantus.views.thresholds import family_wise, family_wise_p


def relax(masks: Any = "random", estimator: Any = None, encoder: Any = None) -> rq.RELAX:
    return rq.RELAX(encoder or relu_encoder(96), masks=masks, estimator=estimator)


def largest_z(of: rq.RELAX, x: Tensor, similarities: Tensor) -> Tensor:
    e = of.estimate(x, similarities)
    return (e.centred() / e.centred_standard_error).abs().nan_to_num(0).flatten(1).amax(1)


@pytest.mark.parametrize("masks", ["random", "time", "time_frequency"])
def test_the_maxima_are_those_of_the_estimator_fed_with_permuted_similarities(masks: str) -> None:
    x, weighted = rand(2, 1, 12, 8), relax(masks, "weighted")
    e = weighted.explain(x, n_samples=90, null=True, seed=3)
    similarities = weighted.similarities(x, n_samples=90, seed=3)
    generator = child_generator(3, 2)
    seeded = rq.RELAX(relu_encoder(96), masks=masks, estimator="weighted")
    slow = []
    for _ in range(200):
        order = torch.randperm(90, generator=generator)
        found = seeded.estimate(x, similarities[order], seed=3)
        slow.append((found.centred() / found.centred_standard_error).abs().flatten(1).amax(1))
    expected = torch.stack(slow, 1).sort(1).values
    assert e.null_maxima is not None
    assert e.null_statistic is not None
    torch.testing.assert_close(e.null_maxima.double(), expected.double(), rtol=2e-3, atol=0)
    torch.testing.assert_close(e.null_statistic.double(), e.z().abs().flatten(1).amax(1).double(), rtol=2e-3, atol=0)
    reached = (e.null_maxima >= e.null_statistic[:, None]).sum(1)
    torch.testing.assert_close(e.p_value.double(), (1 + reached.double()) / 201)


def test_threshold_and_p_value_agree() -> None:
    e = relax("time").explain(rand(3, 1, 12, 8), n_samples=60, null=True)
    assert e.null_maxima is not None
    assert e.null_statistic is not None
    for level in (0.005, 0.05, 0.3):
        assert torch.equal(e.null_statistic > e.null(level), e.p_value <= level)
    assert bool(torch.isinf(e.null(0.001)).all())
    assert bool((e.null(0.01) >= e.null(0.1)).all())
    with pytest.raises(ArgumentError, match=r"^level: expected "):
        e.null(0)


@pytest.mark.parametrize("estimator", ["weighted", "surrogate", "paper"])
def test_the_statistic_is_that_of_weighted_whatever_is_drawn(estimator: str) -> None:
    x = rand(2, 1, 12, 8)
    ours, theirs = (relax("time", e).explain(x, n_samples=70, null=True) for e in (estimator, "weighted"))
    assert torch.equal(ours.null(), theirs.null())
    assert torch.equal(ours.p_value, theirs.p_value)


def test_examples_do_not_depend_on_their_neighbours_and_no_map_changes() -> None:
    x = rand(3, 1, 12, 8) * torch.tensor([1.0, 4.0, 0.3], dtype=torch.float64).reshape(3, 1, 1, 1)
    batch, without = (relax().explain(x, n_samples=64, null=n) for n in (True, False))
    for name in ("importance", "standard_error", "centred_standard_error"):
        assert torch.equal(getattr(batch, name), getattr(without, name))
    for i in range(3):
        alone = relax().explain(x[i : i + 1], n_samples=64, null=True)
        torch.testing.assert_close(batch.null()[i], alone.null()[0], rtol=1e-5, atol=0)


def test_with_a_tolerance_it_is_that_of_as_many_masks() -> None:
    x = rand(2, 1, 12, 8)
    e = relax("time").explain(x, n_samples=1000, tolerance=0.4, null=True)
    assert bool((e.n_samples < 1000).all())
    for i, n in enumerate(e.n_samples.tolist()):
        alone = relax("time").explain(x[i : i + 1], n_samples=n, null=True)
        torch.testing.assert_close(e.null()[i], alone.null()[0], rtol=1e-5, atol=0)


def test_it_takes_several_passes_where_the_memory_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rand(2, 1, 12, 8)
    at_once = relax().explain(x, n_samples=64, null=True).null_maxima
    monkeypatch.setattr(estimation, "BLOCK_BYTES", 4 * 64 * 30)
    torch.testing.assert_close(relax().explain(x, n_samples=64, null=True).null_maxima, at_once, rtol=1e-4, atol=0)


def test_groups_tuples_and_masks_of_ones_own() -> None:
    x = rand(2, 12)
    groups = torch.arange(12)[None] // 3
    masks = torch.rand(60, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for own, keywords in ((Given(masks), {}), ("random", {"feature_mask": groups})):
        e = rq.RELAX(relu_encoder(12), masks=own).explain(x, n_samples=60, null=True, **keywords)
        assert bool(torch.isfinite(e.null()).all())
    a, b = rq.RELAX(lambda p, q: relu_encoder(12)(p + q)).explain((x, x), n_samples=60, null=True)
    assert not torch.equal(a.null(), b.null())


def test_not_asked_for_is_not_known() -> None:
    e = relax().explain(rand(2, 1, 12, 8), n_samples=50)
    assert bool(e.null().isnan().all())
    assert bool(e.p_value.isnan().all())
    with pytest.raises(ArgumentTypeError, match=r"^null: expected True or False"):
        relax().explain(rand(1, 1, 12, 8), n_samples=50, null=0.05)  # type: ignore[arg-type]


def test_a_network_that_never_varies_has_no_p_value() -> None:
    e = relax(encoder=lambda x: torch.ones(len(x), 3)).explain(torch.rand(2, 1, 12, 8), n_samples=50, null=True)
    assert bool(e.p_value.isnan().all())


class NoMainEffect(torch.nn.Module):
    """The similarity depends on whether two halves are kept
    alike: an exclusive-or, with which no bin goes alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        early, late = (x[..., half, :].mean((1, 2, 3)) > 0.5 for half in (slice(0, 6), slice(6, 12)))
        unlike = (early ^ late).to(x.dtype)
        return torch.stack([torch.ones_like(unlike), 0.8 * unlike], 1)


@pytest.mark.parametrize("estimator", ["weighted", "surrogate"])
def test_chance_passes_the_threshold_in_one_of_twenty_cases(estimator: str) -> None:
    """80 draws of the masks; binomial(80, .05) exceeds 11 once in a thousand."""
    of, x = relax("random", estimator, NoMainEffect()), torch.ones(1, 1, 12, 8)
    passed = 0
    for seed in range(80):
        e = of.explain(x, n_samples=120, seed=seed, null=True)
        passed += int((e.z().abs().flatten(1).amax(1) > e.null()).item())
    assert passed <= 11


def test_an_effect_is_seen() -> None:
    """With half of the bins heard alone, p is as small as 200 permutations can say."""

    def half(x: Tensor) -> Tensor:
        heard = x[..., :6, :].mean((1, 2, 3))
        return torch.stack([heard, torch.full_like(heard, 0.5)], 1)

    e = relax("time", None, half).explain(torch.ones(1, 1, 12, 8), n_samples=120, null=True)
    assert float(e.p_value) == pytest.approx(1 / 201)
    heard = (e.z() > e.null())[0, 0]
    assert bool(heard[1:5].all())
    assert not bool(heard[7:].any())


def test_the_threshold_of_one_example_is_its_own() -> None:
    e = relax("time").explain(rand(1, 1, 12, 8), n_samples=60, null=True)
    assert e.null_maxima is not None
    assert e.null_statistic is not None
    for level in (0.005, 0.05, 0.3):
        assert family_wise(e.null_maxima, level) == float(e.null(level))
    assert family_wise_p(e.null_maxima, e.null_statistic) == pytest.approx(float(e.p_value))
    assert family_wise(e.null_maxima, 0.001) == float("inf")
    unknown = torch.full((2, 200), torch.nan)
    assert family_wise(torch.cat([e.null_maxima, unknown])) == float(e.null())
    assert family_wise(unknown) != family_wise(unknown)  # NaN


@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_chance_passes_the_threshold_somewhere_in_a_recording_once_in_twenty(spread: float) -> None:
    """4000 recordings of six examples, whose maxima may
    be of different sizes; 4 standard deviations are .014.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = torch.linspace(1 - spread, 1 + spread, 6)[:, None]
    passed = 0
    for _ in range(4000):
        maxima, own = (sizes * torch.randn(6, n, generator=generator).abs() for n in (200, 1))
        threshold = family_wise(maxima)
        passed += int((own > threshold).any())
        p = family_wise_p(maxima, own[:, 0])
        assert (p <= 0.05) == bool((own > threshold).any())
    assert passed / 4000 == pytest.approx(0.05, abs=0.014)


def test_masks_with_a_state_of_their_own_are_the_ones_that_are_permuted() -> None:
    """An object that draws other masks each time it is asked is asked once a call."""
    stateful = torch.Generator().manual_seed(0)

    class Mine:
        asked = 0

        def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
            self.asked += 1
            return torch.rand(n, *shape, generator=stateful).round()

    mine = Mine()
    e = rq.RELAX(relu_encoder(12), masks=mine, estimator="weighted").explain(rand(1, 12), n_samples=200, null=True)
    assert mine.asked == 1
    assert e.null_statistic is not None
    assert float(e.null_statistic) == pytest.approx(float(e.z().abs().max()), rel=1e-3)


def test_some_entries_of_the_masks_are_copies_that_keep_no_others_alive() -> None:
    x = torch.ones(1, 1, 200, 50)
    stream = MaskStream(rq.masks.get("random"), (masked_tensor(x, None, None),), 100, 0)
    kept, entries = estimation.drawn(stream, 0, 70, slice(3, 20))
    assert entries == 10_000
    assert kept.shape == (70, 17)
    assert kept.untyped_storage().nbytes() == 4 * 70 * 17
    whole = torch.cat([m for (m,), _ in stream]).flatten(1)
    assert torch.equal(kept, whole[:70, 3:20])
