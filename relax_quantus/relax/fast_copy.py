"""An encoder in eval mode -> a copy that runs faster, for one call; the caller's own module is not touched.

A module and an example of what it will see enter; a callable leaves that gives the same embeddings: a copy of the module with batch
normalisations folded into the convolutions before them and convolution weights in channels-last order, or, where nothing is to be gained or
the copy does not agree, what came in. The copy shares every other weight with the original and is dropped with the call, so training the
original on leaves nothing stale. Stands beside `relax_quantus.base.modules`, below where the encoder runs.
"""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from relax_quantus.relax.folding import CONVOLUTIONS, fold, may_fold

AGREEMENT = 1e-4
"""Largest difference of a copy's embeddings from the original's, as a share of the largest entry; folding costs about 1e-6."""
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
Encoder = Callable[..., Any]


def module_behind(encoder: object) -> nn.Module | None:
    """Return the module that `encoder` is, or is a method of; None for any other callable."""
    owner = encoder.__self__ if isinstance(encoder, types.MethodType) else encoder
    return owner if isinstance(owner, nn.Module) else None


def is_plain(module: nn.Module) -> bool:
    """Whether a copy can stand in for `module`: all of it in eval mode, no hooks, no parametrisations, nothing compiled to TorchScript."""
    return not any(
        isinstance(part, torch.jit.ScriptModule)
        or part.training
        or parametrize.is_parametrized(part)
        or any(getattr(part, hooks, None) for hooks in _HOOKS)
        for part in module.modules()
    )


def inference_copy(encoder: Encoder, probe: tuple[Tensor, ...], dtype: torch.dtype | None = None) -> Encoder:
    """Return what to run instead of `encoder` in this call, which may be `encoder` itself.

    Costs one forward of `probe` by the original and up to three by copies; nothing where there is no convolution to gain from.

    Parameters
    ----------
    encoder
        A module, a bound method of one, or any callable; only modules for which `is_plain` holds are copied.
    probe
        Inputs ``(n, ...)``, a few rows of what the encoder will see; the copy is used if its output agrees with the original's on them.
    dtype
        Type of autocast under which the encoder will run, in which the copy's linear and convolution weights are then kept so that they are
        not converted again in each forward; None for full precision.

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
    """Clones: an encoder may begin with an in-place operation."""
    return tuple(x.clone() for x in inputs)


def _agree(found: object, expected: object, tolerance: float) -> bool:
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor) or found.shape != expected.shape:
        return False
    if found.dtype != expected.dtype or not found.is_floating_point() or found.numel() == 0:
        return False
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def _gains_from_channels_last(module: nn.Module, probe: tuple[Tensor, ...], dtype: torch.dtype | None) -> bool:
    """Whether there are 2-D convolutions to convert, for types that have kernels for it; on a GPU those are the short ones' alone."""
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
        """Keep weights in the type of the coming autocast, if that changes nothing beyond its rounding."""
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
    """Copy the structure of a module: submodules are new, parameters, buffers and all else are shared."""
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
    """Change the parameters of modules of exactly these kinds; those shared by several stay shared."""
    changed: dict[int, nn.Parameter] = {}
    for part in module.modules():
        if type(part) in kinds:
            for name, value in part._parameters.items():
                if value is not None:
                    if id(value) not in changed:
                        changed[id(value)] = nn.Parameter(change(value.detach()), False)
                    part._parameters[name] = changed[id(value)]
