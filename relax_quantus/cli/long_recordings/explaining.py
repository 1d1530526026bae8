"""A planned recording -> its blocks, each explained and stored before the next is read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from relax_quantus.audio.reading import waveform_blocks
from relax_quantus.cli import console
from relax_quantus.cli.clips import Findings, Models
from relax_quantus.cli.finding import NOT_EXPLAINED, embed, find
from relax_quantus.cli.long_recordings.plan import Plan
from relax_quantus.cli.long_recordings.store import Array, BlockStore
from relax_quantus.cli.requests.explain import ExplainRequest
from relax_quantus.frontend.framing import FrameReader, cut
from relax_quantus.recordings.stitching import Stitcher, maps_of

EACH = (
    *("mean_similarity", "fully_masked_similarity", "compared_with_itself", "n_samples"),
    *("null_maxima", "null_statistic"),
)
"""What there is one, or one row, of an example."""
CARRY = "carry"


def explain_blocks(plan: Plan, store: BlockStore, request: ExplainRequest, models: Models) -> None:
    """Explain what is not in the store yet.

    Raises
    ------
    RelaxQuantusError
        If the recording or the encoder cannot be used.
    """
    start = store.finished()
    if start >= plan.blocks:
        return
    framing = plan.framing
    stitchers = _stitchers(plan, store, start - 1) if start else {}
    reader = FrameReader(waveform_blocks(plan.path, models.front_end.rate_hz), framing, plan.padding)
    name, conditions, begun = (
        console.shown(plan.path.name),
        len(models.explainers) * len(request.baselines),
        start * plan.block,
    )
    if begun:
        console.note(f"{name}: going on after {begun} of {plan.count} examples")
    with console.progress(plan.count * conditions, name, "example", begun * conditions) as bar:
        for number in range(start, plan.blocks):
            examples = plan.examples_of(number)
            rows = (len(examples) - 1) * plan.hop + framing.per_example
            frames = reader.take(examples.start * plan.hop, rows)
            x = cut(frames, framing.per_example, plan.hop)
            h = embed(x, models)
            findings = find(x, h, request, models, bar.update, plan.phases_of(number))
            is_last = number == plan.blocks - 1
            arrays = _described(findings, frames[: None if is_last else len(examples) * plan.hop])
            store.put(number, {**arrays, **_stitched(findings, h.any(dim=1), stitchers, plan, is_last)})


def _described(findings: Findings, frames: Tensor) -> dict[str, Array]:
    """What a block says but for its maps."""
    arrays: dict[str, Array] = {"x": frames.numpy(), "embedding": findings.embedding.numpy()}
    if findings.probabilities is not None:
        arrays["probabilities"] = findings.probabilities.numpy()
    for label, explanation in findings.by_name().items():
        arrays |= {f"{kind}_{label}": getattr(explanation, kind).numpy() for kind in EACH}
        arrays[f"spearman_{label}"] = explanation.spearman().numpy()
        arrays[f"estimator_{label}"] = np.array(explanation.estimator)
    return arrays


def _stitched(
    findings: Findings, usable: Tensor, stitchers: dict[str, Stitcher], plan: Plan, is_last: bool
) -> dict[str, Array]:
    """The block's finished frames of every map, and what the next block goes on from."""
    arrays: dict[str, Array] = {}
    for label, explanation in findings.by_name().items():
        stitcher = stitchers.setdefault(label, Stitcher(plan.framing.per_example, plan.hop, shared_masks=False))
        parts = stitcher.push(maps_of(explanation), usable)
        rest = stitcher.finish() if is_last else {}
        for kind, part in parts.items():
            whole = torch.cat([part, rest[kind].to(part.dtype)]) if is_last else part
            arrays[f"{kind}_{label}"] = _narrow(whole.numpy())
        for kind, sums in {} if is_last else stitcher.carry.items():
            arrays[f"{CARRY}/{label}/{kind}"] = sums.numpy()
    return arrays


def _narrow(values: Array) -> Array:
    """One column ``(rows, 1)`` where all are equal, as with masks over time."""
    same = (values == values[:, :1]) | np.isnan(values) & np.isnan(values[:, :1])
    return values[:, :1].copy() if same.all() else values


def _stitchers(plan: Plan, store: BlockStore, number: int) -> dict[str, Stitcher]:
    """Stitchers as they were after a stored block."""
    carries: dict[str, dict[str, Tensor]] = {}
    for name in store.names(number):
        if name.startswith(f"{CARRY}/"):
            _, label, kind = name.split("/", 2)
            carries.setdefault(label, {})[kind] = torch.from_numpy(store.get(number, name))
    return {
        label: Stitcher(plan.framing.per_example, plan.hop, shared_masks=False, carry=carry)
        for label, carry in carries.items()
    }


def estimators(store: BlockStore, plan: Plan, labels: list[str]) -> dict[str, str]:
    """The name of each label's estimator; blocks in which nothing could be explained have none."""
    found = {}
    for label in labels:
        names = {str(store.get(number, f"estimator_{label}")) for number in range(plan.blocks)} - {NOT_EXPLAINED}
        found[label] = ", ".join(sorted(names)) or NOT_EXPLAINED
    return found
