"""Decide when an example has been masked enough: `RELAX.explain`'s tolerance.

One example's similarities and masks enter, chunk by chunk; whether its map is sure enough leaves,
and its estimates. Stands between the accumulators and `RELAX`, which runs the encoder no more for
examples that have stopped.

An example's *relative error* is the largest standard error of its centred map over the map's
spread, its standard deviation over the example's entries. An estimated map is spread by its own
noise, too, so that few masks would look like a map: the mean squared standard error is subtracted
from its variance. Where nothing is left, or an error is unknown, the relative error is infinite.
Looking often would cost time and favour lucky moments; so an example is looked at where the
1/sqrt(N) law says that it could be sure enough by now, on a geometric grid of mask counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from relax_quantus.relax.call import MaskedTensor
from relax_quantus.relax.estimators import Accumulator, Estimate

FIRST_LOOK = 64
LATEST_LOOK = 4.0
"""Times the masks after which an example is looked at again at the latest, however far it seems."""
EARLY = 0.5
"""... and share of the masks that 1/sqrt(N) predicts from which it is: `surrogate` learns
faster."""


def looks(n_samples: int) -> list[int]:
    """Return mask counts below `n_samples` at which examples may stop.

    They are multiples of 32 with steps of 4/3 and 3/2.

    Examples
    --------
    >>> looks(1000)
    [64, 96, 128, 192, 256, 384, 512, 768]
    """
    doublings = range(max(1, n_samples // FIRST_LOOK).bit_length())
    counts = [count for k in doublings for count in (FIRST_LOOK << k, (FIRST_LOOK + FIRST_LOOK // 2) << k)]
    return [count for count in counts if count < n_samples]


def relative_error(tensor: MaskedTensor, estimate: Estimate) -> float:
    """Return the largest error of an example's centred map over the map's noise-free spread.

    Parameters
    ----------
    tensor
        The example, ``(1, *shape)``.
    estimate
        Of maps ``(1, *s)`` in the masks' shape. Without a centred error, the importance and its
        error are judged.

    Returns
    -------
    float
        Infinite where no spread is left or an error is unknown.
    """
    values, error = estimate.importance - estimate.neutral, estimate.centred_standard_error
    if error is None:
        values, error = estimate.importance, estimate.standard_error
    values, error = (tensor.spread(v).double().flatten() for v in (values, error))
    variance = float(values.var(correction=0) - error.square().mean())
    return float(error.max()) / math.sqrt(variance) if variance > 0 else math.inf


class SequentialEstimate:
    """Estimate one example, and say when the estimate is sure enough.

    Parameters
    ----------
    tensors
        The example, one a tensor of the inputs, ``(1, *shape)``.
    accumulators
        One a tensor, fed by nobody else.
    tolerance
        For the relative error of every tensor.

    Attributes
    ----------
    count
        Masks added.
    """

    def __init__(self, tensors: Sequence[MaskedTensor], accumulators: Sequence[Accumulator], tolerance: float) -> None:
        self.tensors, self.accumulators, self.tolerance = tensors, accumulators, tolerance
        self.count = 0
        self._next_look = 0.0
        self._finished: tuple[int, list[Estimate]] | None = None

    def update(self, similarities: Tensor, masks: Sequence[Tensor]) -> None:
        """Add ``(m, 1)`` similarities and, a tensor each, their masks."""
        for accumulator, mask in zip(self.accumulators, masks, strict=True):
            accumulator.update(similarities, mask)
        self.count += len(similarities)

    def is_sure(self) -> bool:
        """Tell whether every tensor's relative error is under the tolerance, if it is time."""
        if self.count < self._next_look:
            return False
        pairs = zip(self.tensors, self.estimates(), strict=True)
        ratio = max(relative_error(tensor, estimate) for tensor, estimate in pairs) / self.tolerance
        self._next_look = self.count * min(EARLY * ratio**2, LATEST_LOOK) if ratio < math.inf else 0.0
        return ratio < 1

    def estimates(self) -> list[Estimate]:
        """Return the estimates from all that was added, one a tensor."""
        if self._finished is None or self._finished[0] != self.count:
            self._finished = self.count, [accumulator.finish() for accumulator in self.accumulators]
        return self._finished[1]
