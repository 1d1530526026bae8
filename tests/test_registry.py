"""Names, factories, and what is said about unknown ones."""

from __future__ import annotations

import inspect

import pytest

from relax_quantus.encoders import ENCODERS
from relax_quantus.errors import ArgumentError, ArgumentTypeError, UnknownNameError
from relax_quantus.registry import Registry, nearest


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
    assert registry.names() is not registry.names()


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
