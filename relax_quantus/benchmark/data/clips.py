"""Define what data sets of a benchmark are made of: `Clip`, `LabelledExamples`, `Dataset`.

Between the makers of data (soundscapes, recordings, mixtures, annotations) and everything that
explains or scores them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Clip:
    """One example to explain.

    Attributes
    ----------
    name
        Unique in its dataset.
    x
        ``(1, T, F)`` log-mel.
    label
        Class index; -1 for a clip without a call.
    label_name, source_group
        Its class in words, and the recording that it comes from.
    stem
        ``(1, T, F)`` log-mel of the clean call, or None where it is not known.
    truth
        bool ``(T, F)``: where the stem dominates, or None.
    region
        bool ``(T, F)``: truth by construction, what a wrapped encoder sees, see `region`; None
        before a run has drawn it.
    rest
        ``(1, T, F)`` log-mel of the clip without the call: the clip counts only if the call moves
        the embedding from this one's towards the stem's. None where it is not known: then it
        counts.
    """

    name: str
    x: Tensor
    label: int
    label_name: str
    source_group: str
    stem: Tensor | None = None
    truth: npt.NDArray[np.bool_] | None = None
    region: npt.NDArray[np.bool_] | None = None
    rest: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LabelledExamples:
    """Examples ``x (n, 1, T, F)``, classes ``y (n,)``, and the source and clip of each example."""

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
        ``"synthetic"``, the folder's name, or a kind with what it was made from.
    class_names
        In label order.
    clips
        To explain.
    training, held_out
        The head is fitted on the first and judged on the second; neither contains a clip to
        explain, except that the held-out recordings do.
    needs_good_head
        Whether localisation counts only if the head gets 90 % of the held-out clips right.
    swapped
        Of a shortcut: held-out clips of the other classes with the shortcut planted, labelled as
        the shortcut's class; else None.
    notes
        What a reader of the results has to know.
    skipped
        ``"file: reason"`` for every recording that could not be used.
    """

    name: str
    class_names: tuple[str, ...]
    clips: tuple[Clip, ...]
    training: LabelledExamples
    held_out: LabelledExamples
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = field(default=())
    needs_good_head: bool = True
    swapped: LabelledExamples | None = None
