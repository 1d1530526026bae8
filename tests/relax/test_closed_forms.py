"""Closed forms of RELAX under fully enumerated masks,
and laws that hold for any encoder; float64, to 1e-12.

q_k = x_k^2 / ||x||^2; masks iid Bernoulli(p), fill 0, cosine, unless stated. C is the `weighted`
importance, V its uncertainty and A = E[M] C the `paper` importance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation
from reference import slow_relax
from reference.models import Given, LeaveOneOut, rand, relu_encoder
from torch import Tensor

import relax_quantus as rq

D = 5
TOLERANCE = {"rtol": 0.0, "atol": 1e-12}
QUARTERS = pytest.mark.parametrize("quarters", [1, 2, 3], ids=["p=.25", "p=.5", "p=.75"])


def explain(
    encoder: Callable[..., Any], x: Tensor, masks: Tensor, estimator: str = "weighted", **keywords: Any
) -> rq.Explanation:
    result = rq.RELAX(encoder, masks=Given(masks), estimator=estimator).explain(x, n_samples=len(masks), **keywords)
    assert isinstance(result, rq.Explanation)
    return result


def check(encoder: Callable[..., Any], x: Tensor, masks: Tensor, C: Any, V: Any = None, **keywords: Any) -> None:
    """Importance is C and uncertainty V for `weighted`, importance E[M] C for `paper`."""
    C = torch.as_tensor(np.asarray(C, dtype=np.float64))
    weighted = explain(encoder, x, masks, **keywords)
    torch.testing.assert_close(weighted.importance[0], C.expand_as(x[0]), **TOLERANCE)
    if V is not None:
        torch.testing.assert_close(
            weighted.uncertainty[0], torch.as_tensor(np.asarray(V, dtype=np.float64)).expand_as(x[0]), **TOLERANCE
        )
    paper = explain(encoder, x, masks, "paper", **keywords)
    torch.testing.assert_close(paper.importance[0], masks.mean(0) * C, **TOLERANCE)


def bernoulli(quarters: int, d: int = D) -> Tensor:
    return torch.from_numpy(slow_relax.bernoulli_masks(d, quarters))


def identity(x: Tensor) -> Tensor:
    return x.flatten(1)


def test_the_enumeration_is_bernoulli() -> None:
    for quarters in (1, 2, 3):
        p = quarters / 4
        masks = bernoulli(quarters)
        torch.testing.assert_close(masks.mean(0), torch.full((D,), p, dtype=torch.float64), **TOLERANCE)
        torch.testing.assert_close(
            masks.T @ masks / len(masks), torch.full((D, D), p * p) + torch.eye(D) * (p - p * p), check_dtype=False
        )


@pytest.mark.parametrize("estimator", ["weighted", "paper"])
@pytest.mark.parametrize("shape", [(5,), (1, 6, 4), (2, 3, 2, 2)])
def test_1_constant_encoder_with_any_masks(shape: tuple[int, ...], estimator: str) -> None:
    x = rand(1, *shape)
    masks = torch.rand(37, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = explain(
        lambda z: torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64).expand(len(z), 3), x, masks, estimator
    )
    expected = torch.ones(shape, dtype=torch.float64) if estimator == "weighted" else masks.mean(0)
    torch.testing.assert_close(result.importance[0], expected, **TOLERANCE)
    if estimator == "weighted":
        assert float(result.uncertainty.abs().max()) < 1e-12
    assert bool(result.standard_error.isnan().all())
    assert bool(result.centred_standard_error.isnan().all())


@QUARTERS
def test_2_identity_of_constant_magnitude(quarters: int) -> None:
    p, x = quarters / 4, torch.tensor([[2.0, -2.0, 2.0, 2.0, -2.0]], dtype=torch.float64)
    C = slow_relax.binomial(D - 1, p, lambda k: math.sqrt((1 + k) / D))
    check(identity, x, bernoulli(quarters), C, (1 + (D - 1) * p) / D - C**2)


@QUARTERS
@pytest.mark.parametrize("r", [0, 3])
def test_3_one_feature(quarters: int, r: int) -> None:
    p, x = quarters / 4, rand(1, D)
    C, V = np.full(D, p), np.full(D, p * (1 - p))
    C[r], V[r] = 1, 0
    check(lambda z: z[:, r : r + 1], x, bernoulli(quarters), C, V)


@QUARTERS
def test_4_projection_on_a_set(quarters: int) -> None:
    p, inside, x = quarters / 4, [0, 2, 3], torch.tensor([[3.0, -3.0, 3.0, -3.0, 3.0]], dtype=torch.float64)
    g = len(inside)
    C = np.full(D, slow_relax.binomial(g, p, lambda k: math.sqrt(k / g)))
    V = p - C**2
    C[inside] = slow_relax.binomial(g - 1, p, lambda k: math.sqrt((1 + k) / g))
    V[inside] = (1 + (g - 1) * p) / g - C[inside] ** 2
    check(lambda z: z[:, inside], x, bernoulli(quarters), C, V)


@QUARTERS
def test_5_identity_with_the_negated_input_as_fill(quarters: int) -> None:
    p, x = quarters / 4, rand(1, D)
    q = (x[0] ** 2 / (x[0] ** 2).sum()).numpy()
    C = 2 * q * (1 - p) + 2 * p - 1
    V = 4 * p * (1 - p) * ((q**2).sum() - q**2)
    check(identity, x, bernoulli(quarters), C, V, baselines=-x)


def test_6_leave_one_out_is_feature_ablation_of_the_similarity() -> None:
    x, encoder = rand(1, D), relu_encoder(D)
    masks = 1 - torch.eye(D, dtype=torch.float64)
    h = encoder(x)[0].detach().numpy()
    S = np.array([slow_relax.cosine(h, encoder(x * masks[j])[0].detach().numpy()) for j in range(D)])
    check(encoder, x, masks, (S.sum() - S) / (D - 1))
    ablation = FeatureAblation(rq.SimilarityForward(encoder)).attribute(x, additional_forward_args=encoder(x).detach())
    FA = ablation[0].detach().numpy()
    check(encoder, x, masks, (S.sum() - 1 + FA) / (D - 1))
    same = rq.RELAX(encoder, masks=LeaveOneOut()).attribute(x, n_samples=D)
    np.testing.assert_allclose(same[0], (S.sum() - 1 + FA) / (D - 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("a", [0.0, 0.3, 0.9, 1.0])
def test_7_grey_masks(a: float) -> None:
    x = torch.tensor([[1.5, -0.7]], dtype=torch.float64)
    q1, q2 = (x[0] ** 2 / (x[0] ** 2).sum()).tolist()
    s1 = (q1 + a * q2) / math.sqrt(q1 + a**2 * q2)
    s2 = (q2 + a * q1) / math.sqrt(q2 + a**2 * q1)
    C = np.array([s1 + a * s2, a * s1 + s2]) / (1 + a)
    check(identity, x, torch.tensor([[1, a], [a, 1]], dtype=torch.float64), C, a * (s1 - s2) ** 2 / (1 + a) ** 2)


@QUARTERS
def test_8_banzhaf_values_and_weighted_least_squares(quarters: int) -> None:
    p, x, encoder, masks = quarters / 4, rand(1, D), relu_encoder(D), bernoulli(quarters)
    h = encoder(x)[0].detach().numpy()

    def game(mask: tuple[int, ...]) -> float:
        return slow_relax.cosine(h, encoder(x * torch.tensor(mask))[0].detach().numpy())

    B = slow_relax.banzhaf(game, D, p)
    s = np.array([game(tuple(int(v) for v in m)) for m in masks])
    check(encoder, x, masks, s.mean() + (1 - p) * B)
    centred = explain(encoder, x, masks).centred()[0]
    np.testing.assert_allclose(centred / (1 - p), B, rtol=0, atol=1e-12)
    design = np.column_stack([np.ones(len(masks)), masks.numpy()])
    coefficients = np.linalg.lstsq(design, s, rcond=None)[0][1:]
    np.testing.assert_allclose(coefficients, B, rtol=0, atol=1e-12)


def test_paper_uncertainty_restates_importance() -> None:
    """E[U] = mu [V + (1 - mu)^2 C^2] with mu = E[M], for binary masks."""
    x, encoder = rand(1, D), relu_encoder(D)
    for quarters in (1, 2, 3):
        mu, masks = quarters / 4, bernoulli(quarters)
        weighted, paper = explain(encoder, x, masks), explain(encoder, x, masks, "paper")
        expected = mu * (weighted.uncertainty + (1 - mu) ** 2 * weighted.importance**2)
        torch.testing.assert_close(paper.uncertainty, expected, **TOLERANCE)


def test_keep_one_masks_and_identity() -> None:
    x = rand(1, D)
    check(identity, x, torch.eye(D, dtype=torch.float64), (x.abs() / x.norm())[0], 0.0)


@pytest.mark.parametrize(
    "masks", [bernoulli(1), torch.rand(20, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)]
)
def test_the_input_as_its_own_fill(masks: Tensor) -> None:
    x = rand(1, D)
    check(relu_encoder(D), x, masks, 1.0, 0.0, baselines=x)


@pytest.mark.parametrize("scale", [1e-100, -3.0, 1e100])
def test_a_scaled_isometry_of_the_embedding_changes_nothing(scale: float) -> None:
    x, encoder, masks = rand(2, D), relu_encoder(D), bernoulli(1)
    rotation = torch.linalg.qr(rand(4, 4, seed=3)).Q
    plain = explain(encoder, x, masks)
    turned = explain(lambda z: scale * encoder(z) @ rotation, x, masks)
    for field in ("importance", "uncertainty", "mean_similarity"):
        torch.testing.assert_close(getattr(turned, field), getattr(plain, field), **TOLERANCE)


def test_all_ones_masks() -> None:
    x, ones = rand(2, 1, 3, 2), torch.ones(9, 1, 3, 2, dtype=torch.float64)
    for estimator in ("weighted", "paper"):
        result = explain(relu_encoder(6), x, ones, estimator)
        torch.testing.assert_close(result.importance, torch.ones_like(x), **TOLERANCE)
        torch.testing.assert_close(result.uncertainty, torch.zeros_like(x), **TOLERANCE)
        torch.testing.assert_close(result.mean_similarity, torch.ones(2, dtype=torch.float64), **TOLERANCE)
        torch.testing.assert_close(result.centred(), torch.zeros_like(x), **TOLERANCE)


@pytest.mark.parametrize("strategy", list(rq.masks.STRATEGIES))
def test_built_in_masks_converge_to_the_definition(strategy: str) -> None:
    """The whole of RELAX against the slow formulas on the strategy's
    own masks, drawn by hand from the documented generator.
    """
    x, encoder = rand(2, 1, 6, 4), relu_encoder(24)
    masks = rq.masks.get(strategy).sample(40, (1, 6, 4), torch.Generator().manual_seed(11)).expand(40, 1, 6, 4).double()
    h = encoder(x).detach().numpy()
    for estimator, slow in (("weighted", slow_relax.weighted), ("paper", slow_relax.paper)):
        result = rq.RELAX(encoder, masks=strategy, estimator=estimator).explain(x, n_samples=40, seed=11)
        for b in range(2):
            s = np.array([slow_relax.cosine(h[b], encoder(x[b : b + 1] * m)[0].detach().numpy()) for m in masks])
            importance, uncertainty = slow(s, masks.flatten(1).numpy())
            np.testing.assert_allclose(result.importance[b].flatten(), importance, rtol=0, atol=1e-12)
            np.testing.assert_allclose(result.uncertainty[b].flatten(), uncertainty, rtol=0, atol=1e-12)
