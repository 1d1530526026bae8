"""The page of a recording, and the index of several pages.

A `RecordingExplanation` enters; one HTML file leaves. Of a long recording it shows an overview in
as many columns as it has room for; it has sounds up to some minutes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from relax_quantus import __version__
from relax_quantus.audio.reading import read_audio
from relax_quantus.base.checks import duration, shown
from relax_quantus.base.files import alone_in, write_text
from relax_quantus.frontend.axes import BinAxis
from relax_quantus.frontend.examples import Axis
from relax_quantus.recordings.anchors import companion
from relax_quantus.recordings.plan import LEAST_LEFT_S
from relax_quantus.recordings.writing import (
    estimators,
    example_length,
    extent,
    headline,
    masks_used,
    mean_of,
    overview_of,
    refuse_impossible,
)
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.overview import CENTRED, Overview, Z
from relax_quantus.views.page import Entry, Layer, index_page, page
from relax_quantus.views.thresholds import as_values, of_bounds

if TYPE_CHECKING:
    from relax_quantus.recordings.recording import RecordingExplanation, RecordingMap

MOST_COLUMNS = 4000
"""Four strategies then make a page of about 15 MB."""
MOST_HEARD_S = 300.0
"""Longer recordings have no sounds in their page, which would have no room for them."""


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
