"""Importance -> sound: the part of a recording that mattered, and the rest.

A leaf of the flow beside the pictures: a map ``(n, 1, T, F)`` becomes a gain between 0 and 1
(`gain`), which acts on the complex short-time spectrum of the *original* waveform, at its own rate;
the original phase brings it back to a waveform (`separate`). ``kept`` and ``removed`` add up to the
original. Mel bands become frequencies by the bands' own triangles, frames become times by
interpolation, so the gain has no jumps from which musical noise would come. What the front end
cannot hear (VGGish: below 125 Hz and above 7500 Hz), and what was not explained (a partial last
example), cannot have mattered and is in ``removed``.
"""

from __future__ import annotations

import errno
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from relax_quantus import __version__
from relax_quantus.audio.quality import AudioWarning
from relax_quantus.audio.reading import Recording, waveform_blocks
from relax_quantus.base import checks
from relax_quantus.base.files import complete
from relax_quantus.errors import ArgumentTypeError, MissingDependencyError, ShapeError
from relax_quantus.frontend.axes import SampleAxis
from relax_quantus.frontend.examples import Axis, Image
from relax_quantus.frontend.framing import Sliding
from relax_quantus.frontend.log_mel import LogMelAxis, hz_to_mel
from relax_quantus.views.thresholds import Bins, Values, as_values, is_explanation, least_effect, standing_out

if TYPE_CHECKING:
    from relax_quantus.relax.explanation import Explanation

WINDOW_S = 0.032
OVERLAP = 4
"""Windows over each sample; their squares then add up to a constant for a Hann window."""
BLOCK = 512
"""Windows transformed at a time, which bounds the memory that a long recording needs."""
FLAT = 1e-12
STRETCH = 1 << 18
"""Samples that are written or read at a time."""
CHUNK_S = 20.0
"""Seconds that are split at a time."""
NOT_WHOLE = "could not be written whole; is the disk full?"
SUBTYPES = {".wav": "PCM_24", ".flac": "PCM_24"}
MADE_BY = f"relax_quantus {__version__}"
"""What sound files say of the program that wrote them.

By this, listings of recordings leave them out (`relax_quantus.recordings.folders`).
"""

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
    """Return how much of each bin is kept.

    1 / (1 + exp((threshold - value) / (softness x the map's deviation))).

    Parameters
    ----------
    values
        The explanation of a recording's examples, from ``explain(null=True)``: nothing is kept of
        what chance draws, nor of examples in which the network hears nothing
        (`relax_quantus.views.thresholds.standing_out`). Or any map of any shape, of which nothing
        is known but its values. Bins that are NaN get 0.
    threshold
        In the map's units, where the gain is 1/2; by default a fraction of the largest effect
        (`relax_quantus.views.thresholds.least_effect`).
    softness
        Width of the transition, in standard deviations of the map; 0 switches.
    among
        Bool, shaped like the map: the only bins of which anything is kept; by default all of a map,
        and of an explanation those beyond chance.

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
    if is_explanation(values):
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
    """Return the gain of `gain` with the width of its transition in the map's units; NaN gets 0."""
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
        ``(samples,)``, floating, as `relax_quantus.read_audio` returns it: at the recording's own
        rate, which need not be the encoder's.
    rate_hz
        Its sample rate in Hz.
    gains
        ``(n, 1, T, F)`` in [0, 1] for examples that lie end to end, as `gain` makes them; ``(n,
        samples)`` for encoders of waveforms.
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
    rate_hz, axis = checks.integer("rate_hz", rate_hz), axis or LogMelAxis()
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
    """Return the gains end to end as ``(F, frames)``; one row for waveforms."""
    values = as_values(gains)
    if isinstance(axis, SampleAxis):
        fits, rule = values.ndim == 2 and values.size > 0, "shape (n, samples)"
    else:
        fits = values.ndim == 4 and values.shape[1] == 1 and values.size > 0 and values.shape[3] == axis.bands
        rule = f"shape (n, 1, T, {axis.bands})"
    if not fits:
        checks.refuse("gains", rule, gains, "pass the map's gain as `gain` returns it", ShapeError)
    if not (values.min() >= 0 and values.max() <= 1):
        checks.refuse("gains", "numbers from 0 to 1", values, "make them with relax_quantus.views.sounds.gain")
    return values.reshape(1, -1) if values.ndim == 2 else values.reshape(-1, values.shape[3]).T


def _bands_to_bins(axis: Axis, hz: Image) -> Image:
    """Return the share ``(bins, F)`` of every band in every frequency.

    Triangles between the bands' centres, linear in mel, 0 outside of all bands.
    """
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
    """Return the gains ``(F, times)`` between the frames.

    Held for half a window beyond the first and last, then 0 within a frame or a window's step.
    """
    frames = image.shape[1]
    position = (times_s - axis.times_s(1)[0]) / axis.hop_s
    lower = np.clip(np.floor(position).astype(int), 0, max(frames - 2, 0))
    upper = np.minimum(lower + 1, frames - 1)
    share = np.clip(position - lower, 0.0, 1.0)
    beyond = np.maximum(-position, position - (frames - 1)) - axis.window_s / 2 / axis.hop_s
    return np.asarray((image[:, lower] * (1 - share) + image[:, upper] * share) * np.clip(1 - beyond, 0.0, 1.0))


