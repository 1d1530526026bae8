"""Axes of time and frequency, and a waveform's picture on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import relax_quantus as rq
from relax_quantus.errors import ArgumentError
from relax_quantus.frontend.axes import BinAxis, SampleAxis
from relax_quantus.frontend.log_mel import LogMelAxis, mel_centres_hz
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.maps import end_to_end
from relax_quantus.views.waveform import waveform_figure


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
    assert LogMelAxis().ticks()[1] == ["250", "500", "1000", "2000", "4000", "7000"]


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


@pytest.mark.parametrize(
    ("low_hz", "high_hz"), [(10_000, 120_000), (20_000, 96_000), (3_000, 3_800), (0, 60), (0, 24_000)]
)
def test_every_range_of_frequencies_has_ticks(low_hz: float, high_hz: float) -> None:
    axis = BinAxis(size=100, bins_hz=tuple(np.linspace(low_hz, high_hz, 100)))
    positions, names = axis.ticks()
    assert 3 <= len(names) <= 12
    assert len(set(names)) == len(names)
    np.testing.assert_allclose(np.interp(positions, np.arange(100), axis.bins_hz), [float(n) for n in names], atol=1)
    assert min(np.diff(positions)) >= 6
    assert all(low_hz <= float(name) <= high_hz for name in names)


def test_high_log_mel_bands_have_ticks() -> None:
    _, names = LogMelAxis(rq.LogMelConfig(sample_rate_hz=48_000, mel_max_hz=20_000.0)).ticks()
    assert names[-1] in ("15000", "20000")


def test_windows_that_begin_late_are_drawn_where_they_are() -> None:
    late = BinAxis(every_s=0.1, size=4, first_s=0.5, window_s=1.0)
    assert late.extent(10)[:2] == (pytest.approx(0.45), pytest.approx(1.45))
    assert late.end_s(10) == pytest.approx(1.9)
    assert BinAxis(every_s=0.1, size=4, first_s=-0.4).extent(10)[0] == pytest.approx(-0.45)
    pieces = BinAxis(every_s=0.1, size=4, example_frames=11, example_s=1.0)
    np.testing.assert_allclose(pieces.times_s(23)[[0, 10, 11, 22]], [0.0, 1.0, 1.0, 2.0])
    assert pieces.extent(22)[1] == pytest.approx(2.0)


def test_complex_values_are_drawn_by_their_magnitude() -> None:
    x = torch.tensor([3 + 4j, -5j, -1 + 0j, 0j]).reshape(1, 1, 2, 2)
    np.testing.assert_allclose(end_to_end(x), [[5, 1], [5, 0]])


@pytest.mark.parametrize("notes", ["word " * 60, "w" * 200, "a\n\nb"])
def test_notes_stay_within_a_waveform_s_picture(sweep: np.ndarray, notes: str) -> None:
    waves = torch.from_numpy(sweep).reshape(2, -1)
    ones = torch.ones(2, 1)
    maps = 0 * waves
    e = Explanation(maps, maps, maps, ones[:, 0], ones[:, 0], ones[:, 0], 0 * ones, "weighted")
    figure = waveform_figure(waves, {"time": e}, notes=notes)
    (text,) = (t for t in figure.texts if t.get_text().startswith(notes[:1]))
    assert text.get_window_extent(figure.canvas.get_renderer()).x1 <= figure.bbox.x1  # type: ignore[attr-defined]
    assert text.get_text().replace("\n", "").replace(" ", "") == notes.replace("\n", "").replace(" ", "")
