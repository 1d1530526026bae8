"""How the commands turn recordings into what an encoder takes: log-mel, a transform of torchaudio, the waveform itself, or the user's own.

A `Specification` enters, a `FrontEnd` leaves: it reads recordings as examples, knows what silence is there and what the axes of a picture
stand for.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus import checks
from relax_quantus.audio import SAMPLE_RATE_HZ, load_waveform, waveform_blocks
from relax_quantus.axes import COUNTED, Axis, BinAxis, SampleAxis, mel_centres_hz
from relax_quantus.commands import console
from relax_quantus.commands.framing import KNOWN, Framing, framing_of_log_mel, framing_of_transform
from relax_quantus.errors import ArgumentTypeError, RelaxQuantusError, ShapeError, UnknownNameError
from relax_quantus.fills import FILLS
from relax_quantus.frame_times import FrameTimes, confirmed, measure
from relax_quantus.frontend import LogMel, LogMelConfig
from relax_quantus.registry import nearest
from relax_quantus.specifications import Specification
from relax_quantus.torchaudio_bridge import import_torchaudio
from relax_quantus.transform_front_end import TransformFrontEnd

OPTION = "--front-end"
LOG_MEL, WAVEFORM = "log_mel", "waveform"
TRANSFORMS = ("MelSpectrogram", "Spectrogram", "MFCC", "LFCC")
"""Those of ``torchaudio.transforms`` that make a spectrogram from a waveform."""
NAMES = (LOG_MEL, WAVEFORM, *TRANSFORMS)
LOG_OFFSETS = {"MelSpectrogram": 0.01, "Spectrogram": 0.01}
FRAMES = 96
EXAMPLE_S = 0.96
MEASURED_S = 20
"""Seconds of silence that a front end is tried on."""
MOST_APART = 2.0
"""Frames by which examples of a front end of one's own may overlap or leave gaps, and still be drawn end to end in seconds."""
LONGEST_S = 60
OF_WAVEFORMS = ("silence", "zero", "mean")
"""Fills that mean something on samples."""
Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """The first examples ``(n, ...)`` of a recording, how many its whole length holds, its length and that of the padding, in seconds.

    `silence` is what a muted part of this very recording becomes.
    """

    examples: Tensor
    in_all: int
    seconds: float
    padded_s: float
    silence: Tensor | float | str


