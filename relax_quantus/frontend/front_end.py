"""Turn recordings into what an encoder takes.

That is log-mel, a transform of torchaudio, the waveform itself, or what a front end of the user's
own makes.

A `Specification` enters, a `FrontEnd` leaves: it reads recordings as examples, knows what silence
is there and what the axes of a picture stand for.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.audio.quality import AudioWarning, unheard_above
from relax_quantus.audio.reading import SAMPLE_RATE_HZ, load_waveform, waveform_blocks
from relax_quantus.audio.torchaudio_bridge import import_torchaudio
from relax_quantus.base import checks
from relax_quantus.base.checks import one_line
from relax_quantus.base.registry import Specification, nearest
from relax_quantus.errors import ArgumentTypeError, RelaxQuantusError, ShapeError, UnknownNameError
from relax_quantus.frontend.axes import COUNTED, BinAxis, SampleAxis
from relax_quantus.frontend.examples import Axis, Examples, plain
from relax_quantus.frontend.framing import Framing, framing_of_transform
from relax_quantus.frontend.log_mel import NAME, LogMel, LogMelConfig, framing_of_log_mel
from relax_quantus.frontend.measured_axes import TRANSFORMS, knows_no_rest, said_axis, spectral_part, transform_axis
from relax_quantus.frontend.transform import TransformFrontEnd

OPTION = "--front-end"
LOG_MEL, WAVEFORM = NAME, "waveform"
NAMES = (LOG_MEL, WAVEFORM, *TRANSFORMS)
VGGISH = LogMelConfig()
"""Where nothing else is said, a front end makes what VGGish's does: frames of an example, its
seconds, the offset of its logarithm."""
LOG_OFFSETS = {"MelSpectrogram": VGGISH.log_offset, "Spectrogram": VGGISH.log_offset}
FRAMES = VGGISH.frames
EXAMPLE_S = VGGISH.frames * VGGISH.hop_s
MEASURED_S = 20
"""Seconds of silence that a front end is tried on."""
LONGEST_S = 60
Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """Hold the first `Examples` ``(n, ...)`` of a recording and how many its whole length holds.

    Its length and that of the padding are in seconds.

    `silence` is what a muted part of this very recording becomes.
    """

    examples: Tensor
    in_all: int
    seconds: float
    padded_s: float
    silence: Tensor | float | str


@dataclass(frozen=True)
class FrontEnd:
    """Make examples of recordings, and know what silence and the axes are there.

    Attributes
    ----------
    text
        Name of the front end as results record it.
    make
        Waveform ``(samples,)`` -> examples ``(n, 1, T, F)`` or ``(n, samples)``, of which there may
        be none.
    rate_hz
        Sample rate of the waveform that `make` wants.
    silence
        Value that digital silence becomes, which the fill "silence" puts in.
    axis
        What the axes of examples stand for.
    natural_log
        Whether values are natural logarithms of a magnitude, which ``--domain amplitude`` needs.
    samples_for
        Function from a number of examples to the samples that they need; None where that is not
        known, and everything is transformed.
    framing
        How frames lie in the waveform, or why a recording cannot be read in blocks.
    silence_beside
        Waveform ``(samples,)`` -> what a muted part of it becomes, where that depends on the rest
        of it; None where it does not.
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
        self._warn_of_unheard(path, wave)
        if self.samples_for is not None:
            one, two = self.samples_for(1), self.samples_for(2)
            padded = max(0, one - samples)
            in_all = 1 if padded else 1 + (samples - one) // (two - one)
            wanted = in_all if max_examples is None else min(in_all, max_examples)
            x = self._made(np.pad(wave, (0, padded))[: self.samples_for(wanted)])
            return Reading(self.describe(x, wave), in_all, seconds, padded / self.rate_hz, self.silence)
        x, padded = self._at_least_one(wave)
        silence = self.silence if self.silence_beside is None else self._silence_in(np.pad(wave, (0, padded)))
        examples = self.describe(x[:max_examples], wave, silence)
        return Reading(examples, len(x), seconds, padded / self.rate_hz, silence)

    def describe(self, x: Tensor, wave: Wave | None = None, silence: Tensor | float | str | None = None) -> Tensor:
        """Return `Examples`: what `make` made, with its axis, silence and waveform.

        The waveform is ``(samples,)`` at `rate_hz`.
        """
        level = self.silence if silence is None else silence
        source = None if wave is None else torch.from_numpy(wave)
        level = VGGISH.silence if isinstance(level, str) else level
        return Examples.of(plain(x), self.axis, level, self.rate_hz, source, self.text)

    def examples_of(self, wave: Wave) -> Tensor:
        """Return `Examples` of a waveform ``(samples,)`` at `rate_hz`.

        One too short for an example is padded with silence.
        """
        if self.samples_for is None:
            return self.describe(self._at_least_one(wave)[0], wave)
        return self.describe(self._made(np.pad(wave, (0, max(0, self.samples_for(1) - wave.size)))), wave)

    def _silence_in(self, wave: Wave) -> Tensor | float | str:
        assert self.silence_beside is not None
        try:
            with torch.inference_mode(False), torch.no_grad():
                return self.silence_beside(wave)
        except Exception:  # a front end of one's own need not take the longer waveform
            return self.silence

    def _warn_of_unheard(self, path: Path, wave: Wave) -> None:
        centres = self.axis.centres_hz
        if centres is None or centres.size < 2:
            return
        remark = unheard_above(wave, self.rate_hz, float(2 * centres[-1] - centres[-2]))
        if remark:
            warnings.warn(f"{path}: {remark}.", AudioWarning, stacklevel=3)

    def _beginning(self, path: Path, most: int | None, resampler: str) -> tuple[Wave, int]:
        """Read the first `most` samples of a recording, or all, and count how many it has.

        What is cut off is read and heard, but not kept.
        """
        if most is None or resampler != "soxr":
            wave = load_waveform(path, self.rate_hz, resampler)
            return wave, wave.size
        kept, samples = [np.zeros(0, np.float32)], 0
        for block in waveform_blocks(path, self.rate_hz):
            kept.append(block[: max(0, most - samples)].copy())
            samples += block.size
        return np.concatenate(kept), samples

    @property
    def example_samples(self) -> int:
        """Samples that one example is about."""
        if self.samples_for is not None:
            return self.samples_for(1)
        frames = self.silent_example().shape[-2]
        return max(1, round(self.axis.end_s(frames) * self.rate_hz)) if self.axis.in_seconds else self.rate_hz

    @property
    def samples_apart(self) -> int:
        """Samples from the beginning of one example to that of the next."""
        if self.samples_for is not None:
            return self.samples_for(2) - self.samples_for(1)
        frames = self.silent_example().shape[-2]
        return max(1, round(self.axis.hop_s * frames * self.rate_hz)) if self.axis.in_seconds else self.rate_hz

    def silent_example(self) -> Tensor:
        """Make one example of digital silence."""
        return self.describe(self._at_least_one(np.zeros(self.rate_hz, np.float32))[0][:1])

    def _at_least_one(self, wave: Wave) -> tuple[Tensor, int]:
        """Make examples of a waveform, adding as many samples of silence as it takes to get one.

        Returned are the examples and how many samples were added.
        """
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
            got = one_line(f"{type(error).__name__}: {error}")
            raise ArgumentTypeError(checks.message(OPTION, "examples of a waveform (samples,)", got)) from error
        if not isinstance(x, Tensor) or x.ndim not in (2, 4) or (x.ndim == 4 and x.shape[1] != 1):
            rule, remedy = "examples (n, 1, T, F), or waveforms (n, samples)", "return these alone"
            checks.refuse(OPTION, rule, x, remedy, ShapeError)
        return plain(x)


