"""Options that several commands share, and how a dataclass of options becomes a command.

A field of such a class says everything about its option once: name, type, default and, in its
annotation, what ``--help`` says. The docstring of the class is the command's help, its method `run`
is what the command does.

Imported for every ``--help`` and at every press of Tab, so nothing heavy is imported here. Names
that a shell completes are listed, as looking into the registries would load torch; a test compares
them.
"""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from relax_quantus.cli import console
from relax_quantus.errors import ArgumentTypeError

# Names that a shell completes

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

    @property
    def named(self) -> dict[str, Any]:
        """Return the options as arguments of `relax_quantus.encoders.loading.load`."""
        return asdict(self)


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


# A dataclass becomes a command

EXAMPLES = "\b\nExamples:"
NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}
LARGEST = 2**63 - 1
"""The largest whole number that an option takes: what torch and numpy can count to."""


class PlainEpilog:
    """Write the end of a help text line by line as it was written."""

    epilog: str | None

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the epilog without wrapping it."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(self.epilog.strip() + "\n")


class GroupedCommand(PlainEpilog, TyperCommand):
    """List options under headings, in the order in which these first come, messages last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, each group under its heading."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                own = "Arguments" if parameter.param_type_name == "argument" else "Options"
                usual = MESSAGES if parameter.name == "help" else own
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(plain(*record))
        groups[MESSAGES] = groups.pop(MESSAGES, [])
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name in the first line, without braces."""
        return [re.sub(r"[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]


def plain(name: str, text: str) -> tuple[str, str]:
    """Take the type out of an argument's name, and brackets off a default in words.

    Examples
    --------
    >>> plain("CLIP <path>", "Like this one?  [default: (itself)]")
    ('CLIP', 'Like this one?  [default: itself]')
    """
    return re.sub(r" <\w+>$", "", name), re.sub(r"\[default: \((.*)\)\]", r"[default: \1]", text)


class Request(Protocol):
    """What `declare` needs of a dataclass of options."""

    @property
    def messages(self) -> MessageOptions:
        """Return what the command prints while it runs."""

    def run(self) -> int:
        """Run the command and return its exit code."""


def declare(app: typer.Typer, name: str, request: type[Request]) -> None:
    """Add the command `name` to `app`: build a `request` of what was typed, and run it."""

    def command(**given: Any) -> int:
        asked: Request = built(request, given)
        console.manner.set(console.Manner(asked.messages.quiet, asked.messages.json))
        console.debugging.set(console.debugging.get() or asked.messages.debug)
        return asked.run()

    parameters = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_parsed(field.name, annotation)
        )
        for field, default, annotation in options(request)
    ]
    text, _, examples = inspect.getdoc(request).partition(EXAMPLES)  # type: ignore[union-attr]
    command.__name__, command.__doc__ = name, text
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, cls=GroupedCommand, epilog=(EXAMPLES + examples).removeprefix("\b\n"))(command)


def options(request: Any) -> Iterator[tuple[Field[Any], Any, Any]]:
    """Yield each option's field, default and annotation; unfold fields that are dataclasses."""
    hints = get_type_hints(request, include_extras=True)
    for field in fields(request):
        if is_dataclass(hints[field.name]):
            yield from options(hints[field.name])
        else:
            yield field, inspect.Parameter.empty if field.default is MISSING else field.default, hints[field.name]


def _parsed(name: str, annotation: Any) -> Any:
    """Return the annotation of an option; add `number` as the parser of numbers."""
    kind, info = get_args(annotation)[:2]
    numbers = [k for k in NUMBERS if k is kind or k in get_args(kind)]
    if not numbers:
        return annotation
    info = copy.copy(info)
    info.parser = number(f"--{name.replace('_', '-')}", numbers[0])
    return Annotated[kind, info]


def number(option: str, kind: type) -> Callable[[Any], Any]:
    """Return a parser of an option's number that refuses other text in one plain line.

    Examples
    --------
    >>> number("--hop", float)("0.5")
    0.5
    """

    def read(text: Any) -> Any:
        try:
            value = kind(text)
        except ValueError:
            remedy = "use a point for decimals" if kind is float and "," in str(text) else "write it in digits"
            said = f"{option}: expected {NUMBERS[kind]}, got {text!r}; {remedy}."
            raise ArgumentTypeError(said) from None  # typer takes a ValueError for its own
        if kind is int and abs(value) > LARGEST:
            raise ArgumentTypeError(f"{option}: expected a whole number below 2**63, got {text}; pass a smaller one.")
        return value

    read.__name__ = kind.__name__
    return read


def built(request: Any, given: dict[str, Any]) -> Any:
    """Build a `request` of the values `given` for its options."""
    hints = get_type_hints(request)
    return request(
        **{
            f.name: built(hints[f.name], given) if is_dataclass(hints[f.name]) else given[f.name]
            for f in fields(request)
        }
    )
