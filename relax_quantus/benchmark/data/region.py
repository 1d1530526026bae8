"""Construct truth: an encoder that sees one region of the spectrogram and nothing else.

Usable on any data set, real ones included. A clip and a seed enter, a box of known extent in time
and frequency leaves (`draw`); an encoder and a clip enter, an encoder leaves whose embedding
depends on the bins inside the box alone (`SeesOnly`). Any importance that a map puts elsewhere is
wrong, whatever the encoder has learned. Outside the box the wrapped encoder is always given the
clip itself, so that what it is run on is as natural as the clip, and no fill is preferred.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus.benchmark.data.clips import Clip
from relax_quantus.frontend.examples import Axis
from relax_quantus.frontend.log_mel import LogMelAxis

TIME_S = (0.2, 0.48)
BANDS = (3 / 16, 1 / 2)
"""Extent of a box in seconds, and as a share of the bands."""
STREAM = 40_503


class SeesOnly(nn.Module):
    """An encoder ``(n, 1, T, F) -> (n, D)`` that sees ``x`` in a region and a frozen clip outside.

    Parameters
    ----------
    encoder
        Shared, not copied.
    region
        bool ``(T, F)``, True where it sees.
    outside
        ``(1, T, F)`` or ``(1, 1, T, F)``: what it is given elsewhere.

    Examples
    --------
    >>> region = np.zeros((96, 64), dtype=bool)
    >>> region[:10, :10] = True
    >>> encoder = SeesOnly(nn.Flatten(), region, torch.zeros(1, 96, 64))
    >>> float(encoder(torch.ones(2, 1, 96, 64)).sum())
    200.0
    """

    region: Tensor
    outside: Tensor

    def __init__(self, encoder: nn.Module, region: npt.NDArray[np.bool_], outside: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("region", torch.from_numpy(region.copy()).bool())
        self.register_buffer("outside", outside.detach().clone().reshape(1, 1, *region.shape))
        self.training = getattr(encoder, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        """Embed what is inside the region."""
        return torch.as_tensor(self.encoder(torch.where(self.region, x, self.outside)))


def draw(x: Tensor, name: str, seed: int) -> npt.NDArray[np.bool_]:
    """Draw a box of .2 to .48 s by 3/16 to half of the bands where there is energy, ``(T, F)``.

    Of all places for a box of the drawn size one is drawn evenly among the half whose mean level is
    highest: where there is energy, but not where there is most, so that a map of energy does not
    find the box by itself.

    Parameters
    ----------
    x
        ``(1, T, F)``, with its axis if it has one; else frames are as long as VGGish's.
    name, seed
        Of the clip, and of the run: together they are all that the draw depends on beside `x`.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), STREAM])
    frames, bands = (int(rng.integers(low, high + 1)) for low, high in _extents(x))
    level = np.pad(x[0].double().numpy().cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = level[frames:, bands:] - level[:-frames, bands:] - level[frames:, :-bands] + level[:-frames, :-bands]
    above = sums > np.median(sums)
    loud = np.argwhere(above if above.any() else sums == sums.max())
    start, low = loud[int(rng.integers(len(loud)))]
    region = np.zeros(x.shape[-2:], dtype=bool)
    region[start : start + frames, low : low + bands] = True
    return region


def _extents(x: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the fewest and most frames and bands of a box; never the whole of either axis."""
    axis: Axis = getattr(x, "axis", None) or LogMelAxis()
    hop_s, found = axis.hop_s if axis.in_seconds else LogMelAxis().hop_s, []
    for size, limits in ((x.shape[-2], [s / hop_s for s in TIME_S]), (x.shape[-1], [s * x.shape[-1] for s in BANDS])):
        low, high = (min(max(1, round(limit)), max(1, size - 1)) for limit in limits)
        found.append((low, high))
    return found[0], found[1]


def with_region(clip: Clip, seed: int) -> Clip:
    """Return the clip with a region of its own; one that has a region keeps it."""
    return clip if clip.region is not None else replace(clip, region=draw(clip.x, clip.name, seed))
