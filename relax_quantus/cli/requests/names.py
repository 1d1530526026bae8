"""Names that a shell completes: what the registries hold, said once more here, as looking into them would load torch at every press of a key.

A test compares each tuple with its registry. What other distributions add is found by its entry points' names, without loading them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

NAMES: dict[str, tuple[str, ...]] = {
    "encoders": (
        "vggish_mini",
        "vggish",
        "wav2vec2_base",
        "wav2vec2_large",
        "wav2vec2_large_lv60k",
        "wav2vec2_xlsr_300m",
        "wav2vec2_xlsr_1b",
        "wav2vec2_xlsr_2b",
        "hubert_base",
        "hubert_large",
        "hubert_xlarge",
        "wavlm_base",
        "wavlm_large",
        "random",
    ),
    "masks": ("random", "time", "frequency", "time_frequency"),
    "fills": ("silence", "background", "band_mean", "mean", "noise", "blur", "zero"),
    "similarities": ("cosine", "centred_cosine", "dot", "negative_euclidean"),
    "estimators": ("weighted", "paper", "surrogate"),
    "front_ends": ("log_mel", "waveform", "MelSpectrogram", "Spectrogram", "MFCC", "LFCC"),
    "resamplers": ("soxr", "torchaudio"),
    "domains": ("log", "amplitude"),
    "precisions": ("float32", "bfloat16", "auto"),
    "presets": ("quick", "default", "paper"),
    "kinds": ("encoders", "masks", "fills", "similarities", "estimators", "methods", "metrics"),
}
GROUPS = {kind: f"relax_quantus.{kind}" for kind in ("encoders", "masks", "fills")}
"""Kind -> the entry points that add to it."""


def completing(kind: str) -> Callable[[str], list[str]]:
    """What typer asks for the names of a `kind` that begin with what was typed."""

    def complete(incomplete: str) -> list[str]:
        added = (point.name for point in importlib.metadata.entry_points(group=GROUPS[kind])) if kind in GROUPS else ()
        return [name for name in (*NAMES[kind], *added) if name.startswith(incomplete)]

    return complete
