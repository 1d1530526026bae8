"""Run a caller's networks without leaving a trace, and compute apart from the caller's settings.

Any callable enters; nothing about it has changed when it leaves: eval mode, the type and place of
weights, a fingerprint, embeddings in blocks. Inside `neutral_torch` torch computes as in a fresh
process, whatever the caller's program has switched on; inside `callers_torch`, where an encoder or
another object of the caller runs, as the caller has it. Stands at the bottom of the flow; every
public function that computes enters `neutral_torch` once.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from relax_quantus.base.checks import describe, refuse
from relax_quantus.base.identity import identity
from relax_quantus.errors import ArgumentTypeError, EncoderError

MICRO_BATCH = 64
_DEEPEST = 4
"""Steps from a callable to the modules that are looked for behind it."""
_LOOK = "check its weights and that its input is what it was trained on"
_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")
_processwide = threading.RLock()
_changed = threading.Event()
"""Set while a thread, which holds the lock, has changed the process's settings."""


@dataclass(frozen=True)
class _Settings:
    """Hold the settings that all threads share.

    Attributes
    ----------
    dtype
        Type of new floating tensors.
    deterministic, warn_only
        Whether and how torch insists on deterministic algorithms.
    precisions
        How the CPU's and the GPU's matrix products may round float32.
    """

    dtype: torch.dtype = torch.float32
    deterministic: bool = False
    warn_only: bool = False
    precisions: tuple[str, str] = ("ieee", "ieee")

    @classmethod
    def current(cls) -> _Settings:
        """Read torch's."""
        precisions = (str(backend.fp32_precision) for backend in _products())
        return cls(
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            (next(precisions), next(precisions)),
        )

    @property
    def is_neutral(self) -> bool:
        """Whether our arithmetic can run under these settings as they are."""
        return not self.deterministic and self.dtype == torch.float32 and {"none", "ieee"} >= set(self.precisions)

    def apply(self) -> None:
        """Make them torch's."""
        torch.set_default_dtype(self.dtype)
        if (self.deterministic, self.warn_only) != (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ):
            torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
        for backend, precision in zip(_products(), self.precisions, strict=True):
            if backend.fp32_precision != precision:  # "none" goes on following the setting for all backends
                backend.fp32_precision = (
                    "none" if precision == getattr(torch.backends, "fp32_precision", None) else precision
                )


@dataclass(frozen=True)
class _Callers:
    """Remember what the caller had when our code was entered.

    None where it is neutral, or another thread's.
    """

    settings: _Settings | None
    device: torch.device | None
    inference: bool


class _Thread(threading.local):
    """Remember what this thread has to give back to its caller; None outside of our code."""

    callers: _Callers | None = None


_thread = _Thread()


def _products() -> tuple[Any, Any]:
    """Return torch's settings for matrix products of the CPU and of the GPU."""
    cpu: Any = torch.backends.mkldnn
    return cpu.matmul, torch.backends.cuda.matmul


@contextmanager
def neutral_torch(*, gradients: bool = False) -> Iterator[None]:
    """Compute as in a fresh process, whatever the caller has switched on; as a decorator, too.

    That is float32 by default, on the CPU, at full precision, without autocast.

    Settings of the whole process are changed only where they differ, by one thread at a time, so
    that others that want them changed wait.

    Parameters
    ----------
    gradients
        Leave gradients, and inference mode, as the caller has them; else there are none, and
        tensors are ordinary ones, which can be used later and elsewhere.

    Examples
    --------
    >>> with torch.autocast("cpu", torch.bfloat16), neutral_torch():
    ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
    torch.float32
    """
    with ExitStack() as stack:
        if _thread.callers is None:
            settings = _processwide_settings(stack)
            default = torch.get_default_device()
            device = None if default.type == "cpu" else default
            _thread.callers = _Callers(settings, device, not gradients and torch.is_inference_mode_enabled())
            stack.callback(setattr, _thread, "callers", None)
            if device is not None:
                stack.enter_context(torch.device("cpu"))
            for kind in _AUTOCAST_DEVICES:
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
        if not gradients:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        yield


def _processwide_settings(stack: ExitStack) -> _Settings | None:
    """Make the process's settings neutral until `stack` ends.

    Returned is what they were if they were not neutral, else None.
    """
    if _Settings.current().is_neutral and not _changed.is_set():
        return None
    stack.enter_context(_processwide)
    found = _Settings.current()
    if found.is_neutral:
        return None
    _changed.set()
    stack.callback(_changed.clear)
    stack.callback(found.apply)
    _Settings().apply()
    return found


