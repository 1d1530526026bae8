"""`RELAX`: the attribution class, and the heart of the flow.

Inputs enter, a Captum attribution (`RELAX.attribute`) or an `Explanation` (`RELAX.explain`) leaves. Masks, fills, similarities and estimators
plug in by name or as objects.

Source: Wickstrom et al., "RELAX: Representation Learning Explainability", IJCV 131:1584-1610, 2023 (arXiv 2112.10161).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from relax_quantus import checks
from relax_quantus.captum_private import PerturbationAttribution, forward_repeated, log_usage
from relax_quantus.errors import ArgumentError, ArgumentTypeError, EncoderError, ShapeError
from relax_quantus.estimators import ESTIMATORS, Accumulator, Estimator
from relax_quantus.explanation import Explanation
from relax_quantus.masks import STRATEGIES, MaskStrategy
from relax_quantus.perturbation import MaskedTensor, MaskStream, feature_groups, masked_tensor
from relax_quantus.references import checked_embedding, references
from relax_quantus.similarity import SIMILARITIES, Similarity, cosine

FORWARD_ROWS = 48

Tensors = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Problem:
    """One call's validated arguments."""

    tensors: tuple[MaskedTensor, ...]
    is_tuple: bool
    n_samples: int
    seed: int
    perturbations_per_eval: int | None
    show_progress: bool
    target: Any
    additional_forward_args: Any
    strategy: MaskStrategy

    @property
    def batch(self) -> int:
        """Number of examples."""
        return len(self.tensors[0].x)

    def stream(self) -> MaskStream:
        """Draw this call's masks from their beginning."""
        return MaskStream(self.strategy, self.tensors, self.n_samples, self.seed, self.perturbations_per_eval or 1)


