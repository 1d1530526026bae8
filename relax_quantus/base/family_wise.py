"""What the largest statistics of several examples, under permutations, say of all of them together."""

from __future__ import annotations

from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.torch_state import neutral_torch


@neutral_torch()
def family_wise(maxima: Tensor, level: float = 0.05) -> float:
    """Return the ``|z|`` that chance exceeds in at most `level` examples of a recording, on average.

    The family is all bins of all examples. Of t, the maxima of an example say how probable it is that chance alone
    draws a bin beyond it; summed over the examples that is the expected number of examples with such a bin, which
    bounds the probability that there is any (Bonferroni), however different examples are. The threshold is the
    smallest of all maxima with

        sum_i #{maxima_i >= t} / (P + 1) <= level.

    For one example it is `relax_quantus.Explanation.null`.

    Parameters
    ----------
    maxima
        ``(B, P)``: `relax_quantus.Explanation.null_maxima` of a recording's examples. Rows of NaN, of examples in which
        nothing varies, do not count.
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
    >>> import torch
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
    """Return the level at which the largest of a recording's statistics just passes `family_wise`, at most 1.

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
