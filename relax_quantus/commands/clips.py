"""What `explain` works on: what was asked for, what was loaded, a recording as examples, and what was found about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from relax_quantus.audio import load_waveform
from relax_quantus.commands import console
from relax_quantus.commands.anchors import Anchor
from relax_quantus.explanation import Explanation
from relax_quantus.frontend import LogMel, LogMelConfig
from relax_quantus.heads import EmbeddingClassifier
from relax_quantus.relax import RELAX


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; see `relax_quantus.cli.explain`."""

    clips: tuple[Path, ...]
    out: Path
    masks: tuple[str, ...] = ()
    encoder: str = "vggish_mini"
    head: Path | None = None
    baseline: str = "silence"
    n_samples: int = 500
    seed: int = 0
    max_examples: int = 60
    reference: Path | None = None
    away: Path | None = None
    similarity: str = "cosine"
    corpus: Path | None = None
    domain: str = "log"
    resampler: str = "soxr"


@dataclass(frozen=True)
class Models:
    """The loaded encoder, the classifier on it if there is one, the explainers by strategy, and what they compare with.

    Attributes
    ----------
    towards, away
        None for the example's own embedding, and for nothing.
    """

    encoder: nn.Module
    classifier: EmbeddingClassifier | None
    explainers: dict[str, RELAX]
    towards: Anchor | None = None
    away: Anchor | None = None

    @property
    def question(self) -> str:
        """What the maps are towards, in words."""
        towards = "the clip's own embedding" if self.towards is None else self.towards.label
        return towards if self.away is None else f"{towards}, away from {self.away.label}"


@dataclass(frozen=True)
class Clip:
    """The examples ``(n, 1, T, F)`` of one recording, how many its whole length holds, and its length in seconds."""

    path: Path
    examples: Tensor
    in_all: int
    seconds: float


@dataclass(frozen=True)
class Findings:
    """What was computed for one clip: embeddings ``(n, D)``, explanations by strategy, and each class's probability ``(n, classes)``."""

    embedding: Tensor
    explanations: dict[str, Explanation]
    probabilities: Tensor | None


def read(path: Path, max_examples: int, resampler: str = "soxr") -> Clip:
    """Read the first examples of a recording, with a warning if it holds more or less than whole ones.

    Raises
    ------
    AudioError
        If it cannot be used.
    """
    config = LogMelConfig()
    wave = load_waveform(path, config.sample_rate_hz, resampler)
    logmel, seconds = LogMel(config), wave.size / config.sample_rate_hz
    if wave.size < config.example_samples:
        console.warning(
            f"{console.shown(path)}: {seconds:.2f} s is less than one example; padded with silence to 0.975 s"
        )
        wave = np.pad(wave, (0, config.example_samples - wave.size))
    in_all = logmel.examples_in(wave.size)
    if in_all > max_examples:
        used = max_examples * config.frames * config.hop_s
        console.warning(
            f"{console.shown(path)}: explained are the first {max_examples} of {in_all} examples, {used:.1f} of {seconds:.1f} s; "
            "raise --max-examples for more"
        )
        wave = wave[: config.window_samples + (max_examples * config.frames - 1) * config.hop_samples]
    return Clip(path, logmel(wave), in_all, seconds)
