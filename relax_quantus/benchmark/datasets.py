"""What a benchmark runs on: `Clip`, `Dataset`, the registry of data sets, and the synthetic one.

Fourth step of the benchmark's flow: a specification such as ``synthetic:snr_db=-6`` or ``planted:path=DIR`` enters; log-mel clips with their class,
source and, where it is known, clean stem and truth leave, beside the examples that the logistic head is fitted on and judged on.
"""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus import checks
from relax_quantus.benchmark.calls import CLASS_NAMES
from relax_quantus.benchmark.soundscapes import Soundscape, soundscapes
from relax_quantus.errors import ArgumentTypeError
from relax_quantus.frontend import LogMel
from relax_quantus.registry import Registry, nearest
from relax_quantus.specifications import parse

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
    region
        bool ``(96, 64)``: truth by construction, what a wrapped encoder sees, see `region`; None before a run has drawn it.
    """

    name: str
    x: Tensor
    label: int
    label_name: str
    source_group: str
    stem: Tensor | None = None
    truth: npt.NDArray[np.bool_] | None = None
    region: npt.NDArray[np.bool_] | None = None


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
        ``"synthetic"``, the folder's name, or a kind with what it was made from.
    class_names
        In label order.
    clips
        To explain.
    training, held_out
        The head is fitted on the first and judged on the second; neither contains a clip to explain, except that the held-out recordings do.
    background
        ``(n, 1, 96, 64)`` clips without the call: a clip counts only if its embedding is closer to its stem than theirs are. None: all count.
    needs_good_head
        Whether localisation counts only if the head gets 90 % of the held-out clips right.
    swapped
        Of a shortcut: held-out clips of the other classes with the shortcut planted, labelled as the shortcut's class; else None.
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
    needs_good_head: bool = True
    swapped: Examples | None = None


def log_mel(scapes: list[Soundscape], part: str = "wave") -> Tensor:
    """Log-mel examples ``(n, 1, 96, 64)`` of the soundscapes' `part`: "wave" or "stem"."""
    with torch.inference_mode(False), torch.no_grad():
        return torch.as_tensor(LogMel()(np.stack([getattr(scape, part) for scape in scapes])))


def call_examples(count: int, seed: int, snr_db: float | None = None) -> Examples:
    """Examples of `count` soundscapes with calls."""
    scapes = soundscapes(count, seed, snr_db=snr_db)
    labels = np.array([scape.label for scape in scapes], dtype=np.int64)
    names = tuple(scape.source_group for scape in scapes)
    return Examples(log_mel(scapes), labels, names, names)


def call_free(count: int, seed: int, snr_db: float | None = None) -> Tensor:
    """Log-mel ``(count, 1, 96, 64)`` of soundscapes without calls."""
    return log_mel(soundscapes(count, seed, call_free_every=1, snr_db=snr_db))


