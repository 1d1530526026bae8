"""What the package keeps between calls or changes in the process, and its switch."""

from __future__ import annotations

import os

import pytest
import torch
from counted_forwards import MANY, Counting, X

import relax_quantus as rq
from relax_quantus.audio.reading import quiet_stderr
from relax_quantus.errors import ArgumentError
from relax_quantus.relax import execution


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often the allocator is led to keep memory."""
    times: list[int] = []
    monkeypatch.setattr(execution, "keep_freed_memory", lambda: times.append(1))
    return times


@pytest.mark.parametrize("switch", ["on", "off", None])
def test_off_measures_and_keeps_nothing(switch: str | None, freed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "clock", lambda run, device: float(len(run())))
    monkeypatch.delenv(execution.HIDDEN_STATE, raising=False)
    plain = Counting()
    expected = rq.RELAX(plain).attribute(X, n_samples=MANY, perturbations_per_eval=24)
    if switch is not None:
        monkeypatch.setenv(execution.HIDDEN_STATE, switch)
    freed.clear()
    encoder = Counting()
    found = rq.RELAX(encoder, precision="auto").attribute(X, n_samples=MANY)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    is_kept = switch != "off"
    assert (encoder in execution._measured) == is_kept
    assert (sum(encoder.rows) > (MANY + 1) * len(X)) == is_kept
    assert len(freed) == is_kept
    if not is_kept:
        assert rq.RELAX(encoder).plan(X, n_samples=MANY).perturbations_per_eval == execution.FORWARD_ROWS // len(X)


def test_off_remembers_no_forward_that_did_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 7:
            raise torch.OutOfMemoryError("too much")
        return x.flatten(1)

    for switch in ("off", "on"):
        monkeypatch.setenv(execution.HIDDEN_STATE, switch)
        encoder = Counting(small)
        rq.RELAX(encoder).attribute(X, n_samples=60)
        assert (encoder in execution._measured) == (switch == "on")


def test_off_leaves_stderr_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.fstat(2)
    for switch, stays in (("off", True), ("on", False)):
        monkeypatch.setenv(execution.HIDDEN_STATE, switch)
        with quiet_stderr:
            inside = os.fstat(2)
        assert ((inside.st_dev, inside.st_ino) == (before.st_dev, before.st_ino)) == stays
        assert os.fstat(2).st_ino == before.st_ino


def test_another_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(execution.HIDDEN_STATE, "no")
    with pytest.raises(ArgumentError, match=r"^RELAX_QUANTUS_HIDDEN_STATE: expected 'on' or 'off', got 'no'; "):
        rq.RELAX(Counting()).attribute(X, n_samples=60)
