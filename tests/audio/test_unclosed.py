"""Files whose recorder or copy stopped early."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from waves import Write, sine, truncate

from relax_quantus.audio import reading
from relax_quantus.audio.reading import (
    AudioWarning,
    load_waveform,
    measure_extent,
    read_audio,
    read_beginning,
    waveform_blocks,
)
from relax_quantus.errors import AudioError


def without_size(path: Path, marks: dict[bytes, tuple[int, int]]) -> Path:
    """Set the bytes at so many behind each mark to zero."""
    blob = bytearray(path.read_bytes())
    for mark, (behind, count) in marks.items():
        place = blob.index(mark) + behind
        blob[place : place + count] = bytes(count)
    path.write_bytes(blob)
    return path


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("container", "subtype", "marks"),
    [
        ("WAV", "PCM_16", {b"data": (4, 4)}),
        ("WAV", "PCM_24", {b"data": (4, 4), b"RIFF": (4, 4)}),
        ("WAV", "FLOAT", {b"data": (4, 4)}),
        ("WAVEX", "PCM_16", {b"data": (4, 4)}),
        ("RF64", "PCM_16", {b"ds64": (16, 8)}),
        ("AU", "PCM_16", {b".snd": (8, 4)}),
        ("AIFF", "PCM_16", {b"SSND": (4, 4)}),
    ],
)
def test_samples_behind_a_header_that_was_never_finished_are_read(
    tmp_path: Path, container: str, subtype: str, marks: dict[bytes, tuple[int, int]], channels: int
) -> None:
    wave = np.stack([sine(2, 16_000, hz) for hz in (440.0, 700.0)[:channels]], axis=1)
    path = tmp_path / "a.wav"
    soundfile.write(path, wave, 16_000, format=container, subtype=subtype)
    wanted, _ = read_audio(path)
    without_size(path, marks)
    np.testing.assert_array_equal(read_audio(path)[0], wanted)
    assert measure_extent(path).seconds == 2.0


def test_a_wav_that_is_empty_stays_empty(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16_000, subtype="PCM_16")
    blob = (tmp_path / "a.wav").read_bytes()
    blob = blob[: blob.index(b"data") + 4] + bytes(4)
    for behind in (b"", b"LIST\x04\0\0\0INFO"):
        (tmp_path / "a.wav").write_bytes(blob + behind)
        for read in (read_audio, measure_extent, load_waveform):
            with pytest.raises(AudioError, match="got a header without samples"):
                read(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("OGG", "VORBIS"), ("OGG", "OPUS"), ("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("W64", "PCM_16"),
     ("RF64", "PCM_24")],
)  # fmt: skip
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_file_that_was_cut_is_read_with_a_warning(tmp_path: Path, container: str, subtype: str, share: float) -> None:
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 16_000 * 6)
    path = tmp_path / "a.sound"
    soundfile.write(path, wave, 16_000, format=container, subtype=subtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        read_audio(path)
    truncate(path, share)
    with pytest.warns(AudioWarning, match=r"a\.sound: only the first \d\.\d\d s .*\(the file ends early\)"):
        part, _ = read_audio(path)
    assert 8_000 < part.size < 16_000 * 5.5


def test_an_ogg_cut_between_two_pages_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.3, 0.3, 16_000 * 6), 16_000, subtype="VORBIS")
    blob = path.read_bytes()
    path.write_bytes(blob[: blob.rindex(b"OggS")])
    with pytest.warns(AudioWarning, match="the file ends early"):
        read_audio(path)


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f", b"\x00\x00\x00\x80"])
def test_sizes_that_programs_write_into_pipes_are_no_damage(write_wav: Write, size: bytes) -> None:
    path = write_wav(sine(2, 16_000))
    blob = bytearray(path.read_bytes())
    place = blob.index(b"data") + 4
    blob[place : place + 4] = size
    path.write_bytes(blob)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        assert read_audio(path)[0].size == 32_000


def test_the_beginning_of_a_file_is_that_of_the_whole(write_wav: Write, small_blocks: None) -> None:
    path = write_wav(np.random.default_rng(0).uniform(-0.3, 0.3, (48_000, 2)), 48_000)
    part, rate = read_beginning(path, 0.25)
    assert (part.size, rate) == (12_000, 48_000)
    np.testing.assert_array_equal(part, read_audio(path)[0][:12_000])
    assert read_beginning(path, 99)[0].size == 48_000


def test_a_rate_that_only_a_damaged_header_has_is_refused(write_wav: Write) -> None:
    path = write_wav(sine(1, 16_000), rate=2)
    for read in (load_waveform, lambda path: list(waveform_blocks(path))):
        with pytest.raises(
            AudioError, match="expected a sample rate of at least 16 Hz, to be brought to 16000 Hz, got 2"
        ):
            read(path)
    with pytest.warns(AudioWarning, match="sampled at 2 Hz"):
        assert max(block.size for block in waveform_blocks(path, 2000)) <= 4 * reading.BLOCK_SAMPLES
    assert read_audio(path)[1] == 2
