"""Axes of time and frequency, and a waveform's picture on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import relax_quantus as rq
from relax_quantus.axes import Axis, BinAxis, SampleAxis, mel_centres_hz
from relax_quantus.errors import ArgumentError
from relax_quantus.explanation import Explanation
from relax_quantus.waveform_plotting import waveform_figure


def test_mel_centres_are_those_of_the_filters() -> None:
    np.testing.assert_allclose(mel_centres_hz(125, 7500, 64), rq.LogMelConfig().band_centres_hz, rtol=1e-6)
    assert mel_centres_hz(0, 1000, 4, "slaney") == pytest.approx([200, 400, 600, 800])


def test_axes_of_bins_are_in_seconds_and_hz() -> None:
    linear = BinAxis(every_s=0.02, size=101, bins_hz=tuple(np.linspace(0, 8000, 101)))
    np.testing.assert_allclose(linear.band_of_hz([0, 4000, 8000]), [0, 50, 100])
    positions, names = linear.ticks()
    assert list(names) == ["250", "1000", "2000", "4000", "7000"]
    np.testing.assert_allclose(positions, linear.band_of_hz([float(n) for n in names]))
    assert linear.extent(10) == (0.0, pytest.approx(0.2), -0.5, 100.5)
    counted = BinAxis(size=13, label="coefficient").ticks()
    assert counted[1][0] == "0"
    assert counted[0] == [float(n) for n in counted[1]]
    assert Axis().ticks()[1] == ["250", "500", "1000", "2000", "4000", "7000"]


def test_a_waveform_s_picture_has_time_below_and_importance_on_one_scale(sweep: np.ndarray) -> None:
    waves = torch.from_numpy(sweep).reshape(2, -1)
    maps = torch.linspace(-1, 1, waves.numel()).reshape(waves.shape)
    ones = torch.ones(2, 1)
    errors = {"standard_error": ones.expand_as(maps), "centred_standard_error": 0.1 * ones.expand_as(maps)}
    each = {"mean_similarity": ones[:, 0], "fully_masked_similarity": ones[:, 0], "n_samples": 500 * ones[:, 0]}
    e = Explanation(maps, maps, **errors, **each, neutral=0 * ones, estimator="weighted")
    figure = waveform_figure(waves, {"time": e}, title="a", notes="b", axis=SampleAxis(start_s=1.0))
    spectrogram, wave, curve = figure.axes
    for panel in (spectrogram, wave, curve):
        assert panel.get_xlim() == (1.0, 3.0)
    assert curve.get_xlabel() == "time (s)"
    assert spectrogram.get_ylabel() == "frequency (Hz)"
    line = curve.lines[0] if len(curve.lines[0].get_xdata()) > 2 else curve.lines[1]
    np.testing.assert_allclose(np.interp(2.0, line.get_xdata(), line.get_ydata()), 0.0, atol=1e-3)
    assert curve.get_ylim()[1] == pytest.approx(1.05 * (1 + 1.965 * 0.1), rel=1e-3)
    with pytest.raises(ArgumentError, match="explanations"):
        waveform_figure(waves, {})
    with pytest.raises(ArgumentError, match=r"waveforms of shape \(n, samples\)"):
        waveform_figure(waves[0], {"time": e})
