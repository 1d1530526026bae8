"""Compute log-mel examples of 16 kHz waveforms, exactly as VGGish computes them, in torch.

Second step of the flow: waveforms ``(samples,)`` or ``(B, samples)`` enter, ``(n, 1, T=96, F=64)``
log-mel examples leave, in batches, on any device and differentiably. Reference: torchvggish 0.2,
``vggish_input.waveform_to_examples`` (after Hershey et al., ICASSP 2017), from which this differs
by less than 1e-4 everywhere. That takes float64 inside: beside a full-scale tone the rounding of a
float32 Fourier transform alone reaches 4e-4 in the quiet bands.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus.audio.reading import load_waveform
from relax_quantus.base import checks
from relax_quantus.base.networks import neutral_torch
from relax_quantus.errors import ArgumentTypeError, ShapeError
from relax_quantus.frontend.examples import Axis, Examples, Image, plain, ticks_hz, within
from relax_quantus.frontend.framing import Framing, cut, hop_frames

CHUNK_FRAMES = 96 * 16
"""Frames analysed at a time, which bounds the memory that an hour-long recording needs."""
FLOATING = "floating-point samples"
SCALE = "scale them to [-1, 1] first, int16 by 1 / 32768"
NAME = "log_mel"
"""How results call this front end with VGGish's constants."""


@dataclass(frozen=True)
class LogMelConfig:
    """Hold the constants of a log-mel front end, with units; the defaults are VGGish's.

    HTK mel scale, slopes linear in mel, magnitude spectrum, natural logarithm.
    """

    sample_rate_hz: int = 16_000
    window_s: float = 0.025
    hop_s: float = 0.010
    mel_bands: int = 64
    mel_min_hz: float = 125.0
    mel_max_hz: float = 7500.0
    log_offset: float = 0.01
    frames: int = 96

    def __post_init__(self) -> None:
        for name in ("sample_rate_hz", "mel_bands", "frames"):
            checks.integer(name, getattr(self, name))
        for name in ("window_s", "hop_s", "log_offset"):
            checks.positive(name, getattr(self, name))
        if not (self.window_samples >= 1 and self.hop_samples >= 1):
            checks.refuse("window_s, hop_s", "at least one sample", (self.window_s, self.hop_s), "lengthen them")
        if not 0 <= self.mel_min_hz < self.mel_max_hz <= self.sample_rate_hz / 2:
            expected = f"0 <= mel_min_hz < mel_max_hz <= {self.sample_rate_hz / 2:g} (half the sample rate)"
            checks.refuse("mel_min_hz, mel_max_hz", expected, (self.mel_min_hz, self.mel_max_hz), "change the range")

    @property
    def window_samples(self) -> int:
        """Length of one analysis window in samples (400)."""
        return round(self.window_s * self.sample_rate_hz)

    @property
    def hop_samples(self) -> int:
        """Distance between windows in samples (160)."""
        return round(self.hop_s * self.sample_rate_hz)

    @property
    def fft_samples(self) -> int:
        """Samples of a Fourier transform (512): the next power of two above the window."""
        return int(2 ** math.ceil(math.log2(self.window_samples)))

    @property
    def example_samples(self) -> int:
        """Samples that one example needs (15 600): `frames` windows at `hop_samples`."""
        return self.window_samples + (self.frames - 1) * self.hop_samples

    @property
    def silence(self) -> float:
        """The value of digital silence, ln(log_offset) = -4.605."""
        return math.log(self.log_offset)

    @property
    def band_centres_hz(self) -> npt.NDArray[np.float64]:
        """Centre frequency of each mel band in Hz, shape (F,)."""
        return self.band_edges_hz[1:-1]

    @property
    def band_edges_hz(self) -> npt.NDArray[np.float64]:
        """Edges and centres of the mel bands in Hz, shape (F + 2,).

        The lower edge of band i is at index i, its centre at i + 1, its upper edge at i + 2.
        """
        mel = np.linspace(hz_to_mel(self.mel_min_hz), hz_to_mel(self.mel_max_hz), self.mel_bands + 2)
        return np.asarray(700.0 * (np.exp(mel / 1127.0) - 1.0))