class RELAX(PerturbationAttribution):  # type: ignore[misc]
    """RELAX: which part of an input made its embedding what it is.

    The input is masked N times; each masked copy's embedding is compared with the reference's, and every bin gets the mean similarity over
    the masks that keep it. One explanation costs N + 1 encoder forwards an example.

    Parameters
    ----------
    forward_func
        The encoder: any callable from inputs ``(n, ...)`` to embeddings ``(n, D)``.
    masks
        Name of a strategy (``"random"``, ``"time"``, ``"frequency"``, ``"time_frequency"``) or an object with
        ``sample(n, shape, generator)``, see `relax_quantus.masks`. Such an object is asked once a tensor, in tuple order, for all ``n_samples``
        masks.
    similarity
        ``"cosine"`` or a callable ``(h (B, D), h_masked (M, B, D)) -> (M, B)``.
    estimator
        ``None`` or ``"weighted"`` (sum s M / sum M), ``"paper"`` (sum s M / N), or an `Estimator`.

    Examples
    --------
    >>> relax = RELAX(lambda x: x.flatten(1), masks="time")
    >>> relax.attribute(torch.rand(2, 1, 96, 64), n_samples=10).shape
    torch.Size([2, 1, 96, 64])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        masks: str | MaskStrategy = "random",
        similarity: str | Similarity = "cosine",
        estimator: str | Estimator | None = None,
    ) -> None:
        if not callable(forward_func):
            checks.refuse(
                "encoder", "a callable", type(forward_func).__name__, "pass a module or function", ArgumentTypeError
            )
        super().__init__(forward_func)
        self.masks: MaskStrategy = STRATEGIES.resolve(masks)
        if isinstance(masks, type) or not callable(getattr(self.masks, "sample", None)):
            rule = "a name or an object with sample(n, shape, generator)"
            checks.refuse("masks", rule, type(masks).__name__, f"names: {', '.join(STRATEGIES)}", ArgumentTypeError)
        self.similarity: Similarity = SIMILARITIES.resolve(similarity)
        if not callable(self.similarity):
            checks.refuse("similarity", "a name or a callable", type(similarity).__name__, "", ArgumentTypeError)
        self.estimator: Estimator = ESTIMATORS.resolve("weighted" if estimator is None else estimator)
        if not callable(getattr(self.estimator, "start", None)):
            checks.refuse("estimator", "a name or an Estimator", type(estimator).__name__, "", ArgumentTypeError)

    def get_name(self) -> str:
        """Return "RELAX", which Captum would split into letters."""
        return "RELAX"

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def attribute(
        self,
        inputs: Tensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Tensors | None = None,
        n_samples: int = 3000,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        *,
        reference: Any = None,
        seed: int | None = 0,
    ) -> Tensors:
        """Return the importance map alone, as Captum's attributions do.

        Parameters
        ----------
        inputs
            ``(B, ...)`` or a tuple of such tensors, of any rank from 2. Row i of the result depends on example i alone.
        baselines
            What replaces masked entries: None for 0, a name (``"silence"``, ``"background"``, ...), a number, a tensor, a `Fill`, a callable
            ``x -> level``, or a tuple with one of these a tensor.
        target
            Selects an output of the encoder, as elsewhere in Captum; leaves a scalar, so it needs a similarity other than the cosine.
        additional_forward_args
            Passed on to the encoder; tensors are repeated with the masked copies, whole batch after whole batch.
        feature_mask
            Integer groups, broadcastable to the inputs, the same for every example: a group is kept or replaced as one. Geometry then comes
            from the groups: built-in strategies keep each independently with their ``keep_probability``.
        n_samples
            Number of masks N.
        perturbations_per_eval
            Masks an encoder forward, each with the whole batch; None picks a number that suits a CPU's cache. It never changes the result.
        show_progress
            Show a progress bar.
        reference
            What masked copies are compared with: None for the input's own embedding; an embedding ``(D,)`` or ``(B, D)``; an input; or a tuple
            (towards, away), whose similarities are subtracted.
        seed
            Seeds a generator of this call's own; None takes fresh entropy. The masks are shared by the batch.

        Returns
        -------
        Tensor or tuple of Tensor
            Importance, shaped like `inputs`, on their device, contiguous.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            For arguments that cannot work.
        EncoderError
            If the encoder returns anything but finite embeddings ``(n, D)``, or zeros for the reference.
        """
        explained = self.explain(
            inputs, baselines, target, additional_forward_args, feature_mask, n_samples,
            perturbations_per_eval, show_progress, reference=reference, seed=seed,
        )  # fmt: skip
        return tuple(e.importance for e in explained) if isinstance(explained, tuple) else explained.importance

    def attribute_future(self) -> None:
        """Not available: RELAX has no asynchronous form."""
        raise NotImplementedError("attribute_future is not implemented for RELAX")

    @torch.no_grad()
    def explain(
        self,
        inputs: Tensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Tensors | None = None,
        n_samples: int = 3000,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        *,
        reference: Any = None,
        seed: int | None = 0,
    ) -> Explanation | tuple[Explanation, ...]:
        """Return importance, uncertainty, standard error and mean similarity; parameters as in `attribute`.

        Returns
        -------
        Explanation or tuple of Explanation
            One a tensor of the inputs.
        """
        problem = self._problem(
            inputs,
            baselines,
            feature_mask,
            n_samples,
            seed,
            perturbations_per_eval,
            show_progress,
            target,
            additional_forward_args,
        )
        accumulators = [self.estimator.start() for _ in problem.tensors]
        for similarities, masks in self._similarities(problem, reference):
            for accumulator, mask in zip(accumulators, masks, strict=True):
                accumulator.update(similarities, mask)
        return self._explanation(problem, accumulators)

    @torch.no_grad()
    def similarities(
        self,
        inputs: Tensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Tensors | None = None,
        n_samples: int = 3000,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        *,
        reference: Any = None,
        seed: int | None = 0,
    ) -> Tensor:
        """Return the similarity under each mask, ``(N, B)`` float64 on the CPU, in the masks' order; parameters as in `attribute`."""
        problem = self._problem(
            inputs,
            baselines,
            feature_mask,
            n_samples,
            seed,
            perturbations_per_eval,
            show_progress,
            target,
            additional_forward_args,
        )
        return torch.cat([s.cpu() for s, _ in self._similarities(problem, reference)])

    @torch.no_grad()
    def estimate(
        self,
        inputs: Tensors,
        similarities: Tensor,
        *,
        feature_mask: Tensors | None = None,
        n_samples: int = 3000,
        seed: int | None = 0,
    ) -> Explanation | tuple[Explanation, ...]:
        """Pair given similarities with the masks of this seed, without running the encoder.

        With the output of `similarities` it gives the result of `explain`; with its rows permuted, the *shuffled twin*: the same masks, hence
        the same smoothness and stripes, and no information.

        Parameters
        ----------
        inputs
            What the masks are shaped for.
        similarities
            ``(N, B)``.
        feature_mask, n_samples, seed
            As they were for `similarities`.
        """
        problem = self._problem(inputs, None, feature_mask, n_samples, seed, None, False, None, None)
        similarities = checks.finite("similarities", checks.tensor("similarities", similarities))
        if tuple(similarities.shape) != (problem.n_samples, problem.batch):
            rule = f"shape (N, B) = {(problem.n_samples, problem.batch)}"
            checks.refuse("similarities", rule, similarities, "pass what `similarities` returned", ShapeError)
        accumulators = [self.estimator.start() for _ in problem.tensors]
        position = 0
        for masks, _ in problem.stream():
            rows = similarities[position : position + len(masks[0])].to(problem.tensors[0].x.device)
            position += len(masks[0])
            for accumulator, mask in zip(accumulators, masks, strict=True):
                accumulator.update(rows, mask)
        return self._explanation(problem, accumulators)

    def _problem(
        self,
        inputs: Tensors,
        baselines: Any,
        feature_mask: Tensors | None,
        n_samples: int,
        seed: int | None,
        perturbations_per_eval: int | None,
        show_progress: bool,
        target: Any,
        additional_forward_args: Any,
    ) -> Problem:
        """Validate one call's arguments."""
        is_tuple = isinstance(inputs, tuple)
        xs = checked_inputs(inputs if isinstance(inputs, tuple) else (inputs,))
        levels = one_each("baselines", baselines, len(xs))
        groupings = one_each("feature_mask", feature_mask, len(xs))
        groups = [feature_groups(x, g) for x, g in zip(xs, groupings, strict=True)]
        if target is not None and self.similarity is cosine:
            raise ArgumentError(
                "target: expected None with the cosine, got a target, which leaves a scalar whose cosine is +-1; "
                "pass a similarity of your own or explain the whole embedding."
            )
        if perturbations_per_eval is not None:
            perturbations_per_eval = checks.integer("perturbations_per_eval", perturbations_per_eval)
        seed = checks.seed(seed)
        return Problem(
            tuple(masked_tensor(x, b, g) for x, b, g in zip(xs, levels, groups, strict=True)),
            is_tuple,
            checks.integer("n_samples", n_samples),
            secrets.randbits(63) if seed is None else seed,
            perturbations_per_eval,
            bool(show_progress),
            target,
            additional_forward_args,
            self.masks,
        )

    def _similarities(self, problem: Problem, reference: Any) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield similarities ``(m, B)`` and the masks they belong to, chunk by chunk."""
        batch, is_cosine = problem.batch, self.similarity is cosine

        def embed(inputs: tuple[Tensor, ...]) -> Any:
            return forward_repeated(
                self.forward_func, inputs, len(inputs[0]) // batch, problem.target, problem.additional_forward_args
            )

        compared = references(reference, tuple(t.x for t in problem.tensors), embed, nonzero=is_cosine)
        per_forward = problem.perturbations_per_eval or max(1, FORWARD_ROWS // batch)
        splits = (
            problem.perturbations_per_eval is None
            and problem.additional_forward_args is None
            and problem.target is None
        )
        blocks = [slice(i, i + FORWARD_ROWS) for i in range(0, batch, FORWARD_ROWS)] if splits else [slice(0, batch)]
        with tqdm(total=problem.n_samples, desc="RELAX attribution", disable=not problem.show_progress) as bar:
            for masks, noise in problem.stream():
                m = len(masks[0])
                similarities = torch.empty(m, batch, dtype=torch.float64, device=compared[0][1].device)
                for i in range(0, m, per_forward):
                    part = slice(i, min(i + per_forward, m))
                    for rows in blocks:
                        copies = tuple(
                            t.copies(k[part], None if z is None else z[part], rows)
                            for t, k, z in zip(problem.tensors, masks, noise, strict=True)
                        )
                        h = self.forward_func(*copies) if splits else embed(copies)
                        similarities[part, rows] = self._compare(h, compared, part.stop - i, rows)
                if not bool(torch.isfinite(similarities).all()):
                    raise EncoderError(
                        "encoder: expected finite embeddings of masked inputs, got NaN or infinite ones; check its weights "
                        "and whether the fill lies in the range that it was trained on."
                    )
                yield similarities, masks
                bar.update(m)

    def _compare(self, h: object, compared: list[tuple[float, Tensor]], m: int, rows: slice) -> Tensor:
        """Similarities ``(m, b)`` of the encoder's output ``(m * b, D)`` to the references' rows."""
        total: Tensor | float = 0.0
        for weight, reference in compared:
            reference = reference[rows]
            h = masked_embeddings(h, m * len(reference), reference.shape[1])
            similarity = self.similarity(reference, h.reshape(m, len(reference), -1))
            if not isinstance(similarity, Tensor) or tuple(similarity.shape) != (m, len(reference)):
                rule = f"a tensor of (M, B) = {(m, len(reference))} similarities"
                checks.refuse("similarity", rule, similarity, "return one a mask and example", ShapeError)
            total = total + weight * similarity
        return torch.as_tensor(total).double()

    def _explanation(self, problem: Problem, accumulators: list[Accumulator]) -> Explanation | tuple[Explanation, ...]:
        """Bring the estimates to the inputs' shapes and types."""
        explained = tuple(
            explanation(tensor, accumulator, self.estimator.name, problem.n_samples)
            for tensor, accumulator in zip(problem.tensors, accumulators, strict=True)
        )
        return explained if problem.is_tuple else explained[0]


