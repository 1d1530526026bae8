"""Which bins of a map stand out.

What boxes, sounds, lines in pictures and pages alike call "what matters".

A leaf of the flow: explanations or arrays of maps enter, numbers and masks of bins leave. A bin
stands out if all of this holds:

(a) its centred importance is further from 0, in standard errors, than chance draws it anywhere in
    the recording in all but one of twenty cases (`family_wise`), in a recording of which the
    permutation test itself says so (`family_wise_p`): `surrogate` may be surer of a bin than the
    test is;
(b) it is positive and above a fraction of the largest of those, `FRACTION`: with masks enough,
    whatever has any effect passes (a);
(c) the network hears something in its example (`relax_quantus.Explanation.hears_nothing`).

What is unknown stands out nowhere, and that nothing stands out is an answer; `in_words` gives it to
people, `facts` to programs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import neutral_torch

if TYPE_CHECKING:
    from relax_quantus.relax.explanation import Explanation

LEVEL = 0.05
"""Of the family-wise threshold: how often chance alone passes it somewhere in a recording."""
FRACTION = 0.2
"""Of a map's largest effect: what smaller effects are not worth a box.

Chosen by ``benchmarks/standing_out_study.py``.
"""
SURE = 3.0
"""Standard errors from 0 at which what is faded is drawn in full, where masks are many.

See `sure_at`.
"""
NOTHING_HEARD = "this network hears nothing here"
NOTHING_STANDS_OUT = "nothing stands out"
ERRORS = ("standard_error", "centred_standard_error")

Values = npt.NDArray[np.float64]
Bins = npt.NDArray[np.bool_]


def is_explanation(values: object) -> TypeGuard[Explanation]:
    """Return whether `values` are an explanation, not a map alone.

    RELAX's room is above this one.
    """
    return hasattr(values, "centred_standard_error")


@neutral_torch()
def as_values(values: Any) -> Values:
    """Return the map as a float64 array, off its device and graph; the caller's is not changed."""
    return np.asarray(torch.as_tensor(values).detach().cpu().double().numpy())


@neutral_torch()
def sure_at(n_samples: Tensor) -> float:
    """Return at how many standard errors a bin is as sure as three of a normal one make it.

    Parameters
    ----------
    n_samples
        Masks used, of any shape; the fewest count. By Student's t with one degree of freedom less.

    Examples
    --------
    >>> round(sure_at(torch.tensor([10])), 2), round(sure_at(torch.tensor([1000, 0])), 2)
    (4.09, 3.01)
    """
    from scipy.stats import norm, t

    used = n_samples[n_samples > 1]
    return float(t.isf(norm.sf(SURE), int(used.min()) - 1)) if used.numel() else SURE


@neutral_torch()
def least_effect(values: Tensor | npt.NDArray[Any], fraction: float = FRACTION) -> float:
    """Return a fraction of the largest value of a map, over all examples together.

    NaN if none is positive.

    Parameters
    ----------
    values
        Centred, of any shape. NaN marks bins that do not count.
    fraction
        Between 0 and 1.

    Raises
    ------
    ArgumentError
        If `fraction` is not between 0 and 1.

    Examples
    --------
    >>> least_effect(np.array([-3.0, 1.0, 2.0]), 0.5)
    1.0
    """
    checks.fraction("fraction", fraction)
    found = as_values(values)
    positive = found[np.isfinite(found) & (found > 0)]
    return fraction * float(positive.max()) if positive.size else float("nan")


