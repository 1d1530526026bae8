"""What a page plays.

The original, and for every explanation what matters in it and all the rest at a few levels, within
a bound on the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relax_quantus.audio.reading import resample
from relax_quantus.frontend.examples import Axis
from relax_quantus.views.page.layers import Layer
from relax_quantus.views.page.packing import sound_uri
from relax_quantus.views.sounds import gain, separate
from relax_quantus.views.thresholds import FRACTION

RATE_HZ = 22_050
"""Pages play no more than this rate; encoders hear less."""
LEVELS = (0.1, 0.2, 0.5)
"""Fractions of the largest effect from which on bins matter, as far as there is room."""
MOST_CHARACTERS = 20_000_000
"""Room for the explained recording's sounds in a page."""

Wave = npt.NDArray[Any]


@dataclass(frozen=True)
class Sounds:
    """What can be heard of the explained recording, as data: URIs at one common loudness.

    Attributes
    ----------
    original
        The explained recording.
    levels
        Fractions of the largest effect, rising; of each there are both parts.
    parts
        For every layer, for every level: ``"kept"`` and ``"removed"``; None for layers for which
        there was no room.
    """

    original: str
    levels: list[float]
    parts: list[list[dict[str, str]] | None]


def carried(wave: Wave, rate_hz: int, end_s: float) -> tuple[Wave, int]:
    """The waveform up to `end_s` at no more than `RATE_HZ`, and its rate."""
    wave = np.asarray(wave, np.float32)[: max(1, round(end_s * rate_hz))]
    return (resample(wave, rate_hz, RATE_HZ), RATE_HZ) if rate_hz > RATE_HZ else (wave, rate_hz)


def sounds(wave: Wave, rate_hz: int, layers: Sequence[Layer], axis: Axis, fraction: float) -> Sounds | None:
    """Make the sounds of a page.

    The level `fraction` is there if any is. Less is carried where `MOST_CHARACTERS` would be passed
    by sounds as long as the original: fewer levels first, then only those of the first layers, then
    nothing at all, which is None.
    """
    original = sound_uri(wave, rate_hz)
    room = MOST_CHARACTERS / len(original) - 1
    if room < 0:
        return None
    heard = min(len(layers), int(room / 2))
    wanted = [fraction, *(level for level in LEVELS if level != fraction)]
    levels = sorted(wanted[: min(len(wanted), int(room / 2 / heard))] if heard else [])
    waves = [_parts(wave, rate_hz, layer, axis, levels) for layer in layers[:heard]]
    loudest = max([float(np.abs(wave).max())] + [float(np.abs(w).max()) for a in waves for b in a for w in b.values()])
    by = 1 / loudest if loudest > 1 else 1.0
    parts: list[list[dict[str, str]] | None] = [
        [{name: sound_uri(by * w, rate_hz) for name, w in both.items()} for both in layer] for layer in waves
    ]
    return Sounds(
        original if by == 1 else sound_uri(by * wave, rate_hz), levels, parts + [None] * (len(layers) - heard)
    )


def _parts(wave: Wave, rate_hz: int, layer: Layer, axis: Axis, levels: Sequence[float]) -> list[dict[str, Wave]]:
    """Both parts of the sound at every level."""
    standing, centred = layer.standing, layer.explanation.centred()
    largest, found = standing.bounds.effect / FRACTION, []
    for fraction in levels:
        none = np.zeros(centred.shape)
        gains = none if standing.bounds.is_empty else gain(centred, fraction * largest, among=standing.among)
        parts = separate(wave, rate_hz, gains, axis)
        found.append({"kept": parts.kept, "removed": parts.removed})
    return found
