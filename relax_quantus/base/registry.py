"""Look up what a name stands for: a registered factory, or an object of the user's own.

Masks, fills, encoders, estimators, similarities, metrics, data sets and benchmark methods each keep
one `Registry`: a new entry is one file and one registration, and the contract tests enumerate the
registry rather than a list of their own. Other distributions add entries by an entry point; they
are looked for when a name is not one of ours or all names are asked for.

Options and settings that take more than a name share one form: ``NAME[:key=value,...]``,
``module:attribute`` or ``file.py:name``. The text enters `parse`, a `Specification` leaves, and
`user_object` makes the user's own object of it.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from relax_quantus.base import checks
from relax_quantus.base.checks import printable
from relax_quantus.errors import ArgumentError, ArgumentTypeError, RelaxQuantusError, UnknownNameError

WORDS = {"true": True, "false": False, "none": None}
FORM = "NAME or NAME:key=value,..."
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
    """Keep named factories of one kind.

    Parameters
    ----------
    kind
        What an entry is, in the singular, for messages: ``"mask strategy"``.
    argument
        The parameter that takes such a name, for messages: ``"masks"``.
    group
        Entry points that add to it, ``"relax_quantus.masks"``: each names a factory, or the entry
        itself. One that does not load is a warning.
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
        """Build the entry called `name`.

        Unknown names and unknown parameters are errors that list the nearest.
        """
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
        """Return what builds the entry called `name`."""
        return self._all(name)[name][0]

    def resolve(self, value: Any) -> Any:
        """Return `value` itself unless it is a name, which is looked up."""
        return self.get(value) if isinstance(value, str) else value

    def names(self) -> list[str]:
        """List all names, in order of registration."""
        return list(self._all())

    def own_names(self) -> list[str]:
        """List the names registered so far, without looking for those of other distributions.

        For modules that are being imported.
        """
        return list(self._factories)

    def summary(self, name: str) -> str:
        """Return the one-line summary of the entry called `name`."""
        return self._all(name)[name][1]

    def __contains__(self, name: object) -> bool:
        return name in self._all(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def _all(self, name: object = None) -> dict[str, tuple[Callable[..., T], str]]:
        """Return all entries, with those of other distributions unless `name` is one of ours."""
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


@dataclass(frozen=True)
class Specification:
    """Hold what an option's text says.

    Attributes
    ----------
    text
        The option's text as typed.
    name
        A registered name; empty for a target.
    settings
        Parameters that follow the name, as values.
    texts
        The parameters as typed, by whole key: a folder's name may look like a number.
    target
        Module or file, and attribute, of the user's own object; None for a name.
    """

    text: str
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    target: tuple[str, str] | None = None


def parse(option: str, text: str) -> Specification:
    """Read an option's text.

    Raises
    ------
    ArgumentError
        If it has neither form.

    Examples
    --------
    >>> parse("--front-end", "MelSpectrogram:n_mels=64,melkwargs.n_fft=512").settings
    {'n_mels': 64, 'melkwargs': {'n_fft': 512}}
    >>> parse("--encoder", "mine.py:make").target
    ('mine.py', 'make')
    """
    name, colon, rest = text.rpartition(":") if "=" not in text else text.partition(":")
    if not colon:
        name, rest = text, ""
    if not name or (colon and not rest):
        checks.refuse(option, f"{FORM}, or module:attribute", repr(text), "write it in one of these forms")
    if colon and "=" not in rest:
        return Specification(text, target=(name, rest))
    settings: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not (equals and key and value):
            checks.refuse(option, f"{FORM}", repr(text), f"{part!r} is no key=value")
        place = settings
        *outer, inner = key.strip().split(".")
        for step in outer:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                checks.refuse(option, f"{FORM}", repr(text), f"{step!r} is given twice")
        if inner in place:
            checks.refuse(option, "each key once", repr(text), f"give {inner!r} once")
        place[inner] = value_of(value.strip())
        texts[key.strip()] = value.strip()
    return Specification(text, name, settings, texts)


def value_of(text: str) -> Any:
    """Read a whole number, a number, true, false or none; else return the text itself.

    Examples
    --------
    >>> [value_of(text) for text in ("64", "0.01", "True", "none", "htk")]
    [64, 0.01, True, None, 'htk']
    """
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def user_object(option: str, target: tuple[str, str]) -> Any:
    """Import a module or run a file, and return what its attribute gives.

    That is the object itself if it is a module of torch or a tuple, else what a call returns.

    The file's folder, or the working folder, is on the import path meanwhile.

    Raises
    ------
    ArgumentError
        If there is no such file, module or attribute, or running it fails.
    """
    from torch import nn  # names alone are looked up without torch

    source, attribute = target
    is_file = source.endswith(".py")
    path = Path(source).expanduser()
    if is_file and not path.is_file():
        checks.refuse(option, "a Python file", f"{printable(source)}, which is not there", "check the path")
    with _importing_from(path.resolve().parent if is_file else Path.cwd()), _blamed(option, source):
        module = _run(path) if is_file else importlib.import_module(source)
        names = [name for name in vars(module) if not name.startswith("_")]
        found: Any = module
        for step in attribute.split("."):
            if not hasattr(found, step):
                rule, hint = f"a name in {printable(source)}", nearest(step, names)
                checks.refuse(option, rule, repr(step), hint, UnknownNameError)
            found = getattr(found, step)
        return found if isinstance(found, nn.Module | tuple) or not callable(found) else found()


def _run(path: Path) -> Any:
    """Run a file as a module of its own name, which is not kept if it fails."""
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise ImportError("it cannot be imported")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module  # dataclasses and pickles look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if before is None:
            del sys.modules[path.stem]
        else:
            sys.modules[path.stem] = before
        raise
    return module


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Put a folder first on the import path, and take it off again."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


@contextmanager
def _blamed(option: str, source: str) -> Iterator[None]:
    """Say of whatever the user's code raises that it was the user's code.

    Our own errors say it themselves.
    """
    try:
        yield
    except RelaxQuantusError:
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        got = said.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        text = checks.message(
            option, f"{printable(source)} to be imported and called without arguments", got, "mend it"
        )
        raise ArgumentError(text) from error
