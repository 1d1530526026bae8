"""What a strategy masks at a time: it says so itself, rows
carry it, and evaluators that remove the same are its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import planted_results as planted
import pytest
import torch

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data.clips import Clip
from relax_quantus.benchmark.engine.cells import described
from relax_quantus.benchmark.engine.results import COLUMNS
from relax_quantus.benchmark.methods.registry import METHODS, resolve
from relax_quantus.benchmark.metrics import METRICS
from relax_quantus.benchmark.statistics.endpoints import OWN_GRANULARITY, Endpoint, crossed
from relax_quantus.benchmark.statistics.rows import checked
from relax_quantus.errors import UnknownNameError
from relax_quantus.relax.masks import STRATEGIES


class Dust:
    """A third party's strategy, of single bins or, with `size`, of blobs."""

    def __init__(self, cells: int = 1) -> None:
        self.granularity = "bin" if cells == 1 else "patch"

    def sample(self, n: int, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        return torch.rand(n, *shape, generator=generator).round()


class Silent(Dust):
    """One that does not say."""

    granularity = ""

    def __init__(self) -> None: ...


class Odd(Silent):
    granularity = "pach"


@pytest.fixture
def foreign() -> Iterator[None]:
    added = {"dust": Dust, "silent": Silent, "odd": Odd}
    for name, strategy in added.items():
        STRATEGIES.register(name, strategy, "test")
    yield
    for name in added:
        STRATEGIES._factories.pop(name)
        for method in [m for m in METHODS.own_names() if m.startswith((f"RELAX-{name}", f"REPEAT-{name}"))]:
            METHODS._factories.pop(method)


def stated(method: str) -> str:
    clip = Clip("clip", torch.zeros(1, 96, 64), 0, "bird", "source")
    row = described(BenchmarkConfig(), clip, resolve(method), METRICS.get("AUC"))
    assert set(row) <= set(COLUMNS)
    return str(row["own_granularity"])


@pytest.mark.parametrize("name", sorted(OWN_GRANULARITY))
def test_ours_state_what_is_known_of_results_that_do_not_say(name: str) -> None:
    assert {stated(f"{kind}-{name}{twin}") for kind in ("RELAX", "REPEAT") for twin in ("", " twin")} == {
        OWN_GRANULARITY[name]
    }


@pytest.mark.usefixtures("foreign")
def test_rows_carry_what_a_foreign_strategy_states() -> None:
    assert (stated("RELAX-dust"), stated("RELAX-dust twin"), stated("REPEAT-dust")) == ("bin",) * 3
    assert stated("RELAX-dust:cells=4") == "patch"
    assert stated("RELAX-silent") == ""
    assert stated("energy") == ""
    with pytest.raises(UnknownNameError, match="granularity: expected a known name, got 'pach'; did you mean 'patch'"):
        resolve("RELAX-odd")


def own(rows: pd.DataFrame, method: str) -> set[str]:
    """Granularities that are the method's own under a fill that is not."""
    endpoint = Endpoint("gain", crossed(checked(rows), "embedding"))
    return {name.split(" / ")[0] for name in endpoint.own[method] if not name.endswith("/ mean")}


def test_evaluators_that_remove_what_is_stated_are_own_and_old_results_are_as_before() -> None:
    rows, method = planted.rows(sources=3, clips=1, seeds=(0,)), "RELAX-time:fill=mean"
    assert "own_granularity" not in rows
    assert own(rows, method) == {"time"}
    assert own(rows.assign(own_granularity=""), method) == {"time"}
    named = rows.assign(masks=rows.masks.replace("time", "stripes"))
    assert own(named, method) == set()
    for granularity in ("bin", "patch", "time", "frequency"):
        said = named.assign(own_granularity=named.masks.map(lambda m, g=granularity: g if m == "stripes" else ""))
        assert own(said, method) == {granularity}
        assert own(said, "energy") == set()
