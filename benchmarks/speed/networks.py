"""Encoders and clips of the speed suite, and the forwards alone that everything is compared with.

Names enter; `Network` objects in the state in which a user would have them, log-mel clips, and the
best plain forward loop that a scan finds leave.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

import relax_quantus as rq
from benchmarks.speed.rounds import synchronize
from benchmarks.speed.settings import Settings
from relax_quantus.encoders.vggish import VGGish, weights_url
from relax_quantus.encoders.vggish_mini import VGGishMini, fold

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
MICRO_BATCHES = {"cpu": (4, 8, 16, 24, 32, 48, 64, 96, 128, 256), "cuda": (64, 128, 256, 512, 1024, 2048)}
SCAN_S = 0.3
FINALISTS, FINAL_ROUNDS = 5, 5
"""The fastest of the scan are timed again in turn, so that a lucky moment does not choose."""
LONGEST_S = 2.0
"""A micro-batch that would take longer than this is not tried."""


@dataclass(frozen=True)
class Network:
    """An encoder ``(n, 1, 96, 64) -> (n, D)`` in eval mode as a user would have it.

    `folded` is what its owner could fold by hand.
    """

    name: str
    model: nn.Module
    note: str = ""
    folded: nn.Module | None = None


def network(name: str, settings: Settings) -> Network:
    """Load an encoder: "plain" is built here, other names are the package's; none is downloaded."""
    if name == "plain":
        loaded = plain(settings.seed)
    elif name == "vggish":
        loaded = vggish(settings.vggish_weights, settings.seed)
    else:
        loaded = Network(name, rq.load_encoder(name), "as shipped")
    for model in (loaded.model, loaded.folded):
        if model is not None:
            model.to(settings.device).eval().requires_grad_(False)
    return loaded


def plain(seed: int) -> Network:
    """Build convolutions with batch normalisation, of the mini's layers and sizes.

    Weights are random, contiguous and not folded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VGGishMini(batch_norm=True)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # statistics of all that it has seen
        with torch.no_grad():
            model(torch.randn(16, 1, 96, 64) - 2)
    model.eval()
    return Network("plain", model, "conv + batch norm of vggish_mini's size, random weights", fold(model))


def vggish(weights: Path | None, seed: int) -> Network:
    """Build VGGish with its weights if they are here, else with random ones of the same cost."""
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights_url()).path).name)
    if weights is not None or cached.is_file():
        return Network("vggish", rq.load_encoder("vggish", weights=weights or cached), "torchvggish's weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(
            "vggish", VGGish(), "torchvggish's architecture with random weights: its own are not on this machine"
        )


def load_clips(settings: Settings, count: int) -> Tensor:
    """Load `count` log-mel clips ``(count, 1, 96, 64)``.

    They are the loudest examples of recordings, or synthetic soundscapes with a call.
    """
    if settings.data is not None:
        from relax_quantus.benchmark.data.recordings import folder

        clips = torch.stack([clip.x for clip in folder(settings.data, count, settings.seed, 1).clips])
    else:
        from relax_quantus.benchmark.data.datasets import log_mel
        from relax_quantus.benchmark.data.soundscapes import soundscapes

        clips = log_mel(soundscapes(count, settings.seed, 0))
    repeated = clips.repeat(-(-count // len(clips)), 1, 1, 1)
    return repeated[:count].to(settings.device)


@dataclass(frozen=True)
class Floor:
    """The fastest plain loop of forwards that the scan found."""

    model: nn.Module
    memory_format: str
    micro_batch: int
    rows: Tensor
    scan: list[dict[str, Any]] = field(default_factory=list)

    def run(self, forwards: int) -> None:
        """Embed that many rows in micro-batches and drop the embeddings."""
        with torch.inference_mode():
            for start in range(0, forwards, self.micro_batch):
                self.model(self.rows[: min(self.micro_batch, forwards - start)])

    def arm(self, forwards: int) -> Callable[[], None]:
        """Return `run` as a callable without arguments."""
        return lambda: self.run(forwards)

    def describe(self) -> dict[str, Any]:
        """Describe what was found, for the results."""
        return {"memory_format": self.memory_format, "micro_batch": self.micro_batch, "scan_ms": self.scan}


def best_floor(model: nn.Module, x: Tensor, most: int, device: str = "cpu") -> Floor:
    """Scan memory formats and micro-batches up to `most` rows, and return the fastest.

    Masked copies of one clip ``(1, 1, 96, 64)`` are embedded.
    """
    rq.RELAX(model).attribute(
        x[:1], n_samples=2
    )  # what it changes for the whole process, the forwards alone gain from too
    sizes = [m for m in MICRO_BATCHES[device.split(":")[0]] if m <= most] or [most]
    masks = rq.masks.get("random").sample(max(sizes), tuple(x.shape[1:]), torch.Generator().manual_seed(0))
    copies = x[:1] * masks.to(x.device)
    scan: list[dict[str, Any]] = []
    models = {}
    for name, memory_format in FORMATS.items():
        models[name] = copy.deepcopy(model).to(memory_format=memory_format)  # type: ignore[call-overload]
        rows, row_s = copies.to(memory_format=memory_format), 0.0
        for size in sizes:
            if row_s * size > LONGEST_S:
                break
            seconds = fastest(models[name], rows[:size], device)
            row_s = seconds / size
            scan.append({"memory_format": name, "micro_batch": size, "ms": 1000 * seconds / size})
    finalists = sorted(scan, key=lambda entry: entry["ms"])[:FINALISTS]
    times: list[list[float]] = [[] for _ in finalists]
    for _ in range(FINAL_ROUNDS):
        for entry, taken in zip(finalists, times, strict=True):
            rows = copies.to(memory_format=FORMATS[entry["memory_format"]])[: entry["micro_batch"]]
            taken.append(1000 * fastest(models[entry["memory_format"]], rows, device) / len(rows))
    for entry, taken in zip(finalists, times, strict=True):
        entry["final_ms"] = median(taken)
    winner = min(finalists, key=lambda entry: entry["final_ms"])
    chosen = winner["memory_format"]
    return Floor(models[chosen], chosen, winner["micro_batch"], copies.to(memory_format=FORMATS[chosen]), scan)


def fastest(model: nn.Module, rows: Tensor, device: str) -> float:
    """Time a few forwards; return the seconds of the fastest, the first not counted."""
    times: list[float] = []
    with torch.inference_mode():
        while len(times) < 3 or (sum(times) < SCAN_S and len(times) < 50):
            synchronize(device)
            start = time.perf_counter()
            model(rows)
            synchronize(device)
            times.append(time.perf_counter() - start)
    return min(times[1:])
