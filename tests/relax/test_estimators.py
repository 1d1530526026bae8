"""Estimators: the paper's formulas, the one-pass recursion,
streaming laws, edge cases, and whether the standard error is one.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import slow_relax
from reference.models import Bernoulli, Given, rand, relu_encoder
from torch import Tensor

import relax_quantus as rq
from relax_quantus.errors import UnknownNameError
from relax_quantus.relax.estimators import ESTIMATORS, Estimate

NAMES = list(ESTIMATORS)
EXACT = {"rtol": 0.0, "atol": 1e-13}


def draw(n: int, batch: int, bins: int, seed: int) -> tuple[Tensor, Tensor]:
    """Similarities ``(n, batch)`` in [-1, 1] and masks ``(n, bins)`` of zeros, ones and greys."""
    generator = np.random.default_rng(seed)
    masks = generator.choice([0.0, 1.0, -1.0], size=(n, bins))
    masks = np.where(masks < 0, generator.random((n, bins)), masks)
    return torch.from_numpy(generator.uniform(-1, 1, (n, batch))), torch.from_numpy(masks)


def estimate(name: str, similarities: Tensor, masks: Tensor, splits: list[int] | None = None) -> Estimate:
    accumulator = ESTIMATORS.get(name).start()
    parts = [len(masks)] if splits is None else splits
    for s, m in zip(similarities.split(parts), masks.split(parts), strict=True):
        accumulator.update(s, m)
    return accumulator.finish()


def assert_same(a: Estimate, b: Estimate, atol: float = 1e-12) -> None:
    for field in ("importance", "uncertainty", "mean_similarity", "neutral"):
        torch.testing.assert_close(getattr(a, field), getattr(b, field), rtol=0, atol=atol)
    for field in ("standard_error", "centred_standard_error"):
        ours, theirs = getattr(a, field).square(), getattr(b, field).square()
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=atol, equal_nan=True)


@pytest.mark.parametrize("batch", [1, 3])
def test_paper_is_the_source_documents_formula(batch: int) -> None:
    similarities, masks = draw(40, batch, 6, seed=0)
    result = estimate("paper", similarities, masks)
    for b in range(batch):
        importance, uncertainty = slow_relax.paper(similarities[:, b].numpy(), masks.numpy())
        np.testing.assert_allclose(result.importance[b], importance, **EXACT)
        np.testing.assert_allclose(result.uncertainty[b], uncertainty, **EXACT)
        np.testing.assert_allclose(
            result.standard_error[b], slow_relax.paper_error(similarities[:, b].numpy(), masks.numpy()), atol=1e-12
        )


@pytest.mark.parametrize("batch", [1, 3])
def test_weighted_is_the_two_pass_formula_and_the_one_pass_recursion(batch: int) -> None:
    similarities, masks = draw(40, batch, 6, seed=1)
    result = estimate("weighted", similarities, masks)
    for b in range(batch):
        for slow in (slow_relax.weighted, slow_relax.one_pass):
            importance, uncertainty = slow(similarities[:, b].numpy(), masks.numpy())
            np.testing.assert_allclose(result.importance[b], importance, **EXACT)
            np.testing.assert_allclose(result.uncertainty[b], uncertainty, **EXACT)
        np.testing.assert_allclose(
            result.standard_error[b], slow_relax.weighted_error(similarities[:, b].numpy(), masks.numpy()), atol=1e-12
        )


@given(
    data=st.data(),
    n=st.integers(2, 14),
    batch=st.integers(1, 3),
    bins=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", NAMES)
def test_chunks_and_order_do_not_matter(
    name: str, data: st.DataObject, n: int, batch: int, bins: int, seed: int
) -> None:
    similarities, masks = draw(n, batch, bins, seed)
    whole = estimate(name, similarities, masks)
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1))))
    splits = [b - a for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    assert_same(estimate(name, similarities, masks, splits), whole)
    order = torch.as_tensor(data.draw(st.permutations(range(n))))
    assert_same(estimate(name, similarities[order], masks[order], splits), whole)


@given(n=st.integers(1, 10), seed=st.integers(0, 2**32 - 1), value=st.floats(-1, 1))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("name", NAMES)
def test_all_ones_masks_and_equal_similarities_give_zero_variance(name: str, n: int, seed: int, value: float) -> None:
    similarities = torch.full((n, 2), value, dtype=torch.float64)
    result = estimate(name, similarities, torch.ones(n, 3, dtype=torch.float64))
    torch.testing.assert_close(result.importance, torch.full((2, 3), value, dtype=torch.float64), rtol=0, atol=1e-15)
    assert float(result.uncertainty.abs().max()) < 1e-15
    assert bool(result.standard_error.isnan().all())  # no variance among a few masks is no knowledge of more
    assert bool(result.centred_standard_error.isnan().all())


@given(n=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("name", NAMES)
def test_bounds(name: str, n: int, seed: int) -> None:
    """Weighted importance lies between the smallest
    and largest similarity; no variance is negative.
    """
    similarities, masks = draw(n, 2, 4, seed)
    result = estimate(name, similarities, masks)
    if name == "weighted":
        assert bool((result.importance <= similarities.max(0).values[:, None] + 1e-12).all())
        assert bool((result.importance >= similarities.min(0).values[:, None] - 1e-12).all())
    assert bool((result.uncertainty >= 0).all())
    for error in (result.standard_error, result.centred_standard_error):
        assert bool(((error > 0) | error.isnan()).all())


@pytest.mark.parametrize("name", NAMES)
def test_mean_similarity_and_neutral(name: str) -> None:
    similarities, masks = draw(30, 2, 5, seed=2)
    result = estimate(name, similarities, masks)
    mean = similarities.mean(0)
    torch.testing.assert_close(result.mean_similarity, mean, **EXACT)
    share = masks.mean(0) if name == "paper" else torch.ones(5, dtype=torch.float64)
    torch.testing.assert_close(result.neutral, mean[:, None] * share, **EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_masks_keep_their_shape(name: str) -> None:
    similarities, masks = draw(6, 2, 12, seed=3)
    flat, shaped = estimate(name, similarities, masks), estimate(name, similarities, masks.reshape(6, 1, 4, 3))
    assert shaped.importance.shape == shaped.uncertainty.shape == shaped.standard_error.shape == (2, 1, 4, 3)
    assert torch.equal(shaped.importance.flatten(1), flat.importance)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_mask_says_nothing_of_its_error(name: str) -> None:
    result = estimate(
        name, torch.tensor([[0.5, 0.25]], dtype=torch.float64), torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
    )
    assert bool(result.standard_error.isnan().all())
    assert bool(result.centred_standard_error.isnan().all())
    first = [0.5, 0.25, 0.0] if name == "paper" else [0.5, 0.5, 0.5]
    assert result.importance[0].tolist() == first
    assert bool(torch.isfinite(result.uncertainty).all())


def test_bins_that_no_mask_keeps() -> None:
    """Weighted: the mean over all masks, their variance,
    and an unknown error. Paper: 0, as its formula says.
    """
    similarities, masks = draw(20, 2, 3, seed=4)
    masks[:, 1] = 0
    result = estimate("weighted", similarities, masks)
    torch.testing.assert_close(result.importance[:, 1], similarities.mean(0), **EXACT)
    torch.testing.assert_close(result.uncertainty[:, 1], similarities.var(0, correction=0), **EXACT)
    paper = estimate("paper", similarities, masks)
    for error in (e for r in (result, paper) for e in (r.standard_error, r.centred_standard_error)):
        assert bool(error[:, 1].isnan().all())
        assert bool(torch.isfinite(error[:, [0, 2]]).all())
    assert paper.importance[:, 1].tolist() == paper.uncertainty[:, 1].tolist() == [0, 0]


def test_weighted_is_scale_free_in_the_masks_and_paper_is_not() -> None:
    similarities, masks = draw(20, 1, 3, seed=5)
    half = masks / 2
    torch.testing.assert_close(
        estimate("weighted", similarities, half).importance,
        estimate("weighted", similarities, masks).importance,
        **EXACT,
    )
    torch.testing.assert_close(
        estimate("paper", similarities, half).importance, estimate("paper", similarities, masks).importance / 2, **EXACT
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_cancellation_far_from_zero(name: str) -> None:
    """A spread of 1e-6 on top of 1e3: the uncertainty of `weighted` keeps eight digits."""
    similarities, masks = draw(50, 1, 3, seed=6)
    far = 1e3 + 1e-6 * similarities
    result = estimate(name, far, masks)
    slow = slow_relax.paper if name == "paper" else slow_relax.weighted
    importance, uncertainty = slow(far[:, 0].numpy(), masks.numpy())
    np.testing.assert_allclose(result.importance[0], importance, rtol=1e-13)
    np.testing.assert_allclose(result.uncertainty[0], uncertainty, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_not_changed_and_float32_is_widened(name: str) -> None:
    similarities, masks = draw(10, 2, 3, seed=7)
    similarities, masks = similarities.float(), masks.float()
    before = similarities.clone(), masks.clone()
    result = estimate(name, similarities, masks)
    assert torch.equal(similarities, before[0])
    assert torch.equal(masks, before[1])
    assert result.importance.dtype == torch.float64
    assert_same(result, estimate(name, similarities.double(), masks.double()))


def test_unknown_estimators_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"^estimator: .*got 'wieghted'; did you mean 'weighted'"):
        rq.RELAX(relu_encoder(3), estimator="wieghted")


@pytest.mark.parametrize("name", NAMES)
def test_standard_error_is_calibrated_against_enumeration(name: str) -> None:
    """200 seeds of 150 iid masks over 6 entries, truth by enumerating all 64.

    Each entry's 95 % interval covers in at least 88 % of the runs (binomial(200, .95) falls below
    that once in 2e4), all together in 92 to 98 %; the mean squared error bar equals the spread of
    the estimates within 30 % (3 standard errors of a variance from 200 runs).
    """
    x = rand(1, 6, seed=1)
    encoder = relu_encoder(6, seed=2)
    everything = Given(slow_masks_of(6))
    truth = rq.RELAX(encoder, masks=everything, estimator=name).attribute(x, n_samples=64)[0]
    relax = rq.RELAX(encoder, masks=Bernoulli(), estimator=name)
    runs = [relax.explain(x, n_samples=150, seed=seed, perturbations_per_eval=150) for seed in range(200)]
    estimates = torch.stack([e.importance[0] for e in runs])
    errors = torch.stack([e.standard_error[0] for e in runs])
    covered = ((estimates - truth).abs() <= 1.96 * errors).double().mean(0)
    assert float(covered.min()) >= 0.88
    assert 0.92 <= float(covered.mean()) <= 0.98
    ratio = errors.square().mean(0) / estimates.var(0)
    assert bool(((ratio > 0.7) & (ratio < 1.3)).all()), ratio


def slow_masks_of(d: int) -> Tensor:
    return torch.tensor(list(slow_relax.all_masks(d)), dtype=torch.float64)


@pytest.mark.parametrize("strategy", ["time", "time_frequency"])
def test_standard_error_is_calibrated_with_smooth_masks(strategy: str) -> None:
    """The same for grey, correlated masks; truth from 40
    000 masks, whose own error is a fifteenth of a run's.
    """
    x, encoder = rand(1, 1, 6, 4, seed=3), relu_encoder(24, seed=4)
    relax = rq.RELAX(encoder, masks=rq.masks.get(strategy) if strategy == "time" else strategy)
    truth = relax.attribute(x, n_samples=40_000, seed=10_000, perturbations_per_eval=4000)
    runs = [relax.explain(x, n_samples=180, seed=seed, perturbations_per_eval=180) for seed in range(150)]
    z = torch.stack([(e.importance - truth) / e.standard_error for e in runs])
    covered = float((z.abs() <= 1.96).double().mean())
    assert 0.9 <= covered <= 0.985
    assert float(z.square().mean()) == pytest.approx(1.0, abs=0.35)


def test_standard_error_shrinks_with_the_square_root_of_n() -> None:
    x, relax = rand(1, 1, 6, 4), rq.RELAX(relu_encoder(24), masks="random", estimator="weighted")
    small, large = (
        relax.explain(x, n_samples=n, perturbations_per_eval=500).standard_error.mean() for n in (500, 8000)
    )
    assert float(small / large) == pytest.approx(math.sqrt(16), rel=0.1)
