"""Which bins of a map stand out: effects beyond chance, of a size, where anything is heard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relax_quantus.errors import ArgumentError
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.thresholds import (
    FRACTION,
    Bounds,
    bounds_of_parts,
    deviation_of_parts,
    least_effect,
    standing_out,
)


def explanation(**changes: Any) -> Explanation:
    """Two examples of three bins; chance draws |z| of 3 at most."""
    centred = torch.tensor([[1.0, 0.4, 0.2], [-0.9, 0.5, 0.1]])
    parts: dict[str, Any] = {
        "importance": centred + 0.6,
        "uncertainty": centred * 0,
        "standard_error": torch.full((2, 3), 9.0),
        "centred_standard_error": torch.full((2, 3), 0.1),
        "mean_similarity": torch.full((2,), 0.6),
        "fully_masked_similarity": torch.full((2,), 0.3),
        "n_samples": torch.full((2,), 100),
        "neutral": torch.full((2, 1), 0.6),
        "estimator": "weighted",
        "null_maxima": torch.linspace(1, 3, 200).expand(2, -1),
        "null_statistic": torch.tensor([10.0, 9.0]),
    }
    return Explanation(**{**parts, **changes})


def test_what_stands_out_is_positive_beyond_chance_and_large() -> None:
    found = standing_out(explanation())
    assert found.bins.tolist() == [[True, True, False], [False, True, False]]
    assert found.among.tolist() == [[True, True, False], [True, True, False]]
    assert found.bounds.effect == pytest.approx(FRACTION)
    assert 2.9 < found.bounds.z < 3
    assert found.bounds.p_value == pytest.approx(1 / 201)
    assert found.bounds.in_words == ""


def test_an_unknown_error_stands_out_nowhere() -> None:
    error = torch.full((2, 3), 0.1)
    error[0, 0] = torch.nan
    found = standing_out(explanation(centred_standard_error=error))
    assert found.bins.tolist() == [[False, True, False], [False, True, False]]
    assert found.bounds.effect == pytest.approx(0.5 * FRACTION)


def test_an_example_in_which_nothing_is_heard_has_nothing() -> None:
    e = explanation(fully_masked_similarity=torch.tensor([0.6, 0.3]))
    found = standing_out(e)
    assert found.bins.tolist() == [[False, False, False], [False, True, False]]
    assert found.bounds.in_words == "this network hears nothing in 1 of its 2 examples"
    none = standing_out(explanation(fully_masked_similarity=torch.tensor([0.7, 0.6])))
    assert not none.bins.any()
    assert none.bounds.in_words == "this network hears nothing here; nothing stands out"


def test_errors_as_large_as_chance_leave_nothing() -> None:
    found = standing_out(explanation(centred_standard_error=torch.full((2, 3), 0.5)))
    assert not found.bins.any()
    assert found.bounds.is_empty
    assert found.bounds.in_words == "nothing stands out"


def test_without_permutations_nothing_is_known_to_stand_out() -> None:
    found = standing_out(explanation(null_maxima=None, null_statistic=None))
    assert not found.bins.any()
    assert found.bounds.in_words == "nothing stands out: what chance alone draws is not known"


def test_an_example_without_an_explanation_does_not_count() -> None:
    maxima = torch.stack([torch.linspace(1, 3, 200), torch.full((200,), torch.nan)])
    statistic = torch.tensor([10.0, torch.nan])
    nothing = torch.tensor([torch.nan, torch.nan, torch.nan])
    importance = torch.stack([explanation().importance[0], nothing])
    found = standing_out(explanation(importance=importance, null_maxima=maxima, null_statistic=statistic))
    assert found.bins.tolist() == [[True, True, False], [False, False, False]]


@given(seed=st.integers(0, 1000), parts=st.integers(1, 5), deaf=st.booleans())
@settings(deadline=None, max_examples=60)
def test_in_parts_it_is_that_of_the_whole(seed: int, parts: int, deaf: bool) -> None:
    generator = np.random.default_rng(seed)
    centred = generator.standard_normal((30, 3))
    z = generator.standard_normal((30, 3)) * 3
    z[generator.random((30, 3)) < 0.1] = np.nan
    maxima, statistic = torch.from_numpy(generator.random((2, 200)) * 5), torch.tensor([6.0, 3.0])
    nothing = torch.tensor([deaf, False])

    def of(count: int) -> Bounds:
        cut = (np.array_split(v, count) for v in (centred, z))
        return bounds_of_parts(lambda: zip(*cut, strict=True), maxima, statistic, nothing)

    assert repr(of(parts)) == repr(of(1))  # NaN where nothing passes
    np.testing.assert_allclose(deviation_of_parts(np.array_split(centred, parts)), centred.std(), rtol=1e-12)


def test_effects_of_maps_alone() -> None:
    assert least_effect(torch.tensor([0.5, -7.0, torch.nan]), 0.4) == pytest.approx(0.2)
    assert np.isnan(least_effect(np.array([-1.0, np.nan])))
    with pytest.raises(ArgumentError, match="fraction: expected"):
        least_effect(np.zeros(3), 1.0)
