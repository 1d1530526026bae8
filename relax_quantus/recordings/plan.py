"""What is asked for, and which examples of a recording that means.

First step of the flow of this room: `relax_quantus.explain_recording` and the command line fill in
an `ExplainSettings`, plain values that are documented and checked once; a
`relax_quantus.recordings.session.Session` loads what it names, and each recording gets a `Plan`.

A short recording is a plan of one block, whose examples are read at once; a long one is a plan of
many, which are read, explained and stored one after another
(`relax_quantus.recordings.explaining`).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from relax_quantus.audio.reading import Recording, checked_resampler, waveform_blocks
from relax_quantus.base import checks
from relax_quantus.base.checks import shown
from relax_quantus.errors import ArgumentTypeError
from relax_quantus.frontend.examples import Axis
from relax_quantus.frontend.framing import Framing, hop_frames
from relax_quantus.frontend.front_end import Reading
from relax_quantus.recordings.stitching import phases
from relax_quantus.relax.fills import FILLS
from relax_quantus.relax.masks import STRATEGIES, MaskStrategy

if TYPE_CHECKING:
    from relax_quantus.recordings.session import Session

CENTRED = "centred_cosine"
"""The similarity that needs a corpus."""
Source = str | os.PathLike[str]
TOGETHER = 8
"""Examples that are explained by one call of RELAX."""
IN_ONE_GO = 60
"""Examples that are read, and drawn one by one, in one go."""
BLOCK_EXAMPLES = 48
"""Least number of examples of a block: what is lost at most if a run is killed."""
LEAST_LEFT_S = 0.1
"""Seconds at a recording's end from which on it is said that they are left out."""


@dataclass(frozen=True)
class ExplainSettings:
    """Say how recordings are explained; whatever is wrong with the values alone is refused at once.

    Parameters
    ----------
    encoder
        Name of an encoder with its settings, ``"name:key=value"``; a network's file with its,
        ``"model.onnx:rate=16000"``; one of your own as ``"module:attribute"`` or
        ``"file.py:name"``; or a torch module.
    masks
        One or several masking strategies, by name or as objects; None for all that suit the front
        end.
    baselines
        What replaces masked parts: one or several names of fills. Each is explained with every
        strategy.
    n_samples
        Masks for each strategy and fill, an example; with a tolerance, at most.
    tolerance
        Stop each example when its largest standard error is under this share of its map's spread;
        None for never.
    estimator
        ``"surrogate"``, ``"weighted"`` or ``"paper"``.
    seed
        Of everything random.
    max_examples
        Explain at most the first so many examples of a recording; 0 explains all, however long it
        is.
    hop_s
        Seconds from one example to the next; shorter than an example, they overlap and are averaged
        into one map. None for the example's own length.
    reference, away
        A recording, or a folder that stands for its centroid, that masked copies are compared with
        instead of the recording itself, and one that is subtracted.
    similarity
        Name of how embeddings are compared.
    corpus
        Folder whose mean embedding ``"centred_cosine"`` removes; only for that.
    domain
        Where soft masks blend recording and fill: ``"log"`` or ``"amplitude"``.
    precision
        Of the encoder's numbers: ``"float32"``, ``"bfloat16"`` or ``"auto"``.
    resampler
        ``"soxr"`` or ``"torchaudio"``.
    head
        File of a classifier, as `relax_quantus.EmbeddingClassifier.save` writes it; adds classes
        and probabilities.
    front_end
        Name of what the encoder is shown, with its settings; or an object, such as
        `relax_quantus.LogMel`. None for what suits the encoder.
    weights, sha256
        File of the encoder's weights, and the digest that the file must have.

    Raises
    ------
    ArgumentError, ArgumentTypeError, UnknownNameError
        That name the argument.

    Examples
    --------
    >>> ExplainSettings(masks="time", n_samples=100).fills
    ('silence',)
    """

    encoder: str | nn.Module = "vggish_mini"
    masks: str | MaskStrategy | Sequence[str | MaskStrategy] | None = "time_frequency"
    baselines: str | Sequence[str] = "silence"
    n_samples: int = 500
    tolerance: float | None = None
    estimator: str = "surrogate"
    seed: int = 0
    max_examples: int = 60
    hop_s: float | None = None
    reference: Source | None = None
    away: Source | None = None
    similarity: str = "cosine"
    corpus: Source | None = None
    domain: str = "log"
    precision: str = "float32"
    resampler: str = "soxr"
    head: Source | None = None
    front_end: Any = None
    weights: Source | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        checks.integer("n_samples", self.n_samples)
        checks.integer("max_examples", self.max_examples, low=0)
        if self.hop_s is not None:
            checks.positive("hop_s", self.hop_s)
        if self.tolerance is not None:
            checks.positive("tolerance", self.tolerance)
        checks.seed(self.seed)
        checked_resampler(self.resampler)
        if not isinstance(self.baselines, str | Sequence) or not all(isinstance(name, str) for name in self.baselines):
            rule = "the name of a fill, or several"
            checks.refuse("baselines", rule, self.baselines, "see relax_quantus.fills", ArgumentTypeError)
        for name in self.fills:
            FILLS.get(name)
        for strategy in self.named_masks:
            if isinstance(strategy, str):
                STRATEGIES.get(strategy)
        if self.similarity != CENTRED and self.corpus is not None:
            checks.refuse("corpus", f"none without similarity {CENTRED!r}", str(self.corpus), "leave it out")
        if self.similarity == CENTRED and self.corpus is None:
            checks.refuse("corpus", f"a folder of recordings with similarity {CENTRED!r}", "none", "name one")

    @property
    def fills(self) -> tuple[str, ...]:
        """The names of the fills, each once."""
        given = (self.baselines,) if isinstance(self.baselines, str) else tuple(self.baselines)
        return tuple(dict.fromkeys(given)) or ("silence",)

    @property
    def named_masks(self) -> tuple[str | MaskStrategy, ...]:
        """The masking strategies that were asked for; empty for all that suit the front end."""
        if self.masks is None:
            return ()
        if isinstance(self.masks, Sequence) and not isinstance(self.masks, str):
            return tuple(self.masks)
        return (self.masks,)

    def path(self, name: str) -> Path | None:
        """Return one of the files and folders as a path; None where there is none."""
        given = getattr(self, name)
        return None if given is None else Path(given)


