"""The official package as a golden reference: relax_xai 0.0.5
(pip install --no-deps relax_xai==0.0.5) given the same masks.

It imports torchvision only for image transforms that are not used here, so that is stubbed where it
is not installed. Known departures: its uncertainty is the sum that should be divided by the masks'
sum, and it starts that sum at 1e-10.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Iterator

import pytest
import torch
from reference.models import Given, rand, relu_encoder

import relax_quantus as rq

N, CHUNK = 60, 20


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """Its module `relax`, in float64."""
    if importlib.util.find_spec("relax_xai") is None:
        pytest.skip("relax_xai is not installed: pip install --no-deps relax_xai==0.0.5")
    if importlib.metadata.version("relax_xai") != "0.0.5":
        pytest.skip(f"relax_xai {importlib.metadata.version('relax_xai')} is not the 0.0.5 that this golden is for")
    if importlib.util.find_spec("torchvision") is None:
        monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    torch.set_default_dtype(torch.float64)
    yield importlib.import_module("relax_xai.relax")
    torch.set_default_dtype(torch.float32)


def run_official(
    official: types.ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    x: torch.Tensor,
    masks: torch.Tensor,
    encoder: torch.nn.Module,
) -> torch.nn.Module:
    chunks = iter(masks.split(CHUNK))
    monkeypatch.setattr(official, "mask_generator", lambda *_, **__: iter([next(chunks)]))
    explainer = official.RELAX(x, encoder, batch_size=CHUNK, num_batches=N // CHUNK)
    with torch.no_grad():
        explainer.forward()
    return explainer


@pytest.mark.parametrize("channels", [1, 3])
def test_same_masks_give_the_official_maps(
    official: types.ModuleType, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    x, encoder = rand(1, channels, 9, 7), relu_encoder(channels * 63)
    masks = torch.rand(N, 1, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = run_official(official, monkeypatch, x, masks, encoder)
    ours = rq.RELAX(encoder, masks=Given(masks)).explain(x, n_samples=N)
    for channel in range(channels):
        torch.testing.assert_close(ours.importance[0, channel], theirs.importance, rtol=0, atol=1e-9)
        torch.testing.assert_close(
            ours.uncertainty[0, channel], theirs.uncertainty / masks.sum((0, 1)), rtol=0, atol=1e-9
        )
    assert float(ours.uncertainty.max()) > 1e-6


def test_our_own_masks_in_the_official_package(official: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    x, encoder = rand(1, 1, 12, 8), relu_encoder(96)
    masks = rq.masks.get("random").sample(N, (1, 12, 8), torch.Generator().manual_seed(4)).double()
    theirs = run_official(official, monkeypatch, x, masks, encoder)
    ours = rq.RELAX(encoder, estimator="weighted").explain(x, n_samples=N, seed=4)
    torch.testing.assert_close(ours.importance[0, 0], theirs.importance, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours.uncertainty[0, 0] * masks.sum((0, 1)), theirs.uncertainty, rtol=0, atol=1e-8)


def test_paper_is_the_official_importance_times_the_mean_mask(
    official: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, encoder = rand(1, 1, 9, 7), relu_encoder(63)
    masks = torch.rand(N, 1, 9, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theirs = run_official(official, monkeypatch, x, masks, encoder)
    ours = rq.RELAX(encoder, masks=Given(masks), estimator="paper").attribute(x, n_samples=N)
    torch.testing.assert_close(ours[0, 0], theirs.importance * masks.mean((0, 1)), rtol=0, atol=1e-9)


def test_u_relax_keeps_what_the_official_one_keeps_when_the_masks_sum_alike(
    official: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mask is followed by its complement, so that every
    bin's masks sum to N / 2 and normalising changes no order.
    """
    x, encoder = rand(1, 1, 9, 7), relu_encoder(63)
    half = torch.rand(N // 2, 1, 9, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    masks = torch.stack([half, 1 - half], 1).flatten(0, 1)
    theirs = run_official(official, monkeypatch, x, masks, encoder)
    ours = rq.RELAX(encoder, masks=Given(masks)).explain(x, n_samples=N)
    torch.testing.assert_close(ours.u_relax()[0, 0], theirs.u_relax, rtol=0, atol=1e-9)
