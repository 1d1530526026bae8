"""How loud a recording is, learnt while its blocks pass by: mixes down to mono, refuses what holds no sound, warns of what is doubtful.

Stands between the decoder and `relax_quantus.audio.reading`: blocks ``(n, channels)`` enter, mono blocks leave, and at the end
a judgement. Nothing is kept but a few numbers, however long the recording.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from relax_quantus.audio.decoding import Recording

QUIET_PEAK = 1e-3
"""Half the range of the samples (-60 dB of full scale) below which a recording is called nearly silent."""
LOUD_PEAK = 4.0
"""Peak above which floating-point samples are taken for wrongly scaled ones (decoded MP3 goes to about 1.6)."""
CANCELLATION = 100
"""Share of the channels' mean energy, times their number, that mixing down may lose: for stereo 23 dB (independent channels lose 3)."""
LOW_RATE = 0.6
"""Share of the wanted sample rate below which a recording leaves much of the upper range empty."""
UNHEARD_SHARE = 0.1
"""Share of a recording's energy above which it is said that so much lies at frequencies that are not heard."""
MOST_AT_ONCE = 1 << 16
"""Samples that are squared in float64 at a time."""
WINDOW = 1024
"""Samples of a spectrum, and spectra at a time."""
LOST_S = 0.25
"""Seconds that may be missing at the end before a warning: an MP3's announced length is off by a few frames."""

Waveform = npt.NDArray[np.float32]


class AudioWarning(UserWarning):
    """A recording was accepted, but something about it may make its explanation misleading."""


class Heard:
    """What is heard of a recording at the rate that it was brought to, block by block or all at once."""

    def __init__(self, wave: Waveform | None = None) -> None:
        self.is_finite, self.is_sound = True, False
        self.samples, self.sum, self.energy = 0, 0.0, 0.0
        self.low, self.high = math.inf, -math.inf
        for start in range(0, 0 if wave is None else wave.size, MOST_AT_ONCE):
            assert wave is not None
            self.add(wave[start : start + MOST_AT_ONCE])

    def add(self, block: npt.NDArray[np.floating]) -> None:
        """Take in some samples."""
        if block.size:
            low, high = float(block.min()), float(block.max())  # NaN if there is any
            self.is_finite = self.is_finite and math.isfinite(low) and math.isfinite(high)
            self.is_sound = self.is_sound or not low == high == 0.0
            self.samples += block.size
            self.sum += float(block.sum(dtype=np.float64))
            self.energy += float(np.square(block, dtype=np.float64).sum())
            self.low, self.high = min(self.low, low), max(self.high, high)

    @property
    def power(self) -> float:
        """Mean power without a constant offset."""
        return self.energy / self.samples - (self.sum / self.samples) ** 2 if self.samples else 0.0

    def passing(self, blocks: Iterable[Waveform]) -> Iterator[Waveform]:
        """Yield the blocks as they are, listening to each."""
        for block in blocks:
            self.add(block)
            yield block


