"""Cells in seconds and octaves: from calls of 3 ms to 20 s at 250 Hz to 256 kHz."""

from __future__ import annotations

import math

import numpy as np
import pytest

from relax_quantus.errors import ArgumentError, ArgumentTypeError
from relax_quantus.frontend.axes import BinAxis
from relax_quantus.frontend.cells import STRATEGIES, SoundGrid, cells_for, log_mel_grid
from relax_quantus.frontend.log_mel import LogMelAxis
from relax_quantus.relax import masks


def grid_of(rate_hz: int, seconds: float, bands_an_octave: int = 12) -> SoundGrid:
    """A grid as a network of such examples has: 500 frames or so, windows of 4 hops,
    bands equal in log f up to half the rate.
    """
    hop = max(1, round(rate_hz * seconds / 512))
    octaves = np.arange(0, 5 * bands_an_octave + 1) / bands_an_octave
    return SoundGrid(round(rate_hz * seconds / hop), hop / rate_hz, 4 * hop / rate_hz, tuple(rate_hz / 64 * 2**octaves))


CASES = [
    (250, 3.0),
    (250, 20.0),
    (16_000, 0.96),
    (16_000, 20.0),
    (48_000, 0.05),
    (48_000, 3.0),
    (256_000, 0.003),
    (256_000, 1.0),
]


@pytest.mark.parametrize(("rate_hz", "seconds"), CASES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n_samples", [10, 50, 500, 3000])
@pytest.mark.parametrize("asked", [(None, None), (0.001, 0.01), (0.5, 1.0), (100.0, 100.0)])
def test_bounds_hold_everywhere(
    rate_hz: int, seconds: float, strategy: str, n_samples: int, asked: tuple[float | None, float | None]
) -> None:
    grid = grid_of(rate_hz, seconds)
    cells = cells_for(grid, n_samples, strategy, *asked)
    assert cells.rows >= 1 <= cells.columns
    assert (cells.rows == 1) if strategy == "frequency" else True
    assert (cells.columns == 1) if strategy == "time" else True
    if strategy == "random":
        assert cells.rows * cells.columns <= max(1, n_samples / 5)
    else:
        assert max(cells.rows, cells.columns) <= 24
    if cells.rows > 1:
        assert cells.time_s >= 2 * grid.window_s * (1 - 1e-9)
    if cells.columns > 1:
        assert 2 * cells.columns <= len(grid.bands_hz)
        assert (np.diff(cells.positions) <= 0.5 + 1e-9).all()  # two bands a cell at least
    assert cells.time_s * cells.rows == pytest.approx(grid.duration_s)
    assert masks.get(strategy, **cells.parameters)


@pytest.mark.parametrize(("rate_hz", "seconds"), [case for case in CASES if case != (16_000, 0.96)])
def test_the_size_is_what_was_asked_for_where_the_bounds_allow_it(rate_hz: int, seconds: float) -> None:
    grid = grid_of(rate_hz, seconds)
    time_s = seconds / 10
    cells = cells_for(grid, 3000, "time_frequency", time_s, 0.5)
    assert (cells.rows, cells.columns) == (10, 10)
    assert cells.time_s == pytest.approx(time_s, rel=0.05)
    assert cells.octaves == pytest.approx(0.5, rel=0.05)
    assert cells.asked == (time_s, 0.5)


def test_defaults_are_120_ms_and_a_third_of_an_octave() -> None:
    cells = cells_for(grid_of(48_000, 2.4), 3000, "time_frequency")
    assert (cells.rows, cells.columns) == (20, 15)
    assert cells.time_s == pytest.approx(0.12, rel=0.01)
    assert cells.octaves == pytest.approx(1 / 3, rel=0.03)


@pytest.mark.parametrize(("rate_hz", "seconds"), [(256_000, 0.003), (48_000, 0.05), (250, 0.6)])
def test_short_calls_get_an_eighth_of_their_length(rate_hz: int, seconds: float) -> None:
    assert cells_for(grid_of(rate_hz, seconds), 500, "time").rows == 8


def test_both_axes_are_coarsened_by_one_factor() -> None:
    grid = grid_of(48_000, 3.0)
    fine, coarse = (cells_for(grid, n, "random", 0.1, 1 / 6) for n in (5 * 30 * 30, 400))
    assert (fine.rows, fine.columns) == (30, 30)
    assert coarse.rows == coarse.columns == math.isqrt(80)
    assert coarse.time_s / fine.time_s == pytest.approx(coarse.octaves / fine.octaves, rel=0.05)


def test_octave_cells_are_equal_in_log_f() -> None:
    """On bands equal in log f; on bands equal in mel, if two of them are narrower than a cell."""
    cells = cells_for(grid_of(48_000, 3.0), 3000, "frequency", None, 0.5)
    steps = np.diff(cells.positions)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    mel = log_mel_grid()
    cells = cells_for(mel, 3000, "frequency", None, 0.5)
    log = np.log2(np.asarray(mel.bands_hz))
    high = np.asarray(mel.bands_hz) > 700
    slope = np.diff(cells.positions[high]) / np.diff(log[high])
    np.testing.assert_allclose(slope, 1 / cells.octaves, rtol=0.02)


def test_log_mel_of_096_s_keeps_the_published_numbers() -> None:
    for strategy in STRATEGIES:
        kept = cells_for(log_mel_grid(), 50, strategy).parameters
        default = masks.get(strategy)
        assert {name: getattr(default, name) for name in kept} == kept
    assert cells_for(log_mel_grid(), 500, "time", time_s=0.06).parameters == {"stripes": 16}


def test_grids_of_axes() -> None:
    assert log_mel_grid() == SoundGrid.of_axis(LogMelAxis(), 96)
    cepstra = SoundGrid.of_axis(BinAxis(every_s=0.01, size=13), 100)
    cells = cells_for(cepstra, 500, "frequency")
    assert cells.columns == 8
    assert math.isnan(cells.octaves)


def test_the_size_is_said() -> None:
    grid = grid_of(48_000, 2.4)
    assert str(cells_for(grid, 3000, "time_frequency")) == "0.12 s by 0.34 octaves (20 x 15 cells)"
    assert str(cells_for(grid, 3000, "time")) == "0.12 s (20 x 1 cells)"
    assert str(cells_for(grid, 3000, "frequency")) == "0.34 octaves (1 x 15 cells)"
    assert str(cells_for(grid, 4, "random")) == "one cell (1 x 1 cells)"


def test_what_cannot_be_counted_is_refused() -> None:
    grid = grid_of(48_000, 3.0)
    with pytest.raises(ArgumentError, match=r"strategy: expected one of random, time, frequency, time_frequency"):
        cells_for(grid, 500, "groups")
    with pytest.raises(ArgumentError, match="time_s: expected a finite number above 0, got 0"):
        cells_for(grid, 500, "time", time_s=0)
    with pytest.raises(ArgumentTypeError, match="octaves: expected a positive number"):
        cells_for(grid, 500, "time", octaves="third")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="bands_hz: expected rising frequencies"):
        SoundGrid(3, 0.1, 0.1, (3.0, 2.0))
