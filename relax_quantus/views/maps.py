"""Log-mel examples and their explanations -> pictures.

Time to the right in seconds, frequency upwards in Hz.

A leaf of the flow: examples ``(n, 1, T, F)`` and `relax_quantus.relax.explanation.Explanation`
objects enter, matplotlib figures and PNG files leave. Examples are laid end to end, the first at 0
s. This is the only module that imports matplotlib; it never touches pyplot, so no window opens, no
figure is left in a global list, and it works without a display.
"""

from __future__ import annotations

import os
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.gridspec import GridSpec
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.files import complete
from relax_quantus.base.networks import neutral_torch
from relax_quantus.errors import ArgumentError, ShapeError
from relax_quantus.frontend.axes import COUNTED, BinAxis
from relax_quantus.frontend.examples import Axis, HasAxis, Image
from relax_quantus.frontend.log_mel import LogMel
from relax_quantus.views.thresholds import standing_out

if TYPE_CHECKING:
    from relax_quantus.relax.explanation import Explanation

SPECTROGRAM_COLOURS = "magma"
IMPORTANCE_COLOURS = "RdBu_r"
ERROR_COLOURS = "viridis"
UNKNOWN_COLOUR = "0.6"
UNKNOWN_HATCH, HATCH_COLOUR = "////", "0.75"
DOTS_PER_INCH = 120
NOTES_SIZE, EDGE_IN = 8, 0.1
"""Size of notes in points, and what is left free beside them."""
MOST_NOTES = 10
"""Lines of notes that there is room for beside a spectrogram, with blank ones."""
MIN_SPREAD = 1e-6
OUTLINED_EXAMPLES = 20
"""Above so many examples the line around what stands out is left out: it would be all one sees."""


def axis_of(examples: Any, given: Axis | HasAxis | None = None, bands: int | None = None) -> Axis:
    """Find what the axes of examples or maps stand for; nothing is told by shape alone.

    Parameters
    ----------
    examples
        Tensor or array ``(..., T, F)``.
    given
        What the caller says: an axis, or the `LogMel` that made them. None for that of `examples`
        if they are `relax_quantus.frontend.Examples`; else frames and bands are counted.
    bands
        Number of bands F, if not that of `examples`.

    Examples
    --------
    >>> from relax_quantus.frontend.log_mel import LogMel
    >>> axis_of(np.zeros((1, 1, 9, 4))).time_label
    'frame'
    >>> axis_of(np.zeros((1, 1, 9, 64)), LogMel()).time_label
    'time (s)'
    """
    said = examples if given is None else given
    found = said if isinstance(said, Axis) else getattr(said, "axis", None)
    if isinstance(found, Axis):
        return found
    size = int(np.shape(examples)[-1]) if bands is None else bands
    return BinAxis(every_s=1.0, size=size, label="band", time_label=COUNTED)


@neutral_torch()
def end_to_end(examples: Tensor | npt.NDArray[Any]) -> Image:
    """Lay examples ``(n, 1, T, F)`` end to end as one image ``(F, n T)``.

    Row 0 is the lowest band, column 0 the first frame.

    Complex values are shown by their magnitude.

    Raises
    ------
    ShapeError
        If `examples` has another number of axes or channels, or is empty.
    """
    values = torch.as_tensor(examples).detach().cpu()
    values = (values.abs() if values.is_complex() else values).double()
    if values.ndim != 4 or values.shape[1] != 1 or 0 in values.shape:
        checks.refuse("examples", "shape (n, 1, T, F)", examples, "add the batch and channel axes", ShapeError)
    return np.asarray(values.reshape(-1, values.shape[-1]).T.numpy())


