"""What the axes of spectrograms and waveforms stand for: frames and bands of a front end -> seconds and Hz.

Imports no matplotlib. `Axis` is that of a log-mel front end, `BinAxis` that of any other spectrogram, `SampleAxis` that of a
waveform. What a frame's time is, the front end knows (`relax_quantus.frontend.frame_times` asks it); where nobody does, frames are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from relax_quantus.audio.reading import SAMPLE_RATE_HZ
from relax_quantus.frontend.log_mel import SECONDS, Axis, Image, LogMel, hz_to_mel, within
from relax_quantus.frontend.ticks import ticks_hz

__all__ = ["COUNTED", "SECONDS", "Axis", "BinAxis", "Image", "SampleAxis", "axis_of", "mel_centres_hz", "ticks_hz"]

COUNTED = "frame"
"""Label of a time axis whose frames are only counted."""


@dataclass(frozen=True)
class BinAxis(Axis):
    """Axes of any spectrogram.

    Parameters
    ----------
    every_s
        Seconds from one frame to the next.
    size
        Number of bands F.
    bins_hz
        Centre of each band in Hz, rising; empty where bands are no frequencies (cepstra), which are then counted.
    label, value_label, heading
        Of the band axis, of the values, and above the spectrogram.
    first_s
        Middle of the first frame's window in seconds: 0 where the first window is centred on the first sample.
    window_s
        Seconds that one frame sees; 0 if unknown.
    time_label
        ``"time (s)"``; or ``"frame"`` where nobody knows when frames are, which are then counted, `every_s` being 1.
    example_frames, example_s
        Where examples are cut from the sound and each makes its own frames: frames of an example, and seconds from the beginning of one example to
        that of the next, which need not be as many hops. 0 if frames run on from one example to the next.
    """

    every_s: float = 1.0
    size: int = 1
    bins_hz: tuple[float, ...] = ()
    label: str = "frequency (Hz)"
    value_label: str = "value"
    heading: str = "spectrogram"
    first_s: float = 0.0
    window_s: float = 0.0
    time_label: str = SECONDS
    example_frames: int = 0
    example_s: float = 0.0

    _rounding = 0.5

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next; where each example makes its own frames, on average."""
        return self.example_s / self.example_frames if self.example_frames else self.every_s

    @property
    def bands(self) -> int:
        """Number of bands F."""
        return self.size

    @property
    def centres_hz(self) -> Image | None:
        """Centre of each band in Hz, shape (F,); None where bands are no frequencies."""
        return np.asarray(self.bins_hz) if self.bins_hz else None

    def times_s(self, frames: int) -> Image:
        """Centre of each frame's analysis window, shape (frames,), in seconds, or the frames' numbers where they are counted."""
        if not self.example_frames:
            return super().times_s(frames)
        example, frame = np.divmod(np.arange(frames), self.example_frames)
        return np.asarray(self.start_s + self.first_s + example * self.example_s + frame * self.every_s)

    def band_of_hz(self, hz: npt.ArrayLike) -> Image:
        """Position on the band axis of frequencies in Hz, linear between the bands' centres."""
        return np.interp(np.asarray(hz, dtype=np.float64), self.bins_hz, np.arange(self.size))

    def bands_of_hz(self, low_hz: float, high_hz: float) -> npt.NDArray[np.int64]:
        """Bands whose middle lies between two frequencies, as of a log-mel's; all where bands are no frequencies."""
        middles = self.centres_hz
        if middles is None or middles.size < 2:
            return np.arange(self.size)
        if high_hz < 2 * middles[0] - middles[1] or low_hz > 2 * middles[-1] - middles[-2]:
            return np.zeros(0, np.int64)
        return within(middles, low_hz, min(high_hz, float(middles[-1])))

    def ticks(self) -> tuple[Sequence[float], Sequence[str]]:
        """Frequencies that lie far enough apart to be read, or every so many bands."""
        if not self.bins_hz:
            step = max(1, self.size // 5)
            return [float(i) for i in range(0, self.size, step)], [str(i) for i in range(0, self.size, step)]
        shown = ticks_hz(self.bins_hz[0], self.bins_hz[-1], lambda hz: float(self.band_of_hz(hz)), self.size)
        return [float(self.band_of_hz(hz)) for hz in shown], [str(hz) for hz in shown]


@dataclass(frozen=True)
class SampleAxis(Axis):
    """The time axis of waveforms ``(n, samples)`` at `rate_hz`."""

    dimensions = 1

    rate_hz: int = SAMPLE_RATE_HZ

    @property
    def hop_s(self) -> float:
        """Seconds from one sample to the next."""
        return 1.0 / self.rate_hz

    @property
    def window_s(self) -> float:
        """0: a sample is at its own time."""
        return 0.0

    def end_s(self, frames: int) -> float:
        """Where so many samples end, in seconds."""
        return self.start_s + frames * self.hop_s

    @property
    def centres_hz(self) -> Image | None:
        """None: a waveform has no bands."""
        return None


def axis_of(examples: Any, given: Axis | LogMel | None = None, bands: int | None = None) -> Axis:
    """Find what the axes of examples or maps stand for; nothing is told by shape alone.

    Parameters
    ----------
    examples
        Tensor or array ``(..., T, F)``.
    given
        What the caller says: an axis, or the `LogMel` that made them. None for that of `examples` if they are
        `relax_quantus.frontend.Examples`; else frames and bands are counted.
    bands
        Number of bands F, if not that of `examples`.

    Examples
    --------
    >>> axis_of(np.zeros((1, 1, 9, 4))).time_label, axis_of(np.zeros((1, 1, 9, 64)), LogMel()).time_label
    ('frame', 'time (s)')
    """
    if isinstance(given, LogMel):
        return Axis(given.config)
    found = given if given is not None else getattr(examples, "axis", None)
    if isinstance(found, Axis):
        return found
    size = int(np.shape(examples)[-1]) if bands is None else bands
    return BinAxis(every_s=1.0, size=size, label="band", time_label=COUNTED)


def mel_centres_hz(low_hz: float, high_hz: float, bands: int, scale: str = "htk") -> tuple[float, ...]:
    """Centres of mel bands in Hz on the ``"htk"`` or ``"slaney"`` scale, as `torchaudio.functional.melscale_fbanks` places them.

    Examples
    --------
    >>> [round(hz) for hz in mel_centres_hz(0, 3000, 3, "slaney")]
    [516, 1034, 1761]
    """
    if scale == "htk":
        edges = 700.0 * np.expm1(np.linspace(hz_to_mel(low_hz), hz_to_mel(high_hz), bands + 2) / 1127.0)
    else:
        step = np.log(6.4) / 27.0
        low, high = (hz * 3 / 200 if hz < 1000 else 15 + np.log(hz / 1000) / step for hz in (low_hz, high_hz))
        mel = np.linspace(low, high, bands + 2)
        edges = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(step * (mel - 15)))
    return tuple(float(hz) for hz in edges[1:-1])


def duration(seconds: float) -> str:
    """Write seconds as messages show them.

    Examples
    --------
    >>> duration(0.96), duration(2.0)
    ('0.96', '2')
    """
    return f"{seconds:.3g}" if math.isfinite(seconds) else "unknown"


torch.serialization.add_safe_globals([BinAxis, SampleAxis])  # parts of saved `Examples`
