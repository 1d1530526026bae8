"""Correlation of two entries of a mask at a distance, in cells, for a lattice with a uniform shift.

Both are weighted sums of independent cells; averaged over the shift, the overlap of their weights
is the convolution of two boxes (hard edges, a triangle) or of two triangles (smooth edges, the
cubic B-spline).
"""

from __future__ import annotations


def hard_overlap(distance: float) -> float:
    """Triangle."""
    return max(0.0, 1 - abs(distance))


def smooth_overlap(distance: float) -> float:
    """Cubic B-spline, 2/3 at 0."""
    d = abs(distance)
    if d <= 1:
        return 2 / 3 - d**2 + d**3 / 2
    return (2 - d) ** 3 / 6 if d <= 2 else 0.0
