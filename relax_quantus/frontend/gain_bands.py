"""Windows and bands of gains that filter a waveform, from what a network hears.

Samples, sample rate and a range of frequencies enter; the length of a window, the bands' centres in
Hz and the share of each band in each bin of a short-time spectrum leave. Below masks on waveforms
(`relax_quantus.encoders.spectral`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from relax_quantus.base import checks

WINDOWS_AN_EXAMPLE = 128
"""A window lasts this part of an example, rounded to a power of two in samples."""
LEAST_WINDOW = 64
"""Samples of a window at least, room for eight bands; a quarter of the example if that is less."""
LEAST_SAMPLES = 16
"""An example that is shorter cannot be filtered."""
MAIN_LOBE_BINS = 4
"""Width of a Hann window's main lobe, from zero to zero."""

Array = npt.NDArray[np.float64]


def window_for(samples: int) -> int:
    """Choose the length of a window in samples, a power of two.

    Parameters
    ----------
    samples
        Of an example; at least `LEAST_SAMPLES`.

    Examples
    --------
    >>> lengths = [(48_000, 3), (16_000, 1), (250, 20), (256_000, 0.003)]
    >>> [window_for(round(rate * seconds)) for rate, seconds in lengths]
    [1024, 128, 64, 64]
    """
    checks.integer("samples", samples, low=LEAST_SAMPLES)
    window = round(math.log2(max(1.0, samples / WINDOWS_AN_EXAMPLE)))
    return 1 << max(window, min(round(math.log2(LEAST_WINDOW)), math.floor(math.log2(samples / 4))))


def band_centres_hz(low_hz: float, high_hz: float, bands: int, least_hz: float) -> tuple[float, ...]:
    """Place bands from `low_hz` to `high_hz`: spaced by ratios, but never closer than `least_hz`.

    Parameters
    ----------
    low_hz, high_hz
        The lowest and the highest centre.
    bands
        So many, or as many as fit.
    least_hz
        Least distance of neighbours: a main lobe, which makes a band, from the centre below to the
        centre above, two wide.

    Returns
    -------
    tuple of float
        Rising, in Hz: evenly spaced at first, by equal ratios from where these are wider than
        `least_hz`.

    Examples
    --------
    >>> [round(hz) for hz in band_centres_hz(100, 6400, 7, 50)]
    [100, 200, 400, 800, 1600, 3200, 6400]
    >>> [round(hz) for hz in band_centres_hz(100, 6400, 7, 400)]
    [100, 500, 904, 1475, 2406, 3924, 6400]
    >>> [round(hz) for hz in band_centres_hz(0, 1000, 64, 250)]
    [0, 250, 500, 750, 1000]
    """
    most = math.floor((high_hz - low_hz) / least_hz + 1e-9)
    if bands == 1 or most < 1:
        return (math.sqrt(low_hz * high_hz) if low_hz > 0 else high_hz / 2,)
    if bands - 1 >= most:
        return tuple(float(hz) for hz in np.linspace(low_hz, high_hz, most + 1))
    narrow, wide = 1e-9, math.log(max(high_hz / max(low_hz, 1e-9), 2.0))
    for _ in range(100):  # wider ratios, fewer bands
        middle = math.sqrt(narrow * wide)
        steps = _steps(np.asarray([high_hz]), low_hz, middle, least_hz)[0]
        narrow, wide = (middle, wide) if steps > bands - 1 else (narrow, middle)
    turn = min(max(least_hz / wide, low_hz), high_hz)
    at_turn = (turn - low_hz) / least_hz
    step = np.arange(bands)
    even = low_hz + step * least_hz
    ratios = turn * np.exp(np.minimum((step - at_turn) * wide, 700.0))
    centres = np.where(step <= at_turn, even, ratios)
    centres[-1] = high_hz
    return tuple(float(hz) for hz in centres)


def _steps(hz: Array, low_hz: float, ratio: float, least_hz: float) -> Array:
    """Bands from `low_hz` up to `hz`, each max(least_hz, ratio * hz) wide."""
    turn = max(least_hz / ratio, low_hz)
    even = (np.minimum(hz, turn) - low_hz) / least_hz
    return np.asarray(even + np.log(np.maximum(hz, turn) / turn) / ratio)


def band_shares(centres_hz: tuple[float, ...], bins_hz: Array) -> Array:
    """Return the share of each band in each bin, ``(F, bins)``: triangles linear in Hz.

    Columns sum to 1: bins below the lowest centre belong to the lowest band, bins above the highest
    to the highest.

    Examples
    --------
    >>> band_shares((100.0, 200.0), np.array([0.0, 100.0, 125.0, 300.0]))
    array([[1.  , 1.  , 0.75, 0.  ],
           [0.  , 0.  , 0.25, 1.  ]])
    """
    return np.stack([np.interp(bins_hz, centres_hz, row) for row in np.eye(len(centres_hz))])
