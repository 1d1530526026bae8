"""What is left of a long recording: a picture, an .npz with the stitched maps, and a page, sounds and annotations if asked for.

Everything is written from the blocks, a block at a time, so that it needs no more memory for an hour than for a minute.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from relax_quantus.audio import measure_extent
from relax_quantus.commands.clips import LEAST_LEFT_S, Models, left_out
from relax_quantus.commands.console import shown
from relax_quantus.commands.front_ends import duration
from relax_quantus.commands.long_recordings.explaining import EACH, estimators
from relax_quantus.commands.long_recordings.plan import Plan
from relax_quantus.commands.long_recordings.reading import Stored
from relax_quantus.commands.pages import say_scale
from relax_quantus.commands.requests.explain import ExplainRequest
from relax_quantus.commands.result_files import ResultFiles
from relax_quantus.commands.results import headline, settings_of, shortened
from relax_quantus.drafts import complete
from relax_quantus.listening import transition
from relax_quantus.overview import CENTRED, Overview, loudest, telling
from relax_quantus.overview_plotting import column_frames, overview_figure
from relax_quantus.plotting import save_png
from relax_quantus.regions import RegionFinder, write_audacity, write_raven
from relax_quantus.streamed_listening import write_separated
from relax_quantus.thresholds import Values, scale_of_parts

SOFTNESS = 0.25
"""As of `relax_quantus.listening.gain`."""
COMPRESSION = 1
"""zlib's level: maps shrink little more with a higher one, and an hour has many."""


def write_arrays(stored: Stored, request: ExplainRequest, models: Models, path: Path) -> None:
    """Write the .npz: maps ``(T_total, F)`` over the recording's own time axis, and what there is one of an example."""
    plan, axis = stored.plan, models.front_end.axis
    arrays = {
        "settings": np.array(json.dumps(described(stored, request, models), sort_keys=True)),
        "times_s": axis.times_s(plan.frames),
        "example_start_s": axis.start_s + np.arange(plan.count) * plan.hop * axis.hop_s,
        "embedding": stored.each("embedding"),
    }
    if axis.centres_hz is not None:
        arrays["frequencies_hz"] = axis.centres_hz
    if stored.probabilities is not None:
        arrays["probabilities"] = stored.probabilities.numpy()
    for kind, anchor in (("towards", models.towards), ("away", models.away)):
        if anchor is not None:
            arrays[kind] = anchor.embedding.numpy()
    for label in stored.labels:
        arrays |= {f"{kind}_{label}": stored.each(f"{kind}_{label}") for kind in (*EACH, "spearman")}
    maps = {"x": stored.rows("x")}
    for label in stored.labels:
        maps |= {f"{kind}_{label}": stored.rows(f"{kind}_{label}") for kind in stored.kinds(label)}
    write_npz(path, arrays, maps, (plan.frames, stored.bands))


def write_npz(path: Path, arrays: Mapping[str, Any], maps: Mapping[str, Iterator[Any]], shape: tuple[int, int]) -> None:
    """Write arrays, and float32 maps of one `shape` that come in rows, as a compressed .npz without pickles."""
    deflated = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": COMPRESSION, "allowZip64": True}
    with complete(path) as draft, zipfile.ZipFile(draft, "w", **deflated) as archive:  # type: ignore[call-overload]
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)
        for name, parts in maps.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for part in parts:
                    member.write(np.ascontiguousarray(part, "<f4").tobytes())


def described(stored: Stored, request: ExplainRequest, models: Models) -> dict[str, Any]:
    """Everything that the arrays depend on."""
    plan, axis = stored.plan, models.front_end.axis
    return {
        **settings_of(request, models),
        "clip": str(plan.path.resolve()),
        "seconds": plan.samples / models.front_end.rate_hz,
        "examples": plan.count,
        "examples_in_all": plan.in_all,
        "hop_s": plan.hop * axis.hop_s,
        "example_s": plan.framing.per_example * axis.hop_s,
        "left_out_s": left_out_s(plan, models),
        "stitched": True,
        "estimator": estimators(stored.store, plan, stored.labels),
    }


def left_out_s(plan: Plan, models: Models) -> float:
    """Seconds at the recording's end that no example holds."""
    return left_out(plan.samples / models.front_end.rate_hz, plan.frames, models.front_end.axis)


def overview_of(stored: Stored, models: Models) -> Overview:
    """The recording in as many columns as its picture has room for."""
    axis, plan = models.front_end.axis, stored.plan
    size = column_frames(plan.frames, axis.hop_s)
    maps = {label: telling(_together(stored, label), size) for label in stored.labels}
    return Overview(loudest(stored.rows("x"), size), maps, size * axis.hop_s)


def _together(stored: Stored, label: str) -> Iterator[dict[str, Any]]:
    """All maps of a label, block by block."""
    kinds = stored.kinds(label)
    for parts in zip(*(stored.rows(f"{kind}_{label}") for kind in kinds), strict=True):
        found = dict(zip(kinds, parts, strict=True))
        yield {**found, CENTRED: found["importance"] - found["neutral"]}