def log_mel(text: str = LOG_MEL, module: LogMel | None = None) -> FrontEnd:
    """Build VGGish's log-mel front end (16 kHz, 96 x 64), or one with other constants."""
    module = module or LogMel()
    config = module.config

    def samples_for(examples: int) -> int:
        return config.window_samples + (examples * config.frames - 1) * config.hop_samples

    silence = "silence" if config.log_offset == VGGISH.log_offset else config.silence
    axis, framing = module.axis, framing_of_log_mel(module)
    return FrontEnd(text, module, config.sample_rate_hz, silence, axis, True, samples_for, framing)


def waveform(text: str = WAVEFORM, seconds: float = EXAMPLE_S, sample_rate: int = SAMPLE_RATE_HZ) -> FrontEnd:
    """Cut the samples themselves into examples of `seconds`; a partial last one is dropped."""
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
    """Build a front end of one of `TRANSFORMS`; `settings` are its own."""
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
        got = one_line(f"{type(error).__name__}: {error}")
        raise ArgumentTypeError(checks.message(OPTION, f"settings that {kind} takes", got, "change them")) from error
    front_end = TransformFrontEnd(module, log_offset=log_offset, frames=frames, sample_rate_hz=sample_rate)
    return of_transform(text, front_end)


def of_transform(text: str, front_end: TransformFrontEnd) -> FrontEnd:
    """Build a front end of a `TransformFrontEnd`.

    Its axes are what torchaudio's transforms say of themselves, or measured.
    """
    framing, axis = framing_of_transform(front_end, spectral_part(front_end)), transform_axis(front_end)
    if isinstance(framing, Framing) and abs(axis.hop_s * front_end.sample_rate_hz - framing.hop_samples) > 1e-6:
        framing = "its frames do not lie as its parts say"
    alone = knows_no_rest(front_end)
    return FrontEnd(
        text,
        front_end,
        front_end.sample_rate_hz,
        front_end.silence(),
        axis,
        front_end.log_offset is not None,
        framing=framing,
        silence_beside=None if alone else lambda wave: front_end.silence(beside=wave),
    )


def of_object(text: str, found: Any) -> FrontEnd:
    """Build a front end of an object of the user's own.

    It may say of itself ``sample_rate_hz``, and of its frames ``hop_s``, ``first_s`` (the middle of
    the first window), ``window_s`` and ``frequencies_hz`` (of the bands); what it does not say is
    measured if it can be.

    Raises
    ------
    ArgumentTypeError
        If it is neither a `LogMel`, a `TransformFrontEnd`, another spectrogram module, nor a
        callable.
    """
    if isinstance(found, TransformFrontEnd):
        return of_transform(text, found)
    if isinstance(found, LogMel):
        return log_mel() if found.config == VGGISH else log_mel(text, found)
    if not callable(found):
        rule = "a front end, (samples,) -> (n, 1, T, F)"
        checks.refuse(OPTION, rule, f"a {type(found).__name__}", "return a module", ArgumentTypeError)
    rate = checks.integer("sample_rate_hz", getattr(found, "sample_rate_hz", SAMPLE_RATE_HZ))

    def make(wave: Wave) -> Tensor:
        return torch.as_tensor(found(torch.from_numpy(wave)))

    trial = FrontEnd(text, make, rate, 0.0, BinAxis(time_label=COUNTED))
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


def build(spec: Specification) -> FrontEnd:
    """Build the front end that was named, with its settings.

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
