"""Short-time Fourier transform and overlap-add: waveforms -> spectra of windows -> waveforms.

Waveforms ``(..., N)`` enter and leave, in batches, on any device and differentiably; in between
stand complex spectra ``(..., T, bins)`` whose cells a gain may weaken. Below everything that
filters sound: masks on a network's waveform, and what one listens to.

Periodic Hann windows before and after, each a quarter of a window from the next, so that four lie
over every sample, the first and the last included; their squares add up to 3/2 exactly (Griffin and
Lim, "Signal estimation from modified short-time Fourier transform", 1984, equation 6, of which this
is the case of a constant denominator). Unchanged spectra give the waveform back to rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from relax_quantus.base import checks
from relax_quantus.errors import ArgumentTypeError, ShapeError

OVERLAP = 4
"""Windows over each sample."""
SUM_OF_SQUARES = 0.375 * OVERLAP
"""What the squares of the windows over a sample add up to."""
BLOCK = 512
"""Windows that `Stft.filtered` transforms at a time."""


@functools.lru_cache(maxsize=8)
def _hann(samples: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A periodic Hann window."""
    with torch.inference_mode(False):  # kept for later calls, which may want gradients
        angle = torch.arange(samples, dtype=torch.float64, device="cpu") * (2 * math.pi / samples)
        return (0.5 - 0.5 * torch.cos(angle)).to(dtype).to(device)


