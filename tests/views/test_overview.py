"""A long recording's picture: of bounded size, and a short call is still there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relax_quantus.errors import ArgumentError
from relax_quantus.frontend.log_mel import LogMelAxis
from relax_quantus.views.overview import (
    DOTS_PER_INCH,
    LINE_COLUMNS,
    MOST_LINES,
    Overview,
    column_frames,
    faded,
    loudest,
    overview_figure,
    telling,
)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), size=st.integers(1, 7), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=80)
def test_columns_do_not_depend_on_the_parts(sizes: list[int], size: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((sum(sizes), 3)).astype(np.float32)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    found = telling(({"centred": p, "other": 10 * p} for p in parts), size)
    assert len(found["centred"]) == -(-len(values) // size)
    for column in range(len(found["centred"])):
        rows = values[column * size : (column + 1) * size]
        for band in range(3):
            at = np.abs(rows[:, band]).argmax()
            assert found["centred"][column, band] == rows[at, band]
            assert found["other"][column, band] == 10 * rows[at, band]
        np.testing.assert_array_equal(loudest(parts, size)[column], rows.max(axis=0))


def test_coarser_is_what_larger_columns_would_be() -> None:
    values = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    fine = Overview(loudest([values], 3), {"time": telling([{"centred": values}], 3)}, 0.03)
    coarse = fine.coarser(4)
    np.testing.assert_array_equal(coarse.maps["time"]["centred"], telling([{"centred": values}], 12)["centred"])
    np.testing.assert_array_equal(coarse.spectrogram, loudest([values], 12))
    assert coarse.column_s == pytest.approx(0.12)


def test_what_is_not_known_is_not_chosen() -> None:
    found = telling([{"centred": np.array([[np.nan], [-0.1], [np.nan], [np.nan]])}], 2)["centred"]
    assert found[0, 0] == -0.1
    assert np.isnan(found[1, 0])
    assert telling([{"centred": np.array([[np.nan], [0.0]])}], 2)["centred"] == 0.0, "not even beside no effect at all"


def test_colours_fade_with_the_standard_error() -> None:
    from matplotlib.colors import Normalize

    centred, error = np.array([[0.3, 0.3, 0.3, np.nan, 0.3]]), np.array([[0.01, 0.1, 1.0, 0.1, np.nan]])
    colours = faded(centred, error, Normalize(-1, 1))[0]
    assert colours[:, 3].tolist() == [255, 255, 25, 255, 255]
    assert colours[3].tolist() == colours[4].tolist() == [153, 153, 153, 255]  # an unknown error is never sure
    assert faded(centred, error, Normalize(-1, 1), 4.0)[0, 2, 3] < 25
    assert colours[0, 0] > colours[0, 2]  # red


@pytest.mark.parametrize("seconds", [3.0, 59.0, 61.0, 600.0, 3600.0, 86_400.0])
def test_the_picture_is_bounded(seconds: float) -> None:
    frames = round(seconds * 100)
    size = column_frames(frames, 0.01)
    columns = -(-frames // size)
    assert columns <= MOST_LINES * LINE_COLUMNS
    values = np.zeros((columns, 64), np.float32)
    values[columns // 2] = 1.0
    maps = {name: {"centred": values, "centred_standard_error": values + 0.01} for name in ("time", "random")}
    figure = overview_figure(Overview(values, maps, size * 0.01), LogMelAxis(), title="$a$.wav", notes="two\nlines")
    width, height = figure.get_size_inches() * DOTS_PER_INCH
    assert width < 2500
    assert height < 4000
    strips = [ax for ax in figure.axes if ax.images]
    assert sum(ax.images[0].get_array().shape[1] for ax in strips) == 3 * columns
    assert max(ax.get_xlim()[1] for ax in strips) == pytest.approx(seconds, rel=0.01)


def test_a_line_runs_around_what_stands_out() -> None:
    values = np.zeros((40, 64), np.float32)
    bins = values.copy()
    bins[10:20, 5:9] = 1
    kinds = {"centred": values, "centred_standard_error": values + 0.01}
    maps = {"time": {**kinds, "standing_out": bins}, "random": {**kinds, "standing_out": values}}
    figure = overview_figure(Overview(values, maps, 0.5), LogMelAxis())
    _, time, random = [ax for ax in figure.axes if ax.images]
    corners = np.concatenate([path.vertices for path in time.collections[0].get_paths()])
    np.testing.assert_allclose([corners.min(0), corners.max(0)], [[5.0, 4.5], [10.0, 8.5]], atol=1e-6)
    assert not random.collections


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ArgumentError, match="overview: expected at least one strategy"):
        overview_figure(Overview(np.zeros((3, 64), np.float32), {}, 0.01), LogMelAxis())
