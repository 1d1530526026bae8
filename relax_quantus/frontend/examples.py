"""Carry with a tensor of examples what it is: its axes, its silence, its rate and its waveform.

`Axis` says what the last axes of a tensor stand for: frames and bands -> seconds and Hz. It is what
pictures, boxes and sounds ask; each kind of front end has its own
(`relax_quantus.frontend.log_mel.LogMelAxis`, `relax_quantus.frontend.axes`).

What front ends return and encoders take. A tensor ``(n, 1, T, F)`` or ``(n, samples)`` enters with
what its front end knows about it, the same tensor leaves: it can be used wherever a tensor can.
Metadata stays true or goes: picking examples, copying, moving to another device or floating type,
joining examples of one axis, pickling and collating keep it; anything that changes values or the
last two axes gives a plain tensor, which is also all that an encoder computes with.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SECONDS = "time (s)"
"""Label of a time axis in seconds."""
TICKS_HZ = (250, 500, 1000, 2000, 4000, 7000)
HIGH_TICKS_HZ = (10_000, 15_000, 20_000, 30_000, 40_000, 60_000, 80_000, 100_000, 120_000, 150_000, 200_000)
FEWEST_TICKS = 3
"""Where the lists above give fewer, ticks are at round steps."""
LEAST_GAP = 0.06
"""Least distance of two ticks, as a share of the axis."""
Image = npt.NDArray[np.float64]
_METADATA = ("axis", "silence", "sample_rate_hz", "source", "front_end")


@dataclass(frozen=True)
class Axis(ABC):
    """Tell when frames are, in seconds, and where bands are, in Hz.

    Parameters
    ----------
    start_s
        Where the first example starts, in seconds.
    """

    start_s: float = field(default=0.0, kw_only=True)

    label = "frequency (Hz)"
    time_label = SECONDS
    heading = "spectrogram"
    dimensions = 2
    """Last axes that it is about: time and bands, of waveforms time alone."""

    @property
    @abstractmethod
    def value_label(self) -> str:
        """Label of the values."""

    @property
    @abstractmethod
    def hop_s(self) -> float:
        """Seconds from one frame to the next."""

    @property
    @abstractmethod
    def window_s(self) -> float:
        """Seconds that one frame sees."""

    @property
    @abstractmethod
    def first_s(self) -> float:
        """Middle of the first frame's window in seconds from the beginning of the waveform."""

    @property
    @abstractmethod
    def bands(self) -> int:
        """Number of bands F."""

    @property
    @abstractmethod
    def centres_hz(self) -> Image | None:
        """Centre of each band in Hz, shape (F,); None where bands are no frequencies."""

    @abstractmethod
    def band_of_hz(self, hz: npt.ArrayLike) -> Image:
        """Return the position of frequencies in Hz on the band axis.

        0 is the lowest band's centre.
        """

    @abstractmethod
    def bands_of_hz(self, low_hz: float, high_hz: float) -> npt.NDArray[np.int64]:
        """Return the bands whose middle lies between two frequencies.

        The nearest if none does; none beside the range that is heard.
        """

    @abstractmethod
    def ticks(self) -> tuple[Sequence[float], Sequence[str]]:
        """Choose where to mark the band axis, and with what."""

    @property
    def in_seconds(self) -> bool:
        """Return whether times are seconds; otherwise frames are counted."""
        return self.time_label == SECONDS

    def times_s(self, frames: int) -> Image:
        """Return the centre of each frame's analysis window, shape (frames,), in seconds."""
        return np.asarray(self.start_s + self.first_s + self.hop_s * np.arange(frames))

    def end_s(self, frames: int) -> float:
        """Return where in the waveform what so many frames see ends, in seconds."""
        last = float(self.times_s(frames)[-1]) if frames else self.start_s
        return last + max(self.window_s, self.hop_s) / 2

    def extent(self, frames: int) -> tuple[float, float, float, float]:
        """Return left and right in seconds, bottom and top in bands, of an image of so many frames.

        Frame i is drawn from half a hop before to half a hop after its window's middle. Where that
        lets the image begin within a frame of the waveform's beginning, it begins there, so that
        examples join and start at round times: with VGGish's front end 7.5 ms early.
        """
        left = self.first_s - self.hop_s / 2
        left = self.start_s + (0.0 if abs(left) <= self._rounding * self.hop_s * (1 + 1e-9) else left)
        return left, left + frames * self.hop_s, -0.5, self.bands - 0.5

    _rounding = 1.0

    def frames_of_s(self, begin_s: float, end_s: float, frames: int) -> npt.NDArray[np.int64]:
        """Return the frames, of so many, whose middle lies between two seconds.

        The nearest if none does; none after the last.
        """
        times = self.times_s(frames)
        if not frames or begin_s > times[-1] + self.hop_s / 2:
            return np.zeros(0, np.int64)
        return within(times, begin_s, end_s)


