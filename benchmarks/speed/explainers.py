"""Make the package's own arms: a `RELAX` for a strategy, estimator and precision.

Where there is none (yet), the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

import relax_quantus as rq
from benchmarks.speed.rounds import NotAvailableError
from relax_quantus.relax.attribution import RELAX
from relax_quantus.relax.estimators import ESTIMATORS

FLOAT32, BFLOAT16 = "float32", "bfloat16"


def explainer(model: nn.Module, masks: Any, estimator: str, precision: str = FLOAT32) -> RELAX:
    """Build a `RELAX`.

    Raises
    ------
    NotAvailableError
        If the installed package lacks the estimator or the precision.
    """
    if estimator not in ESTIMATORS.names():
        raise NotAvailableError(f"this version of relax_quantus has no estimator {estimator!r}")
    options: dict[str, Any] = {"masks": masks, "estimator": estimator}
    if "precision" in inspect.signature(rq.RELAX).parameters:
        options["precision"] = precision
    elif precision != FLOAT32:
        raise NotAvailableError("this version of relax_quantus has no precision=")
    built: RELAX = rq.RELAX(model, **options)
    return built


def plan(model: nn.Module, x: Tensor, n_samples: int, masks: Any, estimator: str, precision: str = FLOAT32) -> Any:
    """Return what the package chose for such a call: masks a forward, and precision.

    None if it cannot be had.
    """
    try:
        chosen = explainer(model, masks, estimator, precision).plan(x, n_samples=n_samples)
    except NotAvailableError:
        return None
    return asdict(chosen)


def attribution(
    model: nn.Module, x: Tensor, n_samples: int, masks: str, estimator: str, precision: str = FLOAT32
) -> Callable[[], Tensor]:
    """Return `RELAX.attribute` with zero fill as a callable without arguments.

    What is missing is raised when it is called.
    """

    def run() -> Tensor:
        return torch.as_tensor(explainer(model, masks, estimator, precision).attribute(x, n_samples=n_samples, seed=0))

    return run
