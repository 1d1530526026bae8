"""``NAME[:key=value,...]``, ``module:attribute`` and ``file.py:name`` -> a name with its settings, or the object that was meant.

What options and benchmark settings that take an encoder, a front end, a method or a data set share: text enters, a `Specification` or the
caller's own object leaves.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from relax_quantus.base import checks
from relax_quantus.base.checks import printable
from relax_quantus.base.registry import nearest
from relax_quantus.errors import ArgumentError, RelaxQuantusError, UnknownNameError

WORDS = {"true": True, "false": False, "none": None}
FORM = "NAME or NAME:key=value,..."


@dataclass(frozen=True)
class Specification:
    """What an option's text says.

    Attributes
    ----------
    text
        As typed.
    name
        A registered name; empty for a target.
    settings
        What follows the name.
    texts
        The same as typed, by whole key: a folder's name may look like a number.
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
    """A whole number, a number, true, false or none; else the text itself.

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
    """Import a module or run a file, and return what its attribute gives: the object itself if it is a module of torch, else what a call returns.

    The file's folder, or the working folder, is on the import path meanwhile.

    Raises
    ------
    ArgumentError
        If there is no such file, module or attribute, or running it fails.
    """
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
    """Say of whatever the user's code raises that it was the user's code; our own errors say it themselves."""
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
