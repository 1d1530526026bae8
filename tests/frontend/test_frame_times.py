"""When frames are: clicks tell it of front ends that
do not, and where they cannot, nobody claims to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.frontend.frame_times import FrameTimes, confirmed, measure

RATE = 16_000
Make = Callable[[np.ndarray], Tensor]


def stft(wave: Any, window: int, hop: int, *, centred: bool, win_length: int | None = None, pad: int = 0) -> Tensor:
    """Magnitudes ``(frames, F)``."""
    padded = nn.functional.pad(torch.as_tensor(wave), (pad, pad))
    shape = torch.hann_window(win_length or window)
    found = torch.stft(padded, window, hop, win_length or window, shape, center=centred, return_complex=True)
    return found.abs().T


def examples(frames: Tensor, per_example: int) -> Tensor:
    count = len(frames) // per_example
    return frames[: count * per_example].reshape(count, 1, per_example, -1)


def found(make: Make) -> FrameTimes:
    times = measure(make, RATE)
    assert isinstance(times, FrameTimes), times
    return times


@pytest.mark.parametrize(
    ("window", "hop", "options", "first"),
    [
        (400, 160, {"centred": True}, 0),
        (512, 160, {"centred": False}, 256),
        (1024, 200, {"centred": False, "win_length": 400}, 512),
        (512, 160, {"centred": True, "pad": 800}, -800),
        (2048, 700, {"centred": False, "pad": 300}, 724),
        (256, 320, {"centred": False}, 128),
    ],
)
@pytest.mark.parametrize("offset", [None, 0.01])
def test_window_padding_and_centring_are_found(
    window: int, hop: int, options: dict[str, Any], first: int, offset: float | None
) -> None:
    def make(wave: np.ndarray) -> Tensor:
        x = stft(wave, window, hop, **options)
        return examples(x if offset is None else (x + offset).log(), 37)

    times = found(make)
    assert times.every_s * RATE == pytest.approx(hop, abs=1e-6)
    assert times.first_s * RATE == pytest.approx(first, abs=max(2.0, 0.02 * hop))
    assert times.example_frames == 0


def test_frames_of_every_example_alone_are_where_their_example_is() -> None:
    """A second a piece, centred: 101 frames, which are no second end to end."""

    def make(wave: np.ndarray) -> Tensor:
        pieces = torch.as_tensor(wave)[: wave.size // RATE * RATE].reshape(-1, RATE)
        return torch.stack([(stft(p, 512, 160, centred=True) + 1e-4).log() for p in pieces])[:, None]

    times = found(make)
    assert (times.example_frames, times.example_s) == (101, pytest.approx(1.0, abs=1e-6))
    np.testing.assert_allclose(times.at([0, 100, 101, 25 * 101 + 7]), [0, 1, 1, 25.07], atol=1e-3)


@pytest.mark.parametrize("name", ["whole clip", "each example", "each clip's decibels"])
def test_normalisation_does_not_move_frames(name: str) -> None:
    def make(wave: np.ndarray) -> Tensor:
        x = stft(wave, 512, 160, centred=True)
        if name == "whole clip":
            return examples((x / x.max() + 1e-8).log(), 50)
        if name == "each example":
            y = examples((x + 1e-3).log(), 50)
            return (y - y.mean((2, 3), keepdim=True)) / y.std((2, 3), keepdim=True)
        decibels = 20 * x.clamp(min=1e-5).log10()
        return examples(decibels.clamp(min=float(decibels.max()) - 80), 50)

    times = found(make)
    assert (times.every_s, times.first_s) == (0.01, 0.0)


def test_own_frames_are_those_of_log_mel() -> None:
    module = rq.LogMel()
    times = found(lambda wave: module(wave))
    assert times.every_s == 0.01
    assert times.first_s == pytest.approx(0.0125, abs=2e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda wave: torch.rand(2, 1, 50, 8, generator=torch.Generator().manual_seed(wave.size)),
        lambda wave: nn.functional.adaptive_avg_pool2d(
            rq.LogMel().frames(torch.as_tensor(wave))[None, None], (300, 64)
        ),
        lambda wave: torch.as_tensor(wave[: wave.size // 8000 * 8000]).reshape(1, 1, -1, 8000)[..., :40].abs(),
        lambda wave: torch.zeros(1, 1, wave.size // 160, 5),
        lambda wave: {}[wave.size],
    ],
    ids=["chance", "stretched", "deaf between windows", "deaf", "broken"],
)
def test_what_clicks_cannot_tell_is_not_claimed(make: Make) -> None:
    assert isinstance(measure(make, RATE), str)


def test_tones_confirm_bands_or_refute_them() -> None:
    def make(wave: np.ndarray) -> Tensor:
        return examples(stft(wave, 512, 160, centred=True), 40)

    right = np.linspace(0, 8000, 257).tolist()
    assert confirmed(make, RATE, right)
    assert not confirmed(make, RATE, np.linspace(0, 4000, 257).tolist())
    assert not confirmed(lambda wave: make(wave).flip(-1), RATE, right)
    assert not confirmed(make, RATE, [])
