"""One call's arguments, validated: inputs, what replaces their masked entries, groups and masks, ready to be perturbed.

What a caller passes to `RELAX` enters, a frozen `Problem` leaves. `MaskedTensor` knows one input tensor, its fill and its feature groups;
`MaskStream` draws the masks of all tensors of an input in order and in chunks, so that memory does not grow with their number.
"""

from __future__ import annotations

import numbers
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.torch_state import callers_torch, exact
from relax_quantus.errors import ArgumentTypeError, ShapeError
from relax_quantus.relax.fills import FILLS, Fill
from relax_quantus.relax.masks import GridStrategy, Groups, MaskStrategy

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


CHUNK_MASKS = 64
CHUNK_ENTRIES = 1 << 22
DOMAINS = ("log", "amplitude")

Drawn = tuple[list[Tensor], list[Tensor | None]]


@dataclass(frozen=True)
class MaskedTensor:
    """One input tensor, what replaces its masked entries, and its groups.

    Parameters
    ----------
    x
        ``(B, *shape)``.
    fill
        Draws noise per mask, or None.
    level
        Expanded to ``x``.
    groups
        Group index of each entry, shape `shape`, or None where masks are per entry.
    domain
        ``"log"`` or ``"amplitude"``: where soft masks blend, see `RELAX`.
    """

    x: Tensor
    fill: Fill | None
    level: Tensor
    groups: Tensor | None
    domain: str = "log"

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """What a strategy is asked for: the input's shape without batch, or ``(groups,)``."""
        return tuple(self.x.shape[1:]) if self.groups is None else (int(self.groups.max()) + 1,)

    def rows(self, rows: slice) -> MaskedTensor:
        """The same for some of the examples."""
        return replace(self, x=self.x[rows], level=self.level[rows])

    def spread(self, values: Tensor) -> Tensor:
        """Bring ``(n, *s)`` in the masks' shape to ``(n, *shape)``: groups to their entries, broadcast axes expanded (a view)."""
        if self.groups is not None:
            return values[:, self.groups.to(values.device)]
        return values.expand(len(values), *self.x.shape[1:])

    def copies(self, masks: Tensor, noise: Tensor | None, rows: slice | list[int]) -> Tensor:
        """Masked copies ``(m * b, *shape)`` of the examples in `rows`, all examples under the first mask first.

        A kept entry is exactly the input's, a masked one exactly the fill's. Integer and boolean inputs keep an entry from mask value .5 up.
        """
        x, level = self.x[rows], self.level[rows]
        if self.groups is not None:
            masks = self.spread(masks)
        masks = masks.to(x.device)[:, None]
        if x.is_floating_point() or x.is_complex():
            fill = level if noise is None else level + noise[:, None]
            precise = exact(x)
            copies = blend(exact(fill), precise, masks.to(precise.dtype), self.domain).to(x.dtype)
        else:
            copies = torch.where(masks >= 0.5, x, level)
        return copies.flatten(0, 1)


def blend(fill: Tensor, x: Tensor, masks: Tensor, domain: str) -> Tensor:
    """Blend fill ``(b, *shape)`` or ``(m, b, *shape)`` and input ``(b, *shape)`` by masks ``(m, 1, *s)``; exact at 0 and at 1."""
    shape = (len(masks), *x.shape)
    if domain == "amplitude":
        return torch.logaddexp(x + masks.log(), fill + torch.log1p(-masks))
    return torch.lerp(fill.expand(shape), x, masks.expand(shape))


