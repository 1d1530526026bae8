"""What stands out in a recording's maps, in words for people and as facts for programs.

Bounds of each map (`relax_quantus.views.thresholds.Bounds`), errors and regions by label enter; sentences, and what
``--json`` and an .npz say of them, leave.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from relax_quantus.views.boxes import Region
from relax_quantus.views.thresholds import FRACTION, Bounds

ERRORS = ("standard_error", "centred_standard_error")


def in_words(bounds: Mapping[str, Bounds]) -> str:
    """Say in how many of the maps nothing stands out, and where nothing is heard; empty if there is nothing to say.

    Examples
    --------
    >>> nothing, something = Bounds(4.0, float("nan"), 0.7, 0, 2), Bounds(4.0, 0.1, 0.005, 0, 2)
    >>> in_words({"random": nothing, "time": nothing})
    'nothing stands out'
    >>> in_words({"random": nothing, "time": something})
    'nothing stands out (random)'
    """
    named: dict[str, list[str]] = {}
    for label, of in bounds.items():
        named.setdefault(of.in_words, []).append(label)
    said = {words: labels for words, labels in named.items() if words}
    return ". ".join(words + (f" ({', '.join(labels)})" if len(named) > 1 else "") for words, labels in said.items())


def chance_in_words(bounds: Mapping[str, Bounds]) -> str:
    """Say for a picture what chance draws, and with which probability it draws what was found, map by map.

    Examples
    --------
    >>> chance_in_words({"random": Bounds(4.02, 0.1, 0.005, 0, 1), "time": Bounds(2.9, 0.1, 0.005, 0, 1)})
    'beyond chance: |z| above 4.02, 2.90 (p 0.005)'
    """
    z = ", ".join(f"{of.z:.2f}" for of in bounds.values())
    p = ", ".join(dict.fromkeys(f"{of.p_value:.2g}" for of in bounds.values()))
    if len(set(p.split(", "))) > 1:
        p = ", ".join(f"{of.p_value:.2g}" for of in bounds.values())
    return f"beyond chance: |z| above {z} (p {p})"


def line_in_words(bounds: Mapping[str, Bounds], line: str = "Black line") -> str:
    """Say what a picture's line runs around, or that there is none."""
    if all(of.is_empty for of in bounds.values()):
        said = in_words(bounds)
        return f"{said[0].upper()}{said[1:]}."
    return f"{line}: beyond chance and above {FRACTION:.0%} of the largest effect."


def errors_in_words(errors: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Say for a picture how large the errors of the importance and of the centred map are, map by map."""
    importance, centred = (", ".join(f"{of[name]['mean']:.2g}" for of in errors.values()) for name in ERRORS)
    return f"mean standard error: of the importance {importance}; centred {centred}"


def measure_errors(parts: Iterable[npt.NDArray[Any]]) -> dict[str, float]:
    """Return the mean and the largest of the known errors, and the share of bins whose error is unknown."""
    count, total, largest, unknown = 0, 0.0, float("nan"), 0
    for part in parts:
        known = part[np.isfinite(part)].astype(np.float64)
        if known.size:
            largest = float(np.nanmax([largest, known.max()]))
        count, total, unknown = count + known.size, total + float(known.sum()), unknown + part.size - known.size
    mean = total / count if count else float("nan")
    return {"mean": mean, "largest": largest, "unknown": unknown / max(1, count + unknown)}


def facts(
    bounds: Mapping[str, Bounds],
    errors: Mapping[str, Mapping[str, Mapping[str, float]]],
    hears_nothing: Mapping[str, Sequence[bool]],
    regions: Mapping[str, Sequence[Region]] | None = None,
) -> dict[str, Any]:
    """What programs are told of each map by its label; regions where they were looked for. What is unknown is None."""
    found = {
        label: {
            **{name: dict(values) for name, values in errors[label].items()},
            "z_threshold": of.z,
            "effect_threshold": of.effect,
            "p_value": of.p_value,
            "hears_nothing": list(map(bool, hears_nothing[label])),
            "verdict": of.in_words,
            **({} if regions is None else {"regions": [asdict(region) for region in regions[label]]}),
        }
        for label, of in bounds.items()
    }
    plain: dict[str, Any] = json.loads(json.dumps(found), parse_constant=lambda _: None)
    return plain
