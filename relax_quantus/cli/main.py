"""The command ``relax-quantus``: arguments enter, one command runs, an exit code leaves.

Thin on purpose: the options, the help and the work of each command are in its own file, and
whatever goes wrong becomes one plain line on stderr. Nothing heavy is imported, so ``--help``
answers at once; each command imports what it needs when it runs.

Exit codes: 0 all done, 1 something could not be done or was skipped, 2 the command line cannot
work, 130 Ctrl-C, 143 SIGTERM, 141 all done, but nobody reads stdout any more.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import relax_quantus
from relax_quantus.cli import console, stopping
from relax_quantus.cli.bench import BenchRequest
from relax_quantus.cli.explain import ExplainRequest
from relax_quantus.cli.fit import FitRequest
from relax_quantus.cli.list_names import ListRequest
from relax_quantus.cli.options import PlainEpilog, Request, declare
from relax_quantus.cli.report import ReportRequest
from relax_quantus.errors import ArgumentError, ArgumentTypeError

PROGRAM = "relax-quantus"
COMMANDS: dict[str, type[Request]] = {
    "explain": ExplainRequest,
    "fit": FitRequest,
    "bench": BenchRequest,
    "report": ReportRequest,
    "list": ListRequest,
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
            stop = stopping.answered()
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
            stopping.ask(type(stop))
            return None
        except Exception as problem:
            if stopping.asked() is None:  # else a library has made something else of it
                console.report(problem)
            return getattr(problem, "exit_code", IMPOSSIBLE if isinstance(problem, UNUSABLE) else FAILED)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; note a stop before typer turns it into an exit."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            stopping.ask(type(stop))
            raise


def _stopped(stop: type[KeyboardInterrupt]) -> int:
    """Say that the run was stopped and return its exit code."""
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C may be pressed twice
        console.error("interrupted; what was written before is kept")
    return stopping.exit_code(stop)


def _unsaid(problem: Exception) -> int:
    """Return the exit code of a command that did its work but could not print all of it."""
    if isinstance(problem, BrokenPipeError):
        return stopping.READER_GONE
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
    stopping.heed_signals()
    app()
