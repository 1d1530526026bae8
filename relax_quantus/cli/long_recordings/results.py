"""What is left of a long recording: a picture, an .npz with the stitched maps, and a page, sounds and annotations if asked for.

Everything is written from the blocks, a block at a time, so that it needs no more memory for an hour than for a minute.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relax_quantus.audio.reading import measure_extent
from relax_quantus.base.files import complete
from relax_quantus.cli import verdicts
from relax_quantus.cli.clips import LEAST_LEFT_S, Models, left_out
from relax_quantus.cli.console import shown
from relax_quantus.cli.long_recordings.explaining import EACH, estimators
from relax_quantus.cli.long_recordings.plan import Plan
from relax_quantus.cli.long_recordings.reading import Stored
from relax_quantus.cli.pages import say_scale
from relax_quantus.cli.requests.explain import ExplainRequest
from relax_quantus.cli.result_files import ResultFiles
from relax_quantus.cli.results import headline, settings_of, shortened
from relax_quantus.frontend.front_end import duration
from relax_quantus.views.boxes import Region, RegionFinder, write_audacity, write_raven
from relax_quantus.views.maps import save_png
from relax_quantus.views.overview import CENTRED, STANDING_OUT, Overview, Z, loudest, telling
from relax_quantus.views.overview_plotting import column_frames, overview_figure
from relax_quantus.views.sounds import transition
from relax_quantus.views.streamed_sounds import write_separated
from relax_quantus.views.thresholds import Bounds, Values, deviation_of_parts, sure_at

SOFTNESS = 0.25
"""As of `relax_quantus.views.sounds.gain`."""
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
        "standing_out": facts_of(stored),
    }


def bounds_of(stored: Stored) -> dict[str, Bounds]:
    """What bins of each map have to pass to stand out."""
    return {label: stored.bounds(label) for label in stored.labels}


def errors_of(stored: Stored) -> dict[str, dict[str, dict[str, float]]]:
    """How large both errors of each map are."""
    return {
        label: {name: verdicts.measure_errors(stored.rows(f"{name}_{label}")) for name in verdicts.ERRORS}
        for label in stored.labels
    }


def facts_of(stored: Stored, boxes: Mapping[str, Sequence[Region]] | None = None) -> dict[str, Any]:
    """What programs are told of each map."""
    deaf = {label: stored.hears_nothing(label).tolist() for label in stored.labels}
    return verdicts.facts(bounds_of(stored), errors_of(stored), deaf, boxes)


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
    kinds, bounds = stored.kinds(label), stored.bounds(label)
    for z, *parts in zip(stored.z(label), *(stored.rows(f"{kind}_{label}") for kind in kinds), strict=True):
        found = dict(zip(kinds, parts, strict=True))
        centred = found["importance"] - found["neutral"]
        bins = bounds.passed(centred, z).astype(np.float32)
        yield {**found, CENTRED: centred, Z: z.astype(np.float32), STANDING_OUT: bins}


def write_picture(stored: Stored, overview: Overview, request: ExplainRequest, models: Models, path: Path) -> Path:
    """Draw the overview."""
    title = headline(stored.plan.path, stored.probabilities, models)
    used = np.concatenate([stored.each(f"n_samples_{label}") for label in stored.labels])
    figure = overview_figure(
        overview,
        models.front_end.axis,
        title=title,
        notes=notes(stored, overview, request, models),
        sure=sure_at(torch.from_numpy(used)),
    )
    return save_png(figure, path)


def notes(stored: Stored, overview: Overview, request: ExplainRequest, models: Models) -> str:
    """What a reader of the picture needs to know."""
    front_end, plan = models.front_end, stored.plan
    means = ", ".join(f"{label} {stored.mean(f'mean_similarity_{label}'):.2f}" for label in stored.labels)
    alone = stored.mean(f"fully_masked_similarity_{stored.labels[0]}")
    known = estimators(stored.store, plan, stored.labels)
    bounds = bounds_of(stored)
    said = verdicts.in_words(bounds)
    return (
        f"{extent(stored, models)}; towards {models.question}\n"
        f"front end {shortened(front_end.text)}, encoder {shortened(request.encoder.encoder)}, fill {', '.join(request.baselines)}, "
        f"{request.similarity}, {masks_used(stored, request)}, estimator {', '.join(dict.fromkeys(known.values()))}, seed {request.seed}\n"
        f"mean similarity: {means}; of the fill alone {alone:.2f}; {verdicts.errors_in_words(errors_of(stored))}\n"
        f"{verdicts.chance_in_words(bounds)}{f'; {said}' if said else ''}\n"
        f"A column is {overview.column_s:.2f} s: of each band the moment farthest from the mean, in the spectrogram the loudest. "
        "Red: masks that keep this part leave the embedding closer to\nwhat it is compared with than masks do on average; blue: less. "
        f"Pale: within three standard errors of that. Grey: not explained, or its error is unknown. {verdicts.line_in_words(bounds)}"
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


def regions_of(stored: Stored, models: Models) -> dict[str, list[Region]]:
    """The regions of each map that stand out, found across blocks."""
    length, boxes = measure_extent(stored.plan.path), {}
    for label in stored.labels:
        finder = RegionFinder(
            stored.bounds(label), axis=models.front_end.axis, end_s=length.seconds, highest_hz=length.rate_hz / 2
        )
        for centred, z in zip(stored.centred(label), stored.z(label), strict=True):
            finder.feed(centred.T, z.T)
        boxes[label] = finder.finish()
    return boxes


def write_annotations(stored: Stored, boxes: Mapping[str, Sequence[Region]], files: ResultFiles) -> None:
    """Write the regions of each map."""
    for label, found in boxes.items():
        write_raven(files.draft(f"{label}.selections.txt"), found, recording=stored.plan.path)
        write_audacity(files.draft(f"{label}.labels.txt"), found)


def write_sounds(stored: Stored, models: Models, files: ResultFiles) -> None:
    """Write what matters and all the rest as two sounds a map."""
    plan, axis = stored.plan, models.front_end.axis
    for label in stored.labels:
        gains = Gains(stored, label, SOFTNESS * deviation_of_parts(stored.centred(label)))
        kept, removed = (files.draft(f"{label}.{part}.flac") for part in ("kept", "removed"))
        say_scale(plan.path, label, write_separated(plan.path, kept, removed, gains, plan.frames, axis))


@dataclass(frozen=True)
class Gains:
    """How much of each bin of a map is kept, block by block, as often as it is asked for."""

    stored: Stored
    label: str
    width: float

    def __iter__(self) -> Iterator[Values]:
        bounds = self.stored.bounds(self.label)
        for part, z in zip(self.stored.centred(self.label), self.stored.z(self.label), strict=True):
            if bounds.is_empty:
                yield np.zeros(part.shape)
                continue
            with np.errstate(invalid="ignore"):
                beyond = np.abs(z) > bounds.z
            yield transition(part.astype(np.float64), bounds.effect, self.width) * beyond


def described_shortly(stored: Stored, models: Models) -> str:
    """A page's first sentence."""
    name = shown(stored.plan.path.name)
    heading = headline(stored.plan.path, stored.probabilities, models).removeprefix(name).lstrip(": ")
    return f"{f'{heading}. ' if heading else ''}{extent(stored, models)}; towards {models.question}."
