"""Selection tables and label tracks: read, refused,
turned into bins; and the data set made of them.
"""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from relax_quantus.benchmark.annotations import Box, bins, is_annotation, read, write_audacity
from relax_quantus.benchmark.boxes import boxes, marked, pairs, source_of
from relax_quantus.benchmark.data.datasets import kind_of_folder
from relax_quantus.errors import DataError
from relax_quantus.frontend.log_mel import LogMelConfig
from relax_quantus.views.boxes import Region, write_raven

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


# ----------------------------------------------------------------------- sequences of several files

SEQUENCE = HEADER.replace("Species", "Begin File\tBegin Path\tEnd File\tFile Offset (s)\tSpecies")


def row(begin: float, end: float, file: str, offset: float | str, path: str = "", end_file: str = "") -> str:
    return f"1\tSpectrogram 1\t1\t{begin}\t{end}\t1500\t2500\t{file}\t{path}\t{end_file or file}\t{offset}\tx\n"


def test_times_of_a_sequence_are_taken_from_the_file_at_hand(tmp_path):
    path = tmp_path / "day.Table.1.selections.txt"
    path.write_text(
        SEQUENCE + row(1, 1.5, "a.wav", 1) + row(61, 62, "b.wav", 1) + row(59.5, 60.25, "a.wav", 59.5, "", "b.wav")
    )
    spans = {
        name: [(b.begin_s, b.end_s) for b in read(path, recording=tmp_path / name)] for name in ("a.wav", "b.flac")
    }
    assert spans["a.wav"] == [(1.0, 1.5), (59.5, 60.25)]
    assert spans["b.flac"] == [(1.0, 2.0), (0.0, 0.25)], "converted since, and what reaches into it"
    with pytest.raises(DataError, match=r"expected selections of c.wav, got those of a.wav, b.wav in 'begin file'"):
        read(path, recording=tmp_path / "c.wav")
    with pytest.raises(DataError, match="selections of one sound file, got 2"):
        read(path)
    path.write_text(SEQUENCE + row(61, 62, "b.wav", 1))
    assert read(path)[0].begin_s == 1.0
    path.write_text(SEQUENCE + row(1, 2, "a.wav", "") + row(61, 62, "b.wav", ""))
    with pytest.raises(DataError, match=r"expected a column 'file offset \(s\)' in a table of several"):
        read(path, recording=tmp_path / "b.wav")
    path.write_text(SEQUENCE + row(61, 62, "b.wav", -1))
    with pytest.raises(DataError, match=r"line 2: expected a number in 'file offset \(s\)', not below 0"):
        read(path)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    path = tmp_path / "day.txt"
    path.write_text(
        SEQUENCE + row(0, 1, "1.wav", 0, r"D:\cards\A\1.wav") + row(60, 61, "1.wav", 0.5, r"D:\cards\B\1.wav")
    )
    assert [b.begin_s for b in read(path, recording=tmp_path / "a" / "1.wav")] == [0.0]
    assert [b.begin_s for b in read(path, recording=tmp_path / "b" / "1.wav")] == [0.5]


def call_at(path, start):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.002 * np.random.default_rng(0).standard_normal(4 * RATE)
    wave[round(start * RATE) :][:6400] += 0.2 * np.sin(2 * np.pi * 2000 * np.arange(6400) / RATE)
    soundfile.write(path, wave, RATE)


def test_one_table_of_a_sequence_goes_with_every_file_that_it_names(tmp_path):
    for name, start in (("A/1.wav", 0.1), ("A/2.wav", 1.1), ("B/1.wav", 2.1)):
        call_at(tmp_path / name, start)
    rows = row(0.1, 0.5, "1.wav", 0.1, "/x/A/1.wav") + row(5.1, 5.5, "2.wav", 1.1, "/x/A/2.wav")
    (tmp_path / "all.Table.1.selections.txt").write_text(SEQUENCE + rows + row(10.1, 10.5, "1.wav", 2.1, "/x/B/1.wav"))
    assert [m.name for m in marked(tmp_path)] == ["A/1.wav 0.00 s", "A/2.wav 0.96 s", "B/1.wav 1.92 s"]


def test_a_table_that_names_another_recording_is_refused(tmp_path):
    call_at(tmp_path / "a.wav", 0.1)
    (tmp_path / "a.txt").write_text(SEQUENCE + row(0.1, 0.5, "monday.wav", 0.1))
    with pytest.raises(DataError, match=r"expected selections of a.wav, got those of monday.wav"):
        marked(tmp_path)


def test_what_has_no_partner_is_said(tmp_path):
    for name in ("a", "b"):
        call_at(tmp_path / f"{name}.wav", 0.1)
    soundfile.write(tmp_path / "c.wav", np.ones(800), RATE)
    for name, begin in (("a", 0.1), ("c", 0.01), ("d", 0.1)):
        (tmp_path / f"{name}.txt").write_text(f"{begin}\t{begin + 0.4}\tx\n\\\t1500\t2500\n60\t61\ty\n")
    with pytest.warns(UserWarning, match="left out") as caught:
        assert [m.name for m in marked(tmp_path)] == ["a.wav 0.00 s"]
    said = " ".join(str(w.message) for w in caught)
    for part in ("1 recording without a table, such as b.wav", "1 table without a recording, such as d.txt"):
        assert part in said
    assert "1 recordings shorter than an example, such as c.wav" in said
    assert "2 boxes that begin after the end of their recording" in said


