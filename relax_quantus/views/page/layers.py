"""What a page can switch between.

The explanations of one recording under several strategies and fills.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from relax_quantus.base import checks
from relax_quantus.errors import ShapeError
from relax_quantus.views.page.packing import finite, minus, packed
from relax_quantus.views.thresholds import FRACTION, StandingOut, standing_out, sure_at

if TYPE_CHECKING:
    from relax_quantus.relax.explanation import Explanation

MAPS = {
    "importance": "importance",
    "centred": "centred importance",
    "u_relax": "U-RELAX",
    "uncertainty": "variability U",
    "standard_error": "standard error of the importance",
    "centred_standard_error": "standard error of the centred",
    "cell_effects": "effect of a cell",
}


@dataclass(frozen=True)
class Layer:
    """The explanation of all of a page's examples under one masking strategy and one fill.

    Attributes
    ----------
    found
        What stands out in it, where that does not follow from the explanation itself, as of an
        overview.
    """

    strategy: str
    fill: str
    explanation: Explanation
    found: StandingOut | None = None

    @cached_property
    def standing(self) -> StandingOut:
        """What stands out."""
        return standing_out(self.explanation) if self.found is None else self.found


def checked(layers: Sequence[Layer], shape: tuple[int, ...]) -> tuple[list[str], list[str]]:
    """Names of the strategies and fills, in order.

    Every combination must be there once and fit examples of `shape`.
    """
    if not layers:
        checks.refuse("layers", "at least one explanation", "none", "explain with one strategy or more")
    strategies, fills = (
        list(dict.fromkeys(names)) for names in zip(*((e.strategy, e.fill) for e in layers), strict=True)
    )
    if len({(e.strategy, e.fill) for e in layers}) != len(layers) or len(strategies) * len(fills) != len(layers):
        got = ", ".join(f"{e.strategy} with {e.fill}" for e in layers)
        checks.refuse("layers", "every strategy with every fill, once", got, "explain the others, too")
    for layer in layers:
        if tuple(layer.explanation.importance.shape) != shape:
            found = layer.explanation.importance
            checks.refuse("layers", f"explanations of shape {shape}", found, "explain all examples", ShapeError)
    return strategies, fills


def described(layer: Layer) -> dict[str, Any]:
    """What the page's program needs of one layer.

    The map U-RELAX it makes itself from the median.
    """
    e = layer.explanation
    names = ["importance", "uncertainty", "standard_error", "centred_standard_error"]
    names += [] if e.cell_effects is None else ["cell_effects"]
    maps = {name: packed(getattr(e, name).expand_as(e.importance)) for name in names}
    maps |= {"centred": packed(e.centred()), "z": packed(layer.standing.z)}
    bounds = layer.standing.bounds
    median = e.uncertainty.flatten(1).median(dim=1).values.double()
    return {
        "strategy": layer.strategy,
        "fill": layer.fill,
        "maps": maps,
        "median_uncertainty": [None if v != v else v for v in median.tolist()],
        "least_z": finite(bounds.z),
        "largest": finite(bounds.effect / FRACTION),
        "sure": sure_at(e.n_samples),
        "verdict": bounds.in_words,
        "note": note(layer),
    }


def note(layer: Layer) -> str:
    """What a reader needs beside the map.

    How many masks, and what its values are to be read against.
    """
    e, bounds = layer.explanation, layer.standing.bounds
    chance = ""
    if bounds.z == bounds.z:
        chance = (
            f"; chance draws |z| up to {bounds.z:.2f} (z: centred importance over its error), p {bounds.p_value:.3g}"
        )
    used = e.n_samples[e.n_samples > 0]
    masks = "no" if not len(used) else " to ".join(dict.fromkeys(str(int(v)) for v in (used.min(), used.max())))
    return (
        f"{layer.strategy.replace('_', ' + ')} masks, fill {layer.fill}: {masks} masks, estimator {e.estimator}; mean similarity "
        f"{minus(float(e.mean_similarity.nanmean()), '.3f')}, of the fill alone {minus(float(e.fully_masked_similarity.nanmean()), '.3f')}; "
        f"rank correlation of U and importance {minus(float(e.spearman().nanmean()), '.2f')}{chance}."
    )
