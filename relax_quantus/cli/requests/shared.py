"""Options that several commands share, and under which headings ``--help`` lists options."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from relax_quantus.cli.requests.names import completing

RESULTS, ENCODER, MESSAGES = "What is written", "Encoder", "Messages"

DOMAIN = "Where soft masks blend clip and fill: log or amplitude."
RESAMPLER = "What brings clips to the encoder's rate: soxr, or torchaudio where it imports."
SEED = "Seed of everything random."

Domain = Annotated[str, typer.Option(metavar="NAME", autocompletion=completing("domains"), help=DOMAIN)]
Resampler = Annotated[
    str,
    typer.Option(metavar="NAME", rich_help_panel=ENCODER, autocompletion=completing("resamplers"), help=RESAMPLER),
]
Seed = Annotated[int, typer.Option(metavar="N", help=SEED)]


@dataclass(frozen=True)
class NetworkOptions:
    """Which network makes the embeddings, and its weights."""

    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=ENCODER,
            autocompletion=completing("encoders"),
            help="Encoder; `relax-quantus list encoders` names them. NAME:layer=6 sets its parameters. Your own: module:attribute or "
            "file.py:name, a torch module or a function that returns one, or a pair (front end, module).",
        ),
    ] = "vggish_mini"
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=ENCODER,
            show_default="its own",
            help="Weights of that encoder, safetensors or a torch.save'd state dict; torchaudio's models need it.",
        ),
    ] = None
    sha256: Annotated[
        str | None,
        typer.Option(
            metavar="HEX",
            rich_help_panel=ENCODER,
            show_default="not checked",
            help="SHA-256 that FILE must have, 64 digits.",
        ),
    ] = None


@dataclass(frozen=True)
class EncoderOptions(NetworkOptions):
    """Which network makes the embeddings, and of what."""

    front_end: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=ENCODER,
            autocompletion=completing("front_ends"),
            show_default="what suits the encoder",
            help="What the encoder is shown: log_mel; waveform[:seconds=0.96]; torchaudio's MelSpectrogram, Spectrogram, MFCC or LFCC, as in "
            "MelSpectrogram:n_mels=64,frames=96; or module:attribute.",
        ),
    ] = None

    @property
    def named(self) -> dict[str, Any]:
        """The options as `relax_quantus.encoders.loading.load` takes them."""
        return asdict(self)


@dataclass(frozen=True)
class MessageOptions:
    """What is said while a command runs."""

    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", rich_help_panel=MESSAGES, help="Say nothing but what went wrong.")
    ] = False
    json: Annotated[
        bool, typer.Option("--json", rich_help_panel=MESSAGES, help="Results as JSON, one object a line, for programs.")
    ] = False
    debug: Annotated[
        bool, typer.Option("--debug", rich_help_panel=MESSAGES, help="Show the traceback of an error.")
    ] = False
