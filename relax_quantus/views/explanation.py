"""One explanation -> matplotlib axes, and what a notebook shows of it.

A leaf of the flow above `relax_quantus.views.maps`, reached by `relax_quantus.Explanation.plot` and
its notebook forms through one lazy import. Argument names and their meaning are those of
``captum.attr.visualization.visualize_image_attr`` where there is a counterpart; axes are seconds
and Hz, and without `ax` it draws into pyplot's current axes, as librosa does.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import neutral_torch
from relax_quantus.errors import ShapeError
from relax_quantus.frontend.examples import Axis, Image
from relax_quantus.frontend.log_mel import LogMel
from relax_quantus.views.maps import DOTS_PER_INCH, ERROR_COLOURS, IMPORTANCE_COLOURS, MIN_SPREAD, axis_of, plot_map

if TYPE_CHECKING:
    from relax_quantus.relax.explanation import Explanation

METHODS = ("heat_map", "blended_heat_map", "original_image")
SIGNS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "all": (IMPORTANCE_COLOURS, lambda v: v),
    "positive": ("Reds", lambda v: v.clamp(min=0)),
    "negative": ("Blues", lambda v: (-v).clamp(min=0)),
    "absolute_value": ("Purples", torch.abs),
}
MAPS = {
    "importance": ("importance", "cividis"),
    "centred": ("importance - mean similarity", IMPORTANCE_COLOURS),
    "u_relax": ("U-RELAX", "cividis"),
    "uncertainty": ("variability U", ERROR_COLOURS),
    "standard_error": ("standard error of the importance", ERROR_COLOURS),
    "centred_standard_error": ("standard error of the centred map", ERROR_COLOURS),
    "cell_effects": ("effect of a cell", IMPORTANCE_COLOURS),
}
SIGNED = ("centred", "cell_effects")
MOST_SHOWN = 60
"""Examples of a batch that a notebook shows at most."""


@neutral_torch()
def plot(
    explanation: Explanation,
    x: Tensor | None,
    *,
    map: str,
    method: str | None,
    sign: str,
    example: int | None,
    axis: Axis | LogMel | None,
    ax: Any,
    cmap: str | None,
    alpha_overlay: float,
    outlier_perc: float,
    show_colorbar: bool,
    title: str | None,
) -> Any:
    """Draw an explanation; see `relax_quantus.Explanation.plot`."""
    method = method or ("heat_map" if x is None else "blended_heat_map")
    for name, value, known in (("method", method, METHODS), ("sign", sign, tuple(SIGNS)), ("map", map, tuple(MAPS))):
        if value not in known:
            checks.refuse(name, f"one of {', '.join(known)}", repr(value), "pick one of these")
    values = chosen(explanation, map, sign, example)
    shown = _spectrogram(explanation, x, method, example)
    axis = axis_of(values, axis or getattr(x, "axis", None) or getattr(explanation, "axis", None))
    if values.shape[3] != axis.bands:
        checks.refuse("axis", f"{values.shape[3]} bands", axis.bands, "pass the front end's axis", ShapeError)
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.gca()
    image = None
    if shown is not None:
        image = plot_map(ax, shown, axis=axis, colours="gray_r")
    if method != "original_image":
        low, high = limits(values, map, sign, outlier_perc)
        colours = cmap or (SIGNS[sign][0] if map in SIGNED else MAPS[map][1])
        image = plot_map(ax, values, axis=axis, colours=colours, low=low, high=high)
        image.set_alpha(alpha_overlay if shown is not None else None)
    if show_colorbar:
        bar = ax.figure.colorbar(image, ax=ax)
        bar.set_label(_values(axis, x) if method == "original_image" else MAPS[map][0])
    ax.set_xlabel(axis.time_label)
    ax.set_ylabel(axis.label)
    if title:
        ax.set_title(title, parse_math=False)
    return ax


def _values(axis: Axis, x: Tensor | None) -> str:
    return "magnitude" if x is not None and x.is_complex() else axis.value_label


@neutral_torch()
def chosen(explanation: Explanation, map: str, sign: str, example: int | None) -> Tensor:
    """A map of all examples or of one, ``(n, 1, T, F)``, on the CPU, with the wanted sign."""
    found = getattr(explanation, map)
    if found is None:
        checks.refuse("map", "a map that this explanation has", repr(map), "estimator='surrogate' makes cell effects")
    values: Tensor = (found() if callable(found) else found).detach().cpu().expand_as(explanation.importance)
    if not drawable(explanation):
        remedy = "only spectrograms are drawn; take the arrays"
        checks.refuse("explanation", "maps of shape (B, 1, T, F)", values, remedy, ShapeError)
    return SIGNS[sign][1](_one(values, example)) if map in SIGNED else _one(values, example)


def _one(values: Tensor, example: int | None) -> Tensor:
    if example is None:
        return values
    if not -len(values) <= example < len(values):
        checks.refuse("example", f"an index below {len(values)}", example, "leave it out for all, end to end")
    return values[example][None]


def _spectrogram(explanation: Explanation, x: Tensor | None, method: str, example: int | None) -> Tensor | None:
    """The input to draw behind the map or alone; None for the map alone."""
    if method == "heat_map":
        return None
    if x is None:
        checks.refuse("x", f"the input for method={method!r}", None, "pass the spectrograms that were explained")
    if x.shape != explanation.importance.shape:
        rule = f"the explained input, shape {tuple(explanation.importance.shape)}"
        checks.refuse("x", rule, x, "pass the spectrograms that were explained", ShapeError)
    return _one(x.detach().cpu(), example)


@neutral_torch()
def limits(values: Tensor, map: str, sign: str, outlier_perc: float) -> tuple[float, float]:
    """Values at the ends of the colour map.

    From 0 or symmetric about it, so that `outlier_perc` percent lie beyond, as Captum counts them.
    """
    finite = np.asarray(values[torch.isfinite(values)].double().numpy())
    if not 0 <= outlier_perc < 100:
        checks.refuse("outlier_perc", "a percentage from 0 to below 100", outlier_perc, "2 is the default")
    if not finite.size:
        return 0.0, 1.0
    if map in ("importance", "u_relax"):
        return float(finite.min()), max(float(finite.max()), float(finite.min()) + MIN_SPREAD)
    high = max(cumulative(np.abs(finite), 100 - outlier_perc), MIN_SPREAD)
    return (-high if map in SIGNED and sign == "all" else 0.0), high


def cumulative(magnitudes: Image, percentile: float) -> float:
    """Return where the sorted values add up to `percentile` percent of their sum, as in Captum."""
    rising = np.sort(magnitudes.reshape(-1))
    sums = rising.cumsum()
    return float(rising[min(int(np.searchsorted(sums, sums[-1] * percentile / 100)), rising.size - 1)])


def drawable(explanation: Explanation) -> bool:
    """Whether its maps are spectrograms ``(B, 1, T, F)``."""
    shape = explanation.importance.shape
    return len(shape) == 4 and shape[1] == 1 and 0 not in shape


@neutral_torch()
def png(explanation: Explanation) -> bytes | None:
    """The centred importance and its own standard error, end to end, as PNG.

    None where there is no spectrogram.
    """
    if not drawable(explanation):
        return None
    shown = min(len(explanation.importance), MOST_SHOWN)
    figure = Figure(figsize=(float(np.clip(4.5 + 0.6 * shown, 5, 12)), 4), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axis = axis_of(explanation.importance, getattr(explanation, "axis", None))
    for panel, map in zip(figure.subplots(2, 1, sharex=True), ("centred", "centred_standard_error"), strict=True):
        values = chosen(explanation, map, "all", None)[:shown]
        low, high = limits(values, map, "all", 0)
        image = plot_map(panel, values, axis=axis, colours=MAPS[map][1], low=low, high=high)
        figure.colorbar(image, ax=panel).set_label(MAPS[map][0], fontsize=8)
        panel.set_ylabel(axis.label, fontsize=8)
    panel.set_xlabel(axis.time_label, fontsize=8)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


@neutral_torch()
def as_html(explanation: Explanation) -> str | None:
    """That picture above a few numbers; None where there is no spectrogram."""
    picture = png(explanation)
    if picture is None:
        return None
    e, source = explanation, base64.b64encode(picture).decode("ascii")
    masks = " to ".join(dict.fromkeys(str(int(n)) for n in (e.n_samples.min(), e.n_samples.max())))
    rows = {
        "examples": _counted(len(e.importance)),
        "masks": masks,
        "estimator": e.estimator,
        "mean similarity": f"{float(e.mean_similarity.nanmean()):.3f}",
        "similarity of the fill alone": f"{float(e.fully_masked_similarity.nanmean()):.3f}",
    }
    cells = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in rows.items())
    about = "Importance less the mean similarity, and its standard error, over time and frequency"
    return f'<div><img alt="{about}" src="data:image/png;base64,{source}"><table>{cells}</table></div>'


def _counted(examples: int) -> str:
    return (
        f"{examples}, drawn end to end" if examples <= MOST_SHOWN else f"{examples}, drawn are the first {MOST_SHOWN}"
    )
