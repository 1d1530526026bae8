"""RELAX in Captum's own tools: NoiseTunnel, sensitivity, infidelity and pictures."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import pytest
import torch
from captum.attr import NoiseTunnel, visualization
from captum.metrics import infidelity, sensitivity_max
from reference.models import rand
from small_relax import ENCODER, EXACT, X, relax
from torch import Tensor

import relax_quantus as rq

# -- NoiseTunnel, sensitivity, infidelity ----------------------------------------------------------


@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel(nt_type: str) -> None:
    """Equals RELAX on the noisy copies that the tunnel draws, averaged by hand."""
    tunnel = NoiseTunnel(relax())
    torch.manual_seed(3)
    found = tunnel.attribute(X, nt_type=nt_type, nt_samples=4, stdevs=0.1, n_samples=25)
    torch.manual_seed(3)
    noise = torch.normal(0, torch.tensor(0.1).repeat(12, 1, 4, 3))
    noisy = X.repeat_interleave(4, dim=0) + noise
    maps = relax().attribute(noisy, n_samples=25).reshape(3, 4, 1, 4, 3)
    expected = {
        "smoothgrad": maps.mean(1),
        "smoothgrad_sq": maps.square().mean(1),
        "vargrad": maps.square().mean(1) - maps.mean(1).square(),
    }[nt_type]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert found.shape == X.shape


def test_noise_tunnel_takes_tuples_partial_batches_and_arguments() -> None:
    shift = rand(3, 1, 4, 3, seed=4)
    tunnel = NoiseTunnel(rq.RELAX(lambda x, s: ENCODER(x + s)))
    found = tunnel.attribute(
        (X,),
        nt_samples=3,
        nt_samples_batch_size=2,
        stdevs=0.0,
        additional_forward_args=shift,
        n_samples=15,
        baselines=0.5,
    )
    assert isinstance(found, tuple)
    expected = rq.RELAX(lambda x, s: ENCODER(x + s)).attribute(
        X, baselines=0.5, additional_forward_args=shift, n_samples=15
    )
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)


def test_sensitivity_at_radius_zero_is_zero() -> None:
    values = sensitivity_max(relax().attribute, X, perturb_radius=0.0, n_perturb_samples=3, n_samples=25)
    assert float(values.max()) < 1e-14  # matrix products of another batch size round differently
    unseeded = sensitivity_max(relax().attribute, X, perturb_radius=0.0, n_perturb_samples=3, n_samples=25, seed=None)
    assert float(unseeded.min()) > 1e-4


def test_sensitivity_at_a_small_radius_is_small_and_positive() -> None:
    torch.manual_seed(0)
    values = sensitivity_max(
        relax().attribute, X.float().double(), perturb_radius=0.02, n_perturb_samples=5, n_samples=60
    )
    assert bool(torch.isfinite(values).all())
    assert bool(((values > 0) & (values < 0.5)).all())


def deterministic(x: Tensor) -> tuple[Tensor, Tensor]:
    """A perturbation of each row that depends on the row alone,
    as Captum's metrics want it: (perturbation, perturbed input).
    """
    perturbation = 0.3 * torch.sin(5 * x)
    return perturbation, x - perturbation


@pytest.mark.parametrize("samples", [1, 4])
def test_infidelity_of_a_batch_equals_that_of_its_examples(samples: int) -> None:
    forward = rq.SimilarityForward(ENCODER)
    reference = ENCODER(X).detach()
    maps = relax().explain(X, n_samples=60).centred()
    whole = infidelity(forward, deterministic, X, maps, additional_forward_args=reference, n_perturb_samples=samples)
    for i in range(3):
        row = slice(i, i + 1)
        alone = infidelity(
            forward, deterministic, X[row], maps[row], additional_forward_args=reference[row], n_perturb_samples=samples
        )
        torch.testing.assert_close(whole[row], alone, **EXACT)
        perturbation, perturbed = deterministic(X[row])
        change = forward(X[row], reference[row]) - forward(perturbed, reference[row])
        by_hand = ((maps[row] * perturbation).sum() - change).square()
        torch.testing.assert_close(alone, by_hand.detach(), rtol=0, atol=1e-12)
    assert float(whole.min()) > 0


# -- visualization ---------------------------------------------------------------------------------


@pytest.fixture
def _no_window() -> Iterator[None]:
    backend = mpl.get_backend()
    mpl.use("Agg")
    yield
    mpl.use(backend)


@pytest.mark.usefixtures("_no_window")
@pytest.mark.parametrize(
    ("method", "sign"),
    [
        ("heat_map", "all"),
        ("heat_map", "positive"),
        ("blended_heat_map", "absolute_value"),
        ("masked_image", "positive"),
    ],
)
def test_captums_pictures_take_the_map(method: str, sign: str) -> None:
    e = relax().explain(X, n_samples=50)
    for values in (e.centred(), e.importance):
        picture = values[0].permute(1, 2, 0).numpy()
        original = X[0].permute(1, 2, 0).numpy()
        figure, _ = visualization.visualize_image_attr(picture, original, method=method, sign=sign, use_pyplot=False)
        assert figure.axes
