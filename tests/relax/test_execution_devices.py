"""What is moved between devices, and the same masks and map on a GPU."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from counted_forwards import ENCODER, FIELDS, X
from reference.models import rand

import relax_quantus as rq
from relax_quantus.relax import call as problem
from relax_quantus.relax import masked_forward, perturbation


@pytest.mark.parametrize("baselines", ["silence", "noise"])
def test_masks_are_moved_a_chunk_at_a_time(baselines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    real = perturbation.moved
    monkeypatch.setattr(perturbation, "moved", lambda masks, device: (moved.append(len(masks)), real(masks, device))[1])
    rq.RELAX(ENCODER).attribute(X, baselines=baselines, n_samples=200, perturbations_per_eval=50)
    assert moved == [50] * 4


def test_transfers_and_conversions_do_not_grow_with_the_masks_in_a_chunk() -> None:
    class Conversions(torch.overrides.TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += getattr(func, "__name__", "") in ("to", "cpu", "cuda", "item", "tolist", "copy_")
            return func(*args, **(kwargs or {}))

    def conversions(n: int, per_eval: int) -> int:
        with Conversions() as mode:
            rq.RELAX(ENCODER, estimator="weighted").attribute(X, n_samples=n, perturbations_per_eval=per_eval)
        return mode.count

    one_chunk = conversions(64, 64)
    assert conversions(640, 640) == one_chunk
    assert conversions(128, 64) - one_chunk < 20


@pytest.mark.parametrize(("bad", "expected"), [(2, [True, False, False, False, False]), (None, [True] * 5)])
def test_what_is_not_finite_is_remembered_until_the_end_where_chunks_are_not_waited_for(
    bad: int | None, expected: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: what is asked after each of four chunks is ignored here, and the question at the end decides."""
    asked: list[bool] = []
    chunks: list[int] = []

    def encoder(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:  # not the reference, nor the fill alone
            chunks.append(len(x))
        return ENCODER(x) * (float("nan") if len(chunks) == bad else 1.0)

    monkeypatch.setattr(masked_forward, "refuse_unless", lambda finite: asked.append(bool(finite)))
    relax = rq.RELAX(encoder, "time", estimator="weighted")
    relax.explain(X[:1], n_samples=256, perturbations_per_eval=64)
    assert asked == expected


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_gpu
@pytest.mark.parametrize("strategy", list(rq.masks.STRATEGIES))
def test_a_gpu_gives_the_cpus_masks_and_map(strategy: str) -> None:
    encoder, x = rq.load_encoder("vggish_mini"), rand(3, 1, 96, 64, dtype=torch.float32) - 3
    relax = rq.RELAX(encoder, strategy)
    here = relax.explain(x, baselines="noise", n_samples=300)
    masks = [m[0] for m, _ in problem.pose(x, relax.masks, n_samples=300, seed=0).stream]
    encoder.to("cuda")
    there = relax.explain(x.cuda(), baselines="noise", n_samples=300)
    moved = [m[0] for m, _ in problem.pose(x.cuda(), relax.masks, n_samples=300, seed=0).stream]
    for field in FIELDS:
        assert getattr(there, field).device.type == "cuda"
        torch.testing.assert_close(getattr(there, field).cpu(), getattr(here, field), rtol=0, atol=1e-4)
    for on_cpu, on_gpu in itertools.zip_longest(masks, moved):
        assert torch.equal(on_cpu, on_gpu.cpu())


@needs_gpu
def test_a_gpu_runs_bfloat16_and_keeps_nothing_of_the_weights() -> None:
    encoder, x = rq.load_encoder("vggish_mini").to("cuda"), rand(2, 1, 96, 64, dtype=torch.float32).cuda() - 3
    exact = rq.RELAX(encoder).attribute(x, n_samples=500)
    short = rq.RELAX(encoder, precision="bfloat16").attribute(x, n_samples=500)
    pair = torch.stack([exact.flatten(), short.flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.99
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


@needs_gpu
def test_a_gpu_is_not_waited_for_in_each_chunk() -> None:
    """Reading results back is what waits; once at the end is enough."""
    x = rand(1, 1, 96, 64, dtype=torch.float32).cuda()
    relax = rq.RELAX(rq.load_encoder("vggish_mini").to("cuda"), "time")
    comparison = relax._comparison(x, None, None, None, None, 640, 64, 0, None)
    chunks = comparison.similarities()
    next(chunks)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(8):
            next(chunks)
    finally:
        torch.cuda.set_sync_debug_mode("default")
