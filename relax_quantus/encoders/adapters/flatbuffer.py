"""TFLite files as data: a flatbuffer enters, a `Graph` of tensors, constants and operations leaves.

Used by both ways of running such a file and by its inspection. Nothing is run here. Every offset
that leaves the file, every constant whose bytes are not those of its shape and every index out of
range is refused before a runtime in C++ sees the file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from relax_quantus.base import checks
from relax_quantus.base.checks import one_line, shown
from relax_quantus.errors import MissingDependencyError, WeightsError

IDENTIFIER = b"TFL3"
LARGEST_BYTES = 2**31 - 1
"""Size of a flatbuffer at most, as its offsets have 32 bits."""
NO_TFLITE = "a TFLite file"
DTYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    5: "string",
    6: "bool",
    7: "int16",
    8: "complex64",
    9: "int8",
    10: "float64",
    11: "complex128",
    12: "uint64",
    13: "resource",
    14: "variant",
    15: "uint32",
    16: "uint16",
    17: "int4",
    18: "bfloat16",
}
"""Types of tensors by the number that the file has for them."""
_SUBGRAPH_OUTPUTS = 8
"""Place of a subgraph's outputs in its table."""


@dataclass(frozen=True)
class FlatTensor:
    """A tensor of the graph.

    Attributes
    ----------
    shape
        None where an axis is free.
    constant
        Its values in the file, read-only, or None for a tensor that is computed or put in.
    """

    index: int
    name: str
    shape: tuple[int | None, ...]
    dtype: str
    constant: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Operation:
    """A step of the graph: its kind, indices of tensors (-1: left out) and the schema's options."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True)
class Graph:
    """A file's first subgraph, in the order of running."""

    tensors: tuple[FlatTensor, ...]
    operations: tuple[Operation, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    description: str
    metadata: tuple[str, ...]


def schema() -> ModuleType:
    """Import the schema of TFLite files that comes with LiteRT.

    Raises
    ------
    MissingDependencyError
        If LiteRT is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        text = checks.message("a TFLite file", "LiteRT", "no such package", "run pip install 'relax-quantus[litert]'")
        raise MissingDependencyError(text) from error
    return schema_py_generated  # type: ignore[no-any-return]


def read_bytes(path: Path) -> bytes:
    """Read a TFLite file, refusing what cannot be one by its size or its first bytes."""
    size = path.stat().st_size
    if not 8 < size <= LARGEST_BYTES:
        checks.refuse(shown(path), NO_TFLITE, f"{size} bytes", "pass another file", WeightsError)
    content = path.read_bytes()
    if content[4:8] != IDENTIFIER:
        got = f"a file that begins with {content[:8]!r}"
        checks.refuse(shown(path), NO_TFLITE, got, "convert it with ai-edge-torch or TensorFlow", WeightsError)
    return content


def read_graph(path: Path, content: bytes) -> Graph:
    """Read the graph of a file's `content`; `path` is for messages.

    Raises
    ------
    WeightsError
        If the file is damaged.
    """
    flat = schema()
    try:
        graph = _graph(flat, content)
    except WeightsError:
        raise
    except Exception as error:  # an offset out of the file can raise anything
        got = one_line(f"a damaged one ({type(error).__name__}: {error})")
        raise WeightsError(checks.message(shown(path), NO_TFLITE, got, "fetch it again")) from error
    fault = _fault(graph)
    if fault:
        checks.refuse(shown(path), NO_TFLITE, f"a damaged one: {fault}", "fetch it again", WeightsError)
    return graph


def _graph(flat: ModuleType, content: bytes) -> Graph:
    model = flat.Model.GetRootAs(content, 0)
    names = {value: name for name, value in vars(flat.BuiltinOperator).items() if isinstance(value, int)}
    codes = []
    for i in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = names.get(number, f"number {number}")
        codes.append(f"custom {code.CustomCode().decode()}" if name == "CUSTOM" else name)
    if model.SubgraphsLength() == 0:
        raise ValueError("no graph")
    table = model.Subgraphs(0)
    subgraph = flat.SubGraphT.InitFromObj(table)
    operations = tuple(
        Operation(codes[o.opcodeIndex], _integers(o.inputs), _integers(o.outputs), o.builtinOptions)
        for o in subgraph.operators or ()
    )
    made = {i for operation in operations for i in operation.outputs}
    inputs = _integers(subgraph.inputs)
    tensors = []
    for i, t in enumerate(subgraph.tensors or ()):
        size = _integers(t.shape)
        signature = _integers(t.shapeSignature) or size
        shape = tuple(None if axis < 0 else axis for axis in signature)
        dtype = DTYPES.get(t.type, f"type {t.type}")
        is_computed = i in made or i in inputs
        constant = None if is_computed else _constant(model, t.buffer, size, dtype)
        tensors.append(FlatTensor(i, (t.name or b"").decode("utf-8", "replace"), shape, dtype, constant))
    description = (model.Description() or b"").decode("utf-8", "replace")
    noted = tuple((model.Metadata(i).Name() or b"").decode("utf-8", "replace") for i in range(model.MetadataLength()))
    return Graph(tuple(tensors), operations, inputs, _integers(subgraph.outputs), description, noted)


def _constant(model: Any, buffer: int, size: tuple[int, ...], dtype: str) -> npt.NDArray[Any] | None:
    """Values of a tensor that no operation makes; None for one that holds a state."""
    place = model.Buffers(buffer) if 0 <= buffer < model.BuffersLength() else None
    if place is None:
        raise ValueError(f"no buffer {buffer}")
    kept = place.DataAsNumpy() if place.DataLength() else np.zeros(0, np.uint8)
    if place.Offset() > 1:
        raise ValueError("weights outside of the flatbuffer")
    if dtype not in NUMPY_DTYPES:
        return np.asarray(kept)
    wanted = math.prod(size) * np.dtype(NUMPY_DTYPES[dtype]).itemsize
    if kept.size == 0 and wanted:
        return None
    if kept.size != wanted:
        raise ValueError(f"a constant of {kept.size} bytes where its shape {size} has {wanted}")
    return np.frombuffer(kept.tobytes(), NUMPY_DTYPES[dtype]).reshape(size)


NUMPY_DTYPES = {name: name for name in DTYPES.values() if name in np.sctypeDict and name != "string"} | {"bool": "bool"}


def _fault(graph: Graph) -> str:
    """Say which index is out of range, or ""."""
    n = len(graph.tensors)
    used = [i for operation in graph.operations for i in (*operation.inputs, *operation.outputs)]
    for i in (*used, *graph.inputs, *graph.outputs):
        if not -1 <= i < n:
            return f"tensor {i} of {n}"
    if not graph.inputs or not graph.outputs or -1 in (*graph.inputs, *graph.outputs):
        return "no inputs or no outputs"
    return ""


def _integers(values: Any) -> tuple[int, ...]:
    return () if values is None else tuple(int(value) for value in values)


def with_outputs(content: bytes, outputs: Sequence[int]) -> bytes:
    """Return a file whose graph gives the tensors `outputs`, so that a delegate keeps them.

    The list of outputs is written behind the end of the file and the graph's reference is pointed
    there, so that weights are neither read nor moved.
    """
    table = schema().Model.GetRootAs(content, 0).Subgraphs(0)._tab
    place = table.Pos + table.Offset(_SUBGRAPH_OUTPUTS)
    changed = bytearray(content)
    changed += bytes(-len(changed) % 4)
    struct.pack_into("<I", changed, place, len(changed) - place)
    changed += struct.pack(f"<{1 + len(outputs)}i", len(outputs), *outputs)
    return bytes(changed)