class HasAxis(Protocol):
    """Stand for what knows the axes of its examples: `LogMel`, a front end, `Examples`."""

    @property
    def axis(self) -> Axis:
        """Return what the axes of its examples stand for."""
        ...


def within(middles: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.int64]:
    """Return the indices of the middles from `low` to `high`; of the nearest if there is none.

    Examples
    --------
    >>> within(np.array([1.0, 2.0, 4.0]), 1.5, 4.0), within(np.array([1.0, 2.0, 4.0]), 2.2, 2.4)
    (array([1, 2]), array([1]))
    """
    found = np.flatnonzero((middles >= low) & (middles <= high))
    return found if found.size else np.array([int(np.abs(middles - (low + high) / 2).argmin())])


def ticks_hz(low_hz: float, high_hz: float, position: Callable[[float], float], bands: int) -> list[int | float]:
    """Choose frequencies to mark on an axis, far enough apart to be read.

    Parameters
    ----------
    low_hz, high_hz
        Ends of the axis in Hz.
    position
        Frequency in Hz -> place on an axis of length `bands`.
    bands
        Number of bands F.

    Examples
    --------
    >>> ticks_hz(10_000, 120_000, lambda hz: hz / 1000, 120)
    [10000, 20000, 30000, 40000, 60000, 80000, 100000, 120000]
    >>> ticks_hz(3000, 3900, lambda hz: hz / 10, 90)
    [3000, 3200, 3400, 3600, 3800]
    """
    found = _apart([hz for hz in (*TICKS_HZ, *HIGH_TICKS_HZ) if low_hz <= hz <= high_hz], position, bands)
    if len(found) >= FEWEST_TICKS or not high_hz > low_hz:
        return found
    rough = (high_hz - low_hz) / 6
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(by for by in (1, 2, 5, 10) if by * power >= rough)
    steps = np.arange(np.ceil(low_hz / step - 1e-9), np.floor(high_hz / step + 1e-9) + 1)
    return _apart([round(float(hz), 6) for hz in steps * step], position, bands)


def _apart(wanted: Sequence[float], position: Callable[[float], float], bands: int) -> list[int | float]:
    found: list[int | float] = []
    for hz in wanted:
        if not found or position(hz) - position(found[-1]) >= LEAST_GAP * bands:
            found.append(int(hz) if float(hz).is_integer() else hz)
    return found


