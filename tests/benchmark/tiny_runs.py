"""A run small enough to be repeated, on the distribution that
conftest.py installs, and what the tests of the engine compare it by.
"""

from __future__ import annotations

import time
from functools import cache

import pandas as pd

from relax_quantus.benchmark import BenchmarkConfig, Results, run

TINY = BenchmarkConfig(
    datasets=("tiny",),
    encoders=("net",),
    methods=("RELAX-time", "RELAX-time twin", "energy", "Saliency"),
    metrics=("Slow", "SRG-patch-silence", "AUC", "LocalLipschitz"),
    max_clips=3,
    n_samples=20,
    head_clips=12,
    reexplain_clips=1,
    reexplain_samples=10,
    perturbations=2,
    threads=1,
)


@cache
def uninterrupted() -> Results:
    """A run in this process."""
    return run(TINY, show_progress=False)


def same(found: Results, wanted: Results, rtol: float = 0.0) -> None:
    """All but the times is equal."""
    for name in ("rows", "curves"):
        a, b = (getattr(r, name).drop(columns="seconds", errors="ignore") for r in (found, wanted))
        pd.testing.assert_frame_equal(a, b, check_exact=rtol == 0, **({"rtol": rtol, "atol": 1e-9} if rtol else {}))
    assert found.head_accuracies == wanted.head_accuracies
    assert found.forwards == wanted.forwards, (
        "a property of the grid, not of what was remembered while it was worked off"
    )


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
