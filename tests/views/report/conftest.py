"""A page that the tests of pages share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from explanation_pages import HOSTILE, companions, layers

from relax_quantus.views.page import page


@pytest.fixture(scope="session")
def html(sweep: np.ndarray) -> str:
    """A page with everything that it can have."""
    examples = torch.randn(2, 1, 96, 64, generator=torch.Generator().manual_seed(5))
    notes = {"fill": "silence & more"}
    beside = companions(sweep[8000:])
    return page(
        HOSTILE, examples, layers(), original=(sweep, 16_000), lead="bird, 97 %", notes=notes, companions=beside
    )
