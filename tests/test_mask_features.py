"""Pairs of neighbouring bins against the windows that they stand for, counted one by one."""

from __future__ import annotations

import pytest
import torch

from relax_quantus.estimators.mask_features import NEIGHBOURS, neighbours


@pytest.mark.parametrize(("rows", "columns"), [(5, 4), (1, 3), (2, 1)])
def test_pairs_are_the_sum_over_windows(rows: int, columns: int) -> None:
    """sum over pairs = sum over 3 x 2 windows, those over the edge too, of the squared inner product within, a sixth each."""
    x, y = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    high, wide = NEIGHBOURS
    slow = 0.0
    for top in range(1 - high, rows):
        for left in range(1 - wide, columns):
            window = (slice(max(top, 0), top + high), slice(max(left, 0), left + wide))
            slow += float((x[window] * y[window]).sum()) ** 2 / (high * wide)
    first, second, window_share = neighbours(rows, columns)
    products = [values.flatten()[first] * values.flatten()[second] * window_share for values in (x, y)]
    assert float((products[0] * products[1]).sum()) == pytest.approx(slow, rel=1e-6)
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) == len(first)
