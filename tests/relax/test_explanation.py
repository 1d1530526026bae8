"""`Explanation`: what it holds and what it derives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from reference.models import rand, relu_encoder

import relax_quantus as rq


def explanation(
    estimator: str = "weighted", shape: tuple[int, ...] = (2, 1, 6, 4), n_samples: int = 40
) -> rq.Explanation:
    x = rand(*shape)
    return rq.RELAX(relu_encoder(x[0].numel()), estimator=estimator).explain(x, n_samples=n_samples)


@pytest.mark.parametrize("estimator", list(rq.estimators.ESTIMATORS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fields(estimator: str, dtype: torch.dtype) -> None:
    x = rand(2, 1, 6, 4, dtype=dtype)
    result = rq.RELAX(relu_encoder(24, dtype=dtype), estimator=estimator).explain(x, n_samples=40)
    for field in ("importance", "uncertainty", "standard_error"):
        values = getattr(result, field)
        assert values.shape == x.shape
        assert values.dtype == dtype
        assert values.is_contiguous()
        assert not values.requires_grad
    assert result.mean_similarity.shape == result.fully_masked_similarity.shape == (2,)
    assert result.n_samples.tolist() == [40, 40]
    assert torch.broadcast_shapes(result.neutral.shape, x.shape) == x.shape
    assert result.estimator == estimator


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        explanation().importance = torch.zeros(1)  # type: ignore[misc]


@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (2, 1, 5, 3)])
def test_u_relax_keeps_the_half_below_the_median_of_each_example(shape: tuple[int, ...]) -> None:
    result = explanation(shape=shape)
    for importance, uncertainty, kept in zip(result.importance, result.uncertainty, result.u_relax(), strict=True):
        expected = np.where(uncertainty <= np.median(uncertainty), importance, 0)
        np.testing.assert_array_equal(kept, expected)
        assert int((kept != 0).sum()) == (kept.numel() + 1) // 2


def test_centred() -> None:
    weighted, paper = explanation(), explanation("paper")
    torch.testing.assert_close(
        weighted.centred(), weighted.importance - weighted.mean_similarity.reshape(2, 1, 1, 1), rtol=0, atol=1e-15
    )
    masks = rq.masks.get("random").sample(40, (1, 6, 4), torch.Generator().manual_seed(0)).double()
    expected = paper.importance - paper.mean_similarity.reshape(2, 1, 1, 1) * masks.mean(0)
    torch.testing.assert_close(paper.centred(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", list(rq.estimators.ESTIMATORS))
def test_centred_is_zero_where_nothing_matters(estimator: str) -> None:
    x = rand(1, 1, 6, 4)
    result = rq.RELAX(lambda z: torch.ones(len(z), 3, dtype=torch.float64), estimator=estimator).explain(
        x, n_samples=30
    )
    torch.testing.assert_close(result.centred(), torch.zeros_like(x), rtol=0, atol=1e-14)


def test_spearman_of_uncertainty_and_importance() -> None:
    result = explanation(shape=(3, 1, 6, 4))
    for i, rho in enumerate(result.spearman()):
        u, r = (v[i].flatten().tolist() for v in (result.uncertainty, result.importance))
        ranks = [
            [sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values] for values in (u, r)
        ]
        assert float(rho) == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-12)
    constant = rq.RELAX(lambda z: torch.ones(len(z), 3)).explain(rand(1, 1, 6, 4), n_samples=20)
    assert bool(torch.isnan(constant.spearman()).all())


def test_repr_says_what_it_is_in_one_line() -> None:
    text = repr(explanation())
    assert text.startswith("Explanation((2, 1, 6, 4), estimator='weighted', importance ")
    assert "n_samples [40, 40]" in text
    assert "\n" not in text
