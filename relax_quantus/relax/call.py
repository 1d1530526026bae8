"""List the arguments of a call of RELAX, once, and check them.

What a caller passes enters as a frozen `Call`; a `CheckedCall` leaves, ready to be perturbed. A
`MaskedTensor` is one input with what replaces its masked entries, of which it makes masked copies.
No encoder runs here.
"""

from __future__ import annotations

import numbers
import secrets
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import callers_torch, exact
from relax_quantus.errors import ArgumentTypeError, ShapeError
from relax_quantus.relax.fills import FILLS, Fill, carried_silence
from relax_quantus.relax.masks import BindingStrategy, MaskStrategy

Tensors = Tensor | tuple[Tensor, ...]
Strategy = MaskStrategy | BindingStrategy

DOMAINS = ("log", "amplitude")
SUMS_BYTES = 1 << 29
"""Bytes that sums over masks and the maps made from them may take; larger batches go in parts."""
BYTES_AN_ENTRY = 192
"""Of those, bytes for each entry of the input: four sums in float64, and two to three times that
for maps."""


@dataclass(frozen=True)
class Call:
    """Hold the arguments of `RELAX.attribute`, `explain` and `similarities`, as they are given.

    Parameters
    ----------
    inputs
        ``(B, ...)`` or a tuple of such tensors, of any rank from 2. Row i of the result depends on
        example i alone.
    baselines
        What replaces masked entries: None for 0, a name (``"silence"``, ``"background"``, ...), a
        number, a tensor, a `Fill`, a callable ``x -> level``, or a tuple with one of these a
        tensor. ``"silence"`` is the inputs' own where they carry it as an attribute ``silence``,
        else ln(0.01).
    target
        Selects an output of the encoder, as elsewhere in Captum; leaves a scalar, so it needs a
        similarity other than a cosine.
    additional_forward_args
        Passed on to the encoder; tensors are repeated with the masked copies, whole batch after
        whole batch.
    feature_mask
        Integer groups, broadcastable to the inputs, the same for every example: a group is kept or
        replaced as one. Geometry then comes from the groups: built-in strategies keep each
        independently with their ``keep_probability``.
    n_samples
        Number of masks N; with a tolerance the most that an example is given.
    perturbations_per_eval
        Masks an encoder forward, each with the whole batch (of more than 48 examples: with even
        blocks of at most 48, unless `target` or `additional_forward_args` belong to it); None picks
        a number, measured where the call is large enough to pay for it, see `RELAX.plan`. It never
        changes the result beyond rounding, and is halved should the memory not suffice. No forward
        has more rows than that; one with fewer is filled up where the encoder refuses it, as
        networks of a fixed batch do.
    show_progress
        Show a progress bar.
    reference
        What masked copies are compared with: None for the input's own embedding; an embedding
        ``(D,)`` or ``(B, D)``; an input; or a tuple (towards, away), whose similarities are
        subtracted.
    seed
        Seeds a generator of this call's own; None takes fresh entropy. The masks are shared by the
        batch.
    """

    inputs: Tensors
    baselines: Any = None
    target: Any = None
    additional_forward_args: Any = None
    feature_mask: Tensors | None = None
    n_samples: int = 3000
    perturbations_per_eval: int | None = None
    show_progress: bool = False
    _: KW_ONLY
    reference: Any = None
    seed: int | None = 0

    def checked(self, strategy: Strategy, domain: str = "log") -> CheckedCall:
        """Check the arguments against each other; see the parameters for what they may be."""
        inputs = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        xs = checked_inputs(inputs)
        levels = one_each("baselines", self.baselines, len(xs))
        feature_masks = one_each("feature_mask", self.feature_mask, len(xs))
        groups = [feature_groups(x, mask) for x, mask in zip(xs, feature_masks, strict=True)]
        per_eval = self.perturbations_per_eval
        if per_eval is not None:
            per_eval = checks.integer("perturbations_per_eval", per_eval)
        seed = checks.seed(self.seed)
        return CheckedCall(
            tensors=tuple(
                masked_tensor(x, level, group, domain, given)
                for x, level, group, given in zip(xs, levels, groups, inputs, strict=True)
            ),
            is_tuple=isinstance(self.inputs, tuple),
            strategy=strategy,
            n_samples=checks.integer("n_samples", self.n_samples),
            seed=secrets.randbits(63) if seed is None else seed,
            perturbations_per_eval=per_eval,
            target=self.target,
            additional_forward_args=self.additional_forward_args,
            reference=self.reference,
            show_progress=self.show_progress,
        )


