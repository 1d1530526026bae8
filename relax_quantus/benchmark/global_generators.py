"""Seed the global generators for the length of a call and put them back.

Quantus and some of Captum's methods draw from nothing else. A seed enters; the three generators are
as they were when the block ends, however it ends.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seed NumPy's, torch's and Python's global generators, and put them back as they were."""
    # ruff would have generators of our own here, but these libraries draw from the global ones.
    states = np.random.get_state(), torch.random.get_rng_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(states[0])  # noqa: NPY002
        torch.random.set_rng_state(states[1])
        random.setstate(states[2])
