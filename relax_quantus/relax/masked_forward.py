"""Run the encoder on masked copies, and compare their embeddings with the reference's.

A checked call and an encoder enter; the similarity of every masked copy to the reference leaves,
chunk by chunk and together with the masks it belongs to. `MaskStream` draws the masks,
`MaskedForward` embeds the copies and compares.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from relax_quantus.base import checks
from relax_quantus.base.networks import callers_torch, checked_embedding
from relax_quantus.errors import ArgumentTypeError, EncoderError, ShapeError
from relax_quantus.relax.bound_masks import BoundMasks
from relax_quantus.relax.call import CheckedCall, MaskedTensor, Strategy
from relax_quantus.relax.execution import Execution
from relax_quantus.relax.similarity import Similarity, is_directional

Embed = Callable[[tuple[Tensor, ...]], Tensor]
Drawn = tuple[list[Tensor], list[Tensor | None]]

CHUNK_MASKS = 64
CHUNK_ENTRIES = 1 << 22
"""Masks that are drawn at a time, at most, and entries of them."""


class MaskStream:
    """Draw the masks of one call, in order, in chunks; each iteration gives the same ones.

    Parameters
    ----------
    strategy
        Bound to each tensor, in tuple order, or to the groups of its feature mask; see `bound`.
    tensors
        The input's tensors, in tuple order.
    n_samples
        Masks a tensor.
    seed
        Tensor 0's generator is seeded with it directly; the others, and the fills' noise, with
        numbers derived from it.

    Attributes
    ----------
    bound
        Masks of each tensor, as estimators are told of them.
    block
        Masks that are drawn at a time, if a forward does not take more.
    """

    def __init__(self, strategy: Strategy, tensors: tuple[MaskedTensor, ...], n_samples: int, seed: int) -> None:
        self.tensors, self.n_samples, self.seed = tensors, n_samples, seed
        found = [replace(bound(strategy, t), seed=child_seed(seed, i)) for i, t in enumerate(tensors)]
        if len(tensors) > 1:  # the similarity depends on all, whose joint distribution is unknown
            found = [replace(masks, distribution=None) for masks in found]
        self.bound = tuple(found)
        entries = [t.x.numel() if m.by_example else t.x[0].numel() for t, m in zip(tensors, found, strict=True)]
        self.block = max(1, min(CHUNK_MASKS, CHUNK_ENTRIES // max(entries)))
        self._whole = [self._asked(i) if masks.at_once else None for i, masks in enumerate(found)]

    @classmethod
    def of(cls, call: CheckedCall) -> Self:
        """Draw a call's masks; a strategy of the user's own is asked here, once."""
        return cls(call.strategy, call.tensors, call.n_samples, call.seed)

    def __iter__(self) -> Iterator[Drawn]:
        """Yield, a tensor each, masks ``(m, *s)`` and the fill's noise ``(m, *shape)`` or None."""
        return self.chunks(1)

    def masks(self) -> Iterator[list[Tensor]]:
        """Yield the masks alone, a tensor each, without the fill's noise."""
        draws = [self.reader(i) for i in range(len(self.tensors))]
        for start in range(0, self.n_samples, self.block):
            m = min(self.block, self.n_samples - start)
            yield [moved(draw(m), t.x.device) for draw, t in zip(draws, self.tensors, strict=True)]

    def chunks(self, multiple: int) -> Iterator[Drawn]:
        """Yield as `__iter__` does, a multiple of so many masks at a time, on the inputs' device.

        Chunks hold whole forwards of `multiple` masks, as many as fit into `block` masks or one.
        Masks and noise do not depend on it.
        """
        chunk = multiple * max(1, self.block // multiple)
        masks = [self.reader(i) for i in range(len(self.tensors))]
        noise = [self._noise(i, t) for i, t in enumerate(self.tensors)]
        for start in range(0, self.n_samples, chunk):
            m = min(chunk, self.n_samples - start)
            drawn = [moved(draw(m), t.x.device) for draw, t in zip(masks, self.tensors, strict=True)]
            yield drawn, [draw(m) for draw in noise]

    def reader(self, index: int) -> Callable[[int], Tensor]:
        """Return a function that hands out the next n masks of one tensor, from the first on."""
        whole, masks, tensor = self._whole[index], self.bound[index], self.tensors[index]
        if whole is not None:
            return successive(whole)
        generator = torch.Generator().manual_seed(masks.seed)
        batch = len(tensor.x) if masks.by_example else None
        return lambda n: checked_masks(masks.draw(n, generator), n, tensor.mask_shape, f"draw({n}, generator)", batch)

    def _asked(self, index: int) -> Tensor:
        """Ask for all masks of one tensor."""
        masks, n, shape = self.bound[index], self.n_samples, self.tensors[index].mask_shape
        drawn = masks.draw(n, torch.Generator().manual_seed(masks.seed))
        return checked_masks(drawn, n, shape, f"sample({n}, {shape}, generator)").expand(-1, *shape)

    def _noise(self, index: int, tensor: MaskedTensor) -> Callable[[int], Tensor | None]:
        """Return a function that hands out the fill's noise for the next n masks.

        It is drawn in blocks that do not depend on n.
        """
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


def child_seed(seed: int, index: int) -> int:
    """Return the seed number `index` of a seed; number 0 is the seed itself."""
    if not index:
        return seed
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def child_generator(seed: int, index: int) -> torch.Generator:
    """Return the CPU generator number `index` of a seed; number 0 is the seed's own."""
    return torch.Generator().manual_seed(child_seed(seed, index))


def bound(strategy: Strategy, tensor: MaskedTensor) -> BoundMasks:
    """Bind a strategy to an input, or to the groups of its feature mask.

    That one is asked for all masks at once, since nobody says that ``sample(3)`` and ``sample(5)``
    are ``sample(8)``.
    """
    method = "bind" if tensor.groups is None else "bind_groups"
    bind, shape = getattr(strategy, method, None), tensor.mask_shape
    if bind is None:
        sample = getattr(strategy, "sample", None)
        if sample is None:
            remedy = "give it bind_groups(count), or leave the feature mask out"
            checks.refuse("feature_mask", "masks that can be bound to groups", type(strategy).__name__, remedy)
        return BoundMasks(lambda n, generator: sample(n, shape, generator), at_once=True)
    given = tensor.x if tensor.given is None else tensor.given
    masks = bind(given if tensor.groups is None else shape[0])
    if not isinstance(masks, BoundMasks):
        remedy = "return relax_quantus.masks.BoundMasks(draw)"
        checks.refuse("masks", f"BoundMasks from {method}", type(masks).__name__, remedy, ArgumentTypeError)
    return masks


def checked_masks(masks: object, n: int, shape: tuple[int, ...], drawn_by: str, batch: int | None = None) -> Tensor:
    """Return masks ``(n, *s)``, or ``(n, batch, *s)``, broadcastable to `shape`, or refuse them."""
    masks = checks.tensor("masks", masks)
    lead = (n,) if batch is None else (n, batch)
    if masks.ndim == 0 or tuple(masks.shape[: len(lead)]) != lead:
        checks.refuse("masks", f"{n} masks from {drawn_by}", masks, "return that many", ShapeError)
    if not masks.is_floating_point():
        masks = masks.float()
    low, high = (float(v) for v in torch.aminmax(masks))
    if not (low >= 0 and high <= 1):  # NaN is neither
        checks.finite("masks", masks)
        found = f"{low:.4g} to {high:.4g}"
        checks.refuse("masks", "values from 0 (replace) to 1 (keep)", found, "clip or rescale them")
    try:
        whole = masks.expand(*lead, *shape)
    except RuntimeError:
        checks.refuse("masks", f"masks broadcastable to {(*lead, *shape)}", masks, "reshape them", ShapeError)
    return masks if masks.ndim == whole.ndim else whole


class MaskedForward:
    """Embed one call's masked copies, and compare them with the reference.

    Parameters
    ----------
    encoder
        ``inputs -> (n, D)``; run by the methods alone.
    similarity
        ``(h (B, D), h_masked (M, B, D)) -> (M, B)``.
    call
        The call's checked arguments.
    precision
        As in `RELAX`.

    Attributes
    ----------
    stream
        The call's masks, after `prepare`.
    """

    stream: MaskStream

    def __init__(
        self, encoder: Callable[..., Any], similarity: Similarity, call: CheckedCall, precision: str = "float32"
    ) -> None:
        self.similarity, self.call = similarity, call
        self.execution = Execution(encoder, call, precision)
        self.compared: list[tuple[float, Tensor]] = []

    def prepare(self) -> Self:
        """Embed the reference, check the encoder by that, and decide how to run it."""
        call, nonzero = self.call, is_directional(self.similarity)
        self.compared = references(call.reference, call.inputs, self.embed_first, nonzero)
        self.execution.prepare()
        if self.execution.has_lowered_precision:
            # rounding that copies and reference share changes the map less
            self.compared = references(call.reference, call.inputs, self.embed, nonzero)
        self.stream = MaskStream.of(call)
        return self

    def embed_first(self, inputs: tuple[Tensor, ...]) -> Any:
        """Embed one batch, and say in our own words if its shape or type alone is wrong."""
        kept = tuple(x.clone() for x in inputs)  # an encoder may begin with an in-place operation
        try:
            h = self.embed(inputs)
        except Exception as error:
            if not is_out_of_memory(error):
                self.execution.refuse_misfits(kept)
            raise
        if isinstance(h, Tensor) and (h.ndim == 0 or len(h) != len(kept[0])):
            self.execution.refuse_misfits(kept)
        return h

    def embed(self, inputs: tuple[Tensor, ...]) -> Any:
        """Embed one batch, block by block."""
        parts = self._fitting(
            lambda: [self.execution.embed(tuple(x[rows] for x in inputs)) for rows in self.execution.blocks()]
        )
        whole = len(parts) > 1 and all(isinstance(h, Tensor) and h.ndim > 0 for h in parts)
        return torch.cat(parts) if whole else parts[0]

    def similarities(
        self, rows: slice | list[int] | None = None, ends: Sequence[int] = ()
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield similarities ``(m, b)`` float64 of examples and, a tensor each, their masks.

        A GPU is not waited for before all is queued, so that it computes while the next masks are
        drawn.

        Parameters
        ----------
        rows
            All by default. A list may be shortened by the caller between two chunks; it ends when
            none is left.
        ends
            Ascending numbers of masks at which a chunk has to end.
        """
        rows = slice(0, self.call.batch) if rows is None else rows
        device = self.call.inputs[0].device
        finite = torch.ones((), dtype=torch.bool, device=device)
        hidden = not self.call.show_progress or sys.stderr is None
        with tqdm(total=self.call.n_samples, desc="RELAX attribution", disable=hidden) as bar:
            position = 0
            for masks, noise in self.stream.chunks(self.execution.plan.perturbations_per_eval):
                for part in cut(position, len(masks[0]), ends):
                    drawn = [k[part] for k in masks]
                    noises = [None if z is None else z[part] for z in noise]
                    similarities: Tensor = self._fitting(partial(self._chunk, drawn, noises, rows))
                    finite &= torch.isfinite(similarities).all()
                    if device.type == "cpu":
                        refuse_unless(finite)
                    yield similarities, drawn
                    bar.update(len(drawn[0]))
                    if rows == []:
                        refuse_unless(finite)
                        return
                position += len(masks[0])
        refuse_unless(finite)

    def _chunk(self, masks: list[Tensor], noise: list[Tensor | None], rows: slice | list[int]) -> Tensor:
        """Return the similarities ``(m, b)`` under a chunk of masks."""
        if isinstance(rows, list) and self.execution.is_fixed:
            return self._chunk(masks, noise, slice(0, self.call.batch))[:, rows]
        examples = range(rows.start, rows.stop) if isinstance(rows, slice) else rows
        m, per_forward = len(masks[0]), self.execution.masks_a_forward(len(examples) if rows is examples else None)
        reference = self.compared[0][1]
        similarities = torch.empty(m, len(examples), dtype=torch.float64, device=reference.device)
        for start in range(0, m, per_forward):
            part = slice(start, min(start + per_forward, m))
            for columns in self.execution.blocks(slice(0, len(examples))):
                some = examples[columns]
                block = some if isinstance(some, list) else slice(some.start, some.stop)
                copies = tuple(
                    t.copies(k[part], None if z is None else z[part], block)
                    for t, k, z in zip(self.call.tensors, masks, noise, strict=True)
                )
                similarities[part, columns] = self.compare(copies, block)
        return similarities

    def _fitting(self, run: Callable[[], Any]) -> Any:
        """Run, with forwards half as large as often as the memory does not suffice."""
        while True:
            try:
                return run()
            except RuntimeError as error:
                if not is_out_of_memory(error) or not self.execution.halve():
                    raise
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def compare(self, copies: tuple[Tensor, ...], rows: slice | list[int]) -> Tensor:
        """Compare copies ``(m * b, ...)`` of examples in `rows` to the reference, ``(m, b)``."""
        h = self.execution.embed(copies)
        total = torch.zeros((), dtype=torch.float64, device=self.compared[0][1].device)
        for weight, reference in self.compared:
            reference = reference[rows]
            m, b = len(copies[0]) // len(reference), len(reference)
            masked = masked_embeddings(h, m * b, reference.shape[1]).reshape(m, b, -1)
            with callers_torch():
                similarity = self.similarity(reference, masked)
            if not isinstance(similarity, Tensor) or tuple(similarity.shape) != (m, b):
                rule = f"a tensor of (M, B) = {(m, b)} similarities"
                checks.refuse("similarity", rule, similarity, "return one a mask and example", ShapeError)
            total = total + weight * similarity.double()
        return total

    def fully_masked(self) -> Tensor:
        """Compare the fill alone to the reference, ``(B,)``: a map is to be read against that."""
        tensors = self.call.tensors
        similarities = self._fitting(
            lambda: [
                self.compare(tuple(t.level[rows].clone() for t in tensors), rows)[0] for rows in self.execution.blocks()
            ]
        )
        return torch.cat(similarities)


def cut(start: int, count: int, ends: Sequence[int]) -> list[slice]:
    """Cut masks `start` to ``start + count`` at `ends`; slices of the chunk."""
    edges = [0, *(end - start for end in ends if start < end < start + count), count]
    return [slice(*pair) for pair in pairwise(edges)]


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU's, or the CPU's, allocator could not give what was asked for."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def refuse_unless(finite: Tensor) -> None:
    """Raise if masked embeddings were not finite."""
    if not bool(finite):
        raise EncoderError(
            "encoder: expected finite embeddings of masked inputs, got NaN or infinite ones; check its weights "
            "and whether the fill lies in the range that it was trained on."
        )


def masked_embeddings(h: object, rows: int, size: int) -> Tensor:
    """Return embeddings of masked copies as ``(rows, size)``; similarities show if finite."""
    if isinstance(h, Tensor) and h.ndim == 1 and len(h) == rows:
        h = h[:, None]
    if not isinstance(h, Tensor) or tuple(h.shape) != (rows, size):
        got = h if isinstance(h, Tensor) else f"a {type(h).__name__}"
        remedy = "return one row an example, as long as the reference's embedding"
        checks.refuse("encoder", f"embeddings of shape {(rows, size)}", got, remedy, EncoderError)
    return h if h.is_floating_point() else h.float()


def references(reference: Any, inputs: tuple[Tensor, ...], embed: Embed, nonzero: bool) -> list[tuple[float, Tensor]]:
    """Return the weighted embeddings ``(weight, (B, D))`` that similarities are taken to.

    Parameters
    ----------
    reference
        None for the input's own embedding; an embedding ``(D,)``, ``(1, D)`` or ``(B, D)``; an
        input ``x.shape[1:]``, ``(1, *x.shape[1:])`` or like ``x``; or a 2-tuple of these, (towards,
        away).
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
