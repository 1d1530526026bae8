"""Load a folder with ``clips.csv``, and draw random excerpts and quiet backgrounds from it.

First step of the training flow. Waveforms are mono, 16 kHz; an excerpt is one example long (15 600
samples, 0.975 s).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from relax_quantus.audio.reading import load_waveform
from relax_quantus.base import checks
from relax_quantus.errors import DataError
from relax_quantus.frontend.log_mel import LogMelConfig

EXAMPLE = LogMelConfig().example_samples
GRAIN = 1600
LEVEL_HOP = 160
QUIET_BELOW_LOUD_DB = 15.0
MAX_SPEED = 1.15


@dataclass(frozen=True)
class Recordings:
    """Recordings of a data set, decoded.

    Attributes
    ----------
    table
        ``clips.csv``, one row a clip.
    class_names
        Sorted; ``labels`` counts in it.
    labels
        (clips,) ints.
    waves
        One waveform (samples,) a clip, float32, 16 kHz.
    """

    table: pd.DataFrame
    class_names: list[str]
    labels: npt.NDArray[np.int64]
    waves: list[Tensor]

    def select(self, rows: npt.NDArray[np.int64]) -> Recordings:
        """Keep some clips; class names and label numbers stay."""
        table = self.table.iloc[rows].reset_index(drop=True)
        return Recordings(table, self.class_names, self.labels[rows], [self.waves[row] for row in rows])


def load_recordings(folder: str | os.PathLike[str], progress: bool = True) -> Recordings:
    """Decode every clip that ``clips.csv`` names (columns file, label, source_group).

    Raises
    ------
    DataError
        If the table or one of its columns is missing, or it names fewer than two classes.
    AudioError
        If a clip does not decode.
    """
    folder = Path(folder)
    if not (folder / "clips.csv").is_file():
        checks.refuse("--data", "a folder with clips.csv", f"{folder}", "name the folder that holds it", DataError)
    table = pd.read_csv(folder / "clips.csv")
    if missing := {"file", "label", "source_group"} - set(table.columns):
        checks.refuse(
            "clips.csv", "columns file, label and source_group", f"none called {sorted(missing)}", error=DataError
        )
    names = sorted(table["label"].unique())
    if len(names) < 2:
        checks.refuse("clips.csv", "at least two labels", f"{names}", "add recordings of another class", DataError)
    files = tqdm(table["file"], desc="decode", unit="clip", disable=not progress)
    waves = [torch.from_numpy(load_waveform(folder / file)) for file in files]
    labels = table["label"].map({name: index for index, name in enumerate(names)}).to_numpy(np.int64)
    return Recordings(table, names, labels, waves)


def levels_db(wave: Tensor, window: int, hop: int) -> Tensor:
    """Return the RMS level in dB re full scale of each window, (samples,) -> (windows,).

    A short waveform counts as padded with silence.
    """
    padded = torch.nn.functional.pad(wave, (0, max(0, window - wave.numel())))
    return 10.0 * torch.log10(padded.unfold(0, window, hop).square().mean(-1) + 1e-12)


def background_of(wave: Tensor, generator: torch.Generator) -> Tensor | None:
    """Draw one excerpt (15 600,) of unit RMS from a clip's quiet parts.

    Grains of 0.1 s in random order, crossfaded. A grain is quiet when it is among the clip's
    quietest fifth and at least 15 dB below its loudest twentieth, so that a clip which calls
    throughout has no background (None), nor has one whose quiet parts are digital silence.
    """
    level = levels_db(wave, GRAIN, GRAIN // 4)
    quiet = (level <= level.quantile(0.2)) & (level <= level.quantile(0.95) - QUIET_BELOW_LOUD_DB) & (level > -100.0)
    starts = quiet.nonzero().flatten() * (GRAIN // 4)
    if starts.numel() == 0:
        return None
    count = 2 * EXAMPLE // GRAIN + 2
    picks = starts[torch.randint(starts.numel(), (count,), generator=generator)]
    grains = wave[picks[:, None] + torch.arange(GRAIN)] * torch.hann_window(GRAIN)
    out = torch.zeros((count + 1) * GRAIN // 2)
    for index, grain in enumerate(grains):
        out[index * GRAIN // 2 : index * GRAIN // 2 + GRAIN] += grain
    out = out[GRAIN // 2 : GRAIN // 2 + EXAMPLE]
    return out / out.square().mean().sqrt().clamp_min(1e-9)


class Excerpts:
    """Random excerpts of calls and of backgrounds.

    Parameters
    ----------
    recordings
        What to draw from.
    generator
        Draws the bank of backgrounds (four a clip).
    """

    def __init__(self, recordings: Recordings, generator: torch.Generator) -> None:
        self.labels = torch.tensor(recordings.labels)
        bank = [background_of(wave, generator) for wave in recordings.waves for _ in range(4)]
        self.backgrounds = torch.stack([b for b in bank if b is not None] or [torch.zeros(EXAMPLE)])
        counts = torch.bincount(self.labels, minlength=len(recordings.class_names)).float()
        self.clip_probability = counts[self.labels].pow(-0.5)
        margin = int(EXAMPLE * MAX_SPEED) + 2
        self.flat = torch.cat([torch.nn.functional.pad(wave, (margin, margin)) for wave in recordings.waves])
        lengths = torch.tensor([wave.numel() for wave in recordings.waves])
        self.starts = torch.cumsum(lengths + 2 * margin, 0) - lengths - margin
        self.lengths = lengths
        levels = [levels_db(wave, 400, LEVEL_HOP) for wave in recordings.waves]
        self.loudness = [(10.0 ** (level / 20.0)).clamp_min(1e-6) for level in levels]

    def calls(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n excerpts around loud moments, played at 0.87 to 1.15 times the speed.

        Classes are drawn in proportion to the square root of their clips, clips of a class equally,
        moments in proportion to amplitude; the moment falls anywhere in the excerpt's middle 80 %.
        Beyond a clip's ends there is silence.

        Returns
        -------
        (waves, labels)
            (n, 15 600) and (n,).
        """
        clips = torch.multinomial(self.clip_probability, n, replacement=True, generator=generator)
        moments = [
            torch.multinomial(self.loudness[c], 1, generator=generator).item() * LEVEL_HOP for c in clips.tolist()
        ]
        speed = MAX_SPEED ** (2.0 * torch.rand(n, generator=generator, dtype=torch.float64) - 1.0)
        place = EXAMPLE * (0.1 + 0.8 * torch.rand(n, generator=generator, dtype=torch.float64))
        first = torch.tensor(moments, dtype=torch.float64) - place * speed
        # an excerpt of a long clip stays inside it
        last = self.lengths[clips] - EXAMPLE * speed
        first = torch.where(last > 0, first.clamp_min(0.0).minimum(last), first)
        position = first[:, None] + speed[:, None] * torch.arange(EXAMPLE, dtype=torch.float64)
        whole = position.floor()
        part = (position - whole).float()
        at = (whole.long() + self.starts[clips, None]).clamp_(0, self.flat.numel() - 2)
        return torch.lerp(self.flat[at], self.flat[at + 1], part), self.labels[clips]

    def quiet(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n backgrounds (n, 15 600) of unit RMS from the bank, whatever their class."""
        return self.backgrounds[torch.randint(len(self.backgrounds), (n,), generator=generator)]
