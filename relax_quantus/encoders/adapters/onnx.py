"""ONNX files by ONNX Runtime (extra ``onnx``): a path enters, a network that hears leaves.

A tensor inside of the graph is made an output by adding its name to the file's own list, a few
bytes of protobuf, so the package ``onnx`` is not needed. There are no gradients;
`relax_quantus.RELAX` needs none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.checks import one_line, shown
from relax_quantus.encoders.adapters.file_network import (
    FileNetwork,
    FileSettings,
    TensorNote,
    choose_outputs,
    open_file,
    read_labels,
    refuse_other_than_one_float,
)
from relax_quantus.errors import MissingDependencyError, WeightsError

LARGEST_BYTES = 2**31 - 1
"""Size of a protobuf file at most; larger networks keep their weights beside it."""
RATES = ("sample_rate_hz", "sample_rate", "sampling_rate")
"""Keys of a file's metadata that say its sample rate."""
NO_ONNX = "an ONNX file"
_GRAPH, _NODE, _OUTPUT, _NODE_OUTPUT, _NODE_KIND, _VALUE_NAME = 7, 1, 12, 2, 4, 1
"""Numbers of fields in onnx.proto: of ModelProto, GraphProto, NodeProto and ValueInfoProto."""
_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}


def onnxruntime() -> ModuleType:
    """Import ONNX Runtime.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import onnxruntime as runtime
    except ImportError as error:
        remedy = "run pip install 'relax-quantus[onnx]'"
        text = checks.message("an ONNX file", "ONNX Runtime", "no such package", remedy)
        raise MissingDependencyError(text) from error
    return runtime  # type: ignore[no-any-return]


@dataclass(frozen=True)
class OnnxDescription:
    """Hold what an ONNX file says of itself; `inner`: tensors of floats inside, as computed."""

    taken: tuple[TensorNote, ...]
    given: tuple[TensorNote, ...]
    inner: tuple[TensorNote, ...]
    kinds: Mapping[str, str]
    metadata: Mapping[str, str]


class OnnxNetwork(FileNetwork):
    """A network that ONNX Runtime runs on the CPU; made by `load_onnx`.

    Copies share the session, which any number of threads may use; a pickle holds the path and opens
    the file again.
    """

    def _open(self, content: bytes | None = None) -> None:
        wanted = [tensor.name for tensor in self.chosen.values()]
        if content is None:
            content = read_bytes(open_file(self.path, self.digest)[0])
        self._session = _session(self.path, content, wanted)
        self._input = self._session.get_inputs()[0].name

    def tensors(self, x: Tensor, wanted: Sequence[TensorNote]) -> list[Tensor]:
        """Run the session once; gradients end here."""
        values = np.ascontiguousarray(x.detach().cpu().numpy(), np.float32)
        found = self._session.run([tensor.name for tensor in wanted], {self._input: values})
        return [torch.from_numpy(np.asarray(part)).to(x.device) for part in found]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._open()

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNetwork:
        made = type(self).__new__(type(self))
        vars(made).update(
            {key: value.copy() if isinstance(value, dict) else value for key, value in vars(self).items()}
        )
        return made


def load_onnx(path: Path, settings: FileSettings, sha256: str | None = None) -> OnnxNetwork:
    """Load an ONNX file.

    Parameters
    ----------
    path
        The file. What it says in its metadata (``sample_rate_hz``, ``labels`` as JSON) is read.
    settings
        What it does not say; ``output`` may be any tensor inside of it.
    sha256
        Its SHA-256.

    Raises
    ------
    MissingDependencyError
        If ONNX Runtime is not installed.
    WeightsError
        If the file is missing, damaged, or another one.
    RelaxQuantusError
        If it wants more than one tensor of floats, or settings are missing or do not fit.
    """
    path, digest = open_file(path, sha256)
    content = read_bytes(path)
    said = describe(path, content, look_inside=not (settings.output is None and settings.logits is None))
    taken = refuse_other_than_one_float(path, said.taken)
    facts = _facts(said.metadata)
    labels = read_labels(settings.labels) or tuple(facts.get("labels", ()))
    chosen = choose_outputs(path, said.given, said.inner, settings, labels)
    network = OnnxNetwork(path, taken, chosen, settings, {**facts, "labels": labels}, digest)
    network._open(content)
    return network


def read_bytes(path: Path) -> bytes:
    """Read an ONNX file, refusing what is too large to be one."""
    size = path.stat().st_size
    if not 0 < size <= LARGEST_BYTES:
        checks.refuse(shown(path), NO_ONNX, f"{size} bytes", "keep large weights as external data", WeightsError)
    return path.read_bytes()


def describe(path: Path, content: bytes, look_inside: bool = True) -> OnnxDescription:
    """Read what goes in, comes out and, if wanted, lies between; ONNX Runtime infers the shapes."""
    kinds = node_outputs(path, content)
    session = _session(path, content, [])
    outputs = [note.name for note in session.get_outputs()]
    taken = tuple(_note(i, note) for i, note in enumerate(session.get_inputs()))
    given = tuple(_note(i, note) for i, note in enumerate(session.get_outputs()))
    between = [name for name in kinds if name and name not in outputs and look_inside]
    whole = _session(path, content, between) if between else session
    known = {note.name: note for note in whole.get_outputs()}
    inner = [_note(len(given) + i, known[name]) for i, name in enumerate(between) if name in known]
    floats = tuple(note for note in inner if note.dtype == "float32")
    return OnnxDescription(taken, given, floats, kinds, dict(session.get_modelmeta().custom_metadata_map))


def _session(path: Path, content: bytes, outputs: Sequence[str]) -> Any:
    """Open a session that gives `outputs` beside the file's own."""
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent.resolve()))
    try:
        changed = with_outputs(content, outputs)
        return runtime.InferenceSession(changed, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has a family of its own
        got = one_line(f"one that ONNX Runtime refuses ({type(error).__name__}: {error})")
        text = checks.message(shown(path), NO_ONNX, got[:400], "export it again")
        raise WeightsError(text) from error


def _note(index: int, value: Any) -> TensorNote:
    shape = tuple(axis if isinstance(axis, int) else None for axis in value.shape or ())
    return TensorNote(value.name, index, shape, _DTYPES.get(value.type, value.type))


def _facts(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read the facts of the contract that a file's metadata holds."""
    facts: dict[str, Any] = {}
    for key in RATES:
        if metadata.get(key, "").isdecimal():
            facts.setdefault("sample_rate_hz", int(metadata[key]))
    try:
        labels = json.loads(metadata.get("labels", "[]"))
    except ValueError:
        labels = []
    if isinstance(labels, list) and labels:
        facts["labels"] = tuple(map(str, labels))
    return facts


def node_outputs(path: Path, content: bytes) -> dict[str, str]:
    """List the tensors that the graph's nodes compute, in order, with the kind of node."""
    found: dict[str, str] = {}
    try:
        for _, _, start, stop in _fields(content, 0, len(content), _GRAPH):
            for _, _, first, last in _fields(content, start, stop, _NODE):
                kind = [content[a:b].decode() for _, _, a, b in _fields(content, first, last, _NODE_KIND)]
                for _, _, a, b in _fields(content, first, last, _NODE_OUTPUT):
                    found[content[a:b].decode()] = kind[0] if kind else ""
    except (IndexError, ValueError) as error:
        text = checks.message(shown(path), NO_ONNX, f"a damaged one ({error})", "fetch it again")
        raise WeightsError(text) from error
    return found


def with_outputs(content: bytes, names: Sequence[str]) -> bytes:
    """Return a file whose graph gives the tensors `names`, too; the runtime infers their types."""
    outputs = {
        content[a:b].decode()
        for _, _, start, stop in _fields(content, 0, len(content), _GRAPH)
        for _, _, first, last in _fields(content, start, stop, _OUTPUT)
        for _, _, a, b in _fields(content, first, last, _VALUE_NAME)
    }
    added = b"".join(_field(_OUTPUT, _field(_VALUE_NAME, n.encode())) for n in dict.fromkeys(names) if n not in outputs)
    if not added:
        return content
    # protobuf merges a message that comes twice, so the addition can stand at the end
    return content + _field(_GRAPH, added)


def _field(number: int, value: bytes) -> bytes:
    """Write a field of bytes: its key, its length and itself."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def _fields(content: bytes, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int, int, int]]:
    """Walk a message from `start` to `stop`: number, kind, begin and end of each field `wanted`."""
    at = start
    while at < stop:
        key, at = _read_varint(content, at)
        number, kind = key >> 3, key & 7
        if kind == 2:
            size, at = _read_varint(content, at)
        elif kind == 0:
            _, end = _read_varint(content, at)
            size = end - at
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field of kind {kind}")
        if at + size > stop:
            raise ValueError("a field leaves the file")
        if number == wanted and kind == 2:
            yield number, kind, at, at + size
        at += size


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