@dataclass(frozen=True)
class Stft:
    """A short-time Fourier transform with four windows over each sample.

    Parameters
    ----------
    hop_samples
        Samples from one window to the next; a window has four times as many.

    Examples
    --------
    >>> wave = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    >>> stft = Stft(hop_samples=16)
    >>> spectrum = stft.forward(wave)
    >>> spectrum.shape
    torch.Size([2, 66, 33])
    >>> bool((stft.inverse(spectrum, 1000) - wave).abs().max() < 1e-5)
    True
    """

    hop_samples: int

    def __post_init__(self) -> None:
        checks.integer("hop_samples", self.hop_samples)

    @classmethod
    def of_window(cls, window_s: float, rate_hz: float) -> Stft:
        """Build one whose window lasts about `window_s`: a multiple of four samples."""
        return cls(max(1, round(window_s * rate_hz / OVERLAP)))

    @property
    def window_samples(self) -> int:
        """Length of a window in samples."""
        return OVERLAP * self.hop_samples

    @property
    def bins(self) -> int:
        """Number of frequencies, from 0 to half the sample rate."""
        return self.window_samples // 2 + 1

    def frames(self, samples: int) -> int:
        """Number of windows T that touch so many samples."""
        return -(-samples // self.hop_samples) + OVERLAP - 1

    def middles(self, samples: int) -> Tensor:
        """Return the middle of each window in samples, ``(T,)`` int64; some lie beyond the ends."""
        return (torch.arange(self.frames(samples)) - 1) * self.hop_samples

    def frequencies_hz(self, rate_hz: float) -> Tensor:
        """Frequency of each bin in Hz, ``(bins,)`` float64."""
        return torch.arange(self.bins, dtype=torch.float64) * (rate_hz / self.window_samples)

    def window(self, like: Tensor) -> Tensor:
        """The Hann window ``(window_samples,)``, in the type and on the device of `like`."""
        return _hann(self.window_samples, like.dtype, like.device)

    def forward(self, wave: Tensor) -> Tensor:
        """Transform waveforms.

        Parameters
        ----------
        wave
            ``(..., N)``, float32 or float64, at least one sample.

        Returns
        -------
        Tensor
            ``(..., T, bins)``, complex.

        Raises
        ------
        ShapeError, ArgumentTypeError
            For anything else.
        """
        if not isinstance(wave, Tensor) or wave.dtype not in (torch.float32, torch.float64):
            checks.refuse("wave", "samples in float32 or float64", wave, "convert them first", ArgumentTypeError)
        if wave.ndim == 0 or wave.shape[-1] == 0:
            checks.refuse("wave", "shape (..., N) with at least one sample", wave, "pass a waveform", ShapeError)
        before = self.window_samples - self.hop_samples
        length = (self.frames(wave.shape[-1]) + OVERLAP - 1) * self.hop_samples
        padded = functional.pad(wave, (before, length - before - wave.shape[-1]))
        windows = padded.unfold(-1, self.window_samples, self.hop_samples)
        spectrum: Tensor = torch.fft.rfft(windows * self.window(wave))
        return spectrum

    def inverse(self, spectrum: Tensor, samples: int) -> Tensor:
        """Bring spectra back to waveforms; those that fit none, to the nearest by least squares.

        Parameters
        ----------
        spectrum
            ``(..., T, bins)``, complex, as `forward` makes them of waveforms of so many samples.
        samples
            Number of samples N.

        Returns
        -------
        Tensor
            ``(..., N)``.

        Raises
        ------
        ShapeError
            Unless T and bins are those of N samples.
        """
        expected = (self.frames(checks.integer("samples", samples)), self.bins)
        if tuple(spectrum.shape[-2:]) != expected:
            checks.refuse("spectrum", f"shape (..., {expected[0]}, {expected[1]})", spectrum, "", ShapeError)
        before = self.window_samples - self.hop_samples
        return self._added(self._windows(spectrum))[..., before : before + samples]

    def filtered(self, wave: Tensor, gains: Callable[[slice], Tensor]) -> Tensor:
        """Multiply the spectrum by gains, block by block, in memory that does not grow with it.

        Parameters
        ----------
        wave
            ``(..., N)``, as in `forward`.
        gains
            Called with ``slice(start, stop)`` of the windows, successive ones; returns
            ``(..., stop - start, bins)`` or what broadcasts to it.

        Returns
        -------
        Tensor
            ``(..., N)``.

        Examples
        --------
        >>> wave = torch.ones(100)
        >>> Stft(8).filtered(wave, lambda windows: torch.tensor(0.5))[:2]
        tensor([0.5000, 0.5000])
        """
        hop, before = self.hop_samples, self.window_samples - self.hop_samples
        count, samples = self.frames(wave.shape[-1]), wave.shape[-1]
        out = wave.new_zeros(*wave.shape[:-1], (count + OVERLAP - 1) * hop)
        for start in range(0, count, BLOCK):
            stop = min(start + BLOCK, count)
            first = start * hop - before  # of the block's samples, in the waveform
            last = first + (stop - start + OVERLAP - 1) * hop
            inside = wave[..., max(first, 0) : min(last, samples)]
            part = functional.pad(inside, (max(-first, 0), max(last - samples, 0)))
            windows = part.unfold(-1, self.window_samples, hop) * self.window(wave)
            back = self._added(self._windows(torch.fft.rfft(windows) * gains(slice(start, stop))))
            out[..., start * hop : start * hop + back.shape[-1]] += back
        return out[..., before : before + samples]

    def _windows(self, spectrum: Tensor) -> Tensor:
        """Bring spectra to stretches of sound ``(..., T, window_samples)`` that are to be added."""
        back: Tensor = torch.fft.irfft(spectrum, n=self.window_samples)
        return back.mul_(self.window(back) / SUM_OF_SQUARES)

    def _added(self, windows: Tensor) -> Tensor:
        """Add windows ``(..., T, window_samples)``, each a hop after the one before."""
        count, hop = windows.shape[-2], self.hop_samples
        quarters = windows.reshape(*windows.shape[:-1], OVERLAP, hop)
        out = windows.new_zeros(*windows.shape[:-2], count + OVERLAP - 1, hop)
        for quarter in range(OVERLAP):
            out[..., quarter : quarter + count, :] += quarters[..., quarter, :]
        return out.flatten(-2)
