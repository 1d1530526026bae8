"""Draw what is explained, and what a head is fitted and judged on, from a list of recordings.

Fourth step of the benchmark's flow, under `recordings`, `esc50`, `planted` and `shortcut`: entries
(path, class, source) enter; a `Sample` leaves, balanced over classes and spread over sources. No
source is both explained and trained on where that can be helped, whichever class it is heard as: a
recording of several animals stands under several classes. Recordings that cannot be used are
listed, not fatal.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.audio.reading import load_waveform
from relax_quantus.base import checks
from relax_quantus.benchmark.data.clips import Clip, Dataset, LabelledExamples
from relax_quantus.errors import AudioError, DataError
from relax_quantus.frontend import front_end as front_ends
from relax_quantus.frontend.examples import without_source
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.recordings.labelled import Entry as Entry

EXAMPLES_PER_CLIP = 8

Wave = npt.NDArray[np.float32]


def spread(entries: Sequence[Entry], rng: np.random.Generator) -> list[Entry]:
    """Order the entries of a class so that any first k are spread over its sources.

    A random one of each source is taken in turn.
    """
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.source_group].append(entry)
    shuffled = [[members[i] for i in rng.permutation(len(members))] for members in groups.values()]
    shuffled = [shuffled[i] for i in rng.permutation(len(shuffled))]
    return [entry for rank in zip_longest(*shuffled) for entry in rank if entry is not None]


class Reader:
    """Reads recordings once, remembers which could not be used and which were odd, and why.

    Parameters
    ----------
    resampler
        See `relax_quantus.audio.reading.resample`.
    change
        What is done to a recording ``(samples,)`` at the front end's rate before it becomes
        examples; None for nothing.
    front_end
        Makes the examples, and says at which rate; None for VGGish's.
    """

    def __init__(
        self,
        resampler: str = "soxr",
        change: Callable[[Entry, Wave], Wave] | None = None,
        front_end: FrontEnd | None = None,
    ) -> None:
        self.resampler, self.change = resampler, change
        self.front_end = front_end or front_ends.log_mel()
        self.skipped: list[str] = []
        self.odd: list[str] = []

    def read(self, entry: Entry) -> Tensor | None:
        """Read the examples ``(n, 1, T, F)`` of an entry; warn and return None if that fails."""
        wave = self.wave(entry)
        if wave is None:
            return None
        return examples_of(wave if self.change is None else self.change(entry, wave), self.front_end)

    def wave(self, entry: Entry) -> Wave | None:
        """Read a recording, mono, at the front end's rate; warn and return None if that fails."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                wave = load_waveform(entry.path, self.front_end.rate_hz, self.resampler)
            said = [f"{entry.name}: {str(w.message).removeprefix(f'{entry.path}: ')}" for w in caught[:1]]
            self.odd += [line for line in said if line not in self.odd]
            return wave
        except (AudioError, ValueError, RuntimeError, MemoryError) as error:
            reason = (str(error) or type(error).__name__).removeprefix(f"{entry.path}: ")
            line = f"{entry.name}: {reason}"
            if line not in self.skipped:
                self.skipped.append(line)
                warnings.warn(f"skipped {entry.name}: {reason}", stacklevel=2)
            return None

    def take(
        self, entries: Iterable[Entry], count: int, of_a_source: int | None = None, so_far: Counter[str] | None = None
    ) -> list[tuple[Entry, Tensor]]:
        """Take the first `count` entries that can be read, at most so many `of_a_source`.

        Those taken `so_far` count, and `so_far` is counted on.
        """
        taken: list[tuple[Entry, Tensor]] = []
        sources = Counter[str]() if so_far is None else so_far
        for entry in entries:
            if len(taken) == count:
                break
            if of_a_source is not None and sources[entry.source_group] >= of_a_source:
                continue
            if (x := self.read(entry)) is not None:
                taken.append((entry, x))
                sources[entry.source_group] += 1
        return taken