def unheard_above(wave: Waveform, rate_hz: int, top_hz: float) -> str:
    """Say how much of the energy of a waveform ``(samples,)`` lies above the highest band of a front end; nothing if that is little."""
    size = min(wave.size, WINDOW)
    if size < 2 or top_hz >= rate_hz / 2:
        return ""
    windows = wave[: wave.size // size * size].reshape(-1, size)
    power = np.zeros(size // 2 + 1)
    for start in range(0, len(windows), WINDOW):
        part = windows[start : start + WINDOW]
        power += np.square(np.abs(np.fft.rfft((part - part.mean(axis=1, keepdims=True)) * np.hanning(size)))).sum(
            axis=0
        )
    above = power[np.fft.rfftfreq(size, 1 / rate_hz) > top_hz].sum() / max(float(power.sum()), 1e-300)
    if above <= UNHEARD_SHARE:
        return ""
    return f"{100 * above:.0f} % of its energy lies above {top_hz:.0f} Hz, where this front end has no bands"


class Level:
    """Mixes a recording down to mono and keeps, while its blocks pass by, what `judge` needs."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.frames = 0
        self.own = Heard()
        self.peak = 0.0
        self.channel_energy = 0.0
        self.mono_energy = 0.0

    def mono_blocks(self) -> Iterator[Waveform]:
        """Yield the mean of the channels, block by block."""
        for block in self.recording.blocks():
            if not np.isfinite(block).all():
                self.recording.refuse("finite samples", "NaN or infinite ones", "export the recording again")
            mono = block.mean(axis=1, dtype=np.float64)
            self.frames += len(block)
            self.peak = max(self.peak, float(block.max()), -float(block.min()))
            self.mono_energy += float(mono @ mono)
            self.own.add(mono)
            self.channel_energy += float(np.square(block, dtype=np.float64).sum()) / self.recording.channels
            yield mono.astype(np.float32)

    @property
    def seconds(self) -> str:
        """What was decoded, for messages."""
        return f"{self.frames / self.recording.rate_hz:.2f} s"

    def judge(self, heard: Heard, rate_hz: int) -> None:
        """Refuse a recording without sound and warn of doubtful ones, now that all of it was `heard` at `rate_hz`."""
        refuse, channels = self.recording.refuse, self.recording.channels
        if self.frames == 0:
            problem = self.recording.problem
            got = f"a damaged file ({problem})" if problem else "a header without samples"
            refuse("at least one sample", got, "copy or record it again")
        if self.peak == 0.0:
            refuse("sound", f"{self.seconds} of digital silence", "leave it out or record it again")
        if self.mono_energy == 0.0:
            refuse("sound after mixing to mono", f"{channels} channels that cancel", "export one channel alone")
        if not heard.is_sound:
            refuse("sound after resampling", f"silence from {self.seconds}", "use a longer or louder recording")
        if not heard.is_finite:
            refuse("samples around [-1, 1]", f"a peak of {self.peak:.3g}", "scale the recording down")
        remarks = (
            self._damage(),
            self._cancellation(),
            self._overload(),
            self._silence(heard) or self._unheard(heard, rate_hz),
            self._narrow(rate_hz),
        )
        for remark in remarks:
            if remark:
                warnings.warn(f"{self.recording.name}: {remark}.", AudioWarning, stacklevel=3)

    def _damage(self) -> str:
        announced, problem = self.recording.announced_frames, self.recording.problem
        lost_s = 0.0 if announced is None else (announced - self.frames) / self.recording.rate_hz
        if not problem and lost_s <= LOST_S:
            return ""
        rest = (
            "" if announced is None or announced <= self.frames else f" of {announced / self.recording.rate_hz:.2f} s"
        )
        why = problem or "the file ends early"
        return f"only the first {self.seconds}{rest} could be decoded ({why}); copy or record it again if you can"

    def _cancellation(self) -> str:
        if self.mono_energy * CANCELLATION * self.recording.channels >= self.channel_energy:
            return ""
        loss = 10 * math.log10(self.channel_energy / self.mono_energy)
        return f"its channels nearly cancel when mixed to mono ({loss:.0f} dB lost); export one channel alone"

    def _overload(self) -> str:
        if self.peak <= LOUD_PEAK:
            return ""
        return f"its peak is {self.peak:.3g} where full scale is 1; scale it to [-1, 1] if that is a mistake"

    def _silence(self, heard: Heard) -> str:
        before, after = (self.own.high - self.own.low) / 2, (heard.high - heard.low) / 2
        if self.own.high == self.own.low:
            return f"it is constant ({self.own.high:.3g}), an offset without sound; record it again"
        if before < QUIET_PEAK:
            return f"it is nearly silent ({20 * math.log10(before):.0f} dB of full scale); raise its level"
        if after < QUIET_PEAK:
            level = 20 * math.log10(max(after, 1e-12))
            return f"it is nearly silent ({level:.0f} dB of full scale) once resampled; its sound lies at higher frequencies"
        return ""

    def _unheard(self, heard: Heard, rate_hz: int) -> str:
        own = self.recording.rate_hz
        share = 1.0 - heard.power / self.own.power if own > rate_hz and self.own.power > 0 else 0.0
        if share <= UNHEARD_SHARE:
            return ""
        return (
            f"{100 * share:.0f} % of its energy lies above {rate_hz / 2:.0f} Hz, where nothing is heard at {rate_hz} Hz"
        )

    def _narrow(self, rate_hz: int) -> str:
        own = self.recording.rate_hz
        return f"it is sampled at {own} Hz and holds nothing above {own // 2} Hz" if own < LOW_RATE * rate_hz else ""
