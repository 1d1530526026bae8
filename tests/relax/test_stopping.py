"""`RELAX.explain`'s tolerance: when examples stop, that they
stop by themselves, and that the result is that of as many masks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.models import Bernoulli, rand, relu_encoder
from torch import Tensor, nn
from typer.testing import CliRunner

import relax_quantus as rq
from relax_quantus.cli import main as cli
from relax_quantus.errors import ArgumentError, ArgumentTypeError
from relax_quantus.relax.call import masked_tensor
from relax_quantus.relax.estimators import ESTIMATORS, Estimate
from relax_quantus.relax.stopping import looks, relative_error

ENCODER = relu_encoder(48)
X = rand(4, 1, 8, 6) * torch.tensor([0.3, 1.0, 3.0, 1.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
MAPS = (
    "importance",
    "uncertainty",
    "standard_error",
    "centred_standard_error",
    "mean_similarity",
    "fully_masked_similarity",
    "neutral",
)
ENOUGH = {"weighted": 0.35, "surrogate": 0.2, "paper": 0.5}
"""Tolerances at which the examples of X stop at different numbers of masks."""


class Counting(nn.Module):
    """Counts the rows that it embeds."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        h: Tensor = ENCODER(x)
        return h


def explain(x: Any = X, encoder: Any = ENCODER, masks: Any = "time", estimator: Any = None, **keywords: Any) -> Any:
    return rq.RELAX(encoder, masks=masks, estimator=estimator).explain(x, **{"n_samples": 3000, **keywords})


def assert_same(ours: Any, theirs: Any, row: int, *, rtol: float) -> None:
    for name in MAPS:
        torch.testing.assert_close(getattr(ours, name)[row], getattr(theirs, name)[0], rtol=rtol, atol=1e-9, msg=name)


# -- the law ---------------------------------------------------------------------------------------


def test_a_looser_tolerance_stops_earlier_and_the_ceiling_holds() -> None:
    used = torch.stack([explain(tolerance=t, n_samples=2000).n_samples for t in (1e-6, 0.2, 0.3, 0.5, 10.0)])
    assert (used[0] == 2000).all()
    assert (used[-1] == 64).all()
    assert (used.diff(dim=0) <= 0).all()
    assert (used[1:].sum(1) < used[0].sum()).all()
    assert set(used.flatten().tolist()) <= {*looks(2000), 2000}


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_examples_stop_by_themselves_and_the_result_is_that_of_as_many_masks(estimator: str) -> None:
    settings = {"estimator": estimator, "masks": "time_frequency", "baselines": "noise"}
    e = explain(
        X[1:3], tolerance={"weighted": 0.8, "surrogate": 0.4, "paper": 1.6}[estimator], n_samples=2000, **settings
    )
    used = e.n_samples.tolist()
    assert used[0] != used[1]
    for i, n in enumerate(used):
        alone = explain(X[i + 1 : i + 2], n_samples=n, **settings)
        assert_same(e, alone, i, rtol=1e-6)
        assert e.estimator == alone.estimator


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_a_batch_is_its_examples_one_by_one(estimator: str) -> None:
    tolerance = ENOUGH[estimator]
    batch = explain(estimator=estimator, tolerance=tolerance, perturbations_per_eval=5)
    for i in range(len(X)):
        alone = explain(X[i : i + 1], estimator=estimator, tolerance=tolerance, perturbations_per_eval=64)
        assert batch.n_samples[i] == alone.n_samples[0]
        assert_same(batch, alone, i, rtol=1e-9)


def test_those_that_stop_are_under_the_tolerance_and_were_not_at_the_look_before() -> None:
    e = explain(tolerance=0.25)
    between = [(i, n) for i, n in enumerate(e.n_samples.tolist()) if 64 < n < 3000]
    assert len(between) == 3, "stopped at a look that was not their first"
    for i, n in enumerate(e.n_samples.tolist()):
        assert (relative(e, i) < 0.25) == (n < 3000)
    for i, n in between:
        assert relative(explain(X[i : i + 1], n_samples=looks(n)[-1]), 0) > 0.25


def relative(e: Any, row: int) -> float:
    """The relative error as it is defined, from an explanation."""
    error, values = e.centred_standard_error[row], e.centred()[row]
    variance = float(((values - values.mean()) ** 2).mean() - (error**2).mean())
    return float(error.max()) / math.sqrt(variance) if variance > 0 else math.inf


