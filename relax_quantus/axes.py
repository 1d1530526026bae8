"""What the axes of a picture stand for: frames and bands of a front end -> seconds and Hz.

A leaf of the flow beside the pictures; imports no matplotlib. `Axis` is VGGish's log-mel, `BinAxis` any other spectrogram, `SampleAxis` a
waveform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from relax_quantus.frontend import LogMelConfig, hz_to_mel

Image = npt.NDArray[np.float64]
TICKS_HZ = (250, 500, 1000, 2000, 4000, 7000)
LEAST_GAP = 0.06
"""Least distance of two ticks, as a share of the axis."""


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
    value_label = "ln(mel magnitude + 0.01)"
    heading = "log-mel spectrogram"

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.config.hop_s

    @property
    def window_s(self) -> float:
        """Twice the time of the first frame's centre, in seconds."""
        return self.config.window_s

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
        return np.asarray(self.start_s + self.window_s / 2 + self.hop_s * np.arange(frames))

    def extent(self, frames: int) -> tuple[float, float, float, float]:
        """Left and right in seconds, bottom and top in bands, of an image of so many frames.

        Frame i is drawn from i to i + 1 hops, so that examples join and start at round times: with VGGish's front end 7.5 ms before its
        window's centre.
        """
        return self.start_s, self.start_s + frames * self.hop_s, -0.5, self.bands - 0.5

    def band_of_hz(self, hz: npt.ArrayLike) -> Image:
        """Position on the band axis (0 is the lowest band's centre) of frequencies in Hz, linear in mel."""
        low, high = hz_to_mel(self.config.mel_min_hz), hz_to_mel(self.config.mel_max_hz)
        return np.asarray((hz_to_mel(hz) - low) / (high - low) * (self.config.mel_bands + 1) - 1.0)

    def ticks(self) -> tuple[Sequence[float], Sequence[str]]:
        """Where to mark the band axis, and with what."""
        shown = [hz for hz in TICKS_HZ if self.config.mel_min_hz <= hz <= self.config.mel_max_hz]
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
    """

    every_s: float = 0.01
    size: int = 1
    bins_hz: tuple[float, ...] = ()
    label: str = "frequency (Hz)"
    value_label: str = "value"
    heading: str = "spectrogram"

    @property
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.every_s

    @property
    def window_s(self) -> float:
        """0: torchaudio centres its first window on the first sample."""
        return 0.0

    @property
    def bands(self) -> int:
        """Number of bands F."""
        return self.size

    @property
    def centres_hz(self) -> Image | None:
        """Centre of each band in Hz, shape (F,); None where bands are no frequencies."""
        return np.asarray(self.bins_hz) if self.bins_hz else None

    def band_of_hz(self, hz: npt.ArrayLike) -> Image:
        """Position on the band axis of frequencies in Hz, linear between the bands' centres."""
        return np.interp(np.asarray(hz, dtype=np.float64), self.bins_hz, np.arange(self.size))

    def ticks(self) -> tuple[Sequence[float], Sequence[str]]:
        """Frequencies that lie far enough apart to be read, or every so many bands."""
        if not self.bins_hz:
            step = max(1, self.size // 5)
            return [float(i) for i in range(0, self.size, step)], [str(i) for i in range(0, self.size, step)]
        positions: list[float] = []
        names: list[str] = []
        for hz in TICKS_HZ:
            at = float(self.band_of_hz(hz))
            far = not positions or at - positions[-1] >= LEAST_GAP * self.size
            if self.bins_hz[0] <= hz <= self.bins_hz[-1] and far:
                positions.append(at)
                names.append(str(hz))
        return positions, names


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
