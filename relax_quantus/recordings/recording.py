"""What was found about one recording: maps over its own time axis, and what can be made of them.

Last step of the flow of this room: the blocks of `relax_quantus.recordings.explaining` enter, a
`RecordingExplanation` leaves, short or long. Of a long recording the maps are memory maps, and
whatever is made of them is made a stretch at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import torch

from relax_quantus.audio.reading import measure_extent, read_audio
from relax_quantus.base import checks
from relax_quantus.base.files import ResultFiles
from relax_quantus.base.registry import nearest
from relax_quantus.errors import UnknownNameError
from relax_quantus.frontend.examples import Image
from relax_quantus.recordings.explaining import EACH, Array, Blocks, part
from relax_quantus.recordings.pages import write_page
from relax_quantus.recordings.plan import Plan
from relax_quantus.recordings.stitching import heard_frames
from relax_quantus.recordings.writing import Written, picture, say_scale, write_arrays
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views import thresholds
from relax_quantus.views.boxes import Region, RegionFinder, write_audacity, write_raven
from relax_quantus.views.maps import save_png
from relax_quantus.views.sounds import Parts, separate, transition, write_separated
from relax_quantus.views.thresholds import Bounds, Values, bounds_of_parts, deviation_of_parts

if TYPE_CHECKING:
    from relax_quantus.recordings.session import Session

STRETCH = 1 << 19
"""Values of a map that are worked on at a time."""
SOFTNESS = 0.25
"""Of gains, as of `relax_quantus.views.sounds.gain`."""


@dataclass(frozen=True, eq=False)
class RecordingMap:
    """Hold the map of a recording under one masking strategy and one fill.

    Attributes
    ----------
    importance, uncertainty, standard_error, centred_standard_error, neutral, cell_effects
        ``(frames, F)``, as in `relax_quantus.Explanation`, over the recording's own time axis:
        averaged over the examples that hold a frame (`relax_quantus.stitch`); F = 1 for waveforms.
        NaN where nothing is known.
    mean_similarity, fully_masked_similarity, compared_with_itself, n_samples, spearman
        ``(n,)``: of each example.
    null_maxima, null_statistic
        ``(n, P)`` and ``(n,)``: what chance draws in each example.
    """

    strategy: str
    fill: str
    estimator: str
    plan: Plan = field(repr=False)
    importance: Array = field(repr=False)
    uncertainty: Array = field(repr=False)
    standard_error: Array = field(repr=False)
    centred_standard_error: Array = field(repr=False)
    neutral: Array = field(repr=False)
    cell_effects: Array | None = field(repr=False)
    mean_similarity: Array = field(repr=False)
    fully_masked_similarity: Array = field(repr=False)
    compared_with_itself: Array = field(repr=False)
    n_samples: Array = field(repr=False)
    null_maxima: Array = field(repr=False)
    null_statistic: Array = field(repr=False)
    spearman: Array = field(repr=False)

    @property
    def kinds(self) -> dict[str, Array]:
        """The maps by name."""
        names = ("importance", "uncertainty", "standard_error", "centred_standard_error", "neutral", "cell_effects")
        return {name: values for name in names if (values := getattr(self, name)) is not None}

    @property
    def centred(self) -> Array:
        """Importance less its value if no bin mattered, ``(frames, F)``.

        Positive where keeping keeps the embedding.
        """
        found: Array = np.asarray(self.importance) - np.asarray(self.neutral)
        return found

    @property
    def hears_nothing(self) -> Array:
        """In which examples the network hears nothing, ``(n,)`` bool.

        See `relax_quantus.Explanation`.
        """
        louder = self.fully_masked_similarity >= self.mean_similarity
        return np.asarray(louder & self.compared_with_itself.astype(bool))

    @cached_property
    def heard(self) -> Array:
        """Whether the network hears anything in an example that holds a frame, ``(frames,)``."""
        deaf = torch.from_numpy(self.hears_nothing)
        return np.asarray(heard_frames(deaf, self.plan.hop, self.plan.per_example).numpy())

    @cached_property
    def bounds(self) -> Bounds:
        """What a bin has to pass to stand out.

        The threshold of chance over the whole recording, and its p-value.
        """
        maxima, statistic = torch.from_numpy(self.null_maxima), torch.from_numpy(self.null_statistic)
        return bounds_of_parts(self.parts, maxima, statistic, torch.from_numpy(self.hears_nothing))

    @property
    def verdict(self) -> str:
        """Say that nothing stands out, or that nothing is heard.

        Empty if there is nothing to say.
        """
        return self.bounds.in_words

    def stretches(self) -> Iterator[tuple[slice, dict[str, Array]]]:
        """Yield all maps a stretch of frames at a time, which bounds the memory."""
        size = max(1, STRETCH // self.importance.shape[1])
        for start in range(0, len(self.importance), size):
            rows = slice(start, start + size)
            yield rows, {name: part(values, rows) for name, values in self.kinds.items()}

    def parts(self) -> Iterator[tuple[Values, Values]]:
        """Yield centred importance and, in standard errors, z.

        NaN where it is unknown and where nothing is heard.
        """
        size = max(1, STRETCH // self.importance.shape[1])
        for start in range(0, len(self.importance), size):
            rows = slice(start, start + size)
            centred = part(self.importance, rows) - part(self.neutral, rows)
            with np.errstate(divide="ignore", invalid="ignore"):
                z = (centred / part(self.centred_standard_error, rows)).astype(np.float64)
            z[~self.heard[rows]] = np.nan
            yield centred.astype(np.float64), z

    def gains(self) -> Gains:
        """Return how much of each bin is kept in sounds, ``(rows, F)`` a stretch at a time."""
        return Gains(self)

    def explanation(self) -> Explanation:
        """Return the map as the explanation of the examples that it was made from, laid end to end.

        Raises
        ------
        ArgumentError
            If they overlap.
        """
        if self.plan.hop != self.plan.per_example:
            checks.refuse("explanation", "examples end to end", "some that overlap", "use the maps themselves")
        count = self.plan.count
        flat = self.plan.reading is not None and self.plan.reading.examples.ndim == 2
        shape = (count, -1) if flat else (count, 1, self.plan.per_example, self.importance.shape[1])
        maps = {
            name: torch.from_numpy(values if values.flags.writeable else np.array(values)).reshape(shape)
            for name, values in self.kinds.items()
        }
        return Explanation(
            **maps,
            **{name: torch.from_numpy(getattr(self, name)) for name in EACH},
            estimator=self.estimator,
        )


@dataclass(frozen=True)
class Gains:
    """Yield how much of each bin of a map is kept, a stretch at a time, as often as asked."""

    of: RecordingMap

    def __iter__(self) -> Iterator[Values]:
        bounds = self.of.bounds
        width = SOFTNESS * deviation_of_parts(centred for centred, _ in self.of.parts())
        for centred, z in self.of.parts():
            if bounds.is_empty:
                yield np.zeros(centred.shape)
                continue
            with np.errstate(invalid="ignore"):
                yield transition(centred, bounds.effect, width) * (np.abs(z) > bounds.z)


@dataclass(frozen=True, eq=False)
class RecordingExplanation:
    """Hold what RELAX says of a recording.

    Made by `relax_quantus.explain_recording` and `relax_quantus.Session`.

    With several strategies or fills there are several maps, in `maps`; what a map has is also had
    of the first one directly, as `importance`, and the methods take the name of another.

    Attributes
    ----------
    maps
        `RecordingMap` by the name of its strategy; with several fills by ``"strategy.fill"``.
    x
        Frames ``(frames, F)`` that the network heard; F = 1 for waveforms.
    embedding, probabilities
        ``(n, D)`` and, with a classifier, ``(n, classes)``: of each example.
    """

    session: Session = field(repr=False)
    plan: Plan = field(repr=False)
    maps: Mapping[str, RecordingMap]
    x: Array = field(repr=False)
    embedding: Array = field(repr=False)
    probabilities: Array | None = field(repr=False)
    store: Blocks = field(repr=False)
    scratch: tuple[TemporaryDirectory[str], ...] = field(default=(), repr=False)

    @property
    def path(self) -> Path:
        """The recording's file."""
        return self.plan.path

    @property
    def first(self) -> RecordingMap:
        """The map of the first strategy and fill."""
        return next(iter(self.maps.values()))

    @property
    def importance(self) -> Array:
        """Importance ``(frames, F)`` of the first map."""
        return self.first.importance

    @property
    def centred(self) -> Array:
        """Centred importance ``(frames, F)`` of the first map."""
        return self.first.centred

    @property
    def uncertainty(self) -> Array:
        """Uncertainty ``(frames, F)`` of the first map."""
        return self.first.uncertainty

    @property
    def standard_error(self) -> Array:
        """Standard error of the importance ``(frames, F)`` of the first map."""
        return self.first.standard_error

    @property
    def centred_standard_error(self) -> Array:
        """Standard error of the centred importance ``(frames, F)`` of the first map."""
        return self.first.centred_standard_error

    @property
    def times_s(self) -> Image:
        """Middle of each frame in seconds from the recording's beginning.

        NaN where frames are only counted.
        """
        axis, frames = self.plan.axis, self.plan.frames
        return axis.times_s(frames) if axis.in_seconds else np.full(frames, np.nan)

    @property
    def frequencies_hz(self) -> Image | None:
        """Centre of each band in Hz; None where bands are no frequencies."""
        return self.plan.axis.centres_hz

    @property
    def bounds(self) -> dict[str, Bounds]:
        """What bins have to pass to stand out, by the name of the map."""
        return {name: found.bounds for name, found in self.maps.items()}

    @property
    def verdict(self) -> str:
        """Say in which maps nothing stands out, or nothing is heard.

        Empty if there is nothing to say.
        """
        return thresholds.in_words(self.bounds)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the maps depend on, and what stands out in them."""
        plan, axis = self.plan, self.plan.axis
        stitched: dict[str, Any] = {}
        if plan.is_stitched:
            stitched = {"hop_s": plan.hop * axis.hop_s, "example_s": plan.example_s, "stitched": True}
        return {
            **self.session.described(),
            "clip": str(plan.path.resolve()),
            "seconds": plan.seconds,
            "examples": plan.count,
            "examples_in_all": plan.in_all,
            "left_out_s": plan.left_out_s if np.isfinite(plan.left_out_s) else None,
            "estimator": {name: found.estimator for name, found in self.maps.items()},
            "standing_out": self.facts(),
            **stitched,
        }

    @cached_property
    def errors(self) -> dict[str, dict[str, dict[str, float]]]:
        """How large both errors of each map are.

        Mean, largest, and the share of bins whose error is unknown.
        """
        return {
            name: {
                kind: thresholds.measure_errors(parts[kind] for _, parts in found.stretches())
                for kind in thresholds.ERRORS
            }
            for name, found in self.maps.items()
        }

    def facts(self, regions: Mapping[str, list[Region]] | None = None) -> dict[str, Any]:
        """Return what programs are told of each map; regions where they were looked for."""
        deaf = {name: found.hears_nothing.tolist() for name, found in self.maps.items()}
        return thresholds.facts(self.bounds, self.errors, deaf, regions)

    def map(self, name: str | None = None) -> RecordingMap:
        """Return a map by its name; the first without one.

        Raises
        ------
        UnknownNameError
            If there is none of that name.
        """
        if name is None:
            return self.first
        if name not in self.maps:
            hint = nearest(name, list(self.maps))
            raise UnknownNameError(f"name: expected the name of a map, got {name!r}; {hint}.")
        return self.maps[name]

    def regions(self, name: str | None = None, *, least_bins: int = 4) -> list[Region]:
        """Find the boxes around what stands out, by time, within the recording's length and band.

        Parameters
        ----------
        name
            Of the map; the first by default.
        least_bins
            Smaller regions are left out.

        Raises
        ------
        ArgumentError
            If bands are no frequencies.
        """
        found, (seconds, rate_hz) = self.map(name), self._extent
        finder = RegionFinder(
            found.bounds, axis=self.plan.axis, least_bins=least_bins, end_s=seconds, highest_hz=rate_hz / 2
        )
        for centred, z in found.parts():
            finder.feed(centred.T, z.T)
        return finder.finish()

    def sounds(self, name: str | None = None) -> Parts:
        """Split the recording, at its own rate, into what a map keeps and the rest.

        Parameters
        ----------
        name
            Of the map; the first by default.

        Raises
        ------
        ArgumentError
            If bands are no frequencies.
        """
        gains = np.concatenate(list(self.map(name).gains()))
        wave, rate_hz = read_audio(self.path)
        flat = self.session.front_end.of_waveforms
        return separate(wave, rate_hz, gains.reshape(1, -1) if flat else gains[None, None], self.plan.axis)

    def plot(self) -> Any:
        """Draw all maps: the matplotlib figure that the command line writes as PNG."""
        return picture(self)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write a page that shows and plays what matters, in one file that opens anywhere.

        Return its path.

        Raises
        ------
        ArgumentError
            If examples are waveforms.
        OSError
            If it cannot be written.
        """
        write_page(self, Path(path))
        return Path(path)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write all arrays and settings as the .npz that the command line writes; return its path.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_arrays(self, Path(path))
        return Path(path)

    def write(
        self,
        out: str | os.PathLike[str],
        *,
        html: bool = False,
        sounds: bool = False,
        annotations: bool = False,
        uninterrupted: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Written:
        """Write the picture and the arrays into a folder, and what else is asked for.

        What earlier runs wrote about the recording makes way.

        Parameters
        ----------
        out
            The folder; made if need be.
        html
            A page that shows and plays what matters.
        sounds
            What matters and all the rest, as two FLAC files a map.
        annotations
            What matters, as Raven selections and Audacity labels, a file of each a map.
        uninterrupted
            A context in which nothing may stop the program; files are moved in it.

        Raises
        ------
        RelaxQuantusError, OSError
            If it cannot be written; nothing is, then.
        """
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        suffixes: dict[str, Any] = {"picture": "png", "arrays": "npz"}
        entry, boxes = None, None
        with ResultFiles(self.path, out, uninterrupted) as files:
            write_arrays(self, files.draft("npz"))
            save_png(picture(self), files.draft("png"))
            if html:
                suffixes["page"] = "html"
                entry = write_page(self, files.draft("html"))
            if sounds:
                suffixes |= {part: {name: f"{name}.{part}.flac" for name in self.maps} for part in ("kept", "removed")}
                for name, its in self.maps.items():
                    kept, removed = (files.draft(f"{name}.{part}.flac") for part in ("kept", "removed"))
                    scale = write_separated(self.path, kept, removed, its.gains(), self.plan.frames, self.plan.axis)
                    say_scale(self.path, name, scale)
            if annotations:
                boxes = {name: self.regions(name) for name in self.maps}
                for kind in ("selections", "labels"):
                    suffixes[kind] = {name: f"{name}.{kind}.txt" for name in self.maps}
                for name, regions in boxes.items():
                    write_raven(files.draft(f"{name}.selections.txt"), regions, recording=self.path)
                    write_audacity(files.draft(f"{name}.labels.txt"), regions)
            stem = files.publish()

        def named(suffix: Any) -> Any:
            return {k: named(v) for k, v in suffix.items()} if isinstance(suffix, dict) else out / f"{stem}.{suffix}"

        line = None if entry is None else replace(entry, link=quote(f"{stem}.html"))
        return Written(named(suffixes), boxes, line)

    def remove_blocks(self) -> None:
        """Delete the blocks on disk that another run would go on from.

        The maps of a long recording are gone then.
        """
        self.store.remove()

    @cached_property
    def _extent(self) -> tuple[float, int]:
        length = measure_extent(self.path)
        return length.seconds, length.rate_hz
