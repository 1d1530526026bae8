"""Make what a network hears under masks: a spectrum and its fill, once, and gains -> its input.

Between `relax_quantus.audio.stft` and `relax_quantus.encoders.spectral`: the arithmetic of masks on
sound, without the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relax_quantus.audio.stft import Stft

GAINS = ("dB", "amplitude")
FLOOR_DB = -60.0
"""Level of a mask value just above 0 with ``gain="dB"``."""
CPU_CELLS, OTHER_CELLS = 1 << 18, 1 << 24
"""Cells of spectra filtered at a time: on a CPU as many as its cache holds, in half the time."""


@dataclass(frozen=True, eq=False)
class Filter:
    """Turn masks on a grid into gains of a spectrum's cells.

    Parameters
    ----------
    stft
        The windows.
    shares
        ``(F, bins)``: the share of each band's gain in each bin.
    gain
        ``"dB"`` or ``"amplitude"``, see `amplitude`.
    """

    stft: Stft
    shares: Tensor
    gain: str

    def filtered(self, content: Tensor, fill: Tensor | None, masks: Tensor, samples: int) -> Tensor:
        """Filter spectra ``(k or 1, T + 2, bins)`` by masks ``(k, T, F)``, to ``(k, N)``."""
        factors = amplitude(masks, self.gain)
        factors = torch.cat([factors[:, :1], factors, factors[:, -1:]], 1) @ self.shares
        spectrum = content * factors
        if fill is not None:
            spectrum = spectrum + fill * (1 - factors)
        return self.stft.inverse(spectrum, samples)


@dataclass(frozen=True, eq=False)
class MaskedSound:
    """Hold what is computed of waveforms once, however many masks follow; takes their place.

    Attributes
    ----------
    waveform
        ``(B, N)``.
    content
        Its spectrum ``(B, T + 2, bins)``, complex; without a filter the network's own spectrogram,
        ``(B, T, F)`` or ``(B, 1, T, F)``.
    fill
        The fill's, of B rows or one; None for silence on a waveform, which adds nothing.
    filter
        How masks act on a spectrum; None where they are weights of a spectrogram.
    """

    waveform: Tensor
    content: Tensor
    fill: Tensor | None
    filter: Filter | None = None

    def __len__(self) -> int:
        """Number of waveforms B."""
        return len(self.waveform)

    def masked(self, gains: Tensor, rows: slice) -> Tensor:
        """Return what the network is given of some rows: waveforms, or spectrograms.

        Parameters
        ----------
        gains
            ``(n, 1, T, F)``; row i belongs to waveform i modulo B.
        rows
            Which of the n.
        """
        cells = CPU_CELLS if gains.device.type == "cpu" else OTHER_CELLS
        step = max(1, cells // self.content[0].numel())
        parts = []
        for start in range(rows.start, rows.stop, step):
            some = torch.arange(start, min(start + step, rows.stop), device=gains.device)
            which = None if len(self) == 1 else some % len(self)
            content, fill = _rows(self.content, which), None if self.fill is None else _rows(self.fill, which)
            masks = gains[start : start + len(some), 0].to(self.waveform.dtype)
            if self.filter is None:
                parts.append(weighted(content, fill, masks))
            else:
                parts.append(self.filter.filtered(content, fill, masks, self.waveform.shape[1]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def amplitude(masks: Tensor, gain: str) -> Tensor:
    """Return the factors that mask values stand for.

    With ``"dB"`` 10^(-3 (1 - m)), and 0 at 0; with ``"amplitude"`` m.

    Examples
    --------
    >>> amplitude(torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]), "dB")
    tensor([0.0000, 0.0100, 0.1000, 1.0000])
    """
    if gain == "amplitude":
        return masks
    return torch.where(masks > 0, torch.pow(10.0, (1 - masks) * (FLOOR_DB / 20)), 0.0)


def weighted(content: Tensor, fill: Tensor | None, masks: Tensor) -> Tensor:
    """Blend spectrograms ``(k or 1, ..., T, F)`` by masks ``(k, T, F)``; exact at 0 and at 1."""
    weights = (masks[:, None] if content.ndim == 4 else masks).to(content.dtype)
    fill = torch.zeros_like(content) if fill is None else fill
    return torch.lerp(fill.expand_as(weights), content.expand_as(weights), weights)


def is_repeated(batch: Tensor, wave: Tensor) -> bool:
    """Return whether waveforms ``(n, N)`` are a batch ``(b, N)``, n / b times.

    Examples
    --------
    >>> wave = torch.arange(8.0).reshape(2, 4)
    >>> is_repeated(wave, wave.repeat(3, 1)), is_repeated(wave[:1], wave)
    (True, False)
    """
    same = batch.shape[1:] == wave.shape[1:] and batch.dtype == wave.dtype and batch.device == wave.device
    if not same or len(wave) % len(batch):
        return False
    return all(torch.equal(some, batch) for some in torch.split(wave, len(batch)))


def _rows(values: Tensor, which: Tensor | None) -> Tensor:
    """Rows of B, or the only one there is."""
    return values if which is None or len(values) == 1 else values[which]
