"""What a benchmark runs on: `Clip`, `Dataset`, and the synthetic one.

Fourth step of the benchmark's flow: soundscapes (or recordings, see `recordings`) enter; log-mel clips with their class, source and, where it
is known, clean stem and truth leave, beside the examples that the logistic head is fitted on and those that it is judged on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.benchmark.calls import CLASS_NAMES
from relax_quantus.benchmark.soundscapes import Soundscape, soundscapes
from relax_quantus.frontend import LogMel

CALL_FREE_EVERY = 6
BACKGROUND_CLIPS = 24
HELD_OUT_CLIPS = 150
TRAINING, HELD_OUT, BACKGROUND = (1_000_003 * k for k in (1, 2, 3))


@dataclass(frozen=True, eq=False)
class Clip:
    """One example to explain.

    Attributes
    ----------
    name
        Unique in its dataset.
    x
        ``(1, 96, 64)`` log-mel.
    label
        Class index; -1 for a clip without a call.
    label_name, source_group
        Its class in words, and the recording that it comes from.
    stem
        ``(1, 96, 64)`` log-mel of the clean call, or None where it is not known.
    truth
        bool ``(96, 64)``: where the stem dominates, or None.
    """

    name: str
    x: Tensor
    label: int
    label_name: str
    source_group: str
    stem: Tensor | None = None
    truth: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of a set of clips: ``x (n, 1, 96, 64)``, ``y (n,)`` class indices, the source and the clip of each."""

    x: Tensor
    y: npt.NDArray[np.int64]
    groups: tuple[str, ...]
    clips: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Clips to explain and what a logistic head needs.

    Attributes
    ----------
    name
        ``"synthetic"`` or the folder's name.
    class_names
        In label order.
    clips
        To explain.
    training, held_out
        The head is fitted on the first and judged on the second; neither contains a clip to explain, except that the held-out recordings do.
    background
        ``(n, 1, 96, 64)`` clips without any call, or None.
    notes
        What a reader of the results has to know.
    skipped
        ``"file: reason"`` for every recording that could not be used.
    """

    name: str
    class_names: tuple[str, ...]
    clips: tuple[Clip, ...]
    training: Examples
    held_out: Examples
    background: Tensor | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = field(default=())


def log_mel(scapes: list[Soundscape], part: str = "wave") -> Tensor:
    """Log-mel examples ``(n, 1, 96, 64)`` of the soundscapes' `part`: "wave" or "stem"."""
    with torch.inference_mode(False), torch.no_grad():
        return torch.as_tensor(LogMel()(np.stack([getattr(scape, part) for scape in scapes])))


def call_examples(count: int, seed: int) -> Examples:
    """Examples of `count` soundscapes with calls."""
    scapes = soundscapes(count, seed)
    labels = np.array([scape.label for scape in scapes], dtype=np.int64)
    names = tuple(scape.source_group for scape in scapes)
    return Examples(log_mel(scapes), labels, names, names)


def call_free(count: int, seed: int) -> Tensor:
    """Log-mel ``(count, 1, 96, 64)`` of soundscapes without calls."""
    return log_mel(soundscapes(count, seed, call_free_every=1))


def synthetic(
    max_clips: int = 12, seed: int = 0, head_clips: int = 480, call_free_every: int = CALL_FREE_EVERY
) -> Dataset:
    """Embedded synthetic soundscapes; training, held-out and background clips come from other seeds.

    Parameters
    ----------
    max_clips
        Clips to explain, of which every `call_free_every`-th has no call (0: all have one).
    seed
        Of everything.
    head_clips
        Training soundscapes for the head.
    """
    scapes = soundscapes(max_clips, seed, call_free_every)
    stems = log_mel(scapes, "stem")
    clips = tuple(
        Clip(
            name=scape.source_group,
            x=x,
            label=scape.label,
            label_name=scape.label_name,
            source_group=scape.source_group,
            stem=stem if scape.label >= 0 else None,
            truth=scape.truth if scape.label >= 0 else None,
        )
        for scape, x, stem in zip(scapes, log_mel(scapes), stems, strict=True)
    )
    return Dataset(
        name="synthetic",
        class_names=CLASS_NAMES,
        clips=clips,
        training=call_examples(head_clips, seed + TRAINING),
        held_out=call_examples(HELD_OUT_CLIPS, seed + HELD_OUT),
        background=call_free(BACKGROUND_CLIPS, seed + BACKGROUND),
    )
