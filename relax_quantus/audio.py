"""Audio file -> mono float32 waveform.

First step of the flow: whatever libsndfile decodes (WAV, FLAC, OGG, MP3, 8-bit, A-law, any rate and channel count) enters; a mono float32
waveform in [-1, 1] leaves, at the file's own rate (`read_audio`) or at the encoder's (`load_waveform`, resampled by soxr).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from relax_quantus import checks
from relax_quantus.errors import AudioError

SAMPLE_RATE_HZ = 16_000
BLOCK_FRAMES = 1 << 20

Waveform = npt.NDArray[np.float32]


def read_audio(path: str | os.PathLike[str]) -> tuple[Waveform, int]:
    """Decode a file and mix it down to mono.

    Parameters
    ----------
    path
        Any file that libsndfile reads. It is decoded block by block, so memory is that of the mono result.

    Returns
    -------
    wave : numpy.ndarray of float32, shape (samples,)
        The mean of the channels, full scale at 1.
    rate : int
        The file's own sample rate in Hz.

    Raises
    ------
    AudioError
        If the file is missing, does not decode, or decodes to nothing, to silence or to NaN or infinite samples.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: expected a recording, got {'a folder' if path.is_dir() else 'no such file'}.")
    try:
        with soundfile.SoundFile(path) as source:
            rate = int(source.samplerate)
            blocks = [b.mean(axis=1) for b in source.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True)]
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"{path}: expected audio that libsndfile decodes, got {error}; convert it to WAV or FLAC.") from error
    wave = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if wave.size == 0:
        raise AudioError(f"{path}: expected at least one sample, got an empty recording; remove it.")
    if not np.isfinite(wave).all():
        raise AudioError(f"{path}: expected finite samples, got NaN or infinite ones; export the recording again.")
    if not wave.any():
        raise AudioError(f"{path}: expected sound, got {wave.size / rate:.2f} s of digital silence; remove it.")
    return wave, rate


def resample(wave: Waveform, rate_hz: int, to_rate_hz: int = SAMPLE_RATE_HZ) -> Waveform:
    """Resample a waveform (samples,) with soxr's high-quality filter; the same array comes back if the rates agree."""
    checks.integer("rate_hz", rate_hz)
    checks.integer("to_rate_hz", to_rate_hz)
    if rate_hz == to_rate_hz:
        return wave
    return np.asarray(soxr.resample(wave, rate_hz, to_rate_hz, quality="HQ"), dtype=np.float32)


def load_waveform(path: str | os.PathLike[str], sample_rate_hz: int = SAMPLE_RATE_HZ) -> Waveform:
    """Read a file as a mono float32 waveform (samples,) at `sample_rate_hz`."""
    return resample(*read_audio(path), sample_rate_hz)
