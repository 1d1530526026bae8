"""What a person can ask of a command: options that several commands share, and how a dataclass of options becomes a command.

A field of such a class says everything about its option once: name, type, default and, in its annotation, what ``--help`` says. Its docstring is
the help, its `run` what the command does. Imported for every ``--help`` and at every press of Tab, so nothing heavy is imported here; names that a
shell completes are said once more, as looking into the registries would load torch. A test compares them.
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
"""Kind -> the entry points that add to it."""


def completing(kind: str) -> Callable[[str], list[str]]:
    """What typer asks for the names of a `kind` that begin with what was typed."""

    def complete(incomplete: str) -> list[str]:
        added = (point.name for point in importlib.metadata.entry_points(group=GROUPS[kind])) if kind in GROUPS else ()
        return [name for name in (*NAMES[kind], *added) if name.startswith(incomplete)]

    return complete


# Options of several commands

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


# A dataclass becomes a command

EXAMPLES = "\b\nExamples:"
NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}
LARGEST = 2**63 - 1
"""Of whole numbers: what torch and numpy can count to."""


class PlainEpilog:
    """What comes last in the help of a command or of a group of commands, line by line as it was written."""

    epilog: str | None

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write it."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(self.epilog.strip() + "\n")


class GroupedCommand(PlainEpilog, TyperCommand):
    """A command whose help lists its options under headings, in the order in which these first come, messages last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
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
        """What follows the command's name in the first line."""
        return [re.sub(r"[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]


def plain(name: str, text: str) -> tuple[str, str]:
    """An option's name and help without an argument's type and the brackets around a default in words.

    Examples
    --------
    >>> plain("CLIP <path>", "Like this one?  [default: (itself)]")
    ('CLIP', 'Like this one?  [default: itself]')
    """
    return re.sub(r" <\w+>$", "", name), re.sub(r"\[default: \((.*)\)\]", r"[default: \1]", text)


class Request(Protocol):
    """What a command was asked."""

    @property
    def messages(self) -> MessageOptions:
        """What is said meanwhile."""

    def run(self) -> int:
        """Do it and return the exit code."""


def declare(app: typer.Typer, name: str, request: type[Request]) -> None:
    """Add the command `name` to `app`: it builds a `request` of what was given, runs it, and its exit code is the command's."""

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
    """Each option's field, default and annotation; a field that is a dataclass itself stands for its own fields."""
    hints = get_type_hints(request, include_extras=True)
    for field in fields(request):
        if is_dataclass(hints[field.name]):
            yield from options(hints[field.name])
        else:
            yield field, inspect.Parameter.empty if field.default is MISSING else field.default, hints[field.name]


def _parsed(name: str, annotation: Any) -> Any:
    """The annotation of an option; that of a number brings its own way to read one, which says in our words what is no number."""
    kind, info = get_args(annotation)[:2]
    numbers = [k for k in NUMBERS if k is kind or k in get_args(kind)]
    if not numbers:
        return annotation
    info = copy.copy(info)
    info.parser = number(f"--{name.replace('_', '-')}", numbers[0])
    return Annotated[kind, info]


def number(option: str, kind: type) -> Callable[[Any], Any]:
    """What reads the number of an option, an int or a float.

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
