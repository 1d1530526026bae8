"""Find what the axes of a front end of the user's own stand for.

It may say so itself, its parts may, and clicks and tones tell the rest.

Beside `relax_quantus.frontend.front_end`: a `TransformFrontEnd` or any other front end enters, a
`BinAxis` leaves. Nothing is told by shape alone: parts are believed if they make as many frames as
they say and tones are loudest where they say; what nobody knows is counted and called so.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus.base import checks
from relax_quantus.base.checks import duration
from relax_quantus.errors import ShapeError
from relax_quantus.frontend.axes import COUNTED, BinAxis
from relax_quantus.frontend.frame_times import FrameTimes, confirmed, measure
from relax_quantus.frontend.framing import KNOWN
from relax_quantus.frontend.log_mel import LogMel, mel_centres_hz

if TYPE_CHECKING:
    from relax_quantus.frontend.transform import TransformFrontEnd

TRANSFORMS = ("MelSpectrogram", "Spectrogram", "MFCC", "LFCC")
"""Those of ``torchaudio.transforms`` that make a spectrogram from a waveform."""
MOST_APART = 2.0
"""Frames by which examples of a front end of one's own may overlap or leave gaps, and still be
drawn end to end in seconds."""
Wave = npt.NDArray[np.float32]


def spectral_part(front_end: TransformFrontEnd) -> nn.Module | None:
    """Find the part of torchaudio's transforms that knows how frames lie.

    It is the innermost, which has all of it.
    """
    parts = [m for m in front_end.transform.modules() if hasattr(m, "hop_length") and hasattr(m, "n_fft")]
    return next((m for m in parts if hasattr(m, "center")), parts[0] if parts else None)


def transform_axis(front_end: TransformFrontEnd) -> BinAxis:
    """Find the axes of torchaudio's transforms.

    They are as the transforms say, if that agrees with the frames that they make; otherwise
    measured.
    """
    inner = front_end.transform
    spectral = spectral_part(front_end)
    size = front_end.silence().shape[-1]

    def make(wave: Wave) -> Tensor:
        return front_end.spectrogram(wave)[:, None]

    parts = [type(module).__name__ for module in inner.modules()]
    of_parts = None if spectral is None else times_of_parts(front_end, spectral)
    times = said_times(inner, lambda: of_parts or measure(make, front_end.sample_rate_hz))
    heading = next((part for part in parts if part in TRANSFORMS), parts[0])
    value = "value" if front_end.log_offset is None else f"ln({heading} + {front_end.log_offset:g})"
    bins, cepstra = said_bins(inner, size), heading in ("MFCC", "LFCC")
    if not bins and not cepstra:
        bins = bins_of_parts(inner, front_end.sample_rate_hz, size)
        known = of_parts is not None and all(part in KNOWN for part in parts)
        bins = bins if known or confirmed(make, front_end.sample_rate_hz, bins) else ()
    label = BinAxis.label if bins else "coefficient" if cepstra else "band"
    axis = BinAxis(size=size, bins_hz=bins, label=label, value_label=value, heading=heading)
    return timed(axis, times)


def times_of_parts(front_end: TransformFrontEnd, spectral: nn.Module) -> FrameTimes | None:
    """Compute when frames are from a transform's window, hop, padding and centring.

    None if it does not make as many frames as these say.
    """
    rate = rate_of_parts(front_end.transform, front_end.sample_rate_hz)
    hop, window = int(spectral.hop_length), int(spectral.n_fft)  # type: ignore[arg-type]
    pad, centred = int(getattr(spectral, "pad", 0)), bool(getattr(spectral, "center", True))
    for seconds in (3.0, 4.7):
        wave = np.zeros(round(seconds * front_end.sample_rate_hz), np.float32)
        samples = round(wave.size * rate / front_end.sample_rate_hz) + 2 * pad
        expected = 1 + (samples - (0 if centred else window)) // hop
        if samples < window or front_end.spectrogram(wave).shape[1] != expected:
            return None
    seen = int(getattr(spectral, "win_length", window) or window)
    return FrameTimes(hop / rate, ((0 if centred else window / 2) - pad) / rate, seen / rate)


def rate_of_parts(module: nn.Module, rate_hz: int) -> float:
    """Find the rate at which a transform's frames are made: it may resample first."""
    return next((float(m.new_freq) for m in module.modules() if hasattr(m, "new_freq")), float(rate_hz))  # type: ignore[arg-type]


