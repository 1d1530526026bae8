"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from relax_quantus.audio import reading
from relax_quantus.encoders import ENCODERS
from relax_quantus.relax import execution
from relax_quantus.relax.attribution import RELAX
from relax_quantus.relax.explanation import Explanation

collect_ignore_glob = ["*conftest.py"]
"""They are loaded, and have no examples in docstrings to be collected for."""
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
    """Write samples (samples,) or (samples, channels) to
    a sound file in the test's folder and return its path.
    """

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


@pytest.fixture(scope="session")
def hears_a_corner() -> Explanation:
    """Of a network that hears frames 20 to 49 and bands 10
    to 29 of an example, in two of them; chance is known.
    """

    def encoder(x: Tensor) -> Tensor:
        heard = x[..., 20:50, 10:30].mean((1, 2, 3))
        return torch.stack([heard, torch.full_like(heard, 0.5)], 1)

    relax = RELAX(encoder, masks="random")
    found = relax.explain(torch.ones(2, 1, 96, 64), torch.zeros(1), n_samples=150, null=True)
    assert isinstance(found, Explanation)
    return found


@pytest.fixture
def clip(write_wav: Callable[..., Path], sweep: np.ndarray) -> Path:
    """A second and a half of the sweep as a file."""
    return write_wav(sweep[:24_000], name="clip.wav")


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tone(write_wav: Callable[..., Path]) -> Callable[..., Path]:
    """Write a recording of a tone over noise."""

    def write(name: str = "tone.wav", hz: float = 1000.0, seconds: float = 1.0, **options: object) -> Path:
        time_s = np.arange(round(16_000 * seconds)) / 16_000
        noise = np.random.default_rng(int(hz)).standard_normal(time_s.size)
        wave = (0.3 * np.sin(2 * np.pi * hz * time_s) + 0.01 * noise).astype(np.float32)
        Path(write_wav(np.ones(1, np.float32), name="x.wav").parent, name).parent.mkdir(parents=True, exist_ok=True)
        return write_wav(wave, name=name, **options)

    return write


@pytest.fixture
def classes(tone: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder with one folder a class, two recordings in each."""
    for label, hz in (("high", 4000.0), ("low", 300.0)):
        for i in range(2):
            tone(f"set/{label}/{i}.wav", hz + 50 * i)
    return tmp_path / "set"


class Odd(nn.Module):
    """An encoder that returns what a function makes of flattened examples."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        return self.make(x.flatten(1)[:, ::64])


@pytest.fixture
def odd_encoder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Tensor], Tensor]], str]:
    """Register an encoder for one test."""

    def register(make: Callable[[Tensor], Tensor]) -> str:
        monkeypatch.setitem(ENCODERS._factories, "odd", (lambda: Odd(make), ""))
        return "odd"

    return register


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a thousand samples at a time."""
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", 1000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], None]:
    """Replace measured seconds by a function of the rows of the forward."""

    def install(seconds: Callable[[int], float]) -> None:
        def timed(run: Callable[[], Any], device: torch.device) -> float:
            return seconds(len(run()))

        monkeypatch.setattr(execution, "clock", timed)

    return install


@pytest.fixture
def few_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Banks of 2^11 states, enough for so few cells."""
    monkeypatch.setattr("relax_quantus.relax.estimators.surrogate.FEWEST_STATES", 1 << 11)
