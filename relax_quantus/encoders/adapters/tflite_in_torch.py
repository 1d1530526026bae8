"""A TFLite file's graph as a module of torch, with gradients and on any device.

A `Graph` enters, a `GraphModule` leaves whose weights are parameters. It knows the operations of
small networks of sounds in floating point (convolutions, pooling, dense layers, a spectrogram by
RFFT and the arithmetic of shapes between them); a graph with any other is refused by the
operation's name. Axes lie as in the file, channels last. Semantics: the TFLite reference kernels,
https://ai.google.dev/edge/litert/models/ops_compatibility.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from relax_quantus.base import checks
from relax_quantus.base.checks import shown
from relax_quantus.encoders.adapters.flatbuffer import NUMPY_DTYPES, Graph, Operation
from relax_quantus.errors import EncoderError

Values = list[Tensor]
_TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
    "complex64": torch.complex64,
}
_SAME = 0
"""The schema's number for padding that keeps the size."""
_ACTIVATIONS: dict[int, Callable[[Tensor], Tensor]] = {
    0: lambda x: x,
    1: torch.relu,
    2: lambda x: x.clamp(-1, 1),
    3: lambda x: x.clamp(0, 6),
    4: torch.tanh,
}


class GraphModule(nn.Module):
    """Run a TFLite graph in torch.

    Parameters
    ----------
    graph
        As read from the file.
    path
        The file, for messages.

    Raises
    ------
    EncoderError
        If the graph has an operation or a type of tensor that is not known here; the message names
        them.
    """

    def __init__(self, graph: Graph, path: Path) -> None:
        super().__init__()
        unknown = {o.name for o in graph.operations if o.name not in OPERATIONS}
        unknown |= {f"tensors of {t.dtype}" for t in graph.tensors if t.constant is not None and t.dtype not in _TYPES}
        unknown |= {f"an activation of number {n}" for n in map(_activation, graph.operations) if n not in _ACTIVATIONS}
        if unknown:
            rule = f"operations in floating point that run in torch, in {shown(path)}"
            remedy = "run it with LiteRT, or export the network without them"
            checks.refuse("runtime", rule, ", ".join(sorted(unknown)), remedy, EncoderError)
        self.operations = graph.operations
        self.inputs = graph.inputs
        self.dtypes = [_TYPES.get(tensor.dtype) for tensor in graph.tensors]
        self._made_by = {i: k for k, o in enumerate(graph.operations) for i in o.outputs}
        self._plans: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
        self._integers: dict[int, Tensor] = {}
        constants = {t.index: t.constant for t in graph.tensors if t.constant is not None and t.dtype in NUMPY_DTYPES}
        for operation in graph.operations:  # weights in half precision are made floats once
            if operation.name == "DEQUANTIZE" and operation.inputs[:1] and operation.inputs[0] in constants:
                constants[operation.outputs[0]] = constants.pop(operation.inputs[0]).astype("float32")
                del self._made_by[operation.outputs[0]]
        convolutions = [o for o in graph.operations if o.name in _KERNEL_AXES and len(o.inputs) > 1]
        kinds = {o.inputs[1]: o.name for o in convolutions if o.inputs[1] in constants}
        self.kernels = frozenset(kinds)
        for index, constant in constants.items():
            value = torch.from_numpy(constant.copy())
            if not value.is_floating_point():
                # shapes and axes: read on the CPU, whatever device runs
                self._integers[index] = value
                continue
            if index in kinds:
                value = value.permute(_KERNEL_AXES[kinds[index]]).contiguous()
            if value.numel() > 1:
                self.register_parameter(f"tensor_{index}", nn.Parameter(value.float(), requires_grad=False))
            else:
                self.register_buffer(f"tensor_{index}", value.float())

    def forward(self, x: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """Run what the tensors `wanted` need, and return them."""
        values: dict[int, Any] = {self.inputs[0]: x}
        for step, done in self._plan(tuple(wanted)):
            operation = self.operations[step]
            given = [self._value(i, values) for i in operation.inputs]
            made = OPERATIONS[operation.name](self, operation, given)
            act = _ACTIVATIONS[_activation(operation)]
            for i, value in zip(operation.outputs, made if isinstance(made, tuple) else (made,), strict=True):
                values[i] = act(value)
            for i in done:
                values.pop(i, None)
        return [values[i] for i in wanted]

    def _value(self, index: int, values: dict[int, Any]) -> Any:
        if index in values:
            return values[index]
        if index in self._integers:
            return self._integers[index]
        return None if index < 0 else getattr(self, f"tensor_{index}", None)

    def _plan(self, wanted: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
        """List the steps that `wanted` needs, each with the tensors that nothing needs later."""
        if wanted not in self._plans:
            needed: set[int] = set()
            waiting = list(wanted)
            while waiting:
                step = self._made_by.get(waiting.pop())
                if step is not None and step not in needed:
                    needed.add(step)
                    waiting += self.operations[step].inputs
            last = {i: step for step in sorted(needed) for i in self.operations[step].inputs}
            steps = []
            for step in sorted(needed):
                done = (i for i, at in last.items() if at == step and i not in wanted)
                steps.append((step, tuple(done)))
            self._plans[wanted] = steps
        return self._plans[wanted]


def _activation(operation: Operation) -> int:
    return int(getattr(operation.options, "fusedActivationFunction", 0) or 0)


Kernel = Callable[[GraphModule, Operation, Values], Any]
OPERATIONS: dict[str, Kernel] = {}
"""Each operation by the schema's name: module, operation and values enter, what it makes leaves."""
_KERNEL_AXES = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2)}
"""Axes of a kernel in the file, in torch's order."""


