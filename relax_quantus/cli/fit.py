"""``relax-quantus fit``: a folder of labelled recordings -> a classifier for `explain --head`.

Recordings enter with their labels and sources, all examples of all of them are embedded, and one file leaves. Cost: one encoder forward an
example; fine-tuning adds about four an epoch.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from relax_quantus import __version__
from relax_quantus.audio.reading import checked_resampler
from relax_quantus.base import checks, files
from relax_quantus.benchmark.data.recordings import Entry, listing
from relax_quantus.cli import console, stopping
from relax_quantus.cli.requests.fit import FitRequest
from relax_quantus.encoders.loading import load
from relax_quantus.errors import DataError
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.heads.file import is_head
from relax_quantus.heads.fine_tuning import FineTuning
from relax_quantus.recordings.plan import TOGETHER
from relax_quantus.relax.references import checked_embedding


def run(request: FitRequest) -> int:
    """Fit, write and describe a classifier; return 0, or 1 if a recording had to be left out.

    Ctrl-C during fine-tuning ends that, with a warning; the classifier is written all the same. So does SIGTERM, and the exit code is then 143.

    Raises
    ------
    RelaxQuantusError
        If no classifier can be made: an unknown encoder, a folder without recordings, fewer than two classes of usable ones.
    """
    checks.integer("--fine-tune", request.fine_tune, low=0)
    checks.seed(request.seed)
    checked_resampler(request.resampler)
    front_end, network = load(**request.encoder.named)
    files.writable_file(request.out, is_head)
    entries = listing(request.folder)
    read = read_all(entries, front_end, request.resampler)
    try:
        classifier = fitted(read, network, request)
    except DataError:
        raise
    except Exception:  # of whatever runtime the encoder calls
        stopping.raise_if_asked()
        embedded = those_embedded(read, network)
        if len(embedded) == len(read):
            raise
        read = embedded
        classifier = fitted(read, network, request)
    names = set(classifier.class_names)
    for lost in sorted({entry.label_name for entry in entries} - names):
        console.warning(f"{lost}: no usable recording; the class is left out")
    tuning = classifier.fine_tuning
    stop = stopping.answered() if tuning is not None and tuning.interrupted else None
    classifier.made_with = {
        "program": f"relax_quantus {__version__}",
        "encoder": request.encoder.encoder,
        "front_end": front_end.text,
        "resampler": request.resampler,
        "seed": str(request.seed),
    }
    classifier.save(request.out)
    classes = counted(read, classifier)
    for line in summary(classes, classifier):
        console.result(line)
    console.result(console.shown(request.out), "classifier", path=request.out, **facts(classes, classifier))
    if stop is not None and issubclass(stop, stopping.Terminated):
        return stopping.exit_code(stop)
    return 1 if len(read) < len(entries) else 0


def fitted(read: list[tuple[Entry, Tensor]], network: Any, request: FitRequest) -> EmbeddingClassifier:
    """Fit a classifier on the examples of recordings.

    Raises
    ------
    DataError
        If they are of fewer than two classes.
    """
    names = sorted({entry.label_name for entry, _ in read})
    if len(names) < 2:
        raise DataError(
            f"{request.folder}: expected usable recordings of at least two classes, got {len(names)}; see the errors above."
        )
    examples = [x for _, x in read]
    return EmbeddingClassifier.fit(
        network,
        torch.cat(examples),
        [names.index(entry.label_name) for entry, x in read for _ in x],
        class_names=names,
        groups=[entry.source_group for entry, x in read for _ in x],
        fine_tune=request.fine_tune,
        clips=[i for i, x in enumerate(examples) for _ in x],
        seed=request.seed,
        show_progress=console.bars(),
    )


@torch.no_grad()
def those_embedded(read: list[tuple[Entry, Tensor]], network: Any) -> list[tuple[Entry, Tensor]]:
    """Those recordings whose examples the network can embed; the others are reported on stderr."""
    usable = []
    for entry, x in read:
        try:
            for part in torch.split(x, TOGETHER):
                checked_embedding(network(part), len(part), nonzero=False)
        except Exception as problem:
            stopping.raise_if_asked()
            console.report(problem, entry.path)
        else:
            usable.append((entry, x))
    return usable


def read_all(entries: list[Entry], front_end: FrontEnd, resampler: str) -> list[tuple[Entry, Tensor]]:
    """Examples ``(n, ...)`` of every recording that can be used; the others are reported on stderr."""
    read = []
    with console.progress(len(entries), "read", "clip") as bar, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for entry in entries:
            try:
                read.append((entry, front_end.read(entry.path, resampler=resampler).examples))
            except Exception as problem:
                stopping.raise_if_asked()
                console.report(problem, entry.path)
            bar.update()
    for line in digest([str(w.message) for w in caught if issubclass(w.category, UserWarning)]):
        console.warning(line)
    return read


def digest(messages: list[str]) -> list[str]:
    """Say once what was said of many recordings: messages that differ in the file and in numbers only become one line.

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


