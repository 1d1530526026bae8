"""Recordings with time-frequency boxes drawn by people, as a benchmark `Dataset`.

Fourth step of the benchmark's flow, beside `recordings`: a folder with sound files and, beside them
or in another folder under the same root, one selection table or label track each (see
`annotations`) enters. Powdermill's layout is one:
``wav_Files/Recording_1/Recording_1_Segment_01.wav`` and
``annotation_Files/Recording_1/Recording_1_Segment_01.Table.1.selections.txt``. Examples in which
one class is marked leave; the truth is the boxes of that class. What has a box is not a clean stem:
towards-the-call questions take the example inside the boxes on its own background.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.audio.reading import checked_resampler, measure_extent
from relax_quantus.base import checks
from relax_quantus.benchmark.annotations import (
    bins,
    files_named,
    is_annotation,
    is_own,
    read,
    same_file,
    shared_folders,
)
from relax_quantus.benchmark.data.clips import Clip, Dataset, LabelledExamples
from relax_quantus.benchmark.data.sampling import Entry, Reader, examples_of, spread
from relax_quantus.errors import AudioError, DataError
from relax_quantus.frontend import front_end as front_ends
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.recordings.folders import surveyed
from relax_quantus.relax.fills import Background

SHARE = (0.005, 0.8)
SEGMENT = re.compile(r"^(.+?)[_-]segment[_-]?\d+$", re.IGNORECASE)
TABLE_SUFFIXES = (".txt", ".csv", ".tsv")
TABLE_SUFFIX = re.compile(r"(\.table\.\d+)?(\.selections)?\.(txt|csv|tsv)$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Marked:
    """One example of a recording in which a class is marked.

    The recording, the example's number, and the class's bins ``(T, F)``.
    """

    entry: Entry
    index: int
    truth: npt.NDArray[np.bool_]
    apart_s: float

    @property
    def name(self) -> str:
        """The recording and the time at which the example begins."""
        return f"{self.entry.name} {self.index * self.apart_s:.2f} s"


def pairs(root: Path) -> list[tuple[Path, Path]]:
    """Pair each annotation file under a folder with the sound files that it is about.

    A selection table that names files (``Begin File``, ``Begin Path``) goes with those of them that
    are there, whatever it is called; any other with the sound file of its own name up to Raven's
    ``.Table.1.selections``, in its own folder first.

    Raises
    ------
    DataError
        If there is none, or a name fits several sound files, none of them in the table's own
        folder.
    """
    return _surveyed(root)[0]


def _surveyed(root: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Return the pairs, and what is left out and why."""
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder, got {'a file' if root.exists() else 'no such folder'}.")
    listed_files = surveyed(root)
    sounds: dict[str, list[Path]] = defaultdict(list)
    for path in listed_files.recordings:
        sounds[path.stem.lower()].append(path)
    tables = [p for p in listed_files.texts if p.suffix.lower() in TABLE_SUFFIXES and is_annotation(p)]
    own = [table for table in tables if is_own(table)]
    found = [(sound, table) for table in tables if table not in own for sound in _sounds_of(table, sounds)]
    if not found:
        raise DataError(
            f"{root}: expected sound files with selection tables or label tracks of the same name, got "
            f"{len(tables)} such tables and {sum(map(len, sounds.values()))} sound files, none of which go together."
        )
    paired, used = {sound for sound, _ in found}, {table for _, table in found}
    kinds = {
        "recording{s} without a table": [p for p in listed_files.recordings if p not in paired],
        "table{s} without a recording": [p for p in tables if p not in used and p not in own],
        "table{s} that relax-quantus wrote": own,
    }
    remarks = [
        f"{root}: left out {len(paths)} {what.format(s='s' if len(paths) > 1 else '')}, such as "
        f"{paths[0].relative_to(root).as_posix()}."
        for what, paths in kinds.items()
        if paths
    ]
    return found, [*listed_files.remarks(), *remarks]


def _sounds_of(table: Path, sounds: dict[str, list[Path]]) -> list[Path]:
    """List the sound files that a table is about.

    One that names only files that are elsewhere stays with its own name's, which `read` refuses.
    """
    found = []
    for named in files_named(table):
        fitting = [path for path in sounds.get(PurePosixPath(named).stem.lower(), []) if same_file(named, path)]
        exact = [path for path in fitting if path.name.lower() == PurePosixPath(named).name.lower()] or fitting
        most = max((shared_folders(named, path) for path in exact), default=0)
        near = [path for path in exact if shared_folders(named, path) == most]
        found += _only_one(table, near)
    return found or _only_one(table, sounds.get(TABLE_SUFFIX.sub("", table.name).lower(), []))


