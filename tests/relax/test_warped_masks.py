"""Cells that are not equal in bands: a band's values are those of the strategy where it lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from relax_quantus.errors import ArgumentError, ArgumentTypeError, ShapeError
from relax_quantus.relax import masks
from relax_quantus.relax.attribution import RELAX
from relax_quantus.relax.masks.warped import Warped

SHAPE = (1, 20, 12)
POSITIONS = np.r_[np.linspace(0.05, 1.0, 6), np.linspace(1.4, 3.9, 6)]
STRATEGIES = {
    "random": {"cells": (3, 4)},
    "time": {"stripes": 3},
    "frequency": {"stripes": 4},
    "time_frequency": {"time_stripes": 3, "frequency_stripes": 4},
}


def warped(name: str, **options: object) -> Warped:
    return Warped(strategy=masks.get(name, **STRATEGIES[name], **options), positions=POSITIONS, cells=4)


def drawn(strategy: masks.MaskStrategy, n: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return strategy.sample(n, shape, torch.Generator().manual_seed(3)).expand(n, *shape)


@pytest.mark.parametrize("name", list(STRATEGIES))
@pytest.mark.parametrize("edges", ["smooth", "hard"])
def test_masks_are_the_strategys_where_the_bands_lie(name: str, edges: str) -> None:
    strategy = warped(name, edges=edges)
    even = drawn(strategy.strategy, 50, (1, 20, 32))
    at = torch.from_numpy(np.floor(POSITIONS * 8)).long()
    assert torch.equal(drawn(strategy, 50), even[..., at])
    assert torch.equal(drawn(strategy, 50), torch.cat([drawn(strategy, 50)[:30], drawn(strategy, 50)[30:]]))


@pytest.mark.parametrize("name", list(STRATEGIES))
@pytest.mark.parametrize("keep", [0.2, 0.8])
def test_every_band_is_kept_with_the_strategys_probability(name: str, keep: float) -> None:
    strategy = warped(name, keep_probability=keep)
    assert strategy.keep_probability == keep
    kept = drawn(strategy, 20_000).mean((0, 1, 2))
    torch.testing.assert_close(kept, torch.full((12,), keep), rtol=0, atol=0.02)
    assert strategy.granularity == strategy.strategy.granularity  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_lattices_are_the_masks_distribution(name: str) -> None:
    strategy = warped(name)
    mean, square = torch.ones(20, 12), torch.ones(20, 12)
    for lattice in strategy.lattices(20, 12, 4096):
        states = lattice.values(torch.eye(lattice.frames), torch.eye(lattice.bands))
        weights = lattice.weights.flatten()[:, None]
        shape = (lattice.frames, lattice.bands)
        mean = mean * (states * weights).sum(0).reshape(shape)
        square = square * (states.square() * weights).sum(0).reshape(shape)
    found = drawn(strategy, 40_000)[:, 0]
    torch.testing.assert_close(found.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(found.square().mean(0), square, rtol=0, atol=0.02)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_surrogate_and_weighted_agree(name: str) -> None:
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    maps = [
        RELAX(lambda v: v.flatten(1), masks=warped(name), estimator=estimator).explain(x, n_samples=2000)
        for estimator in ("weighted", "surrogate")
    ]
    assert [e.estimator for e in maps] == ["weighted", "surrogate"]
    torch.testing.assert_close(maps[0].importance, maps[1].importance, rtol=0, atol=0.01)


def test_one_band() -> None:
    strategy = Warped(strategy=masks.get("random", cells=(3, 1)), positions=(0.5,), cells=1)
    assert torch.equal(drawn(strategy, 5, (1, 20, 1)), drawn(strategy.strategy, 5, (1, 20, 1)))
    assert strategy.lattices(20, 1, 64)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ArgumentError, match="positions: expected one number from 0 to 4 a band"):
        Warped(strategy=masks.get("random"), positions=(0.0, 4.1), cells=4)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="strategy: expected a built-in strategy, got str"):
        Warped(strategy="random", positions=(0.0, 1.0), cells=4)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="positions: expected 12 bands, one a position, got 13 bands"):
        drawn(warped("random"), 2, (1, 20, 13))
