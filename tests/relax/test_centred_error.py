"""The error of the centred map: its formulas, where it is
unknown, and whether its intervals hold where one event decides.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from reference import slow_relax
from reference.models import Bernoulli, Given, rand, relu_encoder
from scipy.stats import t
from torch import Tensor

import relax_quantus as rq
from relax_quantus.errors import ArgumentError
from relax_quantus.recordings.stitching import stitch
from relax_quantus.relax.estimators import ESTIMATORS, Estimate

SLOW = {"weighted": slow_relax.weighted_centred_error, "paper": slow_relax.paper_centred_error}


class Event(torch.nn.Module):
    """Hears one block of time and frequency in silence: fully as soon as a third of it is kept."""

    def forward(self, x: Tensor) -> Tensor:
        heard = (12 * x[..., 10:14, 5:9].mean((1, 2, 3)) - 3).clamp(0, 1)
        return torch.stack([heard, torch.full_like(heard, 0.1)], 1)


@cache
def converged(masks: str) -> Any:
    relax = rq.RELAX(Event(), masks=masks, estimator="weighted")
    return relax.explain(torch.ones(1, 1, 24, 16), n_samples=60_000, seed=1000, perturbations_per_eval=2000)


# -- the formulas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [7, 40])
@pytest.mark.parametrize("name", list(SLOW))
def test_it_is_the_two_pass_formula(name: str, chunk: int) -> None:
    generator = np.random.default_rng(0)
    masks, similarities = generator.random((40, 6)) * (generator.random((40, 6)) < 0.7), generator.random((40, 2))
    accumulator = ESTIMATORS.get(name).start()
    for s, m in zip(torch.from_numpy(similarities).split(chunk), torch.from_numpy(masks).split(chunk), strict=True):
        accumulator.update(s, m)
    found = accumulator.finish()
    assert found.centred_standard_error is not None
    for b in range(2):
        np.testing.assert_allclose(found.centred_standard_error[b], SLOW[name](similarities[:, b], masks), rtol=1e-10)


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_adding_to_all_similarities_changes_nothing_and_scaling_scales(name: str) -> None:
    x, relax = rand(1, 1, 8, 6), rq.RELAX(relu_encoder(48), masks="time", estimator=name)
    similarities = relax.similarities(x, n_samples=80)
    first, shifted, scaled = (relax.estimate(x, s) for s in (similarities, similarities + 3, 5 * similarities))
    torch.testing.assert_close(shifted.centred_standard_error, first.centred_standard_error, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(scaled.centred_standard_error, 5 * first.centred_standard_error, rtol=1e-5, atol=1e-9)


def test_estimators_of_others_that_give_none_get_nan() -> None:
    class Mean:
        """The mean similarity everywhere."""

        name = "mean"

        def start(self) -> Mean:
            self.all: list[Tensor] = []
            return self

        def update(self, similarities: Tensor, masks: Tensor) -> None:
            self.all.append(similarities)
            self.shape = masks.shape[1:]

        def finish(self) -> Estimate:
            mean = torch.cat(self.all).mean(0)
            maps = mean.reshape(-1, *[1] * len(self.shape)).expand(-1, *self.shape)
            return Estimate(maps, maps, maps, mean, maps)

    e = rq.RELAX(relu_encoder(48), estimator=Mean()).explain(rand(2, 1, 8, 6), n_samples=60)
    assert e.centred_standard_error.shape == e.importance.shape
    assert bool(e.centred_standard_error.isnan().all())
    assert bool(torch.isfinite(e.standard_error).all())


# -- whether it holds ------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["random", "time", "time_frequency"])
@pytest.mark.parametrize("estimator", ["weighted", "surrogate"])
def test_intervals_hold_at_the_event_that_decides(estimator: str, masks: str) -> None:
    """60 seeds of 150 masks, held against 60 000 masks:
    all bins, and the highest 5 % of the reference.

    With the importance's error in its place, `weighted` covers under .8 of the highest bins.
    """
    x, reference = torch.ones(1, 1, 24, 16), converged(masks)
    truth, of_truth = reference.centred()[0], reference.centred_standard_error[0].square()
    highest = truth >= truth.flatten().quantile(0.95)
    relax = rq.RELAX(Event(), masks=masks, estimator=estimator)
    runs = [relax.explain(x, n_samples=150, seed=seed) for seed in range(60)]

    def covered(name: str) -> Tensor:
        gaps = torch.stack([(e.centred()[0] - truth).square() for e in runs])
        errors = torch.stack([getattr(e, name)[0].square() for e in runs]) + of_truth
        return (gaps <= float(t.ppf(0.975, 149)) ** 2 * errors).double().mean(0)

    held = covered("centred_standard_error")
    assert 0.92 <= float(held.mean()) <= 0.98
    assert float(held[highest].mean()) >= 0.9
    if estimator == "weighted" and masks != "random":
        assert float(covered("standard_error")[highest].mean()) < 0.8


def test_the_interval_is_students_around_the_centred_map() -> None:
    e = rq.RELAX(relu_encoder(48), masks="time").explain(rand(1, 1, 8, 6), n_samples=60)
    low, high = e.interval(0.9)
    torch.testing.assert_close((low + high) / 2, e.centred())
    expected = float(t.ppf(0.95, 59)) * e.centred_standard_error
    torch.testing.assert_close((high - low) / 2, expected, rtol=1e-6, atol=0)
    with pytest.raises(ArgumentError, match=r"^level: expected "):
        e.interval(1.2)


# -- where it is unknown ---------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_an_event_of_five_places_that_few_masks_meet_has_no_error_of_zero(estimator: str) -> None:
    """With 16 masks most draws never keep all five places:
    similarities do not vary, and nothing is known, not all.
    """

    def event(x: Tensor) -> Tensor:
        heard = x[:, :5].prod(1)
        return torch.stack([heard, 1 - heard], 1)

    x, unknown = torch.ones(1, 12), 0
    relax = rq.RELAX(event, masks=Bernoulli(), estimator=estimator)
    for seed in range(40):
        e = relax.explain(x, n_samples=16, seed=seed)
        for error in (e.standard_error, e.centred_standard_error):
            assert bool(((error > 0) | error.isnan()).all())
        unknown += int(e.standard_error.isnan().all())
        assert bool(e.centred_standard_error.isnan().all()) == bool((e.centred() == 0).all())
    assert unknown > 10


def test_rounding_of_an_encoder_is_no_variation() -> None:
    generator = torch.Generator().manual_seed(0)

    def constant(x: Tensor) -> Tensor:
        return torch.ones(len(x), 8) + 1e-7 * torch.rand(len(x), 8, generator=generator)

    e = rq.RELAX(constant, masks="time").explain(torch.rand(1, 1, 24, 16), n_samples=64)
    assert bool(e.standard_error.isnan().all())
    assert bool(e.centred_standard_error.isnan().all())


def test_a_deterministic_detector_has_the_error_of_its_masks() -> None:
    """s is the mask of place 2 itself: its importance is 1 under every mask, and how sure that is
    cannot be seen; the centred map is 1 - mean mask, whose error is that of a share.
    """

    def detector(x: Tensor) -> Tensor:
        return torch.stack([x[:, 2], 1 - x[:, 2]], 1)

    e = rq.RELAX(detector, masks=Bernoulli(), estimator="weighted").explain(torch.ones(1, 6), n_samples=400)
    share = 1 - float(e.centred()[0, 2])
    assert math.isnan(float(e.standard_error[0, 2]))
    expected = math.sqrt(share * (1 - share) / 399)
    assert float(e.centred_standard_error[0, 2]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("estimator", ["weighted", "surrogate"])
def test_a_map_with_unknown_errors_never_stops(estimator: str) -> None:
    masks = torch.rand(200, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    masks[:, 3] = 0  # a place that no mask keeps
    relax = rq.RELAX(relu_encoder(5), masks=Given(masks), estimator=estimator)
    assert relax.explain(rand(1, 5), n_samples=200, tolerance=100.0).n_samples.tolist() == [200]


@pytest.mark.parametrize(("n_samples", "expected"), [(49, 1), (50, 0)])
def test_few_masks_are_warned_of_once(n_samples: int, expected: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rq.RELAX(relu_encoder(48), masks="time").explain(rand(3, 1, 8, 6), n_samples=n_samples)
    said = [str(w.message) for w in caught if "masks are few" in str(w.message)]
    assert len(said) == expected


def test_stitched_maps_carry_it() -> None:
    e = rq.RELAX(relu_encoder(96 * 64), masks="time").explain(rand(3, 1, 96, 64), n_samples=60)
    whole = stitch(e)
    torch.testing.assert_close(whole.centred_standard_error, e.centred_standard_error[:, 0].flatten(0, 1))
    shared, own = (stitch(e, 0.48, shared_masks=shared).centred_standard_error[48:-48] for shared in (True, False))
    assert bool((own < shared).all())
