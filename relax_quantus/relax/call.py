"""One call's arguments, validated: inputs, fills, groups and masks, ready to be perturbed.

What a caller passes to `RELAX` enters, a frozen `Problem` leaves. Stands between the attribution class and the streams of masks.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.errors import ShapeError
from relax_quantus.relax.masks import MaskStrategy
from relax_quantus.relax.perturbation import MaskedTensor, MaskStream, feature_groups, masked_tensor

Tensors = Tensor | tuple[Tensor, ...]

SUMS_BYTES = 1 << 29
"""What sums over masks and the maps made from them may take at a time; larger batches are explained part by part, with the same masks."""
BYTES_AN_ENTRY = 192
"""Of those, for each entry of the input: four sums in float64, and as much again twice to three times while maps are made."""


@dataclass(frozen=True)
class Problem:
    """One call's validated arguments.

    Parameters
    ----------
    tensors
        The inputs with what replaces them, in tuple order.
    is_tuple
        Whether the caller passed a tuple and gets one back.
    strategy, n_samples, seed
        Where the masks come from.
    perturbations_per_eval
        Masks a forward, or None to leave the choice to `relax_quantus.relax.execution`.
    target, additional_forward_args
        For the encoder.
    """

    tensors: tuple[MaskedTensor, ...]
    is_tuple: bool
    strategy: MaskStrategy
    n_samples: int
    seed: int
    perturbations_per_eval: int | None = None
    target: Any = None
    additional_forward_args: Any = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs as they came, ``(B, ...)`` each."""
        return tuple(t.x for t in self.tensors)

    @property
    def batch(self) -> int:
        """Number of examples."""
        return len(self.tensors[0].x)

    @cached_property
    def stream(self) -> MaskStream:
        """This call's masks; a user's are asked for when they are first needed, once."""
        return MaskStream(self.strategy, self.tensors, self.n_samples, self.seed)

    def parts(self, most: int | None = None) -> list[slice]:
        """Rows of the batch whose sums are kept at the same time, one part after another: as few as `SUMS_BYTES` allows, and even.

        Parts of more than `most` examples are cut, too.

        Additional arguments and targets belong to the whole batch, which is then one part.
        """
        if self.additional_forward_args is not None or self.target is not None:
            return [slice(0, self.batch)]
        each = BYTES_AN_ENTRY * sum(t.x[0].numel() for t in self.tensors)
        count = max(-(-self.batch * each // SUMS_BYTES), -(-self.batch // (most or self.batch)))
        size = -(-self.batch // min(count, self.batch))
        return [slice(i, min(i + size, self.batch)) for i in range(0, self.batch, size)]


def pose(
    inputs: Tensors,
    strategy: MaskStrategy,
    *,
    baselines: Any = None,
    feature_mask: Any = None,
    n_samples: int,
    seed: int | None,
    domain: str = "log",
    perturbations_per_eval: int | None = None,
    target: Any = None,
    additional_forward_args: Any = None,
) -> Problem:
    """Validate one call's arguments; see `RELAX.attribute` for what they mean and what is refused."""
    xs = checked_inputs(inputs if isinstance(inputs, tuple) else (inputs,))
    levels = one_each("baselines", baselines, len(xs))
    groups = [feature_groups(x, g) for x, g in zip(xs, one_each("feature_mask", feature_mask, len(xs)), strict=True)]
    if perturbations_per_eval is not None:
        perturbations_per_eval = checks.integer("perturbations_per_eval", perturbations_per_eval)
    seed = checks.seed(seed)
    return Problem(
        tensors=tuple(masked_tensor(x, b, g, domain) for x, b, g in zip(xs, levels, groups, strict=True)),
        is_tuple=isinstance(inputs, tuple),
        strategy=strategy,
        n_samples=checks.integer("n_samples", n_samples),
        seed=secrets.randbits(63) if seed is None else seed,
        perturbations_per_eval=perturbations_per_eval,
        target=target,
        additional_forward_args=additional_forward_args,
    )


def checked_inputs(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a tuple of finite tensors ``(B, ...)`` with one batch size, or refuse it."""
    if not inputs:
        checks.refuse("inputs", "a tensor or a tuple of tensors", "an empty tuple", "pass at least one")
    for x in inputs:
        x = checks.tensor("inputs", x)
        if x.ndim < 2 or 0 in x.shape:
            checks.refuse(
                "inputs", "shape (B, ...) with at least two axes, none empty", x, "add the batch axis", ShapeError
            )
        if len(x) != len(inputs[0]):
            checks.refuse("inputs", f"{len(inputs[0])} examples in every tensor", x, "pass equal batches", ShapeError)
        checks.finite("inputs", x)
    return tuple(x.detach() for x in inputs)


def one_each(argument: str, value: Any, count: int) -> tuple[Any, ...]:
    """Return one entry a tensor: a tuple as it is, a single value for all, except that tensors are not shared by several inputs."""
    if not isinstance(value, tuple):
        if count > 1 and isinstance(value, Tensor) and value.ndim > 0:
            checks.refuse(
                argument, f"a tuple of {count}, one a tensor of the inputs", value, "wrap it in a tuple", ShapeError
            )
        return (value,) * count
    if len(value) != count:
        checks.refuse(argument, f"{count} entries, one a tensor of the inputs", f"{len(value)}", "", ShapeError)
    return value
