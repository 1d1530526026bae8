"""Plant a shortcut in one class, to see whether maps find it.

The shortcut is a hum, or a low-pass, that has nothing to do with the animal. Fourth step of the
benchmark's flow, beside `recordings`: a folder of recordings enters; a data set leaves in which all
recordings of one class, those that the head is fitted on and those that it is judged on, have the
shortcut, and no others. The clips to explain, of every class, all carry it: a head that has learned
the shortcut calls them the shortcut's class, and a faithful map of that class's logit then points
at the shortcut. Whether the head has learned it is measured on held-out clips of the other classes
with the shortcut planted (`Dataset.swapped`); if it calls fewer than half of them the shortcut's
class, localisation does not apply.
"""

from __future__ import annotations

import os
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from relax_quantus.audio.reading import checked_resampler
from relax_quantus.base import checks
from relax_quantus.base.registry import nearest
from relax_quantus.benchmark.data.clips import Clip, Dataset, LabelledExamples
from relax_quantus.benchmark.data.degradations import low_pass
from relax_quantus.benchmark.data.recordings import listing
from relax_quantus.benchmark.data.sampling import Entry, Reader, Sample, draw, examples_of, labelled, loudness
from relax_quantus.benchmark.data.soundscapes import dominates
from relax_quantus.benchmark.data.synthetic_calls import SAMPLE_RATE_HZ
from relax_quantus.errors import DataError, UnknownNameError
from relax_quantus.frontend.front_end import FrontEnd

KINDS = ("hum", "low_pass")
HUM_HZ = (95.0, 125.0)
HARMONICS = 8
LOST = 0.5
DECIBEL = 20 / np.log(10)
"""Decibels of a natural-log unit."""

Wave = npt.NDArray[np.float32]


def hum(samples: int, rng: np.random.Generator, rate_hz: int = SAMPLE_RATE_HZ) -> npt.NDArray[np.float64]:
    """Make a mains-like hum of unit RMS: eight harmonics of a tone of 95 to 125 Hz.

    Amplitudes fall as 1 / sqrt(k); phases are random.
    """
    t = np.arange(samples) / rate_hz
    pitch_hz = rng.uniform(*HUM_HZ)
    phases = rng.uniform(0, 2 * np.pi, HARMONICS)
    parts = [np.sin(2 * np.pi * k * pitch_hz * t + phases[k - 1]) / np.sqrt(k) for k in range(1, HARMONICS + 1)]
    wave = np.sum(parts, axis=0)
    return np.asarray(wave / np.sqrt(np.mean(wave**2)))


def with_shortcut(
    entry: Entry, wave: Wave, kind: str, level_db: float, cutoff_hz: float, seed: int, rate_hz: int
) -> tuple[Wave, Wave]:
    """Return the recording with the shortcut and what was added to it, both ``(samples,)``.

    For a low-pass it is what was taken from it. Drawn from the seed and the recording's name alone.
    """
    if kind == "low_pass":
        changed = low_pass(wave.astype(np.float64), cutoff_hz, rate_hz).astype(np.float32)
        return changed, wave - changed
    rng = np.random.default_rng([seed, zlib.crc32(entry.name.encode()), 5])
    level = np.sqrt(np.mean(wave.astype(np.float64) ** 2)) * 10 ** (level_db / 20)
    added = (level * hum(wave.size, rng, rate_hz)).astype(np.float32)
    return wave + added, added


