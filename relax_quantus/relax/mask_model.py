"""A call's masks as the surrogate estimator sees them: their factors again, and their distribution.

A `Problem` enters, a `MaskModel` leaves, or None where the masks do not say how they are distributed: objects of a user's own, groups of a
feature mask, several input tensors.
"""

from __future__ import annotations

import torch

from relax_quantus.relax.call import Problem
from relax_quantus.relax.estimators import MaskModel
from relax_quantus.relax.masks import GridStrategy
from relax_quantus.relax.masks.grid import frames_and_bands
from relax_quantus.relax.masks.lattice import Lattice
from relax_quantus.relax.perturbation import MaskedTensor, child_generator

DRAWING = ("sample", "from_numbers", "columns", "build", "factors", "stripe_masks")


def mask_model(problem: Problem, rows: slice) -> MaskModel | None:
    """Describe the masks of `problem` for the examples in `rows`; a copy of the generator of its masks draws their numbers again."""
    strategy, tensor = problem.strategy, problem.tensors[0]
    if len(problem.tensors) > 1 or tensor.groups is not None or not isinstance(strategy, GridStrategy):
        return None
    if not says_its_distribution(type(strategy)):
        return None
    frames, bands = frames_and_bands(tensor.mask_shape)
    try:
        count = len(strategy.lattices(frames, bands, 1))
    except NotImplementedError:
        return None
    generator, columns, device = child_generator(problem.seed, 0), strategy.columns(frames, bands), tensor.x.device

    def numbers(n: int) -> torch.Tensor:
        return torch.rand(n, columns, generator=generator, device=generator.device, dtype=torch.float32)

    def build(uniform: torch.Tensor) -> torch.Tensor:
        return strategy.from_numbers(uniform, tensor.mask_shape)

    def factors(uniform: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if count == 1:
            return (masks.reshape(len(masks), *masks.shape[-2:]) if masks.ndim > 2 else masks[:, None],)
        return strategy.factors(uniform, frames, bands)

    def lattices(at_least: int, bank: int = 0) -> tuple[Lattice, ...]:
        return tuple(lattice.to(device) for lattice in strategy.lattices(frames, bands, at_least, bank))

    return MaskModel(numbers, build, factors, lattices, contrast(tensor.rows(rows), frames, bands))


def says_its_distribution(strategy: type[GridStrategy]) -> bool:
    """Whether no subclass draws other masks than the class that describes their distribution, `lattices`, knew of."""

    def definer(method: str) -> int:
        return next(i for i, cls in enumerate(strategy.__mro__) if method in vars(cls))

    return all(definer("lattices") <= definer(drawing) for drawing in DRAWING)


def contrast(tensor: MaskedTensor, frames: int, bands: int) -> torch.Tensor:
    """How much each entry changes when it is masked, over all axes but the last two: ``(B, frames, bands)`` float32, relative to the largest."""
    x, level = tensor.x, tensor.level
    if not x.is_floating_point():
        x, level = x.to(torch.complex128), level.to(torch.complex128)
    gap = (x - level).abs().double()
    largest = gap.flatten(1).amax(1).clamp_min(torch.finfo(gap.dtype).tiny)
    gap = (gap / largest.reshape(-1, *[1] * (gap.ndim - 1))).float()
    return gap.square().reshape(len(gap), -1, frames, bands).sum(1).sqrt()
