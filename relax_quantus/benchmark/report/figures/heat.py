"""Heat maps: methods by evaluators of the crossed design, and methods by categories.

A matrix of means enters; a matplotlib figure leaves. A method's own evaluators are outlined: there
it marks its own work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Rectangle

from relax_quantus.benchmark.report.figures import style

if TYPE_CHECKING:
    import pandas as pd


def draw(
    values: pd.DataFrame,
    title: str,
    bar: str,
    own: pd.DataFrame | None = None,
    colours: str = "cividis",
    digits: int = 2,
) -> Any:
    """Draw methods down and columns across, each value written into its cell.

    `own` (same shape, bool) outlines cells.
    """
    lines, columns = values.shape
    numbers = values.to_numpy(dtype=np.float64)
    longest = max(len(str(name)) for name in values.index)
    with style.figure(1.6 + 0.075 * longest + 0.48 * columns, 1.9 + 0.26 * lines) as figure:
        ax = figure.subplots()
        shown = ax.imshow(np.ma.masked_invalid(numbers), aspect="auto", cmap=colours)
        ax.set_xticks(range(columns), [str(c) for c in values.columns], rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(lines), [str(name) for name in values.index])
        for i in range(lines):
            for j in range(columns):
                value = float(numbers[i, j])
                if np.isfinite(value):
                    level = shown.norm(value)
                    ink = "white" if sum(shown.cmap(level)[:3]) < 1.6 else "black"
                    ax.text(j, i, f"{value:.{digits}f}", ha="center", va="center", fontsize=7, color=ink)
                if own is not None and bool(own.iloc[i, j]):
                    ax.add_patch(
                        Rectangle((j - 0.45, i - 0.43), 0.9, 0.86, fill=False, edgecolor="#D55E00", linewidth=1.5)
                    )
        ax.tick_params(length=0)
        for side in ax.spines.values():
            side.set_visible(False)
        style.title(figure, title)
        figure.colorbar(shown, ax=ax, label=bar, fraction=0.05, pad=0.02)
    return figure
