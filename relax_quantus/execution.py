"""One call's encoder, made ready: what runs it, in which precision, how many masked copies at a time.

The caller's encoder and a `Problem` enter; something to call on masked copies leaves. Between the validated call and the comparison of
embeddings; the caller's encoder is not changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from relax_quantus import micro_batch
from relax_quantus.captum_private import forward_repeated
from relax_quantus.inference_copy import inference_copy, is_plain, module_behind
from relax_quantus.micro_batch import Plan
from relax_quantus.problem import Problem

PRECISIONS = ("float32", "bfloat16", "auto")
COPY_ROWS = 96
"""Fewer masked copies than this are not worth a copy of the encoder."""
FORWARD_ENTRIES = 1 << 22
"""Entries of the masked copies in a forward at most, unless the caller says how many masks it takes: 16 MiB in float32."""
AUTO_GAIN = 0.1
"""Share of the time that bfloat16 has to save before ``"auto"`` takes it."""

Encoder = Callable[..., Any]
Choice = TypeVar("Choice")


class Execution:
    """Runs one call's encoder.

    Parameters
    ----------
    encoder
        The caller's.
    problem
        The call's validated arguments.
    precision
        ``"float32"``: as the encoder's weights are; ``"bfloat16"``: autocast; ``"auto"``: bfloat16 where the device computes in it and a
        measurement shows that it is faster.

    Attributes
    ----------
    plan
        Masks a forward and precision, as `prepare` left them.
    examples, most_rows
        At most so many examples of the batch, and masked copies, in a forward.
    """

    def __init__(self, encoder: Encoder, problem: Problem, precision: str = "float32") -> None:
        self.encoder, self.problem = encoder, problem
        self.running: Encoder = encoder
        self.requested = precision
        self.most_rows = FORWARD_ENTRIES // self._entries()
        self.examples = self._examples()
        self.plan = Plan(1, "float32" if precision == "auto" else precision)

    @property
    def is_fixed(self) -> bool:
        """Whether a forward has to hold the whole batch, since additional arguments or targets belong to it."""
        return self.problem.additional_forward_args is not None or self.problem.target is not None

    @property
    def has_lowered_precision(self) -> bool:
        """Whether `prepare` left a lower precision than what was embedded before it had."""
        return self.requested == "auto" and self.plan.precision == "bfloat16"

    def embed(self, inputs: tuple[Tensor, ...]) -> Any:
        """Run the encoder on rows, or on whole batches one after another with the call's target and additional arguments.

        Embeddings in 16 bits come back in float32, so that similarities are never computed in less.
        """
        plan = self.plan
        problem, times = self.problem, len(inputs[0]) // self.problem.batch if self.is_fixed else 1
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            h = forward_repeated(self.running, inputs, times, problem.target, problem.additional_forward_args)
        return h.float() if isinstance(h, Tensor) and h.dtype in (torch.bfloat16, torch.float16) else h

    def blocks(self, rows: slice | None = None) -> list[slice]:
        """Cut `rows`, by default the batch, into what goes through the encoder together: as few and as even blocks as `examples` allows."""
        start, stop = (0, self.problem.batch) if rows is None else (rows.start, rows.stop)
        size = -(-(stop - start) // -(-(stop - start) // self.examples))
        return [slice(i, min(i + size, stop)) for i in range(start, stop, size)]

    def masks_a_forward(self, examples: int | None = None) -> int:
        """Masks a forward, as planned, or as many more as fill it where only so many examples of a block are left."""
        masks = self.plan.perturbations_per_eval
        return masks if examples is None else masks * max(1, self._block_examples() // examples)

    def halve(self) -> bool:
        """Make forwards half as large, masks first, then examples, and remember it; False if they cannot be smaller."""
        masks = self.plan.perturbations_per_eval
        self.most_rows = min(self.most_rows, self._block_examples() * masks) // 2
        if masks > 1:
            self.plan = Plan(masks // 2, self.plan.precision)
            if self.problem.perturbations_per_eval is None:
                micro_batch.remember(self.encoder, self._key(self.plan.precision), masks // 2)
        elif self.examples > 1 and not self.is_fixed:
            self.examples = -(-min(self.examples, self.problem.batch) // 2)
        else:
            return False
        return True

    def prepare(self) -> None:
        """Decide how to run: as remembered, as measured within `micro_batch.BUDGET`, or as usual."""
        problem = self.problem
        if problem.inputs[0].device.type == "cpu":
            micro_batch.keep_freed_memory()
        rows, given = problem.n_samples * problem.batch, problem.perturbations_per_eval
        precision = self._decided("precision", lambda: self._timed_precision(rows)) or self.plan.precision
        self._make_ready(precision, rows)
        masks = given or self._decided(precision, lambda: self._timed_masks(rows)) or self._sizes()[0]
        self.plan = Plan(min(masks, problem.n_samples), precision)

    def _decided(self, what: str, measure: Callable[[], Choice | None]) -> Choice | None:
        """What was measured for such inputs before, or is now and then remembered; None if it is not."""
        key = self._key(what)
        chosen: Choice | None = micro_batch.recalled(self.encoder, key)
        if chosen is None and self._is_timeable():
            chosen = measure()
            if chosen is not None:
                micro_batch.remember(self.encoder, key, chosen)
        return chosen

    def _key(self, what: str) -> tuple[Any, ...]:
        """Return what a choice depends on, beside the encoder."""
        shapes = tuple((tuple(x.shape[1:]), x.dtype, str(x.device)) for x in self.problem.inputs)
        return what, shapes, self._block_examples(), self.requested, torch.get_num_threads()

    def _examples(self) -> int:
        """At most so many examples a forward: all, where arguments belong to them."""
        if self.is_fixed:
            return self.problem.batch
        return max(1, min(micro_batch.FORWARD_ROWS, self.most_rows))

    def _entries(self) -> int:
        return sum(int(t.x[0].numel()) for t in self.problem.tensors)

    def _block_examples(self) -> int:
        block = self.blocks()[0]
        return int(block.stop - block.start)

    def _is_timeable(self) -> bool:
        """Whether running the encoder beside the call's own forwards changes nothing: not for one in training mode."""
        module = module_behind(self.encoder)
        return not self.is_fixed and (module is None or not any(part.training for part in module.modules()))

    def _make_ready(self, precision: str, rows: int) -> None:
        module = module_behind(self.encoder)
        if rows >= COPY_ROWS and not self.is_fixed and module is not None and is_plain(module):
            probe = tuple(torch.cat([t.x[:1], t.level[:1]]) for t in self.problem.tensors)
            self.running = inference_copy(self.encoder, probe, torch.bfloat16 if precision == "bfloat16" else None)
        self.plan = Plan(1, precision)

    def _timed_precision(self, rows: int) -> str | None:
        """Time the usual forward in both precisions; None if there is nothing to choose, or the budget is too small."""
        masks, device = self._sizes()[0], self.problem.inputs[0].device
        cost = 2 * micro_batch.REPEATS * masks * self._block_examples()
        if self.requested != "auto" or not micro_batch.has_bfloat16(device) or cost > micro_batch.BUDGET * rows:
            return None
        ready: dict[str, Encoder] = {}

        def seconds(precision: str) -> float:
            if precision not in ready:
                self._make_ready(precision, rows)
                ready[precision] = self.running
            self.running, self.plan = ready[precision], Plan(1, precision)
            return self._seconds(masks)

        chosen = micro_batch.fastest(("float32", "bfloat16"), seconds, AUTO_GAIN)
        self.running, self.plan = self.encoder, Plan(1, "float32")
        return chosen

    def _timed_masks(self, rows: int) -> int | None:
        """Time a few sizes of forwards; None if the budget allows for one only."""
        choices = self._sizes(micro_batch.BUDGET * rows)
        if len(choices) < 2:
            return None
        return micro_batch.fastest(choices, lambda masks: self._seconds(masks) / masks)

    def _sizes(self, budget_rows: float = 0) -> list[int]:
        """Masks a forward to choose from, the usual number first."""
        examples, device = self._block_examples(), self.problem.inputs[0].device.type
        most = max(1, self.most_rows // examples)
        found = micro_batch.sizes(examples, device, budget_rows)
        return list(dict.fromkeys(min(masks, most, self.problem.n_samples) for masks in found))

    def _seconds(self, masks: int) -> float:
        """Time one forward of unmasked copies; one that does not fit counts as endless. The global generators are left as found."""
        block = self.blocks()[0]
        inputs = tuple(x[block].repeat(masks, *[1] * (x.ndim - 1)) for x in self.problem.inputs)
        device = inputs[0].device
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                return micro_batch.clock(lambda: self.embed(inputs), device)
        except torch.OutOfMemoryError:
            return float("inf")