@dataclass(frozen=True, eq=False)
class Plan:
    """Say how one recording is explained.

    Attributes
    ----------
    axis
        What its frames and bands stand for.
    per_example, hop
        Frames (of waveforms: samples) of an example, and from one example to the next.
    count, in_all
        Examples to explain, and that the recording holds.
    block
        Examples a block; the last may have fewer.
    seconds, padded_s
        Length of the recording, and of the silence that follows it to make one example.
    padding
        The same silence in samples, where the recording is read in blocks.
    framing
        How frames lie in the samples, where it is.
    reading
        All examples, where they are read in one go.
    """

    path: Path
    axis: Axis
    per_example: int
    hop: int
    count: int
    in_all: int
    block: int
    seconds: float
    padded_s: float = 0.0
    padding: int = 0
    framing: Framing | None = None
    reading: Reading | None = None

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.count // self.block)

    @property
    def is_stitched(self) -> bool:
        """Whether results are one map over time, not a map an example."""
        return self.reading is None

    @property
    def frames(self) -> int:
        """Number of frames of the whole map."""
        return (self.count - 1) * self.hop + self.per_example

    @property
    def example_s(self) -> float:
        """Length of an example in seconds; NaN where frames are only counted."""
        return self.per_example * self.axis.hop_s if self.axis.in_seconds else math.nan

    @property
    def left_out_s(self) -> float:
        """Seconds at the end that no example holds: 0 if less than a frame.

        NaN where frames are only counted.
        """
        if not self.axis.in_seconds:
            return math.nan
        left = self.seconds - self.axis.end_s(self.frames)
        return left if left > max(self.axis.hop_s, self.axis.window_s) else 0.0

    def examples_of(self, number: int) -> range:
        """Return the examples of a block."""
        return range(number * self.block, min((number + 1) * self.block, self.count))

    def phases_of(self, number: int) -> Tensor:
        """Return which masks each example of a block draws: overlapping ones have their own."""
        return torch.tensor(self.examples_of(number)) % phases(self.per_example, self.hop)

    def warn(self) -> None:
        """Warn of a recording that holds more or less than what is explained."""
        name = shown(self.path)
        if self.padded_s:
            whole = self.seconds + self.padded_s
            said = f"{self.seconds:.2f} s is less than one example; padded with silence to {whole:.3f} s"
            warnings.warn(f"{name}: {said}", stacklevel=3)
        if self.count < self.in_all:
            used = f", {self.frames * self.axis.hop_s:.1f} of {self.seconds:.1f} s" if self.axis.in_seconds else ""
            said = f"explained are the first {self.count} of {self.in_all} examples{used}"
            warnings.warn(f"{name}: {said}; max_examples=0 explains all of it", stacklevel=3)
        elif self.left_out_s >= LEAST_LEFT_S:
            said = f"the last {self.left_out_s:.2f} s make no whole example and are left out"
            warnings.warn(f"{name}: {said}", stacklevel=3)


