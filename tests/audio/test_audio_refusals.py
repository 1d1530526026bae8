"""What is accepted with a warning, what is refused, and in which words."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from waves import Write, sine

from relax_quantus.audio import reading as audio
from relax_quantus.audio.quality import unheard_above
from relax_quantus.audio.reading import AudioWarning, load_waveform, read_audio
from relax_quantus.errors import AudioError
from relax_quantus.frontend.log_mel import load_examples

# ------------------------------------------------------------------------- accepted, with a warning


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


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_a_recording_is_nearly_silent_below_a_thousandth_of_full_scale(write_wav: Write, offset: float) -> None:
    with pytest.warns(AudioWarning, match=r"nearly silent \(-61 dB of full scale\)"):
        read_audio(write_wav(offset + sine(1, 16_000, peak=0.9e-3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        read_audio(write_wav(offset + sine(1, 16_000, peak=1.1e-3)))


def test_constant_is_recognised_at_another_rate_too(write_wav: Write) -> None:
    with pytest.warns(AudioWarning, match="constant"):
        load_waveform(write_wav(np.full(48_000, 0.5), 48_000))


def test_sound_above_the_new_rate_is_missed_aloud(write_wav: Write) -> None:
    path = write_wav(sine(1, 192_000, hz=60_000) * np.hanning(192_000), 192_000)
    with pytest.warns(AudioWarning, match="nearly silent .* once resampled; its sound lies at higher frequencies"):
        load_waveform(path)


@pytest.mark.parametrize(("rate", "hz", "share"), [(96_000, 40_000, 0.96), (44_100, 11_000, 0.5), (48_000, 9_500, 0.2)])
def test_energy_above_the_new_rate_is_told_by_its_share(write_wav: Write, rate: int, hz: float, share: float) -> None:
    """Whatever is loud below: the peak of what is left says nothing."""
    path = write_wav(0.3 * (share**0.5 * sine(1, rate, hz=hz) + (1 - share) ** 0.5 * sine(1, rate, hz=700)), rate)
    with pytest.warns(AudioWarning, match=f"clip.wav: {100 * share:.0f} % of its energy lies above 8000 Hz"):
        load_waveform(path)
    with pytest.warns(AudioWarning, match=f"{100 * share:.0f} % of its energy"):
        list(audio.waveform_blocks(path))


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_a_little_energy_above_the_new_rate_is_not(write_wav: Write, offset: float) -> None:
    wave = offset + 0.3 * sine(1, 44_100, hz=700) + 0.05 * sine(1, 44_100, hz=11_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        load_waveform(write_wav(wave, 44_100))


def test_energy_above_the_highest_band_is_told_by_its_share() -> None:
    wave = (sine(1, 44_100, hz=11_000) + sine(1, 44_100, hz=700)).astype(np.float32)
    assert unheard_above(wave, 44_100, 8000.0).startswith("50 % of its energy lies above 8000 Hz")
    assert unheard_above(wave, 44_100, 12_000.0) == ""
    assert unheard_above(wave[:1], 44_100, 8000.0) == ""


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


def test_warning_is_a_user_warning_of_its_own() -> None:
    assert issubclass(audio.AudioWarning, UserWarning)


# ------------------------------------------------------------------------------------------ refused


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

        monkeypatch.setattr(audio, "open", forbid, raising=False)
    with pytest.raises(AudioError, match="got no permission to read it; change its permissions"):
        read_audio(path)


def test_single_sample_that_resampling_swallows_is_refused(write_wav: Write) -> None:
    with pytest.raises(AudioError, match="expected sound after resampling"):
        load_waveform(write_wav(np.ones(2), 192_000))
