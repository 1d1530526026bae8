"""Maps of a long recording -> columns, as many as there is room for -> lines of one picture.

A leaf of the flow beside `relax_quantus.views.maps`, whose rules it shares (no pyplot, no display):
parts ``(rows, F)`` enter once, an `Overview` of ``(columns, F)`` or a matplotlib figure leaves. A
mean over seconds would hide a short call; so a column shows, band by band, the frame whose centred
importance is farthest from 0, with everything else that is known of that very bin. The spectrogram
shows the loudest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from relax_quantus.base import checks
from relax_quantus.frontend.examples import Axis
from relax_quantus.views.maps import (
    DOTS_PER_INCH,
    EDGE_IN,
    IMPORTANCE_COLOURS,
    SPECTROGRAM_COLOURS,
    UNKNOWN_COLOUR,
    outline,
    shared_limit,
    wrapped,
)
from relax_quantus.views.thresholds import SURE

CENTRED, ERROR, Z, STANDING_OUT = "centred", "centred_standard_error", "z", "standing_out"
Values = npt.NDArray[np.float32]
LINE_COLUMNS = 1800
"""Columns of a line: what the figure's width shows."""
MOST_LINES = 8
SHORTEST_LINE_S = 60.0
WIDTH_IN, LEFT_IN, RIGHT_IN, STRIP_IN, GAP_IN, HEAD_IN = 18.0, 1.1, 2.0, 0.85, 0.4, 1.35
Image = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Overview:
    """A recording in columns of `column_s` seconds each, the first beginning at 0 s.

    Attributes
    ----------
    spectrogram
        ``(columns, F)``.
    maps
        Name of a strategy -> name of a map -> ``(columns, F)``; `CENTRED` and `ERROR`, its own
        standard error, are among them; `Z`, and `STANDING_OUT`, 1 where the moment shown stands out
        and 0 elsewhere, may be.
    """

    spectrogram: Values
    maps: dict[str, dict[str, Values]]
    column_s: float

    def coarser(self, factor: int) -> Overview:
        """Return the same in columns `factor` times as long."""
        maps = {name: telling([kinds], factor) for name, kinds in self.maps.items()}
        return Overview(loudest([self.spectrogram], factor), maps, self.column_s * factor)


def loudest(parts: Iterable[Values], size: int) -> Values:
    """Return the highest of every `size` rows, ``(rows, F) -> (ceil(rows / size), F)``.

    NaN only where there is nothing else.

    Examples
    --------
    >>> loudest([np.array([[1.0], [3.0], [2.0]], np.float32)], 2).tolist()
    [[3.0], [2.0]]
    """
    found = [part["x"].max(axis=1) for part in _groups(({"x": part} for part in parts), size, -np.inf)]
    return np.concatenate(found)


def telling(parts: Iterable[Mapping[str, Values]], size: int) -> dict[str, Values]:
    """Return, for each band, the one of every `size` rows that is farthest from 0 when centred.

    Parameters
    ----------
    parts
        Name of a map -> ``(rows, F)``, the same names in each part; `CENTRED` is among them, NaN
        where nothing is known.
    size
        Rows a column.

    Returns
    -------
    dict of numpy.ndarray
        By name, ``(ceil(rows / size), F)``.

    Examples
    --------
    >>> found = telling([{"centred": np.array([[0.1], [-0.3]]), "x": np.array([[5.0], [6.0]])}], 2)
    >>> found["centred"].tolist(), found["x"].tolist()
    ([[-0.3]], [[6.0]])
    """
    columns: dict[str, list[Values]] = {}
    for group in _groups(parts, size, np.nan):
        distance = np.nan_to_num(np.abs(group[CENTRED]), nan=-1.0)
        chosen = distance.argmax(axis=1)[:, None]
        for name, values in group.items():
            columns.setdefault(name, []).append(np.take_along_axis(values, chosen, axis=1)[:, 0])
    return {name: np.concatenate(values) for name, values in columns.items()}