def _operation(*names: str) -> Callable[[Kernel], Kernel]:
    def keep(kernel: Kernel) -> Kernel:
        OPERATIONS.update(dict.fromkeys(names, kernel))
        return kernel

    return keep


def _elementwise(name: str, function: Any) -> None:
    def kernel(module: GraphModule, operation: Operation, given: Values) -> Tensor:
        made: Tensor = function(*_on_one_device(given))
        return made

    OPERATIONS[name] = kernel


def _on_one_device(given: Values) -> Values:
    """Bring integers of a shape to where the sound is, if both meet."""
    places = {value.device for value in given if value.device.type != "cpu"}
    return [value.to(place) for place in places for value in given] if places else given


def _divided(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


for _name, _function in {
    "ADD": torch.add,
    "SUB": torch.sub,
    "MUL": torch.mul,
    "DIV": _divided,
    "POW": torch.pow,
    "MAXIMUM": torch.maximum,
    "MINIMUM": torch.minimum,
    "FLOOR_DIV": torch.floor_divide,
    "FLOOR_MOD": torch.remainder,
    "SQUARED_DIFFERENCE": lambda a, b: (a - b).square(),
    "GREATER": torch.gt,
    "GREATER_EQUAL": torch.ge,
    "LESS": torch.lt,
    "LESS_EQUAL": torch.le,
    "EQUAL": torch.eq,
    "NOT_EQUAL": torch.ne,
    "LOGICAL_AND": torch.logical_and,
    "LOGICAL_OR": torch.logical_or,
    "LOGICAL_NOT": torch.logical_not,
    "SELECT": torch.where,
    "SELECT_V2": torch.where,
    "ABS": torch.abs,
    "NEG": torch.neg,
    "EXP": torch.exp,
    "LOG": torch.log,
    "SQRT": torch.sqrt,
    "RSQRT": torch.rsqrt,
    "SQUARE": torch.square,
    "SIN": torch.sin,
    "COS": torch.cos,
    "FLOOR": torch.floor,
    "CEIL": torch.ceil,
    "ROUND": torch.round,
    "LOGISTIC": torch.sigmoid,
    "TANH": torch.tanh,
    "RELU": torch.relu,
    "RELU6": functional.relu6,
    "RELU_N1_TO_1": lambda x: x.clamp(-1, 1),
    "ELU": functional.elu,
    "HARD_SWISH": functional.hardswish,
    "LOG_SOFTMAX": lambda x: functional.log_softmax(x, -1),
    "PRELU": lambda x, slope: torch.where(x >= 0, x, x * slope),
    "L2_NORMALIZATION": lambda x: x * x.square().sum(-1, keepdim=True).clamp_min(1e-12).rsqrt(),
    "COMPLEX_ABS": torch.abs,
    "REAL": torch.real,
    "IMAG": torch.imag,
    "DEQUANTIZE": lambda x: x.float(),
    "IDENTITY": lambda x: x,
}.items():
    _elementwise(_name, _function)


@_operation("GELU")
def _gelu(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return functional.gelu(given[0], approximate="tanh" if operation.options.approximate else "none")


@_operation("LEAKY_RELU")
def _leaky_relu(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return functional.leaky_relu(given[0], operation.options.alpha)


@_operation("SOFTMAX")
def _softmax(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return functional.softmax(given[0] * operation.options.beta, -1)


def _around(x: Tensor, kernel: Sequence[int], operation: Operation, value: float = 0.0) -> tuple[Tensor, Tensor | None]:
    """Pad images (n, C, H, W) as SAME does; second, where the sound was, if anything was added."""
    options = operation.options
    if options.padding != _SAME:
        return x, None
    steps = (options.strideH, options.strideW)
    spread = (getattr(options, "dilationHFactor", 1), getattr(options, "dilationWFactor", 1))
    sides: list[int] = []
    for size, width, step, wide in zip(x.shape[2:], kernel, steps, spread, strict=True):
        total = max(0, (math.ceil(size / step) - 1) * step + (width - 1) * wide + 1 - size)
        sides = [total // 2, total - total // 2, *sides]
    if not any(sides):
        return x, None
    return functional.pad(x, sides, value=value), functional.pad(torch.ones_like(x[:1, :1]), sides)


@_operation("CONV_2D", "DEPTHWISE_CONV_2D")
def _convolution(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    x, kernel = given[0].permute(0, 3, 1, 2), given[1]
    if operation.inputs[1] not in module.kernels:
        kernel = kernel.permute(_KERNEL_AXES[operation.name])
    options = operation.options
    x, _ = _around(x, kernel.shape[2:], operation)
    groups = x.shape[1] // kernel.shape[1]
    strides, spread = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    bias = given[2] if len(given) > 2 else None
    return functional.conv2d(x, kernel, bias, strides, 0, spread, groups).permute(0, 2, 3, 1)


@_operation("MAX_POOL_2D")
def _max_pool(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    options = operation.options
    size, steps = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
    x, _ = _around(given[0].permute(0, 3, 1, 2), size, operation, -math.inf)
    return functional.max_pool2d(x, size, steps).permute(0, 2, 3, 1)


@_operation("AVERAGE_POOL_2D")
def _average_pool(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    options = operation.options
    size, steps = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
    x, inside = _around(given[0].permute(0, 3, 1, 2), size, operation)
    mean = functional.avg_pool2d(x, size, steps)
    if inside is not None:  # the mean is over what lies inside
        mean = mean / functional.avg_pool2d(inside, size, steps)
    return mean.permute(0, 2, 3, 1)


@_operation("FULLY_CONNECTED")
def _dense(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    x, weight = given[0], given[1]
    x = x if operation.options.keepNumDims else x.reshape(-1, weight.shape[1])
    return functional.linear(x, weight, given[2] if len(given) > 2 else None)


@_operation("BATCH_MATMUL")
def _matmul(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    a, b = given
    return (a.mT if operation.options.adjX else a) @ (b.mT if operation.options.adjY else b)


_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "MEAN": torch.mean,
    "SUM": torch.sum,
    "REDUCE_MAX": torch.amax,
    "REDUCE_MIN": torch.amin,
    "REDUCE_ANY": torch.any,
    "REDUCE_ALL": torch.all,
}


@_operation(*_REDUCTIONS)
def _reduction(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    x, axes = given[0], _list(given[1])
    if not axes:
        return x
    return _REDUCTIONS[operation.name](x, axes, keepdim=operation.options.keepDims).to(x.dtype)


@_operation("REDUCE_PROD")
def _product(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    x: Tensor = given[0]
    for axis in sorted((axis % x.ndim for axis in _list(given[1])), reverse=True):
        x = x.prod(axis, keepdim=operation.options.keepDims)
    return x.to(given[0].dtype)


@_operation("ARG_MAX", "ARG_MIN")
def _arg(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    found = given[0].argmax if operation.name == "ARG_MAX" else given[0].argmin
    return found(int(given[1])).int()


@_operation("CUMSUM")
def _cumulated(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    x, axis, options = given[0], int(given[1]), operation.options
    x = x.flip(axis) if options.reverse else x
    total = x.cumsum(axis) - (x if options.exclusive else 0)
    return total.flip(axis) if options.reverse else total


@_operation("SHAPE")
def _shape(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return torch.tensor(given[0].shape, dtype=torch.int32, device="cpu")


@_operation("RESHAPE")
def _reshape(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    shape = _list(given[1]) if len(given) > 1 and given[1] is not None else [int(n) for n in operation.options.newShape]
    return given[0].reshape(shape)


@_operation("EXPAND_DIMS")
def _expand(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return given[0].unsqueeze(int(given[1]))


@_operation("SQUEEZE")
def _squeeze(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    axes = operation.options.squeezeDims
    axes = () if axes is None or len(axes) == 0 else tuple(int(axis) for axis in axes)
    return given[0].squeeze(axes) if axes else given[0].squeeze()


@_operation("TRANSPOSE")
def _transpose(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return given[0].permute(_list(given[1]))


@_operation("REVERSE_V2")
def _reverse(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return given[0].flip(_list(given[1]))


@_operation("PACK")
def _pack(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return torch.stack([value.to(given[0].dtype) for value in given], operation.options.axis)


@_operation("UNPACK")
def _unpack(module: GraphModule, operation: Operation, given: Values) -> tuple[Tensor, ...]:
    return tuple(given[0].unbind(operation.options.axis))


@_operation("CONCATENATION")
def _concatenation(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return torch.cat(given, operation.options.axis)


@_operation("SPLIT")
def _split(module: GraphModule, operation: Operation, given: Values) -> tuple[Tensor, ...]:
    return tuple(given[1].chunk(operation.options.numSplits, int(given[0])))


@_operation("SPLIT_V")
def _split_by_size(module: GraphModule, operation: Operation, given: Values) -> tuple[Tensor, ...]:
    x, sizes, axis = given[0], _list(given[1]), int(given[2])
    rest = x.shape[axis] - sum(size for size in sizes if size >= 0)
    return torch.split(x, [rest if size < 0 else size for size in sizes], axis)


@_operation("TILE")
def _tile(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return given[0].tile(_list(given[1]))


@_operation("BROADCAST_TO")
def _broadcast(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return given[0].expand(_list(given[1]))


@_operation("FILL")
def _fill(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return given[1].expand(_list(given[0]))


@_operation("RANGE")
def _range(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    return torch.arange(*(value.item() for value in given), dtype=given[0].dtype, device="cpu")


@_operation("CAST")
def _cast(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    dtype = module.dtypes[operation.outputs[0]]
    x: Tensor = given[0]
    if x.is_complex() and dtype is not None and dtype.is_floating_point:
        return x.real  # in the precision that the module runs in
    return x.to(dtype)


@_operation("GATHER")
def _gather(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    x, index = given[0], given[1].long().to(given[0].device)
    if operation.options.batchDims:
        checks.refuse("runtime", "GATHER without batch axes", f"{operation.options.batchDims}", "", EncoderError)
    axis = operation.options.axis % x.ndim
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


@_operation("SLICE")
def _slice(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    cuts = zip(_list(given[1]), _list(given[2]), strict=True)
    return given[0][tuple(slice(a, None if n < 0 else a + n) for a, n in cuts)]


@_operation("STRIDED_SLICE")
def _strided_slice(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    x, options = given[0], operation.options
    if options.ellipsisMask or options.newAxisMask:
        checks.refuse("runtime", "STRIDED_SLICE of plain axes", "an ellipsis or a new axis", "", EncoderError)
    index: list[Any] = []
    for axis, (start, stop, step) in enumerate(zip(*(_list(value) for value in given[1:4]), strict=True)):
        if options.shrinkAxisMask >> axis & 1:
            index.append(start)
            continue
        end = start + stop if getattr(options, "offset", False) else stop
        cut = slice(
            None if options.beginMask >> axis & 1 else start, None if options.endMask >> axis & 1 else end, step
        )
        if step < 0:
            picked = torch.tensor(range(*cut.indices(x.shape[axis])), dtype=torch.long, device=x.device)
            x, cut = x.index_select(axis, picked), slice(None)
        index.append(cut)
    return x[tuple(index)]


@_operation("PAD", "PADV2", "MIRROR_PAD")
def _pad(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    sides = [int(n) for pair in reversed(given[1].tolist()) for n in pair]
    if operation.name != "MIRROR_PAD":
        return functional.pad(given[0], sides, value=float(given[2]) if len(given) > 2 else 0.0)
    x: Tensor = given[0]
    skip = 1 - int(operation.options.mode)  # REFLECT leaves the edge out, SYMMETRIC takes it twice
    for axis, (before, after) in enumerate(given[1].tolist()):
        n = x.shape[axis]
        order = [*range(before - 1 + skip, skip - 1, -1), *range(n), *range(n - 1 - skip, n - 1 - skip - after, -1)]
        x = x.index_select(axis, torch.tensor(order, device=x.device))
    return x


@_operation("RFFT2D")
def _rfft(module: GraphModule, operation: Operation, given: Values) -> Tensor:
    x, (rows, columns) = given[0], _list(given[1])
    # LiteRT's kernel works in doubles; in singles, rounding fills bands that hold nothing
    wide = x if x.device.type == "mps" else x.double()
    spectrum = torch.fft.rfft(wide[..., :1, :], n=columns) if rows == 1 else torch.fft.rfft2(wide, s=(rows, columns))
    narrowed: Tensor = spectrum.to(torch.complex128 if x.dtype == torch.float64 else torch.complex64)
    return narrowed


def _list(value: Tensor) -> list[int]:
    return [int(n) for n in value.reshape(-1).tolist()]
