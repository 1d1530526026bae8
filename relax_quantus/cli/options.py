"""Options that several commands share, and the names that a shell completes.

A field of such a class says everything about its option once: name, type, default and, in its
annotation, what ``--help`` says. `relax_quantus.cli.main` makes commands of them.

Imported for every ``--help`` and at every press of Tab, so nothing heavy is imported here. Names
that a shell completes are listed, as looking into the registries would load torch; a test compares
them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

# Names that a shell completes

NAMES: dict[str, tuple[str, ...]] = {
    "encoders": (
        "vggish_mini",
        "vggish",
        "birdnet",
        "google_speech",
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
"""Kind of names and the group of entry points by which other distributions add to it."""


def completing(kind: str) -> Callable[[str], list[str]]:
    """Return the function that typer calls for the names of a `kind` that complete a word."""

    def complete(incomplete: str) -> list[str]:
        added = (point.name for point in importlib.metadata.entry_points(group=GROUPS[kind])) if kind in GROUPS else ()
        return [name for name in (*NAMES[kind], *added) if name.startswith(incomplete)]

    return complete


# Options of several commands

RESULTS, ENCODER, MESSAGES = "Output", "Encoder", "Messages"

DOMAIN = "Domain in which soft masks blend clip and fill: log or amplitude."
RESAMPLER = "Resampler that brings clips to the encoder's rate: soxr, or torchaudio if it is installed."
SEED = "Seed of all random draws."

Domain = Annotated[str, typer.Option(metavar="NAME", autocompletion=completing("domains"), help=DOMAIN)]
Resampler = Annotated[
    str,
    typer.Option(metavar="NAME", rich_help_panel=ENCODER, autocompletion=completing("resamplers"), help=RESAMPLER),
]
Seed = Annotated[int, typer.Option(metavar="N", help=SEED)]


@dataclass(frozen=True)
class NetworkOptions:
    """Choose the network that makes the embeddings, and its weights."""

    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=ENCODER,
            autocompletion=completing("encoders"),
            help="Encoder; `relax-quantus list encoders` names them. NAME:layer=6 sets its parameters. A network in a file: model.onnx, "
            "model.tflite or model.pt, as in model.onnx:rate=16000,output=3; `relax-quantus inspect` describes it. Your own: "
            "module:attribute or file.py:name, a torch module or a function that returns one, or a pair (front end, module).",
        ),
    ] = "vggish_mini"
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=ENCODER,
            show_default="its own",
            help="Weights of that encoder, safetensors or a torch.save'd state dict; torchaudio's models need this.",
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
    """Choose the network that makes the embeddings, and what it is shown."""

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


@dataclass(frozen=True)
class MessageOptions:
    """Choose what a command prints while it runs."""

    quiet: Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=MESSAGES, help="Print errors only.")] = False
    json: Annotated[
        bool,
        typer.Option(
            "--json", rich_help_panel=MESSAGES, help="Print results as JSON, one object a line, for programs."
        ),
    ] = False
    debug: Annotated[
        bool, typer.Option("--debug", rich_help_panel=MESSAGES, help="Show the traceback of an error.")
    ] = False
