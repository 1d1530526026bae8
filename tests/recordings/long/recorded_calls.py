"""Recordings of any length with calls at known times, an encoder of them, and `explain` on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from typer.testing import CliRunner, Result

from relax_quantus.cli import main as cli

FEW = ("--masks", "time", "--n-samples", "8")
RATE = 16_000
ENCODER = '''
import time
import torch
from torch import nn
from torch.nn import functional

class Cheap(nn.Module):
    """Loudness in coarse cells; as slow as it is told to be."""

    slow_s = {slow_s}

    def forward(self, x):
        time.sleep(self.slow_s)
        return functional.avg_pool2d(x.exp(), (8, 16)).flatten(1)

network = Cheap()
'''


def recording(path: Path, seconds: float, every_s: float = 13.7) -> tuple[Path, np.ndarray]:
    """Noise with a chirp of 0.4 s every so often; returns
    the path and when they begin. Written a second at a time.
    """
    generator, begins = np.random.default_rng(1), np.arange(3.3, seconds - 1, every_s)
    t = np.arange(round(0.4 * RATE)) / RATE
    call = 0.3 * np.sin(2 * np.pi * (1500 * t + 800 * t**2)) * np.hanning(t.size)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as target:
        for begin_s in np.arange(0, seconds, 10.0):
            wave = 0.003 * generator.standard_normal(round(min(10.0, seconds - begin_s) * RATE) + t.size)
            for at_s in begins[(begins > begin_s - 0.4) & (begins < begin_s + 10)]:
                at = round((at_s - begin_s) * RATE)
                part = slice(max(at, 0), min(at + t.size, wave.size))
                wave[part] += call[part.start - at : part.stop - at]
            target.write(wave[: wave.size - t.size])
    return path, begins


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["explain", *(str(a) for a in arguments)])


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
