"""Selection tables and label tracks: read, refused, turned into bins; and the data set made of them."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from relax_quantus.benchmark.annotations import Box, bins, is_annotation, read, write_audacity
from relax_quantus.benchmark.boxes import boxes, marked, pairs, source_of
from relax_quantus.benchmark.datasets import kind_of_folder
from relax_quantus.errors import DataError
from relax_quantus.frontend import LogMelConfig

RATE = 16_000
HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"


def table(rows: list[Box], views: tuple[str, ...] = ("Spectrogram 1",), header: str = HEADER) -> str:
    lines = [
        f"{i}\t{view}\t1\t{b.begin_s:.9f}\t{b.end_s:.9f}\t{b.low_hz}\t{b.high_hz}\t{b.label}\n"
        for i, b in enumerate(rows, start=1)
        for view in views
    ]
    return header + "".join(lines)


ROWS = [Box(0.25, 0.75, 1500.0, 3000.0, "EATO"), Box(1.0, 1.5, 4000.0, 6000.5, "WOTH")]


def test_ravens_tables_are_read_and_views_of_one_selection_are_one_box(tmp_path):
    path = tmp_path / "a.Table.1.selections.txt"
    path.write_text(table(ROWS))
    assert read(path) == ROWS
    path.write_text(table(ROWS, ("Waveform 1", "Spectrogram 1")))
    assert read(path) == ROWS
    path.write_bytes(table(ROWS).replace("\n", "\r\n").replace("EATO", "é").encode("cp1252"))
    assert [b.label for b in read(path)] == ["é", "WOTH"]
    path.write_bytes(b"\xef\xbb\xbf" + table(ROWS).encode())
    assert read(path) == ROWS
    path.write_text(table(ROWS, header=HEADER.replace("Species", "Call Type")))
    assert read(path) == ROWS
    path.write_text(table(ROWS, header=HEADER.replace("Species", "What I heard")))
    assert read(path, "what i heard") == ROWS
    path.write_text(HEADER)
    assert read(path) == []


def test_audacitys_labels_with_and_without_frequencies(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("0.5\t1.25\tdog\n\\\t400.0\t1200.0\n2.0\t2.5\tcat\n3.0\t3.0\tpoint\n\\\t-1.0\t500.0\n4\t5\n")
    assert read(path) == [
        Box(0.5, 1.25, 400.0, 1200.0, "dog"),
        Box(2.0, 2.5, 0.0, np.inf, "cat"),
        Box(3.0, 3.0, 0.0, 500.0, "point"),
        Box(4.0, 5.0, 0.0, np.inf, ""),
    ]


def test_a_label_track_comes_back_as_it_was_written(tmp_path):
    write_audacity(tmp_path / "x.txt", ROWS)
    assert read(tmp_path / "x.txt") == ROWS
    assert is_annotation(tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("Low Freq (Hz)", "Low") + "1\ts\t1\t0\t1\t2\t3\tx\n", "a column 'low freq"),
        (HEADER.replace("Species", "Foo") + "1\ts\t1\t0\t1\t2\t3\tx\n", "a column that names what was heard"),
        (HEADER + "1\ts\t1\tzero\t1\t2\t3\tx\n", "line 2: expected four numbers, got 'zero', 1, 2, 3"),
        (HEADER + "1\ts\t1\t2\t1\t2\t3\tx\n", "line 2: expected an end after the begin"),
        (HEADER + "1\ts\t1\t0\t1\t3\t3\tx\n", "line 2: expected a highest frequency above the lowest"),
        (HEADER + "1\ts\t1\t0\t1\t2\n", "line 2: expected four numbers"),
        (HEADER + "1\ts\t1\tnan\t1\t2\t3\tx\n", "line 2: expected four numbers"),
        ("0\t1\tdog\n\\\t500\n", "line 2: expected a label and then a backslash"),
        ("\\\t500\t600\n", "line 1: expected a label and then a backslash"),
        ("0\t1\tdog\nhello\n", "line 2: expected begin, end and label"),
        ("0\t1\tdog\n5\t4\tcat\n", "line 2: expected an end after the begin"),
        ("-1\t1\tdog\n", "line 1: expected an end after the begin, neither below 0"),
    ],
)
def test_broken_files_are_refused_with_the_line(tmp_path, text, message):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read(path)


def test_files_that_are_no_annotations_are_told_apart_or_refused(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("recorded on Monday\n")
    assert not is_annotation(notes)
    with pytest.raises(DataError, match="begin, end and label"):
        read(notes)
    with pytest.raises(DataError, match="expected a readable annotation file"):
        read(tmp_path / "none.txt")
    several = HEADER.replace("Species", "Species\tBegin File")
    (tmp_path / "s.txt").write_text(several + "1\ts\t1\t0\t1\t2\t3\tx\ta.wav\n2\ts\t1\t0\t1\t2\t3\tx\tb.wav\n")
    with pytest.raises(DataError, match="selections of one sound file, got 2"):
        read(tmp_path / "s.txt")
    (tmp_path / "g.txt").write_text(table(ROWS))
    with pytest.raises(DataError, match="a column 'Genus'"):
        read(tmp_path / "g.txt", "Genus")


def test_bins_are_those_whose_middle_lies_inside():
    config = LogMelConfig()
    box = Box(0.25, 1.1, 1000.0, 2000.0, "x")
    found = bins([box], 2)
    assert found.shape == (2, 96, 64)
    for k in range(2):
        for frame in range(96):
            middle = (k * 96 + frame) * 0.01 + 0.0125
            for band, hz in enumerate(config.band_centres_hz):
                assert found[k, frame, band] == (0.25 <= middle <= 1.1 and 1000 <= hz <= 2000)
    assert bins([Box(0.3, 0.3001, 1000, 1001, "x")], 1).sum() == 1
    assert not bins([Box(5, 6, 1000, 2000, "x")], 2).any()
    assert not bins([Box(0, 1, 20, 60, "x")], 2).any()
    assert not bins([Box(0, 1, 7900, 9000, "x")], 2).any()
    assert bins([Box(0, 0.5, 0, np.inf, "x")], 1)[0].any(0).all()


@pytest.fixture
def forest(tmp_path):
    """Powdermill's layout: four recordings of two segments each; a low and a high bird, each with boxes."""
    rng = np.random.default_rng(0)
    for r in range(4):
        for s in range(2):
            wave = 0.002 * rng.standard_normal(6 * RATE)
            rows = []
            for k in range(5):
                name, low = (("LOWW", 800.0), ("HIGH", 4000.0))[(k + r + s) % 2]
                start, n = 0.2 + 1.1 * k, 6400
                at = slice(round(start * RATE), round(start * RATE) + n)
                wave[at] += 0.2 * np.sin(2 * np.pi * (low + 200) * np.arange(n) / RATE)
                rows.append(Box(start, start + n / RATE, low, low + 500, name))
            name = f"Recording_{r + 1}_Segment_{s + 1:02d}"
            wav, tab = (tmp_path / kind / f"Recording_{r + 1}" for kind in ("wav_Files", "annotation_Files"))
            for folder in (wav, tab):
                folder.mkdir(parents=True, exist_ok=True)
            soundfile.write(wav / f"{name}.wav", wave, RATE)
            (tab / f"{name}.Table.1.selections.txt").write_text(table(rows))
    return tmp_path


