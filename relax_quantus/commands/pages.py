"""What `explain` writes beside picture and arrays when asked: a page, the two parts of the sound, annotations; and the index of the pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from relax_quantus import __version__, checks
from relax_quantus.audio import measure_extent, read_audio
from relax_quantus.commands.clips import LEAST_LEFT_S, Clip, Findings, Models
from relax_quantus.commands.companions import companion
from relax_quantus.commands.console import shown
from relax_quantus.commands.files import complete
from relax_quantus.commands.front_ends import FrontEnd, duration
from relax_quantus.commands.requests.explain import ExplainRequest
from relax_quantus.commands.results import example_length, headline, masks_used
from relax_quantus.listening import gain, separate, write_sound
from relax_quantus.regions import regions, write_audacity, write_raven
from relax_quantus.report import Entry, Layer, index_page, page
from relax_quantus.similarity import Similarity


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


def write_asked(clip: Clip, findings: Findings, request: ExplainRequest, models: Models, stem: str) -> Entry | None:
    """Write what was asked for about one clip; return its page's line in the index, or None if no page was."""
    if request.annotations:
        length = measure_extent(clip.path)
        for name, explanation in findings.by_name().items():
            found = regions(explanation.centred(), axis=clip.axis, end_s=length.seconds, highest_hz=length.rate_hz / 2)
            write_raven(request.out / f"{stem}.{name}.selections.txt", found, recording=clip.path)
            write_audacity(request.out / f"{stem}.{name}.labels.txt", found)
    if not (request.sounds or request.html):
        return None
    wave, rate_hz = read_audio(clip.path)
    if request.sounds:
        for name, explanation in findings.by_name().items():
            parts = separate(wave, rate_hz, gain(explanation.centred()), clip.axis)
            write_sound(request.out / f"{stem}.{name}.kept.flac", parts.kept, rate_hz)
            write_sound(request.out / f"{stem}.{name}.removed.flac", parts.removed, rate_hz)
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
    write_text(request.out / f"{stem}.html", text)
    return Entry(quote(f"{stem}.html"), name, clip.seconds, lead)


def _explained(clip: Clip) -> str:
    """How much of a clip is explained, in words."""
    n = len(clip.examples)
    if not clip.axis.in_seconds:
        return f"{n} of {clip.in_all} examples of {clip.frames} frames explained, of {clip.seconds:.2f} s"
    length = duration(n * clip.example_s)
    if n * clip.example_s > clip.seconds + clip.axis.hop_s:
        return f"{clip.seconds:.2f} s explained, padded with silence to {length} s"
    left = f"; the last {clip.left_out_s:.2f} s are left out" if clip.left_out_s >= LEAST_LEFT_S else ""
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
    """Write the page that leads to those of several clips; one clip needs none."""
    if len(entries) < 2:
        return None
    taken = any(entry.link.lower() == "index.html" for entry in entries)
    return write_text(out / ("all-recordings.html" if taken else "index.html"), index_page(entries))


def write_text(path: Path, text: str) -> Path:
    """Write a page; one of that name is replaced only once the new one is complete."""
    with complete(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path