def masked_tensor(x: Tensor, baseline: Any, groups: Tensor | None, domain: str = "log") -> MaskedTensor:
    """Assemble a `MaskedTensor` from what a user may pass as its baseline: None, a name, a number, a tensor, a `Fill` or a callable."""
    fill = FILLS.get(baseline) if isinstance(baseline, str) else baseline
    if fill is None:
        level = torch.zeros((), dtype=x.dtype)
    elif isinstance(fill, numbers.Real):
        level = torch.tensor(fill, dtype=x.dtype)
    elif isinstance(fill, Tensor):
        level = fill
    elif isinstance(fill, Fill):
        level = fill.level(x)
    elif callable(fill):
        with callers_torch():
            level = checks.tensor("baselines", fill(x))
    else:
        known = f"a name ({', '.join(FILLS)}), a number, a tensor, a Fill or a callable"
        checks.refuse("baselines", known, type(fill).__name__, "pass one of them", ArgumentTypeError)
    try:
        level = level.to(device=x.device, dtype=x.dtype).expand_as(x)
    except RuntimeError:
        remedy = "pass one value, or a tensor of the input's shape"
        checks.refuse("baselines", f"something broadcastable to {tuple(x.shape)}", level, remedy, ShapeError)
    return MaskedTensor(x, fill if isinstance(fill, Fill) else None, checks.finite("baselines", level), groups, domain)


def feature_groups(x: Tensor, feature_mask: Tensor | None) -> Tensor | None:
    """Number the groups of a Captum feature mask 0, 1, ...; shape ``x.shape[1:]``, int64."""
    if feature_mask is None:
        return None
    mask = checks.tensor("feature_mask", feature_mask)
    if mask.is_floating_point():
        checks.refuse("feature_mask", "integer group numbers", mask, "convert it with .long()", ArgumentTypeError)
    try:
        mask = mask.expand_as(x)
    except RuntimeError:
        checks.refuse("feature_mask", f"something broadcastable to {tuple(x.shape)}", mask, "reshape it", ShapeError)
    if not bool((mask == mask[:1]).all()):
        rule = "the same groups for every example, as masks are shared by the batch"
        checks.refuse("feature_mask", rule, "rows that differ", "explain the examples one by one")
    groups: Tensor = torch.unique(mask[0], return_inverse=True)[1]
    return groups


