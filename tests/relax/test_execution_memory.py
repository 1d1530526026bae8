"""What happens where memory is short, and that it does not grow with the number of masks."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import Any

import pytest
import torch
from counted_forwards import ENCODER, FIELDS, Counting, X
from reference.models import Given, rand
from torch import Tensor

import relax_quantus as rq
from relax_quantus.relax import call as problem
from relax_quantus.relax import execution


@pytest.mark.parametrize("message", [None, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"])
@pytest.mark.parametrize(("batch", "most"), [(1, 5), (2, 7), (60, 4), (60, 1)])
def test_out_of_memory_halves_the_forward(batch: int, most: int, message: str | None) -> None:
    def limited(x: Tensor) -> Tensor:
        if len(x) > most:
            raise torch.OutOfMemoryError("too much") if message is None else RuntimeError(message)
        return ENCODER(x)

    x = rand(batch, 1, 4, 3)
    encoder = Counting(limited)
    found = rq.RELAX(encoder).explain(x, baselines="noise", n_samples=70)
    expected = rq.RELAX(ENCODER).explain(x, baselines="noise", n_samples=70)
    for field in FIELDS:
        torch.testing.assert_close(getattr(found, field), getattr(expected, field), rtol=0, atol=1e-12)
    refused = sum(rows > most for rows in encoder.rows)
    assert refused <= 6  # halved and then left so
    encoder.rows.clear()
    rq.RELAX(encoder).attribute(x, n_samples=70)
    assert sum(rows > most for rows in encoder.rows) <= (6 if batch == 60 else 0)  # and remembered


def test_one_row_that_does_not_fit_is_an_error() -> None:
    def never(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("too much")

    with pytest.raises(torch.OutOfMemoryError, match="too much"):
        rq.RELAX(never).attribute(X, n_samples=5)


def test_other_errors_of_the_encoder_are_its_own() -> None:
    calls: list[int] = []

    def broken(x: Tensor) -> Tensor:
        calls.append(len(x))
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        rq.RELAX(broken).attribute(X, n_samples=5)
    assert len(calls) == 1


@pytest.mark.parametrize("masks", ["random", "user"])
def test_a_batch_whose_sums_do_not_fit_is_explained_part_by_part(masks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, given = rand(7, 1, 4, 3), Given(rand(90, 1, 4, 3, seed=1).sigmoid())
    user: Any = given if masks == "user" else masks
    whole = rq.RELAX(ENCODER, user, estimator="weighted").explain(x, baselines="noise", n_samples=90)
    given.asked.clear()
    updates: list[int] = []
    monkeypatch.setattr(problem, "SUMS_BYTES", 3 * 12 * problem.BYTES_AN_ENTRY)

    class Noting(rq.estimators.Weighted):
        def start(self) -> Any:
            accumulator = super().start()
            update = accumulator.update
            accumulator.update = lambda s, m: (updates.append(s.shape[1]), update(s, m))  # type: ignore[method-assign]
            return accumulator

    encoder = Counting()
    relax = rq.RELAX(encoder, user, estimator=Noting())
    parts = relax.explain(x, baselines="noise", n_samples=90)
    assert set(updates) == {3, 1}
    assert sum(encoder.rows) == 7 * 92
    assert len(given.asked) == (masks == "user")
    for field in FIELDS:
        torch.testing.assert_close(getattr(parts, field), getattr(whole, field), rtol=0, atol=1e-12)
    assert parts.n_samples.tolist() == [90] * 7
    again = relax.estimate(x, relax.similarities(x, baselines="noise", n_samples=90))
    torch.testing.assert_close(again.importance, whole.importance, rtol=0, atol=1e-12)


def test_parts_of_tuples(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = (rand(4, 3), rand(4, 1, 2, 2, seed=1))
    relax = rq.RELAX(lambda p, q: torch.cat([p, q.flatten(1)], 1))
    whole = relax.attribute(inputs, n_samples=20)
    monkeypatch.setattr(problem, "SUMS_BYTES", 1)
    for part, all_at_once in zip(relax.attribute(inputs, n_samples=20), whole, strict=True):
        torch.testing.assert_close(part, all_at_once, rtol=0, atol=1e-12)


def test_copies_in_a_forward_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "FORWARD_ENTRIES", 5 * 12)
    encoder = Counting()
    rq.RELAX(encoder).attribute(rand(7, 1, 4, 3), n_samples=10)
    assert max(encoder.rows) == 4  # two even blocks of at most five examples
    encoder.rows.clear()
    rq.RELAX(encoder).attribute(X, n_samples=10)
    assert max(encoder.rows) == 4


PEAK = """
import resource, torch
import relax_quantus as rq
torch.set_num_threads(1)
x = torch.rand(1, 1, 24, 16, generator=torch.Generator().manual_seed(0))
relax = rq.RELAX(lambda z: z.mean(3).flatten(1), masks='random')
for n in (3000, 100_000):
    relax.attribute(x, n_samples=n, perturbations_per_eval=256)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_peak_memory_does_not_grow_with_n() -> None:
    """The masks of N = 100 000 alone are 154 MB."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    few, many = map(int, done.stdout.split())
    assert many < 1.1 * few


FAULTS = """
import resource, torch
import relax_quantus as rq
torch.set_num_threads(1)
relax, x = rq.RELAX(rq.load_encoder("vggish_mini"), estimator="weighted"), torch.zeros(1, 1, 96, 64) - 3
relax.attribute(x + torch.arange(64) / 64, n_samples=96)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
relax.attribute(x + torch.arange(64) / 64, n_samples=192)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc's allocator")
def test_activations_are_not_mapped_anew_in_each_forward() -> None:
    """Left to itself, the allocator fetches about 150 pages a mask from the system."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20 * 192