class Examples(Tensor):
    """Hold examples of sound with what they stand for.

    Made by front ends (`Examples.of`), not by calling the class.

    Attributes
    ----------
    axis : Axis
        Seconds and hertz of the last two axes (of waveforms: seconds of the last). Times count from
        the beginning of the first example of the recording.
    silence : float or Tensor
        The value that digital silence has here, a number or one a band ``(F,)``: what the fill
        ``"silence"`` puts in.
    sample_rate_hz : int
        Rate of the waveform that the front end takes.
    source : Tensor or None
        The waveform ``(samples,)`` or ``(B, samples)`` that they were made of, not copied; None
        where it is not known, as of examples of several recordings.
    front_end : str
        Name of the front end, as results record it.

    Notes
    -----
    An operation in place keeps the metadata, as it returns the same object: take a copy by `plain`
    before changing values that should no longer be read as this sound. A network that went through
    ``torch.compile`` runs uncompiled on examples, as its graphs take plain tensors alone: give it
    ``plain(x)``, as RELAX and heads do.

    Examples
    --------
    >>> import torch
    >>> from relax_quantus.frontend.log_mel import LogMel
    >>> x = LogMel()(torch.zeros(48_000))
    >>> x.shape, x.sample_rate_hz, x.axis.hop_s, x.source.shape
    (torch.Size([3, 1, 96, 64]), 16000, 0.01, torch.Size([48000]))
    >>> type(x[1:]).__name__, type(x + 1).__name__, type(x[..., :32]).__name__
    ('Examples', 'Tensor', 'Tensor')
    """

    axis: Axis
    silence: float | Tensor
    sample_rate_hz: int
    source: Tensor | None
    front_end: str

    @staticmethod
    def of(
        x: Tensor,
        axis: Axis,
        silence: float | Tensor,
        sample_rate_hz: int,
        source: Tensor | None = None,
        front_end: str = "",
    ) -> Tensor:
        """Say of a tensor what it is; memory is shared and gradients flow through.

        Code that is being compiled or traced gets the tensor as it is, as it computes with nothing
        else.
        """
        if torch.compiler.is_compiling() or torch._C._is_tracing():
            return x
        if isinstance(silence, Tensor):
            silence = silence.detach().reshape(-1) if silence.numel() in (1, x.shape[-1]) else silence.detach()
        source = None if source is None else plain(source.detach())
        return _described(x, (axis, silence, sample_rate_hz, source, front_end))

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run any operation on plain tensors.

        What it returns is described where it is still the same sound.
        """
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        keep = _KEEPING.get(func)
        if keep is None or result is NotImplemented:
            return result
        return keep(result, *args, **(kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """Copy the values; what describes them is shared."""
        if id(self) in memo:
            copied: Tensor = memo[id(self)]
            return copied
        with torch._C.DisableTorchFunctionSubclass():
            values = self.detach().clone().requires_grad_(self.requires_grad)
        memo[id(self)] = made = _described(values, _metadata(self))
        return made

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle as a plain tensor and its description."""
        return _described, (plain(self), _metadata(self))


def plain(x: Tensor) -> Tensor:
    """Return a tensor without a description, sharing its memory and gradients.

    Examples
    --------
    >>> import torch
    >>> from relax_quantus.frontend.log_mel import LogMel
    >>> type(plain(LogMel()(torch.zeros(16_000))))
    <class 'torch.Tensor'>
    """
    if not isinstance(x, Examples):
        return x
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(Tensor)


def without_source(x: Tensor) -> Tensor:
    """Return the same examples without the waveform that they were made of.

    It may be much larger than they are.
    """
    if not isinstance(x, Examples) or x.source is None:
        return x
    axis, silence, rate_hz, _, front_end = _metadata(x)
    return _described(plain(x), (axis, silence, rate_hz, None, front_end))


def like(values: Tensor, x: Tensor) -> Tensor:
    """Describe values ``(..., T, F)`` as `x` is, without its waveform.

    For a copy of `x` that was changed within its domain.
    """
    return _like(plain(values), without_source(x))  # type: ignore[no-any-return]


def _metadata(x: Examples) -> tuple[Any, ...]:
    return tuple(getattr(x, name, None) for name in _METADATA)


def _described(values: Tensor, metadata: tuple[Any, ...]) -> Tensor:
    """Describe a tensor; also what unpickles examples."""
    with torch._C.DisableTorchFunctionSubclass():
        x = values.as_subclass(Examples)
    for name, value in zip(_METADATA, metadata, strict=True):
        setattr(x, name, value)
    return x


def _like(result: Any, x: Any) -> Any:
    """Describe a result as `x` is, its silence on the result's device."""
    if not isinstance(x, Examples) or not isinstance(result, Tensor) or isinstance(result, Examples):
        return result
    axis, silence, rate_hz, source, front_end = _metadata(x)
    if isinstance(silence, Tensor):
        silence = silence.to(result.device)
    return _described(result, (axis, silence, rate_hz, source, front_end))


