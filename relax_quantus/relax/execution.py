"""Run one call's encoder: in which precision, on how many masked copies at a time.

The caller's encoder and a call enter; something to call on masked copies leaves. Between the
validated call and the comparison of embeddings; the caller's encoder is not changed.

How many copies go through at once, and in which precision, is measured and remembered. A CPU is
fastest where a micro-batch's activations stay in its cache, a GPU where there is enough to do; the
few sizes that a small share of the call pays for are timed, on copies of the input itself, so that
no mask is drawn.

Hidden state: all that this package keeps between calls, or changes in the process, without being
asked. With the environment variable ``RELAX_QUANTUS_HIDDEN_STATE=off``, which is read in each call,
it does nothing of the first three.

- What was measured: masks a forward, and the precision chosen by ``"auto"``, for an encoder, the
  shapes and types of its inputs and the number of threads, as long as the encoder lives. Off: the
  usual numbers and float32, and nothing is timed. The result is the same but for rounding.
- The allocator's threshold: on a CPU glibc is led to keep memory that forwards free; see
  `keep_freed_memory`.
- The descriptor of stderr: while a decoder runs that chatters there, stderr leads to the null
  device; see `relax_quantus.audio.reading`.
- Tables that depend on their arguments alone, such as the matrix of mel bands, are computed once a
  process.

While a call runs, and only then, the encoder is in eval mode and torch has its default settings
(`relax_quantus.base.networks`); both are as they were when it ends.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import callers_torch, module_behind, modules_behind
from relax_quantus.errors import ArgumentTypeError, ShapeError
from relax_quantus.relax.call import CheckedCall
from relax_quantus.relax.captum_private import forward_repeated
from relax_quantus.relax.fast_copy import inference_copy, is_plain

FORWARD_ROWS = 48
"""Copies a forward where nothing was measured on a CPU, and the most examples of a batch that share
one."""
CPU_ROWS = (24, 96, 12, 192)
"""What is tried beside `FORWARD_ROWS`, in this order, as far as the budget goes."""
GPU_ROWS = 256
OTHER_GPU_ROWS = (512, 1024, 128)
REPEATS = 2
BUDGET = 0.05
"""Share of the call's forwards that measuring may cost."""
GAIN = 0.03
"""Share of the time by which another size has to be faster than the usual one: timings are
noisy."""

HIDDEN_STATE = "RELAX_QUANTUS_HIDDEN_STATE"
"""Environment variable that switches hidden state off."""

_LARGEST_KEPT_BYTES = (32 << 20) - 8192


@dataclass(frozen=True)
class Plan:
    """Say how a call runs the encoder.

    Parameters
    ----------
    perturbations_per_eval
        Masks a forward, each with the whole batch (or with a block of at most `FORWARD_ROWS`
        examples of it).
    precision
        ``"float32"`` or ``"bfloat16"``.
    """

    perturbations_per_eval: int
    precision: str = "float32"


def keeps_state() -> bool:
    """Tell whether something may be kept between calls or changed in the process; see above."""
    chosen = os.environ.get(HIDDEN_STATE, "on")
    if chosen not in ("on", "off"):
        checks.refuse(HIDDEN_STATE, "'on' or 'off'", repr(chosen), "set one of them, or unset it")
    return chosen == "on"


_measured: weakref.WeakKeyDictionary[object, dict[Hashable, Any]] = weakref.WeakKeyDictionary()


def recalled(encoder: object, key: Hashable) -> Any:
    """Return what was measured for `encoder` and `key`, or None."""
    owner, name = _owner(encoder)
    try:
        return _measured.get(owner, {}).get((name, key))
    except TypeError:
        return None


def remember(encoder: object, key: Hashable, chosen: object) -> None:
    """Keep a choice for as long as `encoder` lives, or the object that it is a method of.

    Without weak references it is not kept.
    """
    owner, name = _owner(encoder)
    try:
        _measured.setdefault(owner, {})[name, key] = chosen
    except TypeError:
        return


def _owner(encoder: object) -> tuple[object, str]:
    """Return what lives as long as the caller means the encoder to, and the name of its method."""
    owner = getattr(encoder, "__self__", None)
    return (encoder, "") if owner is None else (owner, str(getattr(encoder, "__name__", "")))


