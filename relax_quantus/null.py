"""What chance alone draws: the largest |centred| / error of maps whose similarities were permuted over the masks.

One call's similarities enter, and its masks, drawn again by seed; the largest |z| over an example's bins leaves, as it is
and under each permutation. Permuting takes away what masks and similarities have to do with each other and keeps both, so
that the maxima are those of a network without main effects under the same masks. The statistic is `Weighted`'s, which is
two matrix products for all permutations, whatever estimator draws the map.

Source: Westfall and Young, "Resampling-based multiple testing", 1993 (maxT); Winkler et al., "Permutation inference for
the general linear model", NeuroImage 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relax_quantus.estimators.accumulation import SAME
from relax_quantus.perturbation import MaskStream, child_generator

PERMUTATIONS = 200
BLOCK_BYTES = 1 << 28
"""What the sums over masks of all permutations may take at a time; more are summed in several passes over the masks."""


def null_maxima(
    stream: MaskStream, similarities: Tensor, tensor: int = 0, permutations: int = PERMUTATIONS
) -> tuple[Tensor, Tensor]:
    """Return the largest |z| of permuted similarities and of the given ones.

    Parameters
    ----------
    stream
        The call's masks. Its seed chooses the permutations, too, which examples share as they share the masks.
    similarities
        ``(N, B)``: of the stream's first N masks.
    tensor
        Which of the input's tensors the masks are for.
    permutations
        P.

    Returns
    -------
    maxima, statistic : Tensor
        ``(B, P)`` ascending and ``(B,)``, float32 on the similarities' device; NaN where similarities do not vary. Costs
        no encoder forward, and 4 N P multiplications for each example and entry of the masks.
    """
    n, batch = similarities.shape
    device = similarities.device
    generator = child_generator(stream.seed, 2 * len(stream.tensors))
    orders = torch.stack(
        [torch.arange(n, device=generator.device)]
        + [torch.randperm(n, generator=generator, device=generator.device) for _ in range(permutations)]
    )
    standard, varies = standardised(similarities)
    rows = standard.T.float()[:, orders.to(device)].reshape(-1, n)
    entries = max(1, stream.tensors[tensor].x[0].numel())
    at_once = max(1, BLOCK_BYTES // (16 * entries))
    largest = torch.cat([largest_z(stream, part, tensor) for part in torch.split(rows, at_once)])
    largest = largest.reshape(batch, -1).masked_fill(~varies[:, None], torch.nan)
    return largest[:, 1:].sort(dim=1).values, largest[:, 0]


def standardised(similarities: Tensor) -> tuple[Tensor, Tensor]:
    """Return similarities ``(N, B)`` with mean 0 and variance 1, float64, and whether each column varies."""
    values = similarities.double()
    mean, spread = values.mean(0), values.std(0, correction=0)
    varies = spread > SAME * mean.abs().clamp_min(torch.finfo(values.dtype).tiny)
    return (values - mean) / torch.where(varies, spread, torch.ones_like(spread)), varies


def largest_z(stream: MaskStream, rows: Tensor, tensor: int) -> Tensor:
    """Largest |centred| / error over the masks' entries for each row of standardised similarities ``(r, N)``, ``(r,)``."""
    n, done = rows.shape[1], 0
    squares, sums = rows.square(), dict[str, Tensor]()
    for masks, _ in stream:
        kept = masks[tensor][: n - done].to(rows.device).flatten(1).float()
        if not len(kept):
            break
        part = slice(done, done + len(kept))
        both = kept.square()
        terms = {"m": kept.sum(0), "mm": both.sum(0)}
        terms |= {"rm": rows[:, part] @ kept, "rmm": rows[:, part] @ both}
        terms |= {"rrm": squares[:, part] @ kept, "rrmm": squares[:, part] @ both}
        for name, term in terms.items():
            sums[name] = sums[name].add_(term) if name in sums else term
        done += len(kept)
    weight = sums["m"].clamp_min(torch.finfo(torch.float32).tiny)
    ratio = sums["rm"] / weight
    residual = sums["rrmm"] - 2 * ratio * sums["rmm"] + ratio.square() * sums["mm"]
    within = sums["rrm"] / weight - ratio.square()
    squared_error = (residual / weight.square() + (1 - 2 * within) / n) * (n / max(1, n - 1))
    known = (sums["m"] > 0) & (sums["mm"] / n - (weight / n).square() > SAME) & (squared_error > 0)
    z = torch.where(known, ratio.abs() / squared_error.clamp_min(torch.finfo(torch.float32).tiny).sqrt(), 0.0)
    return z.amax(1)
