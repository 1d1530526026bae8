"""What the axes of a picture stand for: frames and bands of a front end -> seconds and Hz.

A leaf of the flow beside the pictures; imports no matplotlib. `Axis` is VGGish's log-mel, `BinAxis` any other spectrogram, `SampleAxis` a
waveform. What a frame's time is, the front end knows (`relax_quantus.frontend.frame_times` asks it); where nobody does, frames are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from relax_quantus.frontend.log_mel import LogMelConfig, hz_to_mel

Image = npt.NDArray[np.float64]
TICKS_HZ = (250, 500, 1000, 2000, 4000, 7000)
HIGH_TICKS_HZ = (10_000, 15_000, 20_000, 30_000, 40_000, 60_000, 80_000, 100_000, 120_000, 150_000, 200_000)
FEWEST_TICKS = 3
"""Where the lists above give fewer, ticks are at round steps."""
LEAST_GAP = 0.06
"""Least distance of two ticks, as a share of the axis."""
SECONDS, COUNTED = "time (s)", "frame"
"""Labels of the time axis: frames whose time is known, and those that are only counted."""


def ticks_hz(low_hz: float, high_hz: float, position: Callable[[float], float], bands: int) -> list[int | float]:
    """Choose frequencies to mark on an axis from `low_hz` to `high_hz`, far enough apart to be read.

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


@dataclass(frozen=True)
class Axis:
    """What one picture's axes stand for.

    Parameters
    ----------
    config
        The front end that made the examples: frame rate and mel bands.
    start_s
        Where the first example starts, in seconds.
    """

    config: LogMelConfig = field(default_factory=LogMelConfig)
    start_s: float = 0.0

    label = "frequency (Hz)"
    time_label = SECONDS
    value_label = "ln(mel magnitude + 0.01)"
    heading = "log-mel spectrogram"

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.config.hop_s

    @property
    def window_s(self) -> float:
        """Seconds that one frame sees."""
        return self.config.window_s

    @property
    def first_s(self) -> float:
        """Middle of the first frame's window in seconds from the beginning of the waveform."""
        return self.window_s / 2

    @property
    def in_seconds(self) -> bool:
        """Whether times are seconds; otherwise frames are counted."""
        return self.time_label == SECONDS

    @property
    def bands(self) -> int:
        """Number of bands F."""
        return self.config.mel_bands

    @property
    def centres_hz(self) -> Image | None:
        """Centre of each band in Hz, shape (F,); None where bands are no frequencies."""
        return self.config.band_centres_hz

    def times_s(self, frames: int) -> Image:
        """Centre of each frame's analysis window, shape (frames,), in seconds."""
        return np.asarray(self.start_s + self.first_s + self.hop_s * np.arange(frames))

    def end_s(self, frames: int) -> float:
        """Where in the waveform what so many frames see ends, in seconds."""
        last = float(self.times_s(frames)[-1]) if frames else self.start_s
        return last + max(self.window_s, self.hop_s) / 2

    def extent(self, frames: int) -> tuple[float, float, float, float]:
        """Left and right in seconds, bottom and top in bands, of an image of so many frames.

        Frame i is drawn from half a hop before to half a hop after its window's middle. Where that lets the image begin within a frame of the
        waveform's beginning, it begins there, so that examples join and start at round times: with VGGish's front end 7.5 ms early.
        """
        left = self.first_s - self.hop_s / 2
        left = self.start_s + (0.0 if abs(left) <= self._rounding * self.hop_s * (1 + 1e-9) else left)
        return left, left + frames * self.hop_s, -0.5, self.bands - 0.5

    _rounding = 1.0

    def band_of_hz(self, hz: npt.ArrayLike) -> Image:
        """Position on the band axis (0 is the lowest band's centre) of frequencies in Hz, linear in mel."""
        low, high = hz_to_mel(self.config.mel_min_hz), hz_to_mel(self.config.mel_max_hz)
        return np.asarray((hz_to_mel(hz) - low) / (high - low) * (self.config.mel_bands + 1) - 1.0)

    def ticks(self) -> tuple[Sequence[float], Sequence[str]]:
        """Where to mark the band axis, and with what."""
        low, high = self.config.mel_min_hz, self.config.mel_max_hz
        shown = ticks_hz(low, high, lambda hz: float(self.band_of_hz(hz)), self.bands)
        return [float(p) for p in self.band_of_hz(shown)], [str(hz) for hz in shown]


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

    every_s: float = 0.01
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

    rate_hz: int = 16_000

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
