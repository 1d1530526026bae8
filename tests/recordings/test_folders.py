"""The one listing of recordings: what is in, what
is out, and that nothing is dropped without a word.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import FEW, call, refused
from waves import sine

from relax_quantus.benchmark.boxes import pairs
from relax_quantus.benchmark.data.recordings import listing
from relax_quantus.errors import DataError
from relax_quantus.recordings import folders
from relax_quantus.recordings.folders import is_own, paths_in, recordings_in
from relax_quantus.views.sounds import write_sound


def save(path: Path, seconds: float = 0.3, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sine(seconds, 16_000), 16_000, **options)
    return path


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in recordings_in(root).recordings]


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    for kind in ("bird", "frog"):
        for k in range(2):
            save(tmp_path / "zoo" / kind / f"{kind}{k}.wav")
    return tmp_path / "zoo"


PLAIN = ["bird/bird0.wav", "bird/bird1.wav", "frog/frog0.wav", "frog/frog1.wav"]


def test_all_commands_and_data_sets_list_the_same(zoo: Path) -> None:
    for hidden in (".Trash-1000/files/a.wav", "bird/.ipynb_checkpoints/a.wav", "__MACOSX/bird/._a.wav", "bird/.a.wav"):
        save(zoo / hidden)
    (zoo / "bird" / "._bird0.wav").write_bytes(b"\0\5\x16\7" + bytes(4000))
    (zoo / "bird" / "bird0.txt").write_text("0.1\t0.2\tbird\n\\\t500\t900\n")
    (zoo / ".Trash-1000" / "files" / "a.txt").write_text("0.1\t0.2\tbird\n")
    assert names(zoo) == PLAIN
    with pytest.warns(UserWarning, match="left out 5 hidden recordings, such as"):
        assert [path.relative_to(zoo).as_posix() for path in paths_in(zoo)] == PLAIN
    with pytest.warns(UserWarning, match="left out 5 hidden recordings"):
        entries = listing(zoo)
    assert [entry.name for entry in entries] == PLAIN
    assert {entry.label_name for entry in entries} == {"bird", "frog"}
    assert [sound.name for sound, _ in pairs(zoo)] == ["bird0.wav"]


def test_a_folder_that_is_itself_hidden_may_be_named(zoo: Path) -> None:
    assert names(zoo.rename(zoo.with_name(".zoo"))) == PLAIN


def test_links_are_followed_and_no_folder_is_read_twice(zoo: Path, tmp_path: Path) -> None:
    save(tmp_path / "disk" / "owl" / "owl0.wav")
    (zoo / "owl").symlink_to(tmp_path / "disk" / "owl")
    (tmp_path / "disk" / "owl" / "up").symlink_to(zoo)
    (zoo / "bird" / "again").symlink_to(zoo / "frog")
    (zoo / "frog" / "one.wav").symlink_to(tmp_path / "disk" / "owl" / "owl0.wav")
    (zoo / "frog" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    found = recordings_in(zoo)
    assert names(zoo) == [*PLAIN, "frog/one.wav", "owl/owl0.wav"]
    said = found.remarks()
    assert sum("links to folders that are read already" in line for line in said) == 1
    assert any("gone.wav" in line for line in said)
    with pytest.warns(UserWarning, match="left out"):
        groups = {entry.name: entry.source_group for entry in listing(zoo)}
    assert groups["frog/one.wav"] == groups["owl/owl0.wav"], "one recording, although it is in two classes"


def test_two_links_to_a_recording_in_a_class_are_one(zoo: Path) -> None:
    (zoo / "bird" / "copy.wav").symlink_to(zoo / "bird" / "bird0.wav")
    assert [entry.name for entry in listing(zoo)] == PLAIN


def test_what_is_read_by_name_is_found_in_a_folder(tmp_path: Path) -> None:
    for name, container in (("a.aifc", "AIFF"), ("b.sph", "NIST"), ("c.sf", "IRCAM"), ("d", "WAV"), ("e.m4a", "WAV")):
        save(tmp_path / name, format=container)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    found = recordings_in(tmp_path)
    assert [path.name for path in found.recordings] == ["a.aifc", "b.sph", "c.sf", "d", "e.m4a"]
    [said] = found.remarks()
    assert "took 3 files that are recordings whatever their names say" in said
    assert "1 no suffix" in said


def test_formats_that_are_not_read_are_said_once_and_a_class_that_is_lost(zoo: Path) -> None:
    for k in range(3):
        (zoo / "bird" / f"{k}.wma").write_bytes(b"\x30\x26\xb2\x75" + bytes(999))
    (zoo / "whale").mkdir()
    (zoo / "whale" / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(999))
    (zoo / "empty").mkdir()
    (zoo / "docs").mkdir()
    (zoo / "docs" / "readme.md").write_text("x")
    save(zoo / "stray.wav")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [entry.name for entry in listing(zoo)] == PLAIN
    said = [str(w.message) for w in caught]
    assert [line for line in said if "formats that are not read (3 .wma, 1 .m4a)" in line]
    assert [line for line in said if "whale: no recording in this folder can be read; the class is left out" in line]
    assert [line for line in said if line.startswith(f"{zoo / 'empty'}: no recording")]
    assert [line for line in said if "left out 1 recording in no class's folder, such as stray.wav" in line]
    assert not [line for line in said if "docs" in line]
    assert len(said) == 4


def test_a_folder_with_nothing_to_use_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(999))
    with pytest.raises(DataError, match=r"got none, 1 left out \(a format that is not read\)"):
        paths_in(tmp_path)
    with pytest.raises(DataError, match=r"got none \(1 left out \(a format"):
        listing(tmp_path)
    refused(call("explain", tmp_path, "--out", tmp_path / "out", *FEW), "a format that is not read")


def test_folders_that_cannot_be_entered_are_said(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def closed(path: Path) -> object:
        if Path(path).name == "frog":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = recordings_in(zoo)
    assert [path.name for path in found.recordings] == ["bird0.wav", "bird1.wav"]
    assert "left out 1 folder that cannot be entered, such as" in found.remarks()[0]
    assert found.lost() == ["frog"]
    with pytest.raises(DataError, match=r"only 'bird' \(1 left out \(cannot be entered\)\)"):
        listing(zoo)
    with pytest.raises(DataError, match="expected a folder that can be read, got Permission denied"):
        paths_in(zoo / "frog")


# ----------------------------------------------------------------------------------- our own sounds


def arrays(path: Path, program: str = "relax_quantus 0.1.0") -> None:
    np.savez_compressed(path, settings=np.array(json.dumps({"program": program, "clip": "x.wav"})))


def test_sounds_are_known_by_what_they_say_of_themselves(tmp_path: Path) -> None:
    for suffix in ("flac", "wav"):
        own = write_sound(tmp_path / f"a.time.kept.{suffix}", sine(0.2, 16_000), 16_000)
        assert soundfile.SoundFile(own).software.startswith("relax_quantus ")
        assert is_own(own)
    assert not is_own(save(tmp_path / "b.time.kept.flac"))


def test_sounds_of_the_last_version_are_known_by_their_arrays_or_twins(tmp_path: Path) -> None:
    plain, fill, theirs = (save(tmp_path / f"{name}.kept.flac") for name in ("a.b.time", "a.b.mine.blur", "c.time"))
    assert not any(map(is_own, (plain, fill, theirs)))
    arrays(tmp_path / "a.b.npz")
    arrays(tmp_path / "c.npz", "another program")
    assert is_own(plain)
    assert is_own(fill)
    assert not is_own(theirs)
    save(tmp_path / "c.time.removed.flac")
    assert is_own(theirs), "a pair that is named after a strategy"
    save(tmp_path / "c.removed.flac")
    assert not is_own(save(tmp_path / "c.kept.flac")), "no strategy in its name"
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 torn")
    assert not is_own(save(tmp_path / "d.time.kept.flac"))


@pytest.mark.parametrize("out", [".", "explained", "../elsewhere"])
def test_results_are_never_explained_again(tmp_path: Path, out: str, animal_like: Callable[[Path], Path]) -> None:
    root = tmp_path / "rec"
    for k in range(2):
        animal_like(root / f"r{k}.wav")
    for run in range(3):
        result = call("explain", root, "--out", root / out, "--sounds", *FEW)
        assert len(result.stdout.splitlines()) == 2, f"run {run}: {result.stdout}"
    if out != "../elsewhere":
        assert result.stderr.count("that relax-quantus wrote, such as") == 1
    named = sorted(root.rglob("*.wav")) + sorted(root.rglob("*.flac"))
    result = call("explain", *named, "--out", tmp_path / "new", *FEW)
    assert len(result.stdout.splitlines()) == 2


def test_an_own_sound_that_is_named_alone_is_explained(tmp_path: Path) -> None:
    own = write_sound(tmp_path / "a.time.kept.flac", sine(1, 16_000), 16_000)
    result = call("explain", own, "--out", tmp_path / "new", *FEW)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1


@pytest.fixture
def animal_like() -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = 0.1 * np.random.default_rng(len(str(path))).standard_normal(16_000)
        soundfile.write(path, noise, 16_000)
        return path

    return write


def test_hidden_by_attribute_counts_on_windows(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Status:
        st_file_attributes = 2

    monkeypatch.setattr(folders.os, "lstat", lambda _: Status())
    monkeypatch.setattr(folders.os, "name", "nt")
    assert folders.is_hidden(zoo / "bird")
