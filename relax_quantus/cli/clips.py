"""What `explain` works on: what was loaded, a recording as examples, and what was found about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch import Tensor, nn

from relax_quantus.base import checks
from relax_quantus.cli import console
from relax_quantus.cli.anchors import Anchor
from relax_quantus.cli.companions import Beside
from relax_quantus.frontend.axes import Axis
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.relax.attribution import RELAX
from relax_quantus.relax.explanation import Explanation
from relax_quantus.relax.fills import FILLS
from relax_quantus.views.page import Entry
from relax_quantus.views.thresholds import Bounds, StandingOut, standing_out

OF_WAVEFORMS = ("silence", "zero", "mean")
"""Fills that mean something on samples."""
LEAST_LEFT_S = 0.1
"""Seconds at a recording's end from which on it is said that they are left out."""


@dataclass(frozen=True)
class Models:
    """The loaded encoder, the classifier on it if there is one, the explainers by strategy, and what they compare with.

    Attributes
    ----------
    front_end
        Makes the encoder's examples.
    towards, away
        None for the example's own embedding, and for nothing.
    beside
        What pages show of these.
    encoder_sha256
        The encoder's fingerprint, taken before it ran: a network may keep what it has computed once.
    """

    encoder: nn.Module
    classifier: EmbeddingClassifier | None
    explainers: dict[str, RELAX]
    front_end: FrontEnd
    towards: Anchor | None = None
    away: Anchor | None = None
    beside: tuple[Beside, ...] = ()
    encoder_sha256: str = ""

    @property
    def question(self) -> str:
        """What the maps are towards, in words."""
        towards = "the clip's own embedding" if self.towards is None else self.towards.label
        return towards if self.away is None else f"{towards}, away from {self.away.label}"


@dataclass(frozen=True)
class Clip:
    """The examples of one recording, ``(n, 1, T, F)`` or ``(n, samples)``, how many its whole length holds, its length, and its picture's axes.

    `silence` is what a muted part of it becomes.
    """

    path: Path
    examples: Tensor
    in_all: int
    seconds: float
    axis: Axis
    silence: Tensor | float | str | None = None

    @property
    def frames(self) -> int:
        """Frames or samples of an example."""
        return self.examples.shape[1] if self.examples.ndim == 2 else self.examples.shape[2]

    @property
    def example_s(self) -> float:
        """Length of an example in seconds; NaN where frames are only counted."""
        return self.frames * self.axis.hop_s if self.axis.in_seconds else math.nan

    @property
    def left_out_s(self) -> float:
        """Seconds at the recording's end that no example holds; NaN where frames are only counted."""
        return left_out(self.seconds, len(self.examples) * self.frames, self.axis)


@dataclass(frozen=True)
class Findings:
    """What was computed for one clip: embeddings ``(n, D)``, explanations by (strategy, fill), and each class's probability ``(n, classes)``."""

    embedding: Tensor
    explanations: dict[tuple[str, str], Explanation]
    probabilities: Tensor | None

    @property
    def fills(self) -> list[str]:
        """The fills, in order."""
        return list(dict.fromkeys(fill for _, fill in self.explanations))

    def by_name(self, between: str = ".") -> dict[str, Explanation]:
        """The explanations by what to call them: the strategy, and the fill behind it if there are several."""
        several = len(self.fills) > 1
        return {f"{name}{between}{fill}" if several else name: e for (name, fill), e in self.explanations.items()}

    @cached_property
    def standing_out(self) -> dict[str, StandingOut]:
        """What stands out in each, by what to call it."""
        return {name: standing_out(e) for name, e in self.by_name().items()}

    @property
    def bounds(self) -> dict[str, Bounds]:
        """What bins had to pass to stand out, by what to call the map."""
        return {name: found.bounds for name, found in self.standing_out.items()}


@dataclass(frozen=True)
class Done:
    """One recording's results: its picture, what to say beside it, and its page's line in the index if there is a page.

    `maps` is what programs are told of each map (`relax_quantus.cli.verdicts.facts`), `verdict` what people are told.
    `left_out_s` are the seconds at its end that are not explained, NaN where nobody knows.
    """

    picture: Path
    remark: str = ""
    entry: Entry | None = None
    left_out_s: float = math.nan
    maps: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = ""


def done(
    out: Path,
    stem: str,
    remark: str,
    entry: Entry | None,
    left_out_s: float,
    maps: Mapping[str, Any],
    verdict: str,
) -> Done:
    """A recording's results in the folder `out` under the name `stem`; the index line links to the page of that name."""
    line = None if entry is None else replace(entry, link=quote(f"{stem}.html"))
    return Done(out / f"{stem}.png", remark, line, left_out_s, maps, verdict)


def read(path: Path, max_examples: int | None, front_end: FrontEnd, resampler: str = "soxr") -> Clip:
    """Read the first examples of a recording, with a warning if it holds more or less than whole ones.

    Raises
    ------
    RelaxQuantusError
        If it cannot be used.
    """
    reading = front_end.read(path, max_examples, resampler)
    clip = Clip(path, reading.examples, reading.in_all, reading.seconds, front_end.axis, reading.silence)
    if reading.padded_s:
        whole = reading.seconds + reading.padded_s
        console.warning(
            f"{console.shown(path)}: {reading.seconds:.2f} s is less than one example; padded with silence to {whole:.3f} s"
        )
    if max_examples is not None and reading.in_all > max_examples:
        used = max_examples * clip.example_s
        seconds = f", {used:.1f} of {reading.seconds:.1f} s" if math.isfinite(used) else ""
        console.warning(
            f"{console.shown(path)}: explained are the first {max_examples} of {reading.in_all} examples{seconds}; "
            "--max-examples 0 explains all of it"
        )
    elif clip.left_out_s >= LEAST_LEFT_S:
        console.warning(f"{console.shown(path)}: {left_out_words(clip.left_out_s)}")
    return clip


def left_out(seconds: float, frames: int, axis: Axis) -> float:
    """Seconds at the end of a recording that so many frames do not reach: 0 where less is left than a frame; NaN where frames are counted."""
    if not axis.in_seconds:
        return math.nan
    left = seconds - axis.end_s(frames)
    return left if left > max(axis.hop_s, axis.window_s) else 0.0


def left_out_words(left_s: float) -> str:
    """What is said of the end that is left out.

    Examples
    --------
    >>> left_out_words(0.525)
    'the last 0.53 s make no whole example and are left out'
    """
    return f"the last {left_s:.2f} s make no whole example and are left out"


def fill_for(front_end: FrontEnd, name: str, silence: Tensor | float | str | None = None) -> Any:
    """Return what a fill's name means to `RELAX` on a front end's examples; "silence" is that of a recording, if it is given.

    Raises
    ------
    UnknownNameError, ArgumentError
        If there is no such fill, or none on waveforms.
    """
    FILLS.get(name)
    if front_end.of_waveforms and name not in OF_WAVEFORMS:
        rule = f"{' or '.join(OF_WAVEFORMS)} for waveforms, which have no bands"
        checks.refuse("baselines", rule, repr(name), "pick one of these")
    if name != "silence":
        return name
    return front_end.silence if silence is None else silence
