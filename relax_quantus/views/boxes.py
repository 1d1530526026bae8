"""Maps -> boxes in seconds and Hz, and boxes -> the files that people who annotate sound open.

Raven's selection tables, Audacity's label tracks.

A leaf of the flow beside the pictures: maps ``(n, 1, T, F)`` of examples end to end enter, at once
(`regions`) or in parts (`RegionFinder`); `Region` objects and text files leave.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from relax_quantus.base import checks
from relax_quantus.base.checks import printable
from relax_quantus.base.files import complete, write_text
from relax_quantus.errors import ShapeError
from relax_quantus.frontend.examples import Axis, Image
from relax_quantus.frontend.log_mel import LogMelAxis, hz_to_mel
from relax_quantus.views.thresholds import Bins, Bounds, Values, as_values, is_explanation, least_effect, standing_out

if TYPE_CHECKING:
    from torch import Tensor

    from relax_quantus.recordings.stitching import Stitched
    from relax_quantus.relax.explanation import Explanation

LABEL = "matters"
RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Annotation", "Score", "z"),
)
RAVEN_FILE_COLUMNS = ("Begin File", "Begin Path", "File Offset (s)")
"""With which Raven finds the sound file, also in a sequence of several."""


@dataclass(frozen=True)
class Region:
    """The smallest box around connected bins that stand out.

    Attributes
    ----------
    score
        Mean of their values.
    bins
        Their number.
    z
        Largest ``|value|`` / standard error among them; NaN where errors were not given.
    """

    begin_s: float
    end_s: float
    low_hz: float
    high_hz: float
    score: float
    bins: int
    z: float = math.nan


def regions(
    values: Explanation | Stitched | Tensor | npt.NDArray[Any],
    threshold: float | None = None,
    *,
    axis: Axis | None = None,
    least_bins: int = 4,
    end_s: float = math.inf,
    highest_hz: float = math.inf,
) -> list[Region]:
    """Find the regions of a map that stand out.

    Parameters
    ----------
    values
        The explanation of a recording's examples, from ``explain(null=True)``, or a map stitched of
        them (`relax_quantus.Stitched`): what chance draws has no region, nor have examples in which
        the network hears nothing (`relax_quantus.views.thresholds.standing_out`). Or any map ``(n,
        1, T, F)``, drawn end to end, of which nothing is known but its values; NaN is above
        nothing.
    threshold
        In the map's units, for effects; by default a fraction of the largest
        (`relax_quantus.views.thresholds.least_effect`).
    axis
        What the axes stand for; VGGish's front end from 0 s by default.
    least_bins
        Smaller regions are left out.
    end_s, highest_hz
        Where the recording ends, and half its own sample rate: boxes reach no further, and what
        lies beyond has none. Examples may be padded, and front ends may have bands above.

    Returns
    -------
    list of Region
        By time. A frame lasts from half a hop before to half a hop after its window's middle, a
        band reaches half-way (in mel) to its neighbours' centres. Bins that touch at a side are
        connected, also from one example to the next.

    Raises
    ------
    ShapeError, ArgumentError
        If `values` has another shape or bands are no frequencies.

    Examples
    --------
    >>> values = np.zeros((1, 1, 96, 64))
    >>> values[0, 0, 10:30, 20:30] = 1.0
    >>> [(round(r.begin_s, 4), round(r.end_s, 4), r.score) for r in regions(values, 0.5)]
    [(0.1075, 0.3075, 1.0)]
    """
    axis = axis or LogMelAxis()
    e = values if is_explanation(values) else None
    found = as_values(values if e is None else e.centred())
    if e is not None and found.ndim == 2:  # a map over time, stitched of examples
        found = found[None, None]
    if found.ndim != 4 or found.shape[1] != 1 or found.size == 0 or found.shape[3] != axis.bands:
        checks.refuse("values", f"shape (n, 1, T, {axis.bands})", found, "pass a map of that front end", ShapeError)
    bounds: float | Bounds
    if e is None:
        bounds, z = least_effect(found) if threshold is None else threshold, None
    else:
        standing = standing_out(e)
        bounds = standing.bounds if threshold is None else replace(standing.bounds, effect=float(threshold))
        z = _image(standing.z.reshape(found.shape))
    finder = RegionFinder(bounds, axis=axis, least_bins=least_bins, end_s=end_s, highest_hz=highest_hz)
    finder.feed(_image(found), z)
    return finder.finish()


def _image(values: Values) -> Image:
    """Maps ``(n, 1, T, F)`` end to end, ``(F, n T)``."""
    return values.reshape(-1, values.shape[3]).T


@dataclass
class _Growing:
    """A region whose end has not been seen.

    Its box in frames and bands, the sum over its bins, the largest ``|z|``.
    """

    first: int
    last: int
    low: int
    high: int
    total: float
    bins: int
    z: float

    def join(self, other: _Growing) -> None:
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.total, self.bins = self.total + other.total, self.bins + other.bins
        self.z = max(self.z, other.z)


class RegionFinder:
    """Finds the regions of a map that comes in parts, as `regions` does of a whole one.

    Keeps no more than the regions.

    Parameters
    ----------
    bounds
        Of the map (`relax_quantus.views.thresholds.Bounds`), or a threshold in its units alone; NaN
        has nothing above it.
    axis, least_bins, end_s, highest_hz
        As in `regions`.

    Raises
    ------
    ArgumentError
        If bands are no frequencies.
    """

    def __init__(
        self,
        bounds: float | Bounds,
        *,
        axis: Axis | None = None,
        least_bins: int = 4,
        end_s: float = math.inf,
        highest_hz: float = math.inf,
    ) -> None:
        # as tables round: to microseconds and thousandths of a hertz, downwards
        self._end_s, self._highest_hz = _rounded_down(end_s, 6), _rounded_down(highest_hz, 3)
        self.axis, self.least_bins = axis or LogMelAxis(), checks.integer("least_bins", least_bins)
        self.bounds = bounds
        self._edges_hz = _edges_hz(self.axis)
        self._start_s = float(self.axis.times_s(1)[0]) - self.axis.hop_s / 2
        self._frames = 0
        self._open: list[_Growing] = []
        # which open region a band of the last frame is in, from 1
        self._border = np.zeros(self.axis.bands, dtype=int)
        self._done: list[Region] = []

    def feed(self, image: Image, z: Image | None = None) -> None:
        """Take the next frames ``(F, frames)``, at least one.

        With `z`, which `Bounds` need, regions say their largest.
        """
        from scipy.ndimage import label

        labels, count = label(self._stands_out(image, z))
        grown = self._open + self._boxes(image, z, labels)
        before = len(self._open)
        parent = list(range(before + count))

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = i = parent[parent[i]]
            return i

        for old, new in set(zip(self._border.tolist(), labels[:, 0].tolist(), strict=True)):
            if old and new and root(old - 1) != root(before + new - 1):
                gone, kept = root(before + new - 1), root(old - 1)
                parent[gone] = kept
                grown[kept].join(grown[gone])
        roots = [root(i) for i in range(len(grown))]
        still = sorted({roots[before + new - 1] for new in labels[:, -1].tolist() if new})
        self._done += [self._region(grown[i]) for i in sorted(set(roots) - set(still)) if self._counts(grown[i])]
        place = {i: number for number, i in enumerate(still, start=1)}
        self._open = [grown[i] for i in still]
        self._border = np.array([place[roots[before + new - 1]] if new else 0 for new in labels[:, -1].tolist()])
        self._frames += image.shape[1]

    def finish(self) -> list[Region]:
        """The regions by time, once all frames were fed."""
        self._done += [self._region(growing) for growing in self._open if self._counts(growing)]
        self._open = []
        inside = (r for r in self._done if r.begin_s < r.end_s and r.low_hz < r.high_hz)
        return sorted(inside, key=lambda region: (region.begin_s, region.low_hz))

    def _stands_out(self, image: Image, z: Image | None) -> Bins:
        if not isinstance(self.bounds, Bounds):
            return np.asarray(np.nan_to_num(image, nan=-np.inf) > self.bounds)
        return self.bounds.passed(image, np.full_like(image, np.nan) if z is None else z)

    def _boxes(self, image: Image, z: Image | None, labels: npt.NDArray[Any]) -> list[_Growing]:
        from scipy.ndimage import find_objects

        boxes = []
        for number, (bands, frames) in enumerate(find_objects(labels), start=1):
            here = labels[bands, frames] == number
            inside = image[bands, frames][here]
            largest = math.nan if z is None else float(np.abs(z[bands, frames][here]).max())
            first, last = self._frames + frames.start, self._frames + frames.stop
            total, size = float(inside.sum()), int(inside.size)
            boxes.append(_Growing(first, last, bands.start, bands.stop, total, size, largest))
        return boxes

    def _counts(self, growing: _Growing) -> bool:
        return growing.bins >= self.least_bins

    def _region(self, growing: _Growing) -> Region:
        begin_s, end_s = (self._start_s + frame * self.axis.hop_s for frame in (growing.first, growing.last))
        low_hz, high_hz = float(self._edges_hz[growing.low]), float(self._edges_hz[growing.high])
        end_s, high_hz = min(end_s, self._end_s), min(high_hz, self._highest_hz)
        score = growing.total / growing.bins
        return Region(max(0.0, begin_s), end_s, low_hz, high_hz, score, growing.bins, growing.z)


def _rounded_down(value: float, digits: int) -> float:
    return math.floor(value * 10**digits) / 10**digits if math.isfinite(value) else value


def _edges_hz(axis: Axis) -> Image:
    """Where one band ends and the next begins, shape (F + 1,), in Hz."""
    centres = axis.centres_hz
    if centres is None or centres.size < 2:
        checks.refuse("axis", "bands that are frequencies", axis.label, "use a spectrogram's front end")
    mel = hz_to_mel(centres)
    middles = (mel[1:] + mel[:-1]) / 2
    edges = np.concatenate([[2 * mel[0] - middles[0]], middles, [2 * mel[-1] - middles[-1]]])
    return np.maximum(700.0 * np.expm1(edges / 1127.0), 0.0)


def write_raven(
    path: str | os.PathLike[str],
    found: Sequence[Region],
    label: str = LABEL,
    *,
    recording: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a selection table for Raven: tab-separated, a row a region, with columns Score and z.

    Without regions it has its header only. An unknown z is left empty.

    Parameters
    ----------
    path
        The file to write.
    found
        In seconds of the recording.
    label
        Of all regions.
    recording
        The sound file that they are about; named in every row, so that the table is never taken for
        another file's.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path, label = Path(path), _one_line(label)
    named = () if recording is None else (Path(recording).name, str(Path(recording).absolute()))
    with complete(path) as draft, draft.open("w", encoding="utf-8", newline="") as target:
        table = csv.writer(target, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
        table.writerow(RAVEN_COLUMNS + (RAVEN_FILE_COLUMNS if named else ()))
        for number, r in enumerate(found, start=1):
            limits = (f"{r.begin_s:.6f}", f"{r.end_s:.6f}", f"{r.low_hz:.3f}", f"{r.high_hz:.3f}")
            whose = (*map(printable, named), f"{r.begin_s:.6f}") if named else ()
            table.writerow((number, "Spectrogram 1", 1, *limits, label, f"{r.score:.6g}", _z(r), *whose))
    return path


def write_audacity(path: str | os.PathLike[str], found: Sequence[Region], label: str = LABEL) -> Path:
    """Write a label track for Audacity with spectral selections.

    Each label is `label`, the score and z.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path, label = Path(path), _one_line(label)
    lines = (
        f"{r.begin_s:.6f}\t{r.end_s:.6f}\t{label} {r.score:.6g}{f' z {_z(r)}' if _z(r) else ''}\n"
        f"\\\t{r.low_hz:.6f}\t{r.high_hz:.6f}\n"
        for r in found
    )
    return write_text(path, "".join(lines))


def _z(region: Region) -> str:
    return "" if math.isnan(region.z) else f"{region.z:.3g}"


def _one_line(label: str) -> str:
    """A label without the tabs and line ends that would break the formats."""
    return " ".join(label.split())
