"""Fills by their definitions, with numpy and loops; an example is ``(T, F)``."""

from __future__ import annotations

import math

import numpy as np


def percentile(values: np.ndarray, percent: float) -> float:
    """The value below which `percent` of the sorted values lie,
    linear between order statistics (Hyndman and Fan's type 7).
    """
    ordered = sorted(float(v) for v in values)
    position = percent / 100 * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def background(x: np.ndarray) -> np.ndarray:
    """Each band's 10th percentile over time."""
    return np.broadcast_to([percentile(x[:, f], 10) for f in range(x.shape[1])], x.shape)


def band_mean(x: np.ndarray) -> np.ndarray:
    """Each band's mean over time."""
    return np.broadcast_to([sum(x[:, f]) / len(x) for f in range(x.shape[1])], x.shape)


def mean(x: np.ndarray) -> np.ndarray:
    """The example's mean."""
    return np.full(x.shape, x.sum() / x.size)


def silence(x: np.ndarray) -> np.ndarray:
    """ln(0.01), VGGish's log-mel of no sound."""
    return np.full(x.shape, math.log(0.01))


def zero(x: np.ndarray) -> np.ndarray:
    """0."""
    return np.zeros(x.shape)


def blur(x: np.ndarray, sigma_frames: float = 8.0, sigma_bands: float = 4.0) -> np.ndarray:
    """Gaussian average over time and frequency with weights that sum to 1 inside the example."""
    out = np.zeros(x.shape)
    for t in range(x.shape[0]):
        for f in range(x.shape[1]):
            w_t = np.exp(-0.5 * ((np.arange(x.shape[0]) - t) / sigma_frames) ** 2)
            w_f = np.exp(-0.5 * ((np.arange(x.shape[1]) - f) / sigma_bands) ** 2)
            weights = np.outer(w_t, w_f)
            out[t, f] = (weights * x).sum() / weights.sum()
    return out


LEVELS = {
    "silence": silence,
    "zero": zero,
    "background": background,
    "band_mean": band_mean,
    "mean": mean,
    "noise": background,
    "blur": blur,
}
