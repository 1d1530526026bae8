"""`relax_quantus.views.sounds` for recordings of any length: read, split and written a few seconds at a time.

A leaf of the flow beside the pictures: a recording and the gains of its frames, in parts, enter; two sound files leave, the same as
`relax_quantus.views.sounds.separate` gives of the whole. Memory does not grow with the recording.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from relax_quantus.audio.decoding import Recording
from relax_quantus.audio.reading import waveform_blocks
from relax_quantus.frontend.axes import Axis, Image
from relax_quantus.frontend.framing import Sliding
from relax_quantus.views.sounds import OVERLAP, WINDOW_S, Parts, full_scale, peak, separate, sound_file

CHUNK_S = 20.0


def write_separated(
    recording: str | os.PathLike[str],
    kept: str | os.PathLike[str],
    removed: str | os.PathLike[str],
    gains: Iterable[Image],
    frames: int,
    axis: Axis | None = None,
) -> float:
    """Write what gains keep of a recording and what they remove, at its own rate, with 24 bits; return the scale of both.

    That is 1 unless a sample of either passes full scale, as for `relax_quantus.views.sounds.write_parts`; then all is done once more.

    Parameters
    ----------
    recording
        Any file that libsndfile reads.
    kept, removed
        Files to write; names end in .flac or .wav.
    gains
        ``(rows, F)`` in [0, 1], frame after frame from the recording's beginning, `frames` rows in all. Of an iterator, which can be gone
        through only once, all is kept in memory.
    axis
        What the gains' axes stand for; VGGish's front end from 0 s by default.

    Raises
    ------
    RelaxQuantusError
        As `separate` and `relax_quantus.read_audio`.
    OSError
        If a file cannot be written.
    """
    axis = axis or Axis()
    with Recording(recording) as opened:
        rate_hz = opened.rate_hz
    gains = list(gains) if isinstance(gains, Iterator) else gains
    scale = 1.0
    for _ in range(2):
        with (
            sound_file(kept, rate_hz, scale=scale) as kept_file,
            sound_file(removed, rate_hz, scale=scale) as removed_file,
        ):
            largest = 0.0
            for parts in _separated(recording, rate_hz, gains, frames, axis):
                largest = max(largest, peak(parts.kept), peak(parts.removed))
                kept_file.write(scale * parts.kept)
                removed_file.write(scale * parts.removed)
        if scale == full_scale(largest):
            break
        scale = full_scale(largest)
    return scale


def _separated(
    recording: str | os.PathLike[str], rate_hz: int, gains: Iterable[Image], frames: int, axis: Axis
) -> Iterator[Parts]:
    """Both parts, a few seconds after another."""
    margin = OVERLAP * max(1, round(WINDOW_S * rate_hz / OVERLAP))
    step = margin * max(1, round(CHUNK_S * rate_hz / margin))
    wave, rows = Sliding(waveform_blocks(recording, None)), Sliding(gains)
    start = 0
    while True:
        first = max(0, start - margin)
        heard = wave.take(first, start + step + margin)
        if first + len(heard) <= start:
            return
        begin, end = _frames_of(first / rate_hz, (first + len(heard)) / rate_hz, frames, axis)
        here = replace(axis, start_s=axis.start_s + begin * axis.hop_s - first / rate_hz)
        image = rows.take(begin, end)
        parts = separate(heard, rate_hz, image[None, None], here)
        inner = slice(start - first, start - first + step)
        yield Parts(parts.kept[inner], parts.removed[inner], rate_hz)
        start += step


def _frames_of(begin_s: float, end_s: float, frames: int, axis: Axis) -> tuple[int, int]:
    """First frame, and the one after the last, that have a say in what is heard in between: at least one, the nearest."""
    reach = math.ceil((axis.window_s / 2 + WINDOW_S) / axis.hop_s) + 2
    begin, end = (math.floor((second - float(axis.times_s(1)[0])) / axis.hop_s) for second in (begin_s, end_s))
    begin = min(max(begin - reach, 0), frames - 1)
    return begin, min(max(end + reach, begin + 1), frames)
