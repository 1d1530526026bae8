"""What is accepted, and that block-wise reading changes nothing."""

from __future__ import annotations

import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from waves import Write, sine, truncate

from relax_quantus.audio import reading
from relax_quantus.audio.reading import AudioWarning, load_waveform, read_audio, resample
from relax_quantus.errors import ArgumentTypeError, AudioError, ShapeError
from relax_quantus.frontend.log_mel import load_examples

# ----------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "tolerance"),
    [
        ("a.wav", "PCM_U8", 8_000, 1 / 128),
        ("a.wav", "PCM_16", 11_025, 1e-4),
        ("a.wav", "PCM_24", 22_050, 1e-6),
        ("a.wav", "DOUBLE", 16_000, 1e-7),
        ("a.wav", "ALAW", 16_000, 0.03),
        ("a.wav", "ULAW", 16_000, 0.03),
        ("a.wav", "IMA_ADPCM", 44_100, 0.2),
        ("a.flac", "PCM_16", 192_000, 1e-4),
        ("a.aiff", "PCM_16", 48_000, 1e-4),
        ("a.ogg", "VORBIS", 44_100, 0.05),
        ("a.mp3", "MPEG_LAYER_III", 44_100, 0.05),
    ],
)
def test_every_encoding_reads_as_the_samples_that_were_written(
    write_wav: Write, name: str, subtype: str, rate: int, tolerance: float
) -> None:
    wanted = sine(0.5, rate)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        wave, found = read_audio(write_wav(wanted, rate, name, subtype))
    assert found == rate
    assert wave.dtype == np.float32
    np.testing.assert_allclose(wave[: wanted.size], wanted, atol=tolerance)


