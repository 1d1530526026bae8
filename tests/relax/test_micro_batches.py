"""Full micro-batches, and their measured and remembered sizes. Forwards are counted, not timed."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from counted_forwards import ENCODER, FIELDS, MANY, Counting, X
from reference.models import Given, rand, relu_encoder
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.relax import call as problem
from relax_quantus.relax import micro_batch
from relax_quantus.relax.micro_batch import FORWARD_ROWS, REPEATS, Plan

# -- micro-batches -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("per_eval", [1, 7, 50, 64, 100])
def test_every_forward_but_the_last_is_full(per_eval: int, batch: int) -> None:
    encoder = Counting()
    rq.RELAX(encoder).attribute(rand(batch, 1, 4, 3), n_samples=510, perturbations_per_eval=per_eval)
    assert encoder.rows[0] == batch
    assert set(encoder.rows[1:-1]) == {per_eval * batch}
    assert sum(encoder.rows[1:]) == 510 * batch


@pytest.mark.parametrize(("batch", "rows"), [(1, 48), (5, 45), (8, 48), (30, 30), (60, 30), (100, 34)])
def test_without_a_number_forwards_hold_nearly_48_copies_in_even_blocks(batch: int, rows: int) -> None:
    """Masks are shared by a batch, and its examples go through the encoder together."""
    encoder = Counting()
    rq.RELAX(encoder).attribute(rand(batch, 1, 4, 3), n_samples=54)
    assert max(encoder.rows) == rows
    assert sum(encoder.rows) == 55 * batch


@pytest.mark.parametrize("per_eval", [1, 50, 64, 1000])
@pytest.mark.parametrize("strategy", list(rq.masks.STRATEGIES))
def test_micro_batches_draw_the_same_masks(strategy: str, per_eval: int) -> None:
    def masks(n: int | None) -> Tensor:
        drawn = problem.pose(X, rq.masks.get(strategy), n_samples=300, seed=3).stream
        return torch.cat([m[0] for m, _ in (drawn if n is None else drawn.chunks(n))])

    assert torch.equal(masks(per_eval), masks(None))
    assert len(masks(None)) == 300


@pytest.mark.parametrize("masks", ["random", "time", Given(rand(MANY, 1, 4, 3).sigmoid())])
@pytest.mark.parametrize("batch", [1, 2, 60])
def test_the_planned_number_given_back_changes_no_bit(batch: int, masks: Any) -> None:
    n = MANY if batch < 60 else 100
    relax = rq.RELAX(relu_encoder(12, dtype=torch.float32), masks)
    x = rand(batch, 1, 4, 3, dtype=torch.float32)
    by_itself = relax.explain(x, baselines="noise", n_samples=n)
    number = relax.plan(x, n_samples=n).perturbations_per_eval
    again = relax.explain(x, baselines="noise", n_samples=n, perturbations_per_eval=number)
    for field in FIELDS:
        assert torch.equal(getattr(again, field), getattr(by_itself, field))


# -- measuring and remembering ---------------------------------------------------------------------------------------------------------


def test_nothing_is_measured_for_small_calls() -> None:
    encoder = Counting()
    rq.RELAX(encoder).attribute(X, n_samples=500)
    assert sum(encoder.rows) == 2 * 501


@pytest.mark.parametrize("best", [24, 48, 192])
def test_the_fastest_size_is_taken_and_remembered(best: int, clock: Any) -> None:
    clock(lambda rows: rows * (1.0 if rows == best else 2.0))
    encoder = Counting()
    relax, n = rq.RELAX(encoder), 7500
    first = relax.attribute(X, n_samples=n)
    spent = sum(encoder.rows) - 2 * (n + 1)
    assert 0 < spent <= micro_batch.BUDGET * 2 * n
    assert encoder.rows[-2] == best
    encoder.rows.clear()
    assert torch.equal(relax.attribute(X, n_samples=n), first)
    assert sum(encoder.rows) == 2 * (n + 1)
    assert relax.plan(X, n_samples=n) == Plan(best // 2)
    relax.attribute(X, n_samples=500)
    assert max(encoder.rows) == best


def test_a_slightly_faster_size_does_not_displace_the_usual_one(clock: Any) -> None:
    clock(lambda rows: rows * (0.98 if rows == 24 else 1.0))
    assert rq.RELAX(Counting()).plan(X, n_samples=MANY).perturbations_per_eval == FORWARD_ROWS // 2


def test_sizes_are_measured_in_turn_and_the_least_time_counts() -> None:
    asked: list[int] = []
    times = iter([5.0, 1.0, 2.0, 9.0])

    def seconds(choice: int) -> float:
        asked.append(choice)
        return next(times)

    assert micro_batch.fastest((7, 8), seconds) == 8
    assert asked == [7, 8] * REPEATS


def test_what_was_measured_is_kept_by_shape_threads_and_encoder_and_goes_with_the_encoder(clock: Any) -> None:
    clock(lambda rows: rows * (1.0 if rows == 24 else 2.0))
    encoder = Counting(lambda x: x.flatten(1)[:, :3] + 1)
    before = len(micro_batch._measured)
    rq.RELAX(encoder).plan(X, n_samples=MANY)
    assert len(micro_batch._measured) == before + 1
    calls = len(encoder.rows)
    rq.RELAX(encoder, "time").plan(X, n_samples=MANY)
    assert len(encoder.rows) == calls + 1  # the reference alone
    for other in (rand(2, 1, 5, 3), rand(4, 1, 4, 3), X.float()):
        calls = len(encoder.rows)
        rq.RELAX(encoder).plan(other, n_samples=MANY)
        assert len(encoder.rows) > calls + 1
    threads, calls = torch.get_num_threads(), len(encoder.rows)
    try:
        torch.set_num_threads(threads + 1)
        rq.RELAX(encoder).plan(X, n_samples=MANY)
    finally:
        torch.set_num_threads(threads)
    assert len(encoder.rows) > calls + 1
    del encoder
    gc.collect()
    assert len(micro_batch._measured) == before


def test_methods_are_remembered_with_their_object(clock: Any) -> None:
    clock(lambda rows: rows * (1.0 if rows == 24 else 2.0))
    counting = Counting()
    model = rq.SimilarityModel(counting, rand(3, 4))
    rq.RELAX(model.embed).plan(X, n_samples=MANY)
    calls = len(counting.rows)
    assert rq.RELAX(model.embed).plan(X, n_samples=MANY) == Plan(12)
    assert len(counting.rows) == calls + 1


def test_encoders_without_weak_references_work() -> None:
    class Slotted:
        __slots__ = ()

        def __call__(self, x: Tensor) -> Tensor:
            return ENCODER(x)

    assert rq.RELAX(Slotted()).attribute(X, n_samples=MANY).shape == X.shape


def test_an_encoder_in_training_mode_is_measured_in_eval_mode() -> None:
    modes: list[bool] = []

    class Noting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            modes.append(self.training)
            return ENCODER(x)

    net = Noting()
    assert net.training
    rq.RELAX(net).attribute(X, n_samples=MANY)
    assert set(modes) == {False}
    assert net.training


def test_measuring_leaves_the_global_generator_where_it_was() -> None:
    """An encoder that draws from it gets the same numbers whether sizes are measured or not."""
    draws: list[float] = []

    def encoder(x: Tensor) -> Tensor:
        draws.append(float(torch.rand(())))
        return ENCODER(x)

    torch.manual_seed(5)
    rq.RELAX(encoder).plan(X, n_samples=MANY)
    measured = list(draws)
    torch.manual_seed(5)
    expected = [float(torch.rand(())), float(torch.rand(()))]
    assert len(measured) > 2
    assert measured[0] == expected[0]
    assert set(measured[1:]) == {expected[1]}
