"""Box plots of a category's metrics, critical-difference diagrams, and runtime against score.

Scores by source enter; matplotlib figures leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from relax_quantus.benchmark.report.figures import style
from relax_quantus.benchmark.statistics.ranks import Ranking

if TYPE_CHECKING:
    import pandas as pd

POINTS = 30
"""Up to so many sources each is a dot beside its box."""
ARROWS = {"up": "higher is better", "down": "lower is better"}


def boxes(tables: dict[str, pd.DataFrame], directions: dict[str, str], title: str) -> Any:
    """Draw one panel a metric with a box a method over its sources, the mean as a mark.

    Median, quartiles, whiskers at 1.5 quartile distances.
    """
    labels = list(dict.fromkeys(name for table in tables.values() for name in table.columns))
    colour = style.colours(labels)
    columns = min(3, len(tables))
    lines = -(-len(tables) // columns)
    longest = max(map(len, labels))
    with style.figure(0.07 * longest + 2.4 * columns + 0.4, lines * (0.9 + 0.2 * len(labels)) + 0.4) as figure:
        axes = np.atleast_1d(figure.subplots(lines, columns, sharey=True)).reshape(-1)
        for ax, (metric, table) in zip(axes, tables.items(), strict=False):
            for place, label in enumerate(labels):
                if label in table.columns and table[label].notna().any():
                    _box(ax, table[label].dropna().to_numpy(), place, colour[label])
            ax.set_title(metric, loc="left")
            ax.set_xlabel(ARROWS[directions[metric]])
            ax.grid(axis="x", alpha=0.25)
        axes[0].set_yticks(range(len(labels)), labels)
        axes[0].set_ylim(len(labels) - 0.4, -0.6)
        for ax in axes[len(tables) :]:
            ax.set_visible(False)
        style.title(figure, title)
    return figure


def _box(ax: Any, values: Any, place: int, colour: str) -> None:
    ax.boxplot(
        [values],
        positions=[place],
        widths=0.6,
        orientation="horizontal",
        showmeans=True,
        showfliers=len(values) > POINTS,
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour},
        medianprops={"color": "black", "linewidth": 1.2},
        whiskerprops={"color": colour},
        capprops={"color": colour},
        meanprops={"marker": "D", "markersize": 3, "markerfacecolor": "black", "markeredgecolor": "black"},
        flierprops={"marker": ".", "markersize": 2, "markerfacecolor": colour, "markeredgecolor": colour},
    )
    if len(values) <= POINTS:
        spread = np.random.default_rng(place).uniform(-0.2, 0.2, len(values))
        ax.plot(values, place + spread, ".", color=colour, markersize=3, alpha=0.8, zorder=3)


def critical_difference(ranking: Ranking, title: str) -> Any:
    """Draw average ranks on a line, best at the left.

    Bars join methods that are not told apart (Nemenyi, 5 %).
    """
    from scikit_posthocs import critical_difference_diagram

    labels = list(ranking.ranks)
    colour = style.colours(labels)
    with style.figure(7.2, 1.5 + 0.2 * len(labels)) as figure:
        ax = figure.subplots()
        drawn = critical_difference_diagram(
            ranking.ranks,
            ranking.pairwise,
            ax=ax,
            label_fmt_left="{label}  {rank:.1f}",
            label_fmt_right="{rank:.1f}  {label}",
            color_palette=colour,
            label_props={"fontsize": 8},
            crossbar_props={"linewidth": 2.5, "color": "0.35"},
            text_h_margin=0.06,
        )
        for text in drawn["labels"]:
            text.set_color("black")
        for bar in (line for lines in drawn["crossbars"] for line in lines):
            bar.set_xdata(sorted(bar.get_xdata()))  # drawn in the order of a set, another one in each process
        style.title(
            figure,
            f"{title}\naverage rank over {ranking.n} source groups, 1 is best; bars join what is not told apart (Nemenyi, 5 %: critical difference "
            f"{ranking.critical_difference:.2f})",
        )
    return figure


def runtime(points: pd.DataFrame, title: str, ylabel: str) -> Any:
    """Draw median seconds a map against score with interval.

    `points` has columns seconds, value, low, high and is indexed by label.
    """
    labels = list(points.index)
    colour, marker = style.colours(labels), style.markers(labels)
    with style.figure(7.2, 4.2) as figure:
        ax = figure.subplots()
        for label, p in zip(labels, points.to_dict("records"), strict=True):
            error = None if not np.isfinite(p["low"]) else [[p["value"] - p["low"]], [p["high"] - p["value"]]]
            ax.errorbar(
                p["seconds"], p["value"], yerr=error, color=colour[label], marker=marker[label], markersize=6, capsize=2,
                linewidth=1, linestyle="none", label=label,
            )  # fmt: skip
        ax.set_xscale("log")
        ax.set_xlabel("seconds a map (median, logarithmic)")
        ax.set_ylabel(ylabel)
        ax.grid(alpha=0.25)
        style.title(figure, title)
        figure.legend(loc="outside right upper", frameon=False)
    return figure
