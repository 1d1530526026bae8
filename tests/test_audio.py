"""What is accepted, what is refused and in which words, and that block-wise reading changes nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from relax_quantus import audio, decoding
from relax_quantus.audio import AudioWarning, load_waveform, read_audio, resample
from relax_quantus.errors import ArgumentTypeError, AudioError, ShapeError
from relax_quantus.frontend import load_examples

Write = Callable[..., Path]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BLOCK_SAMPLES", 1000)


def sine(seconds: float, rate: int, hz: float = 440.0, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------- accepted


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
        assert peak < 4 * samples + 8 * decoding.BLOCK_SAMPLES * 4


# -------------------------------------------------------------------------------------------------- damaged but decodable


def truncate(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


@pytest.mark.parametrize("block", [1000, 1 << 18])
@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.mp3", "MPEG_LAYER_III")])
def test_samples_before_a_break_are_kept_with_a_warning(
    write_wav: Write, monkeypatch: pytest.MonkeyPatch, name: str, subtype: str, block: int
) -> None:
    monkeypatch.setattr(decoding, "BLOCK_SAMPLES", block)
    path = write_wav(np.random.default_rng(0).uniform(-0.5, 0.5, 60_000), 16_000, name, subtype)
    whole, _ = read_audio(path)
    with pytest.warns(AudioWarning, match=r"a\.\w+: only the first \d\.\d\d s of 3\.75 s could be decoded"):
        part, _ = read_audio(truncate(path, 0.5))
    assert 20_000 < part.size < 35_000
    np.testing.assert_allclose(part[:-1200], whole[: part.size - 1200], rtol=0, atol=2e-7)


def test_truncated_wav_reads_as_far_as_it_goes(write_wav: Write) -> None:
    wanted = sine(2, 16_000)
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


# ----------------------------------------------------------------------------------------------------- accepted, with a warning


@pytest.mark.parametrize(
    ("wave", "said"),
    [
        (sine(1, 16_000, peak=1e-4), r"nearly silent \(-80 dB of full scale\)"),
        (np.full(16_000, 0.5), r"constant \(0\.5\)"),
        (0.2 + sine(1, 16_000, peak=1e-4), "nearly silent"),
        (3e4 * sine(1, 16_000), "peak is 1.5e\\+04"),
        (
            np.stack([sine(1, 16_000), -0.99 * sine(1, 16_000)], 1),
            r"channels nearly cancel when mixed to mono \(46 dB lost\)",
        ),
    ],
)
def test_doubtful_recordings_are_accepted_with_a_warning_that_names_them(
    write_wav: Write, wave: np.ndarray, said: str
) -> None:
    path = write_wav(wave)
    with pytest.warns(AudioWarning, match=rf"clip\.wav: .*{said}"):
        read_audio(path)
    with pytest.warns(AudioWarning, match=said):
        assert load_examples(path).isfinite().all()


def test_constant_is_recognised_at_another_rate_too(write_wav: Write) -> None:
    with pytest.warns(AudioWarning, match="constant"):
        load_waveform(write_wav(np.full(48_000, 0.5), 48_000))


def test_sound_above_the_new_rate_is_missed_aloud(write_wav: Write) -> None:
    path = write_wav(sine(1, 192_000, hz=60_000) * np.hanning(192_000), 192_000)
    with pytest.warns(AudioWarning, match="nearly silent .* once resampled; its sound lies at higher frequencies"):
        load_waveform(path)


def test_low_sample_rate_warns_where_bands_stay_empty(write_wav: Write) -> None:
    path = write_wav(sine(1, 8_000), 8_000)
    with pytest.warns(AudioWarning, match="sampled at 8000 Hz and holds nothing above 4000 Hz"):
        load_waveform(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        read_audio(path)
        load_waveform(path, 8_000)


@pytest.mark.parametrize("channels", [2, 5, 16])
def test_independent_or_single_channels_do_not_count_as_cancelling(write_wav: Write, channels: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (16_000, channels))
    alone = np.zeros_like(noise)
    alone[:, 0] = noise[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        read_audio(write_wav(noise))
        read_audio(write_wav(alone))


# ----------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("wave", "said"),
    [
        (np.zeros(16_000), "expected sound, got 1.00 s of digital silence; leave it out"),
        (np.zeros(0), "expected at least one sample, got a header without samples; copy"),
        (np.array([0.1, np.nan, 0.2]), "expected finite samples, got NaN or infinite ones; export"),
        (np.array([0.1, np.inf, 0.2]), "expected finite samples"),
        (np.array([[0.1, 0.1], [0.1, -np.inf]]), "expected finite samples"),
        (np.stack([sine(1, 16_000), -sine(1, 16_000)], 1), "got 2 channels that cancel; export one channel"),
    ],
)
def test_unusable_samples_are_refused_in_one_line(write_wav: Write, wave: np.ndarray, said: str) -> None:
    path = write_wav(wave)
    for read in (read_audio, load_waveform, load_examples):
        with pytest.raises(AudioError, match=said) as refusal:
            read(path)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_nan_in_a_late_block_is_found(write_wav: Write, small_blocks: None) -> None:
    wave = sine(1, 16_000)
    wave[-1] = np.nan
    with pytest.raises(AudioError, match="finite"):
        load_waveform(write_wav(wave, 48_000))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.wav", b"", r"got an empty file \(0 bytes\)"),
        ("text.wav", b"not a sound " * 99, "got Format not recognised; convert it to WAV or FLAC"),
        ("noise.mp3", np.random.default_rng(0).bytes(20_000), "got Format not recognised; convert"),
        ("zeros.bin", bytes(5000), "Format not recognised"),
        ("samples.raw", bytes(range(200)), "got headerless samples of unknown rate; convert"),
        ("picture.wav", b"\x89PNG\r\n\x1a\n" + bytes(5000), "Format not recognised"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=rf"{name}: expected .*{said}"):
        read_audio(tmp_path / name)


def test_break_before_the_first_sample_is_refused(write_wav: Write) -> None:
    path = write_wav(sine(1, 16_000), name="a.flac", subtype="PCM_16")
    start = path.read_bytes().index(b"\xff\xf8")  # the first frame's sync code
    path.write_bytes(path.read_bytes()[: start + 20])
    with pytest.raises(AudioError, match="got a damaged file"):
        read_audio(path)


def test_missing_file_folder_and_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        AudioError, match=r"gone\.wav: expected a readable audio file, got no such file; check the path"
    ):
        read_audio(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="got a folder; pass a file inside it"):
        read_audio(tmp_path)
    with pytest.raises(AudioError, match="embedded null"):
        read_audio("a\0b.wav")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AudioError, match="a device or pipe"):
        read_audio(tmp_path / "pipe")


def test_file_without_read_permission_is_refused(write_wav: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_wav(sine(0.1, 16_000))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def forbid(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(decoding, "open", forbid, raising=False)
    with pytest.raises(AudioError, match="got no permission to read it; change its permissions"):
        read_audio(path)


def test_single_sample_that_resampling_swallows_is_refused(write_wav: Write) -> None:
    with pytest.raises(AudioError, match="expected sound after resampling"):
        load_waveform(write_wav(np.ones(2), 192_000))


# ---------------------------------------------------------------------------------------------------------------- resample


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


# ------------------------------------------------------------------------------------------------------------------- quiet


@pytest.fixture
def chatty(write_wav: Write) -> Path:
    """An MP3 whose decoder writes notes to descriptor 2."""
    path = truncate(write_wav(sine(3, 16_000), name="a.mp3", subtype="MPEG_LAYER_III"), 0.5)
    return path.rename(path.with_name("chatty.mp3"))


@pytest.mark.filterwarnings("ignore::relax_quantus.audio.AudioWarning")
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


@pytest.mark.filterwarnings("ignore::relax_quantus.audio.AudioWarning")
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


@pytest.mark.filterwarnings("ignore::relax_quantus.audio.AudioWarning")
def test_no_descriptor_left_costs_quiet_not_stderr(chatty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    before = os.fstat(2)
    monkeypatch.setattr(os, "dup", full)
    assert read_audio(chatty)[0].size > 10_000
    assert os.path.samestat(before, os.fstat(2))


@pytest.mark.filterwarnings("ignore::relax_quantus.audio.AudioWarning")
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


# ---------------------------------------------------------------------------------------------------------- real recordings


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
    monkeypatch.setattr(decoding, "BLOCK_SAMPLES", 1000)
    np.testing.assert_allclose(read_audio(animal_sounds / name)[0], whole, rtol=0, atol=2e-7)


def test_warning_is_a_user_warning_of_its_own() -> None:
    assert issubclass(audio.AudioWarning, UserWarning)
