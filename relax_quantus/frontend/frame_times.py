"""Measure when frames are by clicks at known places, for front ends that do not say it themselves.

Beside `relax_quantus.frontend.axes`: a function from a waveform to examples enters, a `FrameTimes`
leaves, or the reason why there is none. Counting the frames of some seconds would not do: a partial
last example is dropped, ends are padded or not, windows are centred or begin at their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

LENGTHS_S = (20.0, 13.7)
"""Two lengths, so that a front end which stretches whatever it gets over a fixed number of frames
is found out."""
ALONE = (12, 6)
"""Waveforms of each length with one click."""
MOST_BANDS, MOST_COMPARED = 96, 400
"""Bands that are looked at, and frames that the others are compared with, about."""
NOISE, CLICK = 1e-4, 0.9
CLICKS_S = (0.0, 0.02, 0.2)
"""Lengths of a click, longer ones for front ends that skip some of the sound between frames."""
EDGE_S = 0.6
LEAST_RESPONSE = 0.05
"""Share of the strongest response below which a click was not heard (between windows, or behind
what is cut off)."""
FEWEST = 8
"""Clicks that have to be heard."""
FEWEST_CHANGES, ENOUGH_CHANGES, MOST_ROUNDS = 6, 12, 5
"""Changes from one frame to the next that have to be found, that are enough, and rounds to find
them in."""
MOST_MISSED, MOST_MISSED_CHANGE = 0.75, 0.15
"""Frames by which no click, and no change from one frame to the next, may be off."""
WHOLE_SAMPLES = 0.1
"""Distances so near to whole samples are whole."""
APART_S = 0.4
Image = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FrameTimes:
    """Say when frames are, in seconds from the beginning of the waveform.

    Attributes
    ----------
    every_s
        Seconds from one frame to the next.
    first_s
        Middle of the first frame's window.
    window_s
        Seconds that one frame sees, roughly.
    example_frames, example_s
        As in `relax_quantus.frontend.axes.BinAxis`; 0 where frames run on from one example to the
        next.
    """

    every_s: float
    first_s: float
    window_s: float = 0.0
    example_frames: int = 0
    example_s: float = 0.0

    def at(self, frame: npt.ArrayLike) -> Image:
        """Return the time of frames, counted end to end over all examples."""
        number = np.asarray(frame, dtype=np.float64)
        example = np.floor(number / self.example_frames) if self.example_frames else np.zeros_like(number)
        return np.asarray(
            self.first_s + example * self.example_s + (number - example * self.example_frames) * self.every_s
        )


def measure(make: Callable[[npt.NDArray[np.float32]], Tensor], rate_hz: int) -> FrameTimes | str:
    """Find out when a front end's frames are.

    Parameters
    ----------
    make
        Waveform ``(samples,)`` of any length -> examples ``(n, 1, T, F)``.
    rate_hz
        The front end's sample rate in Hz.

    Returns
    -------
    FrameTimes or str
        When frames are, or why nobody can say: clicks are not found again, or not at places that
        lie on a line. Costs about 30 calls of `make` of up to 20 s each, three times as many where
        short clicks do not do.

    Examples
    --------
    >>> import torch
    >>> def whole(wave):
    ...     return torch.from_numpy(wave[: wave.size // 4000 * 4000])
    >>> found = measure(lambda wave: whole(wave).abs().reshape(-1, 1, 20, 200), 16_000)
    >>> found.every_s, round(found.first_s, 2)
    (0.0125, 0.01)
    """
    why = ""
    for click_s in CLICKS_S:
        try:
            return _Probe(make, rate_hz, click_s).found()
        except UnheardError as reason:
            why = str(reason)
        except Exception as error:  # whatever a user's own code makes of clicks
            return f"it fails on clicks ({type(error).__name__})"
    return why


class UnheardError(Exception):
    """Say that clicks do not tell when frames are."""


@dataclass(frozen=True)
class _Heard:
    """Hold a click at `sample` and where it was heard.

    That is the frame, counted end to end, and of how many frames an example is.
    """

    sample: float
    frame: float
    first: int
    last: int
    per_example: int

    @property
    def example(self) -> int:
        return int(self.frame // self.per_example)

    @property
    def is_inside(self) -> bool:
        """Whether the click was heard in one example alone, away from its edges."""
        return self.first % self.per_example > 0 and (self.last + 1) % self.per_example > 0


class _Probe:
    """Send clicks through one front end."""

    def __init__(self, make: Callable[[npt.NDArray[np.float32]], Tensor], rate_hz: int, click_s: float) -> None:
        self.make, self.rate_hz = make, rate_hz
        self.random = np.random.default_rng(0)
        size = round(click_s / 2 * rate_hz)
        half = self.random.uniform(-1, 1, size) * np.hanning(2 * size + 1)[:size]
        self.click = CLICK * np.concatenate([half, [1.0], half[::-1]]).astype(np.float32)  # the same backwards
        self.quiet = {
            seconds: (NOISE * self.random.standard_normal(round(seconds * rate_hz))).astype(np.float32)
            for seconds in LENGTHS_S
        }
        self.base = {seconds: self._frames(wave) for seconds, wave in self.quiet.items()}

    def found(self) -> FrameTimes:
        heard = []
        for seconds, count in zip(LENGTHS_S, ALONE, strict=True):
            for place in self._places(seconds, count):
                response, per_example = self._response(seconds, [place])
                heard.append((float(response.max()), _located(response, per_example, place)))
        loudest = max(strength for strength, _ in heard)
        alone = [one for strength, one in heard if strength > LEAST_RESPONSE * loudest and one is not None]
        if loudest <= 0 or len(alone) < FEWEST:
            raise UnheardError("it does not hear clicks")
        rough = self._fitted(alone)
        many = self._changes(rough)
        if len(many) < FEWEST_CHANGES:
            raise UnheardError("clicks are heard in too few frames")
        return self._rounded(self._fitted(many, MOST_MISSED_CHANGE, FEWEST_CHANGES), many)

    def _places(self, seconds: float, count: int) -> list[int]:
        """Choose irregular places, a third of them in the first seconds.

        For front ends that cut off what follows.
        """
        early = self.random.uniform(EDGE_S, 3.0, count // 3)
        late = self.random.uniform(EDGE_S, seconds - EDGE_S, count - count // 3)
        return [round(float(at) * self.rate_hz) for at in np.concatenate([early, late])]

    def _frames(self, wave: npt.NDArray[np.float32]) -> tuple[Image, int]:
        x = self.make(wave.copy())
        values = x.detach().cpu()
        values = (values.abs() if values.is_complex() else values)[..., :: -(-values.shape[-1] // MOST_BANDS)]
        return np.asarray(values.double().reshape(-1, values.shape[-1]).numpy()), int(values.shape[-2])

    def _response(self, seconds: float, places: Sequence[int]) -> tuple[Image, int]:
        """Measure how far frames ``(n T,)`` are from most others, beyond the same in silence."""
        wave = self.quiet[seconds].copy()
        for place in places:
            begin = max(0, place - self.click.size // 2)
            part = self.click[begin - (place - self.click.size // 2) :][: wave.size - begin]
            wave[begin : begin + part.size] += part
        (base, _), (found, per_example) = self.base[seconds], self._frames(wave)
        if found.shape != base.shape or not np.isfinite(found).all():
            raise UnheardError("the number of its frames depends on more than the length")
        return np.clip(_apart(found) - np.nan_to_num(_apart(base)), 0, None), per_example

    def _changes(self, rough: FrameTimes) -> list[_Heard]:
        """Find the samples, to one, at which what hears a click changes from one frame to the next.

        For many frames at once, by bisection.
        """
        seconds, across = LENGTHS_S[0], rough.window_s / rough.every_s
        reach = math.ceil(across / 2) + (1 if across < 1.5 else 3)
        apart_s = max(APART_S, (2 * reach + 4) * rough.every_s)
        found: list[_Heard] = []
        for _ in range(MOST_ROUNDS):
            begin_s = EDGE_S + float(self.random.uniform(0, min(apart_s, seconds / 2)))
            wanted = np.arange(begin_s, seconds - EDGE_S - 2 * rough.every_s, apart_s)
            wanted = wanted[wanted > EDGE_S] + self.random.uniform(0, 0.5 * rough.every_s, wanted.size)
            middles = rough.at(np.arange(len(self.base[seconds][0])))
            places = [int(np.abs(middles - at).argmin()) for at in wanted if middles[0] < at < middles[-1]]
            found += self._bisected(np.unique(np.array(places, dtype=int)), rough, reach)
            if len(found) >= ENOUGH_CHANGES:
                break
        return found

    def _bisected(self, expected: npt.NDArray[np.int_], rough: FrameTimes, reach: int) -> list[_Heard]:
        """Find where hearing changes from each of some frames, far apart, to the next."""
        seconds, every = LENGTHS_S[0], rough.every_s * self.rate_hz
        low = np.round(rough.at(expected) * self.rate_hz - every / 2).astype(int)
        high = low + round(2.5 * every)
        keep = (low >= 0) & (high < (seconds - EDGE_S / 2) * self.rate_hz)
        expected, low, high = expected[keep], low[keep], high[keep]
        heard: dict[int, _Heard] = {}
        begin, end, lost = low.copy(), high.copy(), np.zeros(expected.size, dtype=bool)
        while expected.size and int((high - low).max()) > 1:
            middle = (low + high) // 2
            response, per_example = self._response(seconds, middle.tolist())
            for i, frame in enumerate(expected.tolist()):
                one = _located(response, per_example, int(middle[i]), frame, reach)
                if one is None:  # between two windows: a longer click will tell
                    lost[i], low[i] = True, middle[i]
                    continue
                heard[frame] = one
                if one.frame < frame + 0.5:
                    low[i] = middle[i]
                else:
                    high[i] = middle[i]
        lost |= (low == begin) | (high == end)
        return [
            replace(heard[frame], sample=float(high[i]), frame=frame + 0.5)
            for i, frame in enumerate(expected.tolist())
            if not lost[i] and frame in heard
        ]

    def _fitted(self, heard: list[_Heard], most: float = MOST_MISSED, fewest: int = FEWEST) -> FrameTimes:
        """Fit the line through all clicks.

        Where no line fits all, each example gets one, of the same slope.
        """
        rate = self.rate_hz
        samples, frames = np.array([h.sample for h in heard]), np.array([h.frame for h in heard])
        widths = np.array([h.last - h.first + 1 for h in heard])
        (every, first), worst = _line(np.stack([frames, np.ones_like(frames)], axis=1), samples)
        if every > 0 and worst <= most * every:
            return FrameTimes(every / rate, first / rate, float(np.median(widths)) * every / rate)
        inside = [h for h in heard if h.is_inside]
        if len(inside) < fewest or len({h.per_example for h in inside}) > 1:
            raise UnheardError("clicks are not heard at places that lie on a line")
        per_example = inside[0].per_example
        samples = np.array([h.sample for h in inside])
        example = np.array([h.example for h in inside])
        frame = np.array([h.frame for h in inside]) - example * per_example
        (example_, every, first), worst = _line(np.stack([example, frame, np.ones_like(frame)], axis=1), samples)
        if not (every > 0 and example_ > 0 and worst <= most * every and np.ptp(example) > 0):
            raise UnheardError("clicks are not heard at places that lie on a line")
        width = float(np.median([h.last - h.first + 1 for h in inside]))
        return FrameTimes(every / rate, first / rate, width * every / rate, per_example, example_ / rate)

    def _rounded(self, times: FrameTimes, heard: list[_Heard]) -> FrameTimes:
        """Return the same in whole samples where it is that but for the error of measuring."""
        every, example = (_whole(value * self.rate_hz) for value in (times.every_s, times.example_s))
        exact = replace(times, every_s=every / self.rate_hz, example_s=example / self.rate_hz)
        used = [h for h in heard if h.is_inside] if times.example_frames else heard
        late = np.array([h.sample / self.rate_hz - float(exact.at(0)) for h in used])
        number = np.array([h.frame for h in used])
        part = np.array([h.example for h in used]) if times.example_frames else np.zeros_like(number)
        along = part * exact.example_s + (number - part * times.example_frames) * exact.every_s
        first = exact.first_s + float(np.mean(late - along))
        if times.example_frames and abs(times.example_frames * exact.every_s - exact.example_s) < 0.5 / self.rate_hz:
            exact = replace(exact, example_frames=0, example_s=0.0)
        return replace(exact, first_s=0.0 if abs(first) < 0.05 * exact.every_s else first)


def _whole(samples: float) -> float:
    return float(round(samples)) if abs(samples - round(samples)) <= WHOLE_SAMPLES else samples


def _line(design: Image, samples: Image) -> tuple[list[float], float]:
    """Fit a line by least squares; return it and the largest miss."""
    solution, _, rank, _ = np.linalg.lstsq(design, samples, rcond=None)
    if rank < design.shape[1]:
        raise UnheardError("clicks are heard in too few frames")
    return [float(v) for v in solution], float(np.abs(design @ solution - samples).max())


def _apart(frames: Image) -> Image:
    """Measure how far every frame ``(frames,)`` is from the median of all."""
    return np.asarray(np.abs(frames - np.median(frames[:: -(-len(frames) // MOST_COMPARED)], axis=0)).mean(axis=1))


def _located(
    response: Image, per_example: int, sample: int, expected: int | None = None, reach: int = 0
) -> _Heard | None:
    """Find where the strongest response is, or that near an expected frame.

    It is the centre of what is above a quarter of it.
    """
    low, high = (0, response.size) if expected is None else (max(0, expected - reach), expected + reach + 1)
    part = response[low:high]
    peak = int(part.argmax())
    floor = float(np.median(response))
    threshold = floor + 0.25 * (float(part[peak]) - floor)
    if not part[peak] > floor or part[peak] < LEAST_RESPONSE * response.max():
        return None
    first = last = peak
    while first > 0 and part[first - 1] > threshold:
        first -= 1
    while last < part.size - 1 and part[last + 1] > threshold:
        last += 1
    weight = part[first : last + 1] - threshold
    centre = float((weight * np.arange(first, last + 1)).sum() / weight.sum())
    return _Heard(float(sample), low + centre, low + first, low + last, per_example)


def confirmed(make: Callable[[npt.NDArray[np.float32]], Tensor], rate_hz: int, centres_hz: Sequence[float]) -> bool:
    """Tell whether tones at the centres of some bands are loudest there, or next to it.

    If so, what a part of a front end says holds for the whole.
    """
    bands = len(centres_hz)
    if bands == 0:
        return False
    time_s = np.arange(round(LENGTHS_S[0] * rate_hz)) / rate_hz
    noise = NOISE * np.random.default_rng(0).standard_normal(time_s.size)
    try:
        base = _spectrum(make, noise)
        for band in sorted({round(share * (bands - 1)) for share in (0.25, 0.5, 0.8)}):
            tone = 0.3 * np.sin(2 * np.pi * centres_hz[band] * time_s) + noise
            if abs(int((_spectrum(make, tone) - base).argmax()) - band) > 1:
                return False
    except Exception:  # whatever a user's own code makes of tones
        return False
    return True


def _spectrum(make: Callable[[npt.NDArray[np.float32]], Tensor], wave: Any) -> Image:
    x = make(np.asarray(wave, np.float32)).detach().cpu()
    values = x.abs() if x.is_complex() else x
    return np.asarray(values.double().reshape(-1, values.shape[-1]).mean(dim=0).numpy())