@neutral_torch()
def family_wise(maxima: Tensor, level: float = 0.05) -> float:
    """Return the ``|z|`` that chance exceeds, on average, in at most `level` examples.

    The family is all bins of all examples. Of t, the maxima of an example say how probable it is
    that chance alone draws a bin beyond it; summed over the examples that is the expected number of
    examples with such a bin, which bounds the probability that there is any (Bonferroni), however
    different examples are. The threshold is the smallest of all maxima with

        sum_i #{maxima_i >= t} / (P + 1) <= level.

    For one example it is `relax_quantus.Explanation.null`.

    Parameters
    ----------
    maxima
        ``(B, P)``: `relax_quantus.Explanation.null_maxima` of a recording's examples. Rows of NaN,
        of examples in which nothing varies, do not count.
    level
        Between 0 and 1.

    Returns
    -------
    float
        Infinite where permutations are too few for the level; NaN where no example has any.

    Raises
    ------
    ArgumentError
        If `level` is not between 0 and 1.

    Examples
    --------
    >>> family_wise(torch.arange(1.0, 201.0)[None])
    191.0
    """
    checks.fraction("level", level)
    known = maxima[~maxima.isnan().any(dim=1)]
    if not known.numel():
        return float("nan")
    exceeding = int(level * (maxima.shape[1] + 1) + 1e-9)
    return float(known.flatten().topk(exceeding).values[-1]) if exceeding else float("inf")


@neutral_torch()
def family_wise_p(maxima: Tensor, statistic: Tensor) -> float:
    """Return the level, at most 1, at which a recording's largest statistic just passes.

    Parameters
    ----------
    maxima, statistic
        ``(B, P)`` and ``(B,)``, as in `relax_quantus.Explanation`.

    Returns
    -------
    float
        (1 + sum_i #{maxima_i >= the largest statistic}) / (P + 1); NaN where no example has any.
    """
    known = ~(maxima.isnan().any(dim=1) | statistic.isnan())
    if not known.any():
        return float("nan")
    reached = int((maxima[known] >= statistic[known].max()).sum())
    return min(1.0, (1 + reached) / (1 + maxima.shape[1]))


@dataclass(frozen=True)
class Bounds:
    """What a bin of one recording's map has to pass to stand out, and what the map says as a whole.

    Attributes
    ----------
    z
        ``|centred|`` / its error has to be larger; NaN where what chance draws is not known,
        infinite where permutations are too few.
    effect
        The centred importance has to be larger; NaN where nothing passes `z`, or `p_value` is above
        5 %.
    p_value
        Of the recording: how often chance alone draws as large a ``|z|`` somewhere in it, by
        `weighted`'s ``|z|``.
    deaf, examples
        In how many examples the network hears nothing, and how many there are.
    """

    z: float
    effect: float
    p_value: float
    deaf: int
    examples: int

    def passed(self, centred: Values, z: Values) -> Bins:
        """Return the bins that stand out.

        `z` is NaN where it is unknown and where the network hears nothing.
        """
        with np.errstate(invalid="ignore"):
            return np.asarray((np.abs(z) > self.z) & (centred > self.effect))

    @property
    def is_empty(self) -> bool:
        """Whether no bin at all stands out."""
        return not np.isfinite(self.effect)

    @property
    def in_words(self) -> str:
        """What to say of a map in which nothing stands out, or in parts of which nothing is heard.

        Empty otherwise.
        """
        heard = ""
        if self.deaf:
            where = "" if self.deaf == self.examples else f" in {self.deaf} of its {self.examples} examples"
            heard = NOTHING_HEARD if not where else NOTHING_HEARD.removesuffix(" here") + where
        found = ""
        if self.is_empty:
            found = NOTHING_STANDS_OUT
            if np.isnan(self.z) and self.deaf < self.examples:
                found += ": what chance alone draws is not known"
        return "; ".join(part for part in (heard, found) if part)