def _filtered(wave: Image, rate_hz: int, window: int, image: Image, spread: Image, axis: Axis) -> Image:
    """Filter by overlap-add of Hann windows, divided by the sum of the squared windows."""
    hop = window // OVERLAP
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    count = -(-wave.size // hop) + OVERLAP - 1
    padded = np.zeros((count + OVERLAP - 1) * hop)
    padded[window - hop : window - hop + wave.size] = wave
    out = np.zeros((count + OVERLAP - 1, hop))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    middles = (np.arange(count) - (OVERLAP - 1)) * hop + window / 2
    # windows over the edge of the recording count as at its edge
    times = np.clip(middles, 0, wave.size) / rate_hz
    for start in range(0, count, BLOCK):
        part = slice(start, start + BLOCK)
        gains = spread @ _at_times(image, axis, times[part])
        spectrum = np.fft.rfft(windows[part] * hann, axis=1) * gains.T
        back = (np.fft.irfft(spectrum, n=window, axis=1) * hann).reshape(-1, OVERLAP, hop)
        for quarter in range(OVERLAP):
            out[start + quarter : start + quarter + len(back)] += back[:, quarter]
    return np.asarray(out.reshape(-1)[window - hop : window - hop + wave.size] / (np.square(hann).sum() / hop))


def write_sound(path: str | os.PathLike[str], wave: npt.NDArray[Any], rate_hz: int) -> Path:
    """Write a waveform ``(samples,)`` as WAV or FLAC, by the name's ending, with 24 bits.

    Two parts that are to add up are written by `write_parts`, which knows a common scale.

    Raises
    ------
    ArgumentError
        If the name ends otherwise.
    OSError
        If the file cannot be written whole.

    Warns
    -----
    AudioWarning
        If samples pass full scale, where they are clipped.
    """
    wave = np.asarray(wave)
    if full_scale(peak(wave)) != 1:
        warnings.warn(
            f"{Path(path).name}: samples up to {peak(wave):.3g} are clipped at full scale, 1; scale them down, or use write_parts.",
            AudioWarning,
            stacklevel=2,
        )
    with sound_file(path, rate_hz) as sink:
        sink.write(wave)
    return Path(path)


def write_parts(kept: str | os.PathLike[str], removed: str | os.PathLike[str], parts: Parts) -> float:
    """Write both parts as WAV or FLAC, by the names' endings, with 24 bits.

    They add up to the recording times the scale that is returned.

    That is 1 unless a sample passes full scale; then it is the largest power of 1/2 that brings all
    below it.

    Raises
    ------
    ArgumentError
        If a name ends otherwise.
    OSError
        If a file cannot be written whole.
    """
    scale = full_scale(max(peak(parts.kept), peak(parts.removed)))
    for path, wave in ((kept, parts.kept), (removed, parts.removed)):
        with sound_file(path, parts.rate_hz, scale=scale) as sink:
            sink.write(scale * wave)
    return scale


def write_separated(
    recording: str | os.PathLike[str],
    kept: str | os.PathLike[str],
    removed: str | os.PathLike[str],
    gains: Iterable[Image],
    frames: int,
    axis: Axis | None = None,
) -> float:
    """Write what gains keep of a recording of any length and what they remove, with 24 bits.

    Return the scale of both.

    It is read, split and written a few seconds at a time, at its own rate; the files are those that
    `separate` and `write_parts` make of the whole. The scale is 1 unless a sample of either passes
    full scale, and then all is done once more.

    Parameters
    ----------
    recording
        Any file that libsndfile reads.
    kept, removed
        Files to write; names end in .flac or .wav.
    gains
        ``(rows, F)`` in [0, 1], frame after frame from the recording's beginning, `frames` rows in
        all. Of an iterator, which can be gone through only once, all is kept in memory.
    axis
        What the gains' axes stand for; VGGish's front end from 0 s by default.

    Raises
    ------
    RelaxQuantusError
        As `separate` and `relax_quantus.read_audio`.
    OSError
        If a file cannot be written.
    """
    axis = axis or LogMelAxis()
    with Recording(recording) as opened:
        rate_hz = opened.rate_hz
    gains = list(gains) if isinstance(gains, Iterator) else gains
    scale = 1.0
    for _ in range(2):
        with (
            sound_file(kept, rate_hz, scale=scale) as kept_file,
            sound_file(removed, rate_hz, scale=scale) as removed_file,
        ):
            largest = 0.0
            for parts in _separated(recording, rate_hz, gains, frames, axis):
                largest = max(largest, peak(parts.kept), peak(parts.removed))
                kept_file.write(scale * parts.kept)
                removed_file.write(scale * parts.removed)
        if scale == full_scale(largest):
            break
        scale = full_scale(largest)
    return scale


def _separated(
    recording: str | os.PathLike[str], rate_hz: int, gains: Iterable[Image], frames: int, axis: Axis
) -> Iterator[Parts]:
    """Yield both parts, a few seconds after another."""
    margin = OVERLAP * max(1, round(WINDOW_S * rate_hz / OVERLAP))
    step = margin * max(1, round(CHUNK_S * rate_hz / margin))
    wave, rows = Sliding(waveform_blocks(recording, None)), Sliding(gains)
    start, is_wave = 0, isinstance(axis, SampleAxis)
    while True:
        first = max(0, start - margin)
        heard = wave.take(first, start + step + margin)
        if first + len(heard) <= start:
            return
        begin, end = _frames_of(first / rate_hz, (first + len(heard)) / rate_hz, frames, axis)
        here = replace(axis, start_s=axis.start_s + begin * axis.hop_s - first / rate_hz)
        image = rows.take(begin, end)
        parts = separate(heard, rate_hz, image.reshape(1, -1) if is_wave else image[None, None], here)
        inner = slice(start - first, start - first + step)
        yield Parts(parts.kept[inner], parts.removed[inner], rate_hz)
        start += step


def _frames_of(begin_s: float, end_s: float, frames: int, axis: Axis) -> tuple[int, int]:
    """Return the first frame, and the one after the last, that have a say in a stretch of sound.

    At least one, the nearest.
    """
    reach = math.ceil((axis.window_s / 2 + WINDOW_S) / axis.hop_s) + 2
    begin, end = (math.floor((second - float(axis.times_s(1)[0])) / axis.hop_s) for second in (begin_s, end_s))
    begin = min(max(begin - reach, 0), frames - 1)
    return begin, min(max(end + reach, begin + 1), frames)


def peak(wave: npt.NDArray[Any]) -> float:
    """Return the largest magnitude of any sample; 0 if there is none."""
    return float(np.abs(wave).max(initial=0.0))


def full_scale(largest: float) -> float:
    """Return the largest power of 1/2, at most 1, that brings samples of that magnitude to 1.

    Examples
    --------
    >>> full_scale(0.7), full_scale(1.0), full_scale(2.5)
    (1.0, 1.0, 0.25)
    """
    return 1.0 if largest <= 1 else 2.0 ** -math.ceil(math.log2(largest))


class SoundSink:
    """An open sound file that waveforms are written to, one after another.

    In short stretches: between two of them, an interrupt ends it. libsndfile writes to the path by
    itself, as Python callbacks of its could not raise.
    """

    def __init__(self, path: Path, rate_hz: int, subtype: str, scale: float) -> None:
        import soundfile

        name = os.fsencode(path) if os.name == "posix" else str(path)
        self.samples = 0
        with _told_by_libsndfile():
            self._file = soundfile.SoundFile(name, "w", rate_hz, 1, subtype, format=path.suffix[1:].upper())
            self._file.software = MADE_BY
            if scale != 1:
                self._file.comment = f"scale {scale:g}"

    def write(self, wave: npt.NDArray[Any]) -> None:
        """Write ``(samples,)``."""
        for start in range(0, len(wave), STRETCH):
            with _told_by_libsndfile():
                self._file.write(np.asarray(wave[start : start + STRETCH]))
        self.samples += len(wave)

    def close(self) -> None:
        """Write what is left."""
        with _told_by_libsndfile():
            self._file.close()


@contextmanager
def sound_file(
    path: str | os.PathLike[str], rate_hz: int, subtype: str | None = None, scale: float = 1.0
) -> Iterator[SoundSink]:
    """Open a WAV or FLAC to write to, by the name's ending.

    It appears when it is whole, which is known by decoding it.

    A `scale` other than 1, of what is written against the recording, is noted in the file's
    comment.

    Raises
    ------
    ArgumentError
        If the name ends otherwise.
    OSError
        If the file cannot be written whole.
    """
    path = Path(path)
    subtype = subtype or SUBTYPES.get(path.suffix.lower())
    if subtype is None or path.suffix.lower() not in SUBTYPES:
        checks.refuse("path", f"a name that ends in {' or '.join(SUBTYPES)}", repr(path.name), "change the ending")
    with complete(path, check=lambda draft: _require_whole(draft, sink.samples)) as draft:
        sink = SoundSink(draft, rate_hz, subtype, scale)
        with closing(sink):
            yield sink


@contextmanager
def _told_by_libsndfile() -> Iterator[None]:
    """Make what libsndfile says an error of the file system."""
    import soundfile

    try:
        yield
    except soundfile.LibsndfileError as error:
        raise OSError(errno.EIO, f"{NOT_WHOLE} ({str(error.error_string).strip().rstrip('.')})") from error


def _require_whole(path: Path, samples: int) -> None:
    """Decode a file that was written.

    Libsndfile does not tell of all that failed when it closed it.
    """
    import soundfile

    found = 0
    with _told_by_libsndfile(), soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else str(path)) as source:
        while block := len(source.read(STRETCH, dtype="float32")):
            found += block
    if found != samples:
        raise OSError(errno.EIO, f"{NOT_WHOLE} ({found} of {samples} samples)", str(path))


def player(wave: npt.NDArray[Any], rate_hz: int) -> Any:
    """Return an ``IPython.display.Audio`` of a waveform ``(samples,)``, at its own level.

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
