"""The package imports quickly, gives every public name on first use, and names what it has not."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import relax_quantus as rq

HEAVY = (
    "torch",
    "numpy",
    "quantus",
    "sklearn",
    "matplotlib",
    "torchvggish",
    "resampy",
    "numba",
    "pandas",
    "captum",
    "soundfile",
)
LATE = ("quantus", "sklearn", "matplotlib", "torchvggish", "resampy", "numba", "pandas")


def test_heavy_libraries_load_when_used() -> None:
    """In a fresh interpreter: the bare import takes none of them; reading
    sound and loading the bundled encoder still none of the late ones.
    """
    code = f"""
import json, sys
import relax_quantus as rq
bare = [name for name in {HEAVY} if name in sys.modules]
dir(rq)
listed = [name for name in {HEAVY} if name in sys.modules]
rq.read_audio, rq.load_examples, rq.LogMel, rq.load_encoder
print(json.dumps([bare, listed, [name for name in {LATE} if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == [[], [], []]


@pytest.mark.parametrize("name", rq.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(rq, name)
    assert value is getattr(rq, name)
    assert name in dir(rq)
    home = rq._HOME.get(name)
    if home is not None:
        assert value is getattr(importlib.import_module(f"relax_quantus.{home}"), name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'relax_quantus' has no attribute 'load_encodr'"):
        rq.load_encodr  # noqa: B018
    assert not hasattr(rq, "__wrapped__")
    with pytest.raises(ImportError):
        from relax_quantus import nothing  # noqa: F401


def test_star_import_gives_exactly_the_public_names() -> None:
    assert len(set(rq.__all__)) == len(rq.__all__)
    assert {"read_audio", "load_examples", "LogMel", "load_encoder", "RELAX", "explain_func", "masks"} <= set(
        rq.__all__
    )
    assert not [name for name in rq.__all__ if name.startswith("_") and name != "__version__"]


PACKAGES = ["relax_quantus", "relax_quantus.benchmark"]
EVERY_PACKAGE = [
    "relax_quantus",
    *(m.name for m in pkgutil.walk_packages(rq.__path__, "relax_quantus.") if m.ispkg),
]


@pytest.mark.parametrize("package", EVERY_PACKAGE)
def test_names_of_modules_are_not_taken_by_anything_else(package: str) -> None:
    """Whatever a package's first lines import, in an interpreter that has imported nothing else."""
    code = f"""
import importlib, pkgutil, sys, types
package = importlib.import_module({package!r})
names = [m.name for m in pkgutil.iter_modules(package.__path__) if m.name != "__main__"]
taken = [n for n in names if n in vars(package) and vars(package)[n] is not sys.modules.get(package.__name__ + "." + n)]
lost = [n for n in names if {package in PACKAGES} and not isinstance(getattr(package, n), types.ModuleType)]
wrong = [n for n in names if getattr(importlib.import_module(package.__name__ + "." + n), "__name__", "") == ""]
later = [n for n in names if getattr(package, n) is not sys.modules[package.__name__ + "." + n]]
print(taken, lost, wrong, later)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]"] * 4


def test_a_module_that_does_not_exist_is_an_attribute_error() -> None:
    from relax_quantus import benchmark

    for package in (rq, benchmark):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            package.nothing  # noqa: B018


@pytest.mark.parametrize("package", [rq, rq.benchmark], ids=["relax_quantus", "benchmark"])
def test_the_typed_face_has_the_names_that_there_are(package: types.ModuleType) -> None:
    stub = ast.parse(Path(str(package.__file__)).with_suffix(".pyi").read_text())
    (names,) = (ast.literal_eval(n.value) for n in stub.body if isinstance(n, ast.Assign))
    assert set(names) == set(package.__all__)
    imported = {a.asname for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert imported == set(names) - {"__version__"}


def test_the_face_lists_public_names_alone() -> None:
    assert dir(rq) == sorted(rq.__all__)
