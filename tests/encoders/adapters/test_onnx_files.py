"""ONNX files by ONNX Runtime, against the same network in torch."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from tiny_networks import CLASSES, RATE, SAMPLES, WIDTH, onnx_bytes, tiny, waves, written

import relax_quantus as rq
from relax_quantus.base.networks import fingerprint
from relax_quantus.encoders.adapters import load_file
from relax_quantus.encoders.adapters.inspection import inspect
from relax_quantus.errors import (
    ArgumentError,
    ArgumentTypeError,
    EncoderError,
    RelaxQuantusError,
    UnknownNameError,
    WeightsError,
)

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path / "tiny.onnx", onnx_bytes())


def test_outputs_are_those_of_torch(path: Path) -> None:
    net = load_file(path, rate=RATE, output="pooled", logits=0)
    embedding, logits = tiny()(waves(5))
    found = net.outputs(waves(5))
    torch.testing.assert_close(found["embedding"], embedding)
    torch.testing.assert_close(found["logits"], logits)
    torch.testing.assert_close(net(waves(5)), embedding)
    assert (net.sample_rate_hz, net.example_samples, net.fixed_batch, net.input) == (RATE, SAMPLES, None, "waveform")


def test_one_output_is_the_embedding_and_with_its_labels_the_class_scores(path: Path) -> None:
    assert load_file(path, rate=RATE).output_names == ("embedding",)
    net = load_file(path, rate=RATE, labels=("a", "b", "c"))
    assert (net.output_names, net.labels) == (("logits",), ("a", "b", "c"))
    with pytest.warns(UserWarning, match=r"tiny\.onnx gives class scores alone"):
        torch.testing.assert_close(net(waves(2)), tiny()(waves(2))[1])


def test_a_file_is_loaded_by_its_name_and_unknown_settings_list_the_nearest(path: Path) -> None:
    net = rq.load_encoder(str(path), rate=RATE, output="pooled")
    torch.testing.assert_close(net(waves(2)), tiny()(waves(2))[0])
    with pytest.raises(ArgumentTypeError, match=r"outptu: expected a setting of .*; did you mean 'output'"):
        rq.load_encoder(str(path), rate=RATE, outptu="pooled")


def test_a_fixed_batch_is_filled_and_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "four.onnx", onnx_bytes(rows=4))
    net = load_file(path, rate=RATE, output="pooled")
    assert net.fixed_batch == 4
    for n in (1, 4, 6):
        torch.testing.assert_close(net(waves(n)), tiny()(waves(n))[0])
    with pytest.raises(ArgumentError, match="rows: expected 4"):
        load_file(path, rate=RATE, rows=3)


def test_metadata_is_read(tmp_path: Path) -> None:
    content = onnx_bytes(metadata={"sample_rate": "16000", "labels": '["dog", "cat", "bird"]'})
    net = load_file(written(tmp_path / "said.onnx", content), output="pooled")
    assert (net.sample_rate_hz, net.labels) == (RATE, ("dog", "cat", "bird"))
    assert net.output_names == ("embedding", "logits")
    with pytest.raises(ArgumentError, match="rate: expected 16000"):
        load_file(tmp_path / "said.onnx", rate=48_000)


def test_labels_of_a_file(path: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("dog\ncat\n\nbird\n")
    assert load_file(path, rate=RATE, labels=labels).labels == ("dog", "cat", "bird")
    labels.write_text("dog\n")
    with pytest.raises(ArgumentError, match="one output of 1 classes"):
        load_file(path, rate=RATE, labels=labels)


def test_copies_and_pickles_run(path: Path) -> None:
    net = load_file(path, rate=RATE, output="pooled")
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(other(waves(2)), net(waves(2)))
        assert other.fingerprint() == net.fingerprint()


def test_fingerprints_follow_the_file_and_the_output(path: Path, tmp_path: Path) -> None:
    net = load_file(path, rate=RATE, output="pooled")
    other = load_file(written(tmp_path / "other.onnx", onnx_bytes(metadata={"a": "b"})), rate=RATE, output="pooled")
    prints = [fingerprint(n) for n in (net, other, load_file(path, rate=RATE), load_file(path, rate=8_000))]
    assert len(set(prints)) == 4
    assert fingerprint(load_file(path, rate=RATE, output=4)) == net.fingerprint() != ""


REFUSED = {
    "no rate": ({}, ArgumentError, "pass rate="),
    "another window": ({"rate": RATE, "window": 3}, ArgumentError, "window: expected 0.1 s (1600 samples)"),
    "no such output": ({"rate": RATE, "output": "poled"}, UnknownNameError, "did you mean 'pooled'"),
    "no such index": ({"rate": RATE, "output": 99}, UnknownNameError, "its outputs are 0 'scores'"),
    "frames": ({"rate": RATE, "output": "sums"}, EncoderError, "pool=mean or pool=max"),
    "no such pool": ({"rate": RATE, "pool": "sum"}, ArgumentError, "'mean' or 'max'"),
    "a runtime": ({"rate": RATE, "runtime": "torch"}, ArgumentError, "no choice but for TFLite"),
    "another digest": ({"rate": RATE, "sha256": "0" * 64}, WeightsError, "SHA-256"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_line(path: Path, case: str) -> None:
    settings, error, words = REFUSED[case]
    with pytest.raises(error) as caught:
        load_file(path, **settings)(waves(1))  # type: ignore[arg-type]
    assert isinstance(caught.value, RelaxQuantusError)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_frames_are_pooled_if_asked_for(path: Path) -> None:
    # the axis of frames is the last one in this file, so pooling is over the filters
    net = load_file(path, rate=RATE, output="rectified", pool="max")
    x = tiny().convolution(waves(2)[:, None]).relu()
    torch.testing.assert_close(net(waves(2)), x.amax(1))


def test_more_than_one_input_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "state.onnx", onnx_bytes(second_input="state"))
    with pytest.raises(
        EncoderError, match=r"one input, a waveform, .* got 2: waveform .*; state \(1\) tensor\(int64\)"
    ):
        load_file(path, rate=RATE)
    assert "not to be loaded as it is" in str(inspect(path))


@pytest.mark.parametrize("cut", [0, 40, 1000])
def test_a_damaged_file_is_one_line(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "cut.onnx", onnx_bytes()[:cut])
    with pytest.raises(WeightsError) as caught:
        load_file(path, rate=RATE)
    assert "\n" not in str(caught.value)
    assert "cut.onnx: expected an ONNX file" in str(caught.value)


def test_inspection_lists_what_could_be_an_embedding(path: Path) -> None:
    found = inspect(path)
    assert [str(note) for note in found.inputs] == [f"waveform (n, {SAMPLES}) float32"]
    assert [str(note) for note in found.outputs] == [f"scores (n, {CLASSES}) float32"]
    assert [note.name for note in found.candidates] == ["pooled"]
    assert found.candidates[0].shape == (None, WIDTH)
    text = str(found)
    assert "pooled (n, 4) float32" in text
    assert text.endswith(f"load it: --encoder {path}:output=4,rate=HZ")
    assert load_file(path, rate=RATE, output=4).chosen["embedding"].name == "pooled"


def test_a_name_that_says_nothing_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "net.bin", b"abc")
    for call in (load_file, inspect):
        with pytest.raises(WeightsError, match=r"a network in a file \.onnx, \.tflite"):
            call(path)
    with pytest.raises(WeightsError, match="no such file"):
        load_file(tmp_path / "none.onnx")
