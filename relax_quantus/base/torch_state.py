"""Keep the caller's torch settings away from our own arithmetic, and give them back to the caller's own code.

Nothing enters and nothing leaves: inside `neutral_torch` torch computes as in a fresh process, whatever the caller's program has switched
on, and inside `callers_torch`, where an encoder or another object of the caller runs, as the caller has it. Stands at the bottom of the flow;
every public function that computes enters it once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["callers_torch", "exact", "neutral_torch"]

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")
_processwide = threading.RLock()
_changed = threading.Event()
"""Set while a thread, which holds the lock, has changed the process's settings."""


@dataclass(frozen=True)
class _Settings:
    """Settings that all threads share.

    Attributes
    ----------
    dtype
        What new floating tensors are made of.
    deterministic, warn_only
        As of `torch.use_deterministic_algorithms`.
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
        """Whether our arithmetic can run under them as they are."""
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
    """What the caller had when our code was entered; None where it is neutral, or another thread's."""

    settings: _Settings | None
    device: torch.device | None
    inference: bool


class _Thread(threading.local):
    """What this thread has to give back to its caller; None outside of our code."""

    callers: _Callers | None = None


_thread = _Thread()


def _products() -> tuple[Any, Any]:
    """Torch's settings for matrix products of the CPU and of the GPU."""
    cpu: Any = torch.backends.mkldnn
    return cpu.matmul, torch.backends.cuda.matmul


@contextmanager
def neutral_torch(*, gradients: bool = False) -> Iterator[None]:
    """Compute as in a fresh process: float32 by default, on the CPU, at full precision, without autocast; as a decorator, too.

    Settings of the whole process are changed only where they differ, by one thread at a time, so that others that want them changed wait.

    Parameters
    ----------
    gradients
        Leave gradients, and inference mode, as the caller has them; else there are none, and tensors are ordinary ones, which can be used
        later and elsewhere.

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
    """Make the process's settings neutral until `stack` ends; return what they were if they were not, else None."""
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
    """Compute as the caller has it while code of the caller's runs, autocast and gradients apart; outside of ours nothing changes.

    An encoder's precision is an argument of the call, so that it does not depend on where the call stands.

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
    """Return `x` in a type to compute in: float32 where it is shorter or whole numbers, else its own."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
