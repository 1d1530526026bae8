"""Bind masks to an input: the one protocol of mask strategies and of estimators.

``strategy.bind(x)`` returns `BoundMasks`: how to draw the next masks of a stream, and, where it is
known, how they are distributed. ``estimator.start(masks, contrast)`` takes them. Masks and
estimators import this file and not one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

__all__ = ["BoundMasks", "Distribution", "Lattice"]


class Lattice(Protocol):
    """Describe one factor of the masks as weighted states, as `masks.grid.Lattice` does."""

    @property
    def frames(self) -> int:
        """Return the number of entries along time, 1 where the factor does not vary."""
        ...

    @property
    def bands(self) -> int:
        """Return the number of entries along frequency, 1 where the factor does not vary."""
        ...

    @property
    def cell_counts(self) -> tuple[int, int]:
        """Return the number of cells that span each axis."""
        ...

    @property
    def weights(self) -> Tensor:
        """Return the probabilities of the states."""
        ...

    @property
    def sampled(self) -> bool:
        """Whether the states are a sample of the distribution, not all of it."""
        ...

    def values(self, over_time: Tensor, over_frequency: Tensor) -> Tensor:
        """Apply ``(t, T)`` and ``(f, F)`` to every state's mask: ``(states, t * f)``."""
        ...

    def expectation(self, functions: Tensor) -> Tensor:
        """Compute E[g M], ``(T, F, n)``, for functions ``(states, n)``."""
        ...

    def parts(self, states: int) -> Iterator[Self]:
        """Cut into parts of about so many states, over which expectations add up."""
        ...


class Distribution(Protocol):
    """Describe how masks that are built from few random numbers are distributed."""

    def numbers(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw what the next n masks are built from, ``(n, columns)``, as `BoundMasks.draw` does.

        It takes the same numbers from `generator`.
        """
        ...

    def build(self, numbers: Tensor) -> Tensor:
        """Build masks ``(n, *s)`` from their numbers."""
        ...

    def factors(self, numbers: Tensor) -> Sequence[Tensor]:
        """Build the independent factors whose product the masks are, in the order of `lattices`.

        Each is ``(n, T or 1, F or 1)``.
        """
        ...

    def lattices(self, at_least: int, bank: int = 0) -> Sequence[Lattice]:
        """Return each factor's distribution in at least so many states, others for each bank.

        Where they are enumerated there may be fewer.

        Raises
        ------
        NotImplementedError
            If it is not known after all; estimators then do without.
        """
        ...


@dataclass(frozen=True)
class BoundMasks:
    """Hold the masks of one input: what ``strategy.bind(x)`` returns.

    Parameters
    ----------
    draw
        ``(n, generator) -> masks``: the next n masks of the generator's stream, ``(n, *s)`` with
        ``s`` broadcastable to ``x.shape[1:]``, or ``(n, B, *s)`` with `by_example`; values in [0,
        1], 1 keeps. Drawing 3 and then 5 gives the masks of drawing 8. The generator, a CPU one, is
        the only source of randomness.
    distribution
        How they are distributed, for estimators that need to know; None where that is not known.
    by_example
        Whether each example of ``x`` has masks of its own.
    at_once
        Whether all masks of a call are drawn by one call of `draw`, because drawing 3 and then 5
        promises nothing: so RELAX binds an object that has ``sample`` alone.
    seed
        What the generator of this call's masks is seeded with, so that an estimator can draw them,
        or their numbers, again. RELAX sets it.

    Examples
    --------
    >>> def draw(n, generator):
    ...     return (torch.rand(n, 1, 4, 1, generator=generator) < 0.5).float()
    >>> BoundMasks(draw).draw(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 4, 1])
    """

    draw: Callable[[int, torch.Generator], Tensor]
    distribution: Distribution | None = None
    by_example: bool = False
    at_once: bool = False
    seed: int = 0