def shortcut(
    path: str | os.PathLike[str],
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    kind: str = "hum",
    label: str = "",
    level_db: float = -6.0,
    cutoff_hz: float = 1500.0,
    clips_per_source: int | None = None,
    front_end: FrontEnd | None = None,
) -> Dataset:
    """Plant a shortcut in one class of a folder.

    Parameters
    ----------
    path
        Folder of recordings, see `recordings.listing`.
    max_clips, seed, head_clips, resampler, clips_per_source, front_end
        As in `recordings.folder`.
    kind
        ``"hum"`` or ``"low_pass"``.
    label
        The class that carries it; empty for the first.
    level_db
        Of the hum, over the whole recording's RMS.
    cutoff_hz
        Of the low-pass, 24 dB an octave.

    Raises
    ------
    DataError
        See `recordings.folder`.
    """
    if kind not in KINDS:
        checks.refuse("kind", " or ".join(map(repr, KINDS)), repr(kind), nearest(str(kind), list(KINDS)))
    entries = listing(path)
    names = sorted({entry.label_name for entry in entries})
    label = str(label) or names[0]
    if label not in names:
        checks.refuse("label", "a class of the folder", repr(label), nearest(label, names), UnknownNameError)
    level, cutoff = checks.real("level_db", level_db), checks.positive("cutoff_hz", cutoff_hz)
    reader = Reader(checked_resampler(resampler), front_end=front_end)
    rate_hz = reader.front_end.rate_hz
    plant = partial(with_shortcut, kind=kind, level_db=level, cutoff_hz=cutoff, seed=seed, rate_hz=rate_hz)

    def change(entry: Entry, wave: Wave) -> Wave:
        return plant(entry, wave)[0] if entry.label_name == label else wave

    reader.change = change
    sample = draw(entries, str(path), max_clips, seed, head_clips, reader, of_a_source=clips_per_source)
    clips, swapped = explained(sample, plant, kind, label)
    settings = f"kind={kind},label={label}," + (f"level_db={level:g}" if kind == "hum" else f"cutoff_hz={cutoff:g}")
    return sample.dataset(
        f"shortcut:{Path(path).resolve().name},{settings}", clips, needs_good_head=False, swapped=swapped
    )


def explained(sample: Sample, plant: Any, kind: str, label: str) -> tuple[tuple[Clip, ...], LabelledExamples]:
    """Make clips of every sampled recording's loudest example with the shortcut.

    The examples of the other classes' recordings with the shortcut leave, too. Both are of the
    shortcut's class.
    """
    clips, swapped, index = [], [], sample.class_names.index(label)
    front_end = sample.reader.front_end
    for entry, _ in sample.sampled:
        wave = sample.reader.wave(entry)
        if wave is None:
            continue
        changed, part = plant(entry, wave)
        wave, changed, part = (examples_wave(w, front_end) for w in (wave, changed, part))
        x, plain = examples_of(changed, front_end), examples_of(wave, front_end)
        k = int(loudness(plain, front_end).argmax())
        own, other = (example(w, k, front_end) for w in (part, wave))
        truth, stem = _truth(kind, x[k].numpy(), plain[k].numpy(), own, other, front_end)
        clips.append(
            Clip(
                name=f"{entry.name} with {kind}",
                x=x[k],
                label=index,
                label_name=f"{entry.label_name} with {kind}",
                source_group=entry.source_group,
                stem=None if stem is None else examples_of(stem, front_end)[0],
                truth=truth,
            )
        )
        if entry.label_name != label:
            swapped.append((index, entry, x))
    if not swapped:
        raise DataError("max_clips: expected clips of other classes to plant the shortcut in, got none; raise it.")
    return tuple(clips), labelled(swapped, front_end)


def _truth(
    kind: str,
    x: npt.NDArray[np.float32],
    plain: npt.NDArray[np.float32],
    part: Wave,
    rest: Wave,
    front_end: FrontEnd,
) -> tuple[npt.NDArray[np.bool_], Wave | None]:
    """Find where the shortcut dominates; return this truth, and the stem if there is one.

    A hum, the stem, dominates where it is louder than the recording; a low-pass, which has no stem,
    where it takes more than half a log unit (4.3 dB).
    """
    if kind == "hum":
        return dominates(part, rest, front_end), part
    lost = LOST if front_end.natural_log else LOST * DECIBEL
    return np.asarray(plain[0] - x[0] > lost), None


def examples_wave(wave: Wave, front_end: FrontEnd) -> Wave:
    """Pad the recording with silence to one example."""
    return np.pad(wave, (0, max(0, front_end.example_samples - wave.size))).astype(np.float32)


def example(wave: Wave, index: int, front_end: FrontEnd) -> Wave:
    """Return the samples of an example of a recording."""
    start = index * front_end.samples_apart
    return wave[start : start + front_end.example_samples]
