"""How many masked copies go through the encoder at once, and in which precision: measured, and remembered.

What a call will run enters, a `Plan` leaves. A CPU is fastest where a micro-batch's activations stay in its cache, a GPU where there is
enough to do; the few sizes that a small share of the call pays for are timed, on copies of the input itself, so that no mask is drawn. The
plan is the only thing that the package remembers between calls: as long as the encoder lives, by what can change it.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

FORWARD_ROWS = 48
"""Copies a forward where nothing was measured on a CPU; also the most examples of a batch that go through it together."""
CPU_ROWS = (24, 96, 12, 192)
"""What is tried beside `FORWARD_ROWS`, in this order, as far as the budget goes."""
GPU_ROWS = 256
OTHER_GPU_ROWS = (512, 1024, 128)
REPEATS = 2
BUDGET = 0.05
"""Share of the call's forwards that measuring may cost."""
GAIN = 0.03
"""Share of the time by which another size has to be faster than the usual one, which is otherwise kept: timings are noisy."""

_LARGEST_KEPT_BYTES = (32 << 20) - 8192

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Plan:
    """How a call runs the encoder.

    Parameters
    ----------
    perturbations_per_eval
        Masks a forward, each with the whole batch (or with a block of at most `FORWARD_ROWS` examples of it).
    precision
        ``"float32"`` or ``"bfloat16"``.
    """

    perturbations_per_eval: int
    precision: str = "float32"


_measured: weakref.WeakKeyDictionary[object, dict[Hashable, Any]] = weakref.WeakKeyDictionary()


def recalled(encoder: object, key: Hashable) -> Any:
    """Return what was measured for `encoder` and `key`, or None."""
    owner, name = _owner(encoder)
    try:
        return _measured.get(owner, {}).get((name, key))
    except TypeError:
        return None


def remember(encoder: object, key: Hashable, chosen: object) -> None:
    """Keep a choice for as long as `encoder`, or the object that it is a method of, lives; without weak references it is not kept."""
    owner, name = _owner(encoder)
    try:
        _measured.setdefault(owner, {})[name, key] = chosen
    except TypeError:
        return


def _owner(encoder: object) -> tuple[object, str]:
    """Return what lives as long as the caller means the encoder to: for a bound method its object, with the method's name."""
    owner = getattr(encoder, "__self__", None)
    return (encoder, "") if owner is None else (owner, str(getattr(encoder, "__name__", "")))


def sizes(examples: int, device: str, budget_rows: float) -> list[int]:
    """Masks a forward, the usual number first, then others as far as timing them all costs at most `budget_rows` copies.

    Parameters
    ----------
    examples
        That go through a forward with each mask.
    device
        Its kind, ``"cpu"``, ``"cuda"``, ...
    budget_rows
        See `BUDGET`.
    """
    usual, others = (FORWARD_ROWS, CPU_ROWS) if device == "cpu" else (GPU_ROWS, OTHER_GPU_ROWS)
    found = [max(1, usual // examples)]
    spent = REPEATS * found[0] * examples
    for rows in others:
        masks = max(1, rows // examples)
        spent += REPEATS * masks * examples
        if spent > budget_rows:
            break
        if masks not in found:
            found.append(masks)
    return found


def fastest(choices: Sequence[Choice], seconds: Callable[[Choice], float], gain: float = GAIN) -> Choice:
    """Return the first of `choices`, unless another's least time of `REPEATS` is shorter by the share `gain`; taken in turn."""
    times = dict.fromkeys(range(len(choices)), float("inf"))
    for _ in range(REPEATS):
        for i, choice in enumerate(choices):
            times[i] = min(times[i], seconds(choice))
    best = min(times, key=lambda i: times[i])
    return choices[best] if times[best] < (1 - gain) * times[0] else choices[0]


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what a forward frees for the next one.

    It takes blocks of more than a threshold from the system and gives memory back beyond twice that, so that each forward's activations are
    mapped, and their pages cleared, anew: a quarter of the time of `vggish_mini`. The threshold follows the largest block freed so far, up to
    32 MiB; this frees one, never touched, of just that size. Elsewhere it does nothing.
    """
    torch.empty(_LARGEST_KEPT_BYTES, dtype=torch.uint8)


def clock(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that `run` takes on `device`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself; emulated, it is several times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in probes)
    return False
