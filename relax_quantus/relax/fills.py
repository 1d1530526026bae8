"""Fill masked bins: with silence, background, noise or another level.

Inputs ``(B, ..., T, F)`` enter, a level broadcastable to them leaves (and, for `Noise`, a draw per
mask on top). Which fill is used decides which question is asked: `silence` is what no recording
contains, `background` is what is really there when the animal is not, and zero, the default of
Captum and of the paper, *adds* energy to a log-mel spectrogram, whose silence is ln(0.01) = -4.605.
A sibling of masks, similarities and estimators.
"""

from __future__ import annotations

import math
import numbers
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import neutral_torch
from relax_quantus.base.registry import Registry
from relax_quantus.errors import ShapeError

SILENCE = math.log(0.01)


LOUD_SHARE = 0.05
"""Share of an input that may lie below what stands for silence."""
TOLERANCE = 1e-3


def warn_of_loud_silence(x: Tensor, silence: Tensor) -> None:
    """Warn if what stands for silence lies above the 5th percentile of `x`: it would add sound.

    It is broadcastable to `x`.
    """
    if x.is_complex() or x.dtype == torch.bool or float((x < silence - TOLERANCE).double().mean()) <= LOUD_SHARE:
        return
    got = "more than 5 % of the input below it"
    remedy = "pass the value that silence has there, such as front_end.silence(), or another fill"
    warnings.warn(
        checks.message("baselines", "silence at the bottom of the input", got, remedy), UserWarning, stacklevel=2
    )


def carried_silence(x: Tensor) -> float | Tensor | None:
    """Return the level of silence that an input carries as ``silence``; None for plain tensors."""
    level: float | Tensor | None = getattr(x, "silence", None)
    return level


class Fill(ABC):
    """Say what replaces masked entries: what RELAX asks of a fill."""

    @abstractmethod
    def level(self, x: Tensor) -> Tensor:
        """Return what replaces masked entries, broadcastable to `x`; row i from example i alone."""

    def draw(self, n: int, x: Tensor, generator: torch.Generator) -> Tensor | None:
        """Draw what the next `n` masks add to the level, ``(n, *x.shape[1:])``; None for nothing.

        The batch shares it.
        """
        return None


def real(x: Tensor) -> Tensor:
    """Return `x` in a type that statistics can be had of: float32, or float64 if it is."""
    return x if x.is_complex() else x.to(torch.promote_types(x.dtype, torch.float32))


def over_time(x: Tensor) -> Tensor:
    """Return `x`, as `real`, if it has a time axis, ``(B, ..., T, F)``."""
    if x.ndim < 3:
        checks.refuse(
            "baselines", "an input (B, ..., T, F) for a fill over time", x, "pass a number or 'zero'", ShapeError
        )
    return real(x)


@dataclass(frozen=True)
class Silence(Fill):
    r"""Digital silence in log-mel, ln(0.01).

    Asks what if nothing had been there. No real recording contains it.

    Notes
    -----
    .. math:: b_{tf} = \ln 0.01 = -4.605

    the value that VGGish's front end, ln(mel + 0.01), gives a wave of zeros. Source: torchvggish's
    front end.
    """

    def level(self, x: Tensor) -> Tensor:
        """Return the silence that `x` carries, else a scalar; warn if it lies above much of `x`."""
        carried = carried_silence(x)
        level = SILENCE if carried is None else carried
        silence = torch.as_tensor(level, dtype=real(x).dtype, device=x.device)
        warn_of_loud_silence(x, silence)
        return silence


@dataclass(frozen=True)
class Zero(Fill):
    r"""Zero: Captum's and the paper's default.

    In log-mel, zero is louder than silence: it stands for a mel magnitude of .99, so masking by it
    adds energy.

    Notes
    -----
    .. math:: b_{tf} = 0

    Source: Wickstrom et al., IJCV 131, 2023, where masks multiply the input.
    """

    def level(self, x: Tensor) -> Tensor:
        """Return a scalar tensor."""
        return x.new_tensor(0)


@dataclass(frozen=True)
class Background(Fill):
    r"""Each band's low percentile over time: what is there when the call is not.

    Asks what if only the background had been there.

    Parameters
    ----------
    percentile
        In percent, 0 to 100.

    Notes
    -----
    .. math:: b_{tf} = Q_{.1}\big(x_{1f}, \ldots, x_{Tf}\big)

    the 10th percentile over the frames of the example, by linear interpolation. Source: this
    project.
    """

    percentile: float = 10.0

    def __post_init__(self) -> None:
        percent = self.percentile
        if isinstance(percent, bool) or not isinstance(percent, numbers.Real) or not 0 <= float(percent) <= 100:
            checks.refuse("percentile", "a number from 0 to 100", repr(percent), "give it in percent")

    def level(self, x: Tensor) -> Tensor:
        """Return ``(B, ..., 1, F)``."""
        return over_time(x).quantile(self.percentile / 100, dim=-2, keepdim=True)


