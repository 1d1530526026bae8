"""Batch normalisations folded into the convolutions before them, wherever a run of the network shows that this is what they follow.

A network in eval mode and a way to run it enter; it leaves with fewer layers and the same outputs. Used on the copies that
`relax_quantus.relax.fast_copy` makes. What follows what is seen in a run, because symbolic tracing refuses networks that look at their input's shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}
"""Each kind of convolution and the batch normalisation that can follow it."""
_DESCRIPTIONS = ("__get__", "dim", "size")


def may_fold(module: nn.Module) -> bool:
    """Whether `module` has a convolution and a batch normalisation of one kind."""
    kinds = {type(part) for part in module.modules()}
    return any(convolution in kinds and norm in kinds for convolution, norm in CONVOLUTIONS.items())


def fold(module: nn.Module, run: Callable[[], Any]) -> None:
    """Fold, in place, each batch normalisation that alone reads the output of one convolution into that convolution.

    Parameters
    ----------
    module
        In eval mode, without hooks.
    run
        Runs `module` once.
    """
    for convolution, norm in observed_pairs(module, run):
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        convolution._parameters["weight"] = nn.Parameter(_laid_out_like(weight, convolution.weight), False)
        convolution._parameters["bias"] = nn.Parameter(bias, False)
        for parent in module.modules():
            for name, child in parent._modules.items():
                if child is norm:
                    parent._modules[name] = nn.Identity()


def _laid_out_like(weight: Tensor, other: Tensor) -> Tensor:
    last = other.ndim == 4 and not other.is_contiguous()
    return weight.to(memory_format=torch.channels_last) if last else weight.contiguous()


class _Uses(TorchFunctionMode):
    """Counts how many functions read each tensor, its description apart.

    A dispatch mode would see operations instead; the first one in a process imports sympy, for two seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and run one function."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in _DESCRIPTIONS:
            self.counts.update(id(a) for a in tensors_in((args, kwargs.values())))
        return func(*args, **kwargs)


def tensors_in(arguments: Any) -> Iterator[Tensor]:
    """Find the tensors among arguments, also in lists such as those of `torch.cat`."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, tuple | list | type({}.values())):
            yield from tensors_in(argument)


def observed_pairs(module: nn.Module, run: Callable[[], Any]) -> list[tuple[Any, Any]]:
    """Run once and return the convolutions whose output one batch normalisation and nothing else read, each called once."""
    uses = _Uses()
    outputs: dict[int, Any] = {}
    readers: list[tuple[Any, Any]] = []
    calls: Counter[int] = Counter()
    kept: list[Tensor] = []

    def convolved(part: nn.Module, _: Any, output: Tensor) -> None:
        calls[id(part)] += 1
        outputs[id(output)] = part
        kept.append(output)
        uses.counts[id(output)] = 0  # an earlier tensor, gone by now, may have had this id

    def normalises(part: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[id(part)] += 1
        if inputs and id(inputs[0]) in outputs:
            readers.append((inputs[0], part))

    handles = []
    owners = Counter(id(p) for part in module.modules() for p in part._parameters.values() if p is not None)
    for part in module.modules():
        if type(part) in CONVOLUTIONS:
            handles.append(part.register_forward_hook(convolved))
        elif type(part) in CONVOLUTIONS.values():
            handles.append(part.register_forward_pre_hook(normalises))
    try:
        with uses:
            run()
    finally:
        for handle in handles:
            handle.remove()
    pairs = [(outputs[id(x)], norm) for x, norm in readers if uses.counts[id(x)] == 1]
    return [
        (convolution, norm)
        for convolution, norm in pairs
        if CONVOLUTIONS[type(convolution)] is type(norm)
        and norm.running_mean is not None
        and calls[id(convolution)] == calls[id(norm)] == 1
        and owners[id(convolution.weight)] == 1
        and owners[id(norm.weight)] <= 1
    ]
