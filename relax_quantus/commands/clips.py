"""What `explain` works on: what was loaded, a recording as examples, and what was found about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from torch import Tensor, nn

from relax_quantus.axes import Axis
from relax_quantus.commands import console
from relax_quantus.commands.anchors import Anchor
from relax_quantus.commands.companions import Beside
from relax_quantus.commands.front_ends import FrontEnd
from relax_quantus.explanation import Explanation
from relax_quantus.heads import EmbeddingClassifier
from relax_quantus.relax import RELAX
from relax_quantus.report import Entry


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
    """

    encoder: nn.Module
    classifier: EmbeddingClassifier | None
    explainers: dict[str, RELAX]
    front_end: FrontEnd
    towards: Anchor | None = None
    away: Anchor | None = None
    beside: tuple[Beside, ...] = ()

    @property
    def question(self) -> str:
        """What the maps are towards, in words."""
        towards = "the clip's own embedding" if self.towards is None else self.towards.label
        return towards if self.away is None else f"{towards}, away from {self.away.label}"


@dataclass(frozen=True)
class Clip:
    """The examples of one recording, ``(n, 1, T, F)`` or ``(n, samples)``, how many its whole length holds, its length, and its picture's axes."""

    path: Path
    examples: Tensor
    in_all: int
    seconds: float
    axis: Axis

    @property
    def frames(self) -> int:
        """Frames or samples of an example."""
        return self.examples.shape[1] if self.examples.ndim == 2 else self.examples.shape[2]

    @property
    def example_s(self) -> float:
        """Length of an example in seconds."""
        return self.frames * self.axis.hop_s


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


@dataclass(frozen=True)
class Done:
    """One recording's results: its picture, what to say beside it, and its page's line in the index if there is a page."""

    picture: Path
    remark: str = ""
    entry: Entry | None = None


def done(out: Path, stem: str, remark: str, entry: Entry | None) -> Done:
    """A recording's results in the folder `out` under the name `stem`; the index line links to the page of that name."""
    line = None if entry is None else replace(entry, link=quote(f"{stem}.html"))
    return Done(out / f"{stem}.png", remark, line)


def read(path: Path, max_examples: int | None, front_end: FrontEnd, resampler: str = "soxr") -> Clip:
    """Read the first examples of a recording, with a warning if it holds more or less than whole ones.

    Raises
    ------
    RelaxQuantusError
        If it cannot be used.
    """
    reading = front_end.read(path, max_examples, resampler)
    clip = Clip(path, reading.examples, reading.in_all, reading.seconds, front_end.axis)
    if reading.padded_s:
        whole = reading.seconds + reading.padded_s
        console.warning(
            f"{console.shown(path)}: {reading.seconds:.2f} s is less than one example; padded with silence to {whole:.3f} s"
        )
    if max_examples is not None and reading.in_all > max_examples:
        used = max_examples * clip.example_s
        console.warning(
            f"{console.shown(path)}: explained are the first {max_examples} of {reading.in_all} examples, "
            f"{used:.1f} of {reading.seconds:.1f} s; --max-examples 0 explains all of it"
        )
    return clip