@pytest.mark.parametrize("channels", [1, 2, 5, 16])
def test_channels_are_averaged(write_wav: Write, small_blocks: None, channels: int) -> None:
    wanted = np.random.default_rng(0).uniform(-0.5, 0.5, (3333, channels)).astype(np.float32)
    wave, _ = read_audio(write_wav(wanted))
    np.testing.assert_allclose(wave, wanted.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("seconds", [0.2, 1 / 16_000])
def test_short_recording_is_padded_to_one_example_and_needs_no_warning_for_it(write_wav: Write, seconds: float) -> None:
    path = write_wav(np.concatenate([[0.5], sine(seconds, 16_000)[1:]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error" if seconds > 0.1 else "ignore", AudioWarning)
        x = load_examples(path)
    assert x.shape == (1, 1, 96, 64)
    np.testing.assert_allclose(x[0, 0, -1], np.log(0.01), atol=1e-5)


def test_path_may_be_str_bytes_or_path_and_its_name_anything(write_wav: Write, tmp_path: Path) -> None:
    path = write_wav(sine(0.1, 16_000))
    odd = tmp_path / os.fsdecode(b"b\xff d\n.wav")
    path.rename(odd)
    for same in (str(odd), os.fsencode(odd), odd):
        assert read_audio(same)[0].size == 1600
    odd.write_bytes(b"no sound in here")
    with pytest.raises(AudioError) as refusal:
        read_audio(odd)
    assert "\n" not in str(refusal.value)
    str(refusal.value).encode()
    with pytest.raises(ArgumentTypeError, match="path: expected a path, got int"):
        read_audio(3)  # type: ignore[arg-type]


def test_blocks_join_to_what_one_read_gives(write_wav: Write, small_blocks: None) -> None:
    for name, subtype in (("a.flac", "PCM_16"), ("a.mp3", "MPEG_LAYER_III"), ("a.ogg", "VORBIS"), ("a.wav", "GSM610")):
        path = write_wav(np.random.default_rng(1).uniform(-0.5, 0.5, 30_011), 16_000, name, subtype)
        np.testing.assert_allclose(load_waveform(path), soundfile.read(path, dtype="float32")[0], rtol=0, atol=2e-7)


@pytest.mark.parametrize("rate", [8_000, 11_025, 11_127, 22_255, 44_100, 48_000, 192_000])
def test_streaming_resampler_equals_the_one_shot(write_wav: Write, small_blocks: None, rate: int) -> None:
    path = write_wav(np.random.default_rng(rate).uniform(-0.5, 0.5, rate // 3 + 7), rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        np.testing.assert_array_equal(load_waveform(path), resample(*read_audio(path)))


def test_memory_is_that_of_the_mono_result(write_wav: Write) -> None:
    path = write_wav(np.tile(sine(1, 48_000)[:, None], (90, 2)), 48_000, subtype="PCM_16")
    for read, samples in ((read_audio, 90 * 48_000), (load_waveform, 90 * 16_000)):
        tracemalloc.start()
        read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * samples + 8 * reading.BLOCK_SAMPLES * 4


# ---------------------------------------------------------------------------- damaged but decodable


@pytest.mark.parametrize("block", [1000, 1 << 18])
@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.mp3", "MPEG_LAYER_III")])
def test_samples_before_a_break_are_kept_with_a_warning(
    write_wav: Write, monkeypatch: pytest.MonkeyPatch, name: str, subtype: str, block: int
) -> None:
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", block)
    path = write_wav(np.random.default_rng(0).uniform(-0.5, 0.5, 60_000), 16_000, name, subtype)
    whole, _ = read_audio(path)
    with pytest.warns(AudioWarning, match=r"a\.\w+: only the first \d\.\d\d s of 3\.75 s could be decoded"):
        part, _ = read_audio(truncate(path, 0.5))
    assert 20_000 < part.size < 35_000
    np.testing.assert_allclose(part[:-1200], whole[: part.size - 1200], rtol=0, atol=2e-7)


def test_truncated_wav_reads_as_far_as_it_goes(write_wav: Write) -> None:
    wanted = sine(2, 16_000)
    with pytest.warns(AudioWarning, match=r"only the first 1\.00 s of 2\.00 s could be decoded"):
        wave, _ = read_audio(truncate(write_wav(wanted), 0.5))
    np.testing.assert_array_equal(wave, wanted[: wave.size])
    assert wave.size > 15_000


@pytest.mark.parametrize("announced", [b"\x00\x00\x00\x00\x00", b"\x0f\xff\xff\xff\xff"])
def test_flac_header_may_announce_no_length_or_an_absurd_one(write_wav: Write, announced: bytes) -> None:
    path = write_wav(sine(1, 16_000), name="a.flac", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | announced[0]
    content[22:26] = announced[1:]
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        assert read_audio(path)[0].size == 16_000


# ----------------------------------------------------------------------------------------- resample


def test_resample_returns_the_same_array_at_the_same_rate_and_keeps_pitch() -> None:
    wave = sine(1, 48_000)
    assert resample(wave, 48_000, 48_000) is wave
    np.testing.assert_allclose(resample(wave, 48_000)[500:-500], sine(1, 16_000)[500:-500], atol=1e-3)


def test_resample_refuses_channels_integers_and_odd_rates() -> None:
    with pytest.raises(ShapeError, match="wave: expected shape"):
        resample(np.zeros((2, 100), np.float32), 48_000)
    with pytest.raises(ArgumentTypeError, match="floating-point"):
        resample(np.zeros(100, np.int16), 48_000)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rate_hz: expected an integer of at least 1"):
        resample(np.zeros(100, np.float32), 0)


# ---------------------------------------------------------------------------------- real recordings


def test_real_recordings_load(animal_sounds: Path, capfd: pytest.CaptureFixture[str]) -> None:
    compressed = ["dog/dog_124.wav", "cat/cat_145.wav", "dog/dog_142.wav"]
    others = [str(p.relative_to(animal_sounds)) for p in sorted(animal_sounds.glob("*/*.flac"))[::40]]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "it is sampled at|.*it is sampled at", AudioWarning)
        for name in compressed + others:
            x = load_examples(animal_sounds / name)
            assert x.isfinite().all()
            assert x.shape[1:] == (1, 96, 64)
    assert capfd.readouterr().err == ""


def test_mp3_shorter_than_announced_ends_with_its_last_sample(animal_sounds: Path) -> None:
    """Its header announces 14 560 frames, 14 400 decode: nothing invented may follow them."""
    wave, _ = read_audio(animal_sounds / "cat" / "cat_145.wav")
    assert wave.size == 14_400


@pytest.mark.parametrize("name", ["donkey/donkey_010.wav", "lion/lion_028.wav", "dog/dog_180.wav"])
def test_mp3_is_the_same_in_small_blocks(animal_sounds: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Seeking between blocks, as python-soundfile does, garbles what follows."""
    whole, _ = read_audio(animal_sounds / name)
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", 1000)
    np.testing.assert_allclose(read_audio(animal_sounds / name)[0], whole, rtol=0, atol=2e-7)
