"""Name -> factory, with "did you mean".

Masks, fills, encoders, estimators, similarities, metrics and benchmark methods each keep one `Registry`: a new entry is one file and one
registration, and the contract tests enumerate the registry rather than a list of their own.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from relax_quantus.errors import ArgumentError, ArgumentTypeError, UnknownNameError

T = TypeVar("T")


def nearest(name: str, known: list[str]) -> str:
    """Say which of `known` is meant by `name`, or list them all.

    Examples
    --------
    >>> nearest("tiem", ["random", "time"])
    "did you mean 'time'? Known: random, time"
    """
    close = difflib.get_close_matches(str(name).lower(), known, n=3, cutoff=0.5)
    listing = f"Known: {', '.join(known)}"
    return f"did you mean {' or '.join(repr(c) for c in close)}? {listing}" if close else listing


class Registry(Generic[T]):
    """Named factories of one kind.

    Parameters
    ----------
    kind
        What an entry is, in the singular, for messages: ``"mask strategy"``.
    argument
        The parameter that takes such a name, for messages: ``"masks"``.
    """

    def __init__(self, kind: str, argument: str) -> None:
        self.kind, self.argument = kind, argument
        self._factories: dict[str, tuple[Callable[..., T], str]] = {}

    def register(self, name: str, factory: Callable[..., T], summary: str = "") -> None:
        """Add `factory` under `name` with a one-line `summary`; a name that is taken is refused."""
        if name in self._factories:
            raise ArgumentError(
                f"{self.argument}: expected a new name, got {name!r}, which is registered; pick another."
            )
        self._factories[name] = (factory, summary)

    def get(self, name: str, **parameters: Any) -> T:
        """Build the entry called `name`; unknown names and unknown parameters are errors that list the nearest."""
        if name not in self._factories:
            article = "an" if self.kind[0] in "aeiou" else "a"
            raise UnknownNameError(
                f"{self.argument}: expected the name of {article} {self.kind}, got {name!r}; {nearest(name, self.names())}."
            )
        factory = self._factories[name][0]
        accepted = inspect.signature(factory).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            for key in parameters:
                if key not in accepted:
                    raise ArgumentTypeError(
                        f"{key}: expected a parameter of the {self.kind} {name!r}; {nearest(key, list(accepted))}."
                    )
        missing = [
            key
            for key, p in accepted.items()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and key not in parameters
        ]
        if missing:
            raise ArgumentTypeError(
                f"{missing[0]}: expected with the {self.kind} {name!r}, got nothing; build it with its parameters and pass the object."
            )
        return factory(**parameters)

    def factory(self, name: str) -> Callable[..., T]:
        """What builds the entry called `name`."""
        return self._factories[name][0]

    def resolve(self, value: Any) -> Any:
        """Return `value` itself unless it is a name, which is looked up."""
        return self.get(value) if isinstance(value, str) else value

    def names(self) -> list[str]:
        """All names, in order of registration."""
        return list(self._factories)

    def summary(self, name: str) -> str:
        """The one-line summary of the entry called `name`."""
        return self._factories[name][1]

    def __contains__(self, name: object) -> bool:
        return name in self._factories

    def __iter__(self) -> Iterator[str]:
        return iter(self._factories)
