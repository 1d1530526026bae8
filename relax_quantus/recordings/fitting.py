"""A folder of labelled recordings -> a classifier: ``relax-quantus fit`` as one call.

Recordings enter with their labels and sources (`relax_quantus.recordings.labelled`), all examples
of all of them are embedded, and a `RecordingFit` leaves: the classifier and what it was fitted on.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relax_quantus import __version__
from relax_quantus.audio.quality import AudioWarning
from relax_quantus.audio.reading import checked_resampler
from relax_quantus.base import checks
from relax_quantus.base.checks import shown
from relax_quantus.base.networks import MICRO_BATCH, checked_embedding
from relax_quantus.base.progress import Progress, progress_bar
from relax_quantus.encoders.contract import as_network
from relax_quantus.encoders.loading import front_end_of, keeps_contract, load
from relax_quantus.errors import DataError
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.heads.fine_tuning import FineTuning
from relax_quantus.recordings.labelled import Entry, listing

LeftOut = Callable[[Path, Exception], object]
_Read = list[tuple[Entry, Tensor]]


@dataclass(frozen=True)
class ClassCount:
    """How much of one class was used: its name, recordings, sources and examples."""

    name: str
    clips: int
    sources: int
    examples: int


@dataclass(frozen=True, eq=False)
class RecordingFit:
    """A classifier that was fitted on recordings, and what it was fitted on.

    Attributes
    ----------
    classifier
        On the encoder that was asked for, or on a fine-tuned copy of it;
        ``classifier.save(path)`` writes it.
    classes
        How many recordings, sources and examples of each class were used.
    left_out
        The recordings that could not be used, each with what went wrong.
    """

    classifier: EmbeddingClassifier
    classes: tuple[ClassCount, ...]
    left_out: tuple[tuple[Path, Exception], ...]

    def lines(self) -> list[str]:
        """Describe the fit: the classes, how fine-tuning went, accuracy in cross-validation."""
        width = max(len("class"), *(len(shown(c.name)) for c in self.classes))
        lines = [f"{'class':<{width}}  {'clips':>6}  {'sources':>7}  {'examples':>8}"]
        for c in self.classes:
            lines.append(f"{shown(c.name):<{width}}  {c.clips:>6}  {c.sources:>7}  {c.examples:>8}")
        result, tuning = self.classifier.cross_validation, self.classifier.fine_tuning
        if tuning is not None:
            lines += _described(tuning)
        if tuning is not None and tuning.kept == "fine_tuned":
            lines.append("accuracy in cross-validation: not measured, as the encoder was trained on these recordings")
        elif result.accuracy is None:
            few = ", ".join(shown(c.name) for c in self.classes if c.sources < 2)
            lines.append(f"accuracy: not measured, as these have one source only: {few}")
        else:
            unit = "recording" if all(c.sources == c.clips for c in self.classes) else "source"
            lines.append(
                f"accuracy: {result.accuracy:.1%} of examples in {len(result.fold_accuracies)}-fold cross-validation, "
                f"no {unit} on both sides, each {unit} weighing the same"
            )
        return lines


def _described(tuning: FineTuning) -> list[str]:
    """Say how fine-tuning went: both accuracies, and which encoder was kept."""
    tuned = "not measured" if tuning.tuned_accuracy is None else f"{tuning.tuned_accuracy:.1%}"
    ended = ", interrupted" if tuning.interrupted else ""
    kept = "the fine-tuned encoder" if tuning.kept == "fine_tuned" else "the encoder as it was"
    return [
        f"fine-tuning: {tuning.epochs_run} epochs{ended}, the best was {tuning.best_epoch or 'none'}",
        f"validation accuracy: frozen {tuning.frozen_accuracy:.1%}, fine-tuned {tuned}, of {tuning.held_out_examples} "
        f"examples of {tuning.held_out_groups} held-out sources, each weighing the same",
        f"kept: {kept}",
    ]


def fit_recordings(
    folder: str | os.PathLike[str],
    encoder: str | nn.Module | tuple[Any, nn.Module] = "vggish_mini",
    *,
    weights: str | os.PathLike[str] | None = None,
    sha256: str | None = None,
    front_end: str | None = None,
    fine_tune: int = 0,
    seed: int | None = 0,
    resampler: str = "soxr",
    show_progress: bool | Progress = False,
    when_left_out: LeftOut | None = None,
) -> RecordingFit:
    """Fit a classifier on the labelled recordings of a folder.

    Costs one encoder forward an example; fine-tuning adds about four an epoch. Deterministic for
    a `seed`.

    Parameters
    ----------
    folder
        A folder with one folder a class, or with a ``clips.csv`` (columns ``file``, ``label``,
        ``source_group``). Recordings of the same source are kept together in cross-validation;
        by default each is its own source.
    encoder
        A name with settings, ``"name:key=value,..."``, or the user's own, ``"module:attribute"``
        or ``"file.py:name"``; an encoder of log-mel examples, a `WaveformEncoder` or a network that
        says its rate and window; or a front end and an encoder, as
        `relax_quantus.encoders.loading.load` returns them.
    weights, sha256, front_end
        See `relax_quantus.encoders.loading.load`; only with the name of an encoder.
    fine_tune
        The most epochs to train the encoder on for; see `EmbeddingClassifier.fit`.
    seed
        Seed of fine-tuning; without that nothing is random.
    resampler
        See `relax_quantus.resample`.
    show_progress
        Show bars on stderr while recordings are read and the encoder is trained; or a callable
        that makes something else of them, see `relax_quantus.base.progress`.
    when_left_out
        Called with path and error of each recording that cannot be used, when that is found;
        None warns.

    Raises
    ------
    DataError
        If the folder has no recordings, or fewer than two classes of usable ones.
    RelaxQuantusError
        If a name or number cannot work, or the encoder cannot be used.

    Warns
    -----
    UserWarning
        If recordings or classes are left out, recordings are odd (once for each kind), or Ctrl-C
        ended fine-tuning.
    """
    checks.integer("fine_tune", fine_tune, low=0)
    checks.seed(seed)
    checked_resampler(resampler)
    if isinstance(encoder, str):
        loaded, network = load(encoder, None if weights is None else Path(weights), sha256, front_end)
    elif isinstance(encoder, tuple):
        loaded, network = encoder
    else:
        network = as_network(encoder) if keeps_contract(encoder) else encoder
        loaded = front_end_of(network)
    entries = listing(folder)
    left_out: list[tuple[Path, Exception]] = []

    def leave_out(path: Path, problem: Exception) -> None:
        left_out.append((path, problem))
        if when_left_out is None:
            text = str(problem) if os.fspath(path) in str(problem) else f"{shown(path)}: {problem}"
            warnings.warn(f"left out {text}", AudioWarning, stacklevel=4)
        else:
            when_left_out(path, problem)

    read = _read_all(entries, loaded, resampler, show_progress, leave_out)
    try:
        classifier = _fitted(folder, read, network, fine_tune, seed, show_progress)
    except DataError:
        raise
    except Exception:  # of whatever runtime the encoder calls
        embedded = _those_embedded(read, network, show_progress, leave_out)
        if len(embedded) == len(read):
            raise
        read = embedded
        classifier = _fitted(folder, read, network, fine_tune, seed, show_progress)
    for lost in sorted({entry.label_name for entry in entries} - set(classifier.class_names)):
        warnings.warn(f"class {lost!r}: no usable recording; the class is left out", UserWarning, stacklevel=2)
    classifier.made_with = {
        "program": f"relax_quantus {__version__}",
        "encoder": encoder if isinstance(encoder, str) else type(network).__name__,
        "front_end": loaded.text,
        "resampler": resampler,
        "seed": str(seed),
    }
    return RecordingFit(classifier, _counted(read, classifier.class_names), tuple(left_out))


def _read_all(
    entries: Sequence[Entry], front_end: FrontEnd, resampler: str, show_progress: bool | Progress, leave_out: LeftOut
) -> _Read:
    """Read the examples ``(n, ...)`` of every recording that can be used."""
    read = []
    shown_as = progress_bar(show_progress, len(entries), "read", "clip")
    with shown_as as bar, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for entry in entries:
            try:
                read.append((entry, front_end.read(entry.path, resampler=resampler).examples))
            except Exception as problem:  # of whatever the front end calls
                leave_out(entry.path, problem)
            bar.update()
    for line in digest([str(w.message) for w in caught if issubclass(w.category, UserWarning)]):
        warnings.warn(line, AudioWarning, stacklevel=3)
    return read


def _fitted(
    folder: str | os.PathLike[str],
    read: _Read,
    network: Any,
    fine_tune: int,
    seed: int | None,
    show_progress: bool | Progress,
) -> EmbeddingClassifier:
    """Fit a classifier on the examples of recordings."""
    names = sorted({entry.label_name for entry, _ in read})
    if len(names) < 2:
        raise DataError(
            f"{os.fspath(folder)}: expected usable recordings of at least two classes, got {len(names)}; "
            "see why the others were left out."
        )
    examples = [x for _, x in read]
    return EmbeddingClassifier.fit(
        network,
        torch.cat(examples),
        [names.index(entry.label_name) for entry, x in read for _ in x],
        class_names=names,
        groups=[entry.source_group for entry, x in read for _ in x],
        fine_tune=fine_tune,
        clips=[i for i, x in enumerate(examples) for _ in x],
        seed=seed,
        show_progress=show_progress,
    )


def _those_embedded(read: _Read, network: Any, show_progress: bool | Progress, leave_out: LeftOut) -> _Read:
    """Return those recordings whose examples the network can embed."""
    usable = []
    with progress_bar(show_progress, len(read), "check", "clip") as bar, torch.no_grad():
        for entry, x in read:
            try:
                for part in torch.split(x, MICRO_BATCH):
                    checked_embedding(network(part), len(part), nonzero=False)
            except Exception as problem:  # of whatever runtime the encoder calls
                leave_out(entry.path, problem)
            else:
                usable.append((entry, x))
            bar.update()
    return usable


def _counted(read: _Read, names: Sequence[str]) -> tuple[ClassCount, ...]:
    """Count what was read of each class."""
    clips = Counter(entry.label_name for entry, _ in read)
    sources = Counter(label for label, _ in {(entry.label_name, entry.source_group) for entry, _ in read})
    examples: Counter[str] = Counter()
    for entry, x in read:
        examples[entry.label_name] += len(x)
    return tuple(ClassCount(name, clips[name], sources[name], examples[name]) for name in names)


def digest(messages: Sequence[str]) -> list[str]:
    """Join messages that differ only in the recording and in numbers into one line.

    Examples
    --------
    >>> digest(["a.wav: sampled at 8000 Hz.", "b.wav: sampled at 8012 Hz.", "c.wav: damaged."])
    ['a.wav: sampled at 8000 Hz. (1 more like it, such as b.wav)', 'c.wav: damaged.']
    """
    kinds: dict[str, list[str]] = {}
    for message in messages:
        kinds.setdefault(re.sub(r"\d+(\.\d+)?", "", message.partition(": ")[2]), []).append(message)
    lines = []
    for alike in kinds.values():
        example = f" ({len(alike) - 1} more like it, such as {alike[1].partition(': ')[0]})" if len(alike) > 1 else ""
        lines.append(alike[0] + example)
    return lines
