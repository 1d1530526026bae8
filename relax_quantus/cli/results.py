"""What `explain` leaves behind for each recording: a picture, and an .npz with the arrays and everything that they depend on."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from relax_quantus import __version__
from relax_quantus.base.files import complete
from relax_quantus.cli import verdicts
from relax_quantus.cli.clips import LEAST_LEFT_S, Clip, Findings, Models
from relax_quantus.cli.console import shown
from relax_quantus.cli.requests.explain import ExplainRequest
from relax_quantus.cli.result_files import ResultFiles
from relax_quantus.frontend.axes import Axis
from relax_quantus.frontend.front_end import LOG_MEL, duration
from relax_quantus.views.boxes import Region
from relax_quantus.views.maps import OUTLINED_EXAMPLES, explanation_figure, save_png
from relax_quantus.views.waveform import waveform_figure

LONGEST_NAME = 60
MAP_COLOURS = "Red: masks that keep this part leave the embedding closer to\nwhat it is compared with than masks do on average; blue: less."
WAVEFORM_COLOURS = (
    "Above 0, red: masks that keep this part leave the embedding closer\nto what it is compared with than masks do on average; "
    "below, blue: less.\nGrey band: 95 % interval; hatched: its width is unknown."
)
MAP_KINDS = ("importance", "uncertainty", "standard_error", "centred_standard_error")
KINDS = (*MAP_KINDS, "mean_similarity", "fully_masked_similarity", "n_samples", "null_maxima", "null_statistic")


def write(clip: Clip, findings: Findings, request: ExplainRequest, models: Models, files: ResultFiles) -> None:
    """Write the .npz and the PNG of one clip."""
    axis = clip.axis
    settings = describe(clip, findings, request, models)
    arrays = {
        "x": clip.examples.numpy(),
        "embedding": findings.embedding.numpy(),
        "times_s": times_s(axis, len(clip.examples) * clip.frames).reshape(len(clip.examples), -1),
    }
    if axis.centres_hz is not None:
        arrays["frequencies_hz"] = axis.centres_hz
    for name, explanation in findings.by_name().items():
        for kind in KINDS:
            values = getattr(explanation, kind)
            if values is not None:
                arrays[f"{kind}_{name}"] = values.numpy()
        arrays[f"spearman_{name}"] = explanation.spearman().numpy()
        if explanation.cell_effects is not None:
            arrays[f"cell_effects_{name}"] = explanation.cell_effects.numpy()
    for kind, anchor in (("towards", models.towards), ("away", models.away)):
        if anchor is not None:
            arrays[kind] = anchor.embedding.numpy()
    if findings.probabilities is not None:
        arrays["probabilities"] = findings.probabilities.numpy()
    write_npz(files.draft("npz"), arrays, settings)
    draw = waveform_figure if models.front_end.of_waveforms else explanation_figure
    figure = draw(
        clip.examples,
        findings.by_name(", "),
        title=headline(clip.path, findings.probabilities, models),
        notes=notes(clip, findings, request, models),
        axis=axis,
    )
    save_png(figure, files.draft("png"))


def times_s(axis: Axis, frames: int) -> npt.NDArray[np.float64]:
    """The middle of every frame in seconds, NaN where frames are only counted."""
    return axis.times_s(frames) if axis.in_seconds else np.full(frames, np.nan)


def headline(path: Path, probabilities: torch.Tensor | None, models: Models) -> str:
    """The picture's title: the clip's name and, with a classifier, the class and its probability, averaged over the examples."""
    name = shown(path.name)
    if models.classifier is None or probabilities is None:
        return name
    mean = probabilities.mean(dim=0)
    best = int(mean.argmax())
    return f"{name}: {models.classifier.class_names[best]}, {float(mean[best]):.0%}"


def notes(clip: Clip, findings: Findings, request: ExplainRequest, models: Models) -> str:
    """What else a reader of the picture needs to know."""
    n = len(clip.examples)
    estimators = ", ".join(dict.fromkeys(e.estimator for e in findings.explanations.values()))
    front_end, colours = models.front_end, MAP_COLOURS
    if front_end.of_waveforms:
        colours = f"{WAVEFORM_COLOURS}\n{verdicts.line_in_words(findings.bounds, 'Black bar')}"
    elif n <= OUTLINED_EXAMPLES or all(of.is_empty for of in findings.bounds.values()):
        colours += f"\n{verdicts.line_in_words(findings.bounds)}"
    shown_front_end = "" if front_end.text == LOG_MEL else f"front end {shortened(front_end.text)}\n"
    blended = f", blended in {request.domain}" if front_end.natural_log else ""
    correlations = ", ".join(f"{float(e.spearman().nanmean()):.2f}" for e in findings.explanations.values())
    return (
        f"{n} of {clip.in_all} example{'s' if clip.in_all > 1 else ''} of {example_length(clip)}; {lasting(clip)}\n"
        f"{shown_front_end}encoder {shortened(request.encoder.encoder)}, fill {', '.join(request.baselines)}, {request.similarity}{blended}\n"
        f"towards {models.question}\n"
        f"{masks_used(findings, request)}, estimator {estimators}, seed {request.seed}; "
        f"similarity of the fill alone {fills_alone(findings)}\n"
        f"Spearman(uncertainty, importance): {correlations}\n"
        f"{verdicts.chance_in_words(findings.bounds)}\n\n{colours}"
    )


def errors_of(findings: Findings) -> dict[str, dict[str, dict[str, float]]]:
    """How large both errors of each map are."""
    return {
        label: {name: verdicts.measure_errors([getattr(e, name).numpy()]) for name in verdicts.ERRORS}
        for label, e in findings.by_name().items()
    }


def example_length(clip: Clip) -> str:
    """How long an example is, in words."""
    return f"{duration(clip.example_s)} s" if clip.axis.in_seconds else f"{clip.frames} frames"


def lasting(clip: Clip) -> str:
    """How long the recording is, and how much of its end is left out, in words."""
    if clip.left_out_s >= LEAST_LEFT_S:
        return f"of {clip.seconds:.2f} s, the last {clip.left_out_s:.2f} s are left out"
    return f"the recording lasts {clip.seconds:.2f} s"


def masks_used(findings: Findings, request: ExplainRequest) -> str:
    """How many masks the clip's examples took, in words; examples without an explanation took none."""
    if request.tolerance is None:
        return f"{request.n_samples} masks a strategy{' and fill' if len(request.baselines) > 1 else ''}"
    used = torch.cat([e.n_samples[e.n_samples > 0] for e in findings.explanations.values()])
    low, high = int(used.min()), int(used.max())
    return f"{low if low == high else f'{low} to {high}'} masks an example, tolerance {request.tolerance:g}"


