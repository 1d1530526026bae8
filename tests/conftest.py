"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

ANIMAL_SOUNDS = Path(__file__).resolve().parents[2] / "shared" / "data" / "animal-sounds"


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    """As many threads as OMP_NUM_THREADS says, by default two."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session")
def animal_sounds() -> Path:
    """The folder of real recordings beside the repository."""
    if not (ANIMAL_SOUNDS / "clips.csv").is_file():
        pytest.skip(f"the real recordings are not at {ANIMAL_SOUNDS}")
    return ANIMAL_SOUNDS


@pytest.fixture
def write_wav(tmp_path: Path) -> Callable[..., Path]:
    """Write samples (samples,) or (samples, channels) to a sound file in the test's folder and return its path."""

    def write(
        wave: np.ndarray, rate: int = 16_000, name: str = "clip.wav", subtype: str | None = "FLOAT", **options: str
    ) -> Path:
        path = tmp_path / name
        soundfile.write(path, wave, rate, subtype=subtype, **options)
        return path

    return write


@pytest.fixture(scope="session")
def sweep() -> np.ndarray:
    """Two seconds at 16 kHz of a chirp from 200 to 6000 Hz over a noise floor, float32, peak .5."""
    time_s = np.arange(32_000) / 16_000
    noise = 0.01 * np.random.default_rng(0).standard_normal(time_s.size)
    return (0.45 * np.sin(2 * np.pi * (200 * time_s + 1450 * time_s**2)) + noise).astype(np.float32)
