"""Which bins of a map stand out: what boxes, sounds, lines in pictures and pages alike call "what matters".

A leaf of the flow: explanations or arrays of maps enter, numbers and masks of bins leave. A bin stands out if all of this
holds:

(a) its centred importance is further from 0, in standard errors, than chance draws it anywhere in the recording in all
    but one of twenty cases (`relax_quantus.base.family_wise.family_wise`), in a recording of which the permutation test itself says
    so (`relax_quantus.base.family_wise.family_wise_p`): `surrogate` may be surer of a bin than the test is;
(b) it is positive and above a fraction of the largest of those, `FRACTION`: with masks enough, whatever has any effect
    passes (a);
(c) the network hears something in its example (`relax_quantus.Explanation.hears_nothing`).

What is unknown stands out nowhere, and that nothing stands out is an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.family_wise import family_wise, family_wise_p
from relax_quantus.base.torch_state import neutral_torch

if TYPE_CHECKING:
    from relax_quantus.relax.explanation import Explanation

LEVEL = 0.05
"""Of the family-wise threshold: how often chance alone passes it somewhere in a recording."""
FRACTION = 0.2
"""Of a map's largest effect: what smaller effects are not worth a box. Chosen by ``benchmarks/standing_out_study.py``."""
SURE = 3.0
"""Standard errors from 0 at which what is faded is drawn in full, where masks are many; see `sure_at`."""
NOTHING_HEARD = "this network hears nothing here"
NOTHING_STANDS_OUT = "nothing stands out"

Values = npt.NDArray[np.float64]
Bins = npt.NDArray[np.bool_]


def is_explanation(values: object) -> TypeGuard[Explanation]:
    """Return whether `values` are an explanation, not a map alone; RELAX's room is above this one."""
    return hasattr(values, "centred_standard_error")


@neutral_torch()
def as_values(values: Any) -> Values:
    """The map as a float64 array, off its device and graph; the caller's is not changed."""
    return np.asarray(torch.as_tensor(values).detach().cpu().double().numpy())


@neutral_torch()
def sure_at(n_samples: Tensor) -> float:
    """Return at how many standard errors from 0 a bin is as sure as three of a normal distribution make it.

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
    """Return a fraction of the largest value of a map, over all examples together; NaN if none is positive.

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


@dataclass(frozen=True)
class Bounds:
    """What a bin of one recording's map has to pass to stand out, and what the map says as a whole.

    Attributes
    ----------
    z
        ``|centred|`` / its error has to be larger; NaN where what chance draws is not known, infinite where permutations
        are too few.
    effect
        The centred importance has to be larger; NaN where nothing passes `z`, or `p_value` is above 5 %.
    p_value
        Of the recording: how often chance alone draws as large a ``|z|`` somewhere in it, by `weighted`'s ``|z|``.
    deaf, examples
        In how many examples the network hears nothing, and how many there are.
    """

    z: float
    effect: float
    p_value: float
    deaf: int
    examples: int

    def passed(self, centred: Values, z: Values) -> Bins:
        """Return the bins that stand out; `z` is NaN where it is unknown and where the network hears nothing."""
        with np.errstate(invalid="ignore"):
            return np.asarray((np.abs(z) > self.z) & (centred > self.effect))

    @property
    def is_empty(self) -> bool:
        """Whether no bin at all stands out."""
        return not np.isfinite(self.effect)

    @property
    def in_words(self) -> str:
        """What to say of a map in which nothing stands out, or in parts of which nothing is heard; empty otherwise."""
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
        Called once; yields centred values and their z, of any shape; z is NaN where it is unknown and where the network
        hears nothing.
    maxima, statistic
        ``(B, P)`` and ``(B,)`` of all examples, as in `relax_quantus.Explanation`; None where they were not asked for.
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
        Of all of a recording's examples, from ``explain(null=True)``; without that nothing stands out.
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
    >>> e = rq.RELAX(lambda x: x[..., :6, :].flatten(1).cumsum(1), masks="time").explain(x, n_samples=60, null=True)
    >>> found = standing_out(e)
    >>> found.bins.shape, bool(found.bins[..., 6:, :].any())
    ((1, 1, 12, 8), False)
    """
    checks.fraction("fraction", fraction)
    e, centred = explanation, as_values(explanation.centred())
    nothing = e.hears_nothing.cpu()
    z = as_values(e.z())
    z[nothing.numpy()] = np.nan
    parts = [(centred, z)]
    return of_bounds(centred, z, bounds_of_parts(lambda: parts, e.null_maxima, e.null_statistic, nothing, fraction))


def of_bounds(centred: Values, z: Values, bounds: Bounds) -> StandingOut:
    """Return what stands out of a map whose bounds are known; `z` is NaN where `Bounds.passed` wants it to be."""
    with np.errstate(invalid="ignore"):
        among = np.asarray((np.abs(z) > bounds.z) & (not bounds.is_empty))
    return StandingOut(bounds.passed(centred, z), among, z, bounds)


def deviation_of_parts(parts: Iterable[npt.NDArray[Any]]) -> float:
    """Return the standard deviation of a map's finite values that come in parts; NaN if there is none.

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