def test_tables_that_we_wrote_are_no_truth(tmp_path):
    call_at(tmp_path / "a.wav", 0.1)
    (tmp_path / "a.txt").write_text("0.1\t0.5\tx\n")
    found = [Region(0.1, 0.5, 1500.0, 2500.0, 0.2, 9)]
    ours = write_raven(tmp_path / "a.time.selections.txt", found, recording=tmp_path / "a.wav")
    assert pairs(tmp_path) == [(tmp_path / "a.wav", tmp_path / "a.txt")]
    assert read(ours, recording=tmp_path / "a.wav") == [Box(0.1, 0.5, 1500.0, 2500.0, "matters")]
    with pytest.raises(DataError, match="expected selections of b"):
        read(ours, recording=tmp_path / "b.wav")
    ours.write_text(ours.read_text().replace("matters", "wren"))
    assert (tmp_path / "a.wav", ours) in pairs(tmp_path), "labelled by a person since"


@pytest.mark.parametrize("total", [bytes(5), b"\x0f\xff\xff\xff\xff"])
def test_lengths_are_measured_not_believed(tmp_path, total):
    call_at(tmp_path / "a.flac", 0.1)
    blob = bytearray((tmp_path / "a.flac").read_bytes())
    blob[21] = blob[21] & 0xF0 | total[0]
    blob[22:26] = total[1:]
    (tmp_path / "a.flac").write_bytes(blob)
    (tmp_path / "a.txt").write_text("0.1\t0.5\tx\n\\\t1500\t2500\n")
    assert [m.name for m in marked(tmp_path)] == ["a.flac 0.00 s"]


# ------------------------------------------------------------ as spreadsheets and editors save them


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("delimiter", "comma"), [("\t", "."), ("\t", ","), (";", ","), (",", ".")])
def test_a_table_reads_the_same_however_it_was_saved(tmp_path, encoding, end, delimiter, comma):
    text = table([Box(0.25, 0.75, 1500.0, 3000.0, '"wren, ""jüng"""'), ROWS[1]])
    lines = [line.split("\t") for line in text.splitlines()]
    lines[1:] = [[*cells[:3], *(c.replace(".", comma) for c in cells[3:7]), *cells[7:]] for cells in lines[1:]]
    path = tmp_path / "a.txt"
    path.write_bytes(end.join(delimiter.join(cells) for cells in lines).encode(encoding))
    assert is_annotation(path)
    assert read(path) == [Box(0.25, 0.75, 1500.0, 3000.0, 'wren, "jüng"'), ROWS[1]]


def test_a_label_track_may_have_decimal_commas_and_semicolons(tmp_path):
    for text in ("0,5\t1,25\tdog\n\\\t400,5\t1200,0\n", "0,5;1,25;dog\n\\;400,5;1200\n"):
        (tmp_path / "a.txt").write_text(text)
        assert is_annotation(tmp_path / "a.txt")
        assert read(tmp_path / "a.txt") == [Box(0.5, 1.25, 400.5, 1200.0, "dog")]


def test_commas_of_two_meanings_are_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(HEADER + "1\ts\t1\t0\t1\t1,500\t2,500\tx\n")
    with pytest.raises(DataError, match=r"line 2: expected numbers whose commas have one meaning .*'1,500', '2,500'"):
        read(path)
    path.write_text(HEADER + "1\ts\t1\t0.5\t1\t1,500\t2,500\tx\n")
    assert read(path) == [Box(0.5, 1.0, 1500.0, 2500.0, "x")]
    path.write_text(HEADER + "1\ts\t1\t0,5\t1.0\t1500\t2500\tx\n")
    with pytest.raises(DataError, match="line 2: expected four numbers, got '0,5', 1"):
        read(path)


def test_a_workbook_that_is_called_a_table_is_refused_by_what_it_is(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"PK\x03\x04" + bytes(99))
    assert not is_annotation(tmp_path / "a.txt")
    with pytest.raises(DataError, match="got a spreadsheet or another ZIP archive; save it as text in UTF-8"):
        read(tmp_path / "a.txt")


def test_a_box_without_a_highest_frequency_comes_back(tmp_path):
    boxes_ = [Box(0.5, 1.0, 100.0, np.inf, "x"), Box(1.0, 1.5, 0.0, np.inf, "y")]
    write_audacity(tmp_path / "x.txt", boxes_)
    assert read(tmp_path / "x.txt") == boxes_


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
    """Powdermill's layout: four recordings of two
    segments each; a low and a high bird, each with boxes.
    """
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
