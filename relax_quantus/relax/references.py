"""What masked copies are compared with: the input's own embedding, another's, or one towards and one away from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.errors import ArgumentTypeError, EncoderError, ShapeError

Embed = Callable[[tuple[Tensor, ...]], Tensor]


def checked_embedding(h: object, rows: int, *, nonzero: bool, what: str = "encoder") -> Tensor:
    """Return embeddings as ``(rows, D)``, or say what is wrong with what the encoder returned.

    Parameters
    ----------
    h
        What the encoder returned: ``(rows, D)``, or ``(rows,)``, which counts as D = 1.
    rows
        Expected number of embeddings.
    nonzero
        Refuse rows of zeros, which have no direction.
    what
        What to call it in messages.

    Raises
    ------
    EncoderError
        Unless it is a finite tensor of that shape.
    """
    if not isinstance(h, Tensor):
        checks.refuse(what, "a tensor (n, D)", f"a {type(h).__name__}", "return the embedding alone", EncoderError)
    if h.ndim == 1 and len(h) == rows:
        h = h[:, None]
    if h.ndim != 2 or len(h) != rows or h.shape[1] == 0:
        remedy = "return one vector an example, for example by flatten(1) or a mean over the extra axes"
        checks.refuse(what, f"embeddings of shape ({rows}, D)", h, remedy, EncoderError)
    if not h.is_floating_point():
        h = h.float()
    if not bool(torch.isfinite(h).all()):
        checks.refuse(
            what, "finite embeddings", "NaN or infinite ones", "check its weights and input scale", EncoderError
        )
    if nonzero and bool((h == 0).all(dim=1).any()):
        remedy = (
            "an all-zero embedding has no direction to compare with; check the weights, or use a layer before the ReLU"
        )
        checks.refuse(what, "non-zero embeddings", "an all-zero one", remedy, EncoderError)
    return h


def references(reference: Any, inputs: tuple[Tensor, ...], embed: Embed, nonzero: bool) -> list[tuple[float, Tensor]]:
    """Return the weighted embeddings ``(weight, (B, D))`` that similarities are taken to.

    Parameters
    ----------
    reference
        None for the input's own embedding; an embedding ``(D,)``, ``(1, D)`` or ``(B, D)``; an input ``x.shape[1:]``,
        ``(1, *x.shape[1:])`` or like ``x``; or a 2-tuple of these, (towards, away).
    inputs
        The inputs to explain.
    embed
        Runs the encoder on a tuple of inputs.
    nonzero
        Refuse all-zero embeddings.
    """
    if isinstance(reference, tuple):
        if len(reference) != 2:
            checks.refuse("reference", "a 2-tuple (towards, away)", f"{len(reference)} entries", "pass two")
        if any(isinstance(r, tuple) for r in reference):
            checks.refuse("reference", "tensors or None in the tuple", "a tuple in a tuple", "pass (towards, away)")
        towards, away = (references(r, inputs, embed, nonzero)[0][1] for r in reference)
        if towards.shape != away.shape:
            checks.refuse("reference", f"embeddings of one shape, {tuple(towards.shape)}", away, "", ShapeError)
        return [(1.0, towards), (-1.0, away)]
    batch = len(inputs[0])
    if reference is None:
        own = tuple(x.clone() for x in inputs)  # an encoder may begin with an in-place operation
        return [(1.0, checked_embedding(embed(own), batch, nonzero=nonzero))]
    if not isinstance(reference, Tensor):
        rule = "None, a tensor, or a 2-tuple (towards, away)"
        checks.refuse("reference", rule, type(reference).__name__, "convert it to a tensor", ArgumentTypeError)
    checks.finite("reference", reference)
    reference = reference.detach().to(inputs[0].device)
    shape = inputs[0].shape[1:]
    if len(inputs) == 1 and reference.ndim >= 3 and reference.shape[-len(shape) :] == shape:
        example = reference[None] if reference.ndim == len(shape) else reference
        if example.ndim != inputs[0].ndim or len(example) not in (1, batch):
            checks.refuse(
                "reference",
                f"an input of shape {tuple(inputs[0].shape)}, or one of its rows",
                reference,
                "",
                ShapeError,
            )
        example = example.to(inputs[0].dtype).expand(batch, *shape).clone()
        return [(1.0, checked_embedding(embed((example,)), batch, nonzero=nonzero))]
    embedding = reference[None] if reference.ndim == 1 else reference
    if embedding.ndim != 2 or len(embedding) not in (1, batch):
        rule = f"an embedding (D,) or ({batch}, D), or an input like {tuple(inputs[0].shape)}"
        checks.refuse("reference", rule, reference, "reshape it", ShapeError)
    return [(1.0, checked_embedding(embedding.expand(batch, -1), batch, nonzero=nonzero, what="reference"))]
