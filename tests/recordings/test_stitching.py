"""One map of examples that overlap: laws of an average, and a
standard error that is what repeating the draw of the masks shows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ShapeError
from relax_quantus.frontend.framing import Sliding, cut, hop_frames
from relax_quantus.recordings.stitching import Stitcher, explain_overlapping, phase_seed, phases, stitch, taper
from relax_quantus.relax.explanation import Explanation

T, F = 24, 3


def explained(importance: Tensor, error: Tensor | None = None) -> Explanation:
    """An explanation ``(n, 1, T, F)`` with this importance, all else derived from it."""
    n = len(importance)
    error = torch.ones_like(importance) if error is None else error
    each = torch.zeros(n)
    return Explanation(importance, importance + 1, error, each, each, each, 2 * importance, "weighted")


def direct(values: np.ndarray, error: np.ndarray, hop: int, shared: bool) -> tuple[np.ndarray, np.ndarray]:
    """The formulas of `relax_quantus.recordings.stitching`, bin by bin."""
    n, frames = values.shape[0], values.shape[1]
    total = (n - 1) * hop + frames
    mean, sure = np.zeros((total, values.shape[2])), np.zeros((total, values.shape[2]))
    for t in range(total):
        inside = [(i, t - i * hop) for i in range(n) if 0 <= t - i * hop < frames]
        w = np.array([np.sin(np.pi * (f + 0.5) / frames) ** 2 for _, f in inside])
        v = np.array([values[i, f] for i, f in inside])
        s = np.array([error[i, f] for i, f in inside])
        mean[t] = (w[:, None] * v).sum(0) / w.sum()
        sure[t] = ((w[:, None] * s).sum(0) if shared else np.sqrt(((w[:, None] * s) ** 2).sum(0))) / w.sum()
    return mean, sure


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("hop", [1, 5, 8, 12, 23, 24])
def test_average_and_error_are_those_of_the_formula(hop: int, shared: bool) -> None:
    generator = np.random.default_rng(hop)
    values, error = generator.standard_normal((6, T, F)), generator.random((6, T, F))
    maps = (torch.from_numpy(a).float()[:, None] for a in (values, error))
    found = stitch(explained(*maps), hop * 0.01, shared_masks=shared)
    mean, sure = direct(values, error, hop, shared)
    np.testing.assert_allclose(found.importance, mean, atol=1e-6)
    np.testing.assert_allclose(found.neutral, 2 * mean, atol=1e-6)
    np.testing.assert_allclose(found.uncertainty, mean + 1, atol=1e-6)
    np.testing.assert_allclose(found.standard_error, sure, atol=1e-6)
    assert found.importance.shape == (5 * hop + T, F)
    assert found.importance.dtype == torch.float32
    np.testing.assert_allclose(found.times_s, 0.0125 + 0.01 * np.arange(5 * hop + T))


@given(hop=st.integers(1, T), n=st.integers(1, 8), value=st.floats(-1e3, 1e3, width=32))
@settings(deadline=None, max_examples=60)
def test_a_constant_stays_a_constant(hop: int, n: int, value: float) -> None:
    found = stitch(explained(torch.full((n, 1, T, F), value)), hop * 0.01)
    torch.testing.assert_close(found.importance, torch.full_like(found.importance, value), rtol=1e-6, atol=0)


@given(hop=st.integers(1, T), n=st.integers(1, 8), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_examples_that_agree_are_one_map(hop: int, n: int, seed: int) -> None:
    whole = torch.randn((n - 1) * hop + T, F, generator=torch.Generator().manual_seed(seed))
    found = stitch(explained(cut(whole, T, hop)), hop * 0.01)
    torch.testing.assert_close(found.importance, whole, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shared", [True, False])
def test_without_overlap_it_is_end_to_end_bit_for_bit(shared: bool) -> None:
    maps = torch.randn(5, 1, T, F)
    found = stitch(explained(maps, maps.abs()), shared_masks=shared)
    assert torch.equal(found.importance, maps.reshape(-1, F))
    assert torch.equal(found.standard_error, maps.abs().reshape(-1, F))
    assert torch.equal(found.centred(), -maps.reshape(-1, F))
    assert torch.equal(stitch(explained(maps), T * 0.01).importance, found.importance)


@given(hop=st.integers(1, T), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), shared=st.booleans())
@settings(deadline=None, max_examples=40)
def test_in_parts_it_is_the_same_bit_for_bit(hop: int, sizes: list[int], shared: bool) -> None:
    maps = {name: torch.randn(sum(sizes), T, F) for name in ("importance", "standard_error")}
    usable = torch.rand(sum(sizes)) > 0.3
    at_once = Stitcher(T, hop, shared_masks=shared)
    whole = at_once.push(maps, usable)
    carry: dict[str, Tensor] = {}
    parts, start = [], 0
    for size in sizes:
        stitcher = Stitcher(T, hop, shared_masks=shared, carry=carry)
        rows = slice(start, start + size)
        parts.append(stitcher.push({name: m[rows] for name, m in maps.items()}, usable[rows]))
        carry, start = stitcher.carry, start + size
    for name in maps:
        torch.testing.assert_close(torch.cat([p[name] for p in parts]), whole[name], rtol=0, atol=0, equal_nan=True)
        rest = stitcher.finish()[name]
        torch.testing.assert_close(rest, at_once.finish()[name], rtol=0, atol=0, equal_nan=True)


def test_no_seams_where_examples_differ() -> None:
    levels = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1, 1).expand(4, 1, 96, 1)
    found = stitch(explained(levels), 0.48).importance
    assert float(found.diff(dim=0).abs().max()) < 0.04  # a plain average would step by 0.5
    assert float(stitch(explained(levels), 0.96).importance.diff(dim=0).abs().max()) == 1.0


def test_an_example_without_an_explanation_weighs_nothing() -> None:
    maps = torch.ones(4, 1, T, F)
    maps[1] = torch.nan
    overlapping, apart = (stitch(explained(maps), hop * 0.01).importance for hop in (12, 24))
    assert torch.equal(overlapping, torch.ones_like(overlapping))
    assert apart[T : 2 * T].isnan().all()
    assert apart[:T].eq(1).all()
    assert apart[2 * T :].eq(1).all()


def test_a_map_that_some_parts_lack_is_unknown_there() -> None:
    stitcher, maps = Stitcher(T, 12), torch.ones(2, T, F)
    both = stitcher.push({"importance": maps, "cell_effects": maps})
    one = stitcher.push({"importance": maps}, torch.zeros(2, dtype=torch.bool))
    assert both["cell_effects"].eq(1).all()
    assert one["cell_effects"][:12].eq(1).all()
    assert one["cell_effects"][12:].isnan().all()


def first_bins(x: Tensor) -> Tensor:
    """A cheap encoder: a few entries, not linear."""
    return x.flatten(1)[:, ::17].tanh() + 0.1


def test_standard_error_is_what_repeating_shows() -> None:
    whole = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) + 0.2
    x, relax = cut(whole, 24, 12), rq.RELAX(first_bins, masks="random", estimator="weighted")
    own = [explain_overlapping(relax, x, 0.12, n_samples=60, seed=seed) for seed in range(120)]
    shared = [stitch(relax.explain(x, n_samples=60, seed=seed), 0.12) for seed in range(120)]  # type: ignore[arg-type]
    for results, low, high in ((own, 0.93, 1.07), (shared, 0.3, 1.05)):
        spread = torch.stack([r.importance for r in results]).std(dim=0)
        said = torch.stack([r.standard_error for r in results]).mean(dim=0)
        ratio = float((spread / said).square().mean().sqrt())
        assert low < ratio < high
    inner = slice(12, 48)  # where two examples overlap, masks of their own make the average surer
    assert float((own[0].standard_error / shared[0].standard_error)[inner].mean()) < 0.85


def test_overlapping_examples_draw_their_own_masks_and_others_the_same() -> None:
    assert phases(96, 96) == 1
    assert phases(96, 48) == 2
    assert phases(96, 40) == 3
    seeds = [phase_seed(5, phase) for phase in range(4)]
    assert seeds[0] == 5
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds if seed is not None)
    relax, x = rq.RELAX(first_bins, masks="random"), torch.rand(5, 1, 24, 4)
    apart = explain_overlapping(relax, x, n_samples=20, seed=5)
    assert torch.equal(apart.importance, relax.explain(x, n_samples=20, seed=5).importance.reshape(-1, 4))  # type: ignore[union-attr]
    found = explain_overlapping(relax, x, 0.12, n_samples=20, seed=5)
    second = relax.explain(x[1::2], n_samples=20, seed=phase_seed(5, 1))
    first = relax.explain(x[::2], n_samples=20, seed=5)
    assert torch.equal(found.importance[:12], first.importance[0, 0, :12])  # type: ignore[union-attr]
    assert not torch.equal(second.importance[0], relax.explain(x[1::2], n_samples=20, seed=5).importance[0])  # type: ignore[union-attr]


def test_waveforms_have_one_column() -> None:
    relax, x = rq.RELAX(lambda x: x[:, ::50] + 0.1, masks="time"), torch.rand(3, 1600)
    from relax_quantus.frontend.axes import SampleAxis

    found = explain_overlapping(relax, x, 0.05, axis=SampleAxis(rate_hz=16_000), n_samples=9)
    assert found.importance.shape == (3200, 1)


def test_overlapping_examples_of_a_file(write_wav: Callable[..., Path], sweep: np.ndarray) -> None:
    path = write_wav(sweep)
    found, apart = rq.load_examples(path, hop_s=0.24), rq.load_examples(path)
    assert found.shape == (5, 1, 96, 64)
    assert torch.equal(found[0], apart[0])
    assert torch.equal(found[4], apart[1])
    assert torch.equal(found[1, 0, :72], found[0, 0, 24:])
    assert torch.equal(rq.load_examples(path, hop_s=0.96), apart)
    assert rq.load_examples(write_wav(sweep[:8000], name="short.wav"), hop_s=0.24).shape == (1, 1, 96, 64)


@pytest.mark.parametrize("hop_s", [0.0, -1.0, 1.0, 0.001, float("nan")])
def test_impossible_hops(hop_s: float) -> None:
    with pytest.raises(ArgumentError, match="hop_s: expected"):
        hop_frames(hop_s, 0.01, 96)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"explanation: expected maps of shape"):
        stitch(explained(torch.zeros(2, 3, T, F)))
    with pytest.raises(ShapeError, match=r"frames: expected shape \(frames, F\)"):
        cut(torch.zeros(1, 96, 64), 96, 96)
    assert cut(torch.zeros(95, 64), 96, 96).shape == (0, 1, 96, 64)


def test_taper_is_positive_and_even() -> None:
    weights = taper(96)
    assert weights.min() > 0
    torch.testing.assert_close(weights, weights.flip(0))
    torch.testing.assert_close(weights[:48] + weights[48:], torch.ones(48, dtype=torch.float64))


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), steps=st.lists(st.integers(0, 4), max_size=8))
@settings(deadline=None, max_examples=60)
def test_a_sliding_window_shows_what_a_slice_would(sizes: list[int], steps: list[int]) -> None:
    whole = np.arange(sum(sizes))
    window = Sliding(np.split(whole, np.cumsum(sizes)[:-1]))
    first = 0
    for step in steps:
        first += step
        np.testing.assert_array_equal(window.take(first, first + 5), whole[first : first + 5])