def examples_of(wave: npt.NDArray[Any], front_end: FrontEnd | None = None) -> Tensor:
    """Cut a recording at the front end's rate (None: VGGish's) into examples ``(n, 1, T, F)``.

    A recording shorter than one example is padded with silence.
    """
    chosen = front_end or front_ends.log_mel()
    return without_source(chosen.examples_of(np.asarray(wave, np.float32)))


def loudness(x: Tensor, front_end: FrontEnd | None = None) -> Tensor:
    """Return the mean magnitude ``(n,)`` of examples ``(n, 1, T, F)``.

    Where the values are no logarithms of magnitudes, it is the mean of the values.
    """
    return (x.exp() if front_end is None or front_end.natural_log else x).mean(dim=(1, 2, 3))


def loudest(x: Tensor, front_end: FrontEnd | None = None) -> Tensor:
    """Return the loudest example ``(1, T, F)`` of ``(n, 1, T, F)``."""
    return x[int(loudness(x, front_end).argmax())]


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample that was drawn of a folder.

    Attributes
    ----------
    class_names
        In label order.
    sampled
        Recordings to explain with their examples ``(n, 1, T, F)``, classes in turn.
    training, held_out
        As in `Dataset`.
    notes
        As in `Dataset`.
    reader
        What read them.
    """

    class_names: tuple[str, ...]
    sampled: tuple[tuple[Entry, Tensor], ...]
    training: LabelledExamples
    held_out: LabelledExamples
    notes: tuple[str, ...]
    reader: Reader

    def dataset(self, name: str, clips: tuple[Clip, ...] | None = None, **others: Any) -> Dataset:
        """Make a data set of each recording's loudest example, or of the given clips."""
        whole = tuple(
            Clip(
                e.name,
                loudest(x, self.reader.front_end),
                self.class_names.index(e.label_name),
                e.label_name,
                e.source_group,
            )
            for e, x in self.sampled
        )
        odd = self.reader.odd
        notes = [f"{len(odd)} recordings are used although something is odd, e.g. {odd[0]}"] if odd else []
        return Dataset(
            name=name,
            class_names=self.class_names,
            clips=whole if clips is None else clips,
            training=self.training,
            held_out=self.held_out,
            notes=(*self.notes, *notes, *others.pop("notes", ())),
            skipped=tuple(self.reader.skipped),
            **others,
        )