def test_no_tolerance_is_bit_for_bit_a_tolerance_never_met_for_one_example() -> None:
    never, without = explain(X[:1], tolerance=1e-9, n_samples=200), explain(X[:1], n_samples=200)
    for name in MAPS:
        assert torch.equal(getattr(never, name), getattr(without, name)), name


# -- what it saves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("perturbations_per_eval", [None, 7])
def test_examples_that_stopped_are_forwarded_no_more(perturbations_per_eval: int | None) -> None:
    encoder = Counting()
    e = explain(encoder=encoder, tolerance=0.35, perturbations_per_eval=perturbations_per_eval)
    needed = int(e.n_samples.sum()) + 2 * len(X)
    measured = 0 if perturbations_per_eval else 3000 * len(X) // 20 + len(X)
    assert needed <= encoder.rows <= needed + measured
    assert needed < 0.7 * 3000 * len(X)


def test_forwards_are_filled_with_more_masks_when_examples_stop() -> None:
    sizes: list[int] = []

    def encoder(x: Tensor) -> Tensor:
        sizes.append(len(x))
        h: Tensor = ENCODER(x)
        return h

    e = explain(encoder=encoder, estimator="weighted", tolerance=0.35, perturbations_per_eval=8)
    last = int(e.n_samples.max())
    assert len(set(e.n_samples.tolist())) > 1
    assert max(sizes) <= 8 * len(X)
    assert len(sizes) < 2 + last / 8 + len(looks(last)) + 1
    assert sizes[-2] > 8 * int((e.n_samples == last).sum())


def test_looks_are_few() -> None:
    """The accumulators of an example are asked where
    1/sqrt(N) says that it may be sure, not at every look.
    """
    asked: list[int] = []

    class Moments(type(rq.estimators.ESTIMATORS.get("weighted").start())):  # type: ignore[misc]
        def finish(self) -> Estimate:
            asked.append(self.count)
            estimate: Estimate = super().finish()
            return estimate

    class Mine:
        name = "mine"

        def start(self) -> Moments:
            return Moments()

    e = explain(X[:1], estimator=Mine(), tolerance=1e-3, n_samples=5000)
    assert e.estimator == "mine"
    assert asked == [64, 256, 1024, 4096, 5000]


# -- what it works with ----------------------------------------------------------------------------


def test_a_users_masks_are_asked_for_once_and_for_all() -> None:
    asked: list[int] = []

    class Mine(Bernoulli):
        def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
            asked.append(n)
            return super().sample(n, shape, generator)

    e = explain(masks=Mine(), tolerance=1.0)
    assert asked == [3000]
    assert (e.n_samples < 3000).any()


def test_every_tensor_of_a_tuple_has_to_be_sure() -> None:
    def two(a: Tensor, b: Tensor) -> Tensor:
        h: Tensor = ENCODER(a + 0.4 * b)
        return h

    strong, weak = explain((X[:2], X[:2].flip(2)), encoder=two, tolerance=0.6, n_samples=6000)
    assert torch.equal(strong.n_samples, weak.n_samples)
    assert (strong.n_samples < 6000).all()
    for i, n in enumerate(strong.n_samples.tolist()):
        assert relative(strong, i) < 0.6
        assert relative(weak, i) < 0.6
        before = explain((X[i : i + 1], X[i : i + 1].flip(2)), encoder=two, n_samples=looks(n)[-1])
        assert relative(before[0], 0) < 0.6 < relative(before[1], 0)


def test_additional_arguments_keep_the_batch_together() -> None:
    def encoder(x: Tensor, bias: Tensor) -> Tensor:
        h: Tensor = ENCODER(x) + bias
        return h

    bias = rand(4, 1, seed=3) * 0.1
    settings = {"encoder": encoder, "estimator": "weighted", "tolerance": 0.35}
    e = explain(additional_forward_args=bias, **settings)
    assert len(set(e.n_samples.tolist())) > 1
    for i in range(4):
        alone = explain(X[i : i + 1], additional_forward_args=bias[i : i + 1], **settings)
        assert e.n_samples[i] == alone.n_samples[0]
        assert_same(e, alone, i, rtol=1e-9)


def test_many_examples_are_cut_into_parts() -> None:
    sizes: list[int] = []

    def encoder(x: Tensor) -> Tensor:
        sizes.append(len(x))
        h: Tensor = ENCODER(x)
        return h

    e = explain(torch.cat([X] * 13), encoder=encoder, tolerance=0.5, n_samples=600, perturbations_per_eval=1)
    assert torch.equal(e.n_samples, explain(tolerance=0.5, n_samples=600).n_samples.repeat(13))
    assert set(sizes[4:68]) == {26}


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
@pytest.mark.parametrize("value", [1.0, 0.1])
def test_a_constant_encoder_never_stops(value: float, estimator: str) -> None:
    """Not for `paper`'s map either, whose spread is noise of the masks alone."""

    def constant(x: Tensor) -> Tensor:
        return torch.full((len(x), 3), value, dtype=x.dtype)

    assert (
        explain(X[:2], encoder=constant, estimator=estimator, n_samples=1100, tolerance=0.5).n_samples == 1100
    ).all()


