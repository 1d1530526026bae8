"""Make examples with any spectrogram transform, such as those of torchaudio.

Takes the place of `LogMel` in the flow: waveforms ``(samples,)`` or ``(B, samples)`` enter,
examples ``(n, 1, T, F)`` leave, time on axis -2 and frequency on axis -1, where the mask strategies
expect them. The transform is the caller's module and keeps torchaudio's order, ``(B, samples) ->
(B, F, T)``, so this module never imports torchaudio.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus.audio.reading import SAMPLE_RATE_HZ, load_waveform
from relax_quantus.base import checks
from relax_quantus.base.networks import neutral_torch
from relax_quantus.errors import ArgumentTypeError, ShapeError
from relax_quantus.frontend.examples import Examples
from relax_quantus.frontend.log_mel import as_waveform
from relax_quantus.frontend.measured_axes import knows_no_rest, transform_axis


class TransformFrontEnd(nn.Module):
    """Make examples with a spectrogram transform.

    Parameters
    ----------
    transform
        ``(B, samples) -> (B, F, T)``, real: ``torchaudio.transforms.MelSpectrogram``,
        ``Spectrogram(power=1)`` or ``(power=2)``, ``MFCC``, ``nn.Sequential(MelSpectrogram(...),
        AmplitudeToDB())``, or any module of that kind.
    log_offset
        If given, the result is ln(value + log_offset), which VGGish does with 0.01; None leaves the
        transform's values.
    frames
        If given, cut into examples of so many frames without overlap, a partial last one dropped,
        as `LogMel` does; None makes one example a waveform.
    sample_rate_hz
        The rate that the transform expects; `load_examples` resamples to it.

    Notes
    -----
    The command line knows the seconds and Hz of torchaudio's transforms and measures those of
    others; a transform may say them itself as ``hop_s``, ``first_s`` (the middle of the first
    frame's window), ``window_s`` and ``frequencies_hz``.

    Examples
    --------
    >>> crude = nn.Unflatten(1, (64, -1))  # for a transform, such as torchaudio's MelSpectrogram
    >>> TransformFrontEnd(crude, log_offset=0.01, frames=125)(torch.zeros(2, 16_000)).shape
    torch.Size([4, 1, 125, 64])
    """

    def __init__(
        self,
        transform: nn.Module,
        *,
        log_offset: float | None = None,
        frames: int | None = None,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
    ) -> None:
        super().__init__()
        if not isinstance(transform, nn.Module):
            remedy = "pass for example torchaudio.transforms.MelSpectrogram(16_000)"
            got = transform.__name__ if isinstance(transform, type) else type(transform).__name__
            checks.refuse("transform", "a torch module (an object, not its class)", got, remedy, ArgumentTypeError)
        self.transform = transform
        self.log_offset = None if log_offset is None else checks.positive("log_offset", log_offset)
        self.frames = None if frames is None else checks.integer("frames", frames)
        self.sample_rate_hz = checks.integer("sample_rate_hz", sample_rate_hz)
        found = [getattr(module, "sample_rate", None) for module in transform.modules()]
        rates = sorted({rate for rate in found if isinstance(rate, int)})
        resamples = any(hasattr(m, "orig_freq") for m in transform.modules())
        if rates and self.sample_rate_hz not in rates and not resamples:
            remedy = f"pass sample_rate_hz={rates[0]}, or build the transform for the other rate"
            rule = f"the transform's own rate, {', '.join(map(str, rates))}"
            checks.refuse("sample_rate_hz", rule, str(self.sample_rate_hz), remedy)

    def forward(self, wave: Tensor | npt.ArrayLike) -> Tensor:
        """Transform waveforms into examples.

        Parameters
        ----------
        wave
            ``(samples,)`` or ``(B, samples)`` at `sample_rate_hz`, full scale at 1; torch or numpy,
            floating, finite. It is brought to the device and type of the transform's first buffer
            or weight; gradients flow back to it.

        Returns
        -------
        Tensor
            ``(n, 1, T, F)``, contiguous, all examples of the first waveform first.

        Raises
        ------
        ShapeError
            If `wave` has another number of axes, or the transform's result is not ``(B, F, T)``.
        ArgumentError, ArgumentTypeError
            If `wave` is not finite or not floating, or the transform's result is complex, not
            finite, or negative where a logarithm is asked for.
        """
        x = self.spectrogram(wave)
        if self.frames is not None:
            per_wave = x.shape[1] // self.frames
            x = x[:, : per_wave * self.frames].reshape(len(x) * per_wave, self.frames, x.shape[2])
        return x[:, None].contiguous()

    @neutral_torch(gradients=True)
    def spectrogram(self, wave: Tensor | npt.ArrayLike) -> Tensor:
        """Return ``(B, T, F)``, the whole waveforms without cutting.

        Arguments and errors as for `forward`.
        """
        wave = as_waveform(wave)
        wave = self._as_transform(wave[None] if wave.ndim == 1 else wave)
        x = self._checked(self.transform(wave), len(wave)).transpose(1, 2)
        if self.log_offset is None:
            return x
        if bool((x < 0).any()):
            remedy = "leave log_offset out for decibels, cepstra and other values that are no magnitudes"
            checks.refuse("transform", "values from 0 up for the logarithm", "negative ones", remedy)
        return torch.log(x + self.log_offset)

    def load_examples(self, path: str | os.PathLike[str], resampler: str = "soxr") -> Tensor:
        """Read a recording as `Examples` ``(n, 1, T, F)``, resampled to `sample_rate_hz`.

        By `relax_quantus.audio.reading.load_waveform`.

        They carry their axis, which is measured where the transform does not say it, and what a
        muted part of this recording becomes.

        Raises
        ------
        AudioError
            If the recording cannot be used, see `relax_quantus.audio.reading.load_waveform`.
        ShapeError
            If it has fewer than `frames` frames.
        """
        wave = load_waveform(path, self.sample_rate_hz, resampler)
        with torch.inference_mode(False), torch.no_grad():
            x: Tensor = self(wave)
        if len(x) == 0:
            got = f"fewer from {wave.size / self.sample_rate_hz:.2f} s"
            checks.refuse(
                "frames", f"a recording of at least {self.frames}", got, "lower frames, or pad it", ShapeError
            )
        silence = self.silence() if knows_no_rest(self) else self.silence(beside=wave)
        heading = type(self.transform).__name__
        return Examples.of(x, transform_axis(self), silence, self.sample_rate_hz, as_waveform(wave), heading)

    def silence(
        self, samples: int = SAMPLE_RATE_HZ, *, beside: Tensor | npt.NDArray[np.floating[Any]] | None = None
    ) -> Tensor:
        """Compute what digital silence becomes, ``(1, 1, 1, F)``.

        It is the value to pass to RELAX as ``baselines``, where 0 would be a sound.

        Parameters
        ----------
        samples
            Length of the silence; its middle frame is taken.
        beside
            Waveform ``(samples,)`` that the silence follows: give the recording to explain where
            values depend on more than their own moment, as decibels with ``top_db`` do. Without it,
            silence alone.
        """
        size = checks.integer("samples", samples)
        with torch.inference_mode(False), torch.no_grad():
            quiet = torch.zeros(size)
            if beside is None:
                x = self.spectrogram(quiet)
                return x[:, None, x.shape[1] // 2, None].clone()
            wave = as_waveform(beside)
            if wave.ndim != 1:
                checks.refuse("beside", "shape (samples,)", wave, "pass one recording at a time", ShapeError)
            x = self.spectrogram(torch.cat([wave, quiet.to(wave)]))
        middle = int(x.shape[1] * (len(wave) + size / 2) / (len(wave) + size))
        return x[:, None, middle, None].clone()

    def _as_transform(self, wave: Tensor) -> Tensor:
        """Bring `wave` to the device and floating type of the transform.

        Its first buffer or weight says which.
        """
        for value in (*self.transform.buffers(), *self.transform.parameters()):
            if value.is_floating_point():
                return wave.to(value)
        return wave

    def _checked(self, x: object, waves: int) -> Tensor:
        """Return the transform's result if it is a finite real ``(B, F, T)``."""
        if not isinstance(x, Tensor):
            checks.refuse(
                "transform", "a tensor", f"a {type(x).__name__}", "return the spectrogram alone", ArgumentTypeError
            )
        if x.is_complex():
            remedy = "build it with power=1 (magnitude) or power=2"
            checks.refuse("transform", "a real spectrogram", x, remedy, ArgumentTypeError)
        if x.ndim != 3 or len(x) != waves or 0 in x.shape[:2]:
            rule = f"a spectrogram of shape ({waves}, F, T)"
            checks.refuse("transform", rule, x, "end it with a spectrogram transform", ShapeError)
        return checks.finite("transform", x, "check its parameters and the recording's length")
