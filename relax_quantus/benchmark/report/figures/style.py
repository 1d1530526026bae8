"""The look of every figure: colours told apart by everybody, words on the axes, PNG and PDF.

The colours are those of Okabe and Ito (2008); strategies differ in line and marker, too, so that a
grey print is enough. pyplot is never touched.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from relax_quantus.base.files import complete
from relax_quantus.benchmark.statistics.rows import methods

if TYPE_CHECKING:
    import pandas as pd

COLOURS = {
    "random": "#0072B2",
    "time": "#D55E00",
    "frequency": "#009E73",
    "time_frequency": "#CC79A7",
    "energy": "#000000",
    "oracle": "#999999",
}
OTHER_COLOURS = (
    "#E69F00",
    "#56B4E9",
    "#7F6000",
    "#5B3A8C",
    "#8C1C13",
    "#3A6B35",
    "#444444",
    "#A0522D",
    "#2F4F4F",
    "#708090",
)
LINES = {
    "random": "-",
    "time": "--",
    "frequency": "-.",
    "time_frequency": (0, (5, 1, 1, 1, 1, 1)),
    "energy": ":",
    "oracle": "-",
}
MARKERS = {"random": "o", "time": "s", "frequency": "^", "time_frequency": "D", "energy": "X", "oracle": "*"}
OTHER_MARKERS = ("v", "P", "<", ">", "p", "h", "8", "d")
FORMATS = ("png", "pdf")
SETTINGS = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}


@contextmanager
def figure(width: float, height: float) -> Iterator[Any]:
    """Make a figure of that size in inches, in this style, whose layout keeps texts apart."""
    with matplotlib.rc_context(SETTINGS):
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(made)
        yield made


def save(made: Any, path: Path) -> list[Path]:
    """Write `path` with each of the endings of `FORMATS`; the same figure gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending in FORMATS:
        paths.append(path.with_name(f"{path.name}.{ending}"))
        nothing: dict[str, Any] = (
            {"Software": None} if ending == "png" else {"CreationDate": None, "Producer": None, "Creator": None}
        )
        with complete(paths[-1]) as draft, matplotlib.rc_context(SETTINGS):
            made.savefig(draft, format=ending, metadata=nothing)
    return paths


def title(made: Any, text: str) -> None:
    """Put a title over the whole figure, wrapped to its width."""
    width = int(15 * made.get_size_inches()[0])
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, width)]
    made.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=9)


def key(label: str) -> str:
    """Return what colour and marker hang on: RELAX's strategy, or the label's own first word.

    REPEAT is another method.

    Examples
    --------
    >>> key("RELAX-time_frequency, fill mean"), key("REPEAT-time"), key("energy")
    ('time_frequency', 'REPEAT-time', 'energy')
    """
    first = re.split(r"[:,]", label, maxsplit=1)[0].strip()
    return first.removeprefix("RELAX-")


def colours(labels: list[str]) -> dict[str, str]:
    """Choose a colour a label, always the same for strategies."""
    others = [x for x in dict.fromkeys(map(key, labels)) if x not in COLOURS]
    by_key = COLOURS | {x: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, x in enumerate(others)}
    return {label: by_key[key(label)] for label in labels}


def markers(labels: list[str]) -> dict[str, str]:
    """Choose a marker a label, always the same for strategies."""
    others = [x for x in dict.fromkeys(map(key, labels)) if x not in MARKERS]
    by_key = MARKERS | {x: OTHER_MARKERS[i % len(OTHER_MARKERS)] for i, x in enumerate(others)}
    return {label: by_key[key(label)] for label in labels}


def spoken(name: str) -> str:
    """Write a method's name for a picture: settings in words.

    Examples
    --------
    >>> spoken("RELAX-time:fill=mean,keep=0.3")
    'RELAX-time, fill mean, keep 0.3'
    """
    return name.replace(":", ", ").replace(",", ", ").replace(",  ", ", ").replace("=", " ")


def labels(rows: pd.DataFrame, at_most: int) -> tuple[dict[str, str], str]:
    """Label methods (no twins) with at most about so many labels, and say what was averaged."""
    names = methods(rows)
    facts = rows[rows.method.isin(names)].drop_duplicates("method").set_index("method")
    plain = {m: spoken(m) for m in names}
    if len(names) <= at_most:
        return plain, ""
    by_fill = {
        m: f"{facts.base[m]}, fill {facts.fill[m]}" if facts.masks[m] and facts.fill[m] else str(facts.base[m])
        for m in names
    }
    if len(set(by_fill.values())) <= at_most:
        return by_fill, "variants of a strategy and fill averaged"
    return {m: str(facts.base[m]) for m in names}, "variants of a strategy averaged"


def averaged(scores: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Average columns of methods into columns of labels."""
    import pandas as pd

    made: dict[str, pd.Series] = {}
    for label in dict.fromkeys(names[m] for m in scores.columns if m in names):
        made[label] = scores[[m for m in scores.columns if names.get(m) == label]].mean(axis=1)
    return pd.DataFrame(made, index=scores.index)
