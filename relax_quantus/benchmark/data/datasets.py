"""Load what a benchmark runs on: the registry of data sets, and the synthetic one.

Fourth step of the benchmark's flow: a specification such as ``synthetic:snr_db=-6`` or
``planted:path=DIR`` enters; log-mel clips with their class, source and, where it is known, clean
stem and truth leave, beside the examples that the logistic head is fitted on and judged on.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.audio.reading import resample
from relax_quantus.base import checks
from relax_quantus.base.registry import Registry, nearest, parse
from relax_quantus.benchmark.boxes import boxes, has_tables
from relax_quantus.benchmark.data.clips import Clip, Dataset, LabelledExamples
from relax_quantus.benchmark.data.esc50 import TABLE as ESC50_TABLE
from relax_quantus.benchmark.data.esc50 import esc50
from relax_quantus.benchmark.data.planted import planted
from relax_quantus.benchmark.data.recordings import folder
from relax_quantus.benchmark.data.sampling import examples_of
from relax_quantus.benchmark.data.shortcut import shortcut
from relax_quantus.benchmark.data.soundscapes import Soundscape, dominates, soundscapes
from relax_quantus.benchmark.data.synthetic_calls import CLASS_NAMES, SAMPLE_RATE_HZ
from relax_quantus.errors import ArgumentTypeError
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.recordings.labelled import TABLE

__all__ = [
    "DATASETS",
    "Clip",
    "Dataset",
    "LabelledExamples",
    "kind_of_folder",
    "log_mel",
    "resolve",
    "specified",
    "synthetic",
]

CALL_FREE_EVERY = 6
HELD_OUT_CLIPS = 150
TRAINING, HELD_OUT = (1_000_003 * k for k in (1, 2))


def log_mel(scapes: list[Soundscape], part: str = "wave", front_end: FrontEnd | None = None) -> Tensor:
    """Return the first example of each soundscape's "wave", "stem" or "rest", ``(n, 1, T, F)``."""
    return torch.cat([examples_of(heard(getattr(scape, part), front_end), front_end)[:1] for scape in scapes])


def heard(wave: npt.NDArray[np.float32], front_end: FrontEnd | None) -> npt.NDArray[np.float32]:
    """Resample a synthetic sound to the rate of a front end."""
    return wave if front_end is None else resample(wave, SAMPLE_RATE_HZ, front_end.rate_hz)


def call_examples(
    count: int, seed: int, snr_db: float | None = None, front_end: FrontEnd | None = None
) -> LabelledExamples:
    """Make examples of `count` soundscapes with calls."""
    scapes = soundscapes(count, seed, snr_db=snr_db)
    labels = np.array([scape.label for scape in scapes], dtype=np.int64)
    names = tuple(scape.source_group for scape in scapes)
    return LabelledExamples(log_mel(scapes, front_end=front_end), labels, names, names)


def synthetic(
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    call_free_every: int = CALL_FREE_EVERY,
    snr_db: float | None = None,
    front_end: FrontEnd | None = None,
) -> Dataset:
    """Make synthetic soundscapes; training and held-out clips come from other seeds.

    Parameters
    ----------
    max_clips
        Clips to explain, of which every `call_free_every`-th has no call (0: all have one).
    seed
        Of everything.
    head_clips
        Training soundscapes for the head.
    snr_db
        Level of the call over the noise floor in dB, in all clips; None draws it from 8 to 22 for
        each. The clips are otherwise the same. Where it is given, localisation does not want a good
        head, but a response of the encoder to each call.
    front_end
        Makes the examples; None for VGGish's.
    """
    scapes = soundscapes(max_clips, seed, call_free_every, snr_db)
    waves, stems, rests = (log_mel(scapes, part, front_end) for part in ("wave", "stem", "rest"))
    truths = [dominates(heard(s.stem, front_end), heard(s.rest, front_end), front_end) for s in scapes]
    clips = tuple(
        Clip(
            name=scape.source_group,
            x=x,
            label=scape.label,
            label_name=scape.label_name,
            source_group=scape.source_group,
            stem=stem if scape.label >= 0 else None,
            rest=rest if scape.label >= 0 else None,
            truth=truth if scape.label >= 0 else None,
        )
        for scape, x, stem, rest, truth in zip(scapes, waves, stems, rests, truths, strict=True)
    )
    return Dataset(
        name="synthetic" if snr_db is None else f"synthetic:snr_db={snr_db:g}",
        class_names=CLASS_NAMES,
        clips=clips,
        training=call_examples(head_clips, seed + TRAINING, snr_db, front_end),
        held_out=call_examples(HELD_OUT_CLIPS, seed + HELD_OUT, snr_db, front_end),
        needs_good_head=snr_db is None,
    )


