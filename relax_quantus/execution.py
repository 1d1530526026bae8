"""One call's encoder, made ready: what runs it, in which precision, how many masked copies at a time.

The caller's encoder and a `Problem` enter; something to call on masked copies leaves. Between the validated call and the comparison of
embeddings; the caller's encoder is not changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    examples
        At most so many examples of the batch in a forward.
    """

    def __init__(self, encoder: Encoder, problem: Problem, precision: str = "float32") -> None:
        self.encoder, self.problem = encoder, problem
        self.running: Encoder = encoder
        self.requested = precision
        self.examples = self._examples()
        self.plan = Plan(1, "float32" if precision == "auto" else precision)

    @property
    def is_fixed(self) -> bool:
        """Whether a forward has to hold the whole batch, since additional arguments or targets belong to it."""
        return self.problem.additional_forward_args is not None or self.problem.target is not None

    def embed(self, inputs: tuple[Tensor, ...]) -> Any:
        """Run the encoder on rows, or on whole batches one after another with the call's target and additional arguments."""
        plan = self.plan
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            if self.is_fixed:
                problem, times = self.problem, len(inputs[0]) // self.problem.batch
                return forward_repeated(self.running, inputs, times, problem.target, problem.additional_forward_args)
            return forward_repeated(self.running, inputs, 1, None, None)

    def blocks(self, rows: slice | None = None) -> list[slice]:
        """Cut `rows`, by default the batch, into what goes through the encoder together: as few and as even blocks as `examples` allows."""
        start, stop = (0, self.problem.batch) if rows is None else (rows.start, rows.stop)
        size = -(-(stop - start) // -(-(stop - start) // self.examples))
        return [slice(i, min(i + size, stop)) for i in range(start, stop, size)]

    def halve(self) -> bool:
        """Make forwards half as large, masks first, then examples; False if they cannot be smaller."""
        masks = self.plan.perturbations_per_eval
        if masks > 1:
            self.plan = Plan(masks // 2, self.plan.precision)
        elif self.examples > 1 and not self.is_fixed:
            self.examples = -(-min(self.examples, self.problem.batch) // 2)
        else:
            return False
        return True

    def prepare(self) -> None:
        """Decide how to run: remembered, measured within `micro_batch.BUDGET`, or the usual."""
        problem = self.problem
        given, rows = problem.perturbations_per_eval, problem.n_samples * problem.batch
        key, precision = self._key(), self.plan.precision
        plan = micro_batch.remembered(self.encoder, key)
        if plan is None and rows >= COPY_ROWS and self._is_timeable():
            precision = self._timed_precision(rows) if self.requested == "auto" else precision
        elif plan is not None:
            precision = plan.precision
        self._make_ready(precision, rows)
        if plan is None:
            plan = self._timed_plan(precision, rows)
            if plan is not None:
                micro_batch.remember(self.encoder, key, plan)
        usual = self._sizes(0)[0]
        masks = given or (plan.perturbations_per_eval if plan else usual)
        self.plan = Plan(min(masks, problem.n_samples), precision)

    def _examples(self) -> int:
        """At most so many examples a forward: all, where arguments belong to them."""
        if self.is_fixed:
            return self.problem.batch
        return max(1, min(micro_batch.FORWARD_ROWS, FORWARD_ENTRIES // self._entries()))

    def _entries(self) -> int:
        return sum(int(t.x[0].numel()) for t in self.problem.tensors)

    def _key(self) -> tuple[Any, ...]:
        inputs = self.problem.inputs
        block = self.blocks()[0]
        shapes = tuple((tuple(x.shape[1:]), x.dtype, str(x.device)) for x in inputs)
        return shapes, block.stop - block.start, self.is_fixed, self.requested, torch.get_num_threads()

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

    def _timed_precision(self, rows: int) -> str:
        """Time the usual forward in both precisions, if the device has bfloat16 and the budget allows."""
        masks, device = self._sizes(0)[0], self.problem.inputs[0].device
        if not micro_batch.has_bfloat16(device) or 4 * self._rows(masks) > micro_batch.BUDGET * rows:
            return "float32"
        ready: dict[str, Encoder] = {}

        def seconds(precision: str) -> float:
            if precision not in ready:
                self._make_ready(precision, rows)
                ready[precision] = self.running
            self.running, self.plan = ready[precision], Plan(1, precision)
            return self._seconds(masks)

        chosen = micro_batch.fastest(("float32", "bfloat16"), seconds, AUTO_GAIN)
        self.running = self.encoder
        return chosen

    def _timed_plan(self, precision: str, rows: int) -> Plan | None:
        """Time a few sizes of forwards; None if the budget allows for one only, or the caller gave the size and nothing else is open."""
        if not self._is_timeable():
            return None
        choices = self._sizes(micro_batch.BUDGET * rows)
        if self.problem.perturbations_per_eval is not None or len(choices) < 2:
            return None
        return Plan(micro_batch.fastest(choices, lambda masks: self._seconds(masks) / masks), precision)

    def _sizes(self, budget_rows: float) -> list[int]:
        block = self.blocks()[0]
        examples = block.stop - block.start
        found = micro_batch.sizes(examples, self.problem.inputs[0].device.type, budget_rows)
        most = max(1, FORWARD_ENTRIES // (self._entries() * examples))
        return list(dict.fromkeys(min(masks, most, self.problem.n_samples) for masks in found))

    def _rows(self, masks: int) -> int:
        block = self.blocks()[0]
        return masks * int(block.stop - block.start)

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
