"""Importance -> sound: the part of a recording that mattered, and the rest.

A leaf of the flow beside the pictures: a map ``(n, 1, T, F)`` becomes a gain between 0 and 1 (`gain`), which acts on the complex short-time
spectrum of the *original* waveform, at its own rate; the original phase brings it back to a waveform (`separate`). ``kept`` and ``removed`` add
up to the original. Mel bands become frequencies by the bands' own triangles, frames become times by interpolation, so the gain has no jumps
from which musical noise would come. What the front end cannot hear (VGGish: below 125 Hz and above 7500 Hz), and what was not explained (a
partial last example), cannot have mattered and is in ``removed``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from relax_quantus import __version__, checks
from relax_quantus.axes import Axis, Image, SampleAxis
from relax_quantus.errors import ArgumentTypeError, MissingDependencyError, ShapeError
from relax_quantus.explanation import Explanation
from relax_quantus.frontend import hz_to_mel
from relax_quantus.thresholds import Bins, Values, as_values, least_effect, standing_out

WINDOW_S = 0.032
OVERLAP = 4
"""Windows over each sample; their squares then add up to a constant for a Hann window."""
BLOCK = 512
"""Windows transformed at a time, which bounds the memory that a long recording needs."""
FLAT = 1e-12
SUBTYPES = {".wav": "PCM_24", ".flac": "PCM_24"}
MADE_BY = f"relax_quantus {__version__}"
"""What sound files say of the program that wrote them: by this, listings of recordings leave them out (`relax_quantus.folders`)."""

Wave = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Parts:
    """A recording in two parts, each float32 ``(samples,)`` at `rate_hz`, that add up to it.

    Attributes
    ----------
    kept
        Only what matters.
    removed
        All but what matters.
    """

    kept: Wave
    removed: Wave
    rate_hz: int


def gain(
    values: Explanation | Tensor | npt.NDArray[Any],
    threshold: float | None = None,
    softness: float = 0.25,
    *,
    among: Bins | None = None,
) -> Values:
    """Return how much of each bin is kept: 1 / (1 + exp((threshold - value) / (softness x the map's deviation))).

    Parameters
    ----------
    values
        The explanation of a recording's examples, from ``explain(null=True)``: nothing is kept of what chance draws,
        nor of examples in which the network hears nothing (`relax_quantus.thresholds.standing_out`). Or any map of any
        shape, of which nothing is known but its values. Bins that are NaN get 0.
    threshold
        In the map's units, where the gain is 1/2; by default a fraction of the largest effect
        (`relax_quantus.thresholds.least_effect`).
    softness
        Width of the transition, in standard deviations of the map; 0 switches.
    among
        Bool, shaped like the map: the only bins of which anything is kept; by default all of a map, and of an
        explanation those beyond chance.

    Returns
    -------
    numpy.ndarray of float64
        Shaped like the map, in [0, 1]; all 0 where nothing stands out, as in a flat map.

    Raises
    ------
    ArgumentError
        If `softness` is negative or `threshold` is not finite.

    Examples
    --------
    >>> gain(np.array([0.0, 1.0, 2.0]), threshold=1.0).round(3)
    array([0.007, 0.5  , 0.993])
    """
    if not (np.isfinite(softness) and softness >= 0):
        checks.refuse("softness", "a number that is not negative", softness, "0.25 is the default")
    if threshold is not None and not np.isfinite(threshold):
        checks.refuse("threshold", "a finite number", threshold, "leave it out for a fraction of the largest effect")
    if isinstance(values, Explanation):
        standing = standing_out(values)
        found, at = as_values(values.centred()), standing.bounds.effect
        among = standing.among if among is None else among
    else:
        found = as_values(values)
        at = least_effect(found)
    at = at if threshold is None else threshold
    finite = np.isfinite(found)
    if not finite.any() or np.ptp(found[finite]) < FLAT or np.isnan(at):
        return np.zeros_like(found)
    gains = transition(found, at, softness * float(found[finite].std()))
    return gains if among is None else gains * among


def transition(values: Values, threshold: float, width: float) -> Values:
    """The gain of `gain` with the width of its transition in the map's units; NaN gets 0."""
    finite = np.isfinite(values)
    distance = np.where(finite, values, threshold) - threshold
    if width < FLAT:
        return np.asarray((distance > 0) & finite, dtype=np.float64)
    return np.asarray(finite / (1.0 + np.exp(np.clip(-distance / width, -500.0, 500.0))))


def separate(wave: npt.NDArray[Any], rate_hz: int, gains: Tensor | npt.NDArray[Any], axis: Axis | None = None) -> Parts:
    """Split a waveform into what a gain keeps and what it removes.

    Parameters
    ----------
    wave
        ``(samples,)``, floating, as `relax_quantus.read_audio` returns it: at the recording's own rate, which need not be the encoder's.
    rate_hz
        Its sample rate in Hz.
    gains
        ``(n, 1, T, F)`` in [0, 1] for examples that lie end to end, as `gain` makes them; ``(n, samples)`` for encoders of waveforms.
    axis
        What the gains' axes stand for; VGGish's front end from 0 s by default.

    Returns
    -------
    Parts
        At `rate_hz`, as long as `wave`.

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        If something does not fit, or bands are no frequencies (cepstra), which cannot be filtered.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal(44_100).astype(np.float32)
    >>> parts = separate(noise, 44_100, np.full((1, 1, 96, 64), 0.5))
    >>> bool(np.allclose(parts.kept + parts.removed, noise, atol=1e-6))
    True
    """
    rate_hz, axis = checks.integer("rate_hz", rate_hz), axis or Axis()
    wave = np.asarray(wave)
    if wave.ndim != 1 or wave.size == 0:
        checks.refuse("wave", "shape (samples,), at least one", wave, "mix channels down to mono first", ShapeError)
    if wave.dtype.kind != "f":
        checks.refuse("wave", "floating-point samples", wave, "scale it to [-1, 1] first", ArgumentTypeError)
    image = _image(gains, axis)
    window = OVERLAP * max(1, round(WINDOW_S * rate_hz / OVERLAP))
    spread = _bands_to_bins(axis, np.asarray(np.fft.rfftfreq(window, 1.0 / rate_hz), np.float64))
    kept = _filtered(np.asarray(wave, np.float64), rate_hz, window, image, spread, axis).astype(np.float32)
    return Parts(kept, (wave - kept).astype(np.float32), rate_hz)


def _image(gains: Tensor | npt.NDArray[Any], axis: Axis) -> Image:
    """The gains end to end as ``(F, frames)``; one row for waveforms."""
    values = as_values(gains)
    if isinstance(axis, SampleAxis):
        fits, rule = values.ndim == 2 and values.size > 0, "shape (n, samples)"
    else:
        fits = values.ndim == 4 and values.shape[1] == 1 and values.size > 0 and values.shape[3] == axis.bands
        rule = f"shape (n, 1, T, {axis.bands})"
    if not fits:
        checks.refuse("gains", rule, gains, "pass the map's gain as `gain` returns it", ShapeError)
    if not (values.min() >= 0 and values.max() <= 1):
        checks.refuse("gains", "numbers from 0 to 1", values, "make them with relax_quantus.listening.gain")
    return values.reshape(1, -1) if values.ndim == 2 else values.reshape(-1, values.shape[3]).T


def _bands_to_bins(axis: Axis, hz: Image) -> Image:
    """Share ``(bins, F)`` of every band in every frequency: triangles between the bands' centres, linear in mel, 0 outside of all bands."""
    if isinstance(axis, SampleAxis):
        return np.ones((hz.size, 1))
    centres = axis.centres_hz
    if centres is None:
        checks.refuse("axis", "bands that are frequencies", axis.label, "listen with a spectrogram's front end")
    mel = hz_to_mel(centres)
    if mel.size == 1:
        return np.ones((hz.size, 1))
    knots = np.concatenate([[2 * mel[0] - mel[1]], mel, [2 * mel[-1] - mel[-2]]])
    return np.stack([np.interp(hz_to_mel(hz), knots, row) for row in np.eye(mel.size, mel.size + 2, 1)], axis=1)


def _at_times(image: Image, axis: Axis, times_s: Image) -> Image:
    """The gains ``(F, times)`` between the frames; held for half a window beyond the first and last, then 0 within a frame or a window's step."""
    frames = image.shape[1]
    position = (times_s - axis.times_s(1)[0]) / axis.hop_s
    lower = np.clip(np.floor(position).astype(int), 0, max(frames - 2, 0))
    upper = np.minimum(lower + 1, frames - 1)
    share = np.clip(position - lower, 0.0, 1.0)
    beyond = np.maximum(-position, position - (frames - 1)) - axis.window_s / 2 / axis.hop_s
    return np.asarray((image[:, lower] * (1 - share) + image[:, upper] * share) * np.clip(1 - beyond, 0.0, 1.0))


def _filtered(wave: Image, rate_hz: int, window: int, image: Image, spread: Image, axis: Axis) -> Image:
    """Overlap-add: Hann window, transform, gain, back, Hann window again, divided by the sum of the squared windows."""
    hop = window // OVERLAP
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    count = -(-wave.size // hop) + OVERLAP - 1
    padded = np.zeros((count + OVERLAP - 1) * hop)
    padded[window - hop : window - hop + wave.size] = wave
    out = np.zeros((count + OVERLAP - 1, hop))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    middles = (np.arange(count) - (OVERLAP - 1)) * hop + window / 2
    times = np.clip(middles, 0, wave.size) / rate_hz  # windows over the edge of the recording count as at its edge
    for start in range(0, count, BLOCK):
        part = slice(start, start + BLOCK)
        gains = spread @ _at_times(image, axis, times[part])
        spectrum = np.fft.rfft(windows[part] * hann, axis=1) * gains.T
        back = (np.fft.irfft(spectrum, n=window, axis=1) * hann).reshape(-1, OVERLAP, hop)
        for quarter in range(OVERLAP):
            out[start + quarter : start + quarter + len(back)] += back[:, quarter]
    return np.asarray(out.reshape(-1)[window - hop : window - hop + wave.size] / (np.square(hann).sum() / hop))


def write_sound(path: str | os.PathLike[str], wave: npt.NDArray[Any], rate_hz: int) -> Path:
    """Write a waveform ``(samples,)`` as WAV or FLAC, by the name's ending, with 24 bits; beyond full scale it is clipped.

    Raises
    ------
    ArgumentError
        If the name ends otherwise.
    OSError
        If the file cannot be written.
    """
    import soundfile

    path = Path(path)
    subtype = SUBTYPES.get(path.suffix.lower())
    if subtype is None:
        checks.refuse("path", f"a name that ends in {' or '.join(SUBTYPES)}", repr(path.name), "change the ending")
    with path.open("wb") as target:
        values, container = np.asarray(wave), path.suffix[1:].upper()
        channels = 1 if values.ndim == 1 else values.shape[1]
        with soundfile.SoundFile(target, "w", rate_hz, channels, subtype, format=container) as sound:
            sound.software = MADE_BY
            sound.write(values)
    return path


def player(wave: npt.NDArray[Any], rate_hz: int) -> Any:
    """An ``IPython.display.Audio`` of a waveform ``(samples,)`` for notebooks, at its own level (not normalised, so that parts compare).

    Raises
    ------
    MissingDependencyError
        If IPython is not installed.
    """
    try:
        from IPython.display import Audio
    except ImportError as error:
        raise MissingDependencyError(
            "player: expected IPython, got none; run in a notebook or pip install ipython."
        ) from error
    return Audio(np.clip(np.asarray(wave), -1.0, 1.0), rate=rate_hz, normalize=False)
