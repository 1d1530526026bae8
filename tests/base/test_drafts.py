"""Files are written as drafts of their own, checked, and moved when whole;
results in a folder are replaced together, and only if they are ours.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from relax_quantus.base import files as drafts
from relax_quantus.base.files import ABANDONED_S, Draft, complete, sweep, write_text
from relax_quantus.base.result_folder import LIST, require_ours, written_together
from relax_quantus.errors import DataError
from relax_quantus.views.page.packing import sound_uri
from relax_quantus.views.sounds import Parts, separate, write_parts, write_separated, write_sound

fcntl = pytest.importorskip("fcntl")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Drafts


def test_writers_of_one_path_never_share_a_draft(tmp_path: Path) -> None:
    path, together = tmp_path / "a.txt", threading.Barrier(8)
    seen, wrong = [], []

    def write(text: str) -> None:
        with complete(path) as draft:
            seen.append(draft)
            together.wait()
            draft.write_text(text)
            together.wait()
            wrong.extend([text] if draft.read_text() != text else [])

    writers = [threading.Thread(target=write, args=(str(k) * 1000,)) for k in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(set(seen)) == 8
    assert wrong == []
    assert {draft.suffix for draft in seen} == {".txt"}
    assert names(tmp_path) == ["a.txt"]
    assert len(set(path.read_text())) == 1


@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_the_older_file_and_names_it(problem: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("older")

    def write() -> None:
        with complete(path) as draft:
            draft.write_text("half")
            raise problem

    with pytest.raises(type(problem)) as caught:
        write()
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "older"
    if isinstance(problem, OSError):
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))


def test_a_check_comes_before_the_move(tmp_path: Path) -> None:
    def refuse(draft: Path) -> None:
        raise OSError(errno.EIO, f"{draft.read_text()} is wrong")

    with pytest.raises(OSError, match="new is wrong"), complete(tmp_path / "a", check=refuse) as draft:
        draft.write_text("new")
    assert names(tmp_path) == []


def test_drafts_of_the_dead_are_swept_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, sys, pathlib\nfrom relax_quantus.base.files import Draft\n"
        "Draft(pathlib.Path(sys.argv[1], 'a.npz'))\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (dead,) = tmp_path.iterdir()
    assert dead.suffix == ".npz"
    running = Draft(tmp_path / "b.npz")
    drafts._open.clear()  # as another process would see it
    (tmp_path / ".mine.part").touch()
    monkeypatch.setattr(drafts, "_host", lambda: "0" * 8)
    elsewhere, old = Draft(tmp_path / "c"), Draft(tmp_path / "d")
    monkeypatch.undo()
    for draft in (elsewhere, old):
        draft._forget()
    os.utime(old.path, (0, old.path.stat().st_mtime - ABANDONED_S - 60))
    sweep(tmp_path)
    assert names(tmp_path) == sorted([".mine.part", elsewhere.path.name, running.path.name])
    running.discard()


def test_new_files_have_the_usual_rights(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    assert write_text(tmp_path / "a", "ä\n").read_bytes() == b"\xc3\xa4\n"
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


# Sounds


def test_no_sound_is_written_by_callbacks_that_cannot_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def callbacks(*_: object) -> None:
        pytest.fail("libsndfile writes through Python, where an interrupt is lost")

    monkeypatch.setattr(soundfile.SoundFile, "_init_virtual_io", callbacks)
    wave = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    write_sound(tmp_path / "a.wav", wave, 16_000)
    write_parts(tmp_path / "k.flac", tmp_path / "r.flac", separate(wave, 16_000, np.full((1, 1, 96, 64), 0.5)))
    write_separated(tmp_path / "a.wav", tmp_path / "k.wav", tmp_path / "r.wav", [np.full((96, 64), 0.5)], 96)
    assert sound_uri(wave, 16_000).startswith("data:audio/flac;base64,")


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.parametrize("ending", ["flac", "wav"])
def test_a_sound_that_does_not_fit_on_the_disk_is_an_error_and_not_there(ending: str, tmp_path: Path) -> None:
    code = (
        "import sys\nimport numpy as np\nfrom relax_quantus.views.sounds import write_sound\n"
        "try: write_sound(sys.argv[1], .1 * np.random.default_rng(0).standard_normal(16000), 16000)\n"
        "except OSError as error: print(error.filename, error.strerror)"
    )
    path = tmp_path / f"a.{ending}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, preexec_fn=limited
    )
    assert done.stdout.startswith(f"{path} could not be written whole")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.flac", "a.wav"])
def test_a_sound_that_loses_its_end_unnoticed_is_an_error_and_not_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = soundfile.SoundFile.close

    def close_on_a_full_disk(self: soundfile.SoundFile) -> None:
        written = not self.closed and self.mode == "w"
        close(self)
        if written:
            os.truncate(self.name, os.path.getsize(self.name) - 1000)

    monkeypatch.setattr(soundfile.SoundFile, "close", close_on_a_full_disk)
    with pytest.raises(OSError, match="could not be written whole; is the disk full") as caught:
        write_sound(tmp_path / name, 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    assert caught.value.filename == str(tmp_path / name)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("largest", "scale"), [(0.9, 1.0), (1.0, 1.0), (1.01, 0.5), (2.0, 0.5), (3.9, 0.25), (40.0, 1 / 64)]
)
def test_written_parts_add_up_to_the_recording_times_a_scale(largest: float, scale: float, tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-largest, largest, 16_000).astype(np.float32)
    wave[100] = largest
    parts = Parts(
        np.where(np.arange(wave.size) < 8000, wave, 0), np.where(np.arange(wave.size) < 8000, 0, wave), 16_000
    )
    assert write_parts(tmp_path / "k.flac", tmp_path / "r.flac", parts) == scale
    kept, removed = (soundfile.read(tmp_path / f"{part}.flac")[0] for part in "kr")
    np.testing.assert_allclose(kept + removed, scale * wave, atol=3e-7)
    assert soundfile.SoundFile(tmp_path / "k.flac").comment == ("" if scale == 1 else f"scale {scale:g}")


@pytest.mark.parametrize("once", [False, True])
def test_parts_written_in_blocks_share_a_scale_known_only_at_the_end(once: bool, tmp_path: Path) -> None:
    wave = np.concatenate([np.full(16_000 * 21, 0.01), np.full(16_000, 2.5)]) * np.sin(np.arange(16_000 * 22))
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    gains = [np.random.default_rng(k).random((96, 64)) for k in range(23)]
    given = iter(gains) if once else gains
    scale = write_separated(tmp_path / "a.wav", tmp_path / "k.flac", tmp_path / "r.flac", given, 96 * 23)
    kept, removed = (soundfile.read(tmp_path / f"{part}.flac")[0] for part in "kr")
    assert scale in (0.5, 0.25)
    np.testing.assert_allclose(kept + removed, scale * wave, atol=1e-6)


def test_a_sound_beyond_full_scale_is_clipped_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"a\.wav: samples up to 1.5 are clipped"):
        write_sound(tmp_path / "a.wav", np.array([0.1, 1.5]), 16_000)


# Folders of results


def put(folder: Path, **files: str) -> None:
    with written_together(folder) as new:
        for name, text in files.items():
            (new / "tables").mkdir(exist_ok=True)
            (new / "tables" / name).write_text(text)


def test_results_replace_older_ones_and_nothing_else(tmp_path: Path) -> None:
    put(tmp_path, a="1", b="1")
    put(tmp_path, a="2", b="2")
    assert (tmp_path / "tables" / "a").read_text() == "2"
    (tmp_path / "tables" / "b").write_text("2, edited")
    with pytest.raises(
        DataError, match=r"tables/b: expected a file of relax-quantus's own, got one .* changed since; move it"
    ):
        put(tmp_path, a="3", b="3")
    assert [(tmp_path / "tables" / name).read_text() for name in "ab"] == ["2", "2, edited"]
    (tmp_path / "tables" / "c").write_text("mine")
    with pytest.raises(DataError, match="tables/c"):
        require_ours(tmp_path, ("tables/c",))
    put(tmp_path, a="3")
    assert names(tmp_path) == [LIST, "tables"]


def test_moves_that_a_kill_ended_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, a="1", b="1")
    replace, calls = os.replace, []

    def killed_before_the_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 4:  # the list, the first file's draft, and the first file
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed_before_the_second)
        with pytest.raises(KeyboardInterrupt):
            put(tmp_path, a="2", b="2")
    assert [(tmp_path / "tables" / name).read_text() for name in "ab"] == ["2", "1"]
    put(tmp_path, a="3", b="3")
    assert [(tmp_path / "tables" / name).read_text() for name in "ab"] == ["3", "3"]


def test_a_folder_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a").write_text("1")
    with pytest.raises(DataError, match="tables/a"):
        put(tmp_path, a="2")
    (tmp_path / "run.json").write_text('{"configuration": {}}')
    put(tmp_path, a="2")
    assert (tmp_path / "tables" / "a").read_text() == "2"