def hz_to_mel(hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Convert frequencies in Hz to HTK's mel scale: 1127 ln(1 + hz / 700).

    Examples
    --------
    >>> float(hz_to_mel(1000.0).round(1))
    1000.0
    """
    return np.asarray(1127.0 * np.log1p(np.asarray(hz, dtype=np.float64) / 700.0))


def mel_matrix(config: LogMelConfig) -> npt.NDArray[np.float64]:
    """Build triangular filters, slopes linear in mel, zero at 0 Hz.

    Shape (fft_samples // 2 + 1, F).
    """
    bins_mel = hz_to_mel(np.linspace(0.0, config.sample_rate_hz / 2, config.fft_samples // 2 + 1))
    edges = np.linspace(hz_to_mel(config.mel_min_hz), hz_to_mel(config.mel_max_hz), config.mel_bands + 2)
    rising = (bins_mel[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - bins_mel[:, None]) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


def mel_centres_hz(low_hz: float, high_hz: float, bands: int, scale: str = "htk") -> tuple[float, ...]:
    """Compute centres of mel bands in Hz on the ``"htk"`` or ``"slaney"`` scale.

    They lie where `torchaudio.functional.melscale_fbanks` places them.

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


@dataclass(frozen=True)
class LogMelAxis(Axis):
    """Tell when frames are and where mel bands are of a log-mel front end.

    Parameters
    ----------
    config
        The front end that made the examples: frame rate and mel bands.
    start_s
        Where the first example starts, in seconds.
    """

    config: LogMelConfig = field(default_factory=LogMelConfig)

    heading = "log-mel spectrogram"

    @property
    def value_label(self) -> str:
        """Label of the values."""
        return f"ln(mel magnitude + {self.config.log_offset:g})"

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
    def bands(self) -> int:
        """Number of bands F."""
        return self.config.mel_bands

    @property
    def centres_hz(self) -> Image | None:
        """Centre of each band in Hz, shape (F,)."""
        return self.config.band_centres_hz

    def band_of_hz(self, hz: npt.ArrayLike) -> Image:
        """Return the position of frequencies in Hz on the band axis, linear in mel."""
        low, high = hz_to_mel(self.config.mel_min_hz), hz_to_mel(self.config.mel_max_hz)
        return np.asarray((hz_to_mel(hz) - low) / (high - low) * (self.config.mel_bands + 1) - 1.0)

    def bands_of_hz(self, low_hz: float, high_hz: float) -> npt.NDArray[np.int64]:
        """Return the bands whose middle lies between two frequencies.

        The nearest if none does; none beside the range that is heard.
        """
        edges = hz_to_mel(self.config.band_edges_hz)
        low, high = (float(hz_to_mel(min(hz, self.config.sample_rate_hz / 2))) for hz in (low_hz, high_hz))
        if high < edges[0] or low > edges[-1]:
            return np.zeros(0, np.int64)
        return within(edges[1:-1], low, high)

    def ticks(self) -> tuple[Sequence[float], Sequence[str]]:
        """Choose where to mark the band axis, and with what."""
        low, high = self.config.mel_min_hz, self.config.mel_max_hz
        shown = ticks_hz(low, high, lambda hz: float(self.band_of_hz(hz)), self.bands)
        return [float(p) for p in self.band_of_hz(shown)], [str(hz) for hz in shown]


@functools.lru_cache(maxsize=8)
def _analysis(config: LogMelConfig, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Build the window and the filters of `mel_matrix`.

    The window (window_samples,) is a periodic Hann; the filters are (fft_samples // 2 + 1, F).
    """
    with torch.inference_mode(False):  # kept for later calls, which may want gradients
        window = torch.hann_window(config.window_samples, periodic=True, dtype=torch.float64, device="cpu")
        return window.to(device, dtype), torch.from_numpy(mel_matrix(config)).to(device, dtype)


class LogMel(nn.Module):
    """Compute VGGish's log-mel spectrogram in torch.

    It is computed in float64, or in float32 on devices without it, such as MPS.

    Parameters
    ----------
    config
        The front end's constants; the defaults are VGGish's.

    Attributes
    ----------
    silence : Tensor
        The value of digital silence, a buffer whose device and dtype are those of the result:
        ``.to(...)`` and ``.double()`` act on it.

    Examples
    --------
    >>> LogMel()(torch.zeros(2, 16_000)).shape
    torch.Size([2, 1, 96, 64])
    """

    silence: Tensor

    def __init__(self, config: LogMelConfig | None = None) -> None:
        super().__init__()
        self.config = config or LogMelConfig()
        self.register_buffer("silence", torch.tensor(self.config.silence, dtype=torch.float32), persistent=False)

    @neutral_torch(gradients=True)
    def frames(self, wave: Tensor) -> Tensor:
        """Compute log-mel frames ``(..., samples) -> (..., frames, F)``.

        Of a float tensor on the module's device; every whole window gives a frame.
        """
        precision = torch.float32 if wave.device.type == "mps" else torch.float64
        window, mel = _analysis(self.config, wave.device, precision)
        windows = wave.unfold(-1, self.config.window_samples, self.config.hop_samples)
        chunks = []
        for start in range(0, windows.shape[-2], CHUNK_FRAMES):
            chunk = windows[..., start : start + CHUNK_FRAMES, :]
            magnitude = torch.fft.rfft(chunk.to(precision) * window, n=self.config.fft_samples).abs()
            chunks.append(torch.log(magnitude @ mel + self.config.log_offset).to(self.silence.dtype))
        return torch.cat(chunks, dim=-2)

    def forward(self, wave: Tensor | npt.ArrayLike) -> Tensor:
        """Cut a waveform into log-mel examples.

        Parameters
        ----------
        wave
            ``(samples,)`` or ``(B, samples)``, 16 kHz, full scale at 1; torch or numpy, of any
            floating type, finite. Gradients flow back to it.

        Returns
        -------
        Tensor
            `Examples` ``(n, 1, 96, 64)``, float32 unless the module was converted, on the module's
            device, all examples of the first waveform first. A partial last example is dropped, as
            torchvggish does; fewer than 15 600 samples give ``n = 0``.

        Raises
        ------
        ShapeError
            If `wave` has another number of axes.
        ArgumentTypeError
            If `wave` holds integers or anything else that is not a real floating type.
        ArgumentError
            If `wave` holds NaN or infinite samples.
        """
        source = as_waveform(wave)
        waves = source.to(self.silence.device)
        waves = waves[None] if waves.ndim == 1 else waves
        per_wave = self.examples_in(waves.shape[-1])
        if per_wave == 0 or waves.shape[0] == 0:
            return self.describe(self.silence.new_zeros(0, 1, self.config.frames, self.config.mel_bands), source)
        needed = self.config.window_samples + (per_wave * self.config.frames - 1) * self.config.hop_samples
        frames = self.frames(waves[:, :needed])
        return self.describe(frames.reshape(-1, 1, self.config.frames, self.config.mel_bands), source)

    def describe(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """Return `Examples` of log-mel ``(..., T, F)``, with their axis, silence and waveform.

        They were made with these constants.
        """
        name = NAME if self.config == LogMelConfig() else f"{NAME} of {_differing(self.config)}"
        return Examples.of(x, self.axis, self.config.silence, self.config.sample_rate_hz, source, name)

    @property
    def axis(self) -> LogMelAxis:
        """What the axes of its examples stand for."""
        return LogMelAxis(self.config)

    def examples_in(self, samples: int) -> int:
        """Count the whole examples in a waveform of so many samples."""
        if samples < self.config.window_samples:
            return 0
        return (1 + (samples - self.config.window_samples) // self.config.hop_samples) // self.config.frames


def framing_of_log_mel(module: LogMel) -> Framing:
    """Say how log-mel frames lie in a waveform.

    Each sees the window that begins at its place on the grid.
    """
    config = module.config

    def frames(wave: npt.NDArray[np.float32]) -> Tensor:
        made: Tensor = module.frames(torch.from_numpy(wave))
        return made

    return Framing(frames, config.hop_samples, config.frames, config.window_samples, (0, config.window_samples))


def _differing(config: LogMelConfig) -> str:
    """Return the constants that are not VGGish's."""
    usual = asdict(LogMelConfig())
    return ",".join(f"{name}={value}" for name, value in asdict(config).items() if value != usual[name])


def as_waveform(wave: Tensor | npt.ArrayLike) -> Tensor:
    """Return `wave` as a finite floating tensor of one or two axes.

    It shares the memory of `wave` where torch can.
    """
    if not isinstance(wave, Tensor):
        wave = np.asarray(wave)
        if wave.dtype.kind != "f":
            checks.refuse("wave", FLOATING, wave, SCALE, ArgumentTypeError)
        wave = torch.from_numpy(np.require(wave, np.float32 if wave.dtype.itemsize <= 4 else np.float64, ["C", "W"]))
    if not wave.is_floating_point():
        checks.refuse("wave", FLOATING, wave, SCALE, ArgumentTypeError)
    if wave.ndim not in (1, 2):
        checks.refuse("wave", "shape (samples,) or (B, samples)", wave, "mix channels down to mono first", ShapeError)
    return checks.finite("wave", wave, "repair the recording")


def load_examples(
    path: str | os.PathLike[str],
    config: LogMelConfig | None = None,
    resampler: str = "soxr",
    *,
    hop_s: float | None = None,
) -> Tensor:
    """Read a recording as log-mel examples.

    Parameters
    ----------
    path
        Any file that libsndfile reads.
    config
        The front end's constants.
    resampler
        ``"soxr"`` or ``"torchaudio"``, see `relax_quantus.audio.reading.resample`.
    hop_s
        Seconds from the beginning of one example to that of the next, rounded to whole frames; None
        for 0.96, an example's length: no overlap. `relax_quantus.stitch` makes one map of what is
        explained about examples that overlap.

    Returns
    -------
    Tensor
        `Examples` ``(n, 1, 96, 64)``, float32, with n >= 1: a recording under 15 600 samples at 16
        kHz is padded with silence to one example.

    Raises
    ------
    AudioError, UnknownNameError, MissingDependencyError
        See `relax_quantus.audio.reading.load_waveform`.
    ArgumentError, ArgumentTypeError
        If `hop_s` is not from one frame to one example.

    Warns
    -----
    AudioWarning
        See `relax_quantus.audio.reading.load_waveform`.
    """
    config = config or LogMelConfig()
    hop = hop_frames(hop_s, config.hop_s, config.frames)
    wave = load_waveform(path, config.sample_rate_hz, resampler)
    source = as_waveform(wave)
    if wave.size < config.example_samples:
        wave = np.pad(wave, (0, config.example_samples - wave.size))
    front_end = LogMel(config)
    with torch.inference_mode(False), torch.no_grad():
        if hop == config.frames:
            return front_end.describe(plain(front_end(wave)), source)
        return front_end.describe(cut(front_end.frames(as_waveform(wave)), config.frames, hop), source)


torch.serialization.add_safe_globals([LogMelAxis, LogMelConfig])  # parts of saved `Examples`
