"""Running other people's modules without leaving a trace: eval mode, the type and place of weights, a fingerprint.

Any callable enters; nothing about it has changed when it leaves. Used wherever the package runs an encoder or model
that it was given.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from relax_quantus.base.checks import describe, refuse
from relax_quantus.base.identity import identity
from relax_quantus.base.torch_state import callers_torch, neutral_torch
from relax_quantus.errors import ArgumentTypeError, EncoderError

MICRO_BATCH = 64
_DEEPEST = 4
"""Steps from a callable to the modules that are looked for behind it."""
_LOOK = "check its weights and that its input is what it was trained on"


_modes = threading.Lock()
_in_use: dict[int, list[Any]] = {}
"""Submodules in training mode that are run in eval mode just now, by identity: [submodule, how often]."""


@contextmanager
def evaluation_mode(encoder: object) -> Iterator[None]:
    """Run an encoder's modules in eval mode, and leave their modes and their buffers as they were, also when it raises.

    Threads may share a network: it gets its modes back when the last one is done.

    Parameters
    ----------
    encoder
        A module, a method of one, or any other callable. Modules that `modules_behind` does not find are met when they
        are run in this thread.

    Examples
    --------
    >>> layer = nn.Dropout()
    >>> with evaluation_mode(lambda x: layer(x)):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    parts = list({id(part): part for module in modules_behind(encoder) for part in module.modules()}.values())
    held = []
    with _modes:
        for part in parts:
            if id(part) in _in_use or getattr(part, "training", False):
                _in_use.setdefault(id(part), [part, 0])[1] += 1
                held.append(part)
                part.training = False
    kept = [(part, name, value, value.clone()) for part in parts for name, value in _buffers(part)]
    here = threading.get_ident()

    def met(part: nn.Module, _: object) -> None:
        """Run in eval mode what was not found beforehand: however it is reached, it is run here."""
        if getattr(part, "training", False) and threading.get_ident() == here:  # a frozen one has no mode
            with _modes:
                _in_use.setdefault(id(part), [part, 0])[1] += 1
                held.append(part)
                part.training = False

    hook = register_module_forward_pre_hook(met)
    try:
        yield
    finally:
        hook.remove()
        for part, name, value, content in kept:
            _put_back(part, name, value, content)
        with _modes:
            for part in held:
                _in_use[id(part)][1] -= 1
                if not _in_use[id(part)][1]:
                    del _in_use[id(part)]
                    part.training = True


def _buffers(part: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in part.named_buffers(recurse=False) if not is_lazy(value)]


def _put_back(part: nn.Module, name: str, value: Tensor, content: Tensor) -> None:
    """Undo what a forward did to a buffer; one that was replaced by another shape is a cache that grew, and stays."""
    found = dict(part.named_buffers(recurse=False)).get(name)
    if found is None or found.shape != value.shape or found.dtype != value.dtype:
        return
    if not isinstance(part, torch.jit.ScriptModule):
        part._buffers[name] = found = value
    if not torch.equal(found, content):
        with torch.inference_mode(found.is_inference()), torch.no_grad():
            found.copy_(content)


def modules_behind(encoder: object) -> list[nn.Module]:
    """Find the modules that a callable runs: itself, or what it is a method of, closes over, is given beforehand or names.

    Examples
    --------
    >>> layer = nn.Linear(2, 2)
    >>> modules_behind(functools.partial(lambda scale, x: layer(x) * scale, 2.0)) == [layer]
    True
    """
    found: list[nn.Module] = []
    seen: set[int] = set()
    waiting: list[tuple[object, int]] = [(encoder, 0)]
    while waiting:
        value, depth = waiting.pop(0)
        if id(value) in seen or depth > _DEEPEST:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found.append(value)
        else:
            waiting += [(part, depth + 1) for part in _parts(value)]
    return found


def _parts(value: object) -> list[object]:
    """What a callable or a container holds, as far as a module may be among it."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        closed = inspect.getclosurevars(value)
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return [*closed.nonlocals.values(), *closed.globals.values(), *defaults]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, type | types.ModuleType | Tensor):
        return []
    return list(getattr(value, "__dict__", {}).values())


def like_weights(x: Tensor, module: object) -> Tensor:
    """Return `x` on the device and in the floating type of `module`'s first weight; without one, `x` as floats."""
    if isinstance(module, nn.Module):
        for weight in (*module.parameters(), *module.buffers()):
            if weight.is_floating_point():
                return x.to(weight)
    return x if x.is_floating_point() else x.float()


def has_weights(encoder: object) -> bool:
    """Whether there are weights or buffers by which to tell the encoder from others."""
    return isinstance(encoder, nn.Module) and any(isinstance(v, Tensor) for v in encoder.state_dict().values())


