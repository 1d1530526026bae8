"""Similarities and masks -> explanations, one part of the batch after another, so that sums over masks fit the memory.

A `Problem` and, mask by mask, similarities enter: from the encoder, to the last mask or until an example is sure enough, or given. Accumulators
of the estimator take them up; what they arrive at leaves as `Explanation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from relax_quantus.base.torch_state import exact
from relax_quantus.relax.call import MaskedTensor, Problem, child_generator
from relax_quantus.relax.estimators import Accumulator, Estimate, Estimator, MaskModel, Surrogate
from relax_quantus.relax.estimators.moments import WeightedMoments
from relax_quantus.relax.execution import FORWARD_ROWS
from relax_quantus.relax.explanation import Explanation
from relax_quantus.relax.masked_forward import Comparison
from relax_quantus.relax.masks import GridStrategy
from relax_quantus.relax.masks.grid import Lattice, frames_and_bands
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


def explanation(
    tensor: MaskedTensor, estimate: Estimate, estimator: str, n_samples: int, fully_masked: Tensor
) -> Explanation:
    """Assemble the explanation of one tensor, in its shape and place, and in its type, but at least float32."""
    x = tensor.x
    dtype = exact(x.real if x.is_complex() else x[:0]).dtype

    def shaped(values: Tensor) -> Tensor:
        return tensor.spread(values).to(device=x.device, dtype=dtype).contiguous()

    return Explanation(
        importance=shaped(estimate.importance),
        uncertainty=shaped(estimate.uncertainty),
        standard_error=shaped(estimate.standard_error),
        centred_standard_error=shaped(
            torch.full_like(estimate.importance, torch.nan)
            if estimate.centred_standard_error is None
            else estimate.centred_standard_error
        ),
        mean_similarity=estimate.mean_similarity.to(device=x.device, dtype=dtype),
        fully_masked_similarity=fully_masked.to(device=x.device, dtype=dtype),
        n_samples=torch.full((len(x),), n_samples, device=x.device),
        neutral=shaped(estimate.neutral),
        estimator=estimator,
        cell_effects=None if estimate.cell_effects is None else shaped(estimate.cell_effects),
    )


def together(parts: list[list[Explanation]], is_tuple: bool) -> Explanation | tuple[Explanation, ...]:
    """Join what was explained part by part: one explanation a tensor of the inputs."""
    explained = tuple(same[0] if len(same) == 1 else joined(same) for same in zip(*parts, strict=True))
    return explained if is_tuple else explained[0]


def compared_with_another(
    explained: Explanation | tuple[Explanation, ...],
) -> Explanation | tuple[Explanation, ...]:
    """Note that masked copies were compared with something else than the examples themselves."""
    if isinstance(explained, tuple):
        return tuple(replace(e, compared_with_itself=torch.zeros_like(e.compared_with_itself)) for e in explained)
    return replace(explained, compared_with_itself=torch.zeros_like(explained.compared_with_itself))


def joined(explanations: Sequence[Explanation]) -> Explanation:
    """Join explanations of successive examples."""
    first = explanations[0]
    values = {f.name: [getattr(e, f.name) for e in explanations] for f in fields(first)}
    maps: dict[str, Any] = {name: torch.cat(parts) for name, parts in values.items() if isinstance(parts[0], Tensor)}
    return replace(first, **maps)


DRAWING = ("sample", "from_numbers", "columns", "build", "factors", "stripe_masks")


def mask_model(problem: Problem, rows: slice) -> MaskModel | None:
    """Describe the masks of `problem` for the examples in `rows`; a copy of the generator of its masks draws their numbers again."""
    strategy, tensor = problem.strategy, problem.tensors[0]
    if len(problem.tensors) > 1 or tensor.groups is not None or not isinstance(strategy, GridStrategy):
        return None
    if not says_its_distribution(type(strategy)):
        return None
    frames, bands = frames_and_bands(tensor.mask_shape)
    try:
        count = len(strategy.lattices(frames, bands, 1))
    except NotImplementedError:
        return None
    generator, columns, device = child_generator(problem.seed, 0), strategy.columns(frames, bands), tensor.x.device

    def numbers(n: int) -> torch.Tensor:
        return torch.rand(n, columns, generator=generator, device=generator.device, dtype=torch.float32)

    def build(uniform: torch.Tensor) -> torch.Tensor:
        return strategy.from_numbers(uniform, tensor.mask_shape)

    def factors(uniform: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if count == 1:
            return (masks.reshape(len(masks), *masks.shape[-2:]) if masks.ndim > 2 else masks[:, None],)
        return strategy.factors(uniform, frames, bands)

    def lattices(at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        return tuple(lattice.to(device) for lattice in strategy.lattices(frames, bands, at_least, bank))

    return MaskModel(numbers, build, factors, lattices, contrast(tensor.rows(rows), frames, bands))


def says_its_distribution(strategy: type[GridStrategy]) -> bool:
    """Whether no subclass draws other masks than the class that describes their distribution, `lattices`, knew of."""

    def definer(method: str) -> int:
        return next(i for i, cls in enumerate(strategy.__mro__) if method in vars(cls))

    return all(definer("lattices") <= definer(drawing) for drawing in DRAWING)


def contrast(tensor: MaskedTensor, frames: int, bands: int) -> torch.Tensor:
    """How much each entry changes when it is masked, over all axes but the last two: ``(B, frames, bands)`` float32, relative to the largest."""
    x, level = tensor.x, tensor.level
    if not x.is_floating_point():
        x, level = x.to(torch.complex128), level.to(torch.complex128)
    gap = (x - level).abs().double()
    largest = gap.flatten(1).amax(1).clamp_min(torch.finfo(gap.dtype).tiny)
    gap = (gap / largest.reshape(-1, *[1] * (gap.ndim - 1))).float()
    return gap.square().reshape(len(gap), -1, frames, bands).sum(1).sqrt()
