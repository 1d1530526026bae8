"""What `explain` writes beside picture and arrays when asked: a page, the two parts of the sound, annotations; and the index of the pages."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from relax_quantus import __version__
from relax_quantus.audio.reading import measure_extent, read_audio
from relax_quantus.base import checks
from relax_quantus.base.files import alone_in, write_text
from relax_quantus.cli import console
from relax_quantus.cli.clips import LEAST_LEFT_S, Clip, Findings, Models
from relax_quantus.cli.companions import companion
from relax_quantus.cli.console import shown
from relax_quantus.cli.requests.explain import ExplainRequest
from relax_quantus.cli.result_files import ResultFiles
from relax_quantus.cli.results import example_length, headline, masks_used
from relax_quantus.frontend.front_end import FrontEnd, duration
from relax_quantus.relax.similarity import Similarity
from relax_quantus.views.boxes import Region, regions, write_audacity, write_raven
from relax_quantus.views.page import Entry, Layer, index_page, page
from relax_quantus.views.sounds import gain, separate, write_parts


def refuse_impossible(request: ExplainRequest, front_end: FrontEnd) -> None:
    """Refuse what makes no sense with a front end: a page of waveforms, sounds and annotations where bands are no frequencies.

    Raises
    ------
    ArgumentError
        That names the option.
    """
    got = repr(front_end.text)
    if request.html and front_end.of_waveforms:
        checks.refuse("--html", "a front end that makes spectrograms", got, "leave it out")
    if (request.annotations or request.sounds) and not front_end.axis.in_seconds:
        option = "--annotations" if request.annotations else "--sounds"
        checks.refuse(
            option, "a front end whose frames have known times", got, "leave it out, or give it hop_s and first_s"
        )
    if request.annotations and front_end.axis.centres_hz is None:
        checks.refuse("--annotations", "a front end with bands in Hz", got, "leave it out")
    if request.sounds and front_end.axis.centres_hz is None and not front_end.of_waveforms:
        checks.refuse("--sounds", "a front end with bands in Hz", got, "leave it out")


def regions_of(clip: Clip, findings: Findings) -> dict[str, list[Region]]:
    """The regions of each map."""
    length = measure_extent(clip.path)
    return {
        name: regions(e, axis=clip.axis, end_s=length.seconds, highest_hz=length.rate_hz / 2)
        for name, e in findings.by_name().items()
    }


def write_asked(
    clip: Clip,
    findings: Findings,
    boxes: Mapping[str, Sequence[Region]],
    request: ExplainRequest,
    models: Models,
    files: ResultFiles,
) -> Entry | None:
    """Write what was asked for about one clip; return its page's line in the index, without the link, or None if no page was."""
    if request.annotations:
        for name, found in boxes.items():
            write_raven(files.draft(f"{name}.selections.txt"), found, recording=clip.path)
            write_audacity(files.draft(f"{name}.labels.txt"), found)
    if not (request.sounds or request.html):
        return None
    wave, rate_hz = read_audio(clip.path)
    if request.sounds:
        for name, explanation in findings.by_name().items():
            parts = separate(wave, rate_hz, gain(explanation), clip.axis)
            kept, removed = (files.draft(f"{name}.{part}.flac") for part in ("kept", "removed"))
            say_scale(clip.path, name, write_parts(kept, removed, parts))
    if not request.html:
        return None
    heading = headline(clip.path, findings.probabilities, models)
    name = shown(clip.path.name)
    lead = f"{_explained(clip)}, towards {models.question}."
    if heading != name:
        lead = f"{heading.removeprefix(name).lstrip(': ')}. {lead}"
    text = page(
        name,
        clip.examples,
        [Layer(strategy, fill, e) for (strategy, fill), e in findings.explanations.items()],
        axis=clip.axis,
        original=(wave, rate_hz),
        lead=lead,
        notes=_notes(clip, findings, request, models),
        companions=[companion(b, findings.embedding, _similarity(models)) for b in models.beside],
        similarity=request.similarity,
    )
    write_text(files.draft("html"), text)
    return Entry("", name, clip.seconds, lead)


def say_scale(path: Path, name: str, scale: float) -> None:
    """Say that the two sounds of a map are not at the recording's own scale, if they are not."""
    if scale != 1:
        console.warning(
            f"{console.shown(path)}: the sounds of {name} pass full scale and are written at scale {scale:.4g}, so that kept + removed "
            f"is {scale:.4g} x the recording"
        )


def _explained(clip: Clip) -> str:
    """How much of a clip is explained, in words."""
    n = len(clip.examples)
    if not clip.axis.in_seconds:
        return f"{n} of {clip.in_all} examples of {clip.frames} frames explained, of {clip.seconds:.2f} s"
    length = duration(n * clip.example_s)
    if n * clip.example_s > clip.seconds + clip.axis.hop_s:
        return f"{clip.seconds:.2f} s explained, padded with silence to {length} s"
    left = f" (the last {clip.left_out_s:.2f} s are left out)" if clip.left_out_s >= LEAST_LEFT_S else ""
    return f"{'The first ' if n < clip.in_all else ''}{length} s of {clip.seconds:.2f} s explained{left}"


def _similarity(models: Models) -> Similarity:
    """The one that every explainer uses."""
    return next(iter(models.explainers.values())).similarity


def _notes(clip: Clip, findings: Findings, request: ExplainRequest, models: Models) -> dict[str, str]:
    away = {} if models.away is None else {"Away from": models.away.label}
    return {
        "Encoder": request.encoder.encoder,
        "Front end": models.front_end.text,
        "Examples": f"{len(clip.examples)} of {clip.in_all}, {example_length(clip)} each",
        "Masks": f"{masks_used(findings, request)}, seed {request.seed}",
        "Fill": f"{', '.join(request.baselines)}, blended in {request.domain}",
        "Similarity": request.similarity,
        "Towards": "the clip's own embedding" if models.towards is None else models.towards.label,
        **away,
        "Estimator": ", ".join(dict.fromkeys(e.estimator for e in findings.explanations.values())),
        "Made by": f"relax-quantus {__version__}",
    }


def write_index(out: Path, entries: Sequence[Entry]) -> Path | None:
    """Write the page that leads to those of several clips; one clip needs none. A file that is not an index of ours keeps its name."""
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
            console.warning(
                f"{console.shown(kept)}: not written by relax-quantus, or changed since, and kept; the index of pages is {console.shown(path.name)}; "
                "move that file away to have its name"
            )
        return write_text(path, sealed(index_page(entries)))


def sealed(html: str) -> str:
    """A page that ends in the digest of the rest, by which we know our own as long as nobody changes it."""
    return f"{html}<!-- relax-quantus {hashlib.sha256(html.encode()).hexdigest()} -->\n"


def is_sealed(path: Path) -> bool:
    """Whether a file is as `sealed` made it."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return False
    seal = re.search(r"<!-- relax-quantus [0-9a-f]{64} -->\n\Z", text)
    return seal is not None and sealed(text[: seal.start()]) == text