def _only_one(table: Path, fitting: list[Path]) -> list[Path]:
    near = [path for path in fitting if path.parent == table.parent] or fitting
    if len(near) > 1:
        raise DataError(f"{table}: expected one sound file of this name, got {len(near)}; name them apart.")
    return near


def has_tables(root: Path) -> bool:
    """Tell whether a folder holds annotation files that go with sound files."""
    try:
        return bool(pairs(root))
    except DataError:
        return False


def source_of(path: Path, root: Path) -> str:
    """Name the recording that a file belongs to.

    ``NAME_Segment_01`` is part of NAME; any other file is its own.
    """
    match = SEGMENT.match(path.stem)
    return match.group(1) if match else path.relative_to(root).as_posix()


def marked(root: Path, label_column: str = "", front_end: FrontEnd | None = None) -> list[Marked]:
    """Find every example in which one class has more marked bins than any other.

    Between 0.5 and 80 % of all bins, with the boxes of all its tables.

    Raises
    ------
    DataError
        See `pairs` and `annotations.read`; also if a sound file cannot be decoded.

    Warns
    -----
    UserWarning
        Of what is left out, once for each reason.
    """
    front_end = front_end or front_ends.log_mel()
    frames, found = front_end.silent_example().shape[-2], []
    apart, needed = front_end.samples_apart, front_end.example_samples
    tables: dict[Path, list[Path]] = defaultdict(list)
    together, remarks = _surveyed(root)
    for sound, table in together:
        tables[sound].append(table)
    short, beyond = [], 0
    for sound, its_tables in tables.items():
        try:
            length = measure_extent(sound)
        except AudioError as error:
            raise DataError(f"{sound}: expected a sound file, got {error}; leave it and its tables out.") from error
        samples = int(length.seconds * front_end.rate_hz)
        examples = 0 if samples < needed else 1 + (samples - needed) // apart
        boxes = [box for table in its_tables for box in read(table, label_column, sound)]
        beyond += sum(box.begin_s >= length.seconds for box in boxes)
        if examples < 1:
            short.append(sound)
            continue
        by_label = {
            label: bins([b for b in boxes if b.label == label], examples, front_end.axis, frames)
            for label in sorted({b.label for b in boxes} - {""})
        }
        for index in range(examples):
            counts = {label: int(grid[index].sum()) for label, grid in by_label.items()}
            label = max(counts, key=lambda name: counts[name], default="")
            if label and SHARE[0] <= counts[label] / by_label[label][index].size <= SHARE[1]:
                name = sound.relative_to(root).as_posix()
                entry = Entry(sound, name, label, source_of(sound, root))
                found.append(Marked(entry, index, by_label[label][index], apart / front_end.rate_hz))
    if short:
        remarks.append(f"{root}: left out {len(short)} recordings shorter than an example, such as {short[0].name}.")
    if beyond:
        remarks.append(
            f"{root}: left out {beyond} boxes that begin after the end of their recording; check the tables."
        )
    for line in remarks:
        warnings.warn(line, stacklevel=2)
    return found


