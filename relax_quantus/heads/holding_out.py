"""Split off what fine-tuning is validated on: whole groups of every class.

Of a class with one group, clips are held out. Labels, groups and clips of examples enter, a mask of
the examples to hold out leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from relax_quantus.base.checks import refuse
from relax_quantus.errors import DataError
from relax_quantus.heads.logistic import Floats, Ints

SHARE = 0.2
"""Share of each class's groups that is held out, at least one."""


@dataclass(frozen=True)
class Labelled:
    """Examples ``(n, 1, T, F)`` with their labels, groups and clips as numbers ``(n,)``.

    The class names go with them.
    """

    x: Tensor
    labels: Ints
    codes: Ints
    clips: Ints
    names: list[str]


def group_weights(codes: Ints) -> Floats:
    """Weigh examples so that each group weighs 1: 1/k for one of a group of k, ``(n,) -> (n,)``."""
    return np.asarray(1.0 / np.bincount(codes)[codes])


def hold_out(data: Labelled, rng: np.random.Generator) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """Choose a fifth of each class's groups at random; of a class with one, a fifth of its clips.

    No group of a class with several is on both sides, and every class stays on the training side. A
    class of one clip is not validated at all.

    Returns
    -------
    tuple
        ``(n,)`` True for what is held out, and the names of the classes whose clips were held out.

    Raises
    ------
    DataError
        If no class has two groups or two clips.

    Examples
    --------
    >>> codes = np.repeat(np.arange(10), 2)
    >>> data = Labelled(None, codes % 2, codes, codes, ["cat", "dog"])
    >>> held, by_clip = hold_out(data, np.random.default_rng(0))
    >>> int(held.sum()), by_clip
    (4, ())
    """
    held = np.zeros(len(data.labels), dtype=bool)
    alone = [len(np.unique(data.codes[data.labels == c])) < 2 for c in range(len(data.names))]
    by_clip = []
    for c in np.argsort(alone, kind="stable"):
        of_class = data.labels == c
        units = data.clips if alone[c] else data.codes
        known = np.unique(units[of_class])
        if alone[c] and len(known) > 1:
            by_clip.append(data.names[c])
        # A group may hold several classes: what another class has held out counts, and no class may
        # lose its last one.
        wanted = max(1, round(SHARE * len(known))) - len(np.unique(units[of_class & held]))
        for unit in rng.permutation(np.setdiff1d(known, units[of_class & held])):
            trial = held | ((units == unit) & (of_class | (not alone[c])))
            if wanted <= 0:
                break
            if len(np.unique(data.labels[~trial])) == len(data.names):
                held, wanted = trial, wanted - 1
    if not held.any():
        refuse("groups", "a class with two groups or clips, one to hold out", "none", "add recordings", DataError)
    return held, tuple(by_clip)
