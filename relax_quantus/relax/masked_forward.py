"""Masked copies -> similarities: where the encoder runs.

A `Problem`, an encoder and a reference enter; the similarity of every masked copy to the reference leaves, chunk by chunk and together with
the masks it belongs to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from relax_quantus.base import checks
from relax_quantus.base.modules import checked_embedding
from relax_quantus.base.torch_state import callers_torch
from relax_quantus.errors import ArgumentTypeError, EncoderError, ShapeError
from relax_quantus.relax.call import Problem
from relax_quantus.relax.execution import Execution
from relax_quantus.relax.similarity import Similarity, is_directional

Embed = Callable[[tuple[Tensor, ...]], Tensor]


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


class Comparison:
    """One call's encoder, similarity and reference.

    Parameters
    ----------
    encoder
        ``inputs -> (n, D)``.
    similarity
        ``(h (B, D), h_masked (M, B, D)) -> (M, B)``.
    problem
        The call's validated arguments.
    reference
        As in `RELAX.attribute`; resolved, and the encoder checked, here.
    precision
        As in `RELAX`.
    """

    def __init__(
        self,
        encoder: Callable[..., Any],
        similarity: Similarity,
        problem: Problem,
        reference: Any,
        precision: str = "float32",
    ) -> None:
        self.similarity, self.problem = similarity, problem
        self.execution = Execution(encoder, problem, precision)
        nonzero = is_directional(similarity)
        self.compared = references(reference, problem.inputs, self.embed_first, nonzero)
        self.execution.prepare()
        if self.execution.has_lowered_precision:  # rounding that copies and reference share changes the map less
            self.compared = references(reference, problem.inputs, self.embed, nonzero)
        self.stream = problem.stream

    def embed_first(self, inputs: tuple[Tensor, ...]) -> Any:
        """Embed one batch; inputs that only lack a batch axis or have another type than the weights are refused in a line of our own."""
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
        self, show_progress: bool = False, rows: slice | list[int] | None = None, ends: Sequence[int] = ()
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield similarities ``(m, b)`` float64 of the examples in `rows` and, a tensor each, the masks they belong to.

        A GPU is not waited for before all is queued, so that it computes while the next masks are drawn.

        Parameters
        ----------
        show_progress
            Show a progress bar.
        rows
            All by default. A list may be shortened by the caller between two chunks; it ends when none is left.
        ends
            Ascending numbers of masks at which a chunk has to end.
        """
        rows = slice(0, self.problem.batch) if rows is None else rows
        device = self.problem.inputs[0].device
        finite = torch.ones((), dtype=torch.bool, device=device)
        with tqdm(
            total=self.problem.n_samples, desc="RELAX attribution", disable=not show_progress or sys.stderr is None
        ) as bar:
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
        """Similarities ``(m, b)`` under a chunk of masks."""
        if isinstance(rows, list) and self.execution.is_fixed:
            return self._chunk(masks, noise, slice(0, self.problem.batch))[:, rows]
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
                    for t, k, z in zip(self.problem.tensors, masks, noise, strict=True)
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
        """Similarities ``(m, b)`` of copies ``(m * b, ...)`` of the examples in `rows` to the reference."""
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
        """Similarity ``(B,)`` of the fill alone: the level that a map's values are to be read against."""
        tensors = self.problem.tensors
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
    """Return the encoder's output for masked copies as ``(rows, size)``; finiteness is checked on the similarities."""
    if isinstance(h, Tensor) and h.ndim == 1 and len(h) == rows:
        h = h[:, None]
    if not isinstance(h, Tensor) or tuple(h.shape) != (rows, size):
        got = h if isinstance(h, Tensor) else f"a {type(h).__name__}"
        remedy = "return one row an example, as long as the reference's embedding"
        checks.refuse("encoder", f"embeddings of shape {(rows, size)}", got, remedy, EncoderError)
    return h if h.is_floating_point() else h.float()
