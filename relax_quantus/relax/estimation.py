"""Turn similarities and masks into explanations, one part of the batch after another.

A checked call and, mask by mask, similarities enter: from the encoder, to the last mask or until an
example is sure enough, or given. Accumulators of the estimator take them up; what they arrive at
leaves as maps or as `Explanation`.

What chance alone does is drawn beside them (`null_maxima`), from the same similarities permuted
over the masks, drawn again by seed. Permuting takes away what masks and similarities have to do
with each other and keeps both, so that the maxima are those of a network without main effects under
the same masks. The statistic is `Weighted`'s, which is a few matrix products for all permutations,
whatever estimator draws the map.

Source: Westfall and Young, "Resampling-based multiple testing", 1993 (maxT); Winkler et al.,
"Permutation inference for the general linear model", NeuroImage 2014.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from relax_quantus.base.networks import exact
from relax_quantus.relax.bound_masks import BoundMasks
from relax_quantus.relax.call import CheckedCall, MaskedTensor, Tensors
from relax_quantus.relax.estimators import Accumulator, Estimate, Estimator
from relax_quantus.relax.estimators.moments import SAME
from relax_quantus.relax.execution import FORWARD_ROWS
from relax_quantus.relax.explanation import Explanation
from relax_quantus.relax.masked_forward import MaskedForward, MaskStream, child_generator
from relax_quantus.relax.masks.grid import frames_and_bands
from relax_quantus.relax.stopping import SequentialEstimate, looks

Pairs = Iterator[tuple[Tensor, Sequence[Tensor]]]
"""Similarities ``(m, b)`` with masks ``(m, *s)`` or ``(m, B, *s)`` a tensor, in chunks."""
Explanations = Explanation | tuple[Explanation, ...]
PERMUTATIONS = 200
BLOCK_BYTES = 1 << 28
"""Bytes that masks may take at a time; beyond, they are drawn again for the next entries."""
CACHED_ENTRIES = 512


@dataclass(frozen=True)
class Estimation:
    """Turn one call's similarities into maps.

    Parameters
    ----------
    estimator
        What pairs similarities with masks.
    call
        The call's checked arguments.
    stream
        The call's masks.
    """

    estimator: Estimator
    call: CheckedCall
    stream: MaskStream

    def importance(self, forward: MaskedForward) -> Tensors:
        """Run the encoder over all masks and estimate the importance alone, one map a tensor."""
        parts = []
        for rows in self.call.parts():
            accumulators = self._fed(rows, forward.similarities(rows))
            tensors = [t.rows(rows) for t in self.call.tensors]
            parts.append([shaped(t, a.finish().importance) for t, a in zip(tensors, accumulators, strict=True)])
        maps = tuple(same[0] if len(same) == 1 else torch.cat(same) for same in zip(*parts, strict=True))
        return maps if self.call.is_tuple else maps[0]

    def explained(self, forward: MaskedForward) -> Explanations:
        """Run the encoder over all masks, or until each example is sure enough, and estimate."""
        fully_masked = forward.fully_masked()
        if self.call.tolerance is not None:
            return self._together(self._until(forward, fully_masked, self.call.tolerance))
        return self._together(
            [self._explained(rows, forward.similarities(rows), fully_masked) for rows in self.call.parts()]
        )

    def of_given(self, similarities: Tensor) -> Explanations:
        """Estimate from given similarities ``(N, B)``; what the fill alone gives is not known."""
        unknown, device = torch.full((self.call.batch,), torch.nan), self.call.tensors[0].x.device

        def paired(rows: slice) -> Pairs:
            position = 0
            for masks, _ in self.stream:
                yield similarities[position : position + len(masks[0]), rows].to(device), masks
                position += len(masks[0])

        return self._together([self._explained(rows, paired(rows), unknown) for rows in self.call.parts()])

    def _together(self, parts: Sequence[Sequence[Explanation]]) -> Explanations:
        """Join what was explained part by part: one explanation a tensor of the inputs."""
        explained = tuple(Explanation.concatenate(same) for same in zip(*parts, strict=True))
        return explained if self.call.is_tuple else explained[0]

    def _until(self, forward: MaskedForward, fully_masked: Tensor, tolerance: float) -> list[list[Explanation]]:
        """Run the encoder until each example is sure enough, each with accumulators of its own."""
        call, ends = self.call, looks(self.call.n_samples)
        explained: dict[int, list[Explanation]] = {}
        seen: dict[int, list[Tensor]] = {i: [] for i in range(call.batch)}
        for rows in call.parts(FORWARD_ROWS):
            running = {i: self._sequential(i, tolerance) for i in range(rows.start, rows.stop)}
            active = list(running)
            for similarities, masks in forward.similarities(active, ends):
                for column, i in enumerate(tuple(active)):
                    example, one_column = running[i], similarities[:, column : column + 1]
                    one = slice(i, i + 1)
                    example.update(one_column, self._masks_of(one, masks))
                    if call.null:
                        seen[i].append(one_column)
                    if example.count == call.n_samples or (example.count in ends and example.is_sure()):
                        explained[i] = self._explanations(
                            example.accumulators, example.estimates(), fully_masked[one], one, example.count
                        )
                        explained[i] = self._with_null(explained[i], seen.pop(i), one)
                        active.remove(i)
                        del running[i], example
        return [explained[i] for i in range(call.batch)]

    def _explained(self, rows: slice, pairs: Pairs, fully_masked: Tensor) -> list[Explanation]:
        """Estimate some rows of the batch from all masks."""
        seen: list[Tensor] = []
        accumulators = self._fed(rows, pairs, seen if self.call.null else None)
        estimates = [a.finish() for a in accumulators]
        explanations = self._explanations(accumulators, estimates, fully_masked[rows], rows, self.call.n_samples)
        return self._with_null(explanations, seen, rows)

    def _fed(self, rows: slice, pairs: Pairs, seen: list[Tensor] | None = None) -> list[Accumulator]:
        """Begin to estimate some rows and take up all pairs; note similarities in `seen`."""
        accumulators = self._accumulators(rows)
        for similarities, masks in pairs:
            for accumulator, mask in zip(accumulators, self._masks_of(rows, masks), strict=True):
                accumulator.update(similarities, mask)
            if seen is not None:
                seen.append(similarities)
        return accumulators

    def _masks_of(self, rows: slice, masks: Sequence[Tensor]) -> list[Tensor]:
        """Select some rows' masks: those that are shared, and the rows' own."""
        pairs = zip(masks, self.stream.bound, strict=True)
        return [mask[:, rows] if bound.by_example else mask for mask, bound in pairs]

    def _with_null(
        self, explanations: list[Explanation], similarities: Sequence[Tensor], rows: slice
    ) -> list[Explanation]:
        """Add what chance alone draws, where it is asked for, under the same masks."""
        if not self.call.null:
            return explanations
        whole, found = torch.cat(list(similarities)), list[Explanation]()
        for tensor, e in enumerate(explanations):
            maxima, statistic = (v.to(e.mean_similarity) for v in null_maxima(self.stream, whole, tensor, rows=rows))
            found.append(replace(e, null_maxima=maxima, null_statistic=statistic))
        return found

    def _sequential(self, example: int, tolerance: float) -> SequentialEstimate:
        """Begin to estimate one example."""
        one = slice(example, example + 1)
        return SequentialEstimate([t.rows(one) for t in self.call.tensors], self._accumulators(one), tolerance)

    def _accumulators(self, rows: slice) -> list[Accumulator]:
        """Begin to estimate some rows of the batch, one accumulator a tensor."""
        found: list[Accumulator] = []
        for tensor, masks in zip(self.call.tensors, self.stream.bound, strict=True):
            if masks.by_example:
                each = [tensor.rows(slice(i, i + 1)) for i in range(rows.start, rows.stop)]
                found.append(EachExample([begun(self.estimator, masks, contrast(one)) for one in each]))
            else:
                found.append(begun(self.estimator, masks, contrast(tensor.rows(rows))))
        return found

    def _explanations(
        self,
        accumulators: Sequence[Accumulator],
        estimates: Sequence[Estimate],
        fully_masked: Tensor,
        rows: slice,
        n_samples: int,
    ) -> list[Explanation]:
        """Bring the estimates for some rows of the batch to the inputs' shapes and types."""
        return [
            explanation(
                tensor.rows(rows),
                estimate,
                getattr(accumulator, "known_as", None) or self.estimator.name,
                n_samples,
                fully_masked,
                self.call.reference is None,
            )
            for tensor, accumulator, estimate in zip(self.call.tensors, accumulators, estimates, strict=True)
        ]


