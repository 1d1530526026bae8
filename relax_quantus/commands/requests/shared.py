"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

DOMAIN = "Where soft masks blend clip and fill: log or amplitude."
RESAMPLER = "What brings clips to the encoder's rate: soxr, or torchaudio where it imports."
SEED = "Seed of everything random."

Domain = Annotated[str, typer.Option(metavar="NAME", help=DOMAIN)]
Resampler = Annotated[str, typer.Option(metavar="NAME", help=RESAMPLER)]
Seed = Annotated[int, typer.Option(metavar="N", help=SEED)]


@dataclass(frozen=True)
class NetworkOptions:
    """Which network makes the embeddings, and its weights."""

    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Encoder; `relax-quantus list encoders` names them. NAME:layer=6 sets its parameters. Your own: module:attribute or "
            "file.py:name, a torch module or a function that returns one, or a pair (front end, module).",
        ),
    ] = "vggish_mini"
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Weights of that encoder, safetensors or a torch.save'd state dict; torchaudio's models need it.",
        ),
    ] = None
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", show_default=False, help="SHA-256 that FILE must have, 64 digits.")
    ] = None


@dataclass(frozen=True)
class EncoderOptions(NetworkOptions):
    """Which network makes the embeddings, and of what."""

    front_end: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="What the encoder is shown: log_mel; waveform[:seconds=0.96]; torchaudio's MelSpectrogram, Spectrogram, MFCC or LFCC, as in "
            "MelSpectrogram:n_mels=64,frames=96; or module:attribute. Without it, what suits the encoder.",
        ),
    ] = None
