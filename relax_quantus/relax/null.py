"""Draw what chance alone does: maps of similarities that were permuted over the masks.

One call's similarities enter, and its masks, drawn again by seed; the largest ``|z|`` over an
example's bins leaves, as it is and under each permutation. Permuting takes away what masks and
similarities have to do with each other and keeps both, so that the maxima are those of a network
without main effects under the same masks. The statistic is `Weighted`'s, which is a few matrix
products for all permutations, whatever estimator draws the map.

Source: Westfall and Young, "Resampling-based multiple testing", 1993 (maxT); Winkler et al.,
"Permutation inference for the general linear model", NeuroImage 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relax_quantus.relax.estimators.moments import SAME
from relax_quantus.relax.masked_forward import MaskStream, child_generator

PERMUTATIONS = 200
BLOCK_BYTES = 1 << 28
"""Bytes that masks may take at a time; beyond, they are drawn again for the next entries."""
CACHED_ENTRIES = 512


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
