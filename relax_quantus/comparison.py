"""Masked copies -> similarities: where the encoder runs.

A `Problem`, an encoder and a reference enter; the similarity of every masked copy to the reference leaves, chunk by chunk and together with
the masks it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from relax_quantus import checks
from relax_quantus.captum_private import forward_repeated
from relax_quantus.errors import EncoderError, ShapeError
from relax_quantus.problem import Problem
from relax_quantus.references import references
from relax_quantus.similarity import Similarity, is_directional

FORWARD_ROWS = 48


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
    """

    def __init__(self, encoder: Callable[..., Any], similarity: Similarity, problem: Problem, reference: Any) -> None:
        self.encoder, self.similarity, self.problem = encoder, similarity, problem
        self.compared = references(reference, problem.inputs, self.embed, nonzero=is_directional(similarity))

    def embed(self, inputs: tuple[Tensor, ...]) -> Any:
        """Run the encoder on whole batches, one after another, with the call's target and additional arguments."""
        times = len(inputs[0]) // self.problem.batch
        return forward_repeated(self.encoder, inputs, times, self.problem.target, self.problem.additional_forward_args)

    def similarities(self, show_progress: bool = False) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield similarities ``(m, B)`` float64 and, a tensor each, the masks they belong to."""
        problem = self.problem
        per_forward = problem.perturbations_per_eval or max(1, FORWARD_ROWS // problem.batch)
        with tqdm(total=problem.n_samples, desc="RELAX attribution", disable=not show_progress) as bar:
            for masks, noise in problem.stream():
                m = len(masks[0])
                similarities = torch.empty(m, problem.batch, dtype=torch.float64, device=self.compared[0][1].device)
                for start in range(0, m, per_forward):
                    part = slice(start, min(start + per_forward, m))
                    for rows in self.blocks():
                        copies = tuple(
                            t.copies(k[part], None if z is None else z[part], rows)
                            for t, k, z in zip(problem.tensors, masks, noise, strict=True)
                        )
                        similarities[part, rows] = self.compare(copies, rows)
                if not bool(torch.isfinite(similarities).all()):
                    raise EncoderError(
                        "encoder: expected finite embeddings of masked inputs, got NaN or infinite ones; check its weights "
                        "and whether the fill lies in the range that it was trained on."
                    )
                yield similarities, masks
                bar.update(m)

    def blocks(self) -> list[slice]:
        """Rows that go through the encoder together: all, unless a large batch can be cut and the caller left the choice to us."""
        problem = self.problem
        fixed = (problem.perturbations_per_eval, problem.additional_forward_args, problem.target) != (None, None, None)
        size = problem.batch if fixed else FORWARD_ROWS
        return [slice(i, min(i + size, problem.batch)) for i in range(0, problem.batch, size)]

    def compare(self, copies: tuple[Tensor, ...], rows: slice) -> Tensor:
        """Similarities ``(m, b)`` of copies ``(m * b, ...)`` of the examples in `rows` to the reference."""
        whole = rows == slice(0, self.problem.batch)
        h = self.embed(copies) if whole else self.encoder(*copies)
        total: Tensor | float = 0.0
        for weight, reference in self.compared:
            reference = reference[rows]
            m, b = len(copies[0]) // len(reference), len(reference)
            similarity = self.similarity(reference, masked_embeddings(h, m * b, reference.shape[1]).reshape(m, b, -1))
            if not isinstance(similarity, Tensor) or tuple(similarity.shape) != (m, b):
                rule = f"a tensor of (M, B) = {(m, b)} similarities"
                checks.refuse("similarity", rule, similarity, "return one a mask and example", ShapeError)
            total = total + weight * similarity
        return torch.as_tensor(total).double()

    def fully_masked(self) -> Tensor:
        """Similarity ``(B,)`` of the fill alone: the level that a map's values are to be read against."""
        similarities = [
            self.compare(tuple(t.level[rows].clone() for t in self.problem.tensors), rows)[0] for rows in self.blocks()
        ]
        return torch.cat(similarities)


def masked_embeddings(h: object, rows: int, size: int) -> Tensor:
    """Return the encoder's output for masked copies as ``(rows, size)``; finiteness is checked on the similarities."""
    if isinstance(h, Tensor) and h.ndim == 1 and len(h) == rows:
        h = h[:, None]
    if not isinstance(h, Tensor) or tuple(h.shape) != (rows, size):
        got = h if isinstance(h, Tensor) else f"a {type(h).__name__}"
        remedy = "return one row an example, as long as the reference's embedding"
        checks.refuse("encoder", f"embeddings of shape {(rows, size)}", got, remedy, EncoderError)
    return h if h.is_floating_point() else h.to(torch.get_default_dtype())
