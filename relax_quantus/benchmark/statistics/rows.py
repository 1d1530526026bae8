"""Tidy rows, checked: what every statistic starts from.

A DataFrame in the benchmark's columns enters (an old or foreign one may lack those of `OPTIONAL`);
a copy leaves that has them all, empty texts instead of missing ones, a ``score`` that is better
when it is higher, and the ``fall``, where a metric says how far its output falls when everything is
replaced. Own functions choose the rows that count: main values that were measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from relax_quantus.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = (
    ("dataset", "clip", "source_group", "method", "metric")
    + ("category", "direction", "value", "status")
)  # fmt: skip
OPTIONAL = {
    "encoder": "",
    "seed": "",
    "label": "",
    "base": None,
    "masks": "",
    "fill": "",
    "edges": "",
    "keep": "",
    "own_granularity": "",
    "twin_of": None,
    "estimator": "",
    "n_samples": "",
    "part": "",
    "view": "",
    "granularity": "",
    "evaluator_fill": "",
    "question": "own",
    "seconds": np.nan,
    "reason": "",
}
NUMBERS = ("value", "seconds")
CELL = ("source_group", "dataset", "encoder", "seed", "clip")
"""One explained example; two methods are compared on the same ones only."""
FALL = "fall"
"""The part of a crossed evaluator's score that says how far the output falls when everything is
replaced.
"""
NOT_RANKED = ("oracle",)
"""Rows that are shown and never compete: the truth itself is a ceiling."""
NULL_ENCODERS = ("random",)
"""Beginnings of the names of encoders that are controls: shown apart, left out of what is averaged
over encoders where there are others.
"""


def checked(rows: pd.DataFrame, where: str = "results") -> pd.DataFrame:
    """Copy `rows` with every column, and texts without missing values.

    A ``score`` and a ``fall`` (NaN where none is stated) are added.

    Raises
    ------
    DataError
        If a needed column is missing, or there is no row.
    """
    missing = [name for name in REQUIRED if name not in rows.columns]
    if missing:
        raise DataError(
            f"{where}: expected the columns {', '.join(REQUIRED)}, got a table without {', '.join(missing)}; "
            "name the folder of a benchmark's results."
        )
    if rows.empty:
        raise DataError(f"{where}: expected at least one row, got none; run the benchmark on at least one clip.")
    made = rows.copy()
    for name, default in OPTIONAL.items():
        if name not in made.columns:
            made[name] = default
    for name in (*REQUIRED, *OPTIONAL):
        if name in NUMBERS:
            made[name] = made[name].astype("float64")
        elif made[name].dtype.kind == "f":
            made[name] = [_text(value) for value in made[name]]
        else:
            made[name] = made[name].astype(object).where(made[name].notna(), "").astype(str)
    twins = made.method.str.contains(" twin")
    made.loc[made.base == "", "base"] = made.method.str.partition(":")[0]
    named = made.method.str.replace(" twin", "", n=1, regex=False)
    made.loc[(made.twin_of == "") & twins, "twin_of"] = named[(made.twin_of == "") & twins]
    made["score"] = made.value.where(made.direction != "down", -made.value)
    return _with_falls(made)


def _with_falls(rows: pd.DataFrame) -> pd.DataFrame:
    """Put what the parts `FALL` say beside the main values of their cells."""
    on = [*CELL, "method", "metric"]
    falls = rows[rows.part == FALL].drop_duplicates(on).set_index(on).value
    return rows.join(falls.rename("fall"), on=on)


def _text(value: float) -> str:
    return "" if value != value else f"{value:g}"


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the main values that are there: status ok, no named part, a finite value."""
    found: pd.DataFrame = rows[(rows.status == "ok") & (rows.part == "") & np.isfinite(rows.value)]
    return found


def pooled(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Drop control encoders (random weights) unless there is nothing else, and name them."""
    control = rows.encoder.str.startswith(NULL_ENCODERS)
    if not control.any() or control.all():
        return rows, []
    return rows[~control], sorted(set(rows.encoder[control]))


def twins(rows: pd.DataFrame) -> dict[str, str]:
    """Map methods to their shuffled twins, where they have one among `rows`."""
    pairs = rows.loc[rows.twin_of != "", ["twin_of", "method"]].drop_duplicates()
    return dict(zip(pairs.twin_of, pairs.method, strict=True))


def methods(rows: pd.DataFrame, ranked: bool = False) -> list[str]:
    """List methods in order of appearance, no twins; `ranked` leaves out what never competes."""
    own = rows[rows.twin_of == ""]
    if ranked:
        own = own[~own.base.isin(NOT_RANKED)]
    return list(dict.fromkeys(own.method))
