"""Estimates -> `Explanation`: in the inputs' shapes, types and places, one a tensor, joined over the parts of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from relax_quantus.base.torch_state import exact
from relax_quantus.relax.estimators import Estimate
from relax_quantus.relax.explanation import Explanation
from relax_quantus.relax.perturbation import MaskedTensor


def explanation(
    tensor: MaskedTensor, estimate: Estimate, estimator: str, n_samples: int, fully_masked: Tensor
) -> Explanation:
    """Assemble the explanation of one tensor, in its shape and place, and in its type, but at least float32."""
    x = tensor.x
    dtype = exact(x.real if x.is_complex() else x[:0]).dtype

    def shaped(values: Tensor) -> Tensor:
        return tensor.spread(values).to(device=x.device, dtype=dtype).contiguous()

    return Explanation(
        importance=shaped(estimate.importance),
        uncertainty=shaped(estimate.uncertainty),
        standard_error=shaped(estimate.standard_error),
        centred_standard_error=shaped(
            torch.full_like(estimate.importance, torch.nan)
            if estimate.centred_standard_error is None
            else estimate.centred_standard_error
        ),
        mean_similarity=estimate.mean_similarity.to(device=x.device, dtype=dtype),
        fully_masked_similarity=fully_masked.to(device=x.device, dtype=dtype),
        n_samples=torch.full((len(x),), n_samples, device=x.device),
        neutral=shaped(estimate.neutral),
        estimator=estimator,
        cell_effects=None if estimate.cell_effects is None else shaped(estimate.cell_effects),
    )


def together(parts: list[list[Explanation]], is_tuple: bool) -> Explanation | tuple[Explanation, ...]:
    """Join what was explained part by part: one explanation a tensor of the inputs."""
    explained = tuple(same[0] if len(same) == 1 else joined(same) for same in zip(*parts, strict=True))
    return explained if is_tuple else explained[0]


def compared_with_another(
    explained: Explanation | tuple[Explanation, ...],
) -> Explanation | tuple[Explanation, ...]:
    """Note that masked copies were compared with something else than the examples themselves."""
    if isinstance(explained, tuple):
        return tuple(replace(e, compared_with_itself=torch.zeros_like(e.compared_with_itself)) for e in explained)
    return replace(explained, compared_with_itself=torch.zeros_like(explained.compared_with_itself))


def joined(explanations: Sequence[Explanation]) -> Explanation:
    """Join explanations of successive examples."""
    first = explanations[0]
    values = {f.name: [getattr(e, f.name) for e in explanations] for f in fields(first)}
    maps: dict[str, Any] = {name: torch.cat(parts) for name, parts in values.items() if isinstance(parts[0], Tensor)}
    return replace(first, **maps)
