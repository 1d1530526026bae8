"""Say how frames lie in a waveform, and cut examples from them, also while it is read in blocks.

Used by the front ends and by `relax_quantus.recordings`. `Framing` says where frames lie; samples
in blocks enter a `FrameReader` and the frames of any stretch leave, the same as of the whole
recording; `cut` makes examples of frames, which overlap by choice (`hop_frames`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.errors import ShapeError

KNOWN = ("Spectrogram", "MelSpectrogram", "MelScale", "MFCC", "LFCC", "AmplitudeToDB", "Sequential")
"""Modules of torchaudio that make a frame of what lies around it."""
Wave = npt.NDArray[np.float32]


def hop_frames(hop_s: float | None, frame_s: float, frames: int) -> int:
    """Count the frames from the beginning of one example to that of the next.

    Parameters
    ----------
    hop_s
        Seconds from one beginning to the next, rounded to whole frames; None for the example's own
        length: no overlap.
    frame_s
        Seconds from one frame to the next.
    frames
        Frames T of an example.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If it is not from one frame to one example.

    Examples
    --------
    >>> hop_frames(0.48, 0.01, 96), hop_frames(None, 0.01, 96)
    (48, 96)
    """
    if hop_s is None:
        return frames
    hop = round(checks.positive("hop_s", hop_s) / frame_s)
    if not 1 <= hop <= frames:
        rule = f"from {frame_s:.4g} (a frame) to {frames * frame_s:.4g} s (an example)"
        checks.refuse("hop_s", rule, repr(hop_s), "a longer one would leave gaps" if hop else "lengthen it")
    return hop


def cut(frames: Tensor, per_example: int, hop: int) -> Tensor:
    """Cut frames ``(frames, F)`` of one recording into examples ``(n, 1, T, F)``.

    They begin `hop` frames apart; a partial last one is dropped.

    Raises
    ------
    ShapeError
        If `frames` has another number of axes.

    Examples
    --------
    >>> import torch
    >>> cut(torch.zeros(240, 64), 96, 48).shape
    torch.Size([4, 1, 96, 64])
    """
    per_example, hop = checks.integer("per_example", per_example), checks.integer("hop", hop)
    if frames.ndim != 2:
        checks.refuse("frames", "shape (frames, F)", frames, "pass those of one recording", ShapeError)
    if len(frames) < per_example:
        return frames.new_zeros(0, 1, per_example, frames.shape[1])
    return frames.unfold(0, per_example, hop).transpose(1, 2)[:, None].contiguous()


class Sliding:
    """Look at a long array that comes in blocks along its first axis, through a moving window.

    The window never moves back; what lies before it is forgotten.

    Parameters
    ----------
    blocks
        Arrays ``(n, ...)``, all of the same further axes.

    Examples
    --------
    >>> window = Sliding([np.arange(3), np.arange(3, 6)])
    >>> window.take(1, 4), window.take(2, 9)
    (array([1, 2, 3]), array([2, 3, 4, 5]))
    """

    def __init__(self, blocks: Iterable[npt.NDArray[Any]]) -> None:
        self._blocks = iter(blocks)
        self._kept: list[npt.NDArray[Any]] = []
        self._first = self._end = 0

    def take(self, first: int, last: int) -> npt.NDArray[Any]:
        """Return the rows `first` to before `last`, or to the end.

        At least one block has to have come.
        """
        while self._end < last:
            block = next(self._blocks, None)
            if block is None:
                break
            self._kept.append(block)
            self._end += len(block)
            while len(self._kept) > 1 and self._first + len(self._kept[0]) <= first:
                self._first += len(self._kept.pop(0))
        whole = self._kept[0] if len(self._kept) == 1 else np.concatenate(self._kept)
        rest = whole[min(max(first - self._first, 0), len(whole)) :]
        self._first, self._kept = self._end - len(rest), [rest]
        return rest[: max(0, last - self._first)]


@dataclass(frozen=True)
class Framing:
    """Say how frames lie on a grid.

    Attributes
    ----------
    frames
        Waveform ``(samples,)`` -> ``(frames, F)``; of a stretch that begins on the grid, the same
        but for what `context` spoils.
    hop_samples
        Samples from one frame to the next.
    per_example
        Frames T of an example.
    window_samples
        Samples that a recording needs for its first frame: 0 where frames are centred and the ends
        of the recording are mirrored.
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
        """Number of samples that one example needs."""
        return self.window_samples + (self.per_example - 1) * self.hop_samples

    def count(self, samples: int) -> int:
        """Count the frames of a recording."""
        return 0 if samples < self.window_samples else 1 + (samples - self.window_samples) // self.hop_samples


class FrameReader:
    """Make the frames of a recording that comes in blocks, stretch by stretch, never back.

    Parameters
    ----------
    blocks
        Samples ``(n,)``, one after another.
    framing
        How frames lie in these samples.
    padding
        Samples of silence that follow the last block.
    """

    def __init__(self, blocks: Iterable[Wave], framing: Framing, padding: int = 0) -> None:
        self.framing = framing
        self._wave = Sliding(_followed(blocks, padding))

    def take(self, first: int, count: int) -> Tensor:
        """Make the frames ``(count, F)`` from `first` on; fewer where the recording ends."""
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


def framing_of_transform(front_end: Any, spectral: Any) -> Framing | str:
    """Say how the frames of a `TransformFrontEnd` lie, or why they cannot be had in blocks.

    Only of torchaudio's transforms is it known.

    Parameters
    ----------
    front_end
        The whole front end.
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
