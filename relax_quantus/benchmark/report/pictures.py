"""Figures -> data URIs for the page: smaller copies, as many as a page should carry.

Paths of PNG files enter, `Picture`s leave. The files themselves stay as they are.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

WIDEST = 1600
COLOURS = 192
MOST_BYTES = 8 << 20
"""Of all pictures in one page, before base64 adds a third."""
KINDS = {
    "critical-difference": (
        "Average ranks",
        "Average rank of each method over source groups; 1 is best. Methods that a bar joins were not told apart.",
    ),
    "evaluators": (
        "Every method on every evaluator",
        "Mean over source groups of the gain on each evaluator; outlined where the evaluator has the method's own fill or granularity.",
    ),
    "curves": (
        "Flipping curves",
        "What is left of the score while more and more of the sound is replaced, the least and the most influential parts first.",
    ),
    "runtime": ("Score and runtime", "Mean score with its 95 % interval against the seconds that one map takes."),
    "boxes": ("Single metrics", "The metrics of one category, one value a source group."),
    "categories": (
        "Categories",
        "Average rank of each method's mean over the metrics of each category; 1 is best. Categories measure different things.",
    ),
}
"""Beginning of a figure's name -> what it is called and shows."""


@dataclass(frozen=True)
class Picture:
    """A figure in the page; `uri` is empty if the page would grow too large."""

    name: str
    title: str
    text: str
    uri: str
    width: int
    height: int


def pictures(paths: Sequence[Path], most_bytes: int = MOST_BYTES) -> list[Picture]:
    """Copy figures into data URIs until `most_bytes` are reached."""
    made, left = [], most_bytes
    for path in paths:
        data, width, height = smaller(path)
        fits = len(data) <= left
        left -= len(data) if fits else 0
        kind = next((k for k in KINDS if path.stem.startswith(k)), "")
        title, text = KINDS.get(kind, (path.stem, ""))
        about = path.stem.removeprefix(kind).strip("-").replace("_", " ")
        uri = f"data:image/png;base64,{base64.b64encode(data).decode()}" if fits else ""
        made.append(Picture(path.name, f"{title}: {about}" if about and kind else title, text, uri, width, height))
    return made


def smaller(path: Path) -> tuple[bytes, int, int]:
    """Shrink a PNG to `WIDEST` px and `COLOURS` colours at most; return it with its size."""
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    target = BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(target, "PNG", optimize=True)
    return target.getvalue(), image.width, image.height
