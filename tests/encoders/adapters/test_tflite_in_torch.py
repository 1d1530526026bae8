"""Each operation that torch runs in LiteRT's place, one graph each, against LiteRT itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_networks import tflite_bytes, written

from relax_quantus.encoders.adapters.flatbuffer import read_bytes, read_graph
from relax_quantus.encoders.adapters.tflite import Interpreter
from relax_quantus.encoders.adapters.tflite_in_torch import OPERATIONS, GraphModule

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="LiteRT is not installed")
GENERATOR = np.random.default_rng(0)
Constants = list[Any]


def options(kind: str, **values: Any) -> Any:
    made = getattr(schema, f"{kind}T")()
    for name, value in values.items():
        assert hasattr(made, name)
        setattr(made, name, value)
    return made


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def floats(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape).astype(np.float32)


def convolution(padding: int, stride: int = 1, dilation: int = 1, act: int = 0) -> Any:
    values = {"padding": padding, "strideH": stride, "strideW": stride, "fusedActivationFunction": act}
    return options("Conv2DOptions", **values, dilationHFactor=dilation, dilationWFactor=dilation)


def depthwise(padding: int, stride: int, multiplier: int) -> Any:
    values = {"padding": padding, "strideH": stride, "strideW": stride, "depthMultiplier": multiplier}
    return options("DepthwiseConv2DOptions", **values, dilationHFactor=1, dilationWFactor=1)


def pool(padding: int, size: int, stride: int) -> Any:
    values = {"padding": padding, "strideH": stride, "strideW": stride}
    return options("Pool2DOptions", **values, filterHeight=size, filterWidth=size)


def strided(**masks: int) -> Any:
    base = dict.fromkeys(("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask"), 0)
    return options("StridedSliceOptions", **{**base, **masks})


def keep(axes: bool) -> Any:
    return options("ReducerOptions", keepDims=axes)


X = (2, 5, 6, 3)
UNARY = (
    *(
        "ABS",
        "NEG",
        "EXP",
        "SQUARE",
        "SIN",
        "COS",
        "FLOOR",
        "CEIL",
        "ROUND",
        "LOGISTIC",
        "TANH",
        "RELU",
        "RELU6",
        "ELU",
    ),
    *("RELU_N1_TO_1", "HARD_SWISH", "LOG_SOFTMAX", "L2_NORMALIZATION"),
)
POSITIVE = ("LOG", "SQRT", "RSQRT")
BINARY = ("ADD", "SUB", "MUL", "DIV", "POW", "MAXIMUM", "MINIMUM", "FLOOR_DIV", "SQUARED_DIFFERENCE", "FLOOR_MOD")
OPTIONS = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}

# kind, shape of the input, constants behind it, options
CASES: dict[str, tuple[str, tuple[int, ...], Constants, Any]] = {
    **{name: (name, X, [], options("HardSwishOptions") if name == "HARD_SWISH" else None) for name in UNARY},
    **{name: (name, X, [], None) for name in POSITIVE},
    **{
        name: (name, X, [np.abs(floats(3)) + 0.5], options(OPTIONS[name]) if name in OPTIONS else None)
        for name in BINARY
    },
    "ADD and ReLU": ("ADD", X, [floats(1, 6, 1)], options("AddOptions", fusedActivationFunction=1)),
    "PRELU": ("PRELU", X, [floats(1, 1, 3)], None),
    "LEAKY_RELU": ("LEAKY_RELU", X, [], options("LeakyReluOptions", alpha=0.2)),
    "GELU": ("GELU", X, [], options("GeluOptions", approximate=False)),
    "GELU by tanh": ("GELU", X, [], options("GeluOptions", approximate=True)),
    "SOFTMAX": ("SOFTMAX", X, [], options("SoftmaxOptions", beta=0.7)),
    "CONV_2D same": ("CONV_2D", X, [floats(4, 3, 2, 3), floats(4)], convolution(0)),
    "CONV_2D same, stride 2": ("CONV_2D", X, [floats(4, 3, 3, 3), floats(4)], convolution(0, 2, 1, 3)),
    "CONV_2D valid": ("CONV_2D", X, [floats(4, 2, 3, 3), floats(4)], convolution(1, 2)),
    "CONV_2D dilated": ("CONV_2D", X, [floats(4, 2, 2, 3), floats(4)], convolution(0, 1, 2)),
    "DEPTHWISE_CONV_2D": ("DEPTHWISE_CONV_2D", X, [floats(1, 3, 3, 3), floats(3)], depthwise(0, 1, 1)),
    "DEPTHWISE_CONV_2D twice": ("DEPTHWISE_CONV_2D", X, [floats(1, 2, 3, 6), floats(6)], depthwise(0, 2, 2)),
    "MAX_POOL_2D": ("MAX_POOL_2D", X, [], pool(0, 3, 2)),
    "MAX_POOL_2D valid": ("MAX_POOL_2D", X, [], pool(1, 2, 2)),
    "AVERAGE_POOL_2D": ("AVERAGE_POOL_2D", X, [], pool(0, 3, 2)),
    "AVERAGE_POOL_2D valid": ("AVERAGE_POOL_2D", X, [], pool(1, 2, 1)),
    "FULLY_CONNECTED": ("FULLY_CONNECTED", (4, 6), [floats(5, 6), floats(5)], options("FullyConnectedOptions")),
    "FULLY_CONNECTED kept": (
        "FULLY_CONNECTED",
        (2, 3, 6),
        [floats(5, 6), floats(5)],
        options("FullyConnectedOptions", keepNumDims=True),
    ),
    "BATCH_MATMUL": ("BATCH_MATMUL", (2, 3, 6), [floats(2, 6, 5)], options("BatchMatMulOptions")),
    "BATCH_MATMUL turned": (
        "BATCH_MATMUL",
        (2, 3, 6),
        [floats(2, 5, 6)],
        options("BatchMatMulOptions", adjY=True),
    ),
    **{name: (name, X, [ints(1, 2)], keep(False)) for name in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")},
    "MEAN kept": ("MEAN", X, [ints(-1)], keep(True)),
    "REDUCE_PROD": ("REDUCE_PROD", X, [ints(1, -1)], keep(False)),
    "CUMSUM": ("CUMSUM", X, [np.array(1, np.int32)], options("CumsumOptions", exclusive=True, reverse=True)),
    "RESHAPE": ("RESHAPE", X, [ints(2, -1, 9)], None),
    "EXPAND_DIMS": ("EXPAND_DIMS", X, [ints(1)], None),
    "SQUEEZE": ("SQUEEZE", (2, 1, 5, 1), [], options("SqueezeOptions", squeezeDims=[1])),
    "TRANSPOSE": ("TRANSPOSE", X, [ints(0, 3, 1, 2)], None),
    "REVERSE_V2": ("REVERSE_V2", X, [ints(2)], None),
    "PACK": ("PACK", (2, 3), [floats(2, 3)], options("PackOptions", axis=1, valuesCount=2)),
    "CONCATENATION": ("CONCATENATION", X, [floats(2, 5, 6, 2)], options("ConcatenationOptions", axis=-1)),
    "TILE": ("TILE", (2, 3), [ints(2, 2)], None),
    "BROADCAST_TO": ("BROADCAST_TO", (2, 1, 3), [ints(2, 4, 3)], None),
    "GATHER": ("GATHER", X, [ints(3, 0, 0)], options("GatherOptions", axis=2)),
    "SLICE": ("SLICE", X, [ints(0, 1, 2, 0), ints(2, 2, -1, 3)], None),
    "STRIDED_SLICE": ("STRIDED_SLICE", X, [ints(0, 1, 1, 0), ints(2, 4, 6, 3), ints(1, 1, 2, 1)], strided()),
    "STRIDED_SLICE by masks": (
        "STRIDED_SLICE",
        X,
        [ints(0, 9, 1, 0), ints(0, 9, 2, 9), ints(1, -1, 1, 1)],
        strided(beginMask=0b0011, endMask=0b1011, shrinkAxisMask=0b0100),
    ),
    "PAD": ("PAD", X, [np.array([[0, 0], [1, 2], [0, 3], [0, 0]], np.int32)], None),
    "PADV2": ("PADV2", X, [np.array([[0, 0], [1, 2], [0, 0], [0, 0]], np.int32), np.array(2, np.float32)], None),
    "MIRROR_PAD": (
        "MIRROR_PAD",
        X,
        [np.array([[0, 0], [2, 1], [3, 0], [0, 0]], np.int32)],
        options("MirrorPadOptions", mode=0),
    ),
    "MIRROR_PAD twice": (
        "MIRROR_PAD",
        X,
        [np.array([[0, 0], [2, 1], [3, 0], [0, 0]], np.int32)],
        options("MirrorPadOptions", mode=1),
    ),
}


RESULTS = {"BROADCAST_TO": (2, 4, 3), "SLICE": (2, 2, 4, 3), "RESHAPE": (1, 1, 1)}
"""Shapes of results that LiteRT wants to know beforehand."""


def both(path: Path, content: bytes, x: np.ndarray, outputs: list[int]) -> None:
    """Compare torch with LiteRT, values and shapes."""
    graph = read_graph(written(path, content), read_bytes(path))
    wanted = Interpreter(path, content, outputs).run(x, outputs)
    found = GraphModule(graph, path)(torch.from_numpy(x), outputs)
    for have, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(have.numpy(), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_torch_does_as_litert(tmp_path: Path, case: str) -> None:
    kind, shape, constants, said = CASES[case]
    x = floats(*shape)
    x = np.abs(x) + 0.1 if kind in (*POSITIVE, "POW") else x
    tensors = [("x", shape, "float32"), *((f"c{i}", c.shape, c) for i, c in enumerate(constants))]
    out = len(tensors)
    tensors.append(("y", RESULTS.get(kind, (1,) * len(shape)), "float32"))
    content = tflite_bytes(tensors, [(kind, range(out), (out,), said)], (0,), (out,))
    both(tmp_path / "one.tflite", content, x, [out])


def test_a_spectrogram_by_rfft(tmp_path: Path) -> None:
    tensors = [
        ("x", (2, 1, 16), "float32"),
        ("length", (2,), ints(1, 16)),
        ("spectrum", (2, 1, 9), "complex64"),
        ("power", (2, 1, 9), "float32"),
        ("real", (2, 1, 9), "float32"),
    ]
    steps = [
        ("RFFT2D", (0, 1), (2,), options("Rfft2dOptions")),
        ("COMPLEX_ABS", (2,), (3,), None),
        ("CAST", (2,), (4,), None),
    ]
    both(tmp_path / "rfft.tflite", tflite_bytes(tensors, steps, (0,), (3, 4)), floats(2, 1, 16), [3, 4])


def test_bands_that_hold_nothing_stay_as_empty_as_in_litert(tmp_path: Path) -> None:
    """A network that takes roots of a power spectrum hears a transform's rounding."""
    n = 2048
    tensors = [
        ("x", (1, 1, n), "float32"),
        ("length", (2,), ints(1, n)),
        ("spectrum", (1, 1, n // 2 + 1), "complex64"),
        ("power", (1, 1, n // 2 + 1), "float32"),
    ]
    steps = [("RFFT2D", (0, 1), (2,), options("Rfft2dOptions")), ("COMPLEX_ABS", (2,), (3,), None)]
    path, content = tmp_path / "rfft.tflite", tflite_bytes(tensors, steps, (0,), (3,))
    t = np.arange(n) / n
    x = (np.blackman(n) ** 4 * np.sin(2 * np.pi * 100 * t))[None, None].astype(np.float32)
    wanted = Interpreter(path, content, [3]).run(x, [3])[0]
    found = GraphModule(read_graph(path, content), path)(torch.from_numpy(x), [3])[0].numpy()
    assert wanted.min() < 1e-7 * wanted.max()
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_arithmetic_of_shapes(tmp_path: Path) -> None:
    """The way that a flatten of free length is written: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    tensors = [
        ("x", (-1, 2, 3), "float32"),
        ("shape", (3,), "int32"),
        ("zero", (1,), ints(0)),
        ("one", (1,), ints(1)),
        ("n", (), "int32"),
        ("rest", (), np.array(-1, np.int32)),
        ("to", (2,), "int32"),
        ("y", (-1, 6), "float32"),
    ]
    steps = [
        ("SHAPE", (0,), (1,), options("ShapeOptions", outType=2)),
        ("STRIDED_SLICE", (1, 2, 3, 3), (4,), strided(shrinkAxisMask=1)),
        ("PACK", (4, 5), (6,), options("PackOptions", valuesCount=2, axis=0)),
        ("RESHAPE", (0, 6), (7,), None),
    ]
    both(tmp_path / "shape.tflite", tflite_bytes(tensors, steps, (0,), (7,)), floats(4, 2, 3), [7])


def test_several_outputs_and_comparisons(tmp_path: Path) -> None:
    tensors = [
        ("x", (2, 6), "float32"),
        ("axis", (), np.array(1, np.int32)),
        ("a", (2, 3), "float32"),
        ("b", (2, 3), "float32"),
        ("more", (2, 3), "bool"),
        ("y", (2, 3), "float32"),
        ("sizes", (2,), ints(2, 4)),
        ("c", (2, 2), "float32"),
        ("d", (2, 4), "float32"),
    ]
    steps = [
        ("SPLIT", (1, 0), (2, 3), options("SplitOptions", numSplits=2)),
        ("GREATER", (2, 3), (4,), options("GreaterOptions")),
        ("SELECT_V2", (4, 2, 3), (5,), options("SelectV2Options")),
        ("SPLIT_V", (0, 6, 1), (7, 8), options("SplitVOptions", numSplits=2)),
    ]
    both(tmp_path / "split.tflite", tflite_bytes(tensors, steps, (0,), (5, 7, 8)), floats(2, 6), [5, 7, 8])


def test_weights_in_half_precision_are_made_floats_once(tmp_path: Path) -> None:
    kernel = floats(4, 3, 3, 3).astype(np.float16)
    tensors = [
        ("x", X, "float32"),
        ("half", kernel.shape, kernel),
        ("kernel", kernel.shape, "float32"),
        ("bias", (4,), floats(4)),
        ("y", (1, 1, 1, 1), "float32"),
    ]
    steps = [
        ("DEQUANTIZE", (1,), (2,), options("DequantizeOptions")),
        ("CONV_2D", (0, 2, 3), (4,), convolution(0)),
    ]
    content = tflite_bytes(tensors, steps, (0,), (4,))
    both(tmp_path / "half.tflite", content, floats(*X), [4])
    graph = read_graph(tmp_path / "half.tflite", content)
    assert {name for name, _ in GraphModule(graph, tmp_path).named_parameters()} == {"tensor_2", "tensor_3"}


def test_only_what_is_needed_is_run_and_kept(tmp_path: Path) -> None:
    tensors = [(name, (2, 3), "float32") for name in "xabc"]
    steps = [("ABS", (0,), (1,), None), ("EXP", (1,), (2,), None), ("SIN", (2,), (3,), None)]
    content = tflite_bytes(tensors, steps, (0,), (3,))
    module = GraphModule(read_graph(written(tmp_path / "n.tflite", content), content), tmp_path)
    assert module._plan((2,)) == [(0, (0,)), (1, (1,))]
    assert module._plan((3, 1)) == [(0, (0,)), (1, ()), (2, (2,))]


def test_every_operation_has_a_case() -> None:
    """Those without one are elementwise siblings of one that has."""
    tested = {kind for kind, *_ in CASES.values()} | {
        "RFFT2D", "COMPLEX_ABS", "CAST", "SHAPE", "SPLIT", "SPLIT_V", "GREATER", "SELECT_V2", "DEQUANTIZE",
    }  # fmt: skip
    siblings = {
        "GREATER_EQUAL", "LESS", "LESS_EQUAL", "EQUAL", "NOT_EQUAL", "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT", "SELECT",
        "REAL", "IMAG", "IDENTITY", "REDUCE_ANY", "REDUCE_ALL", "ARG_MAX", "ARG_MIN", "UNPACK", "FILL", "RANGE",
    }  # fmt: skip
    assert set(OPERATIONS) == tested | siblings
