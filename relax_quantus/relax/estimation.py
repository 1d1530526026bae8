"""Similarities and masks -> explanations, one part of the batch after another, so that sums over masks fit the memory.

A `Problem` and, mask by mask, similarities enter: from the encoder, to the last mask or until an example is sure enough, or given. Accumulators
of the estimator take them up; what they arrive at leaves as `Explanation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from relax_quantus.relax.assembly import explanation, together
from relax_quantus.relax.call import Problem
from relax_quantus.relax.estimators import Accumulator, Estimate, Estimator, Surrogate
from relax_quantus.relax.estimators.weighted import WeightedMoments
from relax_quantus.relax.explanation import Explanation
from relax_quantus.relax.mask_model import mask_model
from relax_quantus.relax.masked_forward import Comparison
from relax_quantus.relax.micro_batch import FORWARD_ROWS
from relax_quantus.relax.null import null_maxima
from relax_quantus.relax.stopping import SequentialEstimate, looks

Pairs = Iterator[tuple[Tensor, Sequence[Tensor]]]
"""Similarities ``(m, rows)`` with their masks, ``(m, *s)`` a tensor, chunk by chunk."""


@dataclass(frozen=True)
class Estimation:
    """How one call's similarities become explanations.

    Parameters
    ----------
    estimator
        What pairs similarities with masks.
    problem
        The call.
    null
        Whether explanations say what chance alone draws.
    """

    estimator: Estimator
    problem: Problem
    null: bool = False

    def of(
        self, comparison: Comparison, fully_masked: Tensor, show_progress: bool
    ) -> Explanation | tuple[Explanation, ...]:
        """Run the encoder over all masks and estimate."""
        problem = self.problem
        parts = [
            self._explained(rows, comparison.similarities(show_progress, rows), fully_masked)
            for rows in problem.parts()
        ]
        return together(parts, problem.is_tuple)

    def of_given(self, similarities: Tensor) -> Explanation | tuple[Explanation, ...]:
        """Estimate from similarities ``(N, B)`` that are known; the encoder is not run, so what the fill alone gives is not known."""
        problem, stream = self.problem, self.problem.stream
        unknown, device = torch.full((problem.batch,), torch.nan), problem.tensors[0].x.device

        def paired(rows: slice) -> Pairs:
            position = 0
            for masks, _ in stream:
                yield similarities[position : position + len(masks[0]), rows].to(device), masks
                position += len(masks[0])

        return together([self._explained(rows, paired(rows), unknown) for rows in problem.parts()], problem.is_tuple)

    def until(
        self, comparison: Comparison, fully_masked: Tensor, show_progress: bool, tolerance: float
    ) -> Explanation | tuple[Explanation, ...]:
        """Run the encoder over the masks until each example is sure enough, each with accumulators of its own."""
        problem, ends = self.problem, looks(self.problem.n_samples)
        explained: dict[int, list[Explanation]] = {}
        seen: dict[int, list[Tensor]] = {i: [] for i in range(problem.batch)}
        for rows in problem.parts(FORWARD_ROWS):
            running = {i: self._sequential(i, tolerance) for i in range(rows.start, rows.stop)}
            active = list(running)
            for similarities, masks in comparison.similarities(show_progress, active, ends):
                for column, i in enumerate(tuple(active)):
                    example, one_column = running[i], similarities[:, column : column + 1]
                    example.update(one_column, masks)
                    if self.null:
                        seen[i].append(one_column)
                    if example.count == problem.n_samples or (example.count in ends and example.is_sure()):
                        one = slice(i, i + 1)
                        explained[i] = self._explanations(
                            example.accumulators, fully_masked[one], one, example.count, example.estimates()
                        )
                        explained[i] = self._with_null(explained[i], seen.pop(i))
                        active.remove(i)
                        del running[i], example
        return together([explained[i] for i in range(problem.batch)], problem.is_tuple)

    def _explained(self, rows: slice, pairs: Pairs, fully_masked: Tensor) -> list[Explanation]:
        """Estimate some rows of the batch from all masks."""
        accumulators, seen = self._accumulators(rows), list[Tensor]()
        for similarities, masks in pairs:
            for accumulator, mask in zip(accumulators, masks, strict=True):
                accumulator.update(similarities, mask)
            if self.null:
                seen.append(similarities)
        return self._with_null(self._explanations(accumulators, fully_masked[rows], rows), seen)

    def _with_null(self, explanations: list[Explanation], similarities: Sequence[Tensor]) -> list[Explanation]:
        """Add what chance alone draws, where it is asked for, under the masks that the similarities belong to."""
        if not self.null:
            return explanations
        stream, whole, found = self.problem.stream, torch.cat(list(similarities)), list[Explanation]()
        for tensor, e in enumerate(explanations):
            maxima, statistic = (v.to(e.mean_similarity) for v in null_maxima(stream, whole, tensor))
            found.append(replace(e, null_maxima=maxima, null_statistic=statistic))
        return found

    def _sequential(self, example: int, tolerance: float) -> SequentialEstimate:
        """Begin to estimate one example."""
        one = slice(example, example + 1)
        return SequentialEstimate([t.rows(one) for t in self.problem.tensors], self._accumulators(one), tolerance)

    def _accumulators(self, rows: slice) -> list[Accumulator]:
        """Begin to estimate, one a tensor; with a model of the masks where the estimator wants one and the masks have one."""
        if isinstance(self.estimator, Surrogate):
            model = mask_model(self.problem, rows)
            if model is not None:
                return [self.estimator.start_with(model)]
        return [self.estimator.start() for _ in self.problem.tensors]

    def _explanations(
        self,
        accumulators: Sequence[Accumulator],
        fully_masked: Tensor,
        rows: slice,
        n_samples: int | None = None,
        estimates: Sequence[Estimate] | None = None,
    ) -> list[Explanation]:
        """Bring the estimates for some rows of the batch, by default the accumulators' from all masks, to the inputs' shapes and types."""
        n_samples = self.problem.n_samples if n_samples is None else n_samples
        estimates = [a.finish() for a in accumulators] if estimates is None else estimates
        name = self.estimator.name
        if isinstance(self.estimator, Surrogate) and isinstance(accumulators[0], WeightedMoments):
            name = "weighted"
        return [
            explanation(tensor.rows(rows), estimate, name, n_samples, fully_masked)
            for tensor, estimate in zip(self.problem.tensors, estimates, strict=True)
        ]
