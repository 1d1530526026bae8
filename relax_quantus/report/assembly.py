"""One recording's examples, explanations and sound -> the text of a self-contained page; several pages -> the text of their index.

The files beside this one are the page's template, style and program, written by hand; they are put into the page, which needs nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus import checks
from relax_quantus.audio import resample
from relax_quantus.axes import Axis
from relax_quantus.errors import ShapeError
from relax_quantus.report.layers import MAPS, RATE_HZ, Layer, checked, described, sounds
from relax_quantus.report.packing import packed
from relax_quantus.thresholds import SHARE


@dataclass(frozen=True)
class Entry:
    """A line of the index: where the page is, relative to it and percent-encoded, and what it is about."""

    link: str
    title: str
    seconds: float
    lead: str


def page(
    title: str,
    examples: Tensor | npt.NDArray[Any],
    layers: Sequence[Layer],
    *,
    axis: Axis | None = None,
    original: tuple[npt.NDArray[Any], int] | None = None,
    lead: str = "",
    notes: Mapping[str, str] | None = None,
    share: float = SHARE,
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
        Waveform ``(samples,)`` and its sample rate in Hz, from 0 s; without it nothing can be heard. What follows the last example is cut off,
        and more than 22 050 Hz are resampled to that.
    lead
        A sentence below the title.
    notes
        Name -> text of what else should be known: settings.
    share
        Of the bins, "what matters": what is heard, and where the slider stands at first.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    ShapeError, ArgumentError
        If something does not fit.
    """
    axis = axis or Axis()
    checks.fraction("share", share)
    x = torch.as_tensor(examples).detach().cpu()
    if x.ndim != 4 or x.shape[1] != 1 or 0 in x.shape or x.shape[3] != axis.bands:
        checks.refuse("examples", f"shape (n, 1, T, {axis.bands})", examples, "pass a page's spectrograms", ShapeError)
    strategies, fills = checked(layers, tuple(x.shape))
    heard = [] if original is None or axis.centres_hz is None else _heard(original, layers, axis, x, share)
    maps = [(key, name) for key, name in MAPS.items() if key != "cell_effects" or _has_effects(layers)]
    text: str = _template("page.html.j2").render(
        title=title,
        lead=lead,
        css=_part("page.css"),
        js=_part("page.js"),
        strategies=strategies,
        fills=fills,
        maps=maps,
        share_percent=round(100 * share),
        original=heard[0]["source"] if heard else "",
        players=heard[1:],
        sound_note=f"What matters: the {share:.0%} of the bins with the highest centred importance, filtered out of the original with soft edges; "
        "with all but what matters it adds up to the original. What the encoder cannot hear is in all but what matters.",
        notes=list((notes or {}).items()),
        data={**_picture(x, axis), "map_names": dict(maps), "layers": [described(layer) for layer in layers]},
    )
    return text


def index_page(entries: Sequence[Entry]) -> str:
    """Make the page that leads to several others."""
    text: str = _template("index.html.j2").render(entries=entries, css=_part("page.css"))
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
        "start_s": axis.start_s,
        "hop_s": axis.hop_s,
        "first_s": float(axis.times_s(1)[0]),
        "centres_hz": None if centres is None else [round(float(hz), 2) for hz in centres],
        "band_label": axis.label,
        "ticks": [[position, name] for position, name in zip(*axis.ticks(), strict=True)],
        "spectrogram": packed(x),
        "colours": json.loads(_part("colours.json")),
    }


def _heard(
    original: tuple[npt.NDArray[Any], int], layers: Sequence[Layer], axis: Axis, x: Tensor, share: float
) -> list[dict[str, Any]]:
    wave, rate_hz = np.asarray(original[0], np.float32), original[1]
    end_s = axis.start_s + x.shape[0] * x.shape[2] * axis.hop_s
    wave = wave[: max(1, round((end_s + axis.window_s) * rate_hz))]
    if rate_hz > RATE_HZ:
        wave, rate_hz = resample(wave, rate_hz, RATE_HZ), RATE_HZ
    return sounds(wave, rate_hz, layers, axis, share)


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _template(name: str) -> Any:
    """A template, which escapes whatever is put into it but the page's own style and program."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_part(name))
