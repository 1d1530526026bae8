"""Text as editors and spreadsheets save it: settings, lists of clips, numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import call, refused

from relax_quantus.base.text_files import Numbers, read_text, table
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data import esc50
from relax_quantus.benchmark.data.recordings import listing
from relax_quantus.benchmark.report.results_folder import _run, _table
from relax_quantus.errors import DataError

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
ENDS = ["\n", "\r\n", "\r"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ENDS)
def test_settings_read_the_same_however_they_were_saved(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "grid.toml"
    path.write_bytes(end.join(["max_clips = 2", 'data = "Vögel"', 'metrics = ["Sparseness"]', ""]).encode(encoding))
    config = BenchmarkConfig.from_file(path)
    assert (config.max_clips, config.data, config.metrics) == (2, "Vögel", ("Sparseness",))


def test_settings_that_are_no_text_are_refused_by_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    for blob, said in (
        ('data = "Vögel"'.encode("cp1252"), "got bytes that are no UTF-8; save it as text in UTF-8"),
        (b"PK\x03\x04" + bytes(9), "got a spreadsheet or another ZIP archive"),
        (b"\xff\xfea", "got bytes that are no UTF-16-LE, which its byte order mark announces"),
        (bytes(range(256)), "got bytes that are no text"),
    ):
        path.write_bytes(blob)
        with pytest.raises(DataError, match=said):
            BenchmarkConfig.from_file(path)
        refused(call("bench", path, "--dry-run"), said)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    for name in ("Vögel/eins.wav", "frog/two.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, np.ones(16), 16_000)
    return tmp_path


@pytest.mark.parametrize("encoding", [*ENCODINGS, "cp1252"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("first", ["", "sep=D"])
def test_a_list_of_clips_reads_the_same_however_it_was_saved(
    birds: Path, encoding: str, end: str, delimiter: str, first: str
) -> None:
    lines = ['File,Label,"source_group"', r"Vögel\eins.wav,Vogel,a", '"frog/two.wav","frog; or toad","b"', ""]
    lines = [line.replace(",", delimiter) for line in lines]
    lines = [first.replace("D", delimiter), *lines] if first else lines
    (birds / "clips.csv").write_bytes(end.join(lines).encode(encoding))
    assert [(e.name, e.label_name, e.source_group) for e in listing(birds)] == [
        ("Vögel/eins.wav", "Vogel", "a"),
        ("frog/two.wav", "frog; or toad", "b"),
    ]


def test_rows_that_say_too_little_are_said(birds: Path) -> None:
    (birds / "clips.csv").write_text("file,label\nVögel/eins.wav,a\nfrog/two.wav,b\nfrog/three.wav,\n,c\n", "utf-8")
    with pytest.warns(
        UserWarning, match=r"clips\.csv: left out line 4 and 1 more, without a file or a label; fill them in"
    ):
        assert len(listing(birds)) == 2


def test_esc50s_table_too(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    text = "filename;fold;category;esc10\r\na.wav;1;dog;True\r\nb.wav;2;cat;False\r\n"
    (tmp_path / "meta" / "esc50.csv").write_bytes(text.encode("utf-16"))
    assert [(e.name, e.fold, e.label_name) for e in esc50.listing(tmp_path)] == [
        ("a.wav", 1, "dog"),
        ("b.wav", 2, "cat"),
    ]


def test_results_that_a_spreadsheet_saved_again(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_bytes("method;value;clip\r\nRELAX;0,25;001\r\n".encode("utf-16"))
    found = _table(tmp_path / "results.csv")
    assert found.value.tolist() == [0.25]
    assert found["clip"].tolist() == ["001"]
    (tmp_path / "run.json").write_text('{"seed": 1}', encoding="utf-8-sig")
    assert _run(tmp_path / "run.json", []) == {"seed": 1}


def test_cells_with_line_ends_and_unpaired_quotes() -> None:
    columns, rows = table('a,b,c\n1,"x\ny",3\n\n4,"odd,5\n7,8\n', "b")
    assert columns == ["a", "b", "c"]
    assert rows == [
        (2, {"a": "1", "b": "x y", "c": "3"}),
        (5, {"a": "4", "b": '"odd', "c": "5"}),
        (6, {"a": "7", "b": "8", "c": ""}),
    ]
    assert table("", "b") == ([], [])


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["0,3", "1500"], [0.3, 1500]),
        (["1.500,25", "2.000", "0.3"], [1500.25, 2000, None]),
        (["1,500.25", "2,000", "0,3"], [1500.25, 2000, None]),
        (["0,3", "1.5"], [None, 1.5]),
        (["1,500"], [None]),
        (["0,300", "1,500"], [0.3, 1.5]),
        (["1\N{NARROW NO-BREAK SPACE}500,5", "nan", "", "x"], [1500.5, None, None, None]),
    ],
)
def test_numbers_of_a_file_decide_together(texts: list[str], numbers: list[float | None]) -> None:
    read = Numbers(texts).read
    assert [read(text) for text in texts] == numbers


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.txt: expected a list, got No such file or directory; check it"):
        read_text(tmp_path / "gone.txt", "a list")
