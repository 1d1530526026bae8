"""Waveforms and their explanations -> pictures: time to the right in seconds.

A leaf of the flow beside `relax_quantus.views.maps`, whose rules it shares (no pyplot, no display):
waveforms ``(n, samples)`` and explanations shaped like them enter, a matplotlib figure leaves. A
waveform has no bands, so importance is a curve over time, below a log-mel spectrogram that only
shows what is heard when.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import neutral_torch
from relax_quantus.errors import ShapeError
from relax_quantus.frontend.axes import SampleAxis
from relax_quantus.frontend.examples import Axis, Image
from relax_quantus.frontend.log_mel import LogMel, LogMelAxis, LogMelConfig
from relax_quantus.views.maps import (
    DOTS_PER_INCH,
    EDGE_IN,
    MIN_SPREAD,
    NOTES_SIZE,
    UNKNOWN_HATCH,
    plot_spectrogram,
    shared_limit,
    wrapped,
)
from relax_quantus.views.thresholds import standing_out

if TYPE_CHECKING:
    from relax_quantus.relax.explanation import Explanation

POINTS = 3000
"""Points of a drawn curve, at most; more than a screen's width shows nothing."""
RED, BLUE, GREY = "#b2182b", "#2166ac", "0.75"
NOTES_IN = 4.6


@neutral_torch()
def waveform_figure(
    examples: Tensor | npt.NDArray[Any],
    explanations: Mapping[str, Explanation],
    *,
    title: str = "",
    notes: str = "",
    axis: Axis | None = None,
) -> Figure:
    """Draw spectrogram and waveform on top, and a row a strategy below them.

    Centred importance as a curve with its 95 % interval.

    All strategies share one scale, symmetric about 0, as in
    `relax_quantus.views.maps.explanation_figure`. Dotted lines are between examples, which are
    explained one by one. The interval is `Explanation.interval`'s; where the error is unknown, the
    whole height is hatched. Explained with ``null=True``, what stands out has a black bar at the
    bottom.

    Parameters
    ----------
    examples
        Waveforms ``(n, samples)``, drawn end to end.
    explanations
        Name of each strategy -> its explanation of all `examples`; NaN leaves a gap.
    title
        Above everything, drawn as plain text.
    notes
        On the right, drawn as plain text.
    axis
        A `SampleAxis`; 16 kHz from 0 s by default.

    Returns
    -------
    matplotlib.figure.Figure
        With its own Agg canvas; `relax_quantus.views.maps.save_png` writes it.

    Raises
    ------
    ArgumentError, ShapeError
        If there is no explanation, or `examples` are no waveforms.
    """
    if not explanations:
        checks.refuse("explanations", "at least one explanation", "none", "explain with one strategy or more")
    waves = torch.as_tensor(examples).detach().cpu().double()
    if waves.ndim != 2 or 0 in waves.shape:
        checks.refuse("examples", "waveforms of shape (n, samples)", examples, "add the batch axis", ShapeError)
    axis = axis if isinstance(axis, SampleAxis) else SampleAxis()
    end_s = axis.start_s + waves.numel() * axis.hop_s
    rows, map_in = 2 + len(explanations), float(np.clip(5.5 + 0.3 * len(waves), 5.5, 14))
    width, height = 0.9 + map_in + NOTES_IN, 0.9 + 1.6 * rows
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, parse_math=False, y=1 - 0.1 / height, va="top")
    grid = figure.add_gridspec(
        rows,
        left=0.9 / width,
        right=(0.9 + map_in) / width,
        bottom=0.5 / height,
        top=1 - 0.6 / height,
        hspace=0.3,
    )
    panels = [figure.add_subplot(grid[0])]
    panels += [figure.add_subplot(grid[row], sharex=panels[0]) for row in range(1, rows)]
    notes = wrapped(figure, notes, width - 1.2 - map_in - EDGE_IN)
    figure.text(
        (1.2 + map_in) / width,
        1 - 0.6 / height,
        notes,
        va="top",
        fontsize=NOTES_SIZE,
        linespacing=1.3,
        parse_math=False,
    )
    _spectrogram(panels[0], waves, axis)
    _wave(panels[1], waves, axis)
    _curves(panels[2:], explanations, axis)
    for panel in panels:
        panel.set_xlim(axis.start_s, end_s)
        panel.tick_params(labelsize=8, labelbottom=panel is panels[-1])
        for number in range(1, len(waves)):
            panel.axvline(
                axis.start_s + number * waves.shape[1] * axis.hop_s, color="0.4", linewidth=0.6, linestyle=":"
            )
    panels[-1].set_xlabel("time (s)", fontsize=8)
    return figure


