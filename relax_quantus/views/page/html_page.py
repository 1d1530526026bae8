"""One recording's examples, explanations and sound -> the text of a self-contained page.

Several pages -> the text of their index.

The files beside this one are the page's template, style and program, written by hand; they are put
into the page, which needs nothing else. ``look.css`` is the part of the style that the index and
the benchmark's report have, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import neutral_torch
from relax_quantus.errors import ShapeError
from relax_quantus.frontend.examples import Axis
from relax_quantus.frontend.log_mel import LogMelAxis
from relax_quantus.views.page import companions as beside
from relax_quantus.views.page.companions import Companion
from relax_quantus.views.page.layers import MAPS, Layer, checked, described
from relax_quantus.views.page.packing import packed
from relax_quantus.views.page.sounds import MOST_CHARACTERS, Sounds, carried, sounds
from relax_quantus.views.thresholds import FRACTION

PROGRAM = ("drawing.js", "sound.js", "page.js")
"""Files of the page's program; one script, so that later ones use what earlier ones name."""


@dataclass(frozen=True)
class Entry:
    """A line of the index.

    Where the page is, relative to it and percent-encoded, and what it is about.
    """

    link: str
    title: str
    seconds: float
    lead: str


@neutral_torch()
def page(
    title: str,
    examples: Tensor | npt.NDArray[Any],
    layers: Sequence[Layer],
    *,
    axis: Axis | None = None,
    original: tuple[npt.NDArray[Any], int] | None = None,
    heard_from: tuple[Sequence[Layer], Axis] | None = None,
    lead: str = "",
    notes: Mapping[str, str] | None = None,
    fraction: float = FRACTION,
    companions: Sequence[Companion] = (),
    similarity: str = "cosine",
) -> str:
    """Make a page that shows and plays what matters in a recording.

    Parameters
    ----------
    title
        Such as the recording's name; plain text, whatever it holds.
    examples
        ``(n, 1, T, F)``, shown end to end.
    layers
        The explanations of all `examples`: every strategy with every fill.
    axis
        What the axes stand for; VGGish's front end from 0 s by default.
    original
        Waveform ``(samples,)`` and its sample rate in Hz, from 0 s; without it nothing can be
        heard. What follows the last example is cut off, and more than 22 050 Hz are resampled to
        that.
    heard_from
        The same layers frame by frame, ``(n, 1, T, F)``, and their axis, where `layers` are an
        overview of them; sounds are made from these.
    lead
        A sentence below the title.
    notes
        Name -> text of what else should be known: settings.
    fraction
        Of the largest effect that chance does not draw, from which on bins matter: what is heard
        and shown at first; `relax_quantus.views.page.sounds.LEVELS` are heard besides.
    companions
        What the explanations are towards, and away from, if not the examples' own embeddings; shown
        and played, too.
    similarity
        What their similarity is called.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    ShapeError, ArgumentError
        If something does not fit.
    """
    axis = axis or getattr(examples, "axis", None) or LogMelAxis()
    checks.fraction("fraction", fraction)
    x = torch.as_tensor(examples).detach().cpu()
    x = x.abs() if x.is_complex() else x
    if x.ndim != 4 or x.shape[1] != 1 or 0 in x.shape or x.shape[3] != axis.bands:
        checks.refuse("examples", f"shape (n, 1, T, {axis.bands})", examples, "pass a page's spectrograms", ShapeError)
    strategies, fills = checked(layers, tuple(x.shape))
    beside.checked(companions, len(x), axis)
    sounding, fine = heard_from or (layers, axis)
    possible = original is not None and fine.centres_hz is not None and fine.in_seconds
    heard = _heard(original, sounding, fine, fraction) if possible and original is not None else None
    maps = [(key, name) for key, name in MAPS.items() if key != "cell_effects" or _has_effects(layers)]
    text: str = _template("page.html.j2").render(
        title=title,
        lead=lead,
        css=_part("look.css") + _part("page.css"),
        js="\n".join(_part(name) for name in PROGRAM),
        strategies=strategies,
        fills=fills,
        maps=maps,
        **_listening(heard, fraction, possible=possible),
        **beside.described(title, companions, layers, axis, similarity),
        notes=list((notes or {}).items()),
        data={
            **_picture(x, axis),
            "map_names": dict(maps),
            "layers": [described(layer) for layer in layers],
            "fraction": fraction,
            "heard": _others(heard, fraction),
            "beside": beside.pictures(companions, axis),
        },
    )
    return text


def index_page(entries: Sequence[Entry]) -> str:
    """Make the page that leads to several others."""
    text: str = _template("index.html.j2").render(entries=entries, css=_part("look.css"))
    return text


def _has_effects(layers: Sequence[Layer]) -> bool:
    return all(layer.explanation.cell_effects is not None for layer in layers)


def _picture(x: Tensor, axis: Axis) -> dict[str, Any]:
    """The spectrogram and its axes."""
    frames = x.shape[0] * x.shape[2]
    centres = axis.centres_hz
    return {
        "examples": x.shape[0],
        "frames": frames,
        "frames_per_example": x.shape[2],
        "bands": x.shape[3],
        "start_s": axis.extent(frames)[0],
        "hop_s": axis.hop_s,
        "first_s": float(axis.times_s(1)[0]),
        "in_seconds": axis.in_seconds,
        "time_label": axis.time_label,
        "centres_hz": None if centres is None else [round(float(hz), 2) for hz in centres],
        "band_label": axis.label,
        "ticks": [[position, name] for position, name in zip(*axis.ticks(), strict=True)],
        "spectrogram": packed(x),
        "colours": json.loads(_part("colours.json")),
    }


def _heard(
    original: tuple[npt.NDArray[Any], int], layers: Sequence[Layer], axis: Axis, fraction: float
) -> Sounds | None:
    shape = layers[0].explanation.importance.shape
    end_s = axis.extent(shape[0] * shape[2])[1]
    return sounds(*carried(*original, end_s + axis.window_s), layers, axis, fraction)


def _listening(heard: Sounds | None, fraction: float, possible: bool) -> dict[str, Any]:
    """What the template needs to offer sounds."""
    first = heard.parts[0] if heard is not None else None
    return {
        "percent": round(100 * fraction),
        "heard": heard,
        "levels": [] if heard is None else [round(100 * level) for level in heard.levels],
        "first": None if heard is None or not first else first[heard.levels.index(fraction)],
        "tight": _tight(heard) if possible else "",
    }


def _others(heard: Sounds | None, fraction: float) -> dict[str, Any] | None:
    """Return the sounds for the page's program; None for those that its players start with."""
    if heard is None or not heard.levels:
        return None
    parts: list[list[dict[str, str] | None] | None] = [None if layer is None else list(layer) for layer in heard.parts]
    if parts[0] is not None:
        parts[0][heard.levels.index(fraction)] = None
    return {"levels": heard.levels, "parts": parts}


def _tight(heard: Sounds | None) -> str:
    """What the page has no room for, in words."""
    bound = f"sounds in a page are bounded to {MOST_CHARACTERS / 1e6:.0f} MB; --sounds writes them as files."
    if heard is None:
        return f"The recording is too long to be heard here: {bound}"
    if not heard.levels:
        return f"Only the original is heard here: {bound}"
    return f"Not all masks and fills are heard here: {bound}" if None in heard.parts else ""


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _template(name: str) -> Any:
    """A template, which escapes whatever is put into it but the page's own style and program."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_part(name))