def synthetic(
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    call_free_every: int = CALL_FREE_EVERY,
    snr_db: float | None = None,
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
    snr_db
        Level of the call over the noise floor in dB, in all clips; None draws it from 8 to 22 for each. The clips are otherwise the same. Where it
        is given, localisation does not want a good head, but a response of the encoder to each call.
    """
    scapes = soundscapes(max_clips, seed, call_free_every, snr_db)
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
        name="synthetic" if snr_db is None else f"synthetic:snr_db={snr_db:g}",
        class_names=CLASS_NAMES,
        clips=clips,
        training=call_examples(head_clips, seed + TRAINING, snr_db),
        held_out=call_examples(HELD_OUT_CLIPS, seed + HELD_OUT, snr_db),
        background=call_free(BACKGROUND_CLIPS, seed + BACKGROUND, snr_db),
        needs_good_head=snr_db is None,
    )


DATASETS: Registry[Dataset] = Registry("data set", "data", "relax_quantus.datasets")
DATASETS.register("synthetic", synthetic, "soundscapes with known calls; snr_db=DB for the noise floor")


Folder = str | os.PathLike[str]


def _recordings(
    path: Folder, max_clips: int = 12, seed: int = 0, head_clips: int = 480, resampler: str = "soxr"
) -> Dataset:
    from relax_quantus.benchmark.recordings import folder

    return folder(path, max_clips, seed, head_clips, resampler)


def _planted(
    path: Folder,
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    snr_db: float = 0.0,
    octaves: float = 0.0,
    into: str = "recording",
) -> Dataset:
    from relax_quantus.benchmark.planted import planted

    return planted(path, max_clips, seed, head_clips, resampler, snr_db, octaves, into)


def _boxes(
    path: Folder,
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    classes: int = 8,
    label_column: str = "",
) -> Dataset:
    from relax_quantus.benchmark.boxes import boxes

    return boxes(path, max_clips, seed, head_clips, resampler, classes, label_column)


def _esc50(
    path: Folder,
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    fold: int = 1,
    esc10: bool = False,
) -> Dataset:
    from relax_quantus.benchmark.esc50 import esc50

    return esc50(path, max_clips, seed, head_clips, resampler, fold, esc10)


def _shortcut(
    path: Folder,
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    kind: str = "hum",
    label: str = "",
    level_db: float = -6.0,
    cutoff_hz: float = 1500.0,
) -> Dataset:
    from relax_quantus.benchmark.shortcut import shortcut

    return shortcut(path, max_clips, seed, head_clips, resampler, kind, label, level_db, cutoff_hz)


DATASETS.register(
    "recordings", _recordings, "path=DIR: one folder a class, or a clips.csv; no truth but by construction"
)
DATASETS.register("planted", _planted, "path=DIR: a real call in another class's recording; snr_db=, octaves=, into=")
DATASETS.register(
    "boxes", _boxes, "path=DIR: sound files with Raven tables or Audacity labels; classes=, label_column="
)
DATASETS.register("esc50", _esc50, "path=DIR: ESC-50's layout; fold=, esc10=")
DATASETS.register(
    "shortcut", _shortcut, "path=DIR: a hum or low-pass in one class; kind=, label=, level_db=, cutoff_hz="
)


def kind_of_folder(path: Folder) -> str:
    """Which data set a folder is laid out as: "esc50", "boxes" (tables beside sound files and no ``clips.csv``) or "recordings"."""
    from relax_quantus.benchmark import boxes, esc50, recordings

    root = Path(path).expanduser()
    if (root / esc50.TABLE).is_file():
        return "esc50"
    if not root.is_dir() or (root / recordings.TABLE).is_file():
        return "recordings"
    return "boxes" if boxes.has_tables(root) else "recordings"


def resolve(
    spec: str, *, max_clips: int = 12, seed: int = 0, head_clips: int = 480, resampler: str = "soxr"
) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    spec
        ``NAME`` or ``NAME:key=value,...``; or a folder, which is read as what it is laid out as.
    max_clips, seed, head_clips, resampler
        Of the run; a specification that names one of them has its way.

    Raises
    ------
    UnknownNameError, ArgumentTypeError, ArgumentError
        For an unknown name or setting, with the nearest.
    DataError
        If there is nothing to use.
    """
    run: dict[str, Any] = {"max_clips": max_clips, "seed": seed, "head_clips": head_clips, "resampler": resampler}
    name, settings = specified(spec)
    accepted = inspect.signature(DATASETS.factory(name)).parameters
    any_key = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    return DATASETS.get(name, **{key: value for key, value in run.items() if any_key or key in accepted} | settings)


def specified(spec: str) -> tuple[str, dict[str, Any]]:
    """Name and settings of a specification, without loading anything; an unknown name or setting is an error that lists the nearest."""
    if spec not in DATASETS and (Path(spec).expanduser().is_dir() or (Path(spec).is_absolute() and "=" not in spec)):
        return kind_of_folder(spec), {"path": spec}
    parsed = parse("data", spec)
    name, settings = parsed.name or spec, dict(parsed.settings)
    if "path" in settings:
        settings["path"] = parsed.texts["path"]
    if name not in DATASETS:
        DATASETS.get(name)
    accepted = inspect.signature(DATASETS.factory(name)).parameters
    for key in settings:
        if key not in accepted and not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            raise ArgumentTypeError(
                f"{key}: expected a setting of the data set {name!r}; {nearest(key, list(accepted))}."
            )
    if accepted.get("path") is not None and "path" not in settings:
        rule = f"a folder for the data set {name!r}"
        checks.refuse("path", rule, "none", f"write {name}:path=FOLDER")
    return name, settings
