"""Fills: what a masked entry becomes, and the forms that `baselines` takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference import slow_fills
from reference.models import Given, rand, relu_encoder
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.errors import ArgumentError, ArgumentTypeError, ShapeError, UnknownNameError
from relax_quantus.relax import fills

FILLS = list(fills.FILLS)


class Recorder(nn.Module):
    """An encoder that keeps every batch it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(x.clone())
        return x.flatten(1).double() + 100.0

    def copies(self) -> Tensor:
        """All masked copies, without the first batch, which is the reference's."""
        return torch.cat(self.batches[1:])


def masked_copies(x: Tensor, masks: Tensor, baselines: object, **keywords: object) -> Tensor:
    """What RELAX feeds the encoder: ``(N, B, ...)``, one mask after another."""
    encoder = Recorder()
    rq.RELAX(encoder, masks=Given(masks)).attribute(x, baselines=baselines, n_samples=len(masks), **keywords)
    return encoder.copies().reshape(len(masks), *x.shape)


@pytest.mark.parametrize("name", FILLS)
def test_level_equals_its_formula(name: str) -> None:
    x = rand(2, 1, 12, 7)
    level = fills.get(name).level(x).expand_as(x)
    for i in range(2):
        np.testing.assert_allclose(level[i, 0].numpy(), slow_fills.LEVELS[name](x[i, 0].numpy()), rtol=0, atol=1e-12)


def test_parameters_of_fills() -> None:
    x = rand(1, 1, 9, 5)
    np.testing.assert_allclose(
        fills.get("blur", sigma_frames=1.5, sigma_bands=0.7).level(x)[0, 0],
        slow_fills.blur(x[0, 0].numpy(), 1.5, 0.7),
        atol=1e-12,
    )
    median = fills.get("background", percentile=50).level(x)
    np.testing.assert_allclose(median[0, 0, 0], np.median(x[0, 0].numpy(), axis=0), atol=1e-12)


