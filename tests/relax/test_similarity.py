"""The cosine: its definition, its range, what it does with zeros and extremes, and its gradient."""

from __future__ import annotations

import pytest
import torch
from reference import slow_relax
from reference.models import rand

from relax_quantus.errors import ArgumentError, ArgumentTypeError, EncoderError, ShapeError, UnknownNameError
from relax_quantus.relax.similarity import SIMILARITIES, CentredCosine, cosine, get, is_directional


def test_equals_the_definition() -> None:
    h, masked = rand(3, 5), rand(4, 3, 5, seed=1)
    slow = [[slow_relax.cosine(h[b].numpy(), masked[m, b].numpy()) for b in range(3)] for m in range(4)]
    torch.testing.assert_close(cosine(h, masked), torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-15)


def test_zeros_have_similarity_zero() -> None:
    h, masked = rand(2, 4), rand(3, 2, 4, seed=1)
    masked[1, 0] = 0
    result = cosine(h, masked)
    assert float(result[1, 0]) == 0
    assert bool((result.flatten()[[0, 1, 3, 4, 5]] != 0).all())


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_scale_does_not_matter(scale: float) -> None:
    h, masked = rand(2, 4), rand(3, 2, 4, seed=1)
    torch.testing.assert_close(cosine(h * scale, masked / scale), cosine(h, masked), rtol=0, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-35, 1e35])
def test_scale_does_not_matter_in_float32(scale: float) -> None:
    h, masked = rand(2, 4, dtype=torch.float32), rand(3, 2, 4, seed=1, dtype=torch.float32)
    torch.testing.assert_close(cosine(h * scale, masked * scale), cosine(h, masked), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_type_is_at_least_float32(dtype: torch.dtype, result: torch.dtype) -> None:
    assert cosine(rand(2, 4, dtype=dtype), rand(3, 2, 4, seed=1, dtype=dtype)).dtype == result


def test_range_and_symmetry() -> None:
    h = rand(500, 3, dtype=torch.float32)
    assert torch.equal(cosine(h, h[None]).clamp(-1, 1), cosine(h, h[None]))
    torch.testing.assert_close(cosine(h, torch.stack([h, -h])), torch.tensor([[1.0], [-1.0]]).expand(2, 500))
    other = rand(500, 3, seed=1)
    torch.testing.assert_close(cosine(h.double(), other[None]), cosine(other, h.double()[None]), rtol=0, atol=1e-15)


def test_one_dimension_gives_the_sign() -> None:
    assert cosine(torch.tensor([[2.0]]), torch.tensor([[[3.0]], [[-1.0]], [[0.0]]])).flatten().tolist() == [1, -1, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_stays_visible(bad: float) -> None:
    masked = rand(2, 1, 3)
    masked[0, 0, 1] = bad
    result = cosine(rand(1, 3, seed=1), masked)
    assert bool(torch.isnan(result[0, 0]))
    assert bool(torch.isfinite(result[1, 0]))


def test_gradient() -> None:
    h, masked = rand(2, 4).requires_grad_(), rand(3, 2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(cosine, (h, masked))
    zeros = torch.zeros(1, 2, 4, dtype=torch.float64, requires_grad=True)
    cosine(h, zeros).sum().backward()
    assert zeros.grad is not None
    assert bool(torch.isfinite(zeros.grad).all())


def test_unknown_similarity_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"^similarity: .*got 'cosin'; did you mean 'cosine'"):
        SIMILARITIES.get("cosin")


def test_centred_cosine_takes_the_mean_from_both() -> None:
    h, masked, mean = rand(3, 5), rand(4, 3, 5, seed=1), rand(5, seed=2)
    slow = [
        [slow_relax.cosine((h[b] - mean).numpy(), (masked[m, b] - mean).numpy()) for b in range(3)] for m in range(4)
    ]
    result = get("centred_cosine", mean=mean)(h, masked)
    torch.testing.assert_close(result, torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-14)
    masked[2, 1] = mean
    assert float(CentredCosine(mean)(h, masked)[2, 1]) == 0


def test_centred_cosine_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ArgumentTypeError, match=r"^mean: expected with the similarity 'centred_cosine', got nothing"):
        get("centred_cosine")
    with pytest.raises(ShapeError, match=r"^mean: expected a corpus mean of shape \(D,\)"):
        get("centred_cosine", mean=torch.zeros(2, 3))
    with pytest.raises(ArgumentError, match=r"^mean: expected finite entries"):
        get("centred_cosine", mean=torch.full((3,), float("nan")))
    with pytest.raises(ShapeError, match=r"^mean: expected a corpus mean of shape \(5,\)"):
        CentredCosine(torch.zeros(4))(rand(1, 5), rand(2, 1, 5))
    with pytest.raises(EncoderError, match=r"^reference: expected an embedding other than the corpus mean"):
        CentredCosine(torch.ones(3))(torch.ones(1, 3), rand(2, 1, 3))


def test_dot_and_distance() -> None:
    h, masked = rand(3, 5), rand(4, 3, 5, seed=1)
    dots = [
        [sum(float(a) * float(b) for a, b in zip(h[i], masked[m, i], strict=True)) for i in range(3)] for m in range(4)
    ]
    torch.testing.assert_close(get("dot")(h, masked), torch.tensor(dots, dtype=torch.float64), rtol=0, atol=1e-14)
    far = [
        [-(sum(float(a - b) ** 2 for a, b in zip(h[i], masked[m, i], strict=True)) ** 0.5) for i in range(3)]
        for m in range(4)
    ]
    torch.testing.assert_close(
        get("negative_euclidean")(h, masked), torch.tensor(far, dtype=torch.float64), rtol=0, atol=1e-14
    )


def test_what_is_directional() -> None:
    assert is_directional(get("cosine"))
    assert is_directional(CentredCosine(torch.zeros(2)))
    assert not is_directional(get("dot"))
    assert not is_directional(get("negative_euclidean"))
