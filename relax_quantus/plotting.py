"""Log-mel examples and their explanations -> pictures: time to the right in seconds, frequency upwards in Hz.

A leaf of the flow: examples ``(n, 1, T, F)`` and `relax_quantus.explanation.Explanation` objects enter, matplotlib figures and PNG files
leave. Examples are laid end to end, the first at 0 s. This is the only module that imports matplotlib; it never touches pyplot, so no window
opens, no figure is left in a global list, and it works without a display.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from relax_quantus import checks
from relax_quantus.errors import ArgumentError, ShapeError
from relax_quantus.explanation import Explanation
from relax_quantus.frontend import LogMelConfig, hz_to_mel

Image = npt.NDArray[np.float64]

TICKS_HZ = (250, 500, 1000, 2000, 4000, 7000)
SPECTROGRAM_COLOURS = "magma"
IMPORTANCE_COLOURS = "RdBu_r"
ERROR_COLOURS = "viridis"
UNKNOWN_COLOUR = "0.6"
DOTS_PER_INCH = 120
MIN_SPREAD = 1e-6
OUTLINED = 0.1


@dataclass(frozen=True)
class Axis:
    """What one picture's axes stand for.

    Parameters
    ----------
    config
        The front end that made the examples: frame rate and mel bands.
    start_s
        Where the first example starts, in seconds.
    """

    config: LogMelConfig = field(default_factory=LogMelConfig)
    start_s: float = 0.0

    def times_s(self, frames: int) -> Image:
        """Centre of each frame's analysis window, shape (frames,), in seconds."""
        return np.asarray(self.start_s + self.config.window_s / 2 + self.config.hop_s * np.arange(frames))

    def extent(self, frames: int) -> tuple[float, float, float, float]:
        """Left and right in seconds, bottom and top in bands, of an image of so many frames.

        Frame i is drawn from i to i + 1 hops, so that examples join and start at round times: 7.5 ms before its window's centre.
        """
        return self.start_s, self.start_s + frames * self.config.hop_s, -0.5, self.config.mel_bands - 0.5

    def band_of_hz(self, hz: npt.ArrayLike) -> Image:
        """Position on the band axis (0 is the lowest band's centre) of frequencies in Hz, linear in mel."""
        low, high = hz_to_mel(self.config.mel_min_hz), hz_to_mel(self.config.mel_max_hz)
        return np.asarray((hz_to_mel(hz) - low) / (high - low) * (self.config.mel_bands + 1) - 1.0)


def end_to_end(examples: Tensor | npt.NDArray[Any]) -> Image:
    """Lay examples ``(n, 1, T, F)`` end to end as one image ``(F, n T)``: row 0 is the lowest band, column 0 the first frame.

    Raises
    ------
    ShapeError
        If `examples` has another number of axes or channels, or is empty.
    """
    values = torch.as_tensor(examples).detach().cpu().double()
    if values.ndim != 4 or values.shape[1] != 1 or 0 in values.shape:
        checks.refuse("examples", "shape (n, 1, T, F)", examples, "add the batch and channel axes", ShapeError)
    return np.asarray(values.reshape(-1, values.shape[-1]).T.numpy())