@dataclass(frozen=True)
class ExplainCall(Call):
    """Hold the arguments of `RELAX.explain`: those of a `Call`, and how far to go.

    Parameters
    ----------
    tolerance
        Stop each example by itself, without further forwards, when the largest standard error of
        its centred map is under this share of the map's spread, its standard deviation over the
        example's entries (of each tensor's, where there are several). The spread is free of the
        map's own noise: the mean squared standard error is subtracted from its variance. An example
        where nothing is left, or where an error is unknown, never stops. Looked at after 64, 96,
        128, 192, 256, ... masks, of these where N grew enough for it to be likely; ``n_samples`` of
        the result says how many each example took. The result is that of as many masks without a
        tolerance, and does not depend on the rest of the batch. None never stops.
    null
        Also say what chance alone draws: `Explanation.null` and `Explanation.p_value`, from
        permutations of the similarities. No further forward; masks are drawn once more, and the
        time grows with N times the entries of the masks.
    """

    _: KW_ONLY
    tolerance: float | None = None
    null: bool = False

    def checked(self, strategy: Strategy, domain: str = "log") -> CheckedCall:
        """Check the arguments, as `Call.checked` does."""
        tolerance = self.tolerance if self.tolerance is None else checks.positive("tolerance", self.tolerance)
        if not isinstance(self.null, bool):
            found = repr(self.null)
            checks.refuse("null", "True or False", found, "the level is asked of the result", ArgumentTypeError)
        return replace(super().checked(strategy, domain), tolerance=tolerance, null=self.null)


@dataclass(frozen=True)
class CheckedCall:
    """Hold one call's checked arguments, as in `ExplainCall` where they are not named here.

    Parameters
    ----------
    tensors
        The inputs with what replaces them, in tuple order.
    is_tuple
        Whether the caller passed a tuple and gets one back.
    strategy
        Where the masks come from.
    """

    tensors: tuple[MaskedTensor, ...]
    is_tuple: bool
    strategy: Strategy
    n_samples: int
    seed: int
    perturbations_per_eval: int | None
    target: Any
    additional_forward_args: Any
    reference: Any
    show_progress: bool
    tolerance: float | None = None
    null: bool = False

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return the inputs, ``(B, ...)`` each."""
        return tuple(t.x for t in self.tensors)

    @property
    def batch(self) -> int:
        """Return the number of examples."""
        return len(self.tensors[0].x)

    def parts(self, most: int | None = None) -> list[slice]:
        """Cut the batch into rows whose sums are kept at the same time, as few and even as can be.

        A part takes at most `SUMS_BYTES`.

        Parts of more than `most` examples are cut, too. Additional arguments and targets belong to
        the whole batch, which is then one part.
        """
        if self.additional_forward_args is not None or self.target is not None:
            return [slice(0, self.batch)]
        each = BYTES_AN_ENTRY * sum(t.x[0].numel() for t in self.tensors)
        count = max(-(-self.batch * each // SUMS_BYTES), -(-self.batch // (most or self.batch)))
        size = -(-self.batch // min(count, self.batch))
        return [slice(i, min(i + size, self.batch)) for i in range(0, self.batch, size)]


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
    return tuple(plain(x) for x in inputs)


def plain(x: Tensor) -> Tensor:
    """Return `x` detached, as a plain tensor if it carries its own silence: copies of it do not."""
    return x.detach() if carried_silence(x) is None else x.detach().as_subclass(Tensor)


def one_each(argument: str, value: Any, count: int) -> tuple[Any, ...]:
    """Return one entry a tensor: a tuple as it is, a single value once for each.

    A tensor is not shared by several inputs.
    """
    if not isinstance(value, tuple):
        if count > 1 and isinstance(value, Tensor) and value.ndim > 0:
            checks.refuse(
                argument, f"a tuple of {count}, one a tensor of the inputs", value, "wrap it in a tuple", ShapeError
            )
        return (value,) * count
    if len(value) != count:
        checks.refuse(argument, f"{count} entries, one a tensor of the inputs", f"{len(value)}", "", ShapeError)
    return value


@dataclass(frozen=True)
class MaskedTensor:
    """Hold one input tensor, what replaces its masked entries, and its groups.

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
    given
        `x` as the caller gave it, with what it may carry; `x` itself if None.
    """

    x: Tensor
    fill: Fill | None
    level: Tensor
    groups: Tensor | None
    domain: str = "log"
    given: Tensor | None = None

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """Return the shape asked of a strategy: the input's without batch, or ``(groups,)``."""
        return tuple(self.x.shape[1:]) if self.groups is None else (int(self.groups.max()) + 1,)

    def rows(self, rows: slice) -> MaskedTensor:
        """Return the same for some of the examples."""
        return replace(self, x=self.x[rows], level=self.level[rows])

    def spread(self, values: Tensor) -> Tensor:
        """Bring ``(n, *s)`` in the masks' shape to ``(n, *shape)``, expanded to all entries."""
        if self.groups is not None:
            return values[:, self.groups.to(values.device)]
        return values.expand(len(values), *self.x.shape[1:])

    def copies(self, masks: Tensor, noise: Tensor | None, rows: slice | list[int]) -> Tensor:
        """Make masked copies ``(m * b, *shape)`` of the examples in `rows`, mask after mask.

        Masks are ``(m, *s)``, or ``(m, B, *s)`` where each example has its own. A kept entry is
        exactly the input's, a masked one exactly the fill's. Integer and boolean inputs keep an
        entry from mask value .5 up.
        """
        x, level = self.x[rows], self.level[rows]
        if self.groups is not None:
            masks = self.spread(masks)
        own = masks.ndim > self.x.ndim
        masks = masks.to(x.device)
        masks = masks[:, rows] if own else masks[:, None]
        if x.is_floating_point() or x.is_complex():
            fill = level if noise is None else level + noise[:, None]
            precise = exact(x)
            copies = blend(exact(fill), precise, masks.to(precise.dtype), self.domain).to(x.dtype)
        else:
            copies = torch.where(masks >= 0.5, x, level)
        return copies.flatten(0, 1)


