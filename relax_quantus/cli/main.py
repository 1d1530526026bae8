"""The command ``relax-quantus``: arguments enter, one command runs, an exit code leaves.

The options, the help and the work of each command are a dataclass in its own file: its docstring is
the command's help, its method `run` is what the command does. Here it becomes a command, and
whatever goes wrong becomes one plain line on stderr. Nothing heavy is imported, so ``--help``
answers at once; each command imports what it needs when it runs.

Exit codes: 0 all done, 1 something could not be done or was skipped, 2 the command line cannot
work, 130 Ctrl-C, 143 SIGTERM, 141 all done, but nobody reads stdout any more.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Protocol, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

import relax_quantus
from relax_quantus.cli import console
from relax_quantus.cli.bench import BenchRequest
from relax_quantus.cli.explain import ExplainRequest
from relax_quantus.cli.fit import FitRequest
from relax_quantus.cli.inspect_file import InspectRequest
from relax_quantus.cli.list_names import ListRequest
from relax_quantus.cli.options import MESSAGES, MessageOptions
from relax_quantus.cli.report import ReportRequest
from relax_quantus.errors import ArgumentError, ArgumentTypeError

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
    >>> plain("CLIP <list[Path]>", "Like this one?  [default: (itself)]")
    ('CLIP', 'Like this one?  [default: itself]')
    """
    return re.sub(r" <.+>$", "", name), re.sub(r"\[default: \((.*)\)\]", r"[default: \1]", text)


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


# The program

PROGRAM = "relax-quantus"
COMMANDS: dict[str, type[Request]] = {
    "explain": ExplainRequest,
    "fit": FitRequest,
    "bench": BenchRequest,
    "report": ReportRequest,
    "list": ListRequest,
    "inspect": InspectRequest,
}
"""Name of each command and its options, in the order in which ``--help`` lists them."""
FAILED, IMPOSSIBLE = 1, 2
UNUSABLE = (ArgumentError, ArgumentTypeError)
EPILOG = """Examples:
  relax-quantus explain robin.wav --out pictures --html
  relax-quantus fit animal-sounds/ --out animals.safetensors
  relax-quantus bench
  relax-quantus list masks

Exit codes:
  0    all done
  1    something could not be done, and stderr says what
  2    the command line cannot work, and nothing was done
  130  interrupted by Ctrl-C
  143  stopped by SIGTERM
"""


class PlainGroup(PlainEpilog, TyperGroup):
    """Run a group of commands; report any error in one plain line, even if a stream breaks."""

    def main(self, args: Sequence[str] | None = None, *_: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the command line `args` (those of the process by default) and exit with its code."""
        extra["prog_name"] = PROGRAM
        with console.lasting() as (out, _err), console.plain():
            code = self._code(args, extra)
            stop = console.answered()
            if stop is not None:
                code = _stopped(stop)
            elif out.problem is not None and not code:
                code = _unsaid(out.problem)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code

    def _code(self, args: Sequence[str] | None, extra: dict[str, Any]) -> Any:
        """Return the command's exit code, or that of what went wrong; only note a stop."""
        try:
            return super().main(args, standalone_mode=False, **extra)
        except KeyboardInterrupt as stop:
            console.ask(type(stop))
            return None
        except Exception as problem:
            if console.asked() is None:  # else a library has made something else of it
                console.report(problem)
            return getattr(problem, "exit_code", IMPOSSIBLE if isinstance(problem, UNUSABLE) else FAILED)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; note a stop before typer turns it into an exit."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            console.ask(type(stop))
            raise


def _stopped(stop: type[KeyboardInterrupt]) -> int:
    """Say that the run was stopped and return its exit code."""
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C may be pressed twice
        console.error("interrupted; what was written before is kept")
    return console.exit_code(stop)


def _unsaid(problem: Exception) -> int:
    """Return the exit code of a command that did its work but could not print all of it."""
    if isinstance(problem, BrokenPipeError):
        return console.READER_GONE
    if isinstance(problem, OSError):
        console.error(f"stdout: {problem.strerror}; the rest of what was to be printed is lost")
        return FAILED
    return 0  # it was closed before


app = typer.Typer(
    cls=PlainGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True, epilog=EPILOG)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Which part of a sound made its embedding what it is, and how sure are we: RELAX for audio."""
    console.debugging.set(debug)
    if version:
        typer.echo(f"{PROGRAM} {relax_quantus.__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


for _name, _request in COMMANDS.items():
    declare(app, _name, _request)


def main() -> None:
    """Run the command ``relax-quantus``; escape what the terminal cannot show."""
    console.occupy_closed()
    os.environ["MPLBACKEND"] = "agg"  # a backend inherited from a notebook may not exist here
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    console.heed_signals()
    app()