@neutral_torch()
def bounds_of_parts(
    parts: Callable[[], Iterable[tuple[Values, Values]]],
    maxima: Tensor | None,
    statistic: Tensor | None,
    hears_nothing: Tensor,
    fraction: float = FRACTION,
) -> Bounds:
    """Return the bounds of a map that comes in parts, in one pass over it.

    Parameters
    ----------
    parts
        Called once; yields centred values and their z, of any shape; z is NaN where it is unknown
        and where the network hears nothing.
    maxima, statistic
        ``(B, P)`` and ``(B,)`` of all examples, as in `relax_quantus.Explanation`; None where they
        were not asked for.
    hears_nothing
        ``(B,)``.
    fraction
        As in `least_effect`.
    """
    deaf, examples, unknown = int(hears_nothing.sum()), len(hears_nothing), float("nan")
    if maxima is None or statistic is None:
        return Bounds(unknown, unknown, unknown, deaf, examples)
    least_z, p_value, largest = family_wise(maxima, LEVEL), family_wise_p(maxima, statistic), unknown
    if p_value > LEVEL:
        return Bounds(least_z, unknown, p_value, deaf, examples)
    for centred, z in parts():
        with np.errstate(invalid="ignore"):
            effect = least_effect(np.where(np.abs(z) > least_z, centred, np.nan), fraction)
        largest = np.nanmax([largest, effect]) if np.isfinite(effect) else largest
    return Bounds(least_z, float(largest), p_value, deaf, examples)


@dataclass(frozen=True, eq=False)
class StandingOut:
    """What stands out in the map of one recording's examples.

    Attributes
    ----------
    bins
        Bool, shaped like the map.
    among
        Bool, shaped like the map: bins that pass (a) and (c), whatever their size and sign.
    z
        float64, shaped like the map; NaN where it is unknown and where the network hears nothing.
    bounds
        What they had to pass.
    """

    bins: Bins
    among: Bins
    z: Values
    bounds: Bounds


@neutral_torch()
def standing_out(explanation: Explanation, fraction: float = FRACTION) -> StandingOut:
    """Return which bins of a recording's map stand out.

    Parameters
    ----------
    explanation
        Of all of a recording's examples, from ``explain(null=True)``, or a map stitched of them
        (`relax_quantus.Stitched`); without chance nothing stands out.
    fraction
        Of the largest effect that chance does not draw; 0.2 unless said otherwise.

    Raises
    ------
    ArgumentError
        If `fraction` is not between 0 and 1.

    Examples
    --------
    >>> import relax_quantus as rq
    >>> x = torch.ones(1, 1, 12, 8)
    >>> relax = rq.RELAX(lambda x: x[..., :6, :].flatten(1).cumsum(1), masks="time")
    >>> e = relax.explain(x, n_samples=60, null=True)
    >>> found = standing_out(e)
    >>> found.bins.shape, bool(found.bins[..., 6:, :].any())
    ((1, 1, 12, 8), False)
    """
    checks.fraction("fraction", fraction)
    e, centred = explanation, as_values(explanation.centred())
    nothing = e.hears_nothing.cpu()
    heard = getattr(e, "heard", None)  # of frames, which a stitched map knows
    z = as_values(e.z())
    z[nothing.numpy() if heard is None else ~heard.cpu().numpy()] = np.nan
    parts = [(centred, z)]
    return of_bounds(centred, z, bounds_of_parts(lambda: parts, e.null_maxima, e.null_statistic, nothing, fraction))


def of_bounds(centred: Values, z: Values, bounds: Bounds) -> StandingOut:
    """Return what stands out of a map whose bounds are known.

    `z` is NaN where `Bounds.passed` wants it to be.
    """
    with np.errstate(invalid="ignore"):
        among = np.asarray((np.abs(z) > bounds.z) & (not bounds.is_empty))
    return StandingOut(bounds.passed(centred, z), among, z, bounds)


def deviation_of_parts(parts: Iterable[npt.NDArray[Any]]) -> float:
    """Return the standard deviation of a map's finite values that come in parts.

    NaN if there is none.

    Examples
    --------
    >>> deviation_of_parts([np.array([1.0, np.nan]), np.array([3.0])])
    1.0
    """
    count, mean, squares = 0, 0.0, 0.0
    for part in parts:
        finite = part[np.isfinite(part)].astype(np.float64)
        if finite.size:
            step = float(finite.mean()) - mean
            total = count + finite.size
            squares += float(np.square(finite - finite.mean()).sum()) + step**2 * count * finite.size / total
            mean, count = mean + step * finite.size / total, total
    return float(np.sqrt(squares / count)) if count else float("nan")


