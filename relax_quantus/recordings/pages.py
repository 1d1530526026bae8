"""The picture and the page of a recording, and the index of several pages.

A `RecordingExplanation` enters; a matplotlib figure or one HTML file leaves. Of a long recording
both show an overview in as many columns as they have room for; a page has sounds up to some
minutes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from relax_quantus import __version__
from relax_quantus.audio.reading import read_audio
from relax_quantus.base import checks
from relax_quantus.base.checks import shown
from relax_quantus.base.files import alone_in, write_text
from relax_quantus.frontend.axes import Axis, BinAxis
from relax_quantus.frontend.front_end import LOG_MEL, FrontEnd, duration
from relax_quantus.recordings.anchors import companion
from relax_quantus.recordings.explaining import Array, part
from relax_quantus.recordings.plan import LEAST_LEFT_S, Plan
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views import thresholds
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
from relax_quantus.views.page import Entry, Layer, index_page, page
from relax_quantus.views.thresholds import as_values, of_bounds, sure_at
from relax_quantus.views.waveform import waveform_figure

if TYPE_CHECKING:
    from relax_quantus.recordings.recording import RecordingExplanation, RecordingMap

MOST_COLUMNS = 4000
"""Four strategies then make a page of about 15 MB."""
MOST_HEARD_S = 300.0
"""Longer recordings have no sounds in their page, which would have no room for them."""
STRETCH = 4096
"""Frames that are read at a time."""
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


def write_page(found: RecordingExplanation, path: Path) -> Entry:
    """Write the page; return its line in the index, without the link.

    Raises
    ------
    ArgumentError
        If examples are waveforms.
    """
    plan, session, axis = found.plan, found.session, found.plan.axis
    refuse_impossible(session.front_end, html=True, sounds=False, annotations=False)
    name, heading = shown(found.path.name), headline(found)
    is_heard, heard_from = plan.seconds <= MOST_HEARD_S or not plan.is_stitched, None
    if plan.reading is not None:
        examples = plan.reading.examples
        layers = [Layer(its.strategy, its.fill, its.explanation()) for its in found.maps.values()]
        lead = f"{_explained(found)}, towards {session.question}."
    else:
        overview = overview_of(found)
        overview = overview.coarser(max(1, -(-len(overview.spectrogram) // MOST_COLUMNS)))
        examples = torch.from_numpy(overview.spectrogram)[None, None]
        layers = [_overview_layer(overview, its, name) for name, its in found.maps.items()]
        heard_from = ([_whole_layer(its) for its in found.maps.values()], axis) if is_heard else None
        lead = f"{extent(found)}; towards {session.question}."
        if len(overview.spectrogram) < plan.frames:
            axis = coarse_axis(axis, overview.column_s)
            hear = " and to hear it" if not is_heard else ""
            lead += (
                f" An overview{'' if is_heard else ', without sounds'}: each column is {overview.column_s:.2f} s, and shows "
                "of each band the moment whose importance is farthest from the mean. To see a stretch frame by frame"
                f"{hear}, cut it out and explain it by itself."
            )
    if heading != name:
        lead = f"{heading.removeprefix(name).lstrip(': ')}. {lead}"
    h = torch.from_numpy(found.embedding)
    text = page(
        name,
        examples,
        layers,
        axis=axis,
        original=read_audio(found.path) if is_heard else None,
        heard_from=heard_from,
        lead=lead,
        notes=_page_notes(found),
        companions=[] if plan.is_stitched else [companion(b, h, session.similarity) for b in session.beside],
        similarity=session.settings.similarity,
    )
    write_text(path, text)
    return Entry("", name, plan.seconds, lead)


def _explained(found: RecordingExplanation) -> str:
    """Say how much of a recording is explained."""
    plan = found.plan
    n = plan.count
    if not plan.axis.in_seconds:
        return f"{n} of {plan.in_all} examples of {plan.per_example} frames explained, of {plan.seconds:.2f} s"
    length = duration(n * plan.example_s)
    if n * plan.example_s > plan.seconds + plan.axis.hop_s:
        return f"{plan.seconds:.2f} s explained, padded with silence to {length} s"
    left = f" (the last {plan.left_out_s:.2f} s are left out)" if plan.left_out_s >= LEAST_LEFT_S else ""
    return f"{'The first ' if n < plan.in_all else ''}{length} s of {plan.seconds:.2f} s explained{left}"


def _page_notes(found: RecordingExplanation) -> dict[str, str]:
    plan, session, settings = found.plan, found.session, found.session.settings
    away = {} if session.away is None else {"Away from": session.away.label}
    own = "; examples that overlap have masks of their own" if plan.hop < plan.per_example else ""
    return {
        "Encoder": session.encoder_name,
        "Front end": session.front_end.text,
        "Examples": f"{plan.count} of {plan.in_all}, {example_length(plan)} each",
        "Masks": f"{masks_used(found)}, seed {settings.seed}{own}",
        "Fill": f"{', '.join(session.fills)}, blended in {settings.domain}",
        "Similarity": settings.similarity,
        "Towards": "the clip's own embedding" if session.towards is None else session.towards.label,
        **away,
        "Estimator": estimators(found),
        "Made by": f"relax-quantus {__version__}",
    }


def _overview_layer(overview: Overview, its: RecordingMap, name: str) -> Layer:
    """Show a map of an overview as the explanation of one long example."""
    kinds = overview.maps[name]
    maps = {kind: torch.from_numpy(kinds[kind])[None, None] for kind in its.kinds}
    each = {
        kind: torch.tensor([mean_of(getattr(its, kind))]) for kind in ("mean_similarity", "fully_masked_similarity")
    }
    most = torch.tensor([int(its.n_samples.max())])
    explanation = Explanation(**maps, **each, n_samples=most, estimator=its.estimator)
    centred, z = (kinds[kind][None, None].astype(np.float64) for kind in (CENTRED, Z))
    return Layer(its.strategy, its.fill, explanation, of_bounds(centred, z, its.bounds))


def _whole_layer(its: RecordingMap) -> Layer:
    """Show a map frame by frame, which is what sounds are made from."""
    maps = {kind: torch.from_numpy(np.array(values))[None, None] for kind, values in its.kinds.items()}
    unknown, none = torch.full((1,), torch.nan), torch.zeros(1, dtype=torch.long)
    explanation = Explanation(
        **maps, mean_similarity=unknown, fully_masked_similarity=unknown, n_samples=none, estimator=its.estimator
    )
    z = np.concatenate([z for _, z in its.parts()])[None, None]
    return Layer(its.strategy, its.fill, explanation, of_bounds(as_values(explanation.centred()), z, its.bounds))


def coarse_axis(axis: Axis, column_s: float) -> BinAxis:
    """Return the axis of columns of several frames: a column's time is the middle of its frames."""
    centres = axis.centres_hz
    return BinAxis(
        start_s=axis.start_s,
        every_s=column_s,
        size=axis.bands,
        bins_hz=() if centres is None else tuple(float(hz) for hz in centres),
        label=axis.label,
        value_label=axis.value_label,
        heading=axis.heading,
        first_s=axis.first_s + (column_s - axis.hop_s) / 2,
        window_s=axis.window_s + column_s - axis.hop_s,
    )