def test_powdermills_layout_becomes_clips_with_truth(forest):
    assert kind_of_folder(forest) == "boxes"
    assert len(pairs(forest)) == 8
    data = boxes(forest, max_clips=6, seed=0, head_clips=40)
    assert data.class_names == ("HIGH", "LOWW")
    assert len(data.clips) == 6
    assert {clip.source_group for clip in data.clips} < {f"Recording_{r}" for r in range(1, 5)}
    assert not {clip.source_group for clip in data.clips} & set(data.training.groups)
    assert not data.notes
    config = LogMelConfig()
    for clip in data.clips:
        inside = torch.from_numpy(clip.truth)
        assert clip.x[0][inside].mean() > clip.x[0][~inside].mean() + 0.3
        middles = config.band_centres_hz[np.flatnonzero(clip.truth.any(0))]
        low = 4000 if clip.label_name == "HIGH" else 800
        assert low <= middles.min() <= middles.max() <= low + 500
        assert torch.equal(clip.stem[0][inside], clip.x[0][inside])
        background = clip.x[0].quantile(0.1, dim=0).expand(96, 64)
        torch.testing.assert_close(clip.stem[0][~inside], background[~inside])
        torch.testing.assert_close(clip.rest[0], torch.where(inside, background, clip.x[0]))
    assert [c.name for c in boxes(forest, 6, 0, 40).clips] == [c.name for c in data.clips]


def test_examples_are_cut_where_their_name_says(forest):
    found = {m.name: m for m in marked(forest)}
    name = next(n for n in found if n.endswith("Segment_01.wav 0.96 s"))
    m = found[name]
    assert m.index == 1
    times = 0.96 + np.flatnonzero(m.truth.any(1)) * 0.01 + 0.0125
    assert 1.3 - 0.01 < times.min() < 1.3 + 0.02, "the second call begins at 1.3 s"


def test_two_tables_of_one_sound_are_one(forest):
    before = {m.name: m for m in marked(forest)}
    for path in list(forest.rglob("*.Table.1.selections.txt")):
        rows = read(path)
        path.write_text(table([box for box in rows if box.label == "LOWW"]))
        second = path.with_name(path.name.replace("Table.1", "Table.2"))
        second.write_text(table([box for box in rows if box.label == "HIGH"] + rows[:1]))
    found = marked(forest)
    assert [m.name for m in found] == list(before), "each example once"
    for m in found:
        assert m.entry == before[m.name].entry
        np.testing.assert_array_equal(m.truth, before[m.name].truth)


def test_pairs_and_sources(forest, tmp_path):
    from pathlib import Path

    assert source_of(Path("x/Recording_1_Segment_05.wav"), Path("x")) == "Recording_1"
    assert source_of(Path("x/y/morning.wav"), Path("x")) == "y/morning.wav"
    sound = next(forest.rglob("*Recording_1_Segment_01.wav"))
    copy = forest / "copy"
    copy.mkdir()
    (copy / sound.name).write_bytes(sound.read_bytes())
    with pytest.raises(DataError, match="expected one sound file of this name, got 2"):
        pairs(forest)


def test_folders_that_do_not_fit_are_refused(forest, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="0 such tables and 0 sound files"):
        boxes(empty)
    with pytest.raises(DataError, match="no such folder"):
        boxes(tmp_path / "nowhere")
    soundfile.write(empty / "a.wav", np.zeros(RATE * 3), RATE)
    (empty / "a.txt").write_text("0.2\t0.5\tdog\n\\\t500\t900\n")
    with pytest.raises(DataError, match=r"two classes, each marked in at least two examples, got dog \(1\)"):
        boxes(empty)
    (empty / "a.wav").write_bytes(b"RIFF, but no sound")
    with pytest.raises(DataError, match="expected a sound file"):
        boxes(empty)
