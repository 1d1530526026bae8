"""Say what the axes of spectrograms and waveforms stand for: frames and bands -> seconds and Hz.

`Axis` is what pictures, boxes and sounds ask; each kind of front end has its own:
`relax_quantus.frontend.log_mel.LogMelAxis`, `BinAxis` for any other spectrogram, `SampleAxis` for
waveforms. What a frame's time is, the front end knows (`relax_quantus.frontend.frame_times` asks
it); where nobody does, frames are counted. Imports no matplotlib.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from relax_quantus.audio.reading import SAMPLE_RATE_HZ

SECONDS = "time (s)"
"""Label of a time axis in seconds."""
COUNTED = "frame"
"""Label of a time axis whose frames are only counted."""
TICKS_HZ = (250, 500, 1000, 2000, 4000, 7000)
HIGH_TICKS_HZ = (10_000, 15_000, 20_000, 30_000, 40_000, 60_000, 80_000, 100_000, 120_000, 150_000, 200_000)
FEWEST_TICKS = 3
"""Where the lists above give fewer, ticks are at round steps."""
LEAST_GAP = 0.06
"""Least distance of two ticks, as a share of the axis."""
Image = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Axis(ABC):
    """Tell when frames are, in seconds, and where bands are, in Hz.

    Parameters
    ----------
    start_s
        Where the first example starts, in seconds.
    """

    start_s: float = field(default=0.0, kw_only=True)

    label = "frequency (Hz)"
    time_label = SECONDS
    heading = "spectrogram"
    dimensions = 2
    """Last axes that it is about: time and bands, of waveforms time alone."""

    @property
    @abstractmethod
    def value_label(self) -> str:
        """Label of the values."""

    @property
    @abstractmethod
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""

    @property
    @abstractmethod
    def window_s(self) -> float:
        """Seconds that one frame sees."""

    @property
    @abstractmethod
    def first_s(self) -> float:
        """Middle of the first frame's window in seconds from the beginning of the waveform."""

    @property
    @abstractmethod
    def bands(self) -> int:
        """Number of bands F."""

    @property
    @abstractmethod
    def centres_hz(self) -> Image | None:
        """Centre of each band in Hz, shape (F,); None where bands are no frequencies."""

    @abstractmethod
    def band_of_hz(self, hz: npt.ArrayLike) -> Image:
        """Return the position of frequencies in Hz on the band axis.

        0 is the lowest band's centre.
        """

    @abstractmethod
    def bands_of_hz(self, low_hz: float, high_hz: float) -> npt.NDArray[np.int64]:
        """Return the bands whose middle lies between two frequencies.

        The nearest if none does; none beside the range that is heard.
        """

    @abstractmethod
    def ticks(self) -> tuple[Sequence[float], Sequence[str]]:
        """Choose where to mark the band axis, and with what."""

    @property
    def in_seconds(self) -> bool:
        """Whether times are seconds; otherwise frames are counted."""
        return self.time_label == SECONDS

    def times_s(self, frames: int) -> Image:
        """Return the centre of each frame's analysis window, shape (frames,), in seconds."""
        return np.asarray(self.start_s + self.first_s + self.hop_s * np.arange(frames))

    def end_s(self, frames: int) -> float:
        """Return where in the waveform what so many frames see ends, in seconds."""
        last = float(self.times_s(frames)[-1]) if frames else self.start_s
        return last + max(self.window_s, self.hop_s) / 2

    def extent(self, frames: int) -> tuple[float, float, float, float]:
        """Return left and right in seconds, bottom and top in bands, of an image of so many frames.

        Frame i is drawn from half a hop before to half a hop after its window's middle. Where that
        lets the image begin within a frame of the waveform's beginning, it begins there, so that
        examples join and start at round times: with VGGish's front end 7.5 ms early.
        """
        left = self.first_s - self.hop_s / 2
        left = self.start_s + (0.0 if abs(left) <= self._rounding * self.hop_s * (1 + 1e-9) else left)
        return left, left + frames * self.hop_s, -0.5, self.bands - 0.5

    _rounding = 1.0

    def frames_of_s(self, begin_s: float, end_s: float, frames: int) -> npt.NDArray[np.int64]:
        """Return the frames, of so many, whose middle lies between two seconds.

        The nearest if none does; none after the last.
        """
        times = self.times_s(frames)
        if not frames or begin_s > times[-1] + self.hop_s / 2:
            return np.zeros(0, np.int64)
        return within(times, begin_s, end_s)