@neutral_torch()
def plot_map(
    ax: Any,
    examples: Tensor | npt.NDArray[Any],
    *,
    axis: Axis | LogMel | None = None,
    colours: str = IMPORTANCE_COLOURS,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """Draw maps ``(n, 1, T, F)`` into matplotlib axes, end to end, with seconds and Hz on the axes.

    Parameters
    ----------
    ax
        matplotlib axes.
    examples
        The maps; NaN is drawn grey and hatched.
    axis
        What the axes stand for, or the `LogMel` that made the examples; by default what `Examples`
        say of themselves, else frames and bands are counted.
    colours
        A matplotlib colour map.
    low, high
        Values at the ends of the colour map; the smallest and largest finite value by default.

    Returns
    -------
    matplotlib.image.AxesImage
        For a colour bar.
    """
    axis = axis_of(examples, axis)
    image = end_to_end(examples)
    shown = ax.imshow(
        np.ma.masked_invalid(image),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=axis.extent(image.shape[1]),
        cmap=colours,
        vmin=low,
        vmax=high,
    )
    ax.set_facecolor(UNKNOWN_COLOUR)
    ax.patch.set(hatch=UNKNOWN_HATCH, edgecolor=HATCH_COLOUR, linewidth=0)
    ax.set_yticks(*axis.ticks())
    ax.tick_params(labelsize=8)
    return shown


@neutral_torch()
def plot_spectrogram(ax: Any, examples: Tensor | npt.NDArray[Any], *, axis: Axis | LogMel | None = None) -> Any:
    """Draw examples ``(n, 1, T, F)`` end to end; see `plot_map`."""
    return plot_map(ax, examples, axis=axis, colours=SPECTROGRAM_COLOURS)


@neutral_torch()
def shared_limit(maps: Sequence[Tensor | npt.NDArray[Any]]) -> float:
    """Return the largest finite magnitude in several maps, so that they can share one colour scale.

    Never 0.

    Examples
    --------
    >>> shared_limit([np.array([0.5, -2.0]), np.array([np.nan, 1.0])])
    2.0
    """
    magnitudes = [np.abs(torch.as_tensor(m).detach().cpu().double().numpy()) for m in maps]
    finite = [m[np.isfinite(m)].max(initial=0.0) for m in magnitudes]
    return max(float(max(finite, default=0.0)), MIN_SPREAD)


@neutral_torch()
def explanation_figure(
    examples: Tensor | npt.NDArray[Any],
    explanations: Mapping[str, Explanation],
    *,
    title: str = "",
    notes: str = "",
    axis: Axis | LogMel | None = None,
) -> Figure:
    """Draw the spectrogram on top and a row a strategy below it.

    Centred importance on the left, its own standard error on the right.

    All importance maps share one colour scale, symmetric about 0, and all standard errors one from
    0, so that strategies can be compared by eye. Importance is drawn centred
    (`Explanation.centred`), because the mean similarity differs between strategies and would hide
    the map: red means that masks which keep this part leave the embedding more like the clip's own
    than masks do on average, blue less. A black line runs around what stands out from what chance
    draws (`relax_quantus.views.thresholds.standing_out`), if there are at most 20 examples and they
    were explained with ``null=True``; where nothing does, words in the map say so.

    Parameters
    ----------
    examples
        ``(n, 1, T, F)``, drawn end to end.
    explanations
        Name of each strategy -> its explanation of all `examples`; NaN is drawn grey and hatched.
    title
        Above everything, drawn as plain text.
    notes
        In the free corner beside the spectrogram, drawn as plain text.
    axis
        What the axes stand for, or the `LogMel` that made the examples; by default what `Examples`
        say of themselves, else frames and bands are counted.

    Returns
    -------
    matplotlib.figure.Figure
        With its own Agg canvas; `save_png` writes it.

    Raises
    ------
    ArgumentError
        If there is no explanation.
    """
    if not explanations:
        checks.refuse(
            "explanations", "at least one explanation", "none", "explain with one strategy or more", ArgumentError
        )
    axis = axis_of(examples, axis)
    layout = Layout.of(len(examples), 1 + len(explanations))
    figure = Figure(figsize=(layout.width_in, layout.height_in), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, parse_math=False, y=1 - 0.1 / layout.height_in, va="top")
    grid = layout.grid(figure)
    top = figure.add_subplot(grid[0, 0])
    _bar(figure, grid[0, 1], plot_spectrogram(top, examples, axis=axis), axis.value_label)
    top.set_title(axis.heading, fontsize=8)
    corner = grid[0, 3].get_position(figure)
    notes = wrapped(figure, notes, (1 - corner.x0) * layout.width_in - EDGE_IN)
    notes = notes if notes.count("\n") < MOST_NOTES else notes.replace("\n\n", "\n")
    figure.text(corner.x0, corner.y1, notes, va="top", fontsize=NOTES_SIZE, linespacing=1.3, parse_math=False)
    left, right = (
        [figure.add_subplot(grid[row, column], sharex=top, sharey=top) for row in range(1, grid.nrows)]
        for column in (0, 3)
    )
    _importance_column(left, explanations, axis, lambda shown, what: _bar(figure, grid[1:, 1], shown, what))
    _error_column(right, explanations, axis, lambda shown, what: _bar(figure, grid[1:, 4], shown, what))
    for panel in (top, *left):
        panel.set_ylabel(axis.label, fontsize=8)
    for panel in (top, *left[:-1], *right[:-1]):
        panel.tick_params(labelbottom=False)
    for panel in (left[-1], right[-1]):
        panel.set_xlabel(axis.time_label, fontsize=8)
    for panel in right:
        panel.tick_params(labelleft=False)
    return figure


def wrapped(figure: Figure, notes: str, room_in: float, size: float = NOTES_SIZE) -> str:
    """Break the lines of notes that are wider than `room_in` inches, if possible between words."""
    renderer, font = figure.canvas.get_renderer(), FontProperties(size=size)  # type: ignore[attr-defined]

    def width_in(line: str) -> float:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            return float(renderer.get_text_width_height_descent(line, font, ismath=False)[0]) / figure.dpi

    lines = []
    for line in notes.split("\n"):
        room = len(line)
        while room > 8 and any(width_in(part) > room_in for part in _broken(line, room)):
            room = int(0.95 * room)
        lines += _broken(line, room)
    return "\n".join(lines)


def _broken(line: str, room: int) -> list[str]:
    return textwrap.wrap(line, max(room, 1), break_on_hyphens=False, subsequent_indent="  " if room > 8 else "") or [""]


@dataclass(frozen=True)
class Layout:
    """Hold the sizes in inches of a figure of rows of two maps with a colour bar each.

    Fixed, which is quicker than to let matplotlib find them.
    """

    map_in: float
    rows: int

    @classmethod
    def of(cls, examples: int, rows: int) -> Layout:
        """Make room for so many examples.

        One is readable at 4.2 inches, and a long clip gets more, up to what a screen shows.
        """
        return cls(float(np.clip(3.9 + 0.3 * examples, 4.2, 13.5)), rows)

    @property
    def width_in(self) -> float:
        """Width of the figure."""
        return 0.75 + 2 * self.map_in + 2.35

    @property
    def height_in(self) -> float:
        """Height of the figure."""
        return 0.75 + 1.75 * self.rows

    def grid(self, figure: Figure) -> GridSpec:
        """Columns: map, its colour bar, a gap for the bar's label, map, its colour bar."""
        return GridSpec(
            self.rows,
            5,
            figure,
            left=0.75 / self.width_in,
            right=1 - 0.75 / self.width_in,
            bottom=0.5 / self.height_in,
            top=1 - 0.6 / self.height_in,
            wspace=0.0,
            hspace=0.22,
            width_ratios=[self.map_in, 0.2, 1.2, self.map_in, 0.2],
        )


def _bar(figure: Figure, place: Any, shown: Any, what: str) -> None:
    """Put the colour bar of `shown` into the right half of `place`."""
    box = place.get_position(figure)
    bar = figure.colorbar(shown, cax=figure.add_axes((box.x0 + box.width / 2, box.y0, box.width / 2, box.height)))
    bar.set_label(what, fontsize=7)
    bar.ax.tick_params(labelsize=7)


def _importance_column(
    panels: Sequence[Any], explanations: Mapping[str, Explanation], axis: Axis, bar: Callable[[Any, str], None]
) -> None:
    """Draw every strategy's centred importance on one scale, symmetric about 0."""
    centred = {name: e.centred() for name, e in explanations.items()}
    limit = shared_limit(list(centred.values()))
    for panel, (name, e) in zip(panels, explanations.items(), strict=True):
        shown = plot_map(panel, centred[name], axis=axis, low=-limit, high=limit)
        if e.null_maxima is not None:
            standing = standing_out(e)
            if len(centred[name]) <= OUTLINED_EXAMPLES:
                bins = end_to_end(standing.bins)
                outline(panel, bins, *axis.extent(bins.shape[1])[:2])
            say_in(panel, standing.bounds.in_words)
        mean = float(e.mean_similarity.nanmean())
        heading = f"{name}: importance - mean similarity ({mean:.2f}): {_span(centred[name])}"
        panel.set_title(heading, fontsize=8, parse_math=False)
    bar(shown, "importance - mean similarity" + _shared(explanations))


def _error_column(
    panels: Sequence[Any], explanations: Mapping[str, Explanation], axis: Axis, bar: Callable[[Any, str], None]
) -> None:
    """Draw the standard error of every strategy's centred importance on one scale from 0."""
    limit = shared_limit([e.centred_standard_error for e in explanations.values()])
    for panel, (name, e) in zip(panels, explanations.items(), strict=True):
        error = e.centred_standard_error
        shown = plot_map(panel, error, axis=axis, colours=ERROR_COLOURS, low=0.0, high=limit)
        unknown = "; grey: unknown" if bool(error.isnan().any() & error.isfinite().any()) else ""
        panel.set_title(f"{name}: standard error of that: {_span(error)}{unknown}", fontsize=8, parse_math=False)
    bar(shown, "standard error of that" + _shared(explanations))


def _shared(explanations: Mapping[str, Explanation]) -> str:
    return ", one scale for all rows" if len(explanations) > 1 else ""


def outline(ax: Any, bins: npt.NDArray[Any], left: float, right: float, width: float = 0.7) -> None:
    """Draw a line around bins ``(F, frames)`` that are not 0, between two seconds.

    Seen however faint the map is.
    """
    if not bins.any():
        return
    padded = np.pad(np.asarray(bins, dtype=np.float64), 1)  # so that the line closes at the edges
    times = left + (np.arange(-1, bins.shape[1] + 1) + 0.5) * (right - left) / bins.shape[1]
    limits = ax.get_xlim(), ax.get_ylim()
    ax.contour(times, np.arange(-1, bins.shape[0] + 1), padded, [0.5], colors="black", linewidths=width)
    ax.set(xlim=limits[0], ylim=limits[1])


def say_in(ax: Any, words: str) -> None:
    """Write words into the lower left of a map, on white."""
    if words:
        box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1.5}
        ax.text(0.01, 0.03, words, transform=ax.transAxes, fontsize=7, va="bottom", bbox=box, parse_math=False)


def _span(examples: Tensor) -> str:
    finite = examples[torch.isfinite(examples)]
    return f"{float(finite.min()):.2g} to {float(finite.max()):.2g}" if finite.numel() else "unknown"


def save_png(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG; a file of that name is replaced only once the new one is complete.

    Raises
    ------
    OSError
        If the folder cannot be written to or is full.
    """
    with complete(path) as draft, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(draft, format="png", dpi=DOTS_PER_INCH)
    return Path(path)
