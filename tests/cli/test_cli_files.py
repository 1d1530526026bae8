"""What `explain`, `fit` and `bench` replace and what
they keep, and that one recording's failure is its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command_line import FEW, call, problems, refused
from torch import Tensor

from relax_quantus.base import files as drafts
from relax_quantus.base.files import LOCK, Draft, ResultFiles, clip_of

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = (*FEW, "--html", "--sounds", "--annotations")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Ours and others'


SUFFIXES = ("npz", "png", "html", "time.selections.txt", "time.labels.txt", "time.kept.flac", "time.removed.flac")


@pytest.mark.parametrize("hop", [(), ("--hop", 0.96)], ids=["one-go", "blocks"])
def test_no_file_of_the_users_is_replaced(hop: tuple[Any, ...], tone: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for suffix in SUFFIXES:
        (out / f"tone.{suffix}").write_text("mine")
    result = call("explain", tone(), "--out", out, *ALL, *hop)
    assert result.exit_code == 0
    (line,) = problems(result).splitlines()
    assert (
        "tone.npz was not written by relax-quantus, or was changed since, and is kept; the results are called tone-"
        in line
    )
    assert all((out / f"tone.{suffix}").read_text() == "mine" for suffix in SUFFIXES)
    new = Path(result.stdout.splitlines()[0]).stem
    assert names(out) == sorted(f"{stem}.{suffix}" for stem in ("tone", new) for suffix in SUFFIXES)


@pytest.mark.parametrize("hop", [(), ("--hop", 0.96)], ids=["one-go", "blocks"])
@pytest.mark.parametrize("suffix", ["time.selections.txt", "html", "png", "time.kept.flac"])
def test_a_file_of_ours_that_was_edited_is_kept(
    suffix: str, hop: tuple[Any, ...], tone: Callable[..., Path], tmp_path: Path
) -> None:
    out, clip = tmp_path / "out", tone()
    for _ in range(2):  # what nobody has touched makes way
        assert problems(call("explain", clip, "--out", out, *ALL, *hop)) == ""
        assert names(out) == sorted(f"tone.{suffix}" for suffix in SUFFIXES)
    edited = out / f"tone.{suffix}"
    content = edited.read_bytes() + b"edited"
    edited.write_bytes(content)
    results = [call("explain", clip, "--out", out, *ALL, *hop, "--seed", seed) for seed in (1, 2)]
    assert edited.read_bytes() == content
    assert all(f"tone.{suffix} was not written by relax-quantus, or was changed since" in r.stderr for r in results)
    assert results[0].stdout == results[1].stdout
    assert len(names(out)) == 2 * len(SUFFIXES)


def test_what_is_not_asked_for_again_stays_ours(tone: Callable[..., Path], tmp_path: Path) -> None:
    clip, out = tone(), tmp_path / "out"
    for asked in (ALL, FEW, ALL):
        result = call("explain", clip, "--out", out, *asked)
        assert (result.exit_code, problems(result)) == (0, "")
    assert names(out) == sorted(f"tone.{suffix}" for suffix in SUFFIXES)


def test_what_an_earlier_run_wrote_and_this_one_did_not_is_gone_unless_it_was_edited(
    tone: Callable[..., Path], tmp_path: Path
) -> None:
    clip, out = tone(), tmp_path / "out"
    more = ("--n-samples", "6", "--masks", "time", "--masks", "random", "--html", "--annotations", "--sounds")
    call("explain", clip, "--out", out, *more)
    edited, mine = out / "tone.random.labels.txt", out / "tone.notes.txt"
    for path in (edited, mine):
        with path.open("a", encoding="utf-8") as target:
            target.write("mine")
    assert call("explain", clip, "--out", out, *FEW, "--annotations").exit_code == 0
    kept = {edited.name, mine.name}
    assert set(names(out)) == {f"tone.{s}" for s in ("npz", "png", "time.selections.txt", "time.labels.txt")} | kept
    assert call("explain", clip, "--out", out, *FEW).exit_code == 0
    assert set(names(out)) == {"tone.npz", "tone.png"} | kept


def test_an_index_of_the_users_is_kept_and_ours_replaced(tone: Callable[..., Path], tmp_path: Path) -> None:
    clips, out = (tone("a.wav"), tone("b.wav", 3000.0)), tmp_path / "out"

    def index() -> str:
        return Path(call("explain", *clips, "--out", out, *FEW, "--html").stdout.splitlines()[-1]).name

    assert [index(), index()] == ["index.html", "index.html"]
    with (out / "index.html").open("a") as mine:
        mine.write("<p>mine</p>")
    assert [index(), index()] == ["all-recordings.html", "all-recordings.html"]
    (out / "all-recordings.html").write_text("mine, too")
    assert index() == "all-recordings-2.html"
    assert (out / "index.html").read_text().endswith("<p>mine</p>")
    assert (out / "all-recordings.html").read_text() == "mine, too"


def test_a_kill_between_two_moves_leaves_files_that_are_known(
    tone: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, out = tone(), tmp_path / "out"
    call("explain", clip, "--out", out, *ALL)
    move, moved = Draft.move, []

    def killed(draft: Draft, path: Path) -> None:
        if len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(path)
        move(draft, path)

    with monkeypatch.context() as patch:
        patch.setattr(Draft, "move", killed)
        assert call("explain", clip, "--out", out, *ALL, "--seed", 1).exit_code == 130
    result = call("explain", clip, "--out", out, *ALL, "--seed", 2)
    assert (result.exit_code, problems(result)) == (0, "")
    assert names(out) == sorted(f"tone.{suffix}" for suffix in SUFFIXES)


def test_two_processes_on_recordings_of_one_name_never_mix(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    clips = [tmp_path / folder / "same.wav" for folder in "ab"]
    with ResultFiles(clips[0], out) as first, ResultFiles(clips[1], out) as second:
        for clip, files in zip(clips, (first, second), strict=True):  # both write before either is done
            with files.draft("npz").open("wb") as target:
                np.savez(target, settings=np.array(f'{{"clip": "{clip}"}}'))
            files.draft("png").write_text(str(clip))
        stems = [first.publish(), second.publish()]
    assert len(set(stems)) == 2
    for clip, stem in zip(clips, stems, strict=True):
        assert clip_of(out / f"{stem}.npz") == str(clip)
        assert (out / f"{stem}.png").read_text() == str(clip)
    assert len(names(out)) == 4
    assert LOCK not in names(out)


def test_fit_replaces_a_classifier_and_nothing_else(classes: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    refused(call("fit", classes, "--out", notes), "--out", "notes.txt", "name a new one", code=2)
    assert notes.read_text() == "mine"
    for _ in range(2):
        assert call("fit", classes, "--out", tmp_path / "head").exit_code == 0


def test_bench_and_report_refuse_files_of_others_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("mine")
    refused(call("bench", "--out", tmp_path), "results.csv", "move it away", code=1)
    assert (tmp_path / "results.csv").read_text() == "mine"


# A failure is its recording's


class RuntimesError(Exception):
    """As another runtime raises it: of no family that we know."""


def failing_on_the_loud(h: Tensor) -> Tensor:
    if float(h.max()) > 1.6:
        raise RuntimesError("INVALID_ARGUMENT")
    return h


@pytest.fixture
def clips(write_wav: Callable[..., Path]) -> list[Path]:
    """Three recordings, the second louder than the others."""
    noise = np.random.default_rng(0).standard_normal((3, 16_000)).astype(np.float32)
    return [
        write_wav(level * wave, name=name)
        for level, wave, name in zip((0.01, 0.5, 0.02), noise, ("a.wav", "b.wav", "c.wav"), strict=True)
    ]


@pytest.mark.parametrize("hop", [(), ("--hop", 0.96)], ids=["one-go", "blocks"])
def test_an_exception_of_any_runtime_is_that_recordings(
    hop: tuple[Any, ...], clips: list[Path], odd_encoder: Callable[..., str], tmp_path: Path
) -> None:
    encoder = odd_encoder(failing_on_the_loud)
    result = call("explain", *clips, "--out", tmp_path / "out", "--encoder", encoder, *FEW, *hop)
    assert result.exit_code == 1
    (line,) = problems(result).splitlines()
    assert line.startswith(f"error: {clips[1]}: unexpected RuntimesError: INVALID_ARGUMENT")
    assert [Path(line).name for line in result.stdout.splitlines()] == ["a.png", "c.png"]


def test_fit_and_references_leave_out_what_the_encoder_fails_on(
    clips: list[Path], odd_encoder: Callable[..., str], tmp_path: Path
) -> None:
    encoder = odd_encoder(failing_on_the_loud)
    for label in ("x", "y"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for clip in clips:
            os.link(clip, tmp_path / "set" / label / clip.name)
    result = call("fit", tmp_path / "set", "--out", tmp_path / "head", "--encoder", encoder)
    assert result.exit_code == 1
    assert [line.partition(": unexpected")[0] for line in problems(result).splitlines()] == [
        f"error: {tmp_path / 'set' / label / 'b.wav'}" for label in ("x", "y")
    ]
    assert (tmp_path / "head").is_file()
    asked = ("--out", tmp_path / "out", "--encoder", encoder, *FEW)
    result = call("explain", clips[0], "--reference", tmp_path / "set" / "x", *asked)
    assert result.exit_code == 0
    assert f"left out: {tmp_path / 'set' / 'x' / 'b.wav'}: unexpected RuntimesError" in result.stderr
    assert str(clips[1]) in call("explain", clips[0], "--reference", clips[1], *asked).stderr


@pytest.mark.parametrize("hop", [(), ("--hop", 0.96)], ids=["one-go", "blocks"])
def test_a_disk_that_is_full_for_one_recording_is_its_failure(
    hop: tuple[Any, ...], clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = Draft.flush

    def full(draft: Draft) -> None:
        target = drafts._open[draft.path.name]
        if target.stem == "b" or target.parent.name.startswith("b-"):  # its results, or its blocks
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(draft)

    monkeypatch.setattr(Draft, "flush", full)
    result = call("explain", *clips, "--out", tmp_path / "out", *FEW, *hop)
    assert result.exit_code == 1
    (line,) = problems(result).splitlines()
    assert "b" in line
    assert "No space left on device" in line
    assert [Path(line).name for line in result.stdout.splitlines()] == ["a.png", "c.png"]


# Sounds


@pytest.mark.parametrize("hop", [(), ("--hop", 0.96)], ids=["one-go", "blocks"])
def test_the_scale_of_loud_sounds_is_said(hop: tuple[Any, ...], write_wav: Callable[..., Path], tmp_path: Path) -> None:
    wave = (3.0 * np.sin(np.arange(32_000) / 3) * (np.arange(32_000) > 16_000)).astype(np.float32)
    wave += 0.01 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    result = call("explain", write_wav(wave), "--out", tmp_path / "out", *FEW, "--sounds", *hop)
    assert result.exit_code == 0
    assert (
        "the sounds of time pass full scale and are written at scale 0.25, so that kept + removed is 0.25 x"
        in result.stderr
    )
    kept, removed = (soundfile.read(tmp_path / "out" / f"clip.time.{part}.flac")[0] for part in ("kept", "removed"))
    np.testing.assert_allclose(kept + removed, 0.25 * wave, atol=1e-6)
