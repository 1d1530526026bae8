"""Flipping curves: what is left of the score while parts are replaced, with bands over sources.

The curves of a results folder enter; a matplotlib figure of one panel a granularity leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from relax_quantus.benchmark.report.figures import style
from relax_quantus.benchmark.statistics.intervals import FEWEST, resampling

if TYPE_CHECKING:
    import pandas as pd

SHARES = np.linspace(0, 1, 41)
KEY = ["dataset", "encoder", "seed", "clip", "method", "metric"]
WORDS = {"bin": "single bins", "patch": "patches", "time": "time stripes", "frequency": "frequency stripes"}
YLABELS = {"embedding": "similarity to the clip's own embedding", "logit": "logit of the predicted class"}
MOST = 8


def by_source(curves: pd.DataFrame, rows: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Interpolate curves on the grid `SHARES`: a line a source, label, granularity and order.

    Each is the mean over evaluators' fills and cells.
    """
    import pandas as pd

    facts = rows.drop_duplicates(KEY).set_index(KEY)[["source_group", "granularity"]]
    found = curves.assign(seed=curves["seed"].astype(str)).join(facts, on=KEY, how="inner")
    found = found[found.method.isin(names)].sort_values([*KEY, "order", "share"])
    keys = found[[*KEY, "order"]].to_numpy()
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
    share, value = (found[name].to_numpy(dtype=np.float64) for name in ("share", "value"))
    ends = [*starts[1:], len(found)]
    lines = [np.interp(SHARES, share[i:j], value[i:j]) for i, j in zip(starts, ends, strict=True)]
    index = found.iloc[starts][["source_group", "method", "granularity", "order"]]
    index = index.assign(label=index.method.map(names)).drop(columns="method")
    table = pd.DataFrame(np.array(lines).reshape(-1, len(SHARES)), index=pd.MultiIndex.from_frame(index))
    return table.groupby(["granularity", "order", "label", "source_group"], sort=False).mean()


def draw(table: pd.DataFrame, order: list[str], view: str, title: str) -> Any:
    """Draw one panel a granularity.

    Solid upper curves remove the least influential first, the lower ones the most influential.
    """
    granularities = [g for g in WORDS if g in set(table.index.get_level_values("granularity"))]
    present = set(table.index.get_level_values("label"))
    labels = [label for label in order if label in present][:MOST]
    colour, marker = style.colours(labels), style.markers(labels)
    columns = min(2, len(granularities))
    with style.figure(3.6 * columns, 2.9 * -(-len(granularities) // columns) + 0.7) as figure:
        axes = np.atleast_1d(
            figure.subplots(-(-len(granularities) // columns), columns, sharex=True, sharey=True)
        ).reshape(-1)
        for ax, granularity in zip(axes, granularities, strict=False):
            for label in labels:
                for first in ("LIF", "MIF"):
                    _line(ax, table, (granularity, first, label), colour[label], marker[label])
            ax.set_title(WORDS[granularity], loc="left")
            ax.set_xlim(0, 100)
            ax.grid(alpha=0.25)
        for ax in axes[len(granularities) :]:
            ax.set_visible(False)
        for ax in axes[max(0, len(granularities) - columns) : len(granularities)]:
            ax.set_xlabel("share of the spectrogram replaced (%)")
        figure.supylabel(YLABELS.get(view, "score"), fontsize=9)
        style.title(
            figure,
            f"{title}\nupper lines: least influential first; lower, with markers: most influential first; bands: 95 % over source groups",
        )
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), frameon=False)
    return figure


def _line(ax: Any, table: pd.DataFrame, at: tuple[str, str, str], colour: str, marker: str) -> None:
    here = table.index.to_frame()
    curves = table[(here.granularity == at[0]) & (here.order == at[1]) & (here.label == at[2])].to_numpy()
    if not len(curves):
        return
    first = at[1] == "MIF"
    ax.plot(
        100 * SHARES,
        curves.mean(axis=0),
        color=colour,
        linestyle=style.LINES.get(style.key(at[2]), "-"),
        linewidth=1.3,
        marker=marker if first else None,
        markersize=3.5,
        markevery=(3, 8),
        label=at[2] if first else None,
    )
    if len(curves) >= FEWEST:
        low, high = np.quantile(resampling(len(curves), 500, 0) @ curves, [0.025, 0.975], axis=0)
        ax.fill_between(100 * SHARES, low, high, color=colour, alpha=0.15, linewidth=0)
