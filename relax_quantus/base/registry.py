"""Name -> factory, with "did you mean".

Masks, fills, encoders, estimators, similarities, metrics, data sets and benchmark methods each keep one `Registry`: a new entry is one file and
one registration, and the contract tests enumerate the registry rather than a list of their own. Other distributions add entries by an entry
point; they are looked for when a name is not one of ours or all names are asked for.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import inspect
import warnings
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
    lower = {entry.lower(): entry for entry in known}
    close = [lower[entry] for entry in difflib.get_close_matches(str(name).lower(), list(lower), n=3, cutoff=0.5)]
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
    group
        Entry points that add to it, ``"relax_quantus.masks"``: each names a factory, or the entry itself. One that does not load is a warning.
    """

    def __init__(self, kind: str, argument: str, group: str | None = None) -> None:
        self.kind, self.argument, self.group = kind, argument, group
        self._factories: dict[str, tuple[Callable[..., T], str]] = {}
        self._looked = group is None

    def register(self, name: str, factory: Callable[..., T], summary: str = "") -> None:
        """Add `factory` under `name` with a one-line `summary`; a name that is taken is refused."""
        if name in self._factories:
            raise ArgumentError(
                f"{self.argument}: expected a new name, got {name!r}, which is registered; pick another."
            )
        self._factories[name] = (factory, summary)

    def get(self, name: str, **parameters: Any) -> T:
        """Build the entry called `name`; unknown names and unknown parameters are errors that list the nearest."""
        if name not in self:
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
        return self._all(name)[name][0]

    def resolve(self, value: Any) -> Any:
        """Return `value` itself unless it is a name, which is looked up."""
        return self.get(value) if isinstance(value, str) else value

    def names(self) -> list[str]:
        """All names, in order of registration."""
        return list(self._all())

    def own_names(self) -> list[str]:
        """Names registered so far, without looking for those of other distributions: for modules that are being imported."""
        return list(self._factories)

    def summary(self, name: str) -> str:
        """The one-line summary of the entry called `name`."""
        return self._all(name)[name][1]

    def __contains__(self, name: object) -> bool:
        return name in self._all(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def _all(self, name: object = None) -> dict[str, tuple[Callable[..., T], str]]:
        """Entries, those of other distributions included unless `name` is one of ours."""
        if not self._looked and name not in self._factories:
            self._looked = True
            for point in importlib.metadata.entry_points(group=str(self.group)):
                self._add(point)
        return self._factories

    def _add(self, point: importlib.metadata.EntryPoint) -> None:
        """Register what another distribution offers, or warn of it."""
        whose = "another distribution" if point.dist is None else f"{point.dist.name} {point.dist.version}"
        try:
            found = point.load()
            said = (inspect.getdoc(found) or "").partition("\n")[0] if callable(found) else ""
            summary = f"{said} ({whose})" if said else f"from {whose}"
            self.register(point.name, found if callable(found) else lambda: found, summary)
        except Exception as error:
            warnings.warn(
                f"{self.argument}: the {self.kind} {point.name!r} of {whose} is left out, as it does not load: "
                f"{type(error).__name__}: {error}",
                stacklevel=4,
            )
