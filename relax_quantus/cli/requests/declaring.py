"""A dataclass of options -> a command: its fields become typer's parameters, its docstring the help, its `run` what the command does."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Protocol, get_args, get_type_hints

import typer

from relax_quantus.cli import console
from relax_quantus.cli.help import GroupedCommand
from relax_quantus.cli.requests.shared import MessageOptions
from relax_quantus.errors import ArgumentTypeError

EXAMPLES = "\b\nExamples:"
NUMBERS: dict[type, str] = {int: "a whole number", float: "a number"}
LARGEST = 2**63 - 1
"""Of whole numbers: what torch and numpy can count to."""


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
