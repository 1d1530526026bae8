"""Time overhead and relax_xai again on a CUDA device: the section "gpu".

The difference of its maps from the CPU's is measured, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.speed.explainers import explainer
from benchmarks.speed.networks import load_clips, network
from benchmarks.speed.official import official
from benchmarks.speed.overhead import overhead
from benchmarks.speed.rounds import NotAvailableError
from benchmarks.speed.rows import FAILED, SKIPPED, Aim, Row
from benchmarks.speed.settings import Settings

SECTION = "gpu"
DIFFERENCE = "largest difference of a map's value between GPU and CPU, float32, same seed"


def gpu(settings: Settings) -> Iterator[Row]:
    """Yield the rows of a GPU, or one with the reason why there are none."""
    if not torch.cuda.is_available():
        yield Row(SECTION, DIFFERENCE, {"device": "cuda"}, status=SKIPPED, reason="no CUDA device on this machine")
        return
    on_gpu = replace(settings, device="cuda")
    for name in settings.encoders:
        for masks in settings.masks:
            for estimator in settings.estimators:
                yield difference(settings, on_gpu, name, masks, estimator)
    for section in (overhead, official):
        for row in section(on_gpu):
            yield replace(row, section=SECTION)


def difference(settings: Settings, on_gpu: Settings, name: str, masks: str, estimator: str) -> Row:
    """Explain one clip on either device."""
    labels = {"encoder": name, "masks": masks, "estimator": estimator}
    maps: list[Tensor] = []
    try:
        for where in (settings, on_gpu):
            relax = explainer(network(name, where).model, masks, estimator)
            importance = relax.attribute(load_clips(where, 1), n_samples=min(300, settings.n(name)), seed=0)
            maps.append(torch.as_tensor(importance).cpu())
    except NotAvailableError as missing:
        return Row(SECTION, DIFFERENCE, labels, status=SKIPPED, reason=str(missing))
    except Exception as error:  # a cell that fails is a row with its reason
        return Row(SECTION, DIFFERENCE, labels, status=FAILED, reason=f"{type(error).__name__}: {error}")
    largest = float((maps[0] - maps[1]).abs().max())
    return Row(SECTION, DIFFERENCE, labels, (largest,), aim=Aim("at most", 1e-4))
