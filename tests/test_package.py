"""The package imports quickly, gives every public name on first use, and names what it has not."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

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
    """In a fresh interpreter: the bare import takes none of them; reading sound and loading the bundled encoder still none of the late ones."""
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
