"""A cheap encoder on the command line, as slow as it is told to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recorded_calls import ENCODER


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def encoder(tmp_path: Path) -> Callable[..., str]:
    """Write an encoder of one's own."""

    def write(slow_s: float = 0.0, name: str = "cheap") -> str:
        (tmp_path / f"{name}.py").write_text(ENCODER.format(slow_s=slow_s), encoding="utf-8")
        return f"{tmp_path / name}.py:network"

    return write
