"""Names, factories, and what is said about unknown ones."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relax_quantus.base.registry import Registry, nearest
from relax_quantus.encoders import ENCODERS
from relax_quantus.errors import ArgumentError, ArgumentTypeError, UnknownNameError


@pytest.fixture
def registry() -> Registry[tuple[str, int]]:
    registry: Registry[tuple[str, int]] = Registry("mask strategy", "masks")
    registry.register("time", lambda stripes=8: ("time", stripes), "stripes in time")
    registry.register("random", lambda **anything: ("random", len(anything)))
    return registry


def test_names_come_in_order_of_registration_with_their_summaries(registry: Registry[tuple[str, int]]) -> None:
    assert registry.names() == list(registry) == ["time", "random"]
    assert registry.summary("time") == "stripes in time"
    assert registry.summary("random") == ""
    assert "time" in registry
    assert "frequency" not in registry
    registry.names().append("mine")
    assert registry.names() == ["time", "random"], "whoever asks may change the answer"


def test_get_builds_with_parameters(registry: Registry[tuple[str, int]]) -> None:
    assert registry.get("time") == ("time", 8)
    assert registry.get("time", stripes=3) == ("time", 3)
    assert registry.get("random", a=1, b=2) == ("random", 2)


def test_resolve_looks_names_up_and_passes_objects_through(registry: Registry[tuple[str, int]]) -> None:
    thing = object()
    assert registry.resolve(thing) is thing
    assert registry.resolve("time") == ("time", 8)
    with pytest.raises(UnknownNameError):
        registry.resolve("tiem")


def test_unknown_name_is_answered_with_the_nearest_or_all(registry: Registry[tuple[str, int]]) -> None:
    with pytest.raises(
        UnknownNameError, match=r"masks: expected the name of a mask strategy, got 'tiem'; did you mean 'time'\?"
    ):
        registry.get("tiem")
    with pytest.raises(UnknownNameError, match=r"got 'xyz'; Known: time, random\.$"):
        registry.get("xyz")
    assert nearest("TIME", ["time"]).startswith("did you mean 'time'?")
    with pytest.raises(ValueError, match="masks"):
        registry.get("")


def test_unknown_parameter_is_answered_with_the_nearest(registry: Registry[tuple[str, int]]) -> None:
    with pytest.raises(
        ArgumentTypeError, match=r"stripe: expected a parameter of the mask strategy 'time'; did you mean 'stripes'"
    ):
        registry.get("time", stripe=3)


def test_taken_name_is_refused_and_the_old_entry_stays(registry: Registry[tuple[str, int]]) -> None:
    with pytest.raises(ArgumentError, match="masks: expected a new name, got 'time', which is registered"):
        registry.register("time", lambda: ("other", 0))
    assert registry.get("time") == ("time", 8)


@pytest.mark.parametrize("name", ENCODERS.names())
def test_every_encoder_has_a_summary_and_named_parameters(name: str) -> None:
    assert ENCODERS.summary(name)
    factory = ENCODERS._factories[name][0]
    assert all(p.default is not p.empty for p in inspect.signature(factory).parameters.values())


PLUGIN = '''
import torch
from relax_quantus.benchmark.methods.registry import Simple
from relax_quantus.benchmark.metrics import Metric
from relax_quantus.relax.fills import Fill


class Left:
    """Keeps the left half."""

    def sample(self, n, shape, generator):
        keep = (torch.arange(shape[-1]) < shape[-1] // 2).float()
        return (torch.rand(n, *shape, generator=generator) < 0.5).float() * keep


class Loud(Fill):
    """Loud everywhere."""

    def level(self, x):
        return torch.tensor(5.0)


def upside_down():
    """The spectrogram turned over."""
    return Simple("upside_down", lambda question: -question.x, looks_at_model=False)


largest = Metric(name="Largest", category="complexity", direction="down", measure=lambda case: float(case.map("centred").max()))


def two_clips(max_clips=2, seed=0, head_clips=12):
    """Soundscapes."""
    from relax_quantus.benchmark.data.datasets import synthetic
    return synthetic(max_clips, seed, head_clips)


def flat():
    """No network at all."""
    return torch.nn.Flatten()
'''
POINTS = """
[relax_quantus.masks]
left = plugged_in:Left
[relax_quantus.fills]
loud = plugged_in:Loud
[relax_quantus.methods]
upside_down = plugged_in:upside_down
gone = plugged_in:not_there
[relax_quantus.metrics]
Largest = plugged_in:largest
[relax_quantus.datasets]
two_clips = plugged_in:two_clips
[relax_quantus.encoders]
flat = plugged_in:flat
"""
USE = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from relax_quantus.relax.masks import STRATEGIES
    from relax_quantus.benchmark import BenchmarkConfig, methods, run
    assert "RELAX-left" in methods.names()
    assert STRATEGIES.summary("left") == "Keeps the left half. (plugged-in 1.2)"
    config = BenchmarkConfig(
        methods=("RELAX-left:fill=loud", "upside_down"), metrics=("Largest",), datasets=("two_clips",), encoders=("flat",),
        n_samples=4, max_clips=2, head_clips=12)
    rows = run(config, show_progress=False).rows
    assert list(rows.status) == ["ok"] * 4, rows.reason
said = [str(w.message) for w in caught if "left out" in str(w.message)]
assert len(said) == 1 and "'gone' of plugged-in 1.2 is left out" in said[0], said
"""


def test_other_distributions_add_entries_and_a_broken_one_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "plugged_in.py").write_text(PLUGIN)
    info = tmp_path / "plugged_in-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(POINTS)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", USE], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_an_entry_point_cannot_take_a_name_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("ours", "json:loads", "some.group")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == "some.group" else [])
    registry: Registry[object] = Registry("thing", "things", "some.group")
    registry.register("ours", lambda: {})
    assert registry.get("ours") == {}
    with pytest.warns(UserWarning, match="things: the thing 'ours' of another distribution is left out"):
        assert registry.names() == ["ours"]
    assert registry.get("ours") == {}
