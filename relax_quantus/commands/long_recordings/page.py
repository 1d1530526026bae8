"""The page of a long recording: an overview in as many columns as a page can carry, without sounds."""

from __future__ import annotations

from pathlib import Path

import torch

from relax_quantus import __version__
from relax_quantus.axes import BinAxis
from relax_quantus.commands.clips import Models
from relax_quantus.commands.console import shown
from relax_quantus.commands.long_recordings.explaining import estimators
from relax_quantus.commands.long_recordings.reading import Stored
from relax_quantus.commands.long_recordings.results import described_shortly, masks_used
from relax_quantus.commands.requests.explain import ExplainRequest
from relax_quantus.drafts import write_text
from relax_quantus.explanation import Explanation
from relax_quantus.overview import Overview
from relax_quantus.report import Entry, Layer, page

MOST_COLUMNS = 4000
"""Four strategies then make a page of about 15 MB."""


def write_page(stored: Stored, overview: Overview, request: ExplainRequest, models: Models, path: Path) -> Entry:
    """Write the page; return its line in the index, without the link."""
    plan, axis = stored.plan, models.front_end.axis
    overview = overview.coarser(max(1, -(-len(overview.spectrogram) // MOST_COLUMNS)))
    centres = axis.centres_hz
    coarse = BinAxis(
        every_s=overview.column_s,
        size=stored.bands,
        bins_hz=() if centres is None else tuple(float(hz) for hz in centres),
        label=axis.label,
        value_label=axis.value_label,
        heading=axis.heading,
    )
    known = estimators(stored.store, plan, stored.labels)
    conditions = [(name, fill) for name in models.explainers for fill in request.baselines]
    layers = [
        Layer(*condition, explanation_of(stored, overview, label, known[label]))
        for condition, label in zip(conditions, stored.labels, strict=True)
    ]
    name, lead = shown(plan.path.name), described_shortly(stored, models)
    lead += (
        f" An overview, without sounds: each column is {overview.column_s:.2f} s, and shows of each band the moment whose importance is farthest "
        "from the mean. To see a stretch frame by frame and to hear it, cut it out and explain it by itself."
    )
    text = page(
        name,
        torch.from_numpy(overview.spectrogram)[None, None],
        layers,
        axis=coarse,
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
        neutral=maps["neutral"],
        cell_effects=maps.get("cell_effects"),
        n_samples=torch.tensor([int(stored.each(f"n_samples_{label}").max())]),
        estimator=estimator,
        **each,
    )
