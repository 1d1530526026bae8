"""Write the picture and the arrays of a recording, and the words that these and its page have.

A `RecordingExplanation` enters; a matplotlib figure or one .npz leaves, and the words that picture,
page and command line share. Whatever is long is written a stretch at a time: of a long recording a
picture shows an overview in as many columns as it has room for. Which files there are, and under
which names, `RecordingExplanation.write` and `relax_quantus.base.files.ResultFiles` say.
"""

from __future__ import annotations

import json
import textwrap
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from relax_quantus.base import checks
from relax_quantus.base.checks import duration, shown
from relax_quantus.base.files import complete
from relax_quantus.frontend.front_end import LOG_MEL, FrontEnd
from relax_quantus.recordings.explaining import EACH, Array, part
from relax_quantus.recordings.plan import LEAST_LEFT_S, Plan
from relax_quantus.views import thresholds
from relax_quantus.views.boxes import Region
from relax_quantus.views.maps import OUTLINED_EXAMPLES, explanation_figure
from relax_quantus.views.overview import (
    CENTRED,
    STANDING_OUT,
    Overview,
    Z,
    column_frames,
    loudest,
    overview_figure,
    telling,
)
from relax_quantus.views.page import Entry
from relax_quantus.views.thresholds import sure_at
from relax_quantus.views.waveform import waveform_figure

if TYPE_CHECKING:
    from relax_quantus.recordings.recording import RecordingExplanation, RecordingMap

STRETCH = 4096
"""Frames that are read and written at a time."""
COMPRESSION = {False: 6, True: 1}
"""zlib's level by whether a recording is long.

Maps shrink little more with a higher one, and an hour has many.
"""
LONGEST_NAME = 60
"""Characters of an encoder's name that a picture has room for."""
MAP_COLOURS = (
    "Red: masks that keep this part leave the embedding closer to\nwhat it is compared with than masks do on average; "
    "blue: less."
)
WAVEFORM_COLOURS = (
    "Above 0, red: masks that keep this part leave the embedding closer\nto what it is compared with than masks do on "
    "average; below, blue: less.\nGrey band: 95 % interval; hatched: its width is unknown."
)


@dataclass(frozen=True)
class Written:
    """Say what was written about a recording.

    Attributes
    ----------
    files
        Paths by what they are: ``"picture"``, ``"arrays"`` and where asked for ``"page"``; by name
        of the map ``"kept"``, ``"removed"``, ``"selections"`` and ``"labels"``.
    regions
        By name of the map, where annotations were asked for.
    entry
        The page's line in an index of pages.
    """

    files: dict[str, Any]
    regions: dict[str, list[Region]] | None = None
    entry: Entry | None = field(default=None, repr=False)


def refuse_impossible(front_end: FrontEnd, html: bool, sounds: bool, annotations: bool) -> None:
    """Refuse a page of waveforms, and sounds and annotations where bands are no frequencies.

    Raises
    ------
    ArgumentError
        That names what was asked for.
    """
    got, axis = repr(front_end.text), front_end.axis
    if html and front_end.of_waveforms:
        checks.refuse("html", "a front end that makes spectrograms", got, "leave it out")
    if (annotations or sounds) and not axis.in_seconds:
        remedy = "leave it out, or give it hop_s and first_s"
        wanted = "annotations" if annotations else "sounds"
        checks.refuse(wanted, "a front end whose frames have known times", got, remedy)
    if annotations and axis.centres_hz is None:
        checks.refuse("annotations", "a front end with bands in Hz", got, "leave it out")
    if sounds and axis.centres_hz is None and not front_end.of_waveforms:
        checks.refuse("sounds", "a front end with bands in Hz", got, "leave it out")


def say_scale(path: Path, name: str, scale: float) -> None:
    """Warn that the two sounds of a map are not at the recording's own scale, if they are not."""
    if scale != 1:
        said = (
            f"the sounds of {name} pass full scale and are written at scale {scale:.4g}, so that kept + removed "
            f"is {scale:.4g} x the recording"
        )
        warnings.warn(f"{shown(path)}: {said}", stacklevel=3)