def fingerprint(encoder: object) -> str:
    """Digest what tells an encoder from others, the same in every process; "" where that cannot be told.

    Returns
    -------
    str
        SHA-256 over the weights in order, shapes and types included, and the structure: types of the modules and their
        settings, names not, containers not. Of what has no weights its `relax_quantus.base.identity`: structure,
        constants, code and what that reads.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> fingerprint(layer) == fingerprint(nn.Sequential(layer)), fingerprint(nn.Flatten()) == fingerprint(nn.Identity())
    (True, False)
    >>> fingerprint(layer) == fingerprint(nn.Sequential(layer, nn.Tanh()))
    False
    """
    if isinstance(encoder, nn.Module) and callable(own := getattr(encoder, "fingerprint", None)):
        return str(own())
    if not isinstance(encoder, nn.Module) or not has_weights(encoder):
        return identity(encoder)
    return hashlib.sha256(f"{weights_digest(encoder)}{_structure(encoder)}".encode()).hexdigest()


def weights_digest(encoder: object) -> str:
    """Digest the weights of a module alone, which was its fingerprint in version 0.1.0; "" without any."""
    if not isinstance(encoder, nn.Module) or not has_weights(encoder):
        return ""
    digest = hashlib.sha256()
    for value in encoder.state_dict().values():
        if isinstance(value, Tensor):
            digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict", "Identity", "OptimizedModule")
"""Types of modules that change nothing by being there."""
_NO_SETTINGS = ("training", "inplace", "dump_patches")


def _structure(module: nn.Module) -> list[tuple[str, list[tuple[str, str]]]]:
    """List the types of a module's parts and their settings; of other people's modules no counts, which may be of calls."""
    found = []
    for part in module.modules():
        name = getattr(part, "original_name", type(part).__name__)
        if name in _CONTAINERS:
            continue
        counted = type(part).__module__.startswith("torch.")
        kinds = (bool, float, str) if not counted else (bool, float, str, int, tuple)
        settings = [
            (key, repr(value))
            for key, value in sorted(vars(part).items())
            if isinstance(value, kinds)
            and not key.startswith("_")
            and key not in _NO_SETTINGS
            and (counted or isinstance(value, bool) or not isinstance(value, int))
        ]
        found.append((name, settings))
    return found


def embed_all(encoder: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Embed `x` 64 examples at a time, in eval mode, without gradients; check what comes back."""
    if not callable(encoder):
        refuse("encoder", "a callable (n, 1, 96, 64) -> (n, D)", encoder, "pass the encoder itself", ArgumentTypeError)
    parts = []
    with neutral_torch(), evaluation_mode(encoder):
        for chunk in torch.split(x.detach(), MICRO_BATCH):
            with callers_torch():
                h = encoder(like_weights(chunk, encoder))
            if not isinstance(h, Tensor) or h.ndim != 2 or len(h) != len(chunk) or h.shape[1] == 0:
                refuse(
                    "encoder", f"embeddings of shape ({len(chunk)}, D)", h, "flatten or pool its output", EncoderError
                )
            if not bool(torch.isfinite(h).all()):
                refuse("encoder", "finite embeddings", f"NaN or infinite entries in {describe(h)}", _LOOK, EncoderError)
            parts.append(h)
    embedded = torch.cat(parts)
    if not bool(embedded.any()):
        refuse("encoder", "embeddings that are not zero", f"zeros only in {describe(embedded)}", _LOOK, EncoderError)
    if bool((embedded == embedded[0]).all()):
        refuse("encoder", "embeddings that differ between examples", "the same one for all", _LOOK, EncoderError)
    return embedded


def checked_embedding(h: object, rows: int, *, nonzero: bool, what: str = "encoder") -> Tensor:
    """Return embeddings as ``(rows, D)``, or say what is wrong with what the encoder returned.

    Parameters
    ----------
    h
        What the encoder returned: ``(rows, D)``, or ``(rows,)``, which counts as D = 1.
    rows
        Expected number of embeddings.
    nonzero
        Refuse rows of zeros, which have no direction.
    what
        What to call it in messages.

    Raises
    ------
    EncoderError
        Unless it is a finite tensor of that shape.
    """
    if not isinstance(h, Tensor):
        refuse(what, "a tensor (n, D)", f"a {type(h).__name__}", "return the embedding alone", EncoderError)
    if h.ndim == 1 and len(h) == rows:
        h = h[:, None]
    if h.ndim != 2 or len(h) != rows or h.shape[1] == 0:
        remedy = "return one vector an example, for example by flatten(1) or a mean over the extra axes"
        refuse(what, f"embeddings of shape ({rows}, D)", h, remedy, EncoderError)
    if not h.is_floating_point():
        h = h.float()
    if not bool(torch.isfinite(h).all()):
        refuse(what, "finite embeddings", "NaN or infinite ones", "check its weights and input scale", EncoderError)
    if nonzero and bool((h == 0).all(dim=1).any()):
        remedy = (
            "an all-zero embedding has no direction to compare with; check the weights, or use a layer before the ReLU"
        )
        refuse(what, "non-zero embeddings", "an all-zero one", remedy, EncoderError)
    return h
