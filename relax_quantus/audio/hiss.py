"""Noise for the place of what is taken out of a sound: a seed -> a spectrum of even power.

Weighted by the level of a clip's own background it is the sound that is there when nothing else is
(`relax_quantus.encoders.spectral`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from relax_quantus.audio.stft import OVERLAP, SUM_OF_SQUARES, Stft


def hiss(stft: Stft, like: Tensor, seed: int, *, is_steady: bool) -> Tensor:
    """Draw noise whose spectrum has a mean power of 1 in every bin.

    Parameters
    ----------
    stft
        The windows.
    like
        Waveforms ``(..., N)``: their number of samples, type and device.
    seed
        Of a CPU generator of its own; the noise is the same on every device, and depends on nothing
        but N.
    is_steady
        Even out the magnitudes as far as a sound can have them (overlapping windows share samples),
        so that it does not crackle; else they fluctuate as those of Gaussian noise do.

    Returns
    -------
    Tensor
        ``(1, T, bins)``, complex.

    Examples
    --------
    >>> silent = torch.zeros(4096)
    >>> steady = hiss(Stft(16), silent, 0, is_steady=True)[:, 3:-3].abs()
    >>> natural = hiss(Stft(16), silent, 0, is_steady=False)[:, 3:-3].abs()
    >>> [round(float(magnitude.std() / magnitude.mean()), 1) for magnitude in (steady, natural)]
    [0.3, 0.5]
    """
    samples = like.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(1, samples, generator=generator, device="cpu", dtype=torch.float64)
    spectrum = stft.forward(drawn.to(like.dtype).to(like.device))
    if not is_steady:
        spectrum /= (SUM_OF_SQUARES * stft.hop_samples) ** 0.5
        return spectrum
    for _ in range(2):  # further rounds even out little more
        even = spectrum / spectrum.abs().clamp_min(torch.finfo(like.dtype).tiny)
        spectrum = stft.forward(stft.inverse(even, samples))
    power = spectrum[:, whole_windows(stft, samples)].abs().square()
    even_power: Tensor = spectrum / power.mean(1, keepdim=True).sqrt()
    return even_power


def whole_windows(stft: Stft, samples: int) -> slice:
    """Windows that lie wholly in a waveform; all if none does.

    Examples
    --------
    >>> whole_windows(Stft(16), 160), whole_windows(Stft(16), 40)
    (slice(3, 10, None), slice(None, None, None))
    """
    first, end = OVERLAP - 1, samples // stft.hop_samples
    return slice(first, end) if end > first else slice(None)
