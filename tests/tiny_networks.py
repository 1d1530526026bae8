"""A tiny network of waveforms in torch, and as ONNX and TFLite files that are written here.

``(n, 1600)`` at 16 kHz -> convolution, ReLU, mean over time -> an embedding of 4 -> a dense layer
-> 3 class scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

RATE, SAMPLES, KERNEL, STRIDE, WIDTH, CLASSES = 16_000, 1_600, 64, 32, 4, 3
FRAMES = (SAMPLES - KERNEL) // STRIDE + 1


class Tiny(nn.Module):
    """The reference: ``(n, 1600) -> (n, 4), (n, 3)``."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, WIDTH, KERNEL, STRIDE)
        self.dense = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.convolution(x[:, None]).relu().mean(-1)
        return embedding, self.dense(embedding)


def tiny() -> Tiny:
    """The reference with fixed weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny().eval().requires_grad_(False)


def waves(n: int, samples: int = SAMPLES) -> Tensor:
    return torch.randn(n, samples, generator=torch.Generator().manual_seed(1)) * 0.3


# --- ONNX: protobuf by hand, see onnx.proto for the numbers of fields


def _varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + _varint(value >> 7) if value > 127 else bytes([value])


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _value(name: str, axes: Sequence[int | str], kind: int = 1) -> bytes:
    dims = b"".join(field(1, field(1, axis) if isinstance(axis, int) else field(2, axis)) for axis in axes)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))


def _constant(name: str, values: Tensor) -> bytes:
    dims = b"".join(field(1, axis) for axis in values.shape)
    kind = field(2, 7 if values.dtype == torch.int64 else 1)
    return dims + kind + field(8, name) + field(9, values.contiguous().numpy().tobytes())


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> bytes:
    parts = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)
    for name, value in attributes.items():
        said = [field(3, value)] if isinstance(value, int) else [field(8, n) for n in value]
        kind_of_value = field(20, 2 if isinstance(value, int) else 7)
        parts += field(5, field(1, name) + b"".join(said) + kind_of_value)
    return parts


def onnx_bytes(rows: int | None = None, metadata: dict[str, str] | None = None, second_input: str = "") -> bytes:
    """The network as ONNX; "scores" is its output, "pooled" lies inside; `rows` fixes the batch."""
    net = tiny()
    batch = "n" if rows is None else rows
    nodes = [
        _node("Unsqueeze", ["waveform", "one"], "channel"),
        _node("Conv", ["channel", "kernel", "offset"], "sums", strides=[STRIDE], kernel_shape=[KERNEL]),
        _node("Relu", ["sums"], "rectified"),
        _node("ReduceMean", ["rectified"], "pooled", axes=[2], keepdims=0),
        _node("Gemm", ["pooled", "weight", "bias"], "scores", transB=1),
    ]
    constants = {
        "one": torch.tensor([1]),
        "kernel": net.convolution.weight,
        "offset": net.convolution.bias,
        "weight": net.dense.weight,
        "bias": net.dense.bias,
    }
    graph = b"".join(field(1, node) for node in nodes) + field(2, "tiny")
    graph += b"".join(field(5, _constant(name, value.detach())) for name, value in constants.items())
    graph += field(11, _value("waveform", [batch, SAMPLES]))
    if second_input:
        graph += field(11, _value(second_input, [1], 7))
    graph += field(12, _value("scores", [batch, CLASSES]))
    said = b"".join(field(14, field(1, key) + field(2, value)) for key, value in (metadata or {}).items())
    return field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph) + said


# --- TFLite: by the schema that comes with the runtime


def tflite_bytes(
    tensors: Sequence[tuple[str, Sequence[int], Any]],
    operations: Sequence[tuple[str, Sequence[int], Sequence[int], Any]],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> bytes:
    """Write a graph.

    Tensors are (name, shape with -1 where free, values or a type), operations (kind, inputs,
    outputs, options).
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kinds = {"float32": 0, "float16": 1, "int32": 2, "int64": 4, "bool": 6, "complex64": 8, "int8": 9}
    buffers, made = [schema.BufferT()], []
    for name, shape, values in tensors:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name, [max(axis, 1) for axis in shape]
        tensor.shapeSignature = list(shape) if -1 in shape else None
        tensor.quantization = schema.QuantizationParametersT()
        if isinstance(values, str):
            tensor.type, tensor.buffer = kinds[values], 0
        else:
            values = np.asarray(values)
            tensor.type, tensor.buffer = kinds[str(values.dtype)], len(buffers)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            buffers.append(buffer)
        made.append(tensor)
    codes: list[Any] = []
    steps = []
    for kind, given, back, options in operations:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = (
            min(code.builtinCode, 127),
            2 if kind in ("BATCH_MATMUL", "BROADCAST_TO") else 1,
        )
        codes.append(code)
        step = schema.OperatorT()
        step.opcodeIndex, step.inputs, step.outputs = len(codes) - 1, list(given), list(back)
        if options is not None:
            step.builtinOptions = options
            step.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        steps.append(step)
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = made, steps, list(inputs), list(outputs)
    graph.name = "main"
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, codes, [graph], buffers
    model.description = "made by a test"
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def tiny_tflite_bytes(rows: int | None = None, dtype: str = "float32") -> bytes:
    """The network as TFLite; "scores" is its output, "pooled" tensor 7; `rows` fixes the batch."""
    from ai_edge_litert import schema_py_generated as schema

    net = tiny()
    n = -1 if rows is None else rows
    convolution, mean, dense = schema.Conv2DOptionsT(), schema.ReducerOptionsT(), schema.FullyConnectedOptionsT()
    convolution.padding, convolution.strideH, convolution.strideW = 1, 1, STRIDE
    convolution.dilationHFactor = convolution.dilationWFactor = 1
    convolution.fusedActivationFunction = 1
    kernel = net.convolution.weight.permute(0, 2, 1).numpy()[:, None]  # (4, 1, 64, 1)
    tensors = [
        ("waveform", (n, SAMPLES), dtype),
        ("shape", (4,), np.array([-1, 1, SAMPLES, 1], np.int32)),
        ("image", (n, 1, SAMPLES, 1), dtype),
        ("kernel", kernel.shape, kernel),
        ("offset", (WIDTH,), net.convolution.bias.numpy()),
        ("rectified", (n, 1, FRAMES, WIDTH), dtype),
        ("axes", (2,), np.array([1, 2], np.int32)),
        ("pooled", (n, WIDTH), dtype),
        ("weight", (CLASSES, WIDTH), net.dense.weight.numpy()),
        ("bias", (CLASSES,), net.dense.bias.numpy()),
        ("scores", (n, CLASSES), dtype),
    ]
    operations = [
        ("RESHAPE", (0, 1), (2,), None),
        ("CONV_2D", (2, 3, 4), (5,), convolution),
        ("MEAN", (5, 6), (7,), mean),
        ("FULLY_CONNECTED", (7, 8, 9), (10,), dense),
    ]
    return tflite_bytes(tensors, operations, (0,), (10,))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