DATASETS: Registry[Dataset] = Registry("data set", "data", "relax_quantus.datasets")
DATASETS.register("synthetic", synthetic, "soundscapes with known calls; snr_db=DB for the noise floor")


DATASETS.register("recordings", folder, "path=DIR: one folder a class, or a clips.csv; no truth but by construction")
DATASETS.register("planted", planted, "path=DIR: a real call in another class's recording; snr_db=, octaves=, into=")
DATASETS.register("boxes", boxes, "path=DIR: sound files with Raven tables or Audacity labels; classes=, label_column=")
DATASETS.register("esc50", esc50, "path=DIR: ESC-50's layout; fold=, esc10=")
DATASETS.register(
    "shortcut", shortcut, "path=DIR: a hum or low-pass in one class; kind=, label=, level_db=, cutoff_hz="
)


def kind_of_folder(path: str | os.PathLike[str]) -> str:
    """Tell which data set a folder is laid out as: "esc50", "boxes" or "recordings".

    "boxes" has tables beside sound files and no ``clips.csv``.
    """
    root = Path(path).expanduser()
    if (root / ESC50_TABLE).is_file():
        return "esc50"
    if not root.is_dir() or (root / TABLE).is_file():
        return "recordings"
    return "boxes" if has_tables(root) else "recordings"


def resolve(
    spec: str,
    *,
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    front_end: FrontEnd | None = None,
) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    spec
        ``NAME`` or ``NAME:key=value,...``; or a folder, which is read as what it is laid out as.
    max_clips, seed, head_clips, resampler, front_end
        Of the run; a specification that names one of them has its way.

    Raises
    ------
    UnknownNameError, ArgumentTypeError, ArgumentError
        For an unknown name or setting, with the nearest.
    DataError
        If there is nothing to use.
    """
    run: dict[str, Any] = {"max_clips": max_clips, "seed": seed, "head_clips": head_clips}
    run |= {"resampler": resampler, "front_end": front_end}
    name, settings = specified(spec)
    accepted = inspect.signature(DATASETS.factory(name)).parameters
    any_key = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    return DATASETS.get(name, **{key: value for key, value in run.items() if any_key or key in accepted} | settings)


def specified(spec: str) -> tuple[str, dict[str, Any]]:
    """Return the name and settings of a specification, without loading anything.

    An unknown name or setting is an error that lists the nearest.
    """
    if spec not in DATASETS and (Path(spec).expanduser().is_dir() or (Path(spec).is_absolute() and "=" not in spec)):
        return kind_of_folder(spec), {"path": spec}
    parsed = parse("data", spec)
    name, settings = parsed.name or spec, dict(parsed.settings)
    if "path" in settings:
        settings["path"] = parsed.texts["path"]
    if name not in DATASETS:
        DATASETS.get(name)
    accepted = {k: p for k, p in inspect.signature(DATASETS.factory(name)).parameters.items() if k != "front_end"}
    for key in settings:
        if key not in accepted and not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            raise ArgumentTypeError(
                f"{key}: expected a setting of the data set {name!r}; {nearest(key, list(accepted))}."
            )
    if accepted.get("path") is not None and "path" not in settings:
        rule = f"a folder for the data set {name!r}"
        checks.refuse("path", rule, "none", f"write {name}:path=FOLDER")
    return name, settings
