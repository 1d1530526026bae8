"""Frames read stretch by stretch are those of the whole recording."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from relax_quantus.frontend.framing import FrameReader, Framing, framing_of_transform
from relax_quantus.frontend.log_mel import LogMel, framing_of_log_mel
from relax_quantus.frontend.transform import TransformFrontEnd


class Spectrogram(nn.Module):
    """What torchaudio's is: centred frames, the ends of the waveform mirrored."""

    def __init__(self, n_fft: int = 400, hop_length: int = 160) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.pad, self.center = n_fft, hop_length, 0, True

    def forward(self, wave: Tensor) -> Tensor:
        window = torch.hann_window(self.n_fft)
        found = torch.stft(wave, self.n_fft, self.hop_length, window=window, center=True, return_complex=True)
        return found.abs()


class Compressed(nn.Module):
    """Something that looks at the whole."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.max()


def of(transform: nn.Module, frames: int | None = 96) -> Framing | str:
    front_end = TransformFrontEnd(transform, log_offset=0.01, frames=frames)
    spectral = next((m for m in transform.modules() if hasattr(m, "n_fft")), None)
    return framing_of_transform(front_end, spectral)


def known(framing: Framing | str) -> Framing:
    assert isinstance(framing, Framing), framing
    return framing


@pytest.mark.parametrize(
    "framing",
    [
        framing_of_log_mel(LogMel()),
        known(of(Spectrogram())),
        known(of(Spectrogram(1024, 100))),
        known(of(Spectrogram(64, 200))),
    ],
)
@pytest.mark.parametrize("blocks", [1, 7, 40])
def test_stretches_are_those_of_the_whole(framing: Framing, blocks: int) -> None:
    wave = np.random.default_rng(0).standard_normal(52_317).astype(np.float32)
    whole = framing.frames(wave)
    assert len(whole) == framing.count(wave.size)
    reader = FrameReader(np.array_split(wave, blocks), framing)
    for first, count in ((0, 50), (3, 40), (30, 96), (100, 60), (101, 500)):
        found = reader.take(first, count)
        torch.testing.assert_close(found, whole[first : first + count], rtol=1e-5, atol=1e-5)


def test_log_mel_stretches_are_exact() -> None:
    framing = framing_of_log_mel(LogMel())
    wave = np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    assert torch.equal(FrameReader([wave], framing).take(10, 96), framing.frames(wave)[10:106])


def test_padding_follows_the_last_block() -> None:
    framing = framing_of_log_mel(LogMel())
    wave = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    padding = framing.example_samples - wave.size
    found = FrameReader(np.array_split(wave, 3), framing, padding).take(0, 96)
    assert torch.equal(found, LogMel()(np.pad(wave, (0, padding)))[0, 0])


@pytest.mark.parametrize(
    ("transform", "frames", "reason"),
    [
        (Spectrogram(), None, "one example of the whole recording"),
        (nn.Unflatten(1, (64, -1)), 96, "how its frames lie"),
        (nn.Sequential(Spectrogram(), Compressed()), 96, "Compressed"),
    ],
)
def test_others_say_why_not(transform: nn.Module, frames: int | None, reason: str) -> None:
    framing = of(transform, frames)
    assert isinstance(framing, str)
    assert reason in framing


@pytest.mark.parametrize(
    ("attribute", "value", "reason"), [("top_db", 80.0, "loudest"), ("pad", 3, "pad"), ("center", False, "centred")]
)
def test_settings_that_depend_on_the_rest_are_refused(attribute: str, value: Any, reason: str) -> None:
    transform = Spectrogram()
    setattr(transform, attribute, value)
    framing = of(transform)
    assert isinstance(framing, str)
    assert reason in framing
