"""Copy an encoder in eval mode into one that runs faster, for one call.

A module and an example of what it will see enter; a callable leaves that gives the same embeddings:
a copy of the module with batch normalisations folded into the convolutions before them and
convolution weights in channels-last order, or, where nothing is to be gained or the copy does not
agree, what came in. The copy shares every other weight with the original and is dropped with the
call, so training the original on leaves nothing stale. Stands beside `relax_quantus.base.networks`,
below where the encoder runs.

What batch normalisations follow is seen in a run of the copy, because symbolic tracing refuses
networks that look at their input's shape.
"""

from __future__ import annotations

import types
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

from relax_quantus.base.networks import module_behind

CONVOLUTIONS = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}
"""Each kind of convolution and the batch normalisation that can follow it."""
_DESCRIPTIONS = ("__get__", "dim", "size")


def may_fold(module: nn.Module) -> bool:
    """Whether `module` has a convolution and a batch normalisation of one kind."""
    kinds = {type(part) for part in module.modules()}
    return any(convolution in kinds and norm in kinds for convolution, norm in CONVOLUTIONS.items())


def fold(module: nn.Module, run: Callable[[], Any]) -> None:
    """Fold, in place, batch normalisations into the convolutions whose output they alone read.

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
    """Count how many functions read each tensor, its description apart.

    A dispatch mode would see operations instead; the first one in a process imports sympy, for two
    seconds.
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
    """Run once and pair each convolution with the batch normalisation that alone reads it.

    Both are called once.
    """
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


AGREEMENT = 1e-4
"""Largest difference of a copy's embeddings, as a share of the largest entry; folding costs
1e-6."""
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
Encoder = Callable[..., Any]


def is_plain(module: nn.Module) -> bool:
    """Tell whether a copy can stand in for `module`.

    All of it is in eval mode, without hooks or parametrisations, and not compiled to TorchScript.
    """
    return not any(
        isinstance(part, torch.jit.ScriptModule)
        or part.training
        or parametrize.is_parametrized(part)
        or any(getattr(part, hooks, None) for hooks in _HOOKS)
        for part in module.modules()
    )


def inference_copy(encoder: Encoder, probe: tuple[Tensor, ...], dtype: torch.dtype | None = None) -> Encoder:
    """Return what to run instead of `encoder` in this call, which may be `encoder` itself.

    Costs one forward of `probe` by the original and up to three by copies; nothing where there is
    no convolution to gain from.

    Parameters
    ----------
    encoder
        A module, a bound method of one, or any callable; only modules for which `is_plain` holds
        are copied.
    probe
        Inputs ``(n, ...)``, a few rows of what the encoder will see; the copy is used if its output
        agrees with the original's on them.
    dtype
        Type of autocast under which the encoder will run, in which the copy's linear and
        convolution weights are then kept so that they are not converted again in each forward; None
        for full precision.

    Returns
    -------
    Callable
        Takes inputs as `encoder` does.
    """
    module = module_behind(encoder)
    if module is None or not is_plain(module):
        return encoder
    channels_last = _gains_from_channels_last(module, probe, dtype)
    pairs = may_fold(module)
    if not (channels_last or pairs or dtype):
        return encoder
    expected = encoder(*_own(probe))
    for in_order in (True, False) if channels_last else (False,):
        made = _Copy(encoder, module, in_order, dtype)
        try:
            if pairs:
                fold(made.module, partial(made, *_own(probe)))
            agrees = _agree(made(*_own(probe)), expected, AGREEMENT)
        except RuntimeError as error:  # such as a view() of activations in channels-last order
            if isinstance(error, torch.OutOfMemoryError):
                raise
            agrees = False
        if agrees:
            return made.lowered(probe)
    return encoder


def _own(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Clone inputs: an encoder may begin with an in-place operation."""
    return tuple(x.clone() for x in inputs)


def _agree(found: object, expected: object, tolerance: float) -> bool:
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor) or found.shape != expected.shape:
        return False
    if found.dtype != expected.dtype or not found.is_floating_point() or found.numel() == 0:
        return False
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def _gains_from_channels_last(module: nn.Module, probe: tuple[Tensor, ...], dtype: torch.dtype | None) -> bool:
    """Tell whether there are 2-D convolutions that gain from channels-last order.

    On a GPU those of short types alone have kernels for it.
    """
    short = dtype is not None or any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())
    return any(
        type(part) is nn.Conv2d
        and part.weight.dtype != torch.float64
        and not part.weight.is_contiguous(memory_format=torch.channels_last)
        and (short or part.weight.device.type == "cpu")
        for part in module.modules()
    )


class _Copy:
    """A copy of a module's structure that shares its tensors, called as the original encoder is."""

    def __init__(self, encoder: Encoder, module: nn.Module, channels_last: bool, dtype: torch.dtype | None) -> None:
        self.original, self.channels_last, self.dtype = encoder, channels_last, dtype
        self.module = _twin(module, {})
        self.run: Encoder = (
            types.MethodType(encoder.__func__, self.module) if isinstance(encoder, types.MethodType) else self.module
        )
        if channels_last:
            _convert(self.module, lambda p: p.to(memory_format=torch.channels_last) if p.ndim == 4 else p, nn.Conv2d)

    def __call__(self, *inputs: Any) -> Any:
        """Run the copy."""
        if self.channels_last:
            inputs = tuple(
                x.to(memory_format=torch.channels_last) if isinstance(x, Tensor) and x.ndim == 4 else x for x in inputs
            )
        return self.run(*inputs)

    def lowered(self, probe: tuple[Tensor, ...]) -> _Copy:
        """Keep weights in the type of the coming autocast, if only its rounding changes."""
        if self.dtype is None:
            return self
        place = probe[0].device.type
        with torch.autocast(place, self.dtype):
            expected = self(*_own(probe))
        made = _Copy(self.run, self.module, False, None)
        made.channels_last = self.channels_last
        kinds = (nn.Linear, *CONVOLUTIONS)
        _convert(made.module, lambda p: p.to(self.dtype) if p.dtype == torch.float32 else p, *kinds)
        with torch.autocast(place, self.dtype):
            agrees = _agree(made(*_own(probe)), expected, 2.0**-6)
        return made if agrees else self


def _twin(module: nn.Module, memo: dict[int, nn.Module]) -> nn.Module:
    """Copy a module's structure: submodules are new, parameters and all else are shared."""
    if id(module) in memo:
        return memo[id(module)]
    made = memo[id(module)] = module.__class__.__new__(module.__class__)
    made.__dict__ = dict(module.__dict__)
    made.__dict__["_parameters"] = dict(module._parameters)
    made.__dict__["_buffers"] = dict(module._buffers)
    made.__dict__["_modules"] = {
        name: None if child is None else _twin(child, memo) for name, child in module._modules.items()
    }
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):
        made.__dict__[hooks] = OrderedDict()
    return made


def _convert(module: nn.Module, change: Callable[[Tensor], Tensor], *kinds: type[nn.Module]) -> None:
    """Change parameters of modules of exactly these kinds; shared ones stay shared."""
    changed: dict[int, nn.Parameter] = {}
    for part in module.modules():
        if type(part) in kinds:
            for name, value in part._parameters.items():
                if value is not None:
                    if id(value) not in changed:
                        changed[id(value)] = nn.Parameter(change(value.detach()), False)
                    part._parameters[name] = changed[id(value)]
