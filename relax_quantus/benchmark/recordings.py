"""A folder of real recordings as a benchmark `Dataset`.

Fourth step of the benchmark's flow, beside `datasets.synthetic`: a folder with one folder a class, or with a ``clips.csv`` (columns ``file``,
``label``, ``source_group``), enters; a class-balanced sample spread over the sources leaves, each clip as its loudest example, with the other
recordings' examples for the head. No source is on both sides where that can be helped. Recordings that cannot be used are listed, not fatal.
"""

from __future__ import annotations

import csv
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from relax_quantus import checks
from relax_quantus.audio import checked_resampler
from relax_quantus.benchmark.datasets import Clip, Dataset, Examples
from relax_quantus.errors import AudioError, DataError
from relax_quantus.frontend import load_examples

SUFFIXES = {f".{name}".lower() for name in soundfile.available_formats()} | {".aif", ".oga", ".opus", ".snd", ".wave"}
EXAMPLES_PER_CLIP = 8
TABLE = "clips.csv"


@dataclass(frozen=True)
class Entry:
    """One recording of a folder: its path, the name to print, class and source."""

    path: Path
    name: str
    label_name: str
    source_group: str


def listing(folder: str | os.PathLike[str]) -> list[Entry]:
    """Recordings of a folder, in a stable order: from its ``clips.csv`` if it has one, else one class a subfolder.

    Raises
    ------
    DataError
        If the folder is missing or has no recording, the table lacks a column, or there is only one class.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(
            f"{root}: expected a folder of recordings, got {'a file' if root.exists() else 'no such folder'}."
        )
    entries = _from_table(root) if (root / TABLE).is_file() else _from_folders(root)
    if not entries:
        raise DataError(
            f"{root}: expected recordings, one folder a class or a {TABLE}, got none; put WAV or FLAC files in folders."
        )
    classes = {entry.label_name for entry in entries}
    if len(classes) < 2:
        raise DataError(
            f"{root}: expected at least two classes, got only {classes.pop()!r}; add a folder of another class."
        )
    return entries


def _from_table(root: Path) -> list[Entry]:
    try:
        with (root / TABLE).open(newline="", encoding="utf-8-sig") as source:
            rows = list(csv.DictReader(source))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{root / TABLE}: expected a CSV table, got {error}; save it as UTF-8 CSV.") from error
    for column in ("file", "label"):
        if rows and rows[0].get(column) is None:
            raise DataError(
                f"{root / TABLE}: expected a column {column!r}, got {', '.join(map(str, rows[0]))}; add it."
            )
    entries = [
        Entry(root / row["file"], row["file"], row["label"], row.get("source_group") or row["file"])
        for row in rows
        if row["file"] and row["label"]
    ]
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise DataError(f"{root / TABLE}: expected each file once, got {entry.name} twice; keep one of the rows.")
        seen.add(entry.name)
    return entries


def _from_folders(root: Path) -> list[Entry]:
    files = sorted(path for path in root.glob("*/**/*") if path.is_file() and path.suffix.lower() in SUFFIXES)
    return [
        Entry(p, p.relative_to(root).as_posix(), p.relative_to(root).parts[0], p.relative_to(root).as_posix())
        for p in files
    ]


def spread(entries: Sequence[Entry], rng: np.random.Generator) -> list[Entry]:
    """Order the entries of a class so that any first k are spread over its sources: a random one of each source in turn."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.source_group].append(entry)
    shuffled = [[members[i] for i in rng.permutation(len(members))] for members in groups.values()]
    shuffled = [shuffled[i] for i in rng.permutation(len(shuffled))]
    return [entry for rank in zip_longest(*shuffled) for entry in rank if entry is not None]


