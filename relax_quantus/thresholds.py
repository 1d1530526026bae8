"""Which value a share of a map's bins exceeds: what "the highest fifth" means to sounds, annotations and pages alike.

A leaf of the flow: maps of any shape enter, numbers leave.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus import checks

SHARE = 0.2
"""The share of bins that stands for "what matters" unless said otherwise."""

Values = npt.NDArray[np.float64]


def as_values(values: Tensor | npt.NDArray[Any]) -> Values:
    """The map as a float64 array, off its device and graph; the caller's is not changed."""
    return np.asarray(torch.as_tensor(values).detach().cpu().double().numpy())


def level(values: Tensor | npt.NDArray[Any], share: float = SHARE) -> float:
    """The value that `share` of the finite bins exceed, over all examples together; NaN if no bin is finite.

    Parameters
    ----------
    values
        A map of any shape, best centred (`relax_quantus.Explanation.centred`): the plain importance of different examples lies at different
        heights. NaN marks bins without an explanation.
    share
        Between 0 and 1.

    Raises
    ------
    ArgumentError
        If `share` is not between 0 and 1.

    Examples
    --------
    >>> level(np.arange(11.0), 0.2)
    8.0
    """
    checks.fraction("share", share)
    found = as_values(values)
    finite = found[np.isfinite(found)]
    return float(np.quantile(finite, 1.0 - share)) if finite.size else float("nan")