def plan_for(path: Path, session: Session) -> Plan:
    """Plan how a recording is explained.

    In one go are recordings without a hop of which at most 60 examples are explained, and those of
    front ends that cannot work in blocks.

    Raises
    ------
    RelaxQuantusError
        If the recording cannot be used, or its front end cannot work in blocks and has to.
    """
    settings, front_end = session.settings, session.front_end
    limit = settings.max_examples or None
    if settings.hop_s is None and limit is not None and limit <= IN_ONE_GO:
        return _in_one_go(path, session)
    framing = front_end.framing
    why = framing if isinstance(framing, str) else _why_not(path, session)
    if why is not None or isinstance(framing, str):
        _refuse_blocks(path, session, why or "")
        return _in_one_go(path, session)
    hop = hop_frames(settings.hop_s, front_end.axis.hop_s, framing.per_example)
    samples = sum(block.size for block in waveform_blocks(path, front_end.rate_hz))
    padding = max(0, framing.example_samples - samples)
    in_all = 1 + (framing.count(samples + padding) - framing.per_example) // hop
    count = in_all if limit is None else min(in_all, limit)
    if settings.hop_s is None and count <= IN_ONE_GO:
        return _in_one_go(path, session)
    together = TOGETHER * phases(framing.per_example, hop)
    return Plan(
        path,
        front_end.axis,
        framing.per_example,
        hop,
        count,
        in_all,
        block=together * -(-BLOCK_EXAMPLES // together),
        seconds=samples / front_end.rate_hz,
        padded_s=padding / front_end.rate_hz,
        padding=padding,
        framing=framing,
    )


def _in_one_go(path: Path, session: Session) -> Plan:
    settings, front_end = session.settings, session.front_end
    reading = front_end.read(path, settings.max_examples or None, settings.resampler)
    x = reading.examples
    size = x.shape[1] if x.ndim == 2 else x.shape[2]
    count, seconds, padded_s = len(x), reading.seconds, reading.padded_s
    return Plan(path, front_end.axis, size, size, count, reading.in_all, count, seconds, padded_s, reading=reading)


def _why_not(path: Path, session: Session) -> str | None:
    if session.settings.resampler == "soxr":
        return None
    with Recording(path) as recording:
        own = recording.rate_hz
    if own == session.front_end.rate_hz:
        return None
    return f"the resampler {session.settings.resampler} needs a whole recording"


def _refuse_blocks(path: Path, session: Session, why: str) -> None:
    """Refuse a front end that cannot work in blocks where it has to.

    Elsewhere it may go on in one go.
    """
    settings, front_end = session.settings, session.front_end
    if settings.hop_s is not None:
        rule = "a front end whose recordings can be read in blocks"
        checks.refuse("hop_s", rule, f"{front_end.text!r} ({why})", "leave it out")
    if settings.max_examples == 0:
        in_all = front_end.read(path, 1, settings.resampler).in_all
        if in_all > IN_ONE_GO:
            rule = f"a number, as {shown(path)} cannot be read in blocks ({why})"
            checks.refuse("max_examples", rule, f"0 for all {in_all}", f"name how many; {in_all} at once need memory")
