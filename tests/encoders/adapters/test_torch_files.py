"""TorchScript and torch.export files: what they give, and what is refused before torch reads it."""

import copy
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_networks import CLASSES, RATE, SAMPLES, Tiny, tiny, waves
from torch import Tensor, nn

from relax_quantus.encoders.adapters import load_file
from relax_quantus.encoders.adapters.inspection import inspect
from relax_quantus.errors import ArgumentError, EncoderError, WeightsError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SETTINGS: dict[str, Any] = {"rate": RATE, "window": 0.1, "output": 0, "logits": 1}


class Scripted(Tiny):
    """Says what the contract asks for."""

    sample_rate_hz: int
    example_samples: int
    labels: list[str]
    output_names: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate_hz, self.example_samples = RATE, SAMPLES
        self.labels, self.output_names = ["dog", "cat", "bird"], ["embedding", "logits"]


def saved(path: Path, kind: str) -> Path:
    """Save the tiny network; "fixed" as an export of exactly two rows."""
    if kind == "script":
        net = Scripted()
        net.load_state_dict(tiny().state_dict())
        torch.jit.script(net.eval()).save(str(path))
    elif kind == "trace":
        torch.jit.trace(tiny(), waves(2)).save(str(path))
    else:
        free = None if kind == "fixed" else ({0: torch.export.Dim("n")},)
        torch.export.save(torch.export.export(tiny(), (waves(2),), dynamic_shapes=free), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    for kind, suffix in (("script", "pt"), ("trace", "pt"), ("export", "pt2"), ("fixed", "pt")):
        saved(folder / f"{kind}.{suffix}", kind)
    return folder


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("script.pt", {}),
        ("trace.pt", SETTINGS),
        ("export.pt2", {**SETTINGS, "window": None}),
        ("fixed.pt", {**SETTINGS, "window": None}),
    ],
)
def test_outputs_are_those_of_the_network(files: Path, name: str, settings: dict[str, Any]) -> None:
    net = load_file(files / name, **settings)
    assert (net.sample_rate_hz, net.example_samples) == (RATE, SAMPLES)
    assert net.fixed_batch == (2 if name == "fixed.pt" else None)
    for x in (waves(5), waves(1)):
        embedding, logits = tiny()(x)
        found = net.outputs(x)
        torch.testing.assert_close(found["embedding"], embedding)
        torch.testing.assert_close(found["logits"], logits)
    x = waves(2).requires_grad_()
    net(x).sum().backward()
    assert bool(x.grad.any())  # type: ignore[union-attr]
    other = copy.deepcopy(net)
    assert other.fingerprint() == net.fingerprint() != ""
    torch.testing.assert_close(other(waves(2)), net(waves(2)))
    assert not net.eval().training


def test_what_a_scripted_module_says_is_read(files: Path) -> None:
    net = load_file(files / "script.pt")
    assert (net.labels, net.output_names) == (("dog", "cat", "bird"), ("embedding", "logits"))
    text = str(inspect(files / "script.pt"))
    assert "TorchScript" in text
    assert "sample_rate_hz: 16000" in text
    assert "rate=HZ" not in text
    assert f"x (n, {SAMPLES}) float32" in str(inspect(files / "export.pt2"))
    assert "window=SECONDS" in str(inspect(files / "trace.pt"))


