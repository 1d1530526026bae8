"""TFLite files by LiteRT and by torch, against the same network in torch."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_networks import CLASSES, RATE, SAMPLES, WIDTH, tflite_bytes, tiny, tiny_tflite_bytes, waves, written

from relax_quantus.encoders.adapters import load_file
from relax_quantus.encoders.adapters import tflite as tflite_files
from relax_quantus.encoders.adapters.inspection import inspect
from relax_quantus.errors import ArgumentError, EncoderError, UnknownNameError, WeightsError

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
RUNTIMES = ("litert", "torch")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path / "tiny.tflite", tiny_tflite_bytes())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_are_those_of_torch(path: Path, runtime: str) -> None:
    net = load_file(path, rate=RATE, output="pooled", logits=10, runtime=runtime)
    embedding, logits = tiny()(waves(5))
    found = net.outputs(waves(5))
    torch.testing.assert_close(found["embedding"], embedding)
    torch.testing.assert_close(found["logits"], logits)
    torch.testing.assert_close(net(waves(3)), embedding[:3], msg="another number of rows")
    assert (net.sample_rate_hz, net.example_samples, net.fixed_batch) == (RATE, SAMPLES, None)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_fixed_batch_is_filled_and_cut(tmp_path: Path, runtime: str) -> None:
    net = load_file(written(tmp_path / "two.tflite", tiny_tflite_bytes(rows=2)), rate=RATE, output=7, runtime=runtime)
    assert net.fixed_batch == 2
    torch.testing.assert_close(net(waves(5)), tiny()(waves(5))[0])


def test_an_inner_tensor_is_read_by_its_index(path: Path) -> None:
    net = load_file(path, rate=RATE, output=7, labels=("a", "b", "c"))
    assert (net.output_names, net.chosen["embedding"].name) == (("embedding", "logits"), "pooled")
    with pytest.raises(UnknownNameError, match="its outputs are 10 'scores'"):
        load_file(path, rate=RATE, output=8)  # a weight is no output


def test_torch_gives_gradients(path: Path) -> None:
    net = load_file(path, rate=RATE, output=7, runtime="torch")
    x, y = waves(2).requires_grad_(), waves(2).requires_grad_()
    net(x).square().sum().backward()
    tiny()(y)[0].square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_callers_defaults_change_nothing(path: Path, runtime: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            net = load_file(path, rate=RATE, output=7, runtime=runtime)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(net(waves(2)), tiny()(waves(2))[0])


def test_both_runtimes_have_one_fingerprint_until_weights_change(path: Path) -> None:
    litert, in_torch = (load_file(path, rate=RATE, output=7, runtime=runtime) for runtime in RUNTIMES)
    assert litert.fingerprint() == in_torch.fingerprint() != ""
    with torch.no_grad():
        next(in_torch.parameters()).add_(1.0)
    assert litert.fingerprint() != in_torch.fingerprint()
    assert copy.deepcopy(in_torch).fingerprint() == in_torch.fingerprint()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_copies_and_pickles_run(path: Path, runtime: str) -> None:
    net = load_file(path, rate=RATE, output=7, runtime=runtime)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(other(waves(2)), net(waves(2)))
        assert other.fingerprint() == net.fingerprint()


def test_where_litert_fails_torch_runs_it_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tflite_files.Interpreter.run

    def fail_inside(self: Any, x: Any, wanted: Any) -> Any:
        if 7 in wanted:
            raise EncoderError("Tensor data is null")
        return run(self, x, wanted)

    monkeypatch.setattr(tflite_files.Interpreter, "run", fail_inside)
    with pytest.warns(
        UserWarning, match=r"runs in torch, as LiteRT cannot .*null.*; outputs that LiteRT gives, too, differ by"
    ):
        net = load_file(path, rate=RATE, output=7)
    torch.testing.assert_close(net(waves(2)), tiny()(waves(2))[0])
    with pytest.raises(EncoderError, match="null"):
        load_file(path, rate=RATE, output=7, runtime="litert")


def test_a_disagreement_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tflite_files.Interpreter.run
    monkeypatch.setattr(tflite_files.Interpreter, "run", lambda *a: [part + 1 for part in run(*a)])
    with pytest.raises(EncoderError, match=r"torch and LiteRT to agree within 0\.002 on pooled"):
        load_file(path, rate=RATE, output=7, runtime="torch")


def test_operations_that_torch_does_not_know_are_named(tmp_path: Path) -> None:
    tensors = [("waveform", (-1, 8), "float32"), ("out", (-1, 8), "float32")]
    path = written(tmp_path / "odd.tflite", tflite_bytes(tensors, [("ATAN2", (0, 0), (1,), None)], (0,), (1,)))
    with pytest.raises(EncoderError, match=r"runtime: expected operations .* got ATAN2; run it with LiteRT"):
        load_file(path, rate=8, runtime="torch")


def test_a_quantised_network_is_refused_by_name(tmp_path: Path) -> None:
    tensors = [("waveform", (-1, 8), "int8"), ("out", (-1, 8), "int8")]
    path = written(tmp_path / "q.tflite", tflite_bytes(tensors, [("ABS", (0,), (1,), None)], (0,), (1,)))
    with pytest.raises(EncoderError, match=r"an input of float32 .* got waveform \(n, 8\) int8"):
        load_file(path, rate=8)


def test_a_spectrogram_needs_its_front_end_named(tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    mean = schema.ReducerOptionsT()
    axes = np.arange(1, 4, dtype=np.int32)
    tensors = [("mel", (-1, 5, 4, 1), "float32"), ("out", (-1,), "float32"), ("axes", (3,), axes)]
    path = written(tmp_path / "mel.tflite", tflite_bytes(tensors, [("MEAN", (0, 2), (1,), mean)], (0,), (1,)))
    with pytest.raises(ArgumentError, match=r"the front end that makes it, got mel \(n, 5, 4, 1\) float32 alone"):
        load_file(path, rate=8)
    net = load_file(path, rate=8, front_end="mine.py:mel")
    assert net.input == "mine.py:mel"
    x = torch.rand(3, 1, 5, 4)
    torch.testing.assert_close(net(x)[:, 0], x.mean((1, 2, 3)))
    with pytest.raises(ArgumentError, match=r"examples of \(n, 5, 4, 1\)"):
        net(torch.rand(3, 1, 4, 5))


def test_a_waveform_without_a_batch_axis_is_run_row_by_row(tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    mean = schema.ReducerOptionsT()
    mean.keepDims = True
    tensors = [("waveform", (8,), "float32"), ("axes", (1,), np.zeros(1, np.int32)), ("out", (1,), "float32")]
    path = written(tmp_path / "flat.tflite", tflite_bytes(tensors, [("MEAN", (0, 1), (2,), mean)], (0,), (2,)))
    net = load_file(path, rate=8)
    x = torch.rand(3, 8)
    torch.testing.assert_close(net(x), x.mean(1, keepdim=True))


def test_a_graph_that_does_not_fit_its_input_is_one_line(tmp_path: Path) -> None:
    tensors = [("x", (-1, 8), "float32"), ("to", (2,), np.array([-1, 7], np.int32)), ("y", (-1, 7), "float32")]
    path = written(tmp_path / "odd.tflite", tflite_bytes(tensors, [("RESHAPE", (0, 1), (2,), None)], (0,), (2,)))
    for runtime in ("torch", None):
        with pytest.raises(EncoderError, match=r"to run in torch on an input of \(1, 8\), got RuntimeError: shape"):
            load_file(path, rate=8, runtime=runtime)


@pytest.mark.parametrize("damage", ["cut", "bytes", "constant", "index", "empty"])
def test_a_damaged_file_is_one_line(path: Path, damage: str) -> None:
    content = path.read_bytes()
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "bytes":
        content = b"abcdabcdabcd"
    elif damage == "constant":
        tensors = [("x", (-1, 2), "float32"), ("w", (4,), np.zeros(2, np.float32)), ("y", (-1, 2), "float32")]
        content = tflite_bytes(tensors, [("ADD", (0, 1), (2,), None)], (0,), (2,))
    elif damage == "index":
        content = tflite_bytes([("x", (-1, 2), "float32")], [("ABS", (0,), (7,), None)], (0,), (0,))
    else:
        content = b""
    with pytest.raises(WeightsError) as caught:
        load_file(written(path, content), rate=RATE)
    assert "\n" not in str(caught.value)
    assert "tiny.tflite: expected a TFLite file" in str(caught.value)
    if damage == "constant":
        assert "a constant of 8 bytes where its shape (4,) has 16" in str(caught.value)


def test_inspection_lists_what_could_be_an_embedding(path: Path) -> None:
    found = inspect(path)
    assert [str(note) for note in found.outputs] == [f"scores (n, {CLASSES}) float32"]
    assert [(note.index, note.shape) for note in found.candidates] == [(7, (None, WIDTH))]
    assert found.metadata == {"description": "made by a test"}
    text = str(found)
    assert "operations: 1 CONV_2D, 1 FULLY_CONNECTED, 1 MEAN, 1 RESHAPE" in text
    assert text.endswith(f"load it: --encoder {path}:output=7,rate=HZ")


def test_class_scores_behind_a_sigmoid_are_pointed_out(tmp_path: Path) -> None:
    tensors = [("x", (-1, 2), "float32"), ("scores", (-1, 2), "float32"), ("chances", (-1, 2), "float32")]
    steps = [("ABS", (0,), (1,), None), ("LOGISTIC", (1,), (2,), None)]
    path = written(tmp_path / "s.tflite", tflite_bytes(tensors, steps, (0,), (2,)))
    assert "class scores: chances is squashed; use logits=1, before that" in str(inspect(path))
