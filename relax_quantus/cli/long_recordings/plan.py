"""Which examples of a long recording are explained, in which blocks, and the digest of everything that the blocks depend on."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relax_quantus.audio.decoding import Recording
from relax_quantus.audio.reading import waveform_blocks
from relax_quantus.base import checks
from relax_quantus.base.modules import fingerprint
from relax_quantus.base.source import source_sha256
from relax_quantus.cli import console
from relax_quantus.cli.clips import Models
from relax_quantus.cli.finding import BLOCK
from relax_quantus.cli.requests.explain import ExplainRequest
from relax_quantus.cli.results import settings_of
from relax_quantus.frontend.framing import Framing, hop_frames
from relax_quantus.recordings.stitching import phases

IN_ONE_GO = 60
"""Examples that are explained, and drawn, in one go."""
BLOCK_EXAMPLES = 48
"""Least number of examples of a block: what is lost at most if a run is killed."""


@dataclass(frozen=True)
class Plan:
    """How one recording is explained.

    Attributes
    ----------
    samples, padding
        Of the recording at the front end's rate, and of the silence that follows it to make one example.
    hop
        Frames from one example to the next.
    count, in_all
        Examples to explain, and that the recording holds.
    block
        Examples a block; the last may have fewer.
    """

    path: Path
    framing: Framing
    samples: int
    padding: int
    hop: int
    count: int
    in_all: int
    block: int

    @property
    def blocks(self) -> int:
        """How many."""
        return -(-self.count // self.block)

    @property
    def frames(self) -> int:
        """Of the stitched map."""
        return (self.count - 1) * self.hop + self.framing.per_example

    def examples_of(self, number: int) -> range:
        """The examples of a block."""
        return range(number * self.block, min((number + 1) * self.block, self.count))

    def phases_of(self, number: int) -> Tensor:
        """Which masks each example of a block draws: overlapping ones have their own."""
        return torch.tensor(self.examples_of(number)) % phases(self.framing.per_example, self.hop)


def plan_for(path: Path, request: ExplainRequest, models: Models) -> Plan | None:
    """Plan a recording that is to be explained in blocks; None for one that is explained in one go.

    In blocks are those with ``--hop`` and those of which more than 60 examples are to be explained. This reads the recording once.

    Raises
    ------
    RelaxQuantusError
        If the recording cannot be used, or its front end cannot work in blocks and has to.
    """
    limit = request.max_examples or None
    if request.hop is None and limit is not None and limit <= IN_ONE_GO:
        return None
    front_end = models.front_end
    why = front_end.framing if isinstance(front_end.framing, str) else _why_not(path, request, front_end.rate_hz)
    if why is not None or isinstance(front_end.framing, str):
        _refuse_blocks(path, request, models, why or "")
        return None
    framing = front_end.framing
    hop = hop_frames(request.hop, front_end.axis.hop_s, framing.per_example)
    samples = sum(block.size for block in waveform_blocks(path, front_end.rate_hz))
    padding = max(0, framing.example_samples - samples)
    in_all = 1 + (framing.count(samples + padding) - framing.per_example) // hop
    count = in_all if limit is None else min(in_all, limit)
    if request.hop is None and count <= IN_ONE_GO:
        return None
    together = BLOCK * phases(framing.per_example, hop)
    block = together * -(-BLOCK_EXAMPLES // together)
    return Plan(path, framing, samples, padding, hop, count, in_all, block)


def _why_not(path: Path, request: ExplainRequest, rate_hz: int) -> str | None:
    if request.resampler == "soxr":
        return None
    with Recording(path) as recording:
        own = recording.rate_hz
    return None if own == rate_hz else f"the resampler {request.resampler} needs a whole recording"


def _refuse_blocks(path: Path, request: ExplainRequest, models: Models, why: str) -> None:
    """Refuse a front end that cannot work in blocks where it has to; elsewhere it may go on in one go."""
    got, text = repr(models.front_end.text), f"({why})"
    if request.hop is not None:
        rule = "a front end whose recordings can be read in blocks"
        checks.refuse("--hop", rule, f"{got} {text}", "leave --hop out")
    if request.max_examples == 0:
        in_all = models.front_end.read(path, 1, request.resampler).in_all
        if in_all > IN_ONE_GO:
            rule = f"a number, as {console.shown(path)} cannot be read in blocks {text}"
            checks.refuse("--max-examples", rule, f"0 for all {in_all}", f"name how many; {in_all} at once need memory")


def key_of(plan: Plan, request: ExplainRequest, models: Models) -> str:
    """SHA-256 over the recording's bytes, all settings, weights and code on which blocks depend."""
    with plan.path.open("rb") as source:
        recording = hashlib.file_digest(source, "sha256").hexdigest()
    depends = {
        **settings_of(request, models),
        "recording": recording,
        "path": str(plan.path.resolve()),
        "plan": [plan.samples, plan.padding, plan.hop, plan.count, plan.block],
        "estimator": request.estimator,
        "code": source_sha256(),
        "torch": torch.__version__,
        "encoder_code": _code_of(models.encoder),
        "head": None if models.classifier is None else fingerprint(models.classifier.head),
        "tensors": [_digest(t) for t in _tensors(models)],
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _tensors(models: Models) -> list[Any]:
    """What maps are towards, away from, and centred on."""
    anchors = [None if anchor is None else anchor.embedding for anchor in (models.towards, models.away)]
    return [*anchors, *(getattr(relax.similarity, "mean", None) for relax in models.explainers.values())]


def _digest(value: Any) -> str | None:
    if not isinstance(value, Tensor):
        return None
    return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _code_of(encoder: nn.Module) -> list[str]:
    """Digests of the files that define the encoder's modules, those of torch left out: weights alone do not say what a network does."""
    files = set()
    for module in encoder.modules():
        try:
            file = inspect.getsourcefile(type(module))
        except TypeError:  # defined at a prompt
            file = None
        if file is not None and not type(module).__module__.startswith("torch."):
            files.add(file)
    return sorted(hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if Path(file).is_file())
