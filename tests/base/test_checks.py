"""Each check returns good values as plain Python
ones and refuses the others in the one agreed form.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from relax_quantus import errors
from relax_quantus.base import checks
from relax_quantus.errors import ArgumentError, ArgumentTypeError, RelaxQuantusError, ShapeError

FORM = re.compile(r"^[\w ,=']+: expected .+, got .+(; .+)?\.$")


def test_message_has_the_one_form() -> None:
    assert checks.message("n", "a number", -1, "pass another") == "n: expected a number, got -1; pass another."
    assert checks.message("n", "a number", "nothing") == "n: expected a number, got nothing."
    assert checks.message("n", "a number", torch.zeros(2, 3)).endswith("got a Tensor of shape (2, 3), torch.float32.")
    assert checks.message("n", "a number", np.zeros(4, np.int16)).endswith("got a ndarray of shape (4,), int16.")
    assert checks.message("n", "a number", list(range(999))) == "n: expected a number, got a list."


@pytest.mark.parametrize(
    ("check", "value", "wanted"),
    [
        (checks.integer, np.int64(3), 3),
        (checks.fraction, np.float32(0.5), 0.5),
        (checks.positive, 2, 2.0),
        (checks.seed, 0, 0),
        (checks.seed, None, None),
        (checks.seed, 2**63 - 1, 2**63 - 1),
    ],
)
def test_good_values_come_back_as_plain_ones(check: Callable[[Any], Any], value: object, wanted: object) -> None:
    given = check(value) if check is checks.seed else check("n", value)  # type: ignore[call-arg]
    assert given == wanted
    assert type(given) is type(wanted)


@pytest.mark.parametrize(
    ("check", "value", "error"),
    [
        (checks.integer, 0, ArgumentError),
        (checks.integer, -2, ArgumentError),
        (checks.integer, 1.0, ArgumentTypeError),
        (checks.integer, True, ArgumentTypeError),
        (checks.integer, "3", ArgumentTypeError),
        (checks.integer, None, ArgumentTypeError),
        (checks.fraction, 0, ArgumentError),
        (checks.fraction, 1.0, ArgumentError),
        (checks.fraction, float("nan"), ArgumentError),
        (checks.fraction, "half", ArgumentTypeError),
        (checks.fraction, True, ArgumentTypeError),
        (checks.positive, 0.0, ArgumentError),
        (checks.positive, float("inf"), ArgumentError),
        (checks.positive, float("nan"), ArgumentError),
        (checks.positive, None, ArgumentTypeError),
        (checks.tensor, np.zeros(3), ArgumentTypeError),
        (checks.finite, torch.tensor([1.0, float("nan"), float("-inf")]), ArgumentError),
        (checks.spectrograms, torch.zeros(96, 64), ShapeError),
        (checks.spectrograms, torch.zeros(2, 3, 96, 64), ShapeError),
        (checks.spectrograms, torch.zeros(0, 1, 96, 64), ShapeError),
        (checks.spectrograms, torch.full((1, 1, 2, 2), float("nan")), ArgumentError),
        (checks.spectrograms, np.zeros((1, 1, 96, 64)), ArgumentTypeError),
    ],
)
def test_bad_values_are_refused_in_the_one_form(
    check: Callable[[str, Any], Any], value: object, error: type[RelaxQuantusError]
) -> None:
    with pytest.raises(error, match=r"^n: expected") as refusal:
        check("n", value)
    assert type(refusal.value) is error
    assert FORM.match(str(refusal.value))


@pytest.mark.parametrize(("value", "error"), [(-1, ArgumentError), (2**63, ArgumentError), (0.5, ArgumentTypeError)])
def test_bad_seeds_are_refused(value: object, error: type[RelaxQuantusError]) -> None:
    with pytest.raises(error, match="seed: expected an integer"):
        checks.seed(value)


def test_lower_limit_is_stated() -> None:
    assert checks.integer("n", 0, low=0) == 0
    with pytest.raises(ArgumentError, match="n: expected an integer of at least 2, got 1; pass 2 or more"):
        checks.integer("n", 1, low=2)


def test_tensors_pass_through_as_the_same_object() -> None:
    x = torch.zeros(1, 1, 96, 64)
    assert checks.tensor("x", x) is x
    assert checks.finite("x", x) is x
    assert checks.spectrograms("x", x) is x
    whole = torch.arange(3)
    assert checks.finite("x", whole) is whole


def test_finite_counts_the_bad_entries() -> None:
    with pytest.raises(ArgumentError, match="with 2 NaN or infinite; repair it"):
        checks.finite("x", torch.tensor([1.0, float("nan"), float("inf")]), "repair it")


def test_errors_are_one_family_and_the_built_in_ones_a_caller_expects() -> None:
    family = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(family) > 5
    assert all(issubclass(e, RelaxQuantusError) for e in family)
    for error, builtin in (
        (errors.ArgumentError, ValueError),
        (errors.ArgumentTypeError, TypeError),
        (errors.ShapeError, ValueError),
        (errors.AudioError, ValueError),
        (errors.WeightsError, OSError),
        (errors.MissingDependencyError, ImportError),
    ):
        assert issubclass(error, builtin)
