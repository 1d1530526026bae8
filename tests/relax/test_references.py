"""What masked copies are compared with, and every way in which that can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.models import Bernoulli, Given, rand, relu_encoder
from torch import Tensor

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError, EncoderError, RelaxQuantusError, ShapeError
from relax_quantus.relax.similarity import cosine

SHAPE = (2, 1, 4, 3)
N = 30
ENCODER = relu_encoder(12)


def explain(
    reference: Any = None, x: Tensor | None = None, encoder: Callable[..., Any] = ENCODER, **keywords: Any
) -> Tensor:
    relax = rq.RELAX(encoder, masks=keywords.pop("masks", "random"), similarity=keywords.pop("similarity", "cosine"))
    return relax.attribute(
        rand(*SHAPE) if x is None else x, reference=reference, n_samples=keywords.pop("n_samples", N), **keywords
    )


def expected(h: Tensor) -> Tensor:
    """Weighted importance of similarities to embeddings `h`, by the formula."""
    x = rand(*SHAPE)
    masks = rq.masks.get("random").sample(N, SHAPE[1:], torch.Generator().manual_seed(0)).double()
    s = torch.stack([torch.nn.functional.cosine_similarity(ENCODER(x * m), h.expand(2, -1)) for m in masks]).detach()
    return torch.einsum("nb,n...->b...", s, masks) / masks.sum(0)


def test_none_is_the_inputs_own_embedding() -> None:
    torch.testing.assert_close(explain(), expected(ENCODER(rand(*SHAPE))), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (2, 4)])
def test_embeddings(shape: tuple[int, ...]) -> None:
    h = rand(*shape, seed=5)
    torch.testing.assert_close(explain(h), expected(h), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 4, 3), (1, 1, 4, 3), (2, 1, 4, 3)])
def test_inputs(shape: tuple[int, ...]) -> None:
    other = rand(*shape, seed=5)
    torch.testing.assert_close(explain(other), expected(ENCODER(other.reshape(-1, 1, 4, 3))), rtol=0, atol=1e-12)


def test_rows_of_a_batch_go_with_their_references() -> None:
    x, h = rand(*SHAPE), rand(2, 4, seed=5)
    for i in range(2):
        torch.testing.assert_close(explain(h)[i : i + 1], explain(h[i], x=x[i : i + 1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "away", [None, rand(4, seed=6), rand(2, 4, seed=6), rand(1, 1, 4, 3, seed=6)], ids=["own", "D", "BD", "input"]
)
def test_towards_and_away_subtract(away: Tensor | None) -> None:
    towards = rand(4, seed=5)
    torch.testing.assert_close(explain((towards, away)), explain(towards) - explain(away), rtol=0, atol=1e-12)
    torch.testing.assert_close(explain((away, towards)), -explain((towards, away)), rtol=0, atol=1e-12)


def test_towards_itself_and_away_from_itself_is_nothing() -> None:
    assert float(explain((None, None)).abs().max()) == 0


def test_only_inputs_that_fit_are_inputs() -> None:
    """On two-dimensional inputs a reference of two axes is an
    embedding, though the encoder's input has the same shape.
    """
    x, encoder = rand(2, 4), relu_encoder(4)
    assert torch.equal(explain(x, x=x, encoder=encoder), explain(x.clone().reshape(2, 4), x=x, encoder=encoder))
    h = rand(2, 4, seed=3)
    own = torch.nn.functional.cosine_similarity(encoder(x), h).detach()
    ones = rq.RELAX(encoder, masks=Given(torch.ones(3, 4))).explain(x, reference=h, n_samples=3)
    torch.testing.assert_close(ones.mean_similarity, own, rtol=0, atol=1e-12)


def test_tuple_inputs_take_embeddings() -> None:
    a, b = rand(2, 3), rand(2, 3, seed=1)
    relax = rq.RELAX(lambda p, q: p * q, masks=Bernoulli())
    h = rand(2, 3, seed=2)
    maps = relax.attribute((a, b), reference=h, n_samples=9)
    assert len(maps) == 2
    with pytest.raises(ShapeError, match=r"^reference: expected an embedding \(D,\) or \(2, D\)"):
        relax.attribute((a, b), reference=rand(1, 2, 3), n_samples=9)


def test_references_are_not_changed_and_carry_no_gradient() -> None:
    h = rand(2, 4, seed=5).requires_grad_()
    before = h.detach().clone()
    assert not explain(h).requires_grad
    assert torch.equal(h.detach(), before)


def test_integer_and_float32_references() -> None:
    torch.testing.assert_close(
        explain(torch.tensor([1, 2, 3, 4])),
        explain(torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)),
        atol=1e-12,
        rtol=0,
    )
    assert explain(rand(4, dtype=torch.float32)).dtype == torch.float64


BAD: list[tuple[str, Any, type[RelaxQuantusError], str]] = [
    ("list", [1.0, 2.0], ArgumentTypeError, "^reference: expected None, a tensor, or a 2-tuple .*got list"),
    ("one", (rand(4),), ArgumentError, r"^reference: expected a 2-tuple \(towards, away\), got 1 entries"),
    ("three", (rand(4),) * 3, ArgumentError, r"^reference: expected a 2-tuple \(towards, away\), got 3 entries"),
    (
        "nested",
        ((rand(4), None), None),
        ArgumentError,
        "^reference: expected tensors or None in the tuple, got a tuple in a tuple",
    ),
    ("rows", rand(3, 4), ShapeError, r"^reference: expected an embedding \(D,\) or \(2, D\), or an input like"),
    ("scalar", torch.tensor(1.0), ShapeError, r"^reference: expected an embedding \(D,\)"),
    (
        "examples",
        rand(3, 1, 4, 3),
        ShapeError,
        r"^reference: expected an input of shape \(2, 1, 4, 3\), or one of its rows",
    ),
    ("frames", rand(1, 5, 3), ShapeError, r"^reference: expected an embedding .*or an input like \(2, 1, 4, 3\)"),
    ("nan", torch.full((4,), float("nan")), ArgumentError, "^reference: expected finite entries"),
    ("zero", torch.zeros(4), EncoderError, "^reference: expected non-zero embeddings, got an all-zero one"),
    ("one zero", torch.stack([rand(4), torch.zeros(4)]), EncoderError, "^reference: expected non-zero embeddings"),
    (
        "length",
        rand(5),
        EncoderError,
        r"^encoder: expected embeddings of shape \(\d+, 5\), got .*as long as the reference's",
    ),
    ("unequal", (rand(4), rand(5)), ShapeError, r"^reference: expected embeddings of one shape, \(2, 4\)"),
]


@pytest.mark.parametrize(("reference", "error", "match"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_references_are_refused(reference: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        explain(reference)


BAD_ENCODERS: list[tuple[str, Callable[[Tensor], Any], str]] = [
    ("nan", lambda x: x.flatten(1) * float("nan"), "^encoder: expected finite embeddings, got NaN or infinite ones"),
    ("infinite", lambda x: x.flatten(1) / 0, "^encoder: expected finite embeddings"),
    ("3-D", lambda x: x[:, 0], r"^encoder: expected embeddings of shape \(2, D\), got .*\(2, 4, 3\).*flatten"),
    ("4-D", lambda x: x, r"^encoder: expected embeddings of shape \(2, D\)"),
    (
        "zeros",
        lambda x: x.flatten(1) * 0,
        "^encoder: expected non-zero embeddings, got an all-zero one; .*before the ReLU",
    ),
    ("tuple", lambda x: (x.flatten(1), x), r"^encoder: expected a tensor \(n, D\), got a tuple"),
    ("None", lambda x: None, r"^encoder: expected a tensor \(n, D\), got a NoneType"),
    ("numpy", lambda x: x.flatten(1).numpy(), r"^encoder: expected a tensor \(n, D\), got a ndarray"),
    ("too few rows", lambda x: x.flatten(1)[:1], r"^encoder: expected embeddings of shape \(2, D\), got .*\(1, 12\)"),
    ("no dimension", lambda x: x.flatten(1)[:, :0], r"^encoder: expected embeddings of shape \(2, D\), got .*\(2, 0\)"),
    ("scalar", lambda x: x.sum(), r"^encoder: expected embeddings of shape \(2, D\)"),
]


@pytest.mark.parametrize(("encoder", "match"), [b[1:] for b in BAD_ENCODERS], ids=[b[0] for b in BAD_ENCODERS])
def test_bad_encoders_are_refused(encoder: Callable[[Tensor], Any], match: str) -> None:
    with pytest.raises(EncoderError, match=match):
        explain(encoder=encoder)


def second_call(bad: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """An encoder that is well only on the first call, the reference's."""
    calls = []

    def encoder(x: Tensor) -> Any:
        calls.append(len(x))
        return ENCODER(x) if len(calls) == 1 else bad(x)

    return encoder