class MaskStream:
    """The masks of one explanation, in order, in chunks; each iteration gives the same ones.

    Parameters
    ----------
    strategy
        Built-in strategies draw from one generator a tensor, chunk by chunk; a tensor with groups gets `Groups` of their `keep_probability`.
        Any other object is asked once a tensor, in tuple order, for all `n_samples` masks.
    tensors
        The input's tensors, in tuple order.
    n_samples
        Masks a tensor.
    seed
        Tensor 0's generator is seeded with it directly; the others, and the fills' noise, with numbers derived from it.
    """

    def __init__(self, strategy: MaskStrategy, tensors: tuple[MaskedTensor, ...], n_samples: int, seed: int) -> None:
        self.strategy, self.tensors, self.n_samples, self.seed = strategy, tensors, n_samples, seed
        self.block = max(1, min(CHUNK_MASKS, CHUNK_ENTRIES // max(t.x[0].numel() for t in tensors)))
        self._given = [
            None if isinstance(strategy, GridStrategy) else self._ask(t, child_generator(seed, i))
            for i, t in enumerate(tensors)
        ]

    def __iter__(self) -> Iterator[Drawn]:
        """Yield, a tensor each, masks ``(m, *s)`` and the fill's noise ``(m, *shape)`` or None."""
        return self.chunks(1)

    def masks(self) -> Iterator[list[Tensor]]:
        """Yield the masks alone, a tensor each, without the fill's noise."""
        draws = [self._masks(i, t) for i, t in enumerate(self.tensors)]
        for start in range(0, self.n_samples, self.block):
            m = min(self.block, self.n_samples - start)
            yield [moved(draw(m), t.x.device) for draw, t in zip(draws, self.tensors, strict=True)]

    def chunks(self, multiple: int) -> Iterator[Drawn]:
        """Yield as `__iter__` does, a multiple of so many masks at a time, on the inputs' device.

        Chunks hold whole forwards of `multiple` masks, as many as fit into `block` masks or one. Masks and noise do not depend on it.
        """
        chunk = multiple * max(1, self.block // multiple)
        masks = [self._masks(i, t) for i, t in enumerate(self.tensors)]
        noise = [self._noise(i, t) for i, t in enumerate(self.tensors)]
        for start in range(0, self.n_samples, chunk):
            m = min(chunk, self.n_samples - start)
            drawn = [moved(draw(m), t.x.device) for draw, t in zip(masks, self.tensors, strict=True)]
            yield drawn, [draw(m) for draw in noise]

    def _ask(self, tensor: MaskedTensor, generator: torch.Generator) -> Tensor:
        """Ask a user's object for all its masks, and check them."""
        shape = tensor.mask_shape
        return checked_masks(self.strategy.sample(self.n_samples, shape, generator), self.n_samples, shape)

    def _masks(self, index: int, tensor: MaskedTensor) -> Callable[[int], Tensor]:
        """Return a function that hands out the next n masks of one tensor."""
        given = self._given[index]
        if given is not None:
            return successive(given)
        generator, shape = child_generator(self.seed, index), tensor.mask_shape
        grouped = isinstance(self.strategy, GridStrategy) and tensor.groups is not None
        strategy = Groups(self.strategy.keep_probability) if grouped else self.strategy  # type: ignore[attr-defined]
        return lambda n: strategy.sample(n, shape, generator)

    def _noise(self, index: int, tensor: MaskedTensor) -> Callable[[int], Tensor | None]:
        """Return a function that hands out the fill's noise for the next n masks, drawn in blocks that do not depend on n."""
        fill, generator = tensor.fill, child_generator(self.seed, len(self.tensors) + index)
        left = self.n_samples
        waiting: list[Tensor] = []

        def draw(n: int) -> Tensor | None:
            nonlocal left, waiting
            while fill is not None and left > 0 and sum(map(len, waiting)) < n:
                drawn = fill.draw(min(self.block, left), tensor.x, generator)
                if drawn is None:
                    return None
                left -= len(drawn)
                waiting.append(drawn)
            if not waiting:
                return None
            together = waiting[0] if len(waiting) == 1 else torch.cat(waiting)
            waiting = [together[n:]]
            return together[:n]

        return draw


def successive(masks: Tensor) -> Callable[[int], Tensor]:
    """Return a function that hands out the next n rows."""
    position = 0

    def draw(n: int) -> Tensor:
        nonlocal position
        position += n
        return masks[position - n : position]

    return draw


def moved(masks: Tensor, device: torch.device) -> Tensor:
    """Bring a chunk of masks to a device in one transfer, during which a GPU goes on computing."""
    if device.type == "cuda" and masks.device.type == "cpu":
        return masks.contiguous().pin_memory().to(device, non_blocking=True)
    return masks.to(device)


def child_generator(seed: int, index: int) -> torch.Generator:
    """Return the CPU generator number `index` of a seed; number 0 is seeded with the seed itself."""
    if index:
        seed = int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)


def checked_masks(masks: object, n: int, shape: tuple[int, ...]) -> Tensor:
    """Return a user's masks expanded to ``(n, *shape)``, or refuse them."""
    masks = checks.tensor("masks", masks)
    if masks.ndim == 0 or len(masks) != n:
        checks.refuse("masks", f"{n} masks from sample({n}, {shape}, generator)", masks, "return that many", ShapeError)
    if not masks.is_floating_point():
        masks = masks.float()
    checks.finite("masks", masks)
    if bool((masks < 0).any()) or bool((masks > 1).any()):
        found = f"{float(masks.min()):.4g} to {float(masks.max()):.4g}"
        checks.refuse("masks", "values from 0 (replace) to 1 (keep)", found, "clip or rescale them")
    try:
        return masks.expand(n, *shape)
    except RuntimeError:
        checks.refuse("masks", f"masks broadcastable to {(n, *shape)}", masks, "reshape them", ShapeError)
