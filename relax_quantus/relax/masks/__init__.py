"""Mask strategies: where a masked copy of an example keeps the original and where it does not.

A shape and a generator enter, masks with values in [0, 1] leave: 1 keeps, 0 replaces by the fill.
One file a strategy, each registered here; siblings of fills, similarities and estimators, none of
which they know.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from relax_quantus.base.registry import Registry
from relax_quantus.relax.bound_masks import BoundMasks
from relax_quantus.relax.masks.grid import GridStrategy, Groups
from relax_quantus.relax.masks.random import Random
from relax_quantus.relax.masks.stripes import Frequency, Time, TimeFrequency

__all__ = [
    "STRATEGIES",
    "BindingStrategy",
    "BoundMasks",
    "Frequency",
    "GridStrategy",
    "Groups",
    "MaskStrategy",
    "Random",
    "Time",
    "TimeFrequency",
    "get",
]


class MaskStrategy(Protocol):
    """Say what RELAX asks of a mask object at least: masks that depend on the shape alone.

    All masks of a call are asked for at once, a tensor of the inputs each, in tuple order. An
    object that also has `bind` is not asked; see `BindingStrategy`.

    One may also say with an attribute ``granularity`` what it masks at a time: "bin", "patch",
    "time" or "frequency" stripe. The benchmark then does not let evaluators that remove the same
    judge it.
    """

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the next `n` masks, ``(n, *s)`` broadcastable to `shape`, values in [0, 1]."""
        ...


class BindingStrategy(Protocol):
    """Say what RELAX asks of a mask object that streams, looks at inputs or differs by example.

    With a feature mask, whose groups are kept or replaced as one, ``bind_groups(count) ->
    BoundMasks`` is asked instead, for masks ``(n, count)``; without that method ``sample(n,
    (count,), generator)``.
    """

    def bind(self, x: Tensor) -> BoundMasks:
        """Look at the input ``(B, *shape)``, once a call, and say how its masks are drawn."""
        ...


STRATEGIES: Registry[MaskStrategy] = Registry("mask strategy", "masks", "relax_quantus.masks")
STRATEGIES.register("random", Random, "a grid of 7 x 7 cells, as in RELAX and RISE")
STRATEGIES.register("time", Time, "8 stripes over time, all bands alike")
STRATEGIES.register("frequency", Frequency, "8 stripes over frequency, all frames alike")
STRATEGIES.register("time_frequency", TimeFrequency, "product of 8 time stripes and 8 frequency stripes")


def get(name: str, **parameters: Any) -> MaskStrategy:
    """Build a strategy by name.

    Parameters
    ----------
    name
        ``"random"``, ``"time"``, ``"frequency"``, ``"time_frequency"`` or another registered name.
    **parameters
        The strategy's own; all built-in ones take ``keep_probability=0.5`` and ``edges="smooth"``
        or ``"hard"``.

    Raises
    ------
    UnknownNameError, ArgumentTypeError
        For an unknown name or parameter; the message lists the nearest.

    Examples
    --------
    >>> get("time", stripes=4).sample(3, (1, 96, 64), torch.Generator().manual_seed(0)).shape
    torch.Size([3, 1, 96, 1])
    """
    return STRATEGIES.get(name, **parameters)