BAD_LATER: list[tuple[str, Callable[[Tensor], Any], str]] = [
    (
        "nan",
        lambda x: ENCODER(x) * float("nan"),
        "^encoder: expected finite embeddings of masked inputs, got NaN or infinite ones",
    ),
    ("infinite", lambda x: ENCODER(x) / 0, "^encoder: expected finite embeddings of masked inputs"),
    ("rows", lambda x: ENCODER(x)[:-1], r"^encoder: expected embeddings of shape \(\d+, 4\), got"),
    ("3-D", lambda x: x[:, 0], r"^encoder: expected embeddings of shape \(\d+, 4\)"),
    ("tuple", lambda x: (ENCODER(x),), r"^encoder: expected embeddings of shape \(\d+, 4\), got a tuple"),
]


@pytest.mark.parametrize(("bad", "match"), [b[1:] for b in BAD_LATER], ids=[b[0] for b in BAD_LATER])
def test_encoders_that_fail_on_masked_copies_are_refused(bad: Callable[[Tensor], Any], match: str) -> None:
    with pytest.raises(EncoderError, match=match):
        explain(encoder=second_call(bad))


def test_one_bad_row_among_many_is_noticed() -> None:
    def encoder(x: Tensor) -> Tensor:
        h = ENCODER(x).clone()
        h[(x[:, 0, 0, 0] == 0), 0] = float("nan")
        return h

    masks = torch.ones(200, 1, 4, 3)
    masks[137, 0, 0, 0] = 0
    with pytest.raises(EncoderError, match="masked inputs"):
        explain(encoder=encoder, masks=Given(masks), n_samples=200)
    masks[137] = 1
    explain(encoder=encoder, masks=Given(masks), n_samples=200)


