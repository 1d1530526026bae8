"""Draw the catalogue's pictures on one synthetic recording: three barks and a louder tone.

Masks: samples, their mean, and the map. Fills: the example, the fill, a masked copy. Estimators:
map and standard error at two N. Metrics: scores of oracle, chance and anti-oracle on the model of
the trials. Encoder forwards: about 6 000 of the bundled encoder in all.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import relax_quantus as rq
from catalogue.pages import REGISTRIES, families
from relax_quantus.benchmark.data.soundscapes import soundscape
from relax_quantus.benchmark.data.synthetic_calls import CLASS_NAMES
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.maps import ERROR_COLOURS, plot_map, plot_spectrogram, shared_limit

SAMPLES = 400
MEAN_OF = 2000
WIDE, TALL = 9.0, 2.1


@functools.cache
def example() -> Tensor:
    """The recording, ``(1, 1, 96, 64)``."""
    return rq.LogMel()(soundscape(2026, 7, CLASS_NAMES.index("dog")).wave)


@functools.cache
def encoder() -> torch.nn.Module:
    """The bundled encoder."""
    return rq.load_encoder("vggish_mini")


def panels(rows: int, columns: int) -> tuple[Figure, list[Any]]:
    """A figure of small maps that share their axes, without pyplot."""
    figure = Figure(figsize=(WIDE, TALL * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes[-1]:
        ax.set_xlabel("time (s)", fontsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("frequency (Hz)", fontsize=8)
    return figure, list(axes.flat)


def show(ax: Any, values: Tensor, title: str, **settings: Any) -> Any:
    """Draw a map ``(1, 1, 96, 64)`` with a title."""
    shown = plot_map(ax, values, **settings)
    ax.set_title(title, fontsize=8, parse_math=False)
    return shown


def explained(n_samples: int = SAMPLES, **settings: Any) -> Explanation:
    """Explain the example by silence."""
    found = rq.RELAX(encoder(), **settings).explain(example(), "silence", n_samples=n_samples)
    assert isinstance(found, Explanation)
    return found


def masks_picture(name: str) -> Figure:
    """Four masks, the mean of many, the map of the example."""
    shape = tuple(example().shape[1:])
    drawn = rq.masks.get(name).sample(MEAN_OF, shape, torch.Generator().manual_seed(0)).expand(-1, *shape)
    figure, axes = panels(2, 3)
    for number in range(4):
        shown = show(axes[number], drawn[number][None], f"mask {number + 1}", colours="gray", low=0, high=1)
    figure.colorbar(shown, ax=axes[2], label="1 keeps")
    show(axes[4], drawn.mean(0, keepdim=True), f"mean of {MEAN_OF} masks", colours="gray", low=0, high=1)
    centred = explained(masks=name).centred()
    limit = shared_limit([centred])
    figure.colorbar(show(axes[5], centred, f"importance, centred, N = {SAMPLES}", low=-limit, high=limit), ax=axes[5])
    return figure


def fills_picture(name: str) -> Figure:
    """The example, the fill alone, and one masked copy."""
    x = example()
    mask = rq.masks.get("random").sample(1, tuple(x.shape[1:]), torch.Generator().manual_seed(3))
    fill = rq.fills.get(name)
    drawn = fill.draw(1, x, torch.Generator().manual_seed(0))
    level = (fill.level(x) + (0 if drawn is None else drawn)).expand_as(x)
    figure, axes = panels(1, 3)
    scale = {"colours": "magma", "low": rq.fills.SILENCE, "high": float(x.max())}
    plot_spectrogram(axes[0], x).set_clim(scale["low"], scale["high"])
    axes[0].set_title("the example", fontsize=8)
    show(axes[1], level, f"{name}: all replaced", **scale)
    shown = show(axes[2], level + mask * (x - level), "one masked copy", **scale)
    figure.colorbar(shown, ax=axes[2], label="ln(mel magnitude + 0.01)").ax.tick_params(labelsize=7)
    return figure


def estimators_picture(name: str) -> Figure:
    """Importance and standard error at N and at four times N."""
    found = {n: explained(n, masks="random", estimator=name) for n in (SAMPLES // 2, SAMPLES * 2)}
    figure, axes = panels(2, 2)
    error = shared_limit([e.standard_error for e in found.values()])
    for row, (n, e) in enumerate(found.items()):
        limit = shared_limit([e.centred()])
        left, right = axes[2 * row], axes[2 * row + 1]
        figure.colorbar(
            show(left, e.centred(), f"{name}: importance, centred, N = {n}", low=-limit, high=limit), ax=left
        )
        shown = show(right, e.standard_error, f"standard error, N = {n}", colours=ERROR_COLOURS, low=0, high=error)
        figure.colorbar(shown, ax=right)
    return figure


def metrics_picture(page: str) -> Figure:
    """Scores of oracle, chance and anti-oracle, one panel a metric of the page."""
    from reference.metric_trials import case, names, trio

    members = families()[page]
    columns = min(3, len(members))
    rows = -(-len(members) // columns)
    figure = Figure(figsize=(WIDE if columns > 1 else 4.5, 1.6 * rows + 0.2), dpi=100, layout="constrained")
    for ax, metric in zip(figure.subplots(rows, columns, squeeze=False).flat, members, strict=True):
        *groups, planted = trio(metric.name)
        scores = [[metric.score(case(method, planted)).value for method in group] for group in groups]
        for place, (values, colour) in enumerate(zip(scores, ("#1b7837", "0.4", "#762a83"), strict=True)):
            ax.plot(values, [2 - place] * len(values), "o", color=colour, alpha=0.6)
        ax.set_yticks([2, 1, 0], names(metric.name), fontsize=8)
        ax.set_ylim(-0.5, 2.5)
        ax.tick_params(axis="x", labelsize=7)
        ax.set_title(metric.heading, fontsize=8)
        ax.grid(axis="x", color="0.9")
    return figure


DRAWN: dict[str, Callable[[str], Figure]] = {
    "masks": masks_picture,
    "fills": fills_picture,
    "estimators": estimators_picture,
    "metrics": metrics_picture,
}


def pictures() -> Iterator[tuple[str, str]]:
    """Kind and name of every picture."""
    for kind, registry in REGISTRIES.items():
        yield from ((kind, name) for name in registry)
    yield from (("metrics", name) for name in families())


def fingerprint() -> str:
    """Digest the package's code and this module's; pictures are drawn again when it changes."""
    digest = hashlib.sha256()
    for file in sorted([*Path(rq.__file__).parent.rglob("*.py"), Path(__file__)]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def draw(generated: Path) -> None:
    """Draw what is missing or older than the code."""
    stamp, now = generated / "pictures.sha256", fingerprint()
    fresh = stamp.exists() and stamp.read_text() == now
    with np.errstate(all="ignore"):
        for kind, name in pictures():
            path = generated / kind / "pictures" / f"{name}.png"
            if fresh and path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            DRAWN[kind](name).savefig(path)
    stamp.write_text(now)
