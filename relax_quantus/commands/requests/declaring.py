"""A dataclass of options -> a command: its fields become typer's parameters, its docstring the help, its `run` what the command does."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Protocol, get_type_hints

import typer

from relax_quantus.commands import console
from relax_quantus.commands.help import GroupedCommand
from relax_quantus.commands.requests.shared import MessageOptions

EXAMPLES = "\b\nExamples:"


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
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
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


def built(request: Any, given: dict[str, Any]) -> Any:
    """Build a `request` of the values `given` for its options."""
    hints = get_type_hints(request)
    return request(
        **{
            f.name: built(hints[f.name], given) if is_dataclass(hints[f.name]) else given[f.name]
            for f in fields(request)
        }
    )