def write_arrays(found: RecordingExplanation, path: Path) -> None:
    """Write the .npz: maps, times, embeddings and settings.

    Maps are ``(n, 1, T, F)``, or ``(n, samples)``, where examples lie end to end and were explained
    in one go; otherwise one ``(frames, F)`` over the recording's own time axis.
    """
    plan, session, axis = found.plan, found.session, found.plan.axis

    def shaped(values: Array) -> Array:
        if plan.reading is None:
            return values
        x = plan.reading.examples
        return values.reshape(plan.count, -1) if x.ndim == 2 else values.reshape(plan.count, 1, plan.per_example, -1)

    arrays: dict[str, Array] = {
        "settings": np.array(json.dumps(found.settings, sort_keys=True)),
        "x": shaped(found.x),
        "embedding": found.embedding,
        "times_s": found.times_s if plan.is_stitched else found.times_s.reshape(plan.count, -1),
    }
    if plan.is_stitched:
        arrays["example_start_s"] = axis.start_s + np.arange(plan.count) * plan.hop * axis.hop_s
    if found.frequencies_hz is not None:
        arrays["frequencies_hz"] = found.frequencies_hz
    if found.probabilities is not None:
        arrays["probabilities"] = found.probabilities
    for kind, anchor in (("towards", session.towards), ("away", session.away)):
        if anchor is not None:
            arrays[kind] = anchor.embedding.numpy()
    for name, its in found.maps.items():
        arrays |= {f"{kind}_{name}": shaped(values) for kind, values in its.kinds.items()}
        arrays |= {f"{kind}_{name}": getattr(its, kind) for kind in (*EACH, "spearman")}
    write_npz(path, arrays, COMPRESSION[plan.blocks > 1])


def write_npz(path: Path, arrays: Mapping[str, Array], level: int = 6) -> None:
    """Write arrays as a compressed .npz without pickles; memory maps a stretch at a time."""
    with complete(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, True, level) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if not isinstance(values, np.memmap):
                    np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)
                    continue
                np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(values))
                for start in range(0, len(values), STRETCH):
                    member.write(part(values, slice(start, start + STRETCH)).tobytes())


def picture(found: RecordingExplanation) -> Any:
    """Draw all maps of a recording: a row a strategy, or lines of time where it is long."""
    title = headline(found)
    if found.plan.is_stitched:
        overview = overview_of(found)
        used = torch.cat([torch.from_numpy(its.n_samples) for its in found.maps.values()])
        notes = _overview_notes(found, overview)
        return overview_figure(overview, found.plan.axis, title=title, notes=notes, sure=sure_at(used))
    draw = waveform_figure if found.session.front_end.of_waveforms else explanation_figure
    assert found.plan.reading is not None
    several = len(found.session.fills) > 1
    explanations = {
        f"{its.strategy}, {its.fill}" if several else its.strategy: its.explanation() for its in found.maps.values()
    }
    x = found.plan.reading.examples
    return draw(x, explanations, title=title, notes=_picture_notes(found), axis=found.plan.axis)


def headline(found: RecordingExplanation) -> str:
    """Return a recording's name and, with a classifier, the class and its mean probability."""
    name, classifier = shown(found.path.name), found.session.classifier
    if classifier is None or found.probabilities is None:
        return name
    mean = found.probabilities.mean(axis=0)
    best = int(mean.argmax())
    return f"{name}: {classifier.class_names[best]}, {float(mean[best]):.0%}"


def _picture_notes(found: RecordingExplanation) -> str:
    """Say beside a picture of single examples what else its reader needs to know."""
    plan, session, bounds = found.plan, found.session, found.bounds
    n, front_end, colours = plan.count, session.front_end, MAP_COLOURS
    if front_end.of_waveforms:
        colours = f"{WAVEFORM_COLOURS}\n{thresholds.line_in_words(bounds, 'Black bar')}"
    elif n <= OUTLINED_EXAMPLES or all(of.is_empty for of in bounds.values()):
        colours += f"\n{thresholds.line_in_words(bounds)}"
    shown_front_end = "" if front_end.text == LOG_MEL else f"front end {_shortened(front_end.text)}\n"
    blended = f", blended in {session.settings.domain}" if front_end.natural_log else ""
    correlations = ", ".join(f"{mean_of(its.spearman):.2f}" for its in found.maps.values())
    return (
        f"{n} of {plan.in_all} example{'s' if plan.in_all > 1 else ''} of {example_length(plan)}; {lasting(plan)}\n"
        f"{shown_front_end}encoder {_shortened(session.encoder_name)}, fill {', '.join(session.fills)}, "
        f"{session.settings.similarity}{blended}\n"
        f"towards {session.question}\n"
        f"{masks_used(found)}, estimator {estimators(found)}, seed {session.settings.seed}; "
        f"similarity of the fill alone {_fills_alone(found)}\n"
        f"Spearman(uncertainty, importance): {correlations}\n"
        f"{thresholds.chance_in_words(bounds)}\n\n{colours}"
    )