@dataclass(frozen=True)
class FrontEnd:
    """A front end as the commands use it.

    Attributes
    ----------
    text
        As recorded in results.
    make
        Waveform ``(samples,)`` -> examples ``(n, 1, T, F)`` or ``(n, samples)``, of which there may be none.
    rate_hz
        What `make` wants.
    silence
        What digital silence becomes: what the fill "silence" puts in.
    axis
        Of pictures.
    natural_log
        Whether values are natural logarithms of a magnitude, which ``--domain amplitude`` needs.
    samples_for
        The samples that so many examples need; None where that is not known, and everything is transformed.
    framing
        How frames lie in the waveform, or why a recording cannot be read in blocks.
    silence_beside
        Waveform ``(samples,)`` -> what a muted part of it becomes, where that depends on the rest of it; None where it does not.
    """

    text: str
    make: Callable[[Wave], Tensor]
    rate_hz: int
    silence: Tensor | float | str
    axis: Axis
    natural_log: bool = False
    samples_for: Callable[[int], int] | None = None
    framing: Framing | str = "nothing is known of how its frames lie in the samples"
    silence_beside: Callable[[Wave], Tensor] | None = None

    @property
    def of_waveforms(self) -> bool:
        """Whether examples are waveforms."""
        return isinstance(self.axis, SampleAxis)

    def read(self, path: Path, max_examples: int | None = None, resampler: str = "soxr") -> Reading:
        """Read a recording; one that is too short for an example is padded with silence.

        Raises
        ------
        AudioError
            If it cannot be used.
        RelaxQuantusError
            If the front end cannot make examples of it.
        """
        most = self.samples_for(max_examples) if self.samples_for is not None and max_examples is not None else None
        wave, samples = self._beginning(path, most, resampler)
        seconds = samples / self.rate_hz
        if self.samples_for is not None:
            one, two = self.samples_for(1), self.samples_for(2)
            padded = max(0, one - samples)
            in_all = 1 if padded else 1 + (samples - one) // (two - one)
            wanted = in_all if max_examples is None else min(in_all, max_examples)
            x = self._made(np.pad(wave, (0, padded))[: self.samples_for(wanted)])
            return Reading(x, in_all, seconds, padded / self.rate_hz, self.silence)
        x, padded = self._at_least_one(wave)
        silence = self.silence if self.silence_beside is None else self.silence_beside(wave)
        return Reading(x[:max_examples], len(x), seconds, padded / self.rate_hz, silence)

    def _beginning(self, path: Path, most: int | None, resampler: str) -> tuple[Wave, int]:
        """The first `most` samples of a recording, or all, and how many it has; what is cut off is read and heard, but not kept."""
        if most is None or resampler != "soxr":
            wave = load_waveform(path, self.rate_hz, resampler)
            return wave, wave.size
        kept, samples = [np.zeros(0, np.float32)], 0
        for block in waveform_blocks(path, self.rate_hz):
            kept.append(block[: max(0, most - samples)].copy())
            samples += block.size
        return np.concatenate(kept), samples

    def silent_example(self) -> Tensor:
        """One example of digital silence."""
        return self._at_least_one(np.zeros(self.rate_hz, np.float32))[0][:1]

    def _at_least_one(self, wave: Wave) -> tuple[Tensor, int]:
        """Examples of a waveform, and how many samples of silence had to be added to get one."""
        padded = 0
        while True:
            short = max(0, self.rate_hz // 2 - wave.size)
            x = self._made(np.pad(wave, (0, max(padded, short))))
            if len(x):
                return x, padded
            if padded > LONGEST_S * self.rate_hz:
                checks.refuse(OPTION, "examples", "none, however long the recording", "lower its frames", ShapeError)
            padded += max(self.rate_hz // 4, padded // 2)

    def _made(self, wave: Wave) -> Tensor:
        try:
            with torch.inference_mode(False), torch.no_grad():
                x = self.make(wave)
        except RelaxQuantusError:
            raise
        except Exception as error:
            got = console.one_line(f"{type(error).__name__}: {error}")
            raise ArgumentTypeError(checks.message(OPTION, "examples of a waveform (samples,)", got)) from error
        if not isinstance(x, Tensor) or x.ndim not in (2, 4) or (x.ndim == 4 and x.shape[1] != 1):
            rule, remedy = "examples (n, 1, T, F), or waveforms (n, samples)", "return these alone"
            checks.refuse(OPTION, rule, x, remedy, ShapeError)
        return x

    def fill(self, name: str, silence: Tensor | float | str | None = None) -> Any:
        """What a fill's name means to `RELAX` here; "silence" is that of a recording, if it is given.

        Raises
        ------
        UnknownNameError, ArgumentError
            If there is no such fill, or none on waveforms.
        """
        FILLS.get(name)
        if self.of_waveforms and name not in OF_WAVEFORMS:
            rule = f"{' or '.join(OF_WAVEFORMS)} for waveforms, which have no bands"
            checks.refuse("baselines", rule, repr(name), "pick one of these")
        if name != "silence":
            return name
        return self.silence if silence is None else silence


def log_mel(text: str = LOG_MEL, module: LogMel | None = None) -> FrontEnd:
    """VGGish's, or a log-mel with other constants."""
    module = module or LogMel()
    config = module.config

    def samples_for(examples: int) -> int:
        return config.window_samples + (examples * config.frames - 1) * config.hop_samples

    silence = "silence" if config.log_offset == LogMelConfig().log_offset else config.silence
    axis, framing = Axis(config), framing_of_log_mel(module)
    return FrontEnd(text, module, config.sample_rate_hz, silence, axis, True, samples_for, framing)


def waveform(text: str = WAVEFORM, seconds: float = EXAMPLE_S, sample_rate: int = SAMPLE_RATE_HZ) -> FrontEnd:
    """The samples themselves, cut into examples of `seconds`; a partial last one is dropped."""
    rate = checks.integer("sample_rate", sample_rate)
    samples = round(checks.positive("seconds", seconds) * rate)
    checks.integer("seconds", samples)

    def make(wave: Wave) -> Tensor:
        return torch.from_numpy(wave[: wave.size // samples * samples].reshape(-1, samples).copy())

    why = "its maps have a value a sample"
    return FrontEnd(text, make, rate, 0.0, SampleAxis(rate_hz=rate), False, lambda n: n * samples, why)


def transform(
    text: str,
    kind: str,
    frames: int = FRAMES,
    log_offset: float | None = None,
    sample_rate: int = SAMPLE_RATE_HZ,
    **settings: Any,
) -> FrontEnd:
    """One of `TRANSFORMS`; `settings` are its own."""
    made = getattr(import_torchaudio().transforms, kind)
    known = list(inspect.signature(made).parameters)
    for key in settings:
        if key not in known:
            raise ArgumentTypeError(
                f"{key}: expected a parameter of {kind}; {nearest(key, [*known, 'frames', 'log_offset'])}."
            )
    if "sample_rate" in known:
        settings["sample_rate"] = sample_rate
    try:
        module = made(**settings)
    except Exception as error:
        got = console.one_line(f"{type(error).__name__}: {error}")
        raise ArgumentTypeError(checks.message(OPTION, f"settings that {kind} takes", got, "change them")) from error
    front_end = TransformFrontEnd(module, log_offset=log_offset, frames=frames, sample_rate_hz=sample_rate)
    return of_transform(text, front_end)


def of_transform(text: str, front_end: TransformFrontEnd) -> FrontEnd:
    """A `TransformFrontEnd` as the commands use it, its axes from what torchaudio's transforms say of themselves, or measured."""
    framing = framing_of_transform(front_end, spectral_part(front_end))
    alone = knows_no_rest(front_end)
    return FrontEnd(
        text,
        front_end,
        front_end.sample_rate_hz,
        front_end.silence(),
        transform_axis(front_end),
        front_end.log_offset is not None,
        framing=framing,
        silence_beside=None if alone else lambda wave: front_end.silence(beside=wave),
    )


def spectral_part(front_end: TransformFrontEnd) -> nn.Module | None:
    """The part of torchaudio's transforms that knows how frames lie: the innermost, which has all of it."""
    parts = [m for m in front_end.transform.modules() if hasattr(m, "hop_length") and hasattr(m, "n_fft")]
    return next((m for m in parts if hasattr(m, "center")), parts[0] if parts else None)


def transform_axis(front_end: TransformFrontEnd) -> BinAxis:
    """Axes of torchaudio's transforms as they say themselves, if that agrees with the frames that they make; otherwise measured."""
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
    """When frames are by what a transform says of window, hop, padding and centring; None if it does not make as many as that."""
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
    """The rate at which a transform's frames are made: it may resample first."""
    return next((float(m.new_freq) for m in module.modules() if hasattr(m, "new_freq")), float(rate_hz))  # type: ignore[arg-type]


def bins_of_parts(module: nn.Module, rate_hz: int, size: int) -> tuple[float, ...]:
    """Centres of bands by what the parts of a front end say, if there are as many; empty if none does."""
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
    """An axis with what is known of its frames' times; where nothing is, frames are counted, and a warning says so."""
    if isinstance(times, FrameTimes) and times.example_frames:
        off = abs(times.example_frames * times.every_s - times.example_s) / times.every_s
        if off > MOST_APART:
            times = f"its examples begin every {duration(times.example_s)} s and overlap or leave gaps"
    if isinstance(times, str):
        remedy = "give it hop_s and first_s (of the first frame's middle) if you know better"
        console.warning(
            f"{axis.heading}: when its frames are could not be found out ({times}); they are counted; {remedy}"
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
    """Whether what silence becomes does not depend on the rest of a recording: known of torchaudio's transforms without ``top_db``."""
    parts = list(front_end.transform.modules())
    return all(type(p).__name__ in KNOWN and getattr(p, "top_db", None) is None for p in parts)


def of_object(text: str, found: Any) -> FrontEnd:
    """A front end of the user's own.

    It may say of itself ``sample_rate_hz``, and of its frames ``hop_s``, ``first_s`` (the middle of the first window), ``window_s`` and
    ``frequencies_hz`` (of the bands); what it does not say is measured if it can be.

    Raises
    ------
    ArgumentTypeError
        If it is neither a `LogMel`, a `TransformFrontEnd`, another spectrogram module, nor a callable.
    """
    if isinstance(found, TransformFrontEnd):
        return of_transform(text, found)
    if isinstance(found, LogMel):
        return log_mel() if found.config == LogMelConfig() else log_mel(text, found)
    if not callable(found):
        rule = "a front end, (samples,) -> (n, 1, T, F)"
        checks.refuse(OPTION, rule, f"a {type(found).__name__}", "return a module", ArgumentTypeError)
    rate = checks.integer("sample_rate_hz", getattr(found, "sample_rate_hz", SAMPLE_RATE_HZ))

    def make(wave: Wave) -> Tensor:
        return torch.as_tensor(found(torch.from_numpy(wave)))

    trial = FrontEnd(text, make, rate, 0.0, Axis())
    silent = trial._made(np.zeros(rate * MEASURED_S, np.float32))
    if silent.ndim == 2:
        checks.refuse(OPTION, "spectrograms (n, 1, T, F)", silent, f"for waveforms pass {WAVEFORM}", ShapeError)
    if len(silent) == 0:
        checks.refuse(OPTION, "examples", f"none of {MEASURED_S} s", "make them shorter", ShapeError)
    frames, bands = silent.shape[-2:]
    silence = silent[:1, :, frames // 2, None].clone()

    def silence_beside(wave: Wave) -> Tensor:
        gap = np.zeros(round((2 * MEASURED_S / len(silent) + 0.5) * rate), np.float32)
        x = trial._made(np.concatenate([wave, gap]))
        if len(x) > 1:  # the last one lies in the gap as a whole
            return x[-1:, :, x.shape[2] // 2, None].clone()
        if len(x) == 1 and x.shape[2] > frames * wave.size / (MEASURED_S * rate):
            return x[:, :, round(x.shape[2] * (wave.size + gap.size / 2) / (wave.size + gap.size)), None].clone()
        return silence

    axis = said_axis(found, make, rate, bands, "magnitude" if silent.is_complex() else "value")
    return FrontEnd(text, make, rate, silence, axis, silence_beside=silence_beside)


def said_axis(found: Any, make: Callable[[Wave], Tensor], rate_hz: int, bands: int, value: str) -> BinAxis:
    """The axes of a front end of the user's own: what it says of itself, what its parts say if tones confirm it, and what clicks tell.

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
    """Centres of bands that a front end says itself, as ``frequencies_hz``; empty if it does not."""
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
    """When frames are by ``hop_s``, ``first_s`` and ``window_s`` of a front end; what it does not say is as `otherwise` finds."""
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


def build(spec: Specification) -> FrontEnd:
    """The front end that was named with its settings.

    Raises
    ------
    UnknownNameError, ArgumentTypeError
        For an unknown name or setting; the message lists the nearest.
    MissingDependencyError
        If it is torchaudio's and that does not import.
    """
    if spec.name not in NAMES:
        hint = nearest(spec.name, list(NAMES))
        raise UnknownNameError(f"{OPTION}: expected the name of a front end, got {spec.name!r}; {hint}.")
    if spec.name in TRANSFORMS:
        settings = {"log_offset": LOG_OFFSETS.get(spec.name), **spec.settings}
        return transform(spec.text, spec.name, **settings)
    known = ["seconds", "sample_rate"] if spec.name == WAVEFORM else []
    for key in spec.settings:
        if key not in known:
            hint = nearest(key, known) if known else "it takes none"
            raise ArgumentTypeError(f"{key}: expected a setting of {OPTION} {spec.name}; {hint}.")
    return waveform(spec.text, **spec.settings) if spec.name == WAVEFORM else log_mel()


def duration(seconds: float) -> str:
    """Seconds as messages show them.

    Examples
    --------
    >>> duration(0.96), duration(2.0)
    ('0.96', '2')
    """
    return f"{seconds:.3g}" if math.isfinite(seconds) else "unknown"