def bins_of_parts(module: nn.Module, rate_hz: int, size: int) -> tuple[float, ...]:
    """Find centres of bands by what the parts of a front end say, if there are as many.

    Empty if none does.
    """
    for part in module.modules():
        if isinstance(part, LogMel) and part.config.mel_bands == size:
            return tuple(float(hz) for hz in part.config.band_centres_hz)
        if type(part).__name__ == "MelScale" and int(part.n_mels) == size:  # type: ignore[arg-type]
            return mel_centres_hz(part.f_min, part.f_max, size, part.mel_scale)  # type: ignore[arg-type]
    for part in module.modules():
        onesided = getattr(part, "onesided", True) is not False
        if hasattr(part, "n_fft") and size == int(part.n_fft) // 2 + 1 and onesided:  # type: ignore[arg-type]
            return tuple(float(hz) for hz in np.linspace(0, rate_of_parts(module, rate_hz) / 2, size))
    return ()


def timed(axis: BinAxis, times: FrameTimes | str, frames: int = 0) -> BinAxis:
    """Put what is known of frames' times on an axis.

    Where nothing is, frames are counted, and a warning says so.
    """
    if isinstance(times, FrameTimes) and times.example_frames:
        off = abs(times.example_frames * times.every_s - times.example_s) / times.every_s
        if off > MOST_APART:
            times = f"its examples begin every {duration(times.example_s)} s and overlap or leave gaps"
    if isinstance(times, str):
        remedy = "give it hop_s and first_s (of the first frame's middle) if you know better"
        warnings.warn(
            f"front end {axis.heading}: when its frames are could not be found out ({times}); they are counted; {remedy}",
            stacklevel=2,
        )
        return replace(axis, every_s=1.0, time_label=COUNTED)
    return replace(
        axis,
        every_s=times.every_s,
        first_s=times.first_s,
        window_s=times.window_s,
        example_frames=times.example_frames,
        example_s=times.example_s,
    )


def knows_no_rest(front_end: TransformFrontEnd) -> bool:
    """Tell whether what silence becomes does not depend on the rest of a recording.

    Known of torchaudio's transforms without ``top_db``.
    """
    parts = list(front_end.transform.modules())
    return all(type(p).__name__ in KNOWN and getattr(p, "top_db", None) is None for p in parts)


def said_axis(found: Any, make: Callable[[Wave], Tensor], rate_hz: int, bands: int, value: str) -> BinAxis:
    """Find the axes of a front end of the user's own.

    They follow from what it says of itself, from what its parts say if tones confirm it, and from
    what clicks tell.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If what it says cannot be.
    """
    bins = said_bins(found, bands)
    if not bins and isinstance(found, nn.Module):
        bins = bins_of_parts(found, rate_hz, bands)
        bins = bins if confirmed(make, rate_hz, bins) else ()
    heading = getattr(found, "__name__", type(found).__name__)
    heading = f"{heading}, magnitude of complex values" if value == "magnitude" else heading
    label = BinAxis.label if bins else "band"
    axis = BinAxis(size=bands, bins_hz=bins, label=label, value_label=value, heading=heading)
    return timed(axis, said_times(found, lambda: measure(make, rate_hz)))


def said_bins(found: Any, bands: int) -> tuple[float, ...]:
    """Read the centres of bands that a front end says itself, as ``frequencies_hz``.

    Empty if it does not.
    """
    if getattr(found, "frequencies_hz", None) is None:
        return ()
    given = np.asarray(torch.as_tensor(found.frequencies_hz).detach().cpu(), np.float64)
    remedy = "give the bands' centres"
    if given.shape != (bands,):
        checks.refuse("frequencies_hz", f"one frequency a band, shape ({bands},)", given, remedy, ShapeError)
    if not (np.isfinite(given).all() and given[0] >= 0 and (np.diff(given) > 0).all()):
        checks.refuse("frequencies_hz", "rising frequencies in Hz from 0 up", given.tolist(), remedy)
    return tuple(float(hz) for hz in given)


def said_times(found: Any, otherwise: Callable[[], FrameTimes | str]) -> FrameTimes | str:
    """Read when frames are from ``hop_s``, ``first_s`` and ``window_s`` of a front end.

    What the front end does not say is as `otherwise` finds.
    """
    hop, first, window = (getattr(found, name, None) for name in ("hop_s", "first_s", "window_s"))
    hop = None if hop is None else checks.positive("hop_s", hop)
    window = None if window is None else checks.positive("window_s", window)
    if first is not None and not (isinstance(first, int | float) and math.isfinite(first)):
        checks.refuse("first_s", "the middle of the first frame's window in seconds", repr(first), "leave it out")
    if hop is not None and first is not None:
        return FrameTimes(hop, float(first), window or 0.0)
    times = otherwise()
    if isinstance(times, str):
        return times if hop is None else FrameTimes(hop, (window or hop) / 2, window or 0.0)
    times = replace(times, every_s=hop or times.every_s, window_s=window or times.window_s)
    return times if first is None else replace(times, first_s=float(first))
