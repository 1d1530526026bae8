"""Tell what is wrong with a recording: no sound is refused, what is doubtful comes with a warning.

Stands beside `relax_quantus.audio.reading`. Blocks ``(n, channels)`` enter `Level`, mono blocks
leave, and at the end a judgement; nothing is kept but a few numbers, however long the recording.

The second half is about files whose recorder or copy stopped early: what their headers do not say,
and what their ends tell. A header that was written first and never finished announces no samples
although they follow (`unfinished_header`): the file is read as if it said "until the end". A file
that was cut announces more than it holds (`announced_share`), or, as Ogg announces nothing, lacks
its last page (`lacks_last_page`).
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from relax_quantus.audio.reading import Recording

QUIET_PEAK = 1e-3
"""Half the range of the samples (-60 dB of full scale) below which a recording is called nearly
silent."""
LOUD_PEAK = 4.0
"""Peak above which floating-point samples are taken for wrongly scaled ones (decoded MP3 goes to
about 1.6)."""
CANCELLATION = 100
"""Share of the channels' mean energy, times their number, that mixing down may lose.

For stereo that is 23 dB (independent channels lose 3)."""
LOW_RATE = 0.6
"""Share of the wanted sample rate below which a recording leaves much of the upper range empty."""
UNHEARD_SHARE = 0.1
"""Share of a recording's energy above which it is said that so much lies at frequencies that are
not heard."""
MOST_AT_ONCE = 1 << 16
"""Samples that are squared in float64 at a time."""
WINDOW = 1024
"""Samples of a spectrum, and spectra at a time."""
LOST_S = 0.25
"""Seconds that may be missing at the end before a warning: an MP3's announced length is off by a
few frames."""
UNTIL_THE_END = b"\xff\xff\xff\xff"
"""How WAV and AU announce that samples last until the end of the file."""
UNKNOWN_BYTES = 0x7FFF0000
"""Sizes from here on are written by programs that do not know the size, such as into a pipe."""
ANNOUNCED = re.compile(
    r"^\s*(?:data|SSND|BODY|Data Size|riff|Riff size)\s*:\s*(\d+)\s+\(should be (\d+)\)", re.MULTILINE
)
"""libsndfile's own note on a size that the file does not have."""
LARGEST_PAGE = 27 + 255 + 255 * 255
"""Bytes of an Ogg page (RFC 3533)."""
END_OF_STREAM = 4
"""Flag in an Ogg page's header."""

Waveform = npt.NDArray[np.float32]


class AudioWarning(UserWarning):
    """Warn that a recording was accepted, but that something about it may mislead."""


class Heard:
    """Measure what is heard of a recording at the rate that it was brought to.

    Block by block or all at once.
    """

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
        """Mean power of the samples without a constant offset."""
        return self.energy / self.samples - (self.sum / self.samples) ** 2 if self.samples else 0.0

    def passing(self, blocks: Iterable[Waveform]) -> Iterator[Waveform]:
        """Yield the blocks as they are, listening to each."""
        for block in blocks:
            self.add(block)
            yield block


def unheard_above(wave: Waveform, rate_hz: int, top_hz: float) -> str:
    """Say how much of a waveform's energy lies above the highest band of a front end.

    Nothing (``""``) if that is little. The waveform is ``(samples,)`` at `rate_hz`.
    """
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
    """Mix a recording down to mono and keep, while its blocks pass by, what `judge` needs."""

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
        """Seconds that were decoded, as messages show them."""
        return f"{self.frames / self.recording.rate_hz:.2f} s"

    def judge(self, heard: Heard, rate_hz: int) -> None:
        """Refuse a recording without sound and warn of a doubtful one.

        Called once all of it was `heard` at `rate_hz`.
        """
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


class Patched(io.FileIO):
    """Open a file of which some bytes read as others.

    Parameters
    ----------
    path
        The file.
    place
        Where the bytes that read as others begin.
    other
        What these bytes read as.
    """

    def __init__(self, path: Path, place: int, other: bytes) -> None:
        super().__init__(path, "rb")
        self._place, self._other = place, other

    def readinto(self, buffer: object, /) -> int:
        """Read, and put in the other bytes."""
        start = self.tell()
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = super().readinto(view)
        first, last = max(start, self._place), min(start + count, self._place + len(self._other))
        if first < last:
            view[first - start : last - start] = self._other[first - self._place : last - self._place]
        return count


def unfinished_header(path: Path) -> tuple[int, bytes] | None:
    """Find a size of 0 before samples that follow it all the same.

    Returned are where it is, and what to read in its place; None where nothing is amiss.

    Parameters
    ----------
    path
        A WAV (RIFF or RF64) or AU file; of others nothing is known.
    """
    size = path.stat().st_size
    with path.open("rb") as source:
        start = source.read(12)
        if start[:4] == b".snd" and start[8:12] == bytes(4):
            offset = int.from_bytes(start[4:8], "big")
            return (8, UNTIL_THE_END) if size > offset else None
        if start[:4] not in (b"RIFF", b"RF64") or start[8:12] != b"WAVE":
            return None
        place, long_size = 12, None
        while place + 8 <= size:
            source.seek(place)
            name, length = source.read(4), int.from_bytes(source.read(4), "little")
            if name == b"ds64":
                long_size = place + 16
            if name == b"data":
                rest = size - place - 8
                if rest == 0 or _are_chunks(source, place + 8 + length, size):
                    return None
                if start[:4] == b"RF64" and long_size is not None:
                    source.seek(long_size)
                    return None if any(source.read(8)) else (long_size, rest.to_bytes(8, "little"))
                return (place + 4, UNTIL_THE_END) if length == 0 else None
            place += 8 + length + length % 2
    return None


def _are_chunks(source: io.BufferedReader, place: int, size: int) -> bool:
    """Tell whether chunks follow up to the end of the file.

    A WAV that is truly empty may have some behind its samples.
    """
    if place >= size:
        return False
    while place + 8 <= size:
        source.seek(place)
        name, length = source.read(4), int.from_bytes(source.read(4), "little")
        if not name.isascii() or not name.decode("ascii").isprintable():
            return False
        place += 8 + length + length % 2
    return size <= place <= size + 1


def announced_share(log: str) -> float:
    """Compute how many times as much as there is a header announces, by libsndfile's log.

    It is 1 where the log says nothing, or nothing believable.
    """
    for announced, held in ((int(a), int(b)) for a, b in ANNOUNCED.findall(log)):
        if held and held < announced < UNKNOWN_BYTES:
            return announced / held
    return 1.0


def lacks_last_page(path: Path) -> bool:
    """Tell whether an Ogg file ends without the page that says that it is the last, or in it."""
    size = os.stat(path).st_size
    with path.open("rb") as source:
        source.seek(max(0, size - 2 * LARGEST_PAGE))
        end = source.read()
    place = end.rfind(b"OggS")
    while place >= 0:
        segments = end[place + 26] if len(end) > place + 26 else 0
        table = end[place + 27 : place + 27 + segments]
        whole = len(table) == segments and len(end) >= place + 27 + segments + sum(table) and len(end) > place + 26
        if end[place + 4 : place + 5] == b"\0" or not whole:
            return not (whole and end[place + 5] & END_OF_STREAM)
        place = end.rfind(b"OggS", 0, place)
    return True
