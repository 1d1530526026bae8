"""A map's level and spread read off in parts are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relax_quantus.errors import ArgumentError
from relax_quantus.thresholds import level, scale_of_parts


@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 400),
    share=st.sampled_from([0.01, 0.2, 0.5, 0.9]),
    ties=st.booleans(),
    parts=st.integers(1, 5),
)
@settings(deadline=None, max_examples=150)
def test_in_parts_it_is_that_of_the_whole(seed: int, size: int, share: float, ties: bool, parts: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 4, size).astype(float) if ties else generator.standard_normal(size) ** 3
    values[generator.random(size) < 0.1] = np.nan
    found = scale_of_parts(lambda: iter(np.array_split(values, parts)), share)
    np.testing.assert_allclose(found.level, level(values, share), rtol=1e-12, atol=1e-12)
    finite = values[np.isfinite(values)]
    np.testing.assert_allclose(found.deviation, finite.std() if finite.size else np.nan, rtol=1e-9, atol=1e-12)


def test_an_outlier_does_not_blur_it() -> None:
    values = np.append(np.random.default_rng(0).random(10_000), 1e9)
    assert scale_of_parts(lambda: [values]).level == pytest.approx(level(values), rel=1e-12)


def test_impossible_shares() -> None:
    with pytest.raises(ArgumentError, match="share: expected"):
        scale_of_parts(lambda: [np.zeros(3)], 1.0)