def test_masked_embeddings_of_zeros_have_similarity_zero() -> None:
    x = rand(*SHAPE).abs() + 1
    masks = torch.stack([torch.zeros(1, 4, 3), torch.ones(1, 4, 3)])
    relax = rq.RELAX(lambda z: z.flatten(1), masks=Given(masks))
    torch.testing.assert_close(
        relax.similarities(x, n_samples=2), torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    )


def test_zero_references_are_fine_without_the_cosine() -> None:
    def negative_distance(h: Tensor, masked: Tensor) -> Tensor:
        return -(masked - h).norm(dim=-1)

    assert bool(torch.isfinite(explain(torch.zeros(4), similarity=negative_distance)).all())


def test_one_dimensional_outputs_count_as_one_dimension() -> None:
    x = rand(*SHAPE)
    flat = explain(encoder=lambda z: z.flatten(1).sum(1))
    assert torch.equal(flat, explain(encoder=lambda z: z.flatten(1).sum(1, keepdim=True)))
    assert flat.shape == x.shape


def test_integer_embeddings_are_compared_as_floats() -> None:
    result = explain(encoder=lambda z: (10 * z.flatten(1)).long() + 1)
    assert bool(torch.isfinite(result).all())
    assert cosine(torch.ones(1, 2), torch.ones(1, 1, 2)).item() == pytest.approx(1)