def test_dicts_are_read_by_their_keys(tmp_path: Path) -> None:
    class Named(Tiny):
        def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            embedding, scores = super().forward(x)
            return {"embedding": embedding, "scores": scores}

    path = tmp_path / "named.pt2"
    torch.export.save(
        torch.export.export(Named().eval(), (waves(2),), dynamic_shapes=({0: torch.export.Dim("n")},)), path
    )
    net = load_file(path, rate=RATE, logits="scores")
    assert {k: v.shape[1] for k, v in net.outputs(waves(2)).items()} == {"embedding": 4, "logits": CLASSES}


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({}, ArgumentError, "pass window="),
        ({"window": 0.1}, ArgumentError, "pass rate="),
        ({"rate": RATE, "window": 0.1}, ArgumentError, "one output in"),
        ({"rate": RATE, "window": 0.001}, EncoderError, "pass its own window="),
    ],
)
def test_what_a_traced_module_does_not_say_is_asked_for(
    files: Path, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        load_file(files / "trace.pt", **settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_with_a_state_is_refused_by_name(tmp_path: Path) -> None:
    class State(nn.Module):
        def forward(self, x: Tensor, state: Tensor, rate: int) -> Tensor:
            return x + state * rate

    path = tmp_path / "state.pt"
    torch.jit.script(State()).save(str(path))
    with pytest.raises(EncoderError, match=r"got 3: x .*; state .*; rate \(shape not said\)"):
        load_file(path, rate=RATE, window=0.1)


def test_a_state_dict_and_a_pickle_are_no_networks(tmp_path: Path) -> None:
    torch.save(tiny().state_dict(), tmp_path / "state.pt")
    torch.save(tiny(), tmp_path / "module.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps([1, 2]))
    for name in ("state", "module", "pickle"):
        with pytest.raises(WeightsError, match=r"expected a network saved by torch\.jit\.save or torch\.export\.save"):
            load_file(tmp_path / f"{name}.pt", rate=RATE, window=0.1)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def rewritten(source: Path, path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Copy an archive, each entry changed, or left out where that gives None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            content = change(entry.filename.partition("/")[2], old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return path


def tampered(kind: str, mark: Path) -> Callable[[str, bytes], bytes | None]:
    def change(name: str, content: bytes) -> bytes | None:
        if name == "data/sample_inputs/model.pt" and kind == "pickle":
            torch.save(Bomb(mark), made := io.BytesIO())
            return made.getvalue()
        if name == "models/model.json" and kind == "expression":
            evil = f"__import__('pathlib').Path('{mark}').touch()"
            return content.replace(b"Symbol('s", f"{evil} or Symbol('s".encode(), 1)
        if name == "models/model.json" and kind == "operator":
            return content.replace(b"torch.ops.aten.relu.default", b"torch.ops.load_library", 1)
        if name == "models/model.json" and kind == "guards":
            return json.dumps({**json.loads(content), "guards_code": ["print(1)"]}).encode()
        if name.endswith("weights_config.json") and kind == "weights":
            return content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        return content

    return change


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pickle", "a pickle of more than tensors"),
        ("expression", "an expression that is no size"),
        ("operator", "an operator that is not torch's, torch.ops.load_library"),
        ("guards", "checks in Python"),
        ("weights", "weights in a pickle"),
    ],
)
def test_an_export_that_would_run_code_is_refused_before_it_is_read(
    files: Path, tmp_path: Path, kind: str, words: str
) -> None:
    mark = tmp_path / "mark"
    path = rewritten(files / "export.pt2", tmp_path / "evil.pt2", tampered(kind, mark))
    for call in (lambda: load_file(path, rate=RATE, output=0), lambda: inspect(path)):
        with pytest.raises(WeightsError) as caught:
            call()
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not mark.exists()
    load_file(rewritten(files / "export.pt2", tmp_path / "same.pt2", lambda _, content: content), rate=RATE, output=0)


def test_scripts_that_write_files_and_archives_that_swell_are_refused(files: Path, tmp_path: Path) -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.save(x, "x.pt")
            return x

    def writes(name: str, content: bytes) -> bytes:
        return content.replace(b"def forward", b"# torch.save(\n  def forward") if name.endswith(".py") else content

    with pytest.raises(WeightsError, match="code that reads or writes files"):
        load_file(rewritten(files / "trace.pt", tmp_path / "w.pt", writes), **SETTINGS)
    with zipfile.ZipFile(tmp_path / "big.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/constants.pkl", bytes(2**27))
    with pytest.raises(WeightsError, match="unpacks to far more than its size"):
        load_file(tmp_path / "big.pt", **SETTINGS)


@pytest.mark.parametrize("name", ["script.pt", "export.pt2"])
def test_a_damaged_file_is_one_line(files: Path, tmp_path: Path, name: str) -> None:
    content = (files / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError) as caught:
        load_file(tmp_path / name, **SETTINGS)
    assert "\n" not in str(caught.value)
    path = rewritten(files / name, tmp_path / f"thin_{name}", lambda n, c: None if n.endswith(("_0", "/0")) else c)
    with pytest.raises(WeightsError, match="one that torch refuses"):
        load_file(path, **SETTINGS)