def test_a_single_mask_never_stops() -> None:
    e = explain(n_samples=1, tolerance=5.0)
    assert (e.n_samples == 1).all()
    assert e.standard_error.isnan().all()
    assert e.centred_standard_error.isnan().all()


# -- its parts -------------------------------------------------------------------------------------


def estimated(centred: Tensor, error: Tensor) -> Estimate:
    """An estimate whose importance is 5 above the centred map, and whose own error is large."""
    importance, neutral = centred + 5, torch.full_like(centred, 5)
    return Estimate(importance, error, 9 * error, neutral.mean()[None], neutral, centred_standard_error=error)


def test_relative_error_takes_the_maps_own_noise_from_its_spread() -> None:
    tensor = masked_tensor(torch.zeros(1, 1, 2, 2), None, None)
    importance = torch.tensor([[[[1.0, 3.0], [1.0, 3.0]]]])
    error = torch.tensor([[[[0.1, 0.2], [0.1, 0.2]]]])
    assert relative_error(tensor, estimated(importance, error)) == pytest.approx(0.2 / math.sqrt(1 - 0.025))
    assert relative_error(tensor, estimated(importance, torch.full_like(error, 1.0))) == math.inf
    assert relative_error(tensor, estimated(importance, torch.full_like(error, math.nan))) == math.inf
    assert relative_error(tensor, estimated(torch.ones_like(error), torch.zeros_like(error))) == math.inf


def test_relative_error_counts_groups_by_their_entries() -> None:
    groups = torch.tensor([0, 0, 0, 1])
    tensor = masked_tensor(torch.zeros(1, 4), None, groups)
    importance, error = torch.tensor([[0.0, 4.0]]), torch.tensor([[0.0, 0.6]])
    assert relative_error(tensor, estimated(importance, error)) == pytest.approx(0.6 / math.sqrt(3 - 0.09))


@pytest.mark.parametrize("n_samples", [1, 63, 64, 65, 96, 97, 3000, 100_000])
def test_looks_grow_geometrically_below_the_ceiling(n_samples: int) -> None:
    counts = looks(n_samples)
    assert bool(counts) == (n_samples > 64)
    assert all(64 <= n < n_samples and n % 32 == 0 for n in counts)
    assert all(b / a in (1.5, 4 / 3) for a, b in pairwise(counts))
    assert not counts or n_samples <= 1.5 * counts[-1]


@pytest.mark.parametrize(
    ("tolerance", "error"),
    [
        (0, ArgumentError),
        (-0.1, ArgumentError),
        (math.inf, ArgumentError),
        (math.nan, ArgumentError),
        ("0.1", ArgumentTypeError),
        (True, ArgumentTypeError),
    ],
)
def test_other_tolerances_are_refused_before_any_forward(tolerance: Any, error: type[Exception]) -> None:
    encoder = Counting()
    with pytest.raises(error, match=r"^tolerance: expected a "):
        explain(encoder=encoder, tolerance=tolerance)
    assert encoder.rows == 0


# -- the command line ------------------------------------------------------------------------------


def test_the_command_line_takes_a_tolerance(write_wav: Callable[..., Any], sweep: Any, tmp_path: Path) -> None:
    def call(*arguments: str) -> Any:
        fixed = ("--n-samples", "400", "--masks", "time", "--out", str(tmp_path))
        return CliRunner().invoke(cli.app, ["explain", str(write_wav(sweep)), *fixed, *arguments])

    for tolerance, lines in (("20", "64 masks an example, tolerance 20"), ("1e-6", "400 masks an example")):
        result = call("--tolerance", tolerance)
        assert result.exit_code == 0, result.output
        assert lines in result.stdout
        with np.load(tmp_path / "clip.npz") as written:
            assert written["n_samples_time"].tolist() == [int(lines.split()[0])] * len(written["x"])
            assert json.loads(str(written["settings"]))["tolerance"] == float(tolerance)
    refused = call("--tolerance", "0")
    assert refused.exit_code == 2
    assert "--tolerance: expected a finite number above 0, got 0.0" in refused.stderr
