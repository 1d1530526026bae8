"""The arguments of a call: listed once, inspectable
and documented on every method that takes them.
"""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
import torch
from small_relax import ENCODER, X, relax
from torch import Tensor

import relax_quantus as rq
from relax_quantus.relax.call import Call, ExplainCall
from relax_quantus.relax.execution import Execution
from relax_quantus.relax.masked_forward import MaskedForward

METHODS = [("attribute", Call), ("similarities", Call), ("explain", ExplainCall)]


@pytest.mark.parametrize(("method", "kind"), METHODS)
def test_a_method_has_the_signature_and_the_documentation_of_its_call(method: str, kind: type[Call]) -> None:
    function = getattr(rq.RELAX, method)
    parameters = inspect.signature(function).parameters
    assert list(parameters) == ["self", *inspect.signature(kind).parameters]
    documentation = inspect.getdoc(function) or ""
    assert "{" not in documentation
    for name in list(parameters)[1:]:
        assert f"\n{name}\n    " in documentation, f"{method}: {name} is not documented"
    assert documentation.count("Parameters\n----------") == 1


def test_each_argument_goes_where_it_belongs() -> None:
    """By position and by name, the same; an unknown one is refused under the method's name."""
    by_name: dict[str, Any] = {"inputs": X, "baselines": -1.0, "n_samples": 60, "perturbations_per_eval": 7}
    expected = relax().attribute(**by_name)
    assert torch.equal(relax().attribute(X, -1.0, None, None, None, 60, 7, False), expected)
    assert torch.equal(relax().explain(X, -1.0, n_samples=60, perturbations_per_eval=7).importance, expected)
    for method, kind in METHODS:
        with pytest.raises(TypeError, match=rf"^RELAX\.{method}\(\) got an unexpected keyword argument 'baseline'"):
            getattr(relax(), method)(X, baseline=0)
        with pytest.raises(TypeError, match=rf"^RELAX\.{method}\(\) takes from 2 to 9 positional arguments but 10"):
            getattr(relax(), method)(X, None, None, None, None, 60, None, False, None)
        assert {f.name for f in fields(kind)} == set(inspect.signature(kind).parameters)


def test_a_call_is_frozen_and_checked_without_changing() -> None:
    call = Call(X, "silence", n_samples=20, seed=None)
    first, second = (call.checked(rq.masks.get("time")) for _ in range(2))
    assert first.seed != second.seed
    assert torch.equal(first.inputs[0], X)
    with pytest.raises(FrozenInstanceError):
        call.n_samples = 3  # type: ignore[misc]


def test_constructing_runs_no_encoder() -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError("the encoder ran")

    checked = Call(X, n_samples=200).checked(rq.masks.get("random"))
    rq.RELAX(never)
    Execution(never, checked)
    forward = MaskedForward(never, rq.similarity.get("cosine"), checked)
    with pytest.raises(AssertionError, match="the encoder ran"):
        forward.prepare()


def test_the_map_alone_costs_a_forward_less_than_all() -> None:
    rows: list[int] = []

    def counted(x: Tensor) -> Tensor:
        rows.append(len(x))
        return ENCODER(x)

    rq.RELAX(counted).attribute(X, n_samples=70)
    assert sum(rows) == 71 * len(X)
    rows.clear()
    rq.RELAX(counted).explain(X, n_samples=70)
    assert sum(rows) == 72 * len(X)
