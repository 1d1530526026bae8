"""Mask strategies: what is kept, how often, where
the cells lie, and the stream they are drawn from.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from reference import slow_masks

from relax_quantus.errors import ArgumentError, ArgumentTypeError, UnknownNameError
from relax_quantus.relax import masks as rq_masks

EXAMPLE = (1, 96, 64)
HALF = (1, 48, 32)
STRATEGIES = list(rq_masks.STRATEGIES)
EDGES = ["smooth", "hard"]


def draw(strategy: str, n: int, shape: tuple[int, ...] = EXAMPLE, seed: int = 0, **parameters: object) -> torch.Tensor:
    return rq_masks.get(strategy, **parameters).sample(n, shape, torch.Generator().manual_seed(seed))


def full(masks: torch.Tensor, shape: tuple[int, ...] = EXAMPLE) -> torch.Tensor:
    return masks.expand(len(masks), *shape)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_kept_fraction_is_keep_probability(strategy: str, edges: str, keep: float) -> None:
    """Within 4.5 standard errors of the mean over 4000 masks,
    and within .015, so that strategies differ by less than .03.
    """
    fractions = draw(strategy, 4000, HALF, keep_probability=keep, edges=edges).double().flatten(1).mean(1)
    error = float(fractions.std()) / math.sqrt(len(fractions))
    assert abs(float(fractions.mean()) - keep) < min(4.5 * error, 0.015)


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (1, 1), (1, 3), (3, 1), (2, 2), (1, 1, 2, 3)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_kept_fraction_on_tiny_axes(strategy: str, shape: tuple[int, ...]) -> None:
    fractions = full(draw(strategy, 4000, shape, keep_probability=0.3), shape).double().flatten(1)
    assert torch.all((fractions.mean(0) - 0.3).abs() < 4.5 * math.sqrt(0.3 * 0.7 / 4000))


def entry_variance(strategy: str, edges: str, keep: float) -> float:
    """Variance of one entry: p(1-p) for hard edges; a smooth
    axis keeps E[w^2 + (1-w)^2] = 2/3 of it for w uniform.
    """
    axis = 2 / 3 if edges == "smooth" else 1.0
    if strategy == "random":
        return axis**2 * keep * (1 - keep)
    if strategy == "time_frequency":
        root = math.sqrt(keep)
        return (keep + axis * root * (1 - root)) ** 2 - keep**2
    return axis * keep * (1 - keep)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("strategy", ["random", "time", "frequency", "time_frequency"])
def test_stationary(strategy: str, edges: str) -> None:
    """Every bin has the same mean and variance: 4000 masks, 5 standard
    errors for the mean, 15 % for the variance (RISE's varies by 70 %).
    """
    masks = draw(strategy, 4000, HALF, edges=edges).double()
    variance = masks.var(0)
    expected = entry_variance(strategy, edges, 0.5)
    assert torch.all((masks.mean(0) - 0.5).abs() < 5 * math.sqrt(expected / 4000))
    assert float(variance.max() / expected) < 1.15
    assert float(variance.min() / expected) > 0.85
    assert float(variance.mean()) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hard_masks_are_binary_and_smooth_ones_are_not(strategy: str) -> None:
    assert set(draw(strategy, 50, edges="hard").unique().tolist()) == {0.0, 1.0}
    smooth = draw(strategy, 50, edges="smooth")
    assert bool(((smooth > 0.05) & (smooth < 0.95)).any())
    assert float(smooth.min()) >= 0
    assert float(smooth.max()) <= 1


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("shape", [(5,), (1,), (96, 64), (1, 2), EXAMPLE, (2, 3, 9, 5), (3, 2, 4, 5, 6)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_rank_broadcasts(strategy: str, shape: tuple[int, ...], edges: str) -> None:
    masks = draw(strategy, 7, shape, edges=edges)
    assert masks.dtype == torch.float32
    assert masks.ndim == len(shape) + 1
    assert full(masks, shape).shape == (7, *shape)
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1


@pytest.mark.parametrize("shape", [EXAMPLE, (5,), (2, 1, 3)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_stream_law(strategy: str, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    one = rq_masks.get(strategy)
    parts = torch.cat([one.sample(3, shape, generator), one.sample(5, shape, generator)])
    assert torch.equal(parts, draw(strategy, 8, shape, seed=3))
    assert torch.equal(draw(strategy, 8, shape, seed=3), draw(strategy, 8, shape, seed=3))
    assert not torch.equal(draw(strategy, 8, shape, seed=3), draw(strategy, 8, shape, seed=4))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_default_dtype_does_not_matter(strategy: str) -> None:
    expected = draw(strategy, 5, seed=2)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(draw(strategy, 5, seed=2), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_stripes_are_alike_along_the_other_axis() -> None:
    assert draw("time", 4).shape == (4, 1, 96, 1)
    assert draw("frequency", 4).shape == (4, 1, 1, 64)
    assert draw("random", 4).shape == draw("time_frequency", 4).shape == (4, 1, 96, 64)


@pytest.mark.parametrize(("strategy", "width"), [("time", 12), ("frequency", 8)])
def test_eight_stripes_have_the_documented_width(strategy: str, width: int) -> None:
    """Hard stripes change every `width` entries only: 12 frames (0.12
    s) over time, 8 bands over frequency; and every offset occurs.
    """
    offsets = set()
    for mask in draw(strategy, 400, edges="hard").flatten(1):
        changes = (mask[1:] != mask[:-1]).nonzero().flatten() + 1
        assert len({int(c) % width for c in changes}) <= 1
        offsets |= {int(c) % width for c in changes}
    assert offsets == set(range(width))


@pytest.mark.parametrize(("strategy", "width"), [("time", 12.0), ("frequency", 8.0), ("random", 96 / 7)])
def test_autocorrelation_falls_to_zero_over_one_cell(strategy: str, width: float) -> None:
    """Hard cells under a uniform shift: correlation 1 - lag /
    width; tolerance .05 with 3000 masks averaged over the axis.
    """
    masks = draw(strategy, 3000, edges="hard").double()[:, 0]
    profile = masks[:, 0] if strategy == "frequency" else masks[:, :, 0]
    for lag in (1, round(width / 2), math.ceil(width)):
        products = (profile[:, lag:] - 0.5) * (profile[:, :-lag] - 0.5)
        assert float(products.mean()) / 0.25 == pytest.approx(max(0.0, 1 - lag / width), abs=0.05)


@pytest.mark.parametrize(
    ("strategy", "shape", "axis"), [("time", (1, 96, 64), -2), ("frequency", (1, 96, 64), -1), ("random", EXAMPLE, -2)]
)
def test_shifts_reach_a_whole_cell(strategy: str, shape: tuple[int, ...], axis: int) -> None:
    """The first cell's edge falls on every entry of a cell,
    about equally often (5 standard errors of 2000 masks).
    """
    cells = 8 if strategy != "random" else 7
    size = shape[axis]
    width = size / cells
    generator = torch.Generator().manual_seed(0)
    strategy_object = rq_masks.get(strategy, edges="hard")
    masks = full(strategy_object.sample(2000, shape, generator)).movedim(axis, -1).flatten(1, -2)[:, 0]
    first_half, second_half = masks[:, 0], masks[:, math.ceil(width) - 1]
    differ = float((first_half != second_half).double().mean())  # an edge in between, and cells that differ
    expected = 0.5 * (math.ceil(width) - 1) / width
    assert differ == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 2000))


def test_cells_are_never_narrower_than_an_entry() -> None:
    masks = draw("time", 500, (1, 3, 4), stripes=100, edges="hard").double().flatten(1)
    assert abs(float(((masks[:, 0] - 0.5) * (masks[:, 1] - 0.5)).mean())) < 0.06


@pytest.mark.parametrize("keep", [0.3, 0.5])
@pytest.mark.parametrize("edges", EDGES)
def test_random_equals_the_slow_reference(edges: str, keep: float) -> None:
    masks = draw("random", 6, (1, 13, 9), seed=5, cells=(4, 3), edges=edges, keep_probability=keep)
    uniform = torch.rand(6, 2 + 6 * 5, generator=torch.Generator().manual_seed(5)).double().numpy()
    slow = np.stack([slow_masks.random_grid(u, (4, 3), (13, 9), keep, edges == "smooth") for u in uniform])
    torch.testing.assert_close(masks[:, 0].double(), torch.from_numpy(slow), rtol=0, atol=2e-6)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("strategy", ["time", "frequency"])
def test_stripes_equal_the_slow_reference(strategy: str, edges: str) -> None:
    masks = draw(strategy, 6, (1, 17, 17), seed=5, stripes=4, edges=edges, keep_probability=0.4)
    uniform = torch.rand(6, 7, generator=torch.Generator().manual_seed(5)).double().numpy()
    slow = np.array([slow_masks.stripes(u, 4, 17, 0.4, edges == "smooth") for u in uniform])
    torch.testing.assert_close(masks.flatten(1).double(), torch.from_numpy(slow), rtol=0, atol=2e-6)


@pytest.mark.parametrize("edges", EDGES)
def test_time_frequency_equals_the_slow_reference(edges: str) -> None:
    masks = draw("time_frequency", 6, (1, 17, 11), seed=5, time_stripes=4, frequency_stripes=3, edges=edges)
    uniform = torch.rand(6, 7 + 6, generator=torch.Generator().manual_seed(5)).double().numpy()
    slow = np.stack([slow_masks.time_frequency(u, (4, 3), (17, 11), 0.5, edges == "smooth") for u in uniform])
    torch.testing.assert_close(masks[:, 0].double(), torch.from_numpy(slow), rtol=0, atol=2e-6)


def test_time_frequency_keeps_the_correlation_it_documents() -> None:
    """Bins of one row, far apart: q / (1 + q) = .414 at p = .5, with q = sqrt(p)."""
    masks = draw("time_frequency", 6000, (1, 24, 16), edges="hard").double()[:, 0]
    far = torch.corrcoef(torch.stack([masks[:, 5, 3], masks[:, 5, 15]]))[0, 1]
    assert float(far) == pytest.approx(0.414, abs=0.05)


def test_independent_cells_of_a_grid() -> None:
    masks = draw("random", 6000, (1, 24, 16), edges="hard").double()[:, 0]
    far = torch.corrcoef(torch.stack([masks[:, 5, 3], masks[:, 5, 15], masks[:, 22, 3]]))
    assert float((far - torch.eye(3)).abs().max()) < 0.06


BAD_VALUES: list[tuple[str, object, type[Exception]]] = [
    ("keep_probability", 0, ArgumentError),
    ("keep_probability", 1.0, ArgumentError),
    ("keep_probability", -0.1, ArgumentError),
    ("keep_probability", float("nan"), ArgumentError),
    ("keep_probability", "half", ArgumentTypeError),
    ("edges", "soft", ArgumentError),
]


@pytest.mark.parametrize(("parameter", "value", "error"), BAD_VALUES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_shared_parameters_are_checked(strategy: str, parameter: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^{parameter}: expected .*, got .*; "):
        rq_masks.get(strategy, **{parameter: value})


@pytest.mark.parametrize(
    ("strategy", "parameter"),
    [
        ("time", "stripes"),
        ("frequency", "stripes"),
        ("time_frequency", "time_stripes"),
        ("time_frequency", "frequency_stripes"),
    ],
)
def test_stripe_counts_are_checked(strategy: str, parameter: str) -> None:
    for value, error in [(0, ArgumentError), (-3, ArgumentError), (2.5, ArgumentTypeError), (True, ArgumentTypeError)]:
        with pytest.raises(error, match=rf"^{parameter}: expected an integer of at least 1"):
            rq_masks.get(strategy, **{parameter: value})


@pytest.mark.parametrize("cells", [7, (7,), (7, 7, 7), "77"])
def test_cells_are_a_pair(cells: object) -> None:
    with pytest.raises(ArgumentError, match=r"^cells: expected a pair \(rows, columns\)"):
        rq_masks.get("random", cells=cells)
    with pytest.raises(ArgumentError, match=r"^cells: expected an integer of at least 1"):
        rq_masks.get("random", cells=(0, 7))


def test_cells_given_as_a_list_are_the_same_strategy() -> None:
    assert rq_masks.get("random", cells=[5, 3]) == rq_masks.get("random", cells=(5, 3))
    assert hash(rq_masks.get("random", cells=[5, 3])) == hash(rq_masks.get("random", cells=(5, 3)))


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"got 'tiem'; did you mean 'time'"):
        rq_masks.get("tiem")
    with pytest.raises(ArgumentTypeError, match=r"^strips: .*did you mean 'stripes'"):
        rq_masks.get("time", strips=3)
    with pytest.raises(ArgumentTypeError, match=r"^keep_probabilty: .*did you mean 'keep_probability'"):
        rq_masks.get("random", keep_probabilty=0.3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sample_refuses_nothing_to_draw(strategy: str) -> None:
    with pytest.raises(ArgumentError, match=r"^n: expected an integer of at least 1, got 0"):
        draw(strategy, 0)
    for shape in [(), (1, 0, 3)]:
        with pytest.raises(ArgumentError, match=r"^shape: expected at least one axis"):
            draw(strategy, 2, shape)


def test_groups_are_independent_and_keep_p() -> None:
    masks = rq_masks.Groups(0.3).sample(6000, (3,), torch.Generator().manual_seed(0)).double()
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert torch.all((masks.mean(0) - 0.3).abs() < 4.5 * math.sqrt(0.21 / 6000))
    for i, j in itertools.combinations(range(3), 2):
        assert abs(float(torch.corrcoef(masks.T)[i, j])) < 4.5 / math.sqrt(6000)
