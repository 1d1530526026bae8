"""Read what a network's file says of itself: inputs, outputs, what could be an embedding.

A path enters, an `Inspection` leaves; its text is what ``relax-quantus inspect FILE`` prints.
Nothing needs to be known about the network, and a network that cannot be loaded is described all
the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relax_quantus.base.checks import printable, shown
from relax_quantus.encoders.adapters import SUFFIXES, onnx, refuse_suffix, tflite, torchscript
from relax_quantus.encoders.adapters.file_network import TensorNote, open_file
from relax_quantus.encoders.adapters.flatbuffer import Graph, read_bytes, read_graph

MOST_CANDIDATES = 8
_DENSE = ("FULLY_CONNECTED", "BATCH_MATMUL", "Gemm", "MatMul")
_SQUASHING = ("LOGISTIC", "SOFTMAX", "LOG_SOFTMAX", "Sigmoid", "Softmax", "LogSoftmax")


@dataclass(frozen=True)
class Inspection:
    """Describe what a file holds.

    Attributes
    ----------
    path, kind
        The file, and what it is.
    inputs, outputs
        Tensors that the network takes and gives.
    candidates
        Tensors inside of it of one row an example, ``(n, D)``, the nearest to the last dense layer
        first.
    squashed
        Outputs that a sigmoid or softmax makes, by name, with the tensor in front of it: the class
        scores.
    metadata
        What else the file says.
    operations
        How often each kind of operation stands in the graph.
    """

    path: Path
    kind: str
    inputs: tuple[TensorNote, ...]
    outputs: tuple[TensorNote, ...]
    candidates: tuple[TensorNote, ...] = ()
    squashed: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    operations: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Write it for people, with a command that loads the first candidate."""
        lines = [f"{shown(self.path)}: {self.kind}"]
        sections = (("inputs", self.inputs), ("outputs", self.outputs), ("could be an embedding", self.candidates))
        for title, notes in sections:
            lines += [f"{title}:", *(f"  {note.index:>5}  {note}" for note in notes)] if notes else []
        for name, scores in self.squashed.items():
            lines.append(f"class scores: {printable(name)} is squashed; use logits={printable(scores)}, before that")
        lines += [f"{printable(key)}: {printable(value)[:200]}" for key, value in self.metadata.items()]
        if self.operations:
            ordered = sorted(self.operations.items(), key=lambda item: (-item[1], item[0]))
            lines.append("operations: " + ", ".join(f"{n} {printable(name)}" for name, n in ordered))
        lines.append(self._how_to_load())
        return "\n".join(lines)

    def _how_to_load(self) -> str:
        """Write the option that loads it, or why it cannot be loaded."""
        if len(self.inputs) != 1 or self.inputs[0].dtype != "float32":
            return "not to be loaded as it is: an encoder takes one input of float32"
        shape = self.inputs[0].shape
        settings = [f"output={self.candidates[0].index}"] if self.candidates else []
        settings += [] if any("rate" in key for key in self.metadata) else ["rate=HZ"]
        settings += ["window=SECONDS"] if shape is None and "example_samples" not in self.metadata else []
        option = f"--encoder {shown(self.path)}" + (f":{','.join(settings)}" if settings else "")
        is_waveform = shape is None or len(shape) < 3 or (len(shape) == 3 and 1 in shape[1:])
        return f"load it: {option}" + ("" if is_waveform else " --front-end FILE.py:NAME, which makes its input")


def inspect(path: str | Path) -> Inspection:
    """Read what a file of a network holds, without loading it as an encoder.

    Raises
    ------
    WeightsError
        If the file is missing, damaged or of a kind that is not known.
    MissingDependencyError
        If the runtime that reads it is not installed.
    """
    found, _ = open_file(path, None)
    match SUFFIXES.get(found.suffix.lower()):
        case "onnx":
            return _of_onnx(found)
        case "tflite":
            return _of_tflite(found)
        case "torch":
            return _of_torch(found)
    refuse_suffix(found)


def _of_onnx(path: Path) -> Inspection:
    said = onnx.describe(path, onnx.read_bytes(path))
    counts = _counts(list(said.kinds.values()))
    names = [note.name for note in said.inner]
    squashed = {note.name: names[-1] for note in said.given if said.kinds.get(note.name) in _SQUASHING and names}
    dense = [name for name, kind in said.kinds.items() if kind in _DENSE]
    before = said.inner
    if dense and dense[-1] in names:
        before = said.inner[: names.index(dense[-1])]
    candidates = _rows(before, said.taken)
    return Inspection(path, "ONNX", said.taken, said.given, candidates, squashed, said.metadata, counts)


def _of_tflite(path: Path) -> Inspection:
    graph = read_graph(path, read_bytes(path))
    made = {i: k for k, operation in enumerate(graph.operations) for i in operation.outputs}
    squashed = {}
    for index in graph.outputs:
        operation = graph.operations[made[index]] if index in made else None
        if operation is not None and operation.name in _SQUASHING:
            squashed[graph.tensors[index].name] = str(operation.inputs[0])
    metadata = {"description": graph.description} if graph.description else {}
    if graph.metadata:
        metadata["metadata"] = ", ".join(graph.metadata)
    taken = tuple(tflite.note(graph, index) for index in graph.inputs)
    return Inspection(
        path,
        "TFLite",
        taken,
        tuple(tflite.note(graph, index) for index in graph.outputs),
        _rows(_before_last_dense(graph), taken),
        squashed,
        metadata,
        _counts([operation.name for operation in graph.operations]),
    )


def _before_last_dense(graph: Graph) -> list[TensorNote]:
    """Tensors that are computed before the last dense layer, its input the last of them."""
    dense = [k for k, operation in enumerate(graph.operations) if operation.name in _DENSE]
    before = graph.operations[: dense[-1]] if dense else graph.operations
    return [tflite.note(graph, i) for operation in before for i in operation.outputs if i not in graph.outputs]


def _of_torch(path: Path) -> Inspection:
    module, taken = torchscript.read_module(path)
    said = {}
    for key in ("sample_rate_hz", "example_samples", "fixed_batch", "output_names", "labels"):
        value = getattr(module, key, None)
        if value is not None and not callable(value):
            said[key] = str(value) if key != "labels" else f"{len(value)} of them"
    returned = getattr(getattr(module, "forward", None), "schema", None)
    if returned is not None:
        said["returns"] = ", ".join(str(value.type) for value in returned.returns)
    return Inspection(path, "TorchScript" if returned is not None else "torch.export", taken, (), metadata=said)


def _rows(notes: Sequence[TensorNote], taken: Sequence[TensorNote]) -> tuple[TensorNote, ...]:
    """Return tensors of floats ``(n, D)`` but for reshaped inputs, the last first."""
    inputs = [_long_axes(note) for note in taken]
    fitting = []
    for note in reversed(notes):
        long = _long_axes(note)
        is_row = len(note.shape or ()) > 1 and len(long) == 1 and long[0] is not None
        if note.dtype == "float32" and is_row and long not in inputs:
            fitting.append(note)
    return tuple(fitting[:MOST_CANDIDATES])


def _long_axes(note: TensorNote) -> list[int | None]:
    """Return the axes behind the first that are not of length 1."""
    return [axis for axis in (note.shape or ())[1:] if axis != 1]


def _counts(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in dict.fromkeys(names)}
