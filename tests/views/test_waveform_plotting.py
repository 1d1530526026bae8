"""Curves of importance over time: their intervals,
what is not known of them, and what stands out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import relax_quantus as rq
from relax_quantus.frontend.axes import SampleAxis
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.thresholds import standing_out
from relax_quantus.views.waveform import waveform_figure

WAVES = torch.ones(2, 800)
AXIS = SampleAxis(rate_hz=100)
SECONDS = AXIS.times_s(1600)


@pytest.fixture(scope="module")
def explained() -> Explanation:
    """Two examples of a network that hears samples 200 to 399."""

    def encoder(x: torch.Tensor) -> torch.Tensor:
        heard = x[:, 200:400].mean(1)
        return torch.stack([heard, torch.full_like(heard, 0.5)], 1)

    found = rq.RELAX(encoder, masks="time").explain(WAVES, torch.zeros(1), n_samples=60, null=True)
    assert isinstance(found, Explanation)
    return found


def drawn(e: Explanation) -> Any:
    return waveform_figure(WAVES, {"time": e}, axis=AXIS).axes[2]


def reach(collection: Any, second: float) -> tuple[float, float]:
    """Lowest and highest point of a filled area at one time; NaN where it is not filled."""
    inside = [p.vertices[np.abs(p.vertices[:, 0] - second) < 1e-6, 1] for p in collection.get_paths()]
    found = np.concatenate([*inside, [np.nan]])
    return (float(np.nanmin(found)), float(np.nanmax(found))) if len(found) > 1 else (np.nan, np.nan)


def test_the_band_is_the_interval_of_what_is_drawn(explained: Explanation) -> None:
    few = dataclasses.replace(explained, n_samples=torch.full((2,), 4))
    for e in (explained, few):
        low, high = (bound.flatten()[310] for bound in e.interval())
        assert reach(drawn(e).collections[0], SECONDS[310]) == pytest.approx((float(low), float(high)), rel=1e-4)
    assert few.interval()[1][0, 310] - few.centred()[0, 310] > 1.5 * (
        explained.interval()[1][0, 310] - explained.centred()[0, 310]
    )


def test_an_unknown_error_is_hatched(explained: Explanation) -> None:
    error = explained.centred_standard_error.clone()
    error[0, 300:320] = torch.nan
    panel = drawn(dataclasses.replace(explained, centred_standard_error=error))
    (hatched,) = [c for c in panel.collections if c.get_hatch()]
    assert reach(hatched, SECONDS[310]) == pytest.approx(panel.get_ylim())
    assert np.isnan(reach(hatched, SECONDS[350])).all()
    assert not [c for c in drawn(explained).collections if c.get_hatch()]


def test_what_stands_out_has_a_bar(explained: Explanation) -> None:
    bins = standing_out(explained).bins.flatten()
    assert bins[250]
    assert not bins[700]
    bar = drawn(explained).collections[1]
    assert np.isfinite(reach(bar, SECONDS[250])).all()
    assert np.isnan(reach(bar, SECONDS[700])).all()
    deaf = drawn(dataclasses.replace(explained, fully_masked_similarity=explained.mean_similarity))
    assert "this network hears nothing here; nothing stands out" in deaf.get_title()
