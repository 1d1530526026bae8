"""Networks that hear on the command line and in Python: rate and window are read, not guessed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import FEW, call, problems, refused
from tiny_networks import CLASSES, RATE, SAMPLES, WIDTH, onnx_bytes, tiny, tiny_tflite_bytes, waves, written

import relax_quantus as rq
from relax_quantus.encoders import loading
from relax_quantus.errors import ArgumentError, UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLE = f"waveform:seconds=0.1,sample_rate={RATE}"
SOURCE = """
import torch
from tiny_networks import tiny

def network():
    net = Embeds()
    net.sample_rate_hz, net.example_samples, net.fixed_batch = 16_000, 1_600, 4
    return net

class Embeds(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tiny = tiny()

    def forward(self, x):
        assert x.shape == (4, 1_600), "the batch is fixed"
        return self.tiny(x)[0]

class Called:
    sample_rate_hz, example_samples = 16_000, 1_600

    def __call__(self, x):
        return tiny()(x)[0]

def called():
    return Called()

def of_any_length():
    net = torch.nn.Sequential(torch.nn.Unflatten(1, (1, -1)), torch.nn.AdaptiveMaxPool1d(4), torch.nn.Flatten())
    net.sample_rate_hz, net.example_samples = 8_000, None
    return net
"""
KINDS = ("onnx", "onnx of a fixed batch", "tflite", "tflite of a fixed batch", "torch")


def network(kind: str, folder: Path) -> str:
    """Write a tiny network and return how ``--encoder`` names it."""
    rows = 4 if "fixed" in kind else None
    if kind.startswith("onnx"):
        pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
        return f"{written(folder / 'tiny.onnx', onnx_bytes(rows=rows))}:rate={RATE},output=pooled"
    if kind.startswith("tflite"):
        pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
        return f"{written(folder / 'tiny.tflite', tiny_tflite_bytes(rows=rows))}:rate={RATE},output=7"
    path = folder / "mine_that_hears.py"
    path.write_text(SOURCE)
    return f"{path}:network"


@pytest.mark.parametrize("kind", KINDS)
def test_fit_then_explain_with_the_head(kind: str, classes: Path, tmp_path: Path) -> None:
    encoder, head = network(kind, tmp_path), tmp_path / "head.safetensors"
    fitted = call("fit", classes, "--encoder", encoder, "--out", head)
    assert (fitted.exit_code, fitted.stderr) == (0, "")
    clip = classes / "low" / "0.wav"
    result = call("explain", clip, "--encoder", encoder, "--head", head, "--out", tmp_path / "out", *FEW)
    assert (result.exit_code, problems(result)) == (0, "")
    arrays = np.load(tmp_path / "out" / "0.npz")
    settings = json.loads(str(arrays["settings"]))
    assert (settings["front_end"], settings["sample_rate_hz"]) == (EXAMPLE, RATE)
    assert settings["class_names"] == ["high", "low"]
    assert arrays["probabilities"].argmax(1).mean() > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_in_python_a_text_is_as_on_the_command_line(kind: str, classes: Path, tmp_path: Path) -> None:
    encoder = network(kind, tmp_path)
    front_end, net = loading.load(encoder, argument=loading.ARGUMENT)
    assert (front_end.text, front_end.rate_hz, front_end.example_samples) == (EXAMPLE, RATE, SAMPLES)
    x = waves(3)
    np.testing.assert_allclose(net(x).numpy(), tiny()(x)[0].numpy(), atol=1e-6)
    found = rq.explain_recording(classes / "low" / "0.wav", encoder, "time", n_samples=6)
    assert found.session.front_end.text == EXAMPLE
    fit = rq.fit_recordings(classes, encoder)
    assert fit.classifier.made_with["front_end"] == EXAMPLE


def test_modules_and_callables_that_say_their_rate_need_no_front_end(classes: Path, tmp_path: Path) -> None:
    path = network("torch", tmp_path).removesuffix(":network")
    assert loading.load(f"{path}:called")[0].text == EXAMPLE
    front_end, net = loading.load(f"{path}:of_any_length")
    assert (front_end.rate_hz, front_end.text) == (8_000, "waveform:seconds=0.96,sample_rate=8000")
    assert net(waves(2, 999)).shape == (2, WIDTH)
    module = tiny()
    module.sample_rate_hz, module.example_samples = RATE, SAMPLES  # type: ignore[assignment]
    module.output_names = ("embedding", "logits")  # type: ignore[assignment]
    found = rq.explain_recording(classes / "low" / "0.wav", module, "time", n_samples=6)
    assert found.session.front_end.text == EXAMPLE
    assert found.session.encoder.logits(waves(2)).shape == (2, CLASSES)
    assert rq.fit_recordings(classes, module).classifier.made_with["front_end"] == EXAMPLE


def test_another_front_end_than_the_network_says_is_refused(classes: Path, tmp_path: Path) -> None:
    encoder, clip = network("torch", tmp_path), classes / "low" / "0.wav"
    for other in ("log_mel", "waveform", "waveform:seconds=0.1,sample_rate=8000"):
        result = call("explain", clip, "--encoder", encoder, "--front-end", other, "--out", tmp_path / "out", *FEW)
        refused(result, "--front-end: expected " + EXAMPLE, other, "leave it out", code=2)
    with pytest.raises(ArgumentError, match=f"expected {EXAMPLE}"):
        rq.explain_recording(clip, loading.load(encoder)[1], "time", n_samples=6, front_end="waveform")
    assert loading.load(encoder, front_end=EXAMPLE)[0].text == EXAMPLE


def test_files_and_their_settings_are_refused_in_one_line(tmp_path: Path) -> None:
    encoder = network("onnx", tmp_path).partition(":")[0]
    with pytest.raises(ArgumentError, match=r"the file does not say it: pass rate="):
        loading.load(encoder)
    with pytest.raises(ArgumentError, match=r"--weights: expected none with .*tiny\.onnx, which holds them"):
        loading.load(f"{encoder}:rate={RATE}", Path("w.safetensors"))
    with pytest.raises(UnknownNameError, match="did you mean 'birdnet'"):
        loading.load("birdnett", argument=loading.ARGUMENT)
    with pytest.raises(ArgumentError, match="takes waveforms; name another"):
        loading.resolve(f"{encoder}:rate={RATE}")


def test_inspect_says_what_a_file_holds_and_how_to_load_it(tmp_path: Path) -> None:
    encoder = network("onnx", tmp_path).partition(":")[0]
    result = call("inspect", encoder)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"{encoder}: ONNX"
    assert "waveform (n, 1600) float32" in lines[2]
    assert lines[-1].startswith(f"load it: --encoder {encoder}:output=")
    assert call("inspect", encoder, "--quiet").stdout == ""
    (found,) = map(json.loads, call("inspect", encoder, "--json").stdout.splitlines())
    assert (found["type"], found["path"], found["kind"]) == ("network", encoder, "ONNX")
    assert found["inputs"] == [{"name": "waveform", "index": 0, "shape": [None, SAMPLES], "dtype": "float32"}]
    assert "pooled" in [note["name"] for note in found["candidates"]]
    assert found["operations"]["Gemm"] == 1


def test_inspect_refuses_what_is_no_network(tmp_path: Path) -> None:
    refused(call("inspect", tmp_path / "none.onnx"), "none.onnx", code=1)
    refused(call("inspect", written(tmp_path / "notes.txt", b"a")), "expected a network in a file", code=1)