def sizes(examples: int, device: str, budget_rows: float) -> list[int]:
    """List numbers of masks a forward to time, the usual one first.

    Others follow as far as timing them all costs at most `budget_rows` copies.

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
    """Return the first choice, unless another is faster by the share `gain`.

    Each is timed `REPEATS` times, in turn, and its least time counts.
    """
    times = dict.fromkeys(range(len(choices)), float("inf"))
    for _ in range(REPEATS):
        for i, choice in enumerate(choices):
            times[i] = min(times[i], seconds(choice))
    best = min(times, key=lambda i: times[i])
    return choices[best] if times[best] < (1 - gain) * times[0] else choices[0]


def keep_freed_memory() -> None:
    """Let glibc's allocator keep what a forward frees for the next one.

    It takes blocks of more than a threshold from the system and gives memory back beyond twice
    that, so that each forward's activations are mapped, and their pages cleared, anew: a quarter of
    the time of `vggish_mini`. The threshold follows the largest block freed so far, up to 32 MiB;
    this frees one, never touched, of just that size. Elsewhere it does nothing.
    """
    torch.empty(_LARGEST_KEPT_BYTES, dtype=torch.uint8)


def clock(run: Callable[[], object], device: torch.device) -> float:
    """Time `run` on `device`, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether the device computes in bfloat16 itself; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in probes)
    return False


PRECISIONS = ("float32", "bfloat16", "auto")
COPY_ROWS = 96
"""Fewer masked copies than this are not worth a copy of the encoder."""
FORWARD_ENTRIES = 1 << 22
"""Entries of the masked copies in a forward at most, unless the caller chooses: 16 MiB in
float32."""
AUTO_GAIN = 0.1
"""Share of the time that bfloat16 has to save before ``"auto"`` takes it."""

_INTERCHANGEABLE = (torch.float32, torch.float64)
Encoder = Callable[..., Any]
Choice = TypeVar("Choice")