def write_picture(stored: Stored, overview: Overview, request: ExplainRequest, models: Models, path: Path) -> Path:
    """Draw the overview."""
    title = headline(stored.plan.path, stored.probabilities, models)
    figure = overview_figure(
        overview, models.front_end.axis, title=title, notes=notes(stored, overview, request, models)
    )
    return save_png(figure, path)


def notes(stored: Stored, overview: Overview, request: ExplainRequest, models: Models) -> str:
    """What a reader of the picture needs to know."""
    front_end, plan = models.front_end, stored.plan
    means = ", ".join(f"{label} {stored.mean(f'mean_similarity_{label}'):.2f}" for label in stored.labels)
    alone = stored.mean(f"fully_masked_similarity_{stored.labels[0]}")
    known = estimators(stored.store, plan, stored.labels)
    return (
        f"{extent(stored, models)}; towards {models.question}\n"
        f"front end {shortened(front_end.text)}, encoder {shortened(request.encoder.encoder)}, fill {', '.join(request.baselines)}, "
        f"{request.similarity}, {masks_used(stored, request)}, estimator {', '.join(dict.fromkeys(known.values()))}, seed {request.seed}\n"
        f"mean similarity: {means}; of the fill alone {alone:.2f}\n"
        f"A column is {overview.column_s:.2f} s: of each band the moment farthest from the mean, in the spectrogram the loudest. "
        "Red: masks that keep this part leave the embedding closer to\nwhat it is compared with than masks do on average; blue: less. "
        "Pale: within three standard errors of that. Grey: not explained."
    )


def extent(stored: Stored, models: Models) -> str:
    """How much was explained, in words."""
    plan, axis = stored.plan, models.front_end.axis
    example_s, hop_s = plan.framing.per_example * axis.hop_s, plan.hop * axis.hop_s
    overlap = "end to end" if plan.hop == plan.framing.per_example else f"every {duration(hop_s)} s, averaged"
    return (
        f"{plan.count} of {plan.in_all} examples of {duration(example_s)} s, {overlap}: "
        f"{plan.frames * axis.hop_s:.1f} of {plan.samples / models.front_end.rate_hz:.1f} s{_ending(plan, models)}"
    )


def _ending(plan: Plan, models: Models) -> str:
    left = left_out_s(plan, models)
    return f", the last {left:.2f} s are left out" if left >= LEAST_LEFT_S else ""


def masks_used(stored: Stored, request: ExplainRequest) -> str:
    """How many masks the examples took, in words."""
    if request.tolerance is None:
        return f"{request.n_samples} masks a strategy{' and fill' if len(request.baselines) > 1 else ''}"
    used = np.concatenate([stored.each(f"n_samples_{label}") for label in stored.labels])
    used = used[used > 0]
    low, high = (int(used.min()), int(used.max())) if used.size else (0, 0)
    return f"{low if low == high else f'{low} to {high}'} masks an example, tolerance {request.tolerance:g}"


def write_annotations(stored: Stored, models: Models, files: ResultFiles) -> None:
    """Write the regions above each map's threshold, found across blocks."""
    length = measure_extent(stored.plan.path)
    for label in stored.labels:
        threshold = scale_of_parts(partial(stored.centred, label)).level
        finder = RegionFinder(
            threshold, axis=models.front_end.axis, end_s=length.seconds, highest_hz=length.rate_hz / 2
        )
        for part in stored.centred(label):
            finder.feed(part.T)
        found = finder.finish()
        write_raven(files.draft(f"{label}.selections.txt"), found, recording=stored.plan.path)
        write_audacity(files.draft(f"{label}.labels.txt"), found)


def write_sounds(stored: Stored, models: Models, files: ResultFiles) -> None:
    """Write what matters and all the rest as two sounds a map."""
    plan, axis = stored.plan, models.front_end.axis
    for label in stored.labels:
        scale = scale_of_parts(partial(stored.centred, label))
        gains = Gains(stored, label, scale.level, SOFTNESS * scale.deviation)
        kept, removed = (files.draft(f"{label}.{part}.flac") for part in ("kept", "removed"))
        say_scale(plan.path, label, write_separated(plan.path, kept, removed, gains, plan.frames, axis))


@dataclass(frozen=True)
class Gains:
    """How much of each bin of a map is kept, block by block, as often as it is asked for."""

    stored: Stored
    label: str
    level: float
    width: float

    def __iter__(self) -> Iterator[Values]:
        for part in self.stored.centred(self.label):
            yield transition(part.astype(np.float64), self.level, self.width)


def described_shortly(stored: Stored, models: Models) -> str:
    """A page's first sentence."""
    name = shown(stored.plan.path.name)
    heading = headline(stored.plan.path, stored.probabilities, models).removeprefix(name).lstrip(": ")
    return f"{f'{heading}. ' if heading else ''}{extent(stored, models)}; towards {models.question}."
