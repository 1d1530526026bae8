"""Say what the axes stand for of spectrograms that are no log-mel, and of waveforms.

Beside `relax_quantus.frontend.log_mel.LogMelAxis` each other kind of front end has its own
`relax_quantus.frontend.examples.Axis` here: `BinAxis` any other spectrogram, `SampleAxis`
waveforms. What a frame's time is, the front end knows (`relax_quantus.frontend.frame_times` asks
it); where nobody does, frames are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from relax_quantus.audio.reading import SAMPLE_RATE_HZ
from relax_quantus.frontend.examples import SECONDS, Axis, Image, ticks_hz, within

COUNTED = "frame"
"""Label of a time axis whose frames are only counted."""


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


torch.serialization.add_safe_globals([BinAxis, SampleAxis])  # parts of saved `Examples`
