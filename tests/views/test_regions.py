"""Annotations: boxes around what is above the threshold, read
back by the benchmark's parser, which knows nothing of the writer.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relax_quantus.benchmark.annotations import bins, read
from relax_quantus.errors import ArgumentError, ShapeError
from relax_quantus.frontend.axes import BinAxis
from relax_quantus.frontend.log_mel import LogMelAxis, LogMelConfig
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.boxes import Region, RegionFinder, regions, write_audacity, write_raven
from relax_quantus.views.thresholds import FRACTION, standing_out


@pytest.fixture
def planted() -> np.ndarray:
    """Two examples with three rectangles of known bins, one of them across both examples."""
    values = np.zeros((192, 64))
    values[10:30, 20:30] = 1.0
    values[90:100, 5:9] = 2.0
    values[150:192, 0:64] = 3.0
    return values.reshape(2, 1, 96, 64)


def test_regions_are_the_planted_ones(planted: np.ndarray) -> None:
    found = regions(planted, 0.5)
    assert [(r.score, r.bins) for r in found] == [(1.0, 200), (2.0, 40), (3.0, 42 * 64)]
    assert found[0].begin_s == pytest.approx(0.1 + 0.0075)
    assert found[0].end_s == pytest.approx(0.3 + 0.0075)
    assert found[1].begin_s < 0.96 < found[1].end_s
    np.testing.assert_allclose([found[2].low_hz, found[2].high_hz], [145, 7360], rtol=0.05)


@pytest.mark.parametrize("write", [write_raven, write_audacity])
def test_written_regions_cover_the_same_bins_when_read_back(planted: np.ndarray, tmp_path: Path, write: object) -> None:
    found = regions(planted, 0.5)
    path = write(tmp_path / "clip.txt", found, "two\twords\n")  # type: ignore[operator]
    boxes = read(path)
    assert len(boxes) == 3
    for box, region in zip(boxes, found, strict=True):
        assert box.begin_s == pytest.approx(region.begin_s, abs=1e-6)
        assert box.end_s == pytest.approx(region.end_s, abs=1e-6)
        assert box.low_hz == pytest.approx(region.low_hz, abs=1e-3)
        assert box.high_hz == pytest.approx(region.high_hz, abs=1e-3)
        assert box.label.startswith("two words")
    np.testing.assert_array_equal(bins(boxes, 2), planted[:, 0] > 0.5)


def test_scores_are_in_both_files(planted: np.ndarray, tmp_path: Path) -> None:
    import pandas as pd

    found = regions(planted, 0.5)
    table = pd.read_csv(write_raven(tmp_path / "r.txt", found), sep="\t")
    assert list(table["Score"]) == [1, 2, 3]
    assert list(table["Selection"]) == [1, 2, 3]
    assert (table["Begin Time (s)"] < table["End Time (s)"]).all()
    assert [b.label for b in read(write_audacity(tmp_path / "a.txt", found))] == [
        "matters 1",
        "matters 2",
        "matters 3",
    ]


def test_box_of_a_bent_region_scores_its_own_bins_only() -> None:
    values = np.zeros((1, 1, 96, 64))
    values[0, 0, 10:20, 10] = values[0, 0, 19, 10:20] = 4.0
    (region,) = regions(values, 1.0)
    assert (region.score, region.bins) == (4.0, 19)


def test_default_threshold_and_small_regions(planted: np.ndarray) -> None:
    noise = np.random.default_rng(0).standard_normal((1, 1, 96, 64))
    every = regions(noise, least_bins=1)
    assert sum(r.bins for r in every) == (noise > FRACTION * noise.max()).sum()
    assert all(r.bins >= 10 for r in regions(noise, least_bins=10))
    assert regions(np.full((1, 1, 96, 64), np.nan)) == []
    assert regions(-np.ones((1, 1, 96, 64))) == []


def test_regions_of_an_explanation_are_those_that_stand_out(hears_a_corner: Explanation, tmp_path: Path) -> None:
    e = hears_a_corner
    standing, found = standing_out(e), regions(e, least_bins=1)
    assert sum(r.bins for r in found) == standing.bins.sum() > 0
    assert max(r.z for r in found) == pytest.approx(np.abs(standing.z[standing.bins]).max())
    assert all(r.z > standing.bounds.z for r in found)
    table = pd.read_csv(write_raven(tmp_path / "a.txt", found), sep="\t")
    np.testing.assert_allclose(table["z"], [r.z for r in found], rtol=0.01)
    labels = [b.label for b in read(write_audacity(tmp_path / "b.txt", found))]
    assert labels == [f"matters {r.score:.6g} z {r.z:.3g}" for r in found]
    assert sum(r.bins for r in regions(e, -1.0, least_bins=1)) == standing.among.sum()


@pytest.mark.parametrize("change", ["chance is unknown", "nothing is heard", "errors are unknown"])
def test_where_nothing_stands_out_the_tables_have_their_header_only(
    hears_a_corner: Explanation, tmp_path: Path, change: str
) -> None:
    e = hears_a_corner
    changes = {
        "chance is unknown": {"null_maxima": None},
        "nothing is heard": {"fully_masked_similarity": e.mean_similarity},
        "errors are unknown": {"centred_standard_error": torch.full_like(e.importance, torch.nan)},
    }
    assert regions(e)
    found = regions(dataclasses.replace(e, **changes[change]))
    assert found == []
    lines = write_raven(tmp_path / "a.txt", found).read_text().splitlines()
    assert [line.split("\t")[-2:] for line in lines] == [["Score", "z"]]
    assert write_audacity(tmp_path / "b.txt", found).read_text() == ""


def test_nan_is_above_nothing(planted: np.ndarray) -> None:
    planted[1] = np.nan
    assert [r.score for r in regions(planted, 0.5)] == [1.0, 2.0]


def test_other_front_ends() -> None:
    axis = BinAxis(every_s=0.5, size=4, bins_hz=(0.0, 1000.0, 2000.0, 4000.0))
    values = np.zeros((1, 1, 10, 4))
    values[0, 0, 2:5, 1:] = 1.0
    (region,) = regions(values, 0.5, axis=axis)
    assert (region.begin_s, region.end_s) == (0.75, 2.25)
    assert 0 < region.low_hz < 1000
    assert region.high_hz > 4000
    with pytest.raises(ArgumentError, match="axis: expected bands that are frequencies"):
        regions(values, 0.5, axis=BinAxis(size=4))


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"values: expected shape \(n, 1, T, 64\)"):
        regions(np.zeros((96, 64)))


@given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(1, 29), unique=True, max_size=6),
    share=st.sampled_from([0.2, 0.5, 0.6]),
    least=st.integers(1, 5),
)
@settings(deadline=None, max_examples=150)
def test_in_parts_the_regions_are_the_same(seed: int, cuts: list[int], share: float, least: int) -> None:
    """Cut anywhere, even where regions meet only before or after the cut."""
    axis = LogMelAxis(LogMelConfig(mel_bands=9))
    values = np.random.default_rng(seed).random((1, 1, 30, 9))
    values[0, 0, seed % 30] = np.nan
    whole = regions(values, 1 - share, axis=axis, least_bins=least)
    finder = RegionFinder(1 - share, axis=axis, least_bins=least)
    for part in np.split(values[0, 0].T, sorted(cuts), axis=1):
        finder.feed(part)
    found = finder.finish()

    def box(region: Region) -> tuple[float, ...]:
        return region.begin_s, region.low_hz, region.end_s, region.high_hz, region.bins

    assert sorted(map(box, found)) == sorted(map(box, whole))
    scores = [[r.score for r in sorted(some, key=box)] for some in (found, whole)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-12)


def test_a_ring_that_closes_in_a_later_part_is_one_region() -> None:
    axis = LogMelAxis(LogMelConfig(mel_bands=5))
    image = np.zeros((5, 12))
    image[[1, 3], 2:9] = image[1:4, 8] = 1.0  # two arms that meet at frame 8
    finder = RegionFinder(0.5, axis=axis)
    for part in np.split(image, [4, 6], axis=1):
        finder.feed(part)
    (region,) = finder.finish()
    assert region.bins == 15
    assert region.end_s - region.begin_s == pytest.approx(0.07)


@pytest.mark.parametrize(("end_s", "highest_hz"), [(0.25, 2000.0), (1 / 3, 5512.5), (2 / 3, 11_025.0), (0.1, 100.0)])
def test_boxes_lie_within_the_recording_and_its_own_nyquist(tmp_path: Path, end_s: float, highest_hz: float) -> None:
    values = np.zeros((2, 1, 96, 64))
    values[:, :, :, :] = np.random.default_rng(0).standard_normal((2, 1, 96, 64)).cumsum(2).cumsum(3)
    found = regions(values, 0.0, end_s=end_s, highest_hz=highest_hz, least_bins=1)
    free = regions(values, 0.0, least_bins=1)
    assert any(r.end_s > end_s for r in free)
    assert {r.score for r in found} == {r.score for r in free if r.begin_s < end_s and r.low_hz < highest_hz}
    for path in (write_raven(tmp_path / "r.txt", found), write_audacity(tmp_path / "a.txt", found)):
        for box in read(path):
            assert 0 <= box.begin_s < box.end_s <= end_s, "as written, too"
            assert 0 <= box.low_hz < box.high_hz <= highest_hz


def test_a_table_names_its_recording(planted: np.ndarray, tmp_path: Path) -> None:
    import pandas as pd

    found = regions(planted, 0.5)
    recording = tmp_path / "dawn\tone.wav"
    table = pd.read_csv(write_raven(tmp_path / "r.txt", found, recording=recording), sep="\t")
    assert set(table["Begin File"]) == {r"dawn\tone.wav"}
    assert set(table["Begin Path"]) == {str(tmp_path / r"dawn\tone.wav")}
    assert list(table["File Offset (s)"]) == list(table["Begin Time (s)"])
    plain = pd.read_csv(write_raven(tmp_path / "p.txt", found), sep="\t")
    assert "Begin File" not in plain
