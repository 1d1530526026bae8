"""Take apart what a registry entry says of itself: its docstring, its knobs and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpydoc.docscrape import NumpyDocString


@dataclass(frozen=True)
class Knob:
    """A parameter: its name, its default as code ("" if none), its meaning as reStructuredText."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Described:
    """A docstring in pieces, reStructuredText.

    Attributes
    ----------
    summary, extended
        First line, and the paragraphs below it.
    notes
        Formula and source.
    knobs
        Parameters, those of base classes included.
    """

    summary: str
    extended: str
    notes: str
    knobs: tuple[Knob, ...]


def parsed(thing: Any) -> NumpyDocString:
    """The docstring of a class or function."""
    return NumpyDocString(inspect.getdoc(thing) or "")


def described(factory: Callable[..., Any]) -> Described:
    """Take apart what `factory` says; knobs that only a class's bases explain are found, too."""
    docstring = parsed(factory)
    known: dict[str, str] = {}
    for owner in getattr(factory, "__mro__", (factory,)):
        if owner is object:
            continue
        for entry in parsed(owner)["Parameters"]:
            for name in entry.name.split(","):
                known.setdefault(name.strip(), " ".join(line.strip() for line in entry.desc))
    knobs = [
        Knob(name, "" if parameter.default is parameter.empty else repr(parameter.default), known.get(name, ""))
        for name, parameter in inspect.signature(factory).parameters.items()
        if name != "name"
    ]
    return Described(
        " ".join(docstring["Summary"]),
        "\n".join(docstring["Extended Summary"]),
        "\n".join(docstring["Notes"]),
        tuple(knobs),
    )