def _overview_notes(found: RecordingExplanation, overview: Overview) -> str:
    """Say below the title of an overview what else its reader needs to know."""
    session, maps, bounds = found.session, found.maps, found.bounds
    means = ", ".join(f"{name} {mean_of(its.mean_similarity):.2f}" for name, its in maps.items())
    alone = mean_of(found.first.fully_masked_similarity)
    said = thresholds.in_words(bounds)
    return (
        f"{extent(found)}; towards {session.question}\n"
        f"front end {_shortened(session.front_end.text)}, encoder {_shortened(session.encoder_name)}, "
        f"fill {', '.join(session.fills)}, {session.settings.similarity}, {masks_used(found)}, "
        f"estimator {estimators(found)}, seed {session.settings.seed}\n"
        f"mean similarity: {means}; of the fill alone {alone:.2f}; {thresholds.errors_in_words(found.errors)}\n"
        f"{thresholds.chance_in_words(bounds)}{f'; {said}' if said else ''}\n"
        f"A column is {overview.column_s:.2f} s: of each band the moment farthest from the mean, in the spectrogram the "
        "loudest. Red: masks that keep this part leave the embedding closer to\nwhat it is compared with than masks do on "
        "average; blue: less. Pale: within three standard errors of that. Grey: not explained, or its error is unknown. "
        f"{thresholds.line_in_words(bounds)}"
    )


def mean_of(values: Array) -> float:
    """Return the mean over all examples that have a value."""
    return float(torch.from_numpy(values).double().nanmean())


def estimators(found: RecordingExplanation) -> str:
    """Return the names of the estimators, each once."""
    return ", ".join(dict.fromkeys(its.estimator for its in found.maps.values()))


def example_length(plan: Plan) -> str:
    """Say how long an example is."""
    return f"{duration(plan.example_s)} s" if plan.axis.in_seconds else f"{plan.per_example} frames"


def lasting(plan: Plan) -> str:
    """Say how long the recording is, and how much of its end is left out."""
    if plan.left_out_s >= LEAST_LEFT_S:
        return f"of {plan.seconds:.2f} s, the last {plan.left_out_s:.2f} s are left out"
    return f"the recording lasts {plan.seconds:.2f} s"


def extent(found: RecordingExplanation) -> str:
    """Say how much of a recording was explained, of which examples."""
    plan = found.plan
    hop_s = plan.hop * plan.axis.hop_s
    overlap = "end to end" if plan.hop == plan.per_example else f"every {duration(hop_s)} s, averaged"
    left = plan.left_out_s
    ending = f", the last {left:.2f} s are left out" if left >= LEAST_LEFT_S else ""
    return (
        f"{plan.count} of {plan.in_all} examples of {duration(plan.example_s)} s, {overlap}: "
        f"{plan.frames * plan.axis.hop_s:.1f} of {plan.seconds:.1f} s{ending}"
    )


def masks_used(found: RecordingExplanation) -> str:
    """Say how many masks the examples took; those without an explanation took none."""
    settings = found.session.settings
    if settings.tolerance is None:
        return f"{settings.n_samples} masks a strategy{' and fill' if len(found.session.fills) > 1 else ''}"
    used = np.concatenate([its.n_samples for its in found.maps.values()])
    used = used[used > 0]
    low, high = (int(used.min()), int(used.max())) if used.size else (0, 0)
    return f"{low if low == high else f'{low} to {high}'} masks an example, tolerance {settings.tolerance:g}"


def _fills_alone(found: RecordingExplanation) -> str:
    """Say how similar each fill alone is to what the recording is compared with.

    The same for every strategy.
    """
    alone = {its.fill: mean_of(its.fully_masked_similarity) for its in found.maps.values()}
    return ", ".join(f"{value:.2f}{f' ({fill})' if len(alone) > 1 else ''}" for fill, value in alone.items())


def _shortened(text: str) -> str:
    """Return what fits beside a picture; the .npz has the whole."""
    return textwrap.shorten(shown(text).replace(",", ", "), LONGEST_NAME, placeholder=" ...").replace(", ", ",")


def overview_of(found: RecordingExplanation) -> Overview:
    """Return a long recording in as many columns as its picture has room for."""
    axis, plan = found.plan.axis, found.plan
    size = column_frames(plan.frames, axis.hop_s)
    maps = {name: telling(_together(its), size) for name, its in found.maps.items()}
    x = (part(found.x, slice(start, start + STRETCH)) for start in range(0, plan.frames, STRETCH))
    return Overview(loudest(x, size), maps, size * axis.hop_s)


def _together(its: RecordingMap) -> Iterator[dict[str, Any]]:
    """Yield everything that is known of a map's bins, a stretch at a time."""
    for (_, kinds), (centred, z) in zip(its.stretches(), its.parts(), strict=True):
        bins = its.bounds.passed(centred, z).astype(np.float32)
        yield {**kinds, CENTRED: centred.astype(np.float32), Z: z.astype(np.float32), STANDING_OUT: bins}
