"""A decoder's notes stay off stderr, and everything else reaches it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from waves import Write, sine, truncate

from relax_quantus.audio.reading import read_audio
from relax_quantus.errors import AudioError


@pytest.fixture
def chatty(write_wav: Write) -> Path:
    """An MP3 whose decoder writes notes to descriptor 2."""
    path = truncate(write_wav(sine(3, 16_000), name="a.mp3", subtype="MPEG_LAYER_III"), 0.5)
    return path.rename(path.with_name("chatty.mp3"))


@pytest.mark.filterwarnings("ignore::relax_quantus.audio.reading.AudioWarning")
def test_decoder_notes_stay_off_stderr_and_other_text_reaches_it(
    chatty: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    soundfile.read(chatty)
    assert "fuzzy" in capfd.readouterr().err, "this file no longer makes the decoder write: the test proves nothing"
    descriptors = len(os.listdir("/dev/fd"))
    stderr = open(2, "w", closefd=False)  # noqa: SIM115
    with contextlib.redirect_stderr(stderr):
        sys.stderr.write("before ")
        read_audio(chatty)
        print("after", end="", file=sys.stderr, flush=True)
    assert capfd.readouterr().err == "before after"
    assert len(os.listdir("/dev/fd")) == descriptors


@pytest.mark.filterwarnings("ignore::relax_quantus.audio.reading.AudioWarning")
@pytest.mark.parametrize("closed", [(2,), (0, 2), ()])
def test_reading_works_without_a_stderr(chatty: Path, monkeypatch: pytest.MonkeyPatch, closed: tuple[int, ...]) -> None:
    wanted = read_audio(chatty)[0]
    monkeypatch.setattr(sys, "stderr", None)
    saved = {descriptor: os.dup(descriptor) for descriptor in closed}
    for descriptor in closed:
        os.close(descriptor)
    try:
        waves = [read_audio(chatty)[0] for _ in range(2)]
    finally:
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)
    for wave in waves:
        np.testing.assert_array_equal(wave, wanted)


@pytest.mark.filterwarnings("ignore::relax_quantus.audio.reading.AudioWarning")
def test_no_descriptor_left_costs_quiet_not_stderr(chatty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    before = os.fstat(2)
    monkeypatch.setattr(os, "dup", full)
    assert read_audio(chatty)[0].size > 10_000
    assert os.path.samestat(before, os.fstat(2))


@pytest.mark.filterwarnings("ignore::relax_quantus.audio.reading.AudioWarning")
def test_threads_read_side_by_side_and_leave_stderr_as_it_was(chatty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = os.fstat(2)
    with ThreadPoolExecutor(8) as pool:
        waves = list(pool.map(lambda _: read_audio(chatty)[0], range(32)))
    assert os.path.samestat(before, os.fstat(2))
    assert all(np.array_equal(waves[0], wave) for wave in waves)
    assert capfd.readouterr().err == ""


def test_stderr_comes_back_after_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(np.random.default_rng(0).bytes(20_000))
    before = os.fstat(2)
    with pytest.raises(AudioError):
        read_audio(tmp_path / "a.mp3")
    assert os.path.samestat(before, os.fstat(2))