def _spectrogram(panel: Any, waves: Tensor, axis: SampleAxis) -> None:
    """Log-mel frames of the whole sound; nothing where it is shorter than a window."""
    panel.set_title("log-mel spectrogram of what is heard (not masked)", fontsize=8)
    rate = axis.rate_hz
    if waves.numel() < 0.025 * rate or rate < 2000:
        return
    config = LogMelConfig(sample_rate_hz=rate, mel_max_hz=min(7500.0, rate / 2))
    frames = LogMel(config).frames(waves.flatten())
    plot_spectrogram(panel, frames[None, None], axis=LogMelAxis(config, start_s=axis.start_s))
    panel.set_ylabel("frequency (Hz)", fontsize=8)


def _wave(panel: Any, waves: Tensor, axis: SampleAxis) -> None:
    """The samples; of more than can be seen, the span between lowest and highest."""
    values = waves.flatten().numpy()
    step = max(1, values.size // POINTS)
    whole = values[: values.size // step * step].reshape(-1, step)
    times = axis.start_s + (np.arange(len(whole)) + 0.5) * step * axis.hop_s
    panel.fill_between(times, whole.min(axis=1), whole.max(axis=1), color="0.2", linewidth=0.4)
    panel.set_title("waveform", fontsize=8)
    panel.set_ylabel("amplitude", fontsize=8)


def _curves(panels: list[Any], explanations: Mapping[str, Explanation], axis: SampleAxis) -> None:
    """Every strategy's centred importance on one scale."""
    centred = {name: e.centred() for name, e in explanations.items()}
    intervals = {name: e.interval() for name, e in explanations.items()}
    limit = 1.05 * shared_limit([*centred.values(), *(bound for both in intervals.values() for bound in both)])
    limit = max(limit, MIN_SPREAD)
    for panel, (name, e) in zip(panels, explanations.items(), strict=True):
        step = max(1, centred[name].numel() // POINTS)
        values, low, high = (_thinned(v, step) for v in (centred[name], *intervals[name]))
        times = axis.times_s(centred[name].numel())[::step]
        panel.fill_between(times, low, high, color=GREY, linewidth=0)
        unknown = np.isfinite(values) & np.isnan(low)
        if unknown.any():
            panel.fill_between(
                times, -limit, limit, where=unknown, hatch=UNKNOWN_HATCH, facecolor="none", edgecolor=GREY, linewidth=0
            )
        words = ""
        if e.null_maxima is not None:
            standing = standing_out(e)
            marked = _thinned(torch.from_numpy(standing.bins), step) > 0
            panel.fill_between(times, -limit, -0.94 * limit, where=marked, color="black", linewidth=0)
            words = f"; {standing.bounds.in_words}" if standing.bounds.in_words else ""
        for colour, part in ((RED, np.maximum(values, 0)), (BLUE, np.minimum(values, 0))):
            panel.fill_between(times, 0, part, color=colour, alpha=0.55, linewidth=0)
        panel.plot(times, values, color="black", linewidth=0.8)
        panel.axhline(0, color="0.4", linewidth=0.6)
        panel.set_ylim(-limit, limit)
        mean = float(e.mean_similarity.nanmean())
        panel.set_title(f"{name}: importance - mean similarity ({mean:.2f}){words}", fontsize=8, parse_math=False)
        panel.set_ylabel("importance - mean", fontsize=8)


def _thinned(values: Tensor, step: int) -> Image:
    return np.asarray(values.detach().cpu().double().flatten()[::step].numpy())