@contextmanager
def callers_torch(*, gradients: bool = False) -> Iterator[None]:
    """Compute as the caller has it while code of the caller's runs, autocast and gradients apart.

    Outside of our code nothing changes.

    An encoder's precision is an argument of the call, so that it does not depend on where the call
    stands.

    Parameters
    ----------
    gradients
        Leave out the caller's inference mode, in which nothing can be trained.
    """
    callers = _thread.callers
    if callers is None:
        yield
        return
    with ExitStack() as stack:
        _thread.callers = None
        stack.callback(setattr, _thread, "callers", callers)
        if callers.settings is not None:
            stack.callback(_Settings().apply)
            callers.settings.apply()
        if callers.device is not None:
            stack.enter_context(callers.device)
        if callers.inference and not gradients:
            stack.enter_context(torch.inference_mode())
        yield


def exact(x: Tensor) -> Tensor:
    """Return `x` in a type to compute in.

    That is float32 where it is shorter or whole numbers, else its own.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


_modes = threading.Lock()
_in_use: dict[int, list[Any]] = {}
"""Submodules in training mode that are run in eval mode just now, by identity: [submodule, how
often]."""


@contextmanager
def evaluation_mode(encoder: object) -> Iterator[None]:
    """Run an encoder's modules in eval mode, and leave their modes and buffers as they were.

    They are as they were also when it raises.

    Threads may share a network: it gets its modes back when the last one is done.

    Parameters
    ----------
    encoder
        A module, a method of one, or any other callable. Modules that `modules_behind` does not
        find are met when they are run in this thread.

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
    """Undo what a forward did to a buffer.

    One that was replaced by another shape is a cache that grew, and stays.
    """
    found = dict(part.named_buffers(recurse=False)).get(name)
    if found is None or found.shape != value.shape or found.dtype != value.dtype:
        return
    if not isinstance(part, torch.jit.ScriptModule):
        part._buffers[name] = found = value
    if not torch.equal(found, content):
        with torch.inference_mode(found.is_inference()), torch.no_grad():
            found.copy_(content)


def modules_behind(encoder: object) -> list[nn.Module]:
    """Find the modules that a callable runs.

    That is what it is itself, is a method of, closes over, is given beforehand or names.

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
    """Return what a callable or a container holds, as far as a module may be among it."""
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


def module_behind(encoder: object) -> nn.Module | None:
    """Return the module that `encoder` is, or is a method of; None for any other callable."""
    owner = encoder.__self__ if isinstance(encoder, types.MethodType) else encoder
    return owner if isinstance(owner, nn.Module) else None


def like_weights(x: Tensor, module: object) -> Tensor:
    """Return `x` on the device and in the floating type of `module`'s first weight.

    Without a weight, `x` as floats.
    """
    if isinstance(module, nn.Module):
        for weight in (*module.parameters(), *module.buffers()):
            if weight.is_floating_point():
                return x.to(weight)
    return x if x.is_floating_point() else x.float()


def has_weights(encoder: object) -> bool:
    """Tell whether there are weights or buffers by which to tell the encoder from others."""
    return isinstance(encoder, nn.Module) and any(isinstance(v, Tensor) for v in encoder.state_dict().values())


def fingerprint(encoder: object) -> str:
    """Digest what tells an encoder from others; return "" where that cannot be told.

    The digest is the same in every process.

    Returns
    -------
    str
        SHA-256 over the weights in order, shapes and types included, and the structure: types of
        the modules and their settings, names not, containers not. Of what has no weights its
        `relax_quantus.base.identity`: structure, constants, code and what that reads.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> fingerprint(layer) == fingerprint(nn.Sequential(layer))
    True
    >>> fingerprint(nn.Flatten()) == fingerprint(nn.Identity())
    False
    >>> fingerprint(layer) == fingerprint(nn.Sequential(layer, nn.Tanh()))
    False
    """
    if isinstance(encoder, nn.Module) and callable(own := getattr(encoder, "fingerprint", None)):
        return str(own())
    if not isinstance(encoder, nn.Module) or not has_weights(encoder):
        return identity(encoder)
    return hashlib.sha256(f"{weights_digest(encoder)}{_structure(encoder)}".encode()).hexdigest()


def weights_digest(encoder: object) -> str:
    """Digest the weights of a module alone; return "" without any.

    That was its fingerprint in version 0.1.0.
    """
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
    """List the types of a module's parts and their settings.

    Whole numbers count for torch's own modules alone: those of others may count calls.
    """
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
