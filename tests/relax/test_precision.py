"""Shorter numbers in the encoder alone, and when they are taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counted_forwards import ENCODER, MANY, Counting, X
from reference.models import relu_encoder
from torch import Tensor, nn
from typer.testing import CliRunner

import relax_quantus as rq
from relax_quantus.cli import main as cli
from relax_quantus.errors import ArgumentError
from relax_quantus.relax import execution
from relax_quantus.relax.execution import FORWARD_ROWS, Plan


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(
        ArgumentError, match=r"^precision: expected 'float32' or 'bfloat16' or 'auto', got 'float16'; pick one"
    ):
        rq.RELAX(ENCODER, precision="float16")


@pytest.mark.parametrize("precision", execution.PRECISIONS)
def test_similarities_never_see_short_numbers(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "has_bfloat16", lambda _: False)
    autocast, dtypes = [], []
    encoder = relu_encoder(12, dtype=torch.float32)

    def noting(x: Tensor) -> Tensor:
        autocast.append(torch.is_autocast_enabled("cpu"))
        return encoder(x)

    def similarity(h: Tensor, masked: Tensor) -> Tensor:
        dtypes.extend((h.dtype, masked.dtype))
        return -(h - masked).square().sum(-1)

    x = X.float()
    found = rq.RELAX(noting, similarity=similarity, precision=precision).explain(x, n_samples=200)
    exact = rq.RELAX(encoder, similarity=similarity).explain(x, n_samples=200)
    assert set(dtypes) == {torch.float32}
    assert set(autocast) == {precision == "bfloat16"}
    assert not torch.is_autocast_enabled("cpu")
    assert found.importance.dtype == torch.float32
    spread = float(exact.importance.max() - exact.importance.min())
    torch.testing.assert_close(found.importance, exact.importance, rtol=0, atol=0.05 * spread)
    assert torch.equal(found.importance, exact.importance) == (precision != "bfloat16")


@pytest.mark.parametrize(("saved", "chosen"), [(0.3, "bfloat16"), (0.05, "float32"), (-1.0, "float32")])
def test_auto_takes_what_is_measured_to_be_clearly_faster(
    saved: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "has_bfloat16", lambda _: True)
    inside: list[bool] = []  # of forwards, not of trying a copy on two rows

    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = relu_encoder(12, dtype=torch.float32)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                inside.append(torch.is_autocast_enabled("cpu"))
            return self.inner(x)

    def timed(run: Callable[[], Tensor], device: torch.device) -> float:
        return len(run()) * (1 - saved if inside[-1] else 1.0)

    monkeypatch.setattr(execution, "clock", timed)
    relax = rq.RELAX(Noting().eval(), precision="auto")
    x = X.float()
    assert relax.plan(x, n_samples=MANY).precision == chosen
    inside.clear()
    automatic = relax.attribute(x, n_samples=MANY)
    assert set(inside) == {chosen == "bfloat16"}
    same = rq.RELAX(relax.forward_func, precision=chosen)
    torch.testing.assert_close(automatic, same.attribute(x, n_samples=MANY), rtol=0, atol=2e-3)


def test_auto_measures_nothing_where_the_device_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "has_bfloat16", lambda _: False)
    encoder = Counting()
    relax = rq.RELAX(encoder, precision="auto")
    assert relax.plan(X, n_samples=1000) == Plan(FORWARD_ROWS // 2)
    assert encoder.rows == [2]


def test_the_command_line_takes_a_precision(write_wav: Callable[..., Any], sweep: Any, tmp_path: Path) -> None:
    def explain(precision: str) -> Any:
        arguments = [
            "--n-samples",
            "100",
            "--masks",
            "time",
            "--precision",
            precision,
            "--out",
            str(tmp_path / precision),
        ]
        return CliRunner().invoke(cli.app, ["explain", str(write_wav(sweep)), *arguments])

    maps = {}
    for precision in ("float32", "bfloat16"):
        assert explain(precision).exit_code == 0
        with np.load(tmp_path / precision / "clip.npz") as written:
            maps[precision] = written["importance_time"]
            assert json.loads(str(written["settings"]))["precision"] == precision
    assert not np.array_equal(maps["float32"], maps["bfloat16"])
    np.testing.assert_allclose(maps["bfloat16"], maps["float32"], atol=0.02)
    refused = explain("float16")
    assert refused.exit_code == 2
    assert "--precision: expected 'float32' or 'bfloat16' or 'auto', got 'float16'" in refused.stderr
