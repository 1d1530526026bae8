"""Frames of a recording -> examples that overlap by choice: where each begins, how a hop in seconds becomes whole frames, what is kept of a
recording that is read in blocks.

A leaf at the start of the flow, used by the front ends and by what puts maps together again (`relax_quantus.recordings.stitching`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.errors import ShapeError


def hop_frames(hop_s: float | None, frame_s: float, frames: int) -> int:
    """Frames from the beginning of one example to that of the next.

    Parameters
    ----------
    hop_s
        In seconds, rounded to whole frames; None for the example's own length: no overlap.
    frame_s
        Seconds from one frame to the next.
    frames
        Of an example.

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
    """Cut the frames ``(frames, F)`` of one recording into examples ``(n, 1, T, F)``, `hop` frames apart; a partial last one is dropped.

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
    """A long array that comes in blocks along its first axis, seen through a window that never moves back; forgets what lies before it.

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
        """Rows `first` to before `last`, or to the end; at least one block has to have come."""
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