def write_index(out: Path, entries: Sequence[Entry]) -> Path | None:
    """Write the page that leads to those of several clips; one clip needs none.

    A file that is not an index of ours keeps its name.
    """
    if len(entries) < 2:
        return None
    pages = {entry.link.lower() for entry in entries}
    further = (f"all-recordings-{number}.html" for number in itertools.count(2))
    with alone_in(out):
        kept = None
        for name in itertools.chain(("index.html", "all-recordings.html"), further):
            path = out / name
            if name in pages:
                continue
            if not os.path.lexists(path) or is_sealed(path):
                break
            kept = kept or path
        if kept is not None:
            said = f"not written by relax-quantus, or changed since, and kept; the index of pages is {shown(path.name)}"
            warnings.warn(f"{shown(kept)}: {said}; move that file away to have its name", stacklevel=2)
        return write_text(path, sealed(index_page(entries)))


def sealed(html: str) -> str:
    """Return a page that ends in the digest of the rest, by which an unchanged one is known."""
    return f"{html}<!-- relax-quantus {hashlib.sha256(html.encode()).hexdigest()} -->\n"


def is_sealed(path: Path) -> bool:
    """Return whether a file is as `sealed` made it."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return False
    seal = re.search(r"<!-- relax-quantus [0-9a-f]{64} -->\n\Z", text)
    return seal is not None and sealed(text[: seal.start()]) == text
