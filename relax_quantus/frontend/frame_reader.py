"""How a front end's frames lie in the waveform, which is what a recording of any length has to know to be read in blocks.

Beside `relax_quantus.frontend.front_end`, whose front ends read a recording as a whole: samples in blocks enter, the frames of any stretch leave,
the same as of the whole recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.frontend.framing import Sliding

KNOWN = ("Spectrogram", "MelSpectrogram", "MelScale", "MFCC", "LFCC", "AmplitudeToDB", "Sequential")
"""Modules of torchaudio that make a frame of what lies around it."""
Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Framing:
    """Frames on a grid.

    Attributes
    ----------
    frames
        Waveform ``(samples,)`` -> ``(frames, F)``; of a stretch that begins on the grid, the same but for what `context` spoils.
    hop_samples
        From one frame to the next.
    per_example
        Frames T of an example.
    window_samples
        That a recording needs for its first frame: 0 where frames are centred and the ends of the recording are mirrored.
    context
        Samples that a frame sees before its place on the grid, and after it.
    """

    frames: Callable[[Wave], Tensor]
    hop_samples: int
    per_example: int
    window_samples: int
    context: tuple[int, int]

    @property
    def example_samples(self) -> int:
        """That one example needs."""
        return self.window_samples + (self.per_example - 1) * self.hop_samples

    def count(self, samples: int) -> int:
        """Frames of a recording."""
        return 0 if samples < self.window_samples else 1 + (samples - self.window_samples) // self.hop_samples


class FrameReader:
    """The frames of a recording that comes in blocks, stretch by stretch, never back.

    Parameters
    ----------
    blocks
        Samples ``(n,)``, one after another.
    framing
        How frames lie in them.
    padding
        Samples of silence that follow the last block.
    """

    def __init__(self, blocks: Iterable[Wave], framing: Framing, padding: int = 0) -> None:
        self.framing = framing
        self._wave = Sliding(_followed(blocks, padding))

    def take(self, first: int, count: int) -> Tensor:
        """Frames ``(count, F)`` from `first` on; fewer where the recording ends."""
        framing = self.framing
        before, after = framing.context
        skipped = min(first, -(-before // framing.hop_samples))
        start = (first - skipped) * framing.hop_samples
        wave = self._wave.take(start, (first + count - 1) * framing.hop_samples + after + 1)
        with torch.inference_mode(False), torch.no_grad():
            return framing.frames(np.ascontiguousarray(wave))[skipped : skipped + count]


def _followed(blocks: Iterable[Wave], padding: int) -> Iterable[Wave]:
    yield from blocks
    if padding:
        yield np.zeros(padding, np.float32)


def framing_of_log_mel(module: Any) -> Framing:
    """VGGish's frames: each sees the window that begins at its place on the grid."""
    config = module.config

    def frames(wave: Wave) -> Tensor:
        made: Tensor = module.frames(torch.from_numpy(wave))
        return made

    return Framing(frames, config.hop_samples, config.frames, config.window_samples, (0, config.window_samples))


def framing_of_transform(front_end: Any, spectral: Any) -> Framing | str:
    """The frames of a `TransformFrontEnd` of torchaudio's transforms, or why they cannot be had in blocks.

    Parameters
    ----------
    front_end
        The whole.
    spectral
        Its part that knows ``hop_length`` and ``n_fft``, or None.
    """
    if front_end.frames is None:
        return "it makes one example of the whole recording"
    if spectral is None:
        return "nothing is known of how its frames lie in the samples"
    parts = list(front_end.transform.modules())
    if any(getattr(part, "top_db", None) is not None for part in parts):
        return "its decibels depend on the loudest moment of the whole recording (top_db)"
    other = [type(part).__name__ for part in parts if type(part).__name__ not in KNOWN]
    if other:
        return f"nothing is known of how the frames of {', '.join(other)} depend on the rest of the recording"
    if any(getattr(part, "pad", 0) != 0 or getattr(part, "center", True) is not True for part in parts):
        return "only centred frames without pad are known to lie on a grid"
    reach = int(spectral.n_fft) // 2

    def frames(wave: Wave) -> Tensor:
        made: Tensor = front_end.spectrogram(wave)[0]
        return made

    return Framing(frames, int(spectral.hop_length), int(front_end.frames), 0, (reach, reach))