def fills_alone(findings: Findings) -> str:
    """How similar each fill alone is to what the clip is compared with, in words; the same for every strategy."""
    alone = {fill: float(e.fully_masked_similarity.nanmean()) for (_, fill), e in findings.explanations.items()}
    return ", ".join(f"{value:.2f}{f' ({fill})' if len(alone) > 1 else ''}" for fill, value in alone.items())


def shortened(text: str) -> str:
    """What fits beside a picture; the .npz has the whole."""
    return textwrap.shorten(shown(text).replace(",", ", "), LONGEST_NAME, placeholder=" ...").replace(", ", ",")


def describe(clip: Clip, findings: Findings, request: ExplainRequest, models: Models) -> dict[str, Any]:
    """Everything that the arrays depend on, for the .npz."""
    return {
        **settings_of(request, models),
        "clip": str(clip.path.resolve()),
        "seconds": clip.seconds,
        "examples": len(clip.examples),
        "examples_in_all": clip.in_all,
        "left_out_s": clip.left_out_s if math.isfinite(clip.left_out_s) else None,
        "estimator": {name: e.estimator for name, e in findings.by_name().items()},
        "standing_out": facts_of(findings),
    }


def facts_of(findings: Findings, regions: Mapping[str, Sequence[Region]] | None = None) -> dict[str, Any]:
    """What programs are told of each map."""
    deaf = {label: e.hears_nothing.tolist() for label, e in findings.by_name().items()}
    return verdicts.facts(findings.bounds, errors_of(findings), deaf, regions)


def settings_of(request: ExplainRequest, models: Models) -> dict[str, Any]:
    """What was asked for, whatever the recording."""
    return {
        "program": f"relax_quantus {__version__}",
        "encoder": request.encoder.encoder,
        "weights": None if request.encoder.weights is None else str(request.encoder.weights.resolve()),
        "front_end": models.front_end.text,
        "sample_rate_hz": models.front_end.rate_hz,
        "encoder_sha256": models.encoder_sha256,
        "head": None if request.head is None else str(request.head.resolve()),
        "class_names": None if models.classifier is None else list(models.classifier.class_names),
        "masks": list(models.explainers),
        "baseline": request.baselines[0],
        "baselines": list(request.baselines),
        "similarity": request.similarity,
        "corpus": None if request.corpus is None else str(request.corpus.resolve()),
        "domain": request.domain,
        "precision": request.precision,
        "resampler": request.resampler,
        "towards": None if models.towards is None else str(models.towards.path.resolve()),
        "away": None if models.away is None else str(models.away.path.resolve()),
        "n_samples": request.n_samples,
        "tolerance": request.tolerance,
        "seed": request.seed,
    }


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]], settings: Mapping[str, Any]) -> None:
    """Write `arrays`, and `settings` as one JSON string, as a compressed .npz without pickles."""
    with complete(path) as draft, draft.open("wb") as target:
        np.savez_compressed(target, settings=np.array(json.dumps(settings, sort_keys=True)), **arrays)  # type: ignore[arg-type]
