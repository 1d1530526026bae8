"""Define `Row`: a figure of the speed suite with every repetition, and its summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

MEASURED, SKIPPED, FAILED = "measured", "skipped", "failed"


@dataclass(frozen=True)
class Aim:
    """A bound that a median is to keep: ``kind`` is "at most" or "at least"."""

    kind: str
    value: float

    def met(self, median: float) -> bool:
        """Tell whether a median keeps the aim."""
        return median <= self.value if self.kind == "at most" else median >= self.value


@dataclass(frozen=True)
class Row:
    """One figure.

    Parameters
    ----------
    section
        Which part of the suite.
    quantity
        What `values` are; rows of one quantity make a table.
    labels
        What they were measured on, in the order of the table's columns.
    values
        One a repetition (or clip), each already a ratio of two times of one round where it is a
        ratio.
    seconds, base_seconds
        The times behind the values, where there are any.
    aim
        What is hoped for, or None.
    status, reason
        "measured"; or "skipped" or "failed", and why.
    details
        Anything else that a reader needs to repeat it.
    """

    section: str
    quantity: str
    labels: dict[str, str]
    values: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    base_seconds: tuple[float, ...] = ()
    aim: Aim | None = None
    status: str = MEASURED
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return everything, with the summary of the values and whether the aim is met."""
        entry = asdict(self) | {"summary": summary(self.values)}
        if self.aim is not None and entry["summary"] is not None:
            entry["aim"]["met"] = self.aim.met(entry["summary"]["median"])
        return entry


def summary(values: Iterable[float]) -> dict[str, float] | None:
    """Return median, quartiles, extremes and number of the finite values; None without any.

    Examples
    --------
    >>> list(summary([4.0, 1.0, 2.0, 3.0, 5.0]).items())[:4]
    [('count', 5), ('median', 3.0), ('lower_quartile', 2.0), ('upper_quartile', 4.0)]
    >>> list(summary([4.0, 1.0, 2.0, 3.0, 5.0]).items())[4:]
    [('minimum', 1.0), ('maximum', 5.0)]
    """
    finite = np.array([v for v in values if np.isfinite(v)], dtype=np.float64)
    if not len(finite):
        return None
    minimum, lower, median, upper, maximum = (float(q) for q in np.quantile(finite, [0, 0.25, 0.5, 0.75, 1]))
    return {
        "count": len(finite),
        "median": median,
        "lower_quartile": lower,
        "upper_quartile": upper,
        "minimum": minimum,
        "maximum": maximum,
    }


def ratios(
    numerators: Sequence[float], denominators: Sequence[float], forwards: tuple[int, int] = (1, 1)
) -> tuple[float, ...]:
    """Divide one arm's time per forward by the other's, round by round.

    Examples
    --------
    >>> ratios([2.0, 3.0], [1.0, 1.0])
    (2.0, 3.0)
    >>> ratios([2.0, 4.0], [1.0, 1.0], forwards=(20, 10))
    (1.0, 2.0)
    """
    mine, theirs = forwards
    return tuple((a / mine) / (b / theirs) for a, b in zip(numerators, denominators, strict=True))