def draw(
    entries: Sequence[Entry],
    whose: str,
    max_clips: int,
    seed: int,
    head_clips: int,
    reader: Reader,
    explained: Callable[[Entry], bool] | None = None,
    of_a_source: int | None = None,
) -> Sample:
    """Draw what is explained and what the head is fitted and judged on.

    What is explained is balanced over classes and spread over sources.

    Parameters
    ----------
    entries, whose
        All recordings, and the folder to name in messages.
    max_clips, seed, head_clips
        See `folder`.
    reader
        Reads them.
    explained
        Which may be explained: the head is then fitted on the others alone; None for any.
    of_a_source
        Clips of one source to explain at most; None for any number.

    Raises
    ------
    DataError
        If fewer than two classes are left once bad recordings are skipped.
    """
    checks.integer("max_clips", max_clips)
    checks.integer("head_clips", head_clips)
    if of_a_source is not None:
        checks.integer("clips_per_source", of_a_source)
    rng = np.random.default_rng([seed, 7])
    names = tuple(sorted({entry.label_name for entry in entries}))
    ordered = {name: spread([e for e in entries if e.label_name == name], rng) for name in names}
    open_to = {name: [e for e in members if explained is None or explained(e)] for name, members in ordered.items()}
    if explained is None and shared(entries):
        open_to = in_half_of_the_sources(ordered, rng)
    quotas = [max_clips // len(names) + (i < max_clips % len(names)) for i in range(len(names))]
    if explained is None:
        most = [max(1, len(ordered[name]) // 2) for name in names]
        quotas = [min(quota, limit) if quota else 0 for quota, limit in zip(quotas, most, strict=True)]
    so_far = Counter[str]()  # of all classes: a source that two share counts once
    sampled = [reader.take(open_to[name], n, of_a_source, so_far) for name, n in zip(names, quotas, strict=True)]
    training, held_out, notes = _rest(ordered, sampled, reader, max(1, head_clips // len(names)), explained)
    found = sorted(set(training.y.tolist()))
    if len(found) < len(names) or not any(sampled):
        missing = ", ".join(names[i] for i in range(len(names)) if i not in found)
        raise DataError(
            f"{whose}: expected at least two usable recordings of every class, got too few of {missing or 'all'}; add some."
        )
    in_turn = tuple(pair for rank in zip_longest(*sampled) for pair in rank if pair is not None)
    return Sample(names, in_turn, training, held_out, tuple(notes), reader)


def shared(entries: Iterable[Entry]) -> bool:
    """Tell whether some source has recordings of two classes."""
    pairs = {(entry.source_group, entry.label_name) for entry in entries}
    return len({source for source, _ in pairs}) < len(pairs)


def in_half_of_the_sources(ordered: dict[str, list[Entry]], rng: np.random.Generator) -> dict[str, list[Entry]]:
    """Return each class's entries in a drawn half of all sources, to train on the other half.

    A class that has none there keeps all of its entries.
    """
    sources = sorted({entry.source_group for members in ordered.values() for entry in members})
    half = {sources[i] for i in rng.permutation(len(sources))[: max(1, len(sources) // 2)]}
    return {name: [e for e in members if e.source_group in half] or members for name, members in ordered.items()}


def _rest(
    ordered: dict[str, list[Entry]],
    sampled: list[list[tuple[Entry, Tensor]]],
    reader: Reader,
    per_class: int,
    explained: Callable[[Entry], bool] | None,
) -> tuple[LabelledExamples, LabelledExamples, list[str]]:
    """Draw training and held-out examples, and note classes where the two share a source.

    Held out are the sampled sources, or all that may be explained.
    """
    training: list[tuple[int, Entry, Tensor]] = []
    held_out: list[tuple[int, Entry, Tensor]] = []
    leaky = []
    groups = {entry.source_group for drawn in sampled for entry, _ in drawn}
    for label, (name, candidates) in enumerate(ordered.items()):
        chosen = {entry.name for entry, _ in sampled[label]}
        failed = {line.split(": ", 1)[0] for line in reader.skipped}
        others = [entry for entry in candidates if entry.name not in chosen | failed]
        apart = [e for e in others if e.source_group not in groups and not (explained and explained(e))]
        if not apart:
            leaky.append(name)
        training += [(label, entry, x) for entry, x in reader.take(apart or others, per_class)]
        held_out += [(label, entry, x) for entry, x in sampled[label]]
        if apart:
            kept = {entry.name for entry in apart}
            beside = (entry for entry in others if entry.name not in kept)
            held_out += [(label, entry, x) for entry, x in reader.take(beside, per_class // 4)]
    note = f"the head was fitted on other recordings of the explained clips' own sources for: {', '.join(leaky)}"
    fitted, judged = (labelled(part, reader.front_end) for part in (training, held_out))
    return fitted, judged, [note] if leaky else []


def labelled(recordings: list[tuple[int, Entry, Tensor]], front_end: FrontEnd) -> LabelledExamples:
    """Take at most `EXAMPLES_PER_CLIP` evenly spaced examples of each recording.

    They are grouped by source if every class has two sources, else by recording.
    """
    sources = {(label, entry.source_group) for label, entry, _ in recordings}
    labels = [label for label, _ in sources]
    by_source = all(labels.count(label) > 1 for label in set(labels))
    xs, ys, groups, clips = [front_end.silent_example()[:0]], [], [], []
    for label, entry, x in recordings:
        keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), EXAMPLES_PER_CLIP)).round().astype(int))
        xs.append(x[torch.from_numpy(keep)])
        ys += [label] * len(keep)
        groups += [entry.source_group if by_source else entry.name] * len(keep)
        clips += [entry.name] * len(keep)
    return LabelledExamples(torch.cat(xs), np.array(ys, dtype=np.int64), tuple(groups), tuple(clips))