def boxes(
    path: str | os.PathLike[str],
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    classes: int = 8,
    label_column: str = "",
    front_end: FrontEnd | None = None,
) -> Dataset:
    """Sample the annotated examples of a folder.

    Parameters
    ----------
    path
        See the module's text.
    max_clips, seed, head_clips, resampler, front_end
        As in `recordings.folder`, with examples for recordings. Half of the recordings are
        explained, and the head is fitted on examples of the others wherever a class has any there.
    classes
        So many of the classes that are marked in most examples, of those that are marked in at
        least two sources if there are two such classes.
    label_column
        Of Raven's tables, see `annotations.read`.

    Raises
    ------
    DataError
        See `marked`; also if fewer than two classes are left.
    """
    checks.integer("max_clips", max_clips)
    root, rng = Path(path), np.random.default_rng([seed, 11])
    every = marked(root, str(label_column), front_end)
    names = class_names(every, checks.integer("classes", classes, low=2), path)
    ordered = {name: in_turn([m for m in every if m.entry.label_name == name], rng) for name in names}
    quotas = [max_clips // len(names) + (i < max_clips % len(names)) for i in range(len(names))]
    sources = sorted({m.entry.source_group for m in every})
    held = {sources[i] for i in rng.permutation(len(sources))[: max(1, len(sources) // 2)]}
    open_to = {n: [m for m in ordered[n] if m.entry.source_group in held] or ordered[n] for n in names}
    most = {n: min(len(open_to[n]), max(1, len(ordered[n]) // 2)) for n in names}
    chosen = [open_to[n][: min(q, most[n])] for n, q in zip(names, quotas, strict=True)]
    drawn = [m for rank in zip_longest(*chosen) for m in rank if m is not None]
    training, held_out, notes = _split(ordered, drawn, max(1, head_clips // len(names)))
    cutter = Cutter(Reader(checked_resampler(resampler), front_end=front_end))
    cut = cutter.examples([*drawn, *training, *held_out])
    clips = tuple(clip_of(m, cut[m.name], names) for m in drawn if m.name in cut)
    train, judge = (labelled(part, cut, names) for part in (training, [*drawn, *held_out]))
    if not clips or len(set(train.y.tolist())) < len(names):
        raise DataError(f"{path}: expected at least two usable examples of every class, got too few; add annotations.")
    return Dataset(
        name=f"boxes:{root.resolve().name}",
        class_names=names,
        clips=clips,
        training=train,
        held_out=judge,
        notes=tuple(notes),
        skipped=tuple(cutter.reader.skipped),
        needs_good_head=False,
    )


def class_names(every: list[Marked], classes: int, path: object) -> tuple[str, ...]:
    """List the classes that are marked in most examples, in alphabetical order.

    Those of several sources first.
    """
    counts = Counter(m.entry.label_name for m in every)
    sources = {name: len({m.entry.source_group for m in every if m.entry.label_name == name}) for name in counts}
    known = [name for name, count in counts.items() if count > 1]
    several = [name for name in known if sources[name] > 1]
    known = several if len(several) > 1 else known
    if len(known) < 2:
        listing = ", ".join(f"{name} ({count})" for name, count in counts.most_common(5)) or "nothing"
        raise DataError(
            f"{path}: expected two classes, each marked in at least two examples, got {listing}; add annotations."
        )
    return tuple(sorted(sorted(known, key=lambda name: (-counts[name], name))[:classes]))


def in_turn(members: list[Marked], rng: np.random.Generator) -> list[Marked]:
    """Order examples at random, spread over their sources."""
    by_name = {m.name: m for m in members}
    entries = [Entry(m.entry.path, m.name, m.entry.label_name, m.entry.source_group) for m in members]
    return [by_name[entry.name] for entry in spread(entries, rng)]


def _split(
    ordered: dict[str, list[Marked]], drawn: list[Marked], per_class: int
) -> tuple[list[Marked], list[Marked], list[str]]:
    """Select examples to train on and to judge on.

    Those to train on are of no drawn one's source where possible, those to judge on of the drawn
    ones' sources.
    """
    taken, groups = {m.name for m in drawn}, {m.entry.source_group for m in drawn}
    training, held_out, leaky = [], [], []
    for name, members in ordered.items():
        others = [m for m in members if m.name not in taken]
        apart = [m for m in others if m.entry.source_group not in groups]
        if not apart:
            leaky.append(name)
        training += (apart or others)[:per_class]
        held_out += [m for m in others if m.entry.source_group in groups][: per_class // 4] if apart else []
    note = f"the head was fitted on other examples of the explained clips' own recordings for: {', '.join(leaky)}"
    return training, held_out, [note] if leaky else []


class Cutter:
    """Cuts examples out of recordings, reading each recording once."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def examples(self, wanted: list[Marked]) -> dict[str, Tensor]:
        """Read log-mel ``(1, T, F)`` by the examples' names.

        Those of recordings that cannot be read are missing.
        """
        front_end, found = self.reader.front_end, {}
        apart, needed = front_end.samples_apart, front_end.example_samples
        by_file: dict[Path, list[Marked]] = defaultdict(list)
        for m in wanted:
            by_file[m.entry.path].append(m)
        for members in by_file.values():
            wave = self.reader.wave(members[0].entry)
            if wave is None:
                continue
            for m in members:
                start = m.index * apart
                found[m.name] = examples_of(wave[start : start + needed], front_end)[0]
        return found


def clip_of(m: Marked, x: Tensor, names: tuple[str, ...]) -> Clip:
    """Make a clip whose stem is what the boxes hold, on the example's own background.

    Its rest is what they do not hold.
    """
    truth, background = torch.from_numpy(m.truth), Background().level(x[None])[0]
    stem, rest = torch.where(truth, x, background), torch.where(truth, background, x)
    label = names.index(m.entry.label_name)
    return Clip(m.name, x, label, m.entry.label_name, m.entry.source_group, stem=stem, rest=rest, truth=m.truth)


def labelled(members: list[Marked], cut: dict[str, Tensor], names: tuple[str, ...]) -> LabelledExamples:
    """Collect the labelled examples of those members that could be read."""
    used = [m for m in members if m.name in cut]
    x = torch.stack([cut[m.name] for m in used]) if used else torch.zeros(0)
    y = np.array([names.index(m.entry.label_name) for m in used], dtype=np.int64)
    return LabelledExamples(x, y, tuple(m.entry.source_group for m in used), tuple(m.name for m in used))