@dataclass(frozen=True)
class BandMean(Fill):
    r"""Each band's mean over time.

    Asks what if a stationary sound of the same mean spectrum had been there; it adds energy where
    the call is not.

    Notes
    -----
    .. math:: b_{tf} = \frac{1}{T} \sum_{u=1}^{T} x_{uf}

    Source: a choice of Mishra et al., arXiv 2005.07788, 2020, who compare contents of occlusions
    for audio.
    """

    def level(self, x: Tensor) -> Tensor:
        """Return ``(B, ..., 1, F)``."""
        return over_time(x).mean(dim=-2, keepdim=True)


@dataclass(frozen=True)
class Mean(Fill):
    r"""The example's mean.

    Asks what if a stationary noise, equally loud in all bands, had been there; it adds a plateau
    that is in no recording.

    Notes
    -----
    .. math:: b_{tf} = \frac{1}{TF} \sum_{u=1}^{T} \sum_{g=1}^{F} x_{ug}

    Source: the grey occluder of images (Zeiler and Fergus, ECCV 2014); for audio Mishra et al.,
    arXiv 2005.07788, 2020.
    """

    def level(self, x: Tensor) -> Tensor:
        """Return ``(B, 1, ..., 1)``."""
        return real(x).mean(dim=tuple(range(1, x.ndim)), keepdim=True)


@dataclass(frozen=True)
class Noise(Background):
    r"""The example's background plus Gaussian noise, drawn anew for each mask.

    Asks what `Background` asks, with a background that is not frozen.

    Parameters
    ----------
    percentile
        Of the background, in percent.
    scale
        Standard deviation of the noise in natural-log units; 0.5 is 4.3 dB.

    Notes
    -----
    .. math:: b_{tf} = Q_{.1}\big(x_{1f}, \ldots, x_{Tf}\big) + \sigma \varepsilon_{tf},
       \qquad \varepsilon_{tf} \sim \mathcal N(0, 1)

    with other noise for every mask, the same for all examples of a batch. Source: this project.
    """

    scale: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.positive("scale", self.scale)

    def draw(self, n: int, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw ``(n, *x.shape[1:])`` by inversion, so that chunks of any size give one stream."""
        uniform = torch.rand(n, *x.shape[1:], generator=generator, device=generator.device, dtype=torch.float64)
        normal: Tensor = torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12))
        return (self.scale * normal).to(x)


@dataclass(frozen=True)
class Blur(Fill):
    r"""The example itself, blurred by a Gaussian over time and frequency.

    Asks what if the detail were gone; the level stays.

    Parameters
    ----------
    sigma_frames, sigma_bands
        Standard deviations along time (10 ms frames) and frequency (mel bands).

    Notes
    -----
    .. math:: b = G_{\sigma_T}\, x\, G_{\sigma_F}^{\top},
       \qquad (G_\sigma)_{tu} \propto e^{-(t-u)^2 / 2\sigma^2}

    with rows that sum to 1, so that edges do not darken. Source: Fong and Vedaldi, ICCV 2017, whose
    blur it is, for spectrograms.
    """

    sigma_frames: float = 8.0
    sigma_bands: float = 4.0

    def __post_init__(self) -> None:
        checks.positive("sigma_frames", self.sigma_frames)
        checks.positive("sigma_bands", self.sigma_bands)

    @neutral_torch(gradients=True)
    def level(self, x: Tensor) -> Tensor:
        """Return ``(B, ..., T, F)``; weights are normalised at the edges."""
        x = over_time(x)
        return gaussian(x.shape[-2], self.sigma_frames, x) @ x @ gaussian(x.shape[-1], self.sigma_bands, x).T


def gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    """Make a row-normalised Gaussian smoothing matrix ``(size, size)``."""
    steps = torch.arange(size, device=like.device, dtype=like.dtype)
    return torch.softmax(-0.5 * ((steps[:, None] - steps) / sigma) ** 2, dim=1)


FILLS: Registry[Fill] = Registry("fill", "baselines", "relax_quantus.fills")
FILLS.register("silence", Silence, "digital silence, ln(0.01)")
FILLS.register("background", Background, "each band's 10th percentile over time")
FILLS.register("band_mean", BandMean, "each band's mean over time")
FILLS.register("mean", Mean, "mean of the example")
FILLS.register("noise", Noise, "background plus Gaussian noise (0.5 in natural log, 4.3 dB), drawn per mask")
FILLS.register("blur", Blur, "the example blurred by a Gaussian, 8 frames by 4 bands")
FILLS.register("zero", Zero, "0, Captum's and the paper's default; louder than silence in log-mel")


def get(name: str, **parameters: float) -> Fill:
    """Build a fill by name; see `FILLS`.

    Examples
    --------
    >>> get("silence").level(torch.zeros(1, 1, 96, 64))
    tensor(-4.6052)
    """
    return FILLS.get(name, **parameters)
