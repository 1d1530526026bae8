"""Say what a run of the speed suite measures: sizes, encoders, threads.

Options of the command enter, a frozen `Settings` leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAVY = ("vggish",)
"""Encoders whose forwards take so long that they get sizes of their own."""


@dataclass(frozen=True)
class Settings:
    """Sizes of a run.

    Parameters
    ----------
    n_samples, repeats
        Masks a call, and rounds of paired timings.
    heavy_n_samples, heavy_repeats
        The same for the encoders in `HEAVY`.
    encoders, masks, estimators
        What is compared; an estimator or precision that the package does not have (yet) is a row
        with the reason.
    batch
        Clips of the batched calls, which take ``n_samples / batch`` masks, so that the number of
        forwards is that of one clip.
    threads
        Of torch, and of the subprocesses.
    data, clips, seed
        Folder of recordings, or None for synthetic soundscapes; clips of the error study; seed of
        clips and masks.
    error_sizes, error_repeats, reference_masks
        Error study: numbers of masks, maps at each, and masks of the converged value, in
        `REFERENCE_RUNS` independent runs.
    memory_sizes, memory_mini_sizes, memory_repeats
        Two numbers of masks each, with a cheap encoder and with vggish_mini (the first strategy
        only), and pairs of fresh processes.
    vggish_weights
        A local file, or None for torch.hub's cache, or random weights where that is empty: nothing
        is downloaded.
    device
        ``"cpu"``; the GPU section sets ``"cuda"``.
    """

    n_samples: int = 3000
    repeats: int = 7
    heavy_n_samples: int = 3000
    heavy_repeats: int = 3
    encoders: tuple[str, ...] = ("vggish_mini", "plain", "vggish")
    masks: tuple[str, ...] = ("random", "time", "frequency", "time_frequency")
    estimators: tuple[str, ...] = ("weighted", "surrogate")
    batch: int = 8
    threads: int = 2
    data: Path | None = None
    clips: int = 6
    seed: int = 0
    error_sizes: tuple[int, ...] = (60, 125, 250, 500, 1000, 3000)
    error_repeats: int = 4
    reference_masks: int = 40_000
    memory_sizes: tuple[int, ...] = (3000, 100_000)
    memory_mini_sizes: tuple[int, ...] = (1000, 10_000)
    memory_repeats: int = 2
    vggish_weights: Path | None = None
    device: str = "cpu"

    def n(self, encoder: str) -> int:
        """Return the number of masks a call for an encoder."""
        return self.heavy_n_samples if encoder in HEAVY else self.n_samples

    def rounds(self, encoder: str) -> int:
        """Return the number of rounds for an encoder."""
        return self.heavy_repeats if encoder in HEAVY else self.repeats


QUICK: dict[str, Any] = {
    "encoders": ("vggish_mini", "plain"),
    "masks": ("random", "time"),
    "n_samples": 200,
    "repeats": 3,
    "heavy_n_samples": 50,
    "heavy_repeats": 2,
    "clips": 2,
    "error_sizes": (60, 250),
    "error_repeats": 2,
    "reference_masks": 2000,
    "memory_sizes": (500, 5000),
    "memory_mini_sizes": (200, 1000),
    "memory_repeats": 1,
}
"""Sizes of ``--quick``: whether it runs, not how fast."""
