"""Maps of examples that overlap -> one map over the recording's own time axis.

A leaf of the flow beside `relax_quantus.views.boxes` and `relax_quantus.views.sounds`: explanations
``(n, 1, T, F)`` of examples that begin every `hop` frames enter, a `Stitched` map ``(T_total, F)``
leaves. A bin at recording time t lies in up to ceil(T / hop) examples; with v_i the map of example
i at that bin, f_i the frame there counted from the example's beginning, and w the taper,

    stitched = sum_i w(f_i) v_i / sum_i w(f_i),    w(f) = sin^2(pi (f + 1/2) / T), f = 0 ... T - 1.

The taper is small where an example has just begun or is about to end, so that none enters or leaves
with a step (a seam), and positive everywhere, so that the recording's first and last frames have a
value. It depends on nothing but the frame: weights of inverse variance would favour the examples
whose similarity varies least, which are those in which nothing matters, and so shrink what does.

Each standard error, s_i being that of v_i, is exact when overlapping examples drew their own masks,
as `explain_overlapping` and the command line let them; with masks that they share the errors are
correlated in an unknown way, and the bound for full correlation is given:

    own masks: sqrt(sum_i w_i^2 s_i^2) / sum_i w_i,    shared masks: at most sum_i w_i s_i / sum_i
    w_i.

It says how sure the *average* is given these examples, not how much they differ from one another.
Uncertainty, neutral value and cell effects are averaged as the importance is. An example that has
no explanation (NaN) weighs nothing; where there is no other, the map is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import neutral_torch
from relax_quantus.errors import ShapeError
from relax_quantus.frontend.examples import Axis, Image
from relax_quantus.frontend.framing import hop_frames
from relax_quantus.frontend.log_mel import LogMelAxis
from relax_quantus.relax.attribution import RELAX
from relax_quantus.relax.explanation import Explanation

ERRORS = ("standard_error", "centred_standard_error")
MAPS = ("importance", "uncertainty", *ERRORS, "neutral", "cell_effects")
WEIGHT = "weight"


@dataclass(frozen=True, eq=False)
class Stitched:
    """Hold one map over a whole recording.

    The maps are ``(T_total, F)``, in float32 unless the explanation was in another type.

    Parameters
    ----------
    importance, uncertainty, standard_error, centred_standard_error, neutral, cell_effects
        As in `Explanation`, averaged over the examples that hold the bin; NaN where none has an
        explanation.
    times_s
        ``(T_total,)``: middle of each frame in seconds from the beginning of the recording.
    hop
        Frames from one example to the next.
    null_maxima, null_statistic, hears_nothing
        ``(n, P)``, ``(n,)`` and ``(n,)``: of the examples, as in `Explanation`, so that what stands
        out follows the same rule as in theirs; None unless they were explained with ``null=True``.
    """

    importance: Tensor
    uncertainty: Tensor
    standard_error: Tensor
    centred_standard_error: Tensor
    neutral: Tensor
    times_s: Image
    hop: int
    cell_effects: Tensor | None = None
    null_maxima: Tensor | None = None
    null_statistic: Tensor | None = None
    hears_nothing: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.bool, device="cpu"))

    @property
    def heard(self) -> Tensor:
        """Whether the network hears anything in an example that holds a frame, ``(T_total,)``."""
        frames = len(self.importance) - (len(self.hears_nothing) - 1) * self.hop
        return heard_frames(self.hears_nothing, self.hop, frames)

    @neutral_torch()
    def z(self) -> Tensor:
        """Return centred importance over its standard error, ``(T_total, F)``.

        NaN where the error is unknown.
        """
        return self.centred() / self.centred_standard_error

    def centred(self) -> Tensor:
        """Importance minus its value if no bin mattered; see `Explanation.centred`.

        `relax_quantus.views.boxes.regions` takes the whole object; with ``[None, None]`` this goes
        wherever a map ``(n, 1, T, F)`` goes: `relax_quantus.views.sounds.gain`,
        `relax_quantus.views.maps.plot_map`.
        """
        return self.importance - self.neutral


@neutral_torch()
def taper(frames: int) -> Tensor:
    """Return weights ``(T,)`` of an example's frames, float64: sin^2(pi (f + 1/2) / T).

    Examples
    --------
    >>> taper(4).round(decimals=3)
    tensor([0.1460, 0.8540, 0.8540, 0.1460], dtype=torch.float64)
    """
    return torch.sin(math.pi * (torch.arange(frames, dtype=torch.float64) + 0.5) / frames).square()


def phases(frames: int, hop: int) -> int:
    """Return how many examples hold one frame at most.

    Examples i and j with the same remainder by it never overlap.
    """
    return -(-frames // hop)


def phase_seed(seed: int | None, phase: int) -> int | None:
    """Return the seed of the masks of every ``phases``-th example.

    `seed` itself for phase 0, so that without overlap nothing changes.

    Examples
    --------
    >>> phase_seed(7, 0), phase_seed(7, 1) == phase_seed(8, 0), phase_seed(None, 1)
    (7, False, None)
    """
    if seed is None or phase == 0:
        return seed
    return int(np.random.SeedSequence((seed, phase)).generate_state(1, np.uint64)[0] >> np.uint64(1))


@neutral_torch()
def heard_frames(hears_nothing: Tensor, hop: int, frames: int) -> Tensor:
    """Return whether the network hears anything in an example that holds a frame, ``(T_total,)``.

    Parameters
    ----------
    hears_nothing
        ``(n,)`` bool, of examples of `frames` frames that begin every `hop`.

    Examples
    --------
    >>> heard_frames(torch.tensor([True, False, True]), 2, 3)
    tensor([False, False,  True,  True,  True, False, False])
    """
    found = torch.zeros((len(hears_nothing) - 1) * hop + frames, dtype=torch.bool)
    for example in (~hears_nothing).nonzero().flatten().tolist():
        found[example * hop : example * hop + frames] = True
    return found


class Stitcher:
    """Average maps in the order of the examples, keeping only what later ones will still add to.

    Parameters
    ----------
    frames, hop
        Frames T of an example, and from one example to the next.
    shared_masks
        Whether overlapping examples were explained with the same masks.
    carry
        As `carry` was when another stitcher had taken the examples before.

    Attributes
    ----------
    carry
        Float64 sums ``(T - hop, F)`` by name over the frames that are not finished.
    """

    def __init__(
        self, frames: int, hop: int, *, shared_masks: bool = True, carry: Mapping[str, Tensor] | None = None
    ) -> None:
        self.frames, self.hop, self.shared_masks = frames, hop, shared_masks
        self.weights = taper(frames)[:, None]
        self.carry: dict[str, Tensor] = dict(carry or {})

    @neutral_torch()
    def push(self, maps: Mapping[str, Tensor], usable: Tensor | None = None) -> dict[str, Tensor]:
        """Add maps ``(n, T, F)`` of the next n examples; those not `usable` ``(n,)`` weigh nothing.

        Returns
        -------
        dict of Tensor
            The averages over the ``n hop`` frames to which no later example adds.
        """
        count = len(next(iter(maps.values())))
        chosen = range(count) if usable is None else usable.nonzero().flatten().tolist()
        rows = (count - 1) * self.hop + self.frames
        finished: dict[str, Tensor] = {}
        weight = self._sums(WEIGHT, rows, 1)
        for i in chosen:
            weight[i * self.hop : i * self.hop + self.frames] += self.weights
        for name in dict.fromkeys([*maps, *self.carry]):
            if name == WEIGHT:
                continue
            values = maps.get(name)  # None for what these examples have not, and those before had
            sums = self._sums(name, rows, (self.carry[name] if values is None else values).shape[-1])
            for i in () if values is None else chosen:
                assert values is not None
                sums[i * self.hop : i * self.hop + self.frames] += self._weighted(name, values[i].double())
            mean = self._mean(name, sums, weight)[: count * self.hop]
            finished[name] = mean.to(torch.float32 if values is None else values.dtype)
            self.carry[name] = sums[count * self.hop :].clone()
        self.carry[WEIGHT] = weight[count * self.hop :].clone()
        return finished

    @neutral_torch()
    def finish(self) -> dict[str, Tensor]:
        """Return the averages over the last ``T - hop`` frames, in float64."""
        weight = self.carry.get(WEIGHT, torch.zeros(0, 1))
        return {name: self._mean(name, s, weight) for name, s in self.carry.items() if name != WEIGHT}

    def _sums(self, name: str, rows: int, bands: int) -> Tensor:
        sums = torch.zeros(rows, bands, dtype=torch.float64)
        if name in self.carry:
            sums[: self.frames - self.hop] = self.carry[name]
        return sums

    def _weighted(self, name: str, values: Tensor) -> Tensor:
        weighted = values.cpu() * self.weights
        return weighted.square() if name in ERRORS and not self.shared_masks else weighted

    def _mean(self, name: str, sums: Tensor, weight: Tensor) -> Tensor:
        # 0 / 0 is NaN
        return (sums.sqrt() if name in ERRORS and not self.shared_masks else sums) / weight


def maps_of(explanation: Explanation) -> dict[str, Tensor]:
    """Return the maps of an explanation by name, ``(n, T, F)``; F = 1 for waveforms.

    Raises
    ------
    ShapeError
        If it is of neither.
    """
    importance = explanation.importance
    if not (importance.ndim == 2 or (importance.ndim == 4 and importance.shape[1] == 1)) or 0 in importance.shape:
        rule = "maps of shape (n, 1, T, F) or (n, samples)"
        checks.refuse("explanation", rule, importance, "explain the examples of one recording", ShapeError)
    found = {name: getattr(explanation, name) for name in MAPS}
    whole = {name: value.expand_as(importance) for name, value in found.items() if value is not None}
    return {name: value[..., None] if importance.ndim == 2 else value[:, 0] for name, value in whole.items()}


@neutral_torch()
def stitch(
    explanation: Explanation, hop_s: float | None = None, *, axis: Axis | None = None, shared_masks: bool = True
) -> Stitched:
    """Make one map of the explanations of a recording's examples.

    Parameters
    ----------
    explanation
        Of examples in their order, ``(n, 1, T, F)`` or ``(n, samples)``, as
        `relax_quantus.load_examples` cuts them with the same `hop_s`.
    hop_s
        Seconds from the beginning of one example to that of the next; None for an example's length:
        end to end.
    axis
        What the maps' axes stand for; VGGish's front end from 0 s by default.
    shared_masks
        False if examples that overlap were explained with masks of their own, see
        `explain_overlapping`; then the standard error is exact, otherwise it is an upper bound.

    Returns
    -------
    Stitched
        Of ``(n - 1) hop + T`` frames; one column for waveforms. Without overlap, the maps end to
        end bit for bit.

    Raises
    ------
    ShapeError, ArgumentError, ArgumentTypeError
        If something does not fit.

    Examples
    --------
    >>> relax = RELAX(lambda x: x.flatten(1), masks="time")
    >>> stitch(relax.explain(torch.rand(3, 1, 96, 64), n_samples=9), 0.48).importance.shape
    torch.Size([192, 64])
    """
    axis, maps = axis or LogMelAxis(), maps_of(explanation)
    frames = maps["importance"].shape[1]
    hop = hop_frames(hop_s, axis.hop_s, frames)
    stitcher = Stitcher(frames, hop, shared_masks=shared_masks)
    usable = torch.isfinite(maps["importance"]).flatten(1).all(dim=1).cpu()
    parts, rest = stitcher.push(maps, usable), stitcher.finish()
    whole = {name: torch.cat([part, rest[name].to(part.dtype)]) for name, part in parts.items()}
    chance: dict[str, Tensor] = {}
    if explanation.null_maxima is not None and explanation.null_statistic is not None:
        chance = {"null_maxima": explanation.null_maxima, "null_statistic": explanation.null_statistic}
    deaf = explanation.hears_nothing.cpu()
    return Stitched(**whole, **chance, times_s=axis.times_s(len(whole["importance"])), hop=hop, hears_nothing=deaf)


@neutral_torch()
def explain_overlapping(
    relax: RELAX,
    x: Tensor,
    hop_s: float | None = None,
    baselines: Any = None,
    *,
    axis: Axis | None = None,
    seed: int | None = 0,
    **settings: Any,
) -> Stitched:
    """Explain overlapping examples and stitch.

    Examples that overlap draw their own masks, so that averaging makes the map surer.

    With the same masks for all, as one call of `RELAX.explain` has them, errors of overlapping
    examples go together and averaging helps less, by an unknown amount. Examples that do not
    overlap share masks; without overlap it is one call with `seed`.

    Parameters
    ----------
    relax
        With any encoder.
    x
        Examples ``(n, 1, T, F)`` or ``(n, samples)`` of one recording, in their order.
    hop_s, axis
        As in `stitch`.
    baselines, seed
        As in `RELAX.attribute`.
    **settings
        Passed on to `RELAX.explain`; what is given an example (``reference`` with a row an example)
        cannot be.

    Returns
    -------
    Stitched
        n (N + 2) encoder forwards.

    Raises
    ------
    RelaxQuantusError
        As `RELAX.explain` and `stitch`.

    Examples
    --------
    >>> relax = RELAX(lambda x: x.flatten(1), masks="time")
    >>> explain_overlapping(relax, torch.rand(3, 1, 96, 64), 0.48, n_samples=9).importance.shape
    torch.Size([192, 64])
    """
    axis, x = axis or LogMelAxis(), checks.examples("x", x)
    frames = x.shape[1] if x.ndim == 2 else x.shape[2]
    apart = min(len(x), phases(frames, hop_frames(hop_s, axis.hop_s, frames)))
    parts = [
        relax.explain(x[phase::apart], baselines, seed=phase_seed(seed, phase), **settings) for phase in range(apart)
    ]
    return stitch(interleaved(parts), hop_s, axis=axis, shared_masks=False)


def interleaved(parts: Sequence[Any]) -> Explanation:
    """Put explanations of every k-th example, k of them, back into the examples' order."""
    count = sum(len(part.importance) for part in parts)
    first: Explanation = parts[0]

    def whole(name: str) -> Tensor:
        values: list[Tensor] = [getattr(part, name) for part in parts]
        result = values[0].new_empty(count, *values[0].shape[1:])
        for phase, value in enumerate(values):
            result[phase :: len(parts)] = value
        return result

    maps: dict[str, Any] = {f.name: whole(f.name) for f in fields(first) if isinstance(getattr(first, f.name), Tensor)}
    return replace(first, **maps)
