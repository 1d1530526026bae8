"""Run relax_xai 0.0.5, the official package, as a peer, and use its masks as a strategy.

It is imported without torchvision and run as its defaults have it.

It imports torchvision for image transforms that RELAX does not use; where torchvision is missing an
empty module stands in during the import.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import types
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.speed.rounds import NotAvailableError

BATCH = 100
"""Masks a forward, the package's default."""
VERSION = "0.0.5"


def load() -> types.ModuleType:
    """Return its module ``relax``.

    Raises
    ------
    NotAvailableError
        If it is not installed, or another version.
    """
    if importlib.util.find_spec("relax_xai") is None:
        raise NotAvailableError(f"relax_xai is not installed: pip install --no-deps relax_xai=={VERSION}")
    if (found := importlib.metadata.version("relax_xai")) != VERSION:
        raise NotAvailableError(f"relax_xai {found} is installed, {VERSION} is what is compared")
    stub = importlib.util.find_spec("torchvision") is None
    if stub:
        sys.modules["torchvision"] = types.ModuleType("torchvision")
    try:
        return importlib.import_module("relax_xai.relax")
    finally:
        if stub:
            del sys.modules["torchvision"]


def masks_of(n_samples: int) -> int:
    """Return how many masks, nearest below `n_samples`, it can draw: whole batches."""
    batch = min(BATCH, n_samples)
    return batch * (n_samples // batch)


def explain(encoder: nn.Module, x: Tensor, n_samples: int, seed: int | None = None) -> Tensor:
    """Explain one clip ``(1, 1, T, F)`` with the official package; return importance ``(T, F)``.

    Its defaults: batches of 100 masks, 7 x 7 cells, keep probability .5, fill 0. Gradients are
    switched off, as an experienced user would; the package does not do it. With a seed the global
    generator is seeded within a fork.
    """
    package = load()
    batch = min(BATCH, n_samples)
    devices = [x.device] if x.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices, enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        explained = package.RELAX(x, encoder, batch_size=batch, num_batches=n_samples // batch)
        explained.forward()
    importance: Tensor = explained.importance
    return importance


@dataclass(frozen=True)
class OfficialMasks:
    """The official package's masks as a strategy, so that its map can be had without its loop.

    `weighted` on them is its importance.
    """

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ``(n, 1, T, F)`` from torch's global generator, seeded within a fork.

        The official package draws from no other.
        """
        module = importlib.import_module(load().mask_generator.__module__)
        seed = int(torch.randint(1 << 62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            batches = [min(BATCH, n - start) for start in range(0, n, BATCH)]
            return torch.cat([m for size in batches for m in module.mask_generator(size, tuple(shape[1:]), "cpu")])