def blend(fill: Tensor, x: Tensor, masks: Tensor, domain: str) -> Tensor:
    """Blend fill and input ``(b, *shape)`` by masks ``(m, 1, *s)``, exactly at 0 and at 1.

    The fill may be ``(m, b, *shape)``.
    """
    shape = (len(masks), *x.shape)
    if domain == "amplitude":
        return torch.logaddexp(x + masks.log(), fill + torch.log1p(-masks))
    return torch.lerp(fill.expand(shape), x, masks.expand(shape))


def masked_tensor(
    x: Tensor, baseline: Any, groups: Tensor | None, domain: str = "log", given: Tensor | None = None
) -> MaskedTensor:
    """Assemble a `MaskedTensor` from any of the forms that a baseline may have.

    These are None, a name, a number, a tensor, a `Fill` or a callable.
    """
    source = x if given is None or carried_silence(given) is None else given
    fill = FILLS.get(baseline) if isinstance(baseline, str) else baseline
    if fill is None:
        level = torch.zeros((), dtype=x.dtype)
    elif isinstance(fill, numbers.Real):
        level = torch.tensor(fill, dtype=x.dtype)
    elif isinstance(fill, Tensor):
        level = fill
    elif isinstance(fill, Fill):
        level = fill.level(source)
    elif callable(fill):
        with callers_torch():
            level = checks.tensor("baselines", fill(source))
    else:
        known = f"a name ({', '.join(FILLS)}), a number, a tensor, a Fill or a callable"
        checks.refuse("baselines", known, type(fill).__name__, "pass one of them", ArgumentTypeError)
    try:
        level = level.as_subclass(Tensor).to(device=x.device, dtype=x.dtype).expand_as(x)
    except RuntimeError:
        remedy = "pass one value, or a tensor of the input's shape"
        checks.refuse("baselines", f"something broadcastable to {tuple(x.shape)}", level, remedy, ShapeError)
    noisy = fill if isinstance(fill, Fill) else None
    return MaskedTensor(x, noisy, checks.finite("baselines", level), groups, domain, given)


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
