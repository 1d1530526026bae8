"""Read a folder of real recordings as a benchmark's `Dataset`.

Fourth step of the benchmark's flow, beside `datasets.synthetic`: a folder with one folder a class,
or with a ``clips.csv`` (columns ``file``, ``label``, ``source_group``), enters; a class-balanced
sample spread over the sources leaves, each clip as its loudest example, with the other recordings'
examples for the head, as `sampling` draws them.
"""

from __future__ import annotations

import os
from pathlib import Path

from relax_quantus.audio.reading import checked_resampler
from relax_quantus.benchmark.data.clips import Dataset
from relax_quantus.benchmark.data.sampling import Reader, draw, loudest
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.recordings.labelled import Entry, listing

__all__ = ["Entry", "folder", "listing", "loudest"]


def folder(
    path: str | os.PathLike[str],
    max_clips: int = 12,
    seed: int = 0,
    head_clips: int = 480,
    resampler: str = "soxr",
    clips_per_source: int | None = None,
    front_end: FrontEnd | None = None,
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
        Recordings for the head, balanced over classes; those of a sampled clip's source are held
        out wherever the class has another source.
    clips_per_source
        Explain at most so many clips of one source: what is said of sources gains more from another
        source than from another clip.
    resampler
        See `relax_quantus.audio.reading.resample`; one that does not import is refused before
        anything is read.
    front_end
        Makes the examples; None for VGGish's.

    Raises
    ------
    DataError
        See `listing`; also if fewer than two classes are left once bad recordings are skipped.
    """
    reader = Reader(checked_resampler(resampler), front_end=front_end)
    sample = draw(listing(path), str(path), max_clips, seed, head_clips, reader, of_a_source=clips_per_source)
    return sample.dataset(Path(path).resolve().name)
