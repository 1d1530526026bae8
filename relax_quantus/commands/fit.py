"""``relax-quantus fit``: a folder of labelled recordings -> a classifier for `explain --head`.

Recordings enter with their labels and sources, all examples of all of them are embedded, and one file leaves. Cost: one encoder forward an
example.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from relax_quantus.benchmark.recordings import Entry, listing
from relax_quantus.commands import console, files
from relax_quantus.encoders import load_encoder
from relax_quantus.errors import DataError, RelaxQuantusError
from relax_quantus.frontend import load_examples
from relax_quantus.heads import EmbeddingClassifier


def run(folder: Path, out: Path, encoder: str) -> int:
    """Fit, write and describe a classifier; return 0, or 1 if a recording had to be left out.

    Raises
    ------
    RelaxQuantusError
        If no classifier can be made: an unknown encoder, a folder without recordings, fewer than two classes of usable ones.
    """
    network = load_encoder(encoder)
    files.writable_file(out)
    entries = listing(folder)
    read = read_all(entries)
    names = sorted({entry.label_name for entry, _ in read})
    if len(names) < 2:
        raise DataError(
            f"{folder}: expected usable recordings of at least two classes, got {len(names)}; see the errors above."
        )
    for lost in sorted({entry.label_name for entry in entries} - set(names)):
        console.warning(f"{lost}: no usable recording; the class is left out")
    examples = [x for _, x in read]
    classifier = EmbeddingClassifier.fit(
        network,
        torch.cat(examples),
        [names.index(entry.label_name) for entry, x in read for _ in x],
        class_names=names,
        groups=[entry.source_group for entry, x in read for _ in x],
    )
    classifier.save(out)
    for line in summary(read, classifier):
        console.result(line)
    console.result(console.shown(out))
    return 1 if len(read) < len(entries) else 0


def read_all(entries: list[Entry]) -> list[tuple[Entry, Tensor]]:
    """Examples ``(n, 1, T, F)`` of every recording that can be used; the others are reported on stderr."""
    read = []
    with console.progress(len(entries), "read", "clip") as bar:
        for entry in entries:
            try:
                read.append((entry, load_examples(entry.path)))
            except (RelaxQuantusError, ValueError, RuntimeError, MemoryError) as problem:
                console.report(problem, entry.path)
            bar.update()
    return read


def summary(read: list[tuple[Entry, Tensor]], classifier: EmbeddingClassifier) -> list[str]:
    """A table of the classes, and the accuracy in cross-validation."""
    clips = Counter(entry.label_name for entry, _ in read)
    groups = Counter(label for label, _ in {(entry.label_name, entry.source_group) for entry, _ in read})
    examples: Counter[str] = Counter()
    for entry, x in read:
        examples[entry.label_name] += len(x)
    width = max(len("class"), *(len(console.shown(name)) for name in clips))
    lines = [f"{'class':<{width}}  {'clips':>6}  {'sources':>7}  {'examples':>8}"]
    for name in classifier.class_names:
        lines.append(f"{console.shown(name):<{width}}  {clips[name]:>6}  {groups[name]:>7}  {examples[name]:>8}")
    result = classifier.cross_validation
    if result.accuracy is None:
        lines.append("accuracy: not measured, a class comes from one source only")
    else:
        folds = len(result.fold_accuracies)
        lines.append(
            f"accuracy: {result.accuracy:.1%} of examples in {folds}-fold cross-validation, sources kept together and equally weighted"
        )
    return lines