class EachExample:
    """Accumulate for each example by itself, where each has masks of its own.

    Parameters
    ----------
    accumulators
        One an example.
    """

    def __init__(self, accumulators: Sequence[Accumulator]) -> None:
        self.accumulators = accumulators
        self.known_as: str | None = getattr(accumulators[0], "known_as", None)

    def update(self, similarities: Tensor, masks: Tensor) -> None:
        """Add ``(m, b)`` similarities and their ``(m, b, *s)`` masks."""
        for i, accumulator in enumerate(self.accumulators):
            accumulator.update(similarities[:, i : i + 1], masks[:, i])

    def finish(self) -> Estimate:
        """Return the estimates, joined over the examples."""
        estimates = [a.finish() for a in self.accumulators]
        joined: dict[str, Any] = {}
        for name in (f.name for f in fields(Estimate)):
            values = [getattr(e, name) for e in estimates]
            joined[name] = None if values[0] is None else torch.cat(values)
        return Estimate(**joined)


def begun(estimator: Estimator, masks: BoundMasks, contrast: Tensor | None) -> Accumulator:
    """Begin an explanation; an estimator whose ``start()`` takes nothing is not told of masks."""
    if inspect.signature(estimator.start).parameters:
        return estimator.start(masks, contrast)
    return estimator.start()  # type: ignore[call-arg]