class Execution:
    """Run one call's encoder.

    Parameters
    ----------
    encoder
        The caller's.
    call
        The call's checked arguments.
    precision
        ``"float32"``: as the encoder's weights are; ``"bfloat16"``: autocast; ``"auto"``: bfloat16
        where the device computes in it and a measurement shows that it is faster.

    Attributes
    ----------
    plan
        Masks a forward and precision, as `prepare` left them.
    examples, most_rows
        At most so many examples of the batch, and masked copies, in a forward.
    """

    def __init__(self, encoder: Encoder, call: CheckedCall, precision: str = "float32") -> None:
        self.encoder, self.call = encoder, call
        self.running: Encoder = encoder
        self.requested = precision
        self.most_rows = FORWARD_ENTRIES // self._entries()
        self.examples = self._examples()
        self.plan = Plan(1, "float32" if precision == "auto" else precision)
        self.most_masks = call.perturbations_per_eval or 0
        self.is_filled = False
        self.weights_type = _weights_type(encoder)

    @property
    def is_fixed(self) -> bool:
        """Whether a forward has to hold the whole batch, as arguments or targets belong to it."""
        return self.call.additional_forward_args is not None or self.call.target is not None

    @property
    def has_lowered_precision(self) -> bool:
        """Whether `prepare` left a lower precision than what was embedded before it had."""
        return self.requested == "auto" and self.plan.precision == "bfloat16"

    def embed(self, inputs: tuple[Tensor, ...]) -> Any:
        """Run the encoder on rows, or on whole batches with the call's target and arguments.

        Embeddings in 16 bits come back in float32, so that similarities are never computed in less.
        Where the caller says how many masks a forward takes, an encoder that refuses fewer rows
        than those gets as many, filled up with copies whose embeddings are dropped.
        """
        inputs, rows, whole = self.like_weights(inputs), len(inputs[0]), self.most_masks * self._block_examples()
        if rows >= whole:
            return self._run(inputs)
        if not self.is_filled:
            # an encoder may begin with an in-place operation
            kept = tuple(x.clone() for x in inputs)
            try:
                return self._run(inputs)
            except Exception as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                try:
                    h = self._filled(kept, rows, whole)
                except Exception:
                    raise error from None
                self.is_filled = True
                return h
        return self._filled(inputs, rows, whole)

    def like_weights(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Bring float64 inputs of a float32 network to its type, and the other way round.

        Others are left to the encoder.
        """
        if self.weights_type is None:
            return inputs
        return tuple(x.to(self.weights_type) if x.dtype in _INTERCHANGEABLE else x for x in inputs)

    def _run(self, inputs: tuple[Tensor, ...]) -> Any:
        lowered = torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=self.plan.precision == "bfloat16")
        with callers_torch(), lowered:
            h = self._run_repeated(inputs) if self.is_fixed else self.running(*inputs)
        return h.float() if isinstance(h, Tensor) and h.dtype in (torch.bfloat16, torch.float16) else h

    def _run_repeated(self, inputs: tuple[Tensor, ...]) -> Any:
        """Run with the batch's target and additional arguments, repeated for each whole batch."""
        call, times = self.call, len(inputs[0]) // self.call.batch
        return forward_repeated(self.running, inputs, times, call.target, call.additional_forward_args)

    def _filled(self, inputs: tuple[Tensor, ...], rows: int, whole: int) -> Any:
        """Run the encoder on `rows` rows, repeated until there are `whole`."""
        again = torch.arange(whole, device=inputs[0].device) % rows
        h = self._run(tuple(x[again] for x in inputs))
        return h[:rows] if isinstance(h, Tensor) and h.ndim > 0 and len(h) == whole else h

    def refuse_misfits(self, inputs: tuple[Tensor, ...]) -> None:
        """Raise if refused inputs only lack axes in front, or are not of the weights' type."""
        modules = modules_behind(self.encoder)
        if not modules or self.is_fixed:
            return
        weights = next((p.dtype for m in modules for p in m.parameters() if p.is_floating_point()), None)
        if (
            weights is not None
            and any(x.dtype != weights for x in inputs)
            and self._takes(x.to(weights) for x in inputs)
        ):
            found = next(x for x in inputs if x.dtype != weights)
            remedy = f"convert them with inputs.to({weights})"
            checks.refuse("inputs", f"{weights}, the type of the encoder's weights", found, remedy, ArgumentTypeError)
        for missing in ("None", "None, None"):
            inputs = tuple(x[None] for x in inputs)
            if self._takes(inputs) and self._takes(torch.cat([x, x]) for x in inputs):
                rule = "examples of shape (B, ...), with the batch axis in front"
                got = self.call.inputs[0]
                checks.refuse("inputs", rule, got, f"the encoder takes inputs[{missing}], so pass that", ShapeError)

    def _takes(self, inputs: Iterable[Tensor]) -> bool:
        """Whether the encoder returns one embedding for each of these rows."""
        rows = tuple(x.clone() for x in inputs)
        try:
            h = self._run(rows)
        except Exception:
            return False
        return isinstance(h, Tensor) and h.ndim == 2 and len(h) == len(rows[0])

    def blocks(self, rows: slice | None = None) -> list[slice]:
        """Cut `rows`, by default the batch, into blocks that go through the encoder together.

        There are as few as `examples` allows, and they are even.
        """
        start, stop = (0, self.call.batch) if rows is None else (rows.start, rows.stop)
        size = -(-(stop - start) // -(-(stop - start) // self.examples))
        return [slice(i, min(i + size, stop)) for i in range(start, stop, size)]

    def masks_a_forward(self, examples: int | None = None) -> int:
        """Return the masks a forward, or more where few examples of a block are left."""
        masks = self.plan.perturbations_per_eval
        return masks if examples is None else masks * max(1, self._block_examples() // examples)

    def halve(self) -> bool:
        """Make forwards half as large, masks first, then examples; False if that is impossible."""
        masks = self.plan.perturbations_per_eval
        self.most_rows = min(self.most_rows, self._block_examples() * masks) // 2
        self.most_masks = min(self.most_masks, masks // 2)
        if masks > 1:
            self.plan = Plan(masks // 2, self.plan.precision)
            if self.call.perturbations_per_eval is None and keeps_state():
                remember(self.encoder, self._key(self.plan.precision), masks // 2)
        elif self.examples > 1 and not self.is_fixed:
            self.examples = -(-min(self.examples, self.call.batch) // 2)
        else:
            return False
        return True

    def prepare(self) -> None:
        """Decide how to run: as remembered, as measured within `BUDGET`, or as usual."""
        call = self.call
        if call.inputs[0].device.type == "cpu" and keeps_state():
            keep_freed_memory()
        rows, given = call.n_samples * call.batch, call.perturbations_per_eval
        precision = self._decided("precision", lambda: self._timed_precision(rows)) or self.plan.precision
        self._make_ready(precision, rows)
        masks = given or self._decided(precision, lambda: self._timed_masks(rows)) or self._sizes()[0]
        self.plan = Plan(min(masks, call.n_samples), precision)

    def _decided(self, what: str, measure: Callable[[], Choice | None]) -> Choice | None:
        """Return what is remembered for such inputs, or what is measured now; None if neither."""
        if not keeps_state():
            return None
        key = self._key(what)
        chosen: Choice | None = recalled(self.encoder, key)
        if chosen is None and self._is_timeable():
            chosen = measure()
            if chosen is not None:
                remember(self.encoder, key, chosen)
        return chosen

    def _key(self, what: str) -> tuple[Any, ...]:
        """Return what a choice depends on, beside the encoder."""
        shapes = tuple((tuple(x.shape[1:]), x.dtype, str(x.device)) for x in self.call.inputs)
        return what, shapes, self._block_examples(), self.requested, torch.get_num_threads()

    def _examples(self) -> int:
        """Return how many examples a forward has at most: all, where arguments belong to them."""
        if self.is_fixed:
            return self.call.batch
        return max(1, min(FORWARD_ROWS, self.most_rows))

    def _entries(self) -> int:
        return sum(int(t.x[0].numel()) for t in self.call.tensors)

    def _block_examples(self) -> int:
        block = self.blocks()[0]
        return int(block.stop - block.start)

    def _is_timeable(self) -> bool:
        """Whether the encoder can be run on other rows than the call's own."""
        return not self.is_fixed

    def _make_ready(self, precision: str, rows: int) -> None:
        module = module_behind(self.encoder)
        self.plan = Plan(1, precision)
        if rows < COPY_ROWS or self.is_fixed or module is None or not is_plain(module):
            return
        probe = self.like_weights(tuple(torch.cat([t.x[:1], t.level[:1]]) for t in self.call.tensors))
        if self.most_masks:
            probe = tuple(x[: self.most_masks * self._block_examples()] for x in probe)
        try:
            with callers_torch():
                self.running = inference_copy(self.encoder, probe, torch.bfloat16 if precision == "bfloat16" else None)
        except Exception as error:  # of an encoder that takes whole forwards only
            if not self.most_masks or isinstance(error, torch.OutOfMemoryError):
                raise

    def _timed_precision(self, rows: int) -> str | None:
        """Time the usual forward in both precisions; None if there is no choice or no budget."""
        masks, device = self.most_masks or self._sizes()[0], self.call.inputs[0].device
        cost = 2 * REPEATS * masks * self._block_examples()
        if self.requested != "auto" or not has_bfloat16(device) or cost > BUDGET * rows:
            return None
        ready: dict[str, Encoder] = {}

        def seconds(precision: str) -> float:
            if precision not in ready:
                self._make_ready(precision, rows)
                ready[precision] = self.running
            self.running, self.plan = ready[precision], Plan(1, precision)
            return self._seconds(masks)

        chosen = fastest(("float32", "bfloat16"), seconds, AUTO_GAIN)
        self.running, self.plan = self.encoder, Plan(1, "float32")
        return chosen

    def _timed_masks(self, rows: int) -> int | None:
        """Time a few sizes of forwards; None if the budget allows for one only."""
        choices = self._sizes(BUDGET * rows)
        if len(choices) < 2:
            return None
        return fastest(choices, lambda masks: self._seconds(masks) / masks)

    def _sizes(self, budget_rows: float = 0) -> list[int]:
        """List numbers of masks a forward to choose from, the usual one first."""
        examples, device = self._block_examples(), self.call.inputs[0].device.type
        most = max(1, self.most_rows // examples)
        found = sizes(examples, device, budget_rows)
        return list(dict.fromkeys(min(masks, most, self.call.n_samples) for masks in found))

    def _seconds(self, masks: int) -> float:
        """Time one forward of unmasked copies; endless if it does not fit.

        The global generators are left as found.
        """
        block = self.blocks()[0]
        inputs = tuple(x[block].repeat(masks, *[1] * (x.ndim - 1)) for x in self.call.inputs)
        device = inputs[0].device
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                return clock(lambda: self.embed(inputs), device)
        except torch.OutOfMemoryError:
            return float("inf")


def _weights_type(encoder: Encoder) -> torch.dtype | None:
    """Return the type of a module's weights, if they are all float32 or all float64."""
    module = module_behind(encoder)
    types = {p.dtype for p in module.parameters() if p.is_floating_point()} if module is not None else set()
    return types.pop() if len(types) == 1 and types <= set(_INTERCHANGEABLE) else None