def in_words(bounds: Mapping[str, Bounds]) -> str:
    """Say in how many of the maps nothing stands out, and where nothing is heard.

    Empty if there is nothing to say.

    Examples
    --------
    >>> nothing, something = Bounds(4.0, float("nan"), 0.7, 0, 2), Bounds(4.0, 0.1, 0.005, 0, 2)
    >>> in_words({"random": nothing, "time": nothing})
    'nothing stands out'
    >>> in_words({"random": nothing, "time": something})
    'nothing stands out (random)'
    """
    named: dict[str, list[str]] = {}
    for label, of in bounds.items():
        named.setdefault(of.in_words, []).append(label)
    said = {words: labels for words, labels in named.items() if words}
    return ". ".join(words + (f" ({', '.join(labels)})" if len(named) > 1 else "") for words, labels in said.items())


def chance_in_words(bounds: Mapping[str, Bounds]) -> str:
    """Say for a picture what chance draws, and how probably it draws what was found.

    Examples
    --------
    >>> random, time = Bounds(4.02, 0.1, 0.005, 0, 1), Bounds(2.9, 0.1, 0.005, 0, 1)
    >>> chance_in_words({"random": random, "time": time})
    'beyond chance: |z| above 4.02, 2.90 (p 0.005)'
    """
    z = ", ".join(f"{of.z:.2f}" for of in bounds.values())
    p = ", ".join(dict.fromkeys(f"{of.p_value:.2g}" for of in bounds.values()))
    if len(set(p.split(", "))) > 1:
        p = ", ".join(f"{of.p_value:.2g}" for of in bounds.values())
    return f"beyond chance: |z| above {z} (p {p})"


def line_in_words(bounds: Mapping[str, Bounds], line: str = "Black line") -> str:
    """Say what a picture's line runs around, or that there is none."""
    if all(of.is_empty for of in bounds.values()):
        said = in_words(bounds)
        return f"{said[0].upper()}{said[1:]}."
    return f"{line}: beyond chance and above {FRACTION:.0%} of the largest effect."


def errors_in_words(errors: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Say for a picture how large the errors of importance and centred map are, map by map."""
    importance, centred = (", ".join(f"{of[name]['mean']:.2g}" for of in errors.values()) for name in ERRORS)
    return f"mean standard error: of the importance {importance}; centred {centred}"


def measure_errors(parts: Iterable[npt.NDArray[Any]]) -> dict[str, float]:
    """Return the mean and largest of the known errors, and the share of bins without one."""
    count, total, largest, unknown = 0, 0.0, float("nan"), 0
    for part in parts:
        known = part[np.isfinite(part)].astype(np.float64)
        if known.size:
            largest = float(np.nanmax([largest, known.max()]))
        count, total, unknown = count + known.size, total + float(known.sum()), unknown + part.size - known.size
    mean = total / count if count else float("nan")
    return {"mean": mean, "largest": largest, "unknown": unknown / max(1, count + unknown)}


def facts(
    bounds: Mapping[str, Bounds],
    errors: Mapping[str, Mapping[str, Mapping[str, float]]],
    hears_nothing: Mapping[str, Sequence[bool]],
    regions: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """Return what programs are told of each map by its label; regions where they were looked for.

    What is unknown is None.
    """
    found = {
        label: {
            **{name: dict(values) for name, values in errors[label].items()},
            "z_threshold": of.z,
            "effect_threshold": of.effect,
            "p_value": of.p_value,
            "hears_nothing": list(map(bool, hears_nothing[label])),
            "verdict": of.in_words,
            **({} if regions is None else {"regions": [asdict(region) for region in regions[label]]}),
        }
        for label, of in bounds.items()
    }
    plain: dict[str, Any] = json.loads(json.dumps(found), parse_constant=lambda _: None)
    return plain