@dataclass(frozen=True)
class ClassCount:
    """How much of one class was used."""

    name: str
    clips: int
    sources: int
    examples: int


def counted(read: list[tuple[Entry, Tensor]], classifier: EmbeddingClassifier) -> list[ClassCount]:
    """What was read of each class."""
    clips = Counter(entry.label_name for entry, _ in read)
    groups = Counter(label for label, _ in {(entry.label_name, entry.source_group) for entry, _ in read})
    examples: Counter[str] = Counter()
    for entry, x in read:
        examples[entry.label_name] += len(x)
    return [ClassCount(name, clips[name], groups[name], examples[name]) for name in classifier.class_names]


def summary(classes: list[ClassCount], classifier: EmbeddingClassifier) -> list[str]:
    """A table of the classes, and the accuracy in cross-validation."""
    width = max(len("class"), *(len(console.shown(c.name)) for c in classes))
    lines = [f"{'class':<{width}}  {'clips':>6}  {'sources':>7}  {'examples':>8}"]
    for c in classes:
        lines.append(f"{console.shown(c.name):<{width}}  {c.clips:>6}  {c.sources:>7}  {c.examples:>8}")
    result, tuning = classifier.cross_validation, classifier.fine_tuning
    if tuning is not None:
        lines += described(tuning)
    if tuning is not None and tuning.kept == "fine_tuned":
        lines.append("accuracy in cross-validation: not measured, as the encoder was trained on these recordings")
    elif result.accuracy is None:
        few = ", ".join(console.shown(c.name) for c in classes if c.sources < 2)
        lines.append(f"accuracy: not measured, as these have one source only: {few}")
    else:
        unit = "recording" if all(c.sources == c.clips for c in classes) else "source"
        lines.append(
            f"accuracy: {result.accuracy:.1%} of examples in {len(result.fold_accuracies)}-fold cross-validation, "
            f"no {unit} on both sides, each {unit} weighing the same"
        )
    return lines


def facts(classes: list[ClassCount], classifier: EmbeddingClassifier) -> dict[str, Any]:
    """The same for programs; an accuracy that was not measured is None."""
    result, tuning = classifier.cross_validation, classifier.fine_tuning
    measured = tuning is None or tuning.kept != "fine_tuned"
    return {
        "classes": [asdict(c) for c in classes],
        "accuracy": result.accuracy if measured else None,
        "fold_accuracies": list(result.fold_accuracies) if measured else [],
        "fine_tuning": None if tuning is None else asdict(tuning),
    }


def described(tuning: FineTuning) -> list[str]:
    """How fine-tuning went: both accuracies, on what they were measured, and which encoder was kept."""
    tuned = "not measured" if tuning.tuned_accuracy is None else f"{tuning.tuned_accuracy:.1%}"
    ended = ", interrupted" if tuning.interrupted else ""
    kept = "the fine-tuned encoder" if tuning.kept == "fine_tuned" else "the encoder as it was"
    return [
        f"fine-tuning: {tuning.epochs_run} epochs{ended}, the best was {tuning.best_epoch or 'none'}",
        f"validation accuracy: frozen {tuning.frozen_accuracy:.1%}, fine-tuned {tuned}, of {tuning.held_out_examples} "
        f"examples of {tuning.held_out_groups} held-out sources, each weighing the same",
        f"kept: {kept}",
    ]
