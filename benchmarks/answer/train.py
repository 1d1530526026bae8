"""Recordings -> the comparison's encoders, each with its manifest; what is there already is kept.

Two more seeds of `vggish_mini`, one trained on recordings in which every bird clip hums (a
shortcut), and `TimeConvolutions`. All by the bundled encoder's recipe, on all recordings but for
the shortcut's hum: faithfulness asks what a network depends on, not how well it generalises.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from benchmarks.answer.networks import ENCODERS, TimeConvolutions
from benchmarks.vggish_mini_training.fitting import Recipe, fit_encoder, fit_network
from benchmarks.vggish_mini_training.recordings import Recordings, load_recordings

HUMMING = "bird"
HUM_HZ = (120.0, 240.0, 360.0)
HUM_DB = -12.0
RATE_HZ = 16_000


def with_hum(recordings: Recordings) -> Recordings:
    """Add a mains-like hum, 12 dB below each recording's level, to all of one class."""
    label = recordings.class_names.index(HUMMING)
    waves = []
    for wave, own in zip(recordings.waves, recordings.labels, strict=True):
        if own == label:
            t = torch.arange(wave.numel()) / RATE_HZ
            hum = torch.stack([torch.sin(2 * torch.pi * f * t) / (k + 1) for k, f in enumerate(HUM_HZ)]).sum(0)
            level = wave.square().mean().sqrt() * 10 ** (HUM_DB / 20)
            wave = wave + hum / hum.square().mean().sqrt() * level
        waves.append(wave)
    return replace(recordings, waves=waves)


def networks(steps: int) -> dict[str, Callable[[Recordings], nn.Module]]:
    """Return what is trained, by the name of its file."""
    recipe = Recipe(steps=steps)
    return {
        "mini_seed_1": partial(fit_encoder, recipe=recipe, seed=1),
        "mini_seed_2": partial(fit_encoder, recipe=recipe, seed=2),
        "mini_shortcut": lambda r: fit_encoder(with_hum(r), recipe, 3),
        "time_convolutions": lambda r: fit_network(TimeConvolutions, r, recipe, 4),
    }


def train(data: Path, steps: int, names: list[str] | None = None) -> dict[str, str]:
    """Train what is missing, on one thread; SHA-256 of each file's weights by name."""
    ENCODERS.mkdir(exist_ok=True)
    recordings, found = cache(lambda: load_recordings(data)), dict[str, str]()
    for name, fit in networks(steps).items():
        path = ENCODERS / f"{name}.safetensors"
        if not path.is_file() and (names is None or name in names):
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            state = {key: value.contiguous() for key, value in fit(recordings()).state_dict().items()}
            torch.set_num_threads(threads)
            part = path.with_suffix(".part")
            part.write_bytes(safetensors.torch.save(state))
            part.replace(path)
            made = {"name": name, "steps": steps, "torch": torch.__version__.split("+")[0], "threads": 1}
            path.with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")
        if path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