class Reader:
    """Reads recordings once, remembers which could not be used and which were odd, and why."""

    def __init__(self, resampler: str = "soxr") -> None:
        self.resampler = resampler
        self.skipped: list[str] = []
        self.odd: list[str] = []

    def read(self, entry: Entry) -> Tensor | None:
        """Examples ``(n, 1, 96, 64)``, or None with a warning."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                x = load_examples(entry.path, resampler=self.resampler)
            self.odd += [f"{entry.name}: {str(w.message).removeprefix(f'{entry.path}: ')}" for w in caught[:1]]
            return x
        except (AudioError, ValueError, RuntimeError, MemoryError) as error:
            reason = (str(error) or type(error).__name__).removeprefix(f"{entry.path}: ")
            self.skipped.append(f"{entry.name}: {reason}")
            warnings.warn(f"skipped {entry.name}: {reason}", stacklevel=2)
            return None

    def take(self, entries: Iterable[Entry], count: int) -> list[tuple[Entry, Tensor]]:
        """The first `count` entries that can be read."""
        taken: list[tuple[Entry, Tensor]] = []
        for entry in entries:
            if len(taken) == count:
                break
            if (x := self.read(entry)) is not None:
                taken.append((entry, x))
        return taken


def loudest(x: Tensor) -> Tensor:
    """The example ``(1, 96, 64)`` of ``(n, 1, 96, 64)`` with the largest mel magnitude."""
    return x[int(x.exp().mean(dim=(1, 2, 3)).argmax())]


def folder(
    path: str | os.PathLike[str], max_clips: int = 12, seed: int = 0, head_clips: int = 480, resampler: str = "soxr"
) -> Dataset:
    """Sample a folder of recordings.

    Parameters
    ----------
    path
        See the module's text.
    max_clips
        Clips to explain: balanced over classes, spread over sources.
    seed
        Of the choice.
    head_clips
        Recordings for the head, balanced over classes; those of a sampled clip's source are held out wherever the class has another source.
    resampler
        See `relax_quantus.audio.resample`; one that does not import is refused before anything is read.

    Raises
    ------
    DataError
        See `listing`; also if fewer than two classes are left once bad recordings are skipped.
    """
    checks.integer("max_clips", max_clips)
    entries, rng, reader = listing(path), np.random.default_rng([seed, 7]), Reader(checked_resampler(resampler))
    names = tuple(sorted({entry.label_name for entry in entries}))
    ordered = {name: spread([e for e in entries if e.label_name == name], rng) for name in names}
    quotas = [max_clips // len(names) + (i < max_clips % len(names)) for i in range(len(names))]
    quotas = [
        min(quota, max(1, len(ordered[name]) // 2)) if quota else 0 for quota, name in zip(quotas, names, strict=True)
    ]
    sampled = [reader.take(ordered[name], quota) for name, quota in zip(names, quotas, strict=True)]
    clips = tuple(
        Clip(entry.name, loudest(x), names.index(entry.label_name), entry.label_name, entry.source_group)
        for rank in zip_longest(*sampled)
        for entry, x in (pair for pair in rank if pair is not None)
    )
    training, held_out, notes = _rest(ordered, sampled, reader, max(1, head_clips // len(names)))
    if reader.odd:
        notes.append(f"{len(reader.odd)} recordings are used although something is odd, e.g. {reader.odd[0]}")
    found = sorted(set(training.y.tolist()))
    if len(found) < len(names) or not clips:
        missing = ", ".join(names[i] for i in range(len(names)) if i not in found)
        raise DataError(
            f"{path}: expected at least two usable recordings of every class, got too few of {missing or 'all'}; add some."
        )
    return Dataset(
        name=Path(path).resolve().name,
        class_names=names,
        clips=clips,
        training=training,
        held_out=held_out,
        notes=tuple(notes),
        skipped=tuple(reader.skipped),
    )


def _rest(
    ordered: dict[str, list[Entry]], sampled: list[list[tuple[Entry, Tensor]]], reader: Reader, per_class: int
) -> tuple[Examples, Examples, list[str]]:
    """Training examples, held-out examples (the sampled sources), and notes on classes where the two share a source."""
    training: list[tuple[int, Entry, Tensor]] = []
    held_out: list[tuple[int, Entry, Tensor]] = []
    leaky = []
    for label, (name, candidates) in enumerate(ordered.items()):
        chosen = {entry.name for entry, _ in sampled[label]}
        groups = {entry.source_group for entry, _ in sampled[label]}
        failed = {line.split(": ", 1)[0] for line in reader.skipped}
        others = [entry for entry in candidates if entry.name not in chosen | failed]
        apart = [entry for entry in others if entry.source_group not in groups]
        if not apart:
            leaky.append(name)
        training += [(label, entry, x) for entry, x in reader.take(apart or others, per_class)]
        held_out += [(label, entry, x) for entry, x in sampled[label]]
        if apart:
            beside = (entry for entry in others if entry.source_group in groups)
            held_out += [(label, entry, x) for entry, x in reader.take(beside, per_class // 4)]
    note = f"the head was fitted on other recordings of the explained clips' own sources for: {', '.join(leaky)}"
    return _examples(training), _examples(held_out), [note] if leaky else []


def _examples(recordings: list[tuple[int, Entry, Tensor]]) -> Examples:
    """At most `EXAMPLES_PER_CLIP` evenly spaced examples of each recording; grouped by source if every class has two, else by recording."""
    sources = {(label, entry.source_group) for label, entry, _ in recordings}
    labels = [label for label, _ in sources]
    by_source = all(labels.count(label) > 1 for label in set(labels))
    xs, ys, groups, clips = [torch.zeros(0, 1, 96, 64)], [], [], []
    for label, entry, x in recordings:
        keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), EXAMPLES_PER_CLIP)).round().astype(int))
        xs.append(x[torch.from_numpy(keep)])
        ys += [label] * len(keep)
        groups += [entry.source_group if by_source else entry.name] * len(keep)
        clips += [entry.name] * len(keep)
    return Examples(torch.cat(xs), np.array(ys, dtype=np.int64), tuple(groups), tuple(clips))