class HasAxis(Protocol):
    """Stand for what knows the axes of its examples: `LogMel`, a front end, `Examples`."""

    @property
    def axis(self) -> Axis:
        """What the axes of its examples stand for."""
        ...


@dataclass(frozen=True)
class BinAxis(Axis):
    """Tell when frames are and where bands are of any spectrogram.

    Parameters
    ----------
    every_s
        Seconds from one frame to the next.
    size
        Number of bands F.
    bins_hz
        Centre of each band in Hz, rising; empty where bands are no frequencies (cepstra), which are
        then counted.
    label, value_label, heading
        Texts on the band axis, beside the values, and above the spectrogram.
    first_s
        Middle of the first frame's window in seconds: 0 where the first window is centred on the
        first sample.
    window_s
        Seconds that one frame sees; 0 if unknown.
    time_label
        ``"time (s)"``; or ``"frame"`` where nobody knows when frames are, which are then counted,
        `every_s` being 1.
    example_frames, example_s
        Where examples are cut from the sound and each makes its own frames: frames of an example,
        and seconds from the beginning of one example to that of the next, which need not be as many
        hops. 0 if frames run on from one example to the next.
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
        """Seconds from one frame to the next.

        It is an average where each example makes its own frames.
        """
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
        """Return the centre of each frame's analysis window, shape (frames,), in seconds.

        Frames that are only counted have their numbers instead.
        """
        if not self.example_frames:
            return super().times_s(frames)
        example, frame = np.divmod(np.arange(frames), self.example_frames)
        return np.asarray(self.start_s + self.first_s + example * self.example_s + frame * self.every_s)

    def band_of_hz(self, hz: npt.ArrayLike) -> Image:
        """Return the position of frequencies in Hz, linear between the bands' centres."""
        return np.interp(np.asarray(hz, dtype=np.float64), self.bins_hz, np.arange(self.size))

    def bands_of_hz(self, low_hz: float, high_hz: float) -> npt.NDArray[np.int64]:
        """Return the bands whose middle lies between two frequencies, as those of a log-mel.

        All where bands are no frequencies.
        """
        middles = self.centres_hz
        if middles is None or middles.size < 2:
            return np.arange(self.size)
        if high_hz < 2 * middles[0] - middles[1] or low_hz > 2 * middles[-1] - middles[-2]:
            return np.zeros(0, np.int64)
        return within(middles, low_hz, min(high_hz, float(middles[-1])))

    def ticks(self) -> tuple[Sequence[float], Sequence[str]]:
        """Choose frequencies that lie far enough apart to be read, or every so many bands."""
        if not self.bins_hz:
            step = max(1, self.size // 5)
            return [float(i) for i in range(0, self.size, step)], [str(i) for i in range(0, self.size, step)]
        shown = ticks_hz(self.bins_hz[0], self.bins_hz[-1], lambda hz: float(self.band_of_hz(hz)), self.size)
        return [float(self.band_of_hz(hz)) for hz in shown], [str(hz) for hz in shown]


@dataclass(frozen=True)
class SampleAxis(Axis):
    """Tell when samples are of waveforms ``(n, samples)`` at `rate_hz`; they have no bands."""

    dimensions = 1
    heading = value_label = "waveform"

    rate_hz: int = SAMPLE_RATE_HZ

    @property
    def hop_s(self) -> float:
        """Seconds from one sample to the next."""
        return 1.0 / self.rate_hz

    @property
    def window_s(self) -> float:
        """0: a sample is at its own time."""
        return 0.0

    @property
    def first_s(self) -> float:
        """0: the first sample is at the beginning."""
        return 0.0

    @property
    def bands(self) -> int:
        """1: a waveform has no bands."""
        return 1

    @property
    def centres_hz(self) -> Image | None:
        """None: a waveform has no bands."""
        return None

    def end_s(self, frames: int) -> float:
        """Return where so many samples end, in seconds."""
        return self.start_s + frames * self.hop_s

    def band_of_hz(self, hz: npt.ArrayLike) -> Image:
        """Return 0 for each frequency."""
        return np.zeros(np.shape(hz))

    def bands_of_hz(self, low_hz: float, high_hz: float) -> npt.NDArray[np.int64]:
        """Return 0, which stands for all frequencies."""
        return np.zeros(1, np.int64)

    def ticks(self) -> tuple[Sequence[float], Sequence[str]]:
        """Return no ticks."""
        return [], []


def axis_of(examples: Any, given: Axis | HasAxis | None = None, bands: int | None = None) -> Axis:
    """Find what the axes of examples or maps stand for; nothing is told by shape alone.

    Parameters
    ----------
    examples
        Tensor or array ``(..., T, F)``.
    given
        What the caller says: an axis, or the `LogMel` that made them. None for that of `examples`
        if they are `relax_quantus.frontend.Examples`; else frames and bands are counted.
    bands
        Number of bands F, if not that of `examples`.

    Examples
    --------
    >>> from relax_quantus.frontend.log_mel import LogMel
    >>> axis_of(np.zeros((1, 1, 9, 4))).time_label
    'frame'
    >>> axis_of(np.zeros((1, 1, 9, 64)), LogMel()).time_label
    'time (s)'
    """
    said = examples if given is None else given
    found = said if isinstance(said, Axis) else getattr(said, "axis", None)
    if isinstance(found, Axis):
        return found
    size = int(np.shape(examples)[-1]) if bands is None else bands
    return BinAxis(every_s=1.0, size=size, label="band", time_label=COUNTED)


def within(middles: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.int64]:
    """Return the indices of the middles from `low` to `high`; of the nearest if there is none.

    Examples
    --------
    >>> within(np.array([1.0, 2.0, 4.0]), 1.5, 4.0), within(np.array([1.0, 2.0, 4.0]), 2.2, 2.4)
    (array([1, 2]), array([1]))
    """
    found = np.flatnonzero((middles >= low) & (middles <= high))
    return found if found.size else np.array([int(np.abs(middles - (low + high) / 2).argmin())])


def ticks_hz(low_hz: float, high_hz: float, position: Callable[[float], float], bands: int) -> list[int | float]:
    """Choose frequencies to mark on an axis, far enough apart to be read.

    Parameters
    ----------
    low_hz, high_hz
        Ends of the axis in Hz.
    position
        Frequency in Hz -> place on an axis of length `bands`.
    bands
        Number of bands F.

    Examples
    --------
    >>> ticks_hz(10_000, 120_000, lambda hz: hz / 1000, 120)
    [10000, 20000, 30000, 40000, 60000, 80000, 100000, 120000]
    >>> ticks_hz(3000, 3900, lambda hz: hz / 10, 90)
    [3000, 3200, 3400, 3600, 3800]
    """
    found = _apart([hz for hz in (*TICKS_HZ, *HIGH_TICKS_HZ) if low_hz <= hz <= high_hz], position, bands)
    if len(found) >= FEWEST_TICKS or not high_hz > low_hz:
        return found
    rough = (high_hz - low_hz) / 6
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(by for by in (1, 2, 5, 10) if by * power >= rough)
    steps = np.arange(np.ceil(low_hz / step - 1e-9), np.floor(high_hz / step + 1e-9) + 1)
    return _apart([round(float(hz), 6) for hz in steps * step], position, bands)


def _apart(wanted: Sequence[float], position: Callable[[float], float], bands: int) -> list[int | float]:
    found: list[int | float] = []
    for hz in wanted:
        if not found or position(hz) - position(found[-1]) >= LEAST_GAP * bands:
            found.append(int(hz) if float(hz).is_integer() else hz)
    return found


def duration(seconds: float) -> str:
    """Write seconds as messages show them.

    Examples
    --------
    >>> duration(0.96), duration(2.0)
    ('0.96', '2')
    """
    return f"{seconds:.3g}" if math.isfinite(seconds) else "unknown"


torch.serialization.add_safe_globals([BinAxis, SampleAxis])  # parts of saved `Examples`
