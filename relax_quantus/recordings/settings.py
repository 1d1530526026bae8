"""What recordings are explained with, as plain values that are documented and checked once.

First step of the flow of this room: `relax_quantus.explain_recording` and the command line fill in
an `ExplainSettings`; a `relax_quantus.recordings.session.Session` loads what it names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from relax_quantus.audio.reading import checked_resampler
from relax_quantus.base import checks
from relax_quantus.errors import ArgumentTypeError
from relax_quantus.relax.fills import FILLS
from relax_quantus.relax.masks import STRATEGIES, MaskStrategy

CENTRED = "centred_cosine"
"""The similarity that needs a corpus."""
Source = str | os.PathLike[str]


@dataclass(frozen=True)
class ExplainSettings:
    """Say how recordings are explained; whatever is wrong with the values alone is refused at once.

    Parameters
    ----------
    encoder
        Name of an encoder with its settings, ``"name:key=value"``; one of your own as
        ``"module:attribute"`` or ``"file.py:name"``; or a torch module.
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
