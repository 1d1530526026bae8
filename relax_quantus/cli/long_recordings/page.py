"""The page of a long recording: an overview in as many columns as a page can carry, with sounds up to some minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from relax_quantus import __version__
from relax_quantus.audio.reading import read_audio
from relax_quantus.base.files import write_text
from relax_quantus.cli.clips import Models
from relax_quantus.cli.console import shown
from relax_quantus.cli.long_recordings.explaining import estimators
from relax_quantus.cli.long_recordings.reading import Stored
from relax_quantus.cli.long_recordings.results import described_shortly, masks_used
from relax_quantus.cli.requests.explain import ExplainRequest
from relax_quantus.frontend.axes import Axis, BinAxis
from relax_quantus.relax.explanation import Explanation
from relax_quantus.views.overview import CENTRED, Overview, Z
from relax_quantus.views.page import Entry, Layer, page
from relax_quantus.views.thresholds import StandingOut, as_values, of_bounds

MOST_COLUMNS = 4000
"""Four strategies then make a page of about 15 MB."""
MOST_HEARD_S = 300.0
"""Longer recordings have no sounds in their page, which would have no room for them."""


def write_page(stored: Stored, overview: Overview, request: ExplainRequest, models: Models, path: Path) -> Entry:
    """Write the page; return its line in the index, without the link."""
    plan, axis = stored.plan, models.front_end.axis
    overview = overview.coarser(max(1, -(-len(overview.spectrogram) // MOST_COLUMNS)))
    is_whole = len(overview.spectrogram) == plan.frames
    is_heard = plan.samples / models.front_end.rate_hz <= MOST_HEARD_S
    known = estimators(stored.store, plan, stored.labels)
    conditions = [(name, fill) for name in models.explainers for fill in request.baselines]
    layers = [
        Layer(*condition, explanation_of(stored, overview, label, known[label]), standing_in(overview, label, stored))
        for condition, label in zip(conditions, stored.labels, strict=True)
    ]
    name, lead = shown(plan.path.name), described_shortly(stored, models)
    if not is_whole:
        hear = " and to hear it" if not is_heard else ""
        lead += (
            f" An overview{'' if is_heard else ', without sounds'}: each column is {overview.column_s:.2f} s, and shows of each band the moment "
            f"whose importance is farthest from the mean. To see a stretch frame by frame{hear}, cut it out and explain it by itself."
        )
    text = page(
        name,
        torch.from_numpy(overview.spectrogram)[None, None],
        layers,
        axis=axis if is_whole else coarse_axis(axis, overview.column_s),
        original=read_audio(plan.path) if is_heard else None,
        heard_from=(frame_by_frame(stored, layers), axis) if is_heard else None,
        lead=lead,
        notes={
            "Encoder": request.encoder.encoder,
            "Front end": models.front_end.text,
            "Masks": f"{masks_used(stored, request)}, seed {request.seed}; examples that overlap have masks of their own",
            "Fill": f"{', '.join(request.baselines)}, blended in {request.domain}",
            "Similarity": request.similarity,
            "Towards": models.question,
            "Made by": f"relax-quantus {__version__}",
        },
    )
    write_text(path, text)
    return Entry("", name, plan.samples / models.front_end.rate_hz, lead)


def coarse_axis(axis: Axis, column_s: float) -> BinAxis:
    """The axis of columns of several frames: a column's time is the middle of its frames."""
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


def frame_by_frame(stored: Stored, layers: Sequence[Layer]) -> list[Layer]:
    """The layers with the centred importance of every frame, which is what sounds are made from."""
    found = []
    for layer, label in zip(layers, stored.labels, strict=True):
        rows = stored.centred(label), stored.rows(f"centred_standard_error_{label}")
        centred, error = (torch.from_numpy(np.concatenate(list(r)))[None, None] for r in rows)
        whole = replace(
            layer.explanation,
            importance=centred,
            neutral=torch.zeros_like(centred),
            centred_standard_error=error,
        )
        z = np.concatenate(list(stored.z(label)))[None, None]
        standing = of_bounds(as_values(centred), z, stored.bounds(label))
        found.append(replace(layer, explanation=whole, found=standing))
    return found


def standing_in(overview: Overview, label: str, stored: Stored) -> StandingOut:
    """What stands out in the overview of one label."""
    kinds = overview.maps[label]
    centred, z = (kinds[name][None, None].astype(np.float64) for name in (CENTRED, Z))
    return of_bounds(centred, z, stored.bounds(label))


def explanation_of(stored: Stored, overview: Overview, label: str, estimator: str) -> Explanation:
    """The overview of one label as the explanation of one long example."""
    maps = {name: torch.from_numpy(values)[None, None] for name, values in overview.maps[label].items()}
    each = {
        name: torch.tensor([stored.mean(f"{name}_{label}")]) for name in ("mean_similarity", "fully_masked_similarity")
    }
    return Explanation(
        importance=maps["importance"],
        uncertainty=maps["uncertainty"],
        standard_error=maps["standard_error"],
        centred_standard_error=maps["centred_standard_error"],
        neutral=maps["neutral"],
        cell_effects=maps.get("cell_effects"),
        n_samples=torch.tensor([int(stored.each(f"n_samples_{label}").max())]),
        estimator=estimator,
        **each,
    )