def contrast(tensor: MaskedTensor) -> Tensor | None:
    """Measure how much each entry changes when it is masked, over all but the last two axes.

    Returns
    -------
    Tensor or None
        ``(B, frames, bands)`` float32, relative to each example's largest change; None where masks
        are of groups.
    """
    if tensor.groups is not None:
        return None
    x, level = tensor.x, tensor.level
    if not x.is_floating_point():
        x, level = x.to(torch.complex128), level.to(torch.complex128)
    gap = (x - level).abs().double()
    largest = gap.flatten(1).amax(1).clamp_min(torch.finfo(gap.dtype).tiny)
    gap = (gap / largest.reshape(-1, *[1] * (gap.ndim - 1))).float()
    frames, bands = frames_and_bands(tensor.mask_shape)
    return gap.square().reshape(len(gap), -1, frames, bands).sum(1).sqrt()


def shaped(tensor: MaskedTensor, values: Tensor) -> Tensor:
    """Bring values ``(B, *s)`` to an input's shape, place and type, but at least float32."""
    return tensor.spread(values).to(device=tensor.x.device, dtype=result_type(tensor.x)).contiguous()


def result_type(x: Tensor) -> torch.dtype:
    """Return the type of an input's maps: its own, but real and at least float32."""
    return exact(x.real if x.is_complex() else x[:0]).dtype


def explanation(
    tensor: MaskedTensor, estimate: Estimate, estimator: str, n_samples: int, fully_masked: Tensor, with_itself: bool
) -> Explanation:
    """Assemble the explanation of one tensor, in its shape, place and type."""
    x, dtype, centred_error = tensor.x, result_type(tensor.x), estimate.centred_standard_error
    if centred_error is None:
        centred_error = torch.full_like(estimate.importance, torch.nan)
    return Explanation(
        importance=shaped(tensor, estimate.importance),
        uncertainty=shaped(tensor, estimate.uncertainty),
        standard_error=shaped(tensor, estimate.standard_error),
        centred_standard_error=shaped(tensor, centred_error),
        mean_similarity=estimate.mean_similarity.to(device=x.device, dtype=dtype),
        fully_masked_similarity=fully_masked.to(device=x.device, dtype=dtype),
        n_samples=torch.full((len(x),), n_samples, device=x.device),
        neutral=shaped(tensor, estimate.neutral),
        estimator=estimator,
        cell_effects=None if estimate.cell_effects is None else shaped(tensor, estimate.cell_effects),
        compared_with_itself=torch.tensor(with_itself),
    )