def plot_map(
    ax: Any,
    examples: Tensor | npt.NDArray[Any],
    *,
    axis: Axis | None = None,
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
        The maps; NaN is drawn grey.
    axis
        What the axes stand for; VGGish's front end from 0 s by default.
    colours
        A matplotlib colour map.
    low, high
        Values at the ends of the colour map; the smallest and largest finite value by default.

    Returns
    -------
    matplotlib.image.AxesImage
        For a colour bar.
    """
    axis = axis or Axis()
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
    ticks = [hz for hz in TICKS_HZ if axis.config.mel_min_hz <= hz <= axis.config.mel_max_hz]
    ax.set_yticks(axis.band_of_hz(ticks), [str(hz) for hz in ticks])
    ax.tick_params(labelsize=8)
    return shown


def plot_spectrogram(ax: Any, examples: Tensor | npt.NDArray[Any], *, axis: Axis | None = None) -> Any:
    """Draw log-mel examples ``(n, 1, T, F)`` end to end; see `plot_map`. Values are the natural logarithm of mel magnitude."""
    return plot_map(ax, examples, axis=axis, colours=SPECTROGRAM_COLOURS)


def shared_limit(maps: Sequence[Tensor | npt.NDArray[Any]]) -> float:
    """The largest finite magnitude in several maps, so that they can share one colour scale; never 0.

    Examples
    --------
    >>> shared_limit([np.array([0.5, -2.0]), np.array([np.nan, 1.0])])
    2.0
    """
    magnitudes = [np.abs(torch.as_tensor(m).detach().cpu().double().numpy()) for m in maps]
    finite = [m[np.isfinite(m)].max(initial=0.0) for m in magnitudes]
    return max(float(max(finite, default=0.0)), MIN_SPREAD)


def explanation_figure(
    examples: Tensor | npt.NDArray[Any],
    explanations: Mapping[str, Explanation],
    *,
    title: str = "",
    notes: str = "",
    axis: Axis | None = None,
) -> Figure:
    """Draw the spectrogram on top and a row a strategy below it: centred importance on the left, its standard error on the right.

    All importance maps share one colour scale, symmetric about 0, and all standard errors one from 0, so that strategies can be compared by
    eye. Importance is drawn centred (`Explanation.centred`), because the mean similarity differs between strategies and would hide the map:
    red means that masks which keep this part leave the embedding more like the clip's own than masks do on average, blue less. A black line
    runs around the highest tenth of each map.

    Parameters
    ----------
    examples
        ``(n, 1, T, F)``, drawn end to end.
    explanations
        Name of each strategy -> its explanation of all `examples`; NaN is drawn grey.
    title
        Above everything, drawn as plain text.
    notes
        In the free corner beside the spectrogram, drawn as plain text.
    axis
        What the axes stand for; VGGish's front end from 0 s by default.

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
    axis = axis or Axis()
    rows = 1 + len(explanations)
    figure = Figure(figsize=(_width_in(len(examples)), 1.1 + 1.75 * rows), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, parse_math=False)
    panels = figure.subplots(rows, 2, sharex=True, squeeze=False)
    _first_row(figure, panels[0], examples, notes, axis)
    _strategy_rows(figure, panels[1:], explanations, axis)
    for panel in panels[:, 0]:
        panel.set_ylabel("frequency (Hz)", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("time (s)", fontsize=8)
    return figure


def _width_in(examples: int) -> float:
    """Width of the figure in inches: one example is readable at 11, and a long clip gets more up to what a screen shows."""
    return float(np.clip(10.0 + 0.6 * examples, 11.0, 30.0))


def _first_row(figure: Figure, panels: Any, examples: Tensor | npt.NDArray[Any], notes: str, axis: Axis) -> None:
    shown = plot_spectrogram(panels[0], examples, axis=axis)
    panels[0].set_title("log-mel spectrogram", fontsize=8)
    bar = figure.colorbar(shown, ax=panels[0], pad=0.01, aspect=12, fraction=0.08)
    bar.set_label("ln(mel magnitude + 0.01)", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    panels[1].axis("off")
    text = panels[1].text(0.0, 0.95, notes, transform=panels[1].transAxes, va="top", fontsize=8, parse_math=False)
    text.set_in_layout(False)


def _strategy_rows(figure: Figure, panels: Any, explanations: Mapping[str, Explanation], axis: Axis) -> None:
    centred = {name: e.centred() for name, e in explanations.items()}
    limit = shared_limit(list(centred.values()))
    error_limit = shared_limit([e.standard_error for e in explanations.values()])
    for row, (name, e) in zip(panels, explanations.items(), strict=True):
        left = plot_map(row[0], centred[name], axis=axis, low=-limit, high=limit)
        right = plot_map(row[1], e.standard_error, axis=axis, colours=ERROR_COLOURS, low=0.0, high=error_limit)
        _outline(row[0], end_to_end(centred[name]), axis)
        mean = float(e.mean_similarity.nanmean())
        heading = f"{name}: importance - mean similarity ({mean:.2f}): {_span(centred[name])}"
        row[0].set_title(heading, fontsize=8, parse_math=False)
        row[1].set_title(f"{name}: standard error: {_span(e.standard_error)}", fontsize=8, parse_math=False)
    for column, shown, what in ((0, left, "importance - mean similarity"), (1, right, "standard error")):
        bar = figure.colorbar(shown, ax=panels[:, column], pad=0.01, aspect=12 * len(panels), fraction=0.08)
        bar.set_label(f"{what}, one scale for all rows", fontsize=7)
        bar.ax.tick_params(labelsize=7)


def _outline(ax: Any, image: Image, axis: Axis) -> None:
    """Draw a line around the highest tenth of a map, which shows where it points even if it is faint on the shared scale."""
    finite = image[np.isfinite(image)]
    if finite.size == 0 or np.ptp(finite) < MIN_SPREAD:
        return
    left, right, _, _ = axis.extent(image.shape[1])
    times = left + (np.arange(image.shape[1]) + 0.5) * (right - left) / image.shape[1]
    level = np.quantile(finite, 1.0 - OUTLINED)
    if level < finite.max():
        ax.contour(
            times, np.arange(image.shape[0]), np.ma.masked_invalid(image), [level], colors="black", linewidths=0.7
        )


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
    path = Path(path)
    draft = path.with_name(f".{os.getpid()}.part")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(draft, format="png", dpi=DOTS_PER_INCH)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path