def masked_embeddings(h: object, rows: int, size: int) -> Tensor:
    """Return the encoder's output for masked copies as ``(rows, size)``; finiteness is checked on the similarities."""
    if isinstance(h, Tensor) and h.ndim == 1 and len(h) == rows:
        h = h[:, None]
    if not isinstance(h, Tensor) or tuple(h.shape) != (rows, size):
        got = h if isinstance(h, Tensor) else f"a {type(h).__name__}"
        remedy = "return one row an example, as long as the reference's embedding"
        checks.refuse("encoder", f"embeddings of shape {(rows, size)}", got, remedy, EncoderError)
    return h if h.is_floating_point() else h.to(torch.get_default_dtype())


def explanation(tensor: MaskedTensor, accumulator: Accumulator, name: str, n_samples: int) -> Explanation:
    """Assemble the explanation of one tensor."""
    estimate = accumulator.finish()
    x = tensor.x
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()

    def shaped(values: Tensor) -> Tensor:
        return tensor.spread(values).to(device=x.device, dtype=dtype).contiguous()

    return Explanation(
        importance=shaped(estimate.importance),
        uncertainty=shaped(estimate.uncertainty),
        standard_error=shaped(estimate.standard_error),
        mean_similarity=estimate.mean_similarity.to(device=x.device, dtype=dtype),
        n_samples=torch.full((len(x),), n_samples, device=x.device),
        neutral=shaped(estimate.neutral),
        estimator=name,
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


class SimilarityForward(nn.Module):
    """The similarity game as a scalar-per-example forward, for Captum's `infidelity` and for attributions that need one.

    Captum's metrics expand a batch in an order of their own, so the reference has to travel as an additional forward argument, which they
    expand alike; closing over it would compare each example with another's reference.

    Parameters
    ----------
    encoder
        ``(n, ...) -> (n, D)``.
    similarity
        As in `RELAX`.

    Examples
    --------
    >>> encoder = nn.Flatten()
    >>> x = torch.rand(2, 1, 4, 4)
    >>> SimilarityForward(encoder)(x, encoder(x))
    tensor([1., 1.])
    """

    def __init__(self, encoder: Callable[..., Tensor], similarity: str | Similarity = "cosine") -> None:
        super().__init__()
        self.encoder = encoder
        self.similarity: Similarity = SIMILARITIES.resolve(similarity)

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        """Similarity ``(n,)`` of inputs ``(n, ...)`` to embeddings ``(n, D)``."""
        h = checked_embedding(self.encoder(x), len(x), nonzero=False)
        return self.similarity(reference, h[None])[0]
