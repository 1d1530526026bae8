"""What an explanation is towards or away from, beside the explained recording.

Its name, how similar it is, what it looks and sounds like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.errors import ShapeError
from relax_quantus.frontend.examples import Axis
from relax_quantus.views.page.layers import Layer
from relax_quantus.views.page.packing import minus, packed, sound_uri
from relax_quantus.views.page.sounds import carried

ROLES = {"towards": "Towards", "away": "Away from"}


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording to show and play.

    Parameters
    ----------
    name
        Plain text, whatever it holds.
    examples
        ``(n, 1, T, F)`` of the front end that made the explained ones, shown end to end.
    wave, rate_hz
        Waveform ``(samples,)`` and its sample rate in Hz; what follows the last example is cut off.
    note
        What else to say of it.
    """

    name: str
    examples: Tensor
    wave: npt.NDArray[Any]
    rate_hz: int
    note: str = ""


@dataclass(frozen=True, eq=False)
class Companion:
    """Hold what explanations are towards or away from: a recording, or the centroid of several.

    Parameters
    ----------
    role
        ``"towards"`` or ``"away"``.
    name
        Plain text, whatever it holds.
    similarity
        ``(B,)``: of each explained example's embedding to this one's; NaN where there is none.
    recordings
        Those to show and play.
    about
        What else to say of it, such as which other recordings there are.
    """

    role: Literal["towards", "away"]
    name: str
    similarity: Tensor
    recordings: Sequence[Recording] = ()
    about: str = ""


def checked(companions: Sequence[Companion], examples: int, axis: Axis) -> None:
    """Refuse companions that do not fit the explained examples."""
    roles = [c.role for c in companions]
    if len(set(roles)) != len(roles) or not set(roles) <= set(ROLES):
        checks.refuse("companions", f"at most one of each of {', '.join(ROLES)}", ", ".join(roles), "leave one out")
    for companion in companions:
        if companion.similarity.shape != (examples,):
            rule = f"one similarity an example, shape ({examples},)"
            checks.refuse("companions", rule, companion.similarity, "compare every example", ShapeError)
        for recording in companion.recordings:
            x = recording.examples
            if x.ndim != 4 or x.shape[1] != 1 or 0 in x.shape or x.shape[3] != axis.bands:
                rule = f"recordings of shape (n, 1, T, {axis.bands})"
                checks.refuse("companions", rule, x, "use the explained recording's front end", ShapeError)


def described(
    title: str, companions: Sequence[Companion], layers: Sequence[Layer], axis: Axis, similarity: str
) -> dict[str, Any]:
    """What the page's template says of companions."""
    names = {c.role: c.name for c in companions}
    like, unlike = names.get("towards", "itself"), names.get("away")
    return {
        "companions": [_shown(c, axis) for c in companions],
        "table": {
            "name": similarity.replace("_", " "),
            "columns": _columns(companions),
            "rows": _rows(companions, layers),
        },
        "question": f"What in {title} makes it like {like}{f' and unlike {unlike}' if unlike else ''}, to this encoder?"
        if names
        else "",
        "aim": names.get("towards", "the recording's own"),
        "unlike": unlike or "",
    }


def _shown(companion: Companion, axis: Axis) -> dict[str, Any]:
    return {
        "heading": f"{ROLES[companion.role]} {companion.name}",
        "about": companion.about,
        "recordings": [
            {"name": r.name, "note": r.note, "source": _source(r, axis), "seconds": f"{_seconds(r, axis):.1f}"}
            for r in companion.recordings
        ],
    }


def pictures(companions: Sequence[Companion], axis: Axis) -> list[dict[str, Any]]:
    """What the page's program needs to draw every companion's recordings, in order."""
    return [
        {
            "frames": r.examples.shape[0] * r.examples.shape[2],
            "bands": axis.bands,
            "start_s": axis.extent(1)[0],
            "hop_s": axis.hop_s,
            "spectrogram": packed(r.examples),
        }
        for companion in companions
        for r in companion.recordings
    ]


def _rows(companions: Sequence[Companion], layers: Sequence[Layer]) -> list[tuple[str, list[str]]]:
    """Rows of the table that says how similar everything is: a name and, a text for each column."""
    values = [c.similarity for c in companions]
    if len(companions) == 2:
        values.append(values[0] - values[1])
    rows = [("this recording", [_spoken(v) for v in values])]
    if companions and companions[0].role == "towards":
        alone = {layer.fill: layer.explanation.fully_masked_similarity for layer in layers}
        blank = ["\N{EN DASH}"] * (len(values) - 1)
        rows += [(f"nothing but the fill, {fill.replace('_', ' ')}", [*blank, _spoken(v)]) for fill, v in alone.items()]
    return rows


def _columns(companions: Sequence[Companion]) -> list[str]:
    """Headings of that table."""
    found = [f"{ROLES[c.role].lower()} {c.name}" for c in companions]
    return [*found, "the first less the second"] if len(found) == 2 else found


def _spoken(similarity: Tensor) -> str:
    known = similarity[~similarity.isnan()]
    if not len(known):
        return "unknown"
    low, mean, high = (minus(float(v), ".2f") for v in (known.min(), known.mean(), known.max()))
    return mean if low == high else f"{mean} ({low} to {high} in its {len(known)} examples)"


def _seconds(recording: Recording, axis: Axis) -> float:
    return recording.examples.shape[0] * recording.examples.shape[2] * axis.hop_s


def _source(recording: Recording, axis: Axis) -> str:
    wave, rate_hz = carried(
        recording.wave, recording.rate_hz, axis.extent(1)[0] + _seconds(recording, axis) + axis.window_s
    )
    return sound_uri(wave.clip(-1, 1), rate_hz)