def _axes(x: Examples) -> int:
    """Return the number of last axes that the description is about.

    Time and bands, of waveforms time alone.
    """
    return int(getattr(x.axis, "dimensions", 2))


def _copied(result: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Keep of what returns the same values, or the same in another floating type."""
    same_kind = isinstance(result, Tensor) and result.is_floating_point() and x.is_floating_point()
    return _like(result, x) if same_kind else result


def _picked(result: Any, x: Any, index: Any) -> Any:
    """Keep of what picks examples: an index that leaves the last axes alone."""
    if not isinstance(x, Examples):
        return result
    used = 0
    for part in index if isinstance(index, tuple) else (index,):
        if part is Ellipsis or isinstance(part, bool):
            return result
        if part is not None:
            used += part.ndim if isinstance(part, Tensor) and part.dtype == torch.bool else 1
    return _like(result, x) if used <= x.ndim - _axes(x) else result


def _iterated(result: Any, x: Any, dim: int = 0) -> Any:
    """Keep of what takes the batch apart, one by one."""
    return tuple(_like(part, x) for part in result) if dim == 0 and x.ndim > _axes(x) else result


def _joined(result: Any, tensors: Any, *args: Any, **kwargs: Any) -> Any:
    """Describe examples of one axis that were joined along the batch.

    Of several recordings there is no one waveform.
    """
    parts = list(tensors)
    dim = kwargs.get("dim", kwargs.get("axis", args[0] if args else 0))
    if dim != 0 or not all(isinstance(part, Examples) for part in parts):
        return result
    first = parts[0]
    if first.ndim < _axes(first) or not all(_same(first, part) for part in parts[1:]):
        return result
    source = first.source if all(part.source is first.source for part in parts) else None
    described = (first.axis, first.silence, first.sample_rate_hz, source, first.front_end)
    return _described(result, described)


def _same(one: Examples, other: Examples) -> bool:
    """Tell whether two are the same kind of example: one axis and one silence."""
    if (one.axis, one.sample_rate_hz, one.front_end) != (other.axis, other.sample_rate_hz, other.front_end):
        return False
    a, b = (torch.as_tensor(x.silence).double().cpu() for x in (one, other))
    return a.shape == b.shape and bool(torch.equal(a, b))


def _keeping() -> dict[Any, Callable[..., Any]]:
    """Return the operations after which the description still holds, and how it is kept."""
    copying = [
        "clone",
        "detach",
        "contiguous",
        "to",
        "cpu",
        "cuda",
        "float",
        "double",
        "half",
        "bfloat16",
        "type",
        "type_as",
        "pin_memory",
        "alias",
    ]
    found: dict[Any, Callable[..., Any]] = {}
    for names, keep in (
        (copying, _copied),
        (["__getitem__"], _picked),
        (["unbind"], _iterated),
    ):
        for name in names:
            for owner in (Tensor, torch):
                if hasattr(owner, name) and callable(getattr(owner, name)):
                    found[getattr(owner, name)] = keep
    for join in (torch.cat, torch.concat, torch.concatenate, torch.stack):
        found[join] = _joined
    return found


class _Compiler(MetaPathFinder):
    """Tell torch's compiler, when it is first imported, to leave operations on examples uncompiled.

    Its graphs fail on every subclass of Tensor ("Multiple dispatch failed", torch 2.13). Importing
    it here to say so would cost every program two seconds.
    """

    CONFIG = "torch._dynamo.config"

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Find nothing; once the compiler's settings are there, change them and stop listening."""
        if name.startswith("torch._dynamo.") and self.tell() and self in sys.meta_path:
            sys.meta_path.remove(self)

    def tell(self) -> bool:
        """Change the settings if they are there."""
        kept_out = getattr(sys.modules.get(self.CONFIG), "nontraceable_tensor_subclasses", None)
        if kept_out is not None:
            kept_out.add(Examples)
        return kept_out is not None


_KEEPING = _keeping()
if not _Compiler().tell():
    sys.meta_path.insert(0, _Compiler())
torch.serialization.add_safe_globals([_described])  # so that torch.load opens what torch.save wrote