def null_maxima(
    stream: MaskStream,
    similarities: Tensor,
    tensor: int = 0,
    permutations: int = PERMUTATIONS,
    rows: slice | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the largest ``|z|`` of permuted similarities and of the given ones.

    Parameters
    ----------
    stream
        The call's masks. Its seed chooses the permutations, too, which examples share as they share
        the masks.
    similarities
        ``(N, B)``: of the stream's first N masks.
    tensor
        Which of the input's tensors the masks are for.
    permutations
        P.
    rows
        Which examples of the batch the similarities are of; all if None. It matters where each has
        masks of its own.

    Returns
    -------
    maxima, statistic : Tensor
        ``(B, P)`` ascending and ``(B,)``, float32 on the similarities' device; NaN where
        similarities do not vary. Costs no encoder forward, and 3 N P multiplications for each
        example and entry of the masks.
    """
    n, batch = similarities.shape
    device = similarities.device
    generator = child_generator(stream.seed, 2 * len(stream.tensors))
    orders = torch.stack(
        [torch.arange(n, device=generator.device)]
        + [torch.randperm(n, generator=generator, device=generator.device) for _ in range(permutations)]
    )
    standard, varies = standardised(similarities)
    permuted = standard.T.float()[:, orders.to(device)]
    if stream.bound[tensor].by_example:
        first = 0 if rows is None else rows.start
        each = [largest_z(stream, r, tensor, first + i) for i, r in enumerate(permuted)]
        largest = torch.stack(each)
    else:
        largest = largest_z(stream, permuted.reshape(-1, n), tensor).reshape(batch, -1)
    largest = largest.masked_fill(~varies[:, None], torch.nan)
    return largest[:, 1:].sort(dim=1).values, largest[:, 0]


def standardised(similarities: Tensor) -> tuple[Tensor, Tensor]:
    """Return similarities ``(N, B)`` with mean 0 and variance 1, and whether columns vary."""
    values = similarities.double()
    mean, spread = values.mean(0), values.std(0, correction=0)
    varies = spread > SAME * mean.abs().clamp_min(torch.finfo(values.dtype).tiny)
    return (values - mean) / torch.where(varies, spread, torch.ones_like(spread)), varies


def largest_z(stream: MaskStream, rows: Tensor, tensor: int, example: int | None = None) -> Tensor:
    """Return the largest ``|centred|`` / error of each row of similarities ``(r, N)``, ``(r,)``.

    With `example`, under that example's own masks.

    Rows have mean 0 and variance 1. With a = M / M-bar - 1 and R the weighted mean of a row, N^2 (N
    - 1) / N times the squared error is sum a^2 (r - R)^2 - N R^2: three products of rows and masks.
    They are made for a few entries at a time, which stay in the processor's cache.
    """
    n, largest, start, entries = rows.shape[1], torch.zeros(len(rows), device=rows.device), 0, 1
    squares, at_once = rows.square(), max(1, BLOCK_BYTES // (4 * n))
    while start < entries:
        kept, entries = drawn(stream, tensor, n, slice(start, start + at_once), example)
        for few in torch.split(kept.to(rows.device), CACHED_ENTRIES, dim=1):
            torch.maximum(largest, _largest(few, rows, squares), out=largest)
        start += at_once
    return largest


def drawn(stream: MaskStream, tensor: int, n: int, entries: slice, example: int | None = None) -> tuple[Tensor, int]:
    """Return some entries of the first n masks, ``(n, entries)``, and the number of all."""
    kept, count, every = torch.empty(0), 0, 0
    for masks in stream.masks():
        some = masks[tensor][: n - count]
        flat = (some if example is None else some[:, example]).flatten(1)
        if not count:
            every = flat.shape[1]
            kept = flat.new_empty(n, len(range(every)[entries]), dtype=torch.float32)
        kept[count : count + len(flat)] = flat[:, entries]
        count += len(flat)
        if count == n:
            break
    return kept, every


def _largest(kept: Tensor, rows: Tensor, squares: Tensor) -> Tensor:
    """Return the largest ``|z|`` of each row over some entries of the masks ``(N, entries)``."""
    n, tiny = len(kept), torch.finfo(torch.float32).tiny
    mean = kept.mean(0)
    a = (kept / mean.clamp_min(tiny) - 1).square_()
    a_squares, varies = a.sum(0), kept.var(0, correction=0) > SAME
    ratio = rows @ (kept / (n * mean.clamp_min(tiny)))
    squared_error = squares @ a
    squared_error.addcmul_(rows @ a, ratio, value=-2)
    ratio.square_()
    squared_error.addcmul_(ratio, a_squares - n).mul_(1 / (n * max(1, n - 1)))
    known = (varies & (mean > 0)) & (squared_error > 0)
    return torch.where(known, ratio.div_(squared_error.clamp_min_(tiny)), 0.0).amax(1).sqrt()
