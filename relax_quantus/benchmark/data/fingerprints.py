"""Identify clips and data sets: by exact digests, and by traces that forgive rounding.

A data set and the number of a clip enter. `clip_digest` and `examples_digest` are parts of a cell's
key. `Traces` are small enough to go along with every unit of work, so that whoever computes it can
see that it has the same content as whoever laid out the grid. They compare numbers with a
tolerance, and so are no part of a key: another processor may make the last digits of the same
log-mel otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.benchmark.data.clips import Clip, Dataset, LabelledExamples
from relax_quantus.benchmark.methods.questions import fingerprint

PROJECTIONS = 4
TOLERANCE = 1e-4
"""Of a projection, as a share of what it is of data of independent bins."""


@dataclass(frozen=True)
class Trace:
    """A digest of what is exact, and projections of tensors on fixed random directions."""

    exact: str
    projected: tuple[float, ...] = ()
    scale: float = 0.0

    def same_as(self, other: Trace) -> bool:
        """Tell whether the contents are the same but for rounding."""
        if self.exact != other.exact or len(self.projected) != len(other.projected):
            return False
        return bool(np.allclose(self.projected, other.projected, rtol=0.0, atol=TOLERANCE * max(self.scale, 1e-9)))


Traces = tuple[tuple[str, Trace], ...]
"""What it is, and what is left of it."""


def clip_digest(clip: Clip) -> str:
    """Digest everything that a clip holds."""
    parts = (clip.name, clip.label, clip.label_name, clip.source_group, clip.x, clip.stem, clip.rest)
    return fingerprint(
        *parts, *(None if a is None else a.tobytes() for a in (clip.truth, getattr(clip, "region", None)))
    )


def examples_digest(dataset: Dataset) -> str:
    """Digest the examples that the head is fitted and judged on."""

    def examples(some: LabelledExamples) -> tuple[Any, ...]:
        return some.x, some.y.tobytes(), some.groups, some.clips

    return fingerprint(dataset.class_names, *examples(dataset.training), *examples(dataset.held_out))


def traces_of(data: Dataset, index: int, encoder_sha256: str, versions: Mapping[str, str]) -> Traces:
    """Trace a clip, the examples of its head, the encoder's weights and the code."""
    clip = trace_of_clip(data.clips[index]) if index < len(data.clips) else Trace("missing")
    code = Trace(_digest(dict(versions)))
    return ("clip", clip), ("head's examples", _of_examples(data)), ("encoder", Trace(encoder_sha256)), ("code", code)


def trace_of_clip(clip: Clip) -> Trace:
    """Trace everything that a clip holds."""
    marks = [None if a is None else hashlib.sha256(a.tobytes()).hexdigest() for a in (clip.truth, clip.region)]
    tensors = [t for t in (clip.x, clip.stem, clip.rest) if t is not None]
    return trace((clip.name, clip.label, clip.label_name, clip.source_group, len(tensors), marks), torch.stack(tensors))


@lru_cache(maxsize=2)
def _of_examples(data: Dataset) -> Trace:
    parts = data.training, data.held_out
    exact = [data.class_names, *((part.y.tolist(), part.groups, part.clips) for part in parts)]
    return trace(exact, torch.cat([part.x for part in parts]))


def trace(exact: Any, x: Tensor) -> Trace:
    """Trace plain values and tensors ``(n, 1, T, F)``.

    A direction is a product of one random vector an axis: a change in any one bin, frame or example
    shows in all of them.
    """
    values, projected = x.detach().cpu().numpy(), []
    for k in range(PROJECTIONS):
        rng = np.random.default_rng([k, *values.shape])
        found: npt.NDArray[np.floating] = values
        for length in reversed(values.shape):
            found = np.asarray(found @ np.asarray(rng.standard_normal(length), dtype=values.dtype))
        projected.append(float(found))
    return Trace(_digest([exact, list(values.shape)]), tuple(projected), float(np.linalg.norm(values)))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