def _groups(parts: Iterable[Mapping[str, Values]], size: int, padding: float) -> Iterable[dict[str, Values]]:
    """Yield parts ``(rows, F)`` as ``(columns, size, F)``, whatever their lengths.

    The last column is filled up.
    """
    size = checks.integer("size", size)
    rest: dict[str, Values] = {}
    for part in parts:
        joined = {name: np.concatenate([rest[name], v]) if name in rest else v for name, v in part.items()}
        rows = len(next(iter(joined.values()))) // size * size
        rest = {name: values[rows:] for name, values in joined.items()}
        if rows:
            yield {name: v[:rows].reshape(-1, size, v.shape[1]) for name, v in joined.items()}
    left = len(next(iter(rest.values()))) if rest else 0
    if left:
        wide = ((0, size - left), (0, 0))
        yield {name: np.pad(v, wide, constant_values=padding)[None] for name, v in rest.items()}


def lines_for(seconds: float) -> int:
    """Return the lines that a recording is drawn in: one a minute, at most eight.

    Examples
    --------
    >>> lines_for(30), lines_for(150), lines_for(3600)
    (1, 3, 8)
    """
    return int(np.clip(np.ceil(seconds / SHORTEST_LINE_S), 1, MOST_LINES))


def column_frames(frames: int, frame_s: float) -> int:
    """Return the frames that a column has to hold, for a recording of so many frames to fit."""
    return max(1, -(-frames // (lines_for(frames * frame_s) * LINE_COLUMNS)))


def overview_figure(overview: Overview, axis: Axis, *, title: str = "", notes: str = "", sure: float = SURE) -> Figure:
    """Draw a recording in lines.

    Each line has the spectrogram and a strip a strategy of centred importance below it.

    All maps share one colour scale, symmetric about 0, as in
    `relax_quantus.views.maps.explanation_figure`. What lies within its standard errors fades. What
    is not known, and what has an unknown error, is grey. A line runs around what stands out.

    Parameters
    ----------
    overview
        In columns, see `column_frames`.
    axis
        Of the recording's own frames: its bands and their ticks.
    title, notes
        Above everything, and below the title, drawn as plain text.
    sure
        Standard errors from 0 at which a bin is drawn in full
        (`relax_quantus.views.thresholds.sure_at`).

    Returns
    -------
    matplotlib.figure.Figure
        At most 18 inches wide and, with four strategies, 40 high.

    Raises
    ------
    ArgumentError
        If there is no map.
    """
    if not overview.maps:
        checks.refuse("overview", "at least one strategy", "none", "explain with one or more")
    columns = len(overview.spectrogram)
    lines = lines_for(columns * overview.column_s)
    a_line = -(-columns // lines)
    strips = 1 + len(overview.maps)
    line_in = strips * STRIP_IN + GAP_IN
    height = HEAD_IN + lines * line_in
    figure = Figure(figsize=(WIDTH_IN, height), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    figure.text(LEFT_IN / WIDTH_IN, 1 - 0.12 / height, title, fontsize=12, va="top", parse_math=False)
    notes = wrapped(figure, notes, WIDTH_IN - LEFT_IN - EDGE_IN)
    figure.text(LEFT_IN / WIDTH_IN, 1 - 0.42 / height, notes, fontsize=8, va="top", linespacing=1.3, parse_math=False)
    low, high = (float(np.quantile(overview.spectrogram, q)) for q in (0.0, 1.0))
    limit = shared_limit([kinds[CENTRED] for kinds in overview.maps.values()])
    loud, signed = Normalize(low, high), Normalize(-limit, limit)
    nothing: Image = np.zeros(overview.spectrogram.shape)
    strips_drawn: list[tuple[str, Image, Image]] = [
        ("spectrogram", colormaps[SPECTROGRAM_COLOURS](loud(overview.spectrogram), bytes=True), nothing)
    ]
    for name, m in overview.maps.items():
        strips_drawn.append((name, faded(m[CENTRED], m[ERROR], signed, sure), m.get(STANDING_OUT, nothing)))
    for line in range(-(-columns // a_line)):
        part = slice(line * a_line, (line + 1) * a_line)
        tops = [height - HEAD_IN - line * line_in - number * STRIP_IN for number in range(strips)]
        for top, (name, image, bins) in zip(tops, strips_drawn, strict=True):
            inches = (LEFT_IN, top - STRIP_IN + 0.04, WIDTH_IN - LEFT_IN - RIGHT_IN, STRIP_IN - 0.04)
            panel = figure.add_axes(_share(inches, height))
            _strip(panel, image[part], bins[part] > 0, name, axis, part, overview.column_s)
            panel.tick_params(labelbottom=top == tops[-1])
    _bars(figure, height, strips * STRIP_IN, {SPECTROGRAM_COLOURS: loud, IMPORTANCE_COLOURS: signed}, axis.value_label)
    return figure


def faded(centred: Image, error: Image, norm: Normalize, full: float = SURE) -> Image:
    """Return colours ``(columns, F, 4)``, the fainter the nearer to 0 in errors; unknown grey."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sure = np.clip(np.abs(centred) / (full * np.asarray(error)), 0.0, 1.0)
    colours = np.asarray(colormaps[IMPORTANCE_COLOURS](norm(np.nan_to_num(centred)), bytes=True))
    colours[..., 3] = np.rint(255 * np.nan_to_num(sure))
    colours[~(np.isfinite(centred) & np.isfinite(error))] = (*[round(255 * float(UNKNOWN_COLOUR))] * 3, 255)
    return colours


def _strip(panel: Any, image: Image, bins: Image, name: str, axis: Axis, columns: slice, column_s: float) -> None:
    """Draw one strip ``(columns, F, 4)``.

    The last line's may end early, and is drawn to the same scale.
    """
    begin_s = axis.extent(1)[0]
    start_s, full_end_s = begin_s + columns.start * column_s, begin_s + columns.stop * column_s
    end_s = start_s + len(image) * column_s
    panel.set_facecolor("white")
    bands = image.shape[1]
    panel.imshow(
        image.transpose(1, 0, 2),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(start_s, end_s, -0.5, bands - 0.5),
    )
    outline(panel, bins.T, start_s, end_s, 0.5)
    panel.set_xlim(start_s, full_end_s)
    panel.set_yticks(*axis.ticks())
    panel.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 3, 5, 6, 10]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda second, _: clock(second)))
    panel.tick_params(labelsize=6)
    panel.text(-0.036, 0.5, name, transform=panel.transAxes, fontsize=8, rotation=90, ha="right", va="center")


def clock(second: float) -> str:
    """Return seconds as a clock shows them.

    Examples
    --------
    >>> clock(5), clock(75), clock(3675), clock(0.5)
    ('0:05', '1:15', '1:01:15', '0:00.5')
    """
    whole = int(second)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    part = f"{second - whole:.2f}".lstrip("0").rstrip("0").rstrip(".")
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{seconds:02d}{part}"


def _share(inches: Sequence[float], height: float) -> tuple[float, float, float, float]:
    left, bottom, wide, high = inches
    return left / WIDTH_IN, bottom / height, wide / WIDTH_IN, high / height


def _bars(figure: Figure, height: float, line_in: float, norms: Mapping[str, Normalize], value_label: str) -> None:
    """Draw the colour bars, right of the first line."""
    labels = (value_label, "importance - mean similarity")
    for number, ((colours, norm), label) in enumerate(zip(norms.items(), labels, strict=True)):
        left = WIDTH_IN - RIGHT_IN + 0.2 + 0.9 * number
        place = _share((left, height - HEAD_IN - line_in + 0.04, 0.12, line_in - 0.08), height)
        bar = figure.colorbar(ScalarMappable(norm, colours), cax=figure.add_axes(place))
        bar.set_label(label, fontsize=7)
        bar.ax.tick_params(labelsize=6)
