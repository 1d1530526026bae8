"""The command ``relax-quantus``: arguments enter, one function of `relax_quantus.commands` runs, an exit code leaves.

Thin on purpose: the options and their help are in `relax_quantus.commands.requests`, and whatever goes wrong becomes one plain line on stderr.
Nothing heavy is imported, so ``--help`` answers at once; each command imports what it needs when it runs. Exit codes: 0 all done, 1 something
was refused or skipped, 2 the command line was not understood, 130 interrupted.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import relax_quantus
from relax_quantus.commands import console
from relax_quantus.commands.requests.bench import BenchRequest
from relax_quantus.commands.requests.declaring import Request, declare
from relax_quantus.commands.requests.explain import ExplainRequest
from relax_quantus.commands.requests.fit import FitRequest
from relax_quantus.commands.requests.listing import ListRequest
from relax_quantus.commands.requests.report import ReportRequest

PROGRAM = "relax-quantus"
COMMANDS: dict[str, type[Request]] = {
    "explain": ExplainRequest,
    "fit": FitRequest,
    "bench": BenchRequest,
    "report": ReportRequest,
    "list": ListRequest,
}
"""Name -> what it can be asked, in the order that ``--help`` lists them."""


class PlainGroup(TyperGroup):
    """A group of commands that complains in one plain line and takes ``--debug`` before or after the command's name."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C becomes one line and exit code 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.error("interrupted; what was written before is kept")
            return 130

    def main(self, args: Sequence[str] | None = None, *_: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the command line `args` (those of the process by default) and exit with its code."""
        arguments = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in arguments
        arguments = [a for a in arguments if a != "--debug"]
        extra["prog_name"] = PROGRAM
        with console.plain(debug):
            try:
                code = super().main(arguments, standalone_mode=False, **extra)
            except Exception as problem:
                console.report(problem)
                code = getattr(problem, "exit_code", 1)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


app = typer.Typer(
    cls=PlainGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works with every command.")
    ] = False,
) -> None:
    """Which part of a sound made its embedding what it is, and how sure are we: RELAX for audio.

    \b
    Examples:
      relax-quantus explain robin.wav --out pictures
      relax-quantus bench
    """
    if version:
        typer.echo(f"{PROGRAM} {relax_quantus.__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


for _name, _request in COMMANDS.items():
    declare(app, _name, _request)


def main() -> None:
    """Entry point of the command ``relax-quantus``; what the terminal cannot show is escaped, not fatal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