@pytest.mark.parametrize("name", FILLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_levels_exist_for_every_type(name: str, dtype: torch.dtype) -> None:
    x = (3 * rand(2, 1, 6, 4)).to(dtype)
    expected = fills.get(name).level(x.double()).expand_as(x)
    torch.testing.assert_close(fills.get(name).level(x).double().expand_as(x), expected, rtol=1e-6, atol=1e-6)


def test_the_default_is_zero_as_in_captum() -> None:
    x, masks = rand(2, 1, 4, 3), torch.zeros(3, 1, 4, 3)
    assert torch.equal(masked_copies(x, masks, None), torch.zeros(3, 2, 1, 4, 3, dtype=x.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [n for n in FILLS if n != "noise"])
def test_kept_entries_are_the_input_and_masked_ones_the_fill(name: str, dtype: torch.dtype) -> None:
    x = rand(2, 1, 6, 5, dtype=dtype)
    masks = (rand(4, 1, 6, 5, seed=1) > 0).double()
    level = fills.get(name).level(x).expand_as(x)
    expected = torch.where(masks[:, None] == 1, x, level)
    assert torch.equal(masked_copies(x, masks, name), expected)


def test_grey_masks_blend() -> None:
    x, masks = rand(2, 1, 4, 3), torch.rand(5, 1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    m = masks[:, None]
    torch.testing.assert_close(
        masked_copies(x, masks, "mean"), m * x + (1 - m) * x.mean((1, 2, 3), keepdim=True), rtol=0, atol=1e-14
    )


def test_noise_is_drawn_per_mask_with_the_stated_scale() -> None:
    """Standard deviation .5 (default) about the background, within
    1 % for 100 x 600 draws; no two masks alike; kept entries exact.
    """
    x = rand(2, 1, 30, 20)
    copies = masked_copies(x, torch.zeros(100, 1, 30, 20), "noise")
    noise = copies - fills.get("background").level(x)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.01)
    assert abs(float(noise.mean())) < 4.5 * 0.5 / math.sqrt(60_000)
    assert not torch.equal(noise[0], noise[1])
    torch.testing.assert_close(noise[:, 0], noise[:, 1], rtol=0, atol=1e-12)  # shared by the batch
    kept = masked_copies(x, torch.ones(3, 1, 30, 20), "noise")
    assert torch.equal(kept, x.expand(3, *x.shape))


def test_noise_is_gaussian_and_scales() -> None:
    draw = fills.get("noise", scale=2.0).draw(200, rand(1, 1, 10, 10), torch.Generator().manual_seed(0))
    assert draw.shape == (200, 1, 10, 10)
    assert float(draw.std()) == pytest.approx(2.0, rel=0.02)
    assert float((draw.abs() < 2.0).double().mean()) == pytest.approx(0.6827, abs=0.015)
    assert float((draw / 2).pow(4).mean()) == pytest.approx(3.0, abs=0.25)


@pytest.mark.parametrize("per_eval", [1, 3, 64, 1000, None])
def test_noise_does_not_depend_on_chunks_or_batch(per_eval: int | None) -> None:
    x, masks = rand(3, 1, 5, 4), torch.zeros(150, 1, 5, 4)
    whole = masked_copies(x, masks, "noise")
    assert torch.equal(masked_copies(x, masks, "noise", perturbations_per_eval=per_eval), whole)
    alone = masked_copies(x[1:2], masks, "noise", perturbations_per_eval=per_eval)
    assert torch.equal(alone[:, 0], whole[:, 1])


def test_noise_follows_the_seed() -> None:
    x, masks = rand(1, 1, 5, 4), torch.zeros(4, 1, 5, 4)
    same, other = masked_copies(x, masks, "noise", seed=7), masked_copies(x, masks, "noise", seed=8)
    assert torch.equal(masked_copies(x, masks, "noise", seed=7), same)
    assert not torch.equal(same, other)


class Normal(fills.Fill):
    """A user's fill whose draws do depend on how many
    are asked for at a time, as `torch.randn`'s do.
    """

    def level(self, x: Tensor) -> Tensor:
        return x.new_zeros(())

    def draw(self, n: int, x: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(n, *x.shape[1:], generator=generator, dtype=x.dtype)


@pytest.mark.parametrize("per_eval", [1, 3, 65, 1000])
def test_a_users_noise_does_not_depend_on_perturbations_per_eval(per_eval: int) -> None:
    x, masks = rand(2, 3), torch.zeros(150, 3)
    whole = masked_copies(x, masks, Normal())
    assert torch.equal(masked_copies(x, masks, Normal(), perturbations_per_eval=per_eval), whole)


@pytest.mark.parametrize(
    ("baselines", "level"),
    [
        (None, 0.0),
        (1.5, 1.5),
        (2, 2.0),
        (True, 1.0),
        (np.float32(0.25), 0.25),
        (torch.tensor(-1.0), -1.0),
        ("silence", math.log(0.01)),
        (fills.Silence(), math.log(0.01)),
        (lambda x: x.amax(dim=(1, 2, 3), keepdim=True), "amax"),
        ((3.0,), 3.0),
        (("zero",), 0.0),
    ],
)
def test_forms_of_baselines(baselines: object, level: object) -> None:
    x = rand(2, 1, 4, 3)
    expected = x.amax(dim=(1, 2, 3), keepdim=True) if level == "amax" else torch.tensor(level, dtype=torch.float64)
    torch.testing.assert_close(
        masked_copies(x, torch.zeros(2, 1, 4, 3), baselines), expected.expand(2, *x.shape), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("shape", [(2, 1, 4, 3), (1, 1, 4, 3), (4, 3), (3,), (1, 1, 1, 3), (4, 1)])
def test_tensors_as_baselines_broadcast(shape: tuple[int, ...]) -> None:
    x, level = rand(2, 1, 4, 3), rand(*shape, seed=1)
    assert torch.equal(masked_copies(x, torch.zeros(2, 1, 4, 3), level), level.expand(2, *x.shape))


def test_a_tuple_of_baselines_goes_to_the_tensors_in_order() -> None:
    a, b = rand(2, 3), rand(2, 1, 4, 3, seed=1)
    seen: list[tuple[Tensor, ...]] = []

    def encoder(x: Tensor, y: Tensor) -> Tensor:
        seen.append((x.clone(), y.clone()))
        return torch.cat([x, y.flatten(1)], 1) + 10.0

    rq.RELAX(encoder, masks=Given(torch.zeros(2, 3), torch.zeros(2, 1, 4, 3))).attribute(
        (a, b), baselines=(7.0, "band_mean"), n_samples=2
    )
    assert torch.equal(seen[1][0], torch.full((4, 3), 7.0, dtype=a.dtype))
    assert torch.equal(seen[1][1], b.mean(-2, keepdim=True).expand_as(b).repeat(2, 1, 1, 1))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_integer_inputs_keep_from_one_half_up(dtype: torch.dtype) -> None:
    x = torch.tensor([[1, 0, 1, 1]]).to(dtype)
    masks = torch.tensor([[1.0, 0.0, 0.5, 0.49]])
    assert masked_copies(x, masks, None).tolist() == [[[x[0, 0].item(), 0, x[0, 2].item(), 0]]]
    assert masked_copies(x, masks, 1)[0, 0].tolist() == [1, 1, 1, 1]
    assert masked_copies(x, masks, None).dtype == dtype


def explain(baselines: object, x: Tensor | None = None) -> None:
    x = rand(2, 1, 4, 3) if x is None else x
    rq.RELAX(relu_encoder(x[0].numel())).attribute(x, baselines=baselines, n_samples=2)


def test_bad_baselines_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"^baselines: .*got 'silense'; did you mean 'silence'"):
        explain("silense")
    with pytest.raises(
        ShapeError, match=r"^baselines: expected something broadcastable to \(2, 1, 4, 3\), got .*\(5, 5\)"
    ):
        explain(torch.zeros(5, 5))
    with pytest.raises(ArgumentTypeError, match=r"^baselines: expected a name .*, got dict"):
        explain({})
    with pytest.raises(ArgumentTypeError, match=r"^baselines: expected a name .*, got list"):
        explain([0.0])
    with pytest.raises(ArgumentTypeError, match=r"^baselines: expected a torch.Tensor"):
        explain(lambda x: 3.0)
    with pytest.raises(ArgumentError, match=r"^baselines: expected finite entries"):
        explain(float("nan"))
    with pytest.raises(ShapeError, match=r"^baselines: expected 1 entries, one a tensor of the inputs, got 2"):
        explain((0.0, 1.0))
    for name in ("background", "band_mean", "blur", "noise"):
        with pytest.raises(ShapeError, match=r"^baselines: expected an input \(B, ..., T, F\) for a fill over time"):
            explain(name, rand(2, 5))
    with pytest.raises(ShapeError, match=r"^baselines: expected a tuple of 2, one a tensor of the inputs"):
        rq.RELAX(lambda a, b: a + b).attribute((rand(2, 3), rand(2, 3)), baselines=torch.zeros(2, 3), n_samples=2)


def test_bad_parameters_are_refused() -> None:
    for value in (-1, 101, "10", float("nan"), True):
        for name in ("background", "noise"):
            with pytest.raises(ArgumentError, match=r"^percentile: expected a number from 0 to 100"):
                fills.get(name, percentile=value)
    for name, parameter in [("noise", "scale"), ("blur", "sigma_frames"), ("blur", "sigma_bands")]:
        with pytest.raises(ArgumentError, match=rf"^{parameter}: expected a finite number above 0"):
            fills.get(name, **{parameter: 0})
    with pytest.raises(ArgumentTypeError, match=r"^sigma: .*did you mean 'sigma_"):
        fills.get("blur", sigma=3)
    with pytest.raises(UnknownNameError, match=r"did you mean 'noise'"):
        fills.get("nose")


# -- silence that an input carries -----------------------------------------------------------------


class Carrying(Tensor):
    """A tensor that says what silence is for it, as a front end's examples do."""

    silence: float | Tensor


def carrying(x: Tensor, silence: float | Tensor) -> Carrying:
    marked = x.as_subclass(Carrying)
    marked.silence = silence
    return marked


def flat(x: Tensor) -> Tensor:
    assert type(x) is Tensor
    return x.flatten(1).sigmoid()


@pytest.mark.parametrize("silence", [-80.0, torch.tensor(-80.0), torch.full((3, 1, 1, 1), -80.0)])
@pytest.mark.parametrize("baselines", ["silence", fills.Silence()])
def test_silence_is_what_the_input_carries(baselines: object, silence: float | Tensor) -> None:
    """Decibels with a floor of -80: ln(0.01) would
    be loud there. The encoder gets plain tensors.
    """
    decibels = 8 * rand(3, 1, 6, 5) - 40
    x, relax = carrying(decibels, silence), rq.RELAX(flat, estimator="surrogate")
    found, expected = (relax.explain(z, b, n_samples=60) for z, b in ((x, baselines), (decibels, -80.0)))
    for values in (found.importance, found.standard_error, found.fully_masked_similarity):
        assert type(values) is Tensor
    assert torch.equal(found.importance, expected.importance)
    assert torch.equal(found.fully_masked_similarity, expected.fully_masked_similarity)
    assert torch.equal(relax.attribute(x, baselines, n_samples=60), expected.importance)
    given = relax.similarities(x, baselines, n_samples=60)
    assert torch.equal(relax.estimate(x, given, baselines=baselines).importance, expected.importance)
    assert torch.equal(relax.attribute(x, -80.0, n_samples=60), expected.importance)  # other baselines are as they were


def test_each_tensor_of_a_tuple_has_its_own_silence() -> None:
    x, y = (8 * rand(2, 1, 6, 5, seed=i) - 40 for i in (0, 1))
    relax = rq.RELAX(lambda a, b: flat(a) + flat(b))
    found = relax.attribute((carrying(x, -80.0), carrying(y, -90.0)), "silence", n_samples=60)
    expected = relax.attribute((x, y), (-80.0, -90.0), n_samples=60)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_silence_above_the_5th_percentile_of_a_plain_input_is_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    """Above 0 and in decibels alike; not where at most 5 % of
    the input is lower, nor where what is carried lies below.
    """
    decibels = 8 * rand(2, 1, 10, 10) - 40
    with pytest.warns(UserWarning, match=r"^baselines: expected silence at the bottom of the input, got more than 5 %"):
        rq.RELAX(flat).attribute(decibels, "silence", n_samples=60)
    quiet = torch.zeros(1, 1, 10, 10)
    quiet.view(-1)[:5] = -6.0
    recwarn.clear()
    rq.RELAX(flat).attribute(quiet, "silence", n_samples=60)
    rq.RELAX(flat).attribute(carrying(decibels, -80.0), "silence", n_samples=60)
    assert not recwarn.list
    quiet.view(-1)[5] = -6.0
    with pytest.warns(UserWarning, match="more than 5 %"):
        rq.RELAX(flat).attribute(quiet, "silence", n_samples=60)
