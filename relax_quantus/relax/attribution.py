"""`RELAX`: the attribution class, and the heart of the flow.

Inputs enter, a Captum attribution (`RELAX.attribute`) or an `Explanation` (`RELAX.explain`) leaves. Masks, fills, similarities and estimators
plug in by name or as objects.

Source: Wickstrom et al., "RELAX: Representation Learning Explainability", IJCV 131:1584-1610, 2023 (arXiv 2112.10161).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.modules import evaluation_mode
from relax_quantus.base.torch_state import neutral_torch
from relax_quantus.errors import ArgumentError, ArgumentTypeError, ShapeError
from relax_quantus.relax.call import DOMAINS, Problem, Tensors, pose
from relax_quantus.relax.captum_private import PerturbationAttribution, log_usage
from relax_quantus.relax.estimation import Estimation, compared_with_another
from relax_quantus.relax.estimators import DEFAULT, ESTIMATORS, Estimator
from relax_quantus.relax.execution import FORWARD_ROWS, PRECISIONS, Plan
from relax_quantus.relax.explanation import Explanation
from relax_quantus.relax.masked_forward import Comparison
from relax_quantus.relax.masks import STRATEGIES, MaskStrategy
from relax_quantus.relax.similarity import SIMILARITIES, Similarity, SimilarityForward, is_directional

__all__ = ["FEW_MASKS", "FORWARD_ROWS", "RELAX", "SimilarityForward"]

FEW_MASKS = 50
"""With fewer, errors are estimated too roughly to be believed; `RELAX.explain` warns."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def undisturbed(
    method: Callable[Concatenate[RELAX, Arguments], Result],
) -> Callable[Concatenate[RELAX, Arguments], Result]:
    """Run a method with torch as in a fresh process and the encoder in eval mode, and leave both as they were."""

    @wraps(method)
    def run(self: RELAX, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with neutral_torch(), evaluation_mode(self.forward_func):
            return method(self, *args, **kwargs)

    return run


class RELAX(PerturbationAttribution):  # type: ignore[misc]
    """RELAX: which part of an input made its embedding what it is.

    The input is masked N times; each masked copy's embedding is compared with the reference's, and every bin gets the mean similarity over
    the masks that keep it. One explanation costs N + 1 encoder forwards an example.

    Parameters
    ----------
    forward_func
        The encoder: any callable from inputs ``(n, ...)`` to embeddings ``(n, D)``. Its modules run in eval mode and are left as found. It
        has the caller's torch settings, autocast apart, which is `precision`'s; all else is computed as in a fresh process. Inputs in float64
        go to a module with float32 weights in float32, and the other way round.
    masks
        Name of a strategy (``"random"``, ``"time"``, ``"frequency"``, ``"time_frequency"``) or an object with
        ``sample(n, shape, generator)``, see `relax_quantus.relax.masks`. Such an object is asked once a tensor, in tuple order, for all ``n_samples``
        masks.
    similarity
        ``"cosine"``, ``"dot"``, ``"negative_euclidean"``, a `CentredCosine`, or any callable ``(h (B, D), h_masked (M, B, D)) -> (M, B)``.
    estimator
        ``"weighted"`` (sum s M / sum M); ``None`` or ``"surrogate"`` (the same limit from fewer masks, by regression; ``weighted`` where the masks
        are groups, an object of your own, or of several tensors); ``"paper"`` (sum s M / N); or an `Estimator`.
    domain
        Where a soft mask blends the input and the fill: ``"log"``, fill + m (x - fill), m acting as a weight; or ``"amplitude"``, the same in
        the magnitudes whose natural logarithms x and fill are, logaddexp(x + ln m, fill + ln(1 - m)), what a fader does. Hard masks make
        both equal.
    precision
        Of the encoder's forwards, whatever autocast they stand in: ``"float32"`` (as its weights are), ``"bfloat16"`` (autocast), or
        ``"auto"``, bfloat16 where the device computes in it and a measurement shows that it is faster. Similarities and sums are in float64
        whatever it is.

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
        domain: str = "log",
        precision: str = "float32",
    ) -> None:
        if not callable(forward_func):
            checks.refuse(
                "forward_func",
                "a callable",
                type(forward_func).__name__,
                "pass a module or function",
                ArgumentTypeError,
            )
        super().__init__(forward_func)
        self.masks: MaskStrategy = STRATEGIES.resolve(masks)
        if isinstance(masks, type) or not callable(getattr(self.masks, "sample", None)):
            rule = "a name or an object with sample(n, shape, generator)"
            checks.refuse("masks", rule, type(masks).__name__, f"names: {', '.join(STRATEGIES)}", ArgumentTypeError)
        self.similarity: Similarity = SIMILARITIES.resolve(similarity)
        if not callable(self.similarity):
            checks.refuse("similarity", "a name or a callable", type(similarity).__name__, "", ArgumentTypeError)
        self.estimator: Estimator = ESTIMATORS.resolve(DEFAULT if estimator is None else estimator)
        if not callable(getattr(self.estimator, "start", None)):
            checks.refuse("estimator", "a name or an Estimator", type(estimator).__name__, "", ArgumentTypeError)
        if domain not in DOMAINS:
            checks.refuse("domain", "'log' or 'amplitude'", repr(domain), "pick one")
        self.domain = domain
        if precision not in PRECISIONS:
            checks.refuse("precision", " or ".join(repr(p) for p in PRECISIONS), repr(precision), "pick one")
        self.precision = precision

    def get_name(self) -> str:
        """Return "RELAX", which Captum would split into letters."""
        return "RELAX"

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    @undisturbed
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
            Selects an output of the encoder, as elsewhere in Captum; leaves a scalar, so it needs a similarity other than a cosine.
        additional_forward_args
            Passed on to the encoder; tensors are repeated with the masked copies, whole batch after whole batch.
        feature_mask
            Integer groups, broadcastable to the inputs, the same for every example: a group is kept or replaced as one. Geometry then comes
            from the groups: built-in strategies keep each independently with their ``keep_probability``.
        n_samples
            Number of masks N.
        perturbations_per_eval
            Masks an encoder forward, each with the whole batch (of more than 48 examples: with even blocks of at most 48, unless `target` or
            `additional_forward_args` belong to it); None picks a number, measured where the call is large enough to pay for it, see `plan`.
            It never changes the result beyond rounding, and is halved should the memory not suffice. No forward has more rows than that; one
            with fewer is filled up where the encoder refuses it, as networks of a fixed batch do.
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
            Importance, shaped like `inputs`, in their type but at least float32, on their device, contiguous.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            For arguments that cannot work.
        EncoderError
            If the encoder returns anything but finite embeddings ``(n, D)``, or zeros for the reference.
        """
        comparison = self._comparison(
            inputs,
            baselines,
            target,
            additional_forward_args,
            feature_mask,
            n_samples,
            perturbations_per_eval,
            seed,
            reference,
        )
        unknown = torch.full((comparison.problem.batch,), torch.nan)
        explained = Estimation(self.estimator, comparison.problem).of(comparison, unknown, show_progress)
        return tuple(e.importance for e in explained) if isinstance(explained, tuple) else explained.importance

    def attribute_future(self) -> None:
        """Not available: RELAX has no asynchronous form."""
        raise NotImplementedError("attribute_future is not implemented for RELAX")

    @overload
    @undisturbed
    def explain(
        self,
        inputs: Tensor,
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
        tolerance: float | None = None,
        null: bool = False,
    ) -> Explanation: ...

    @overload
    @undisturbed
    def explain(
        self,
        inputs: tuple[Tensor, ...],
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
        tolerance: float | None = None,
        null: bool = False,
    ) -> tuple[Explanation, ...]: ...

    @undisturbed
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
        tolerance: float | None = None,
        null: bool = False,
    ) -> Explanation | tuple[Explanation, ...]:
        """Return all that RELAX says, for N + 2 forwards an example at most; parameters as in `attribute`.

        Parameters
        ----------
        inputs, baselines, target, additional_forward_args, feature_mask, perturbations_per_eval, show_progress, reference, seed
            As in `attribute`.
        n_samples
            Number of masks N; with a tolerance the most that an example is given.
        tolerance
            Stop each example by itself, without further forwards, when the largest standard error of its centred map
            is under this share of the map's spread, its standard deviation over the example's entries (of each
            tensor's, where there are several). The spread is free of the map's own noise: the mean squared standard
            error is subtracted from its variance. An example where nothing is left, or where an error is unknown,
            never stops. Looked at after 64, 96, 128, 192, 256, ... masks, of these where N grew enough for it to be
            likely; ``n_samples`` of the result says how many each example took. The result is that of as many masks
            without a tolerance, and does not depend on the rest of the batch. None never stops.
        null
            Also say what chance alone draws: `Explanation.null` and `Explanation.p_value`, from permutations of the
            similarities. No further forward; masks are drawn once more, and the time grows with N times the entries of
            the masks.

        Returns
        -------
        Explanation or tuple of Explanation
            One a tensor of the inputs.
        """
        if tolerance is not None:
            tolerance = checks.positive("tolerance", tolerance)
        if not isinstance(null, bool):
            checks.refuse("null", "True or False", repr(null), "the level is asked of the result", ArgumentTypeError)
        comparison = self._comparison(
            inputs,
            baselines,
            target,
            additional_forward_args,
            feature_mask,
            n_samples,
            perturbations_per_eval,
            seed,
            reference,
        )
        if comparison.problem.n_samples < FEW_MASKS:
            warnings.warn(
                f"n_samples: {comparison.problem.n_samples} masks are few, and errors estimated from them are rough; "
                f"use {FEW_MASKS} or more.",
                stacklevel=3,
            )
        estimation, fully_masked = Estimation(self.estimator, comparison.problem, null), comparison.fully_masked()
        if tolerance is None:
            explained = estimation.of(comparison, fully_masked, show_progress)
        else:
            explained = estimation.until(comparison, fully_masked, show_progress, tolerance)
        return explained if reference is None else compared_with_another(explained)

    @undisturbed
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
        comparison = self._comparison(
            inputs,
            baselines,
            target,
            additional_forward_args,
            feature_mask,
            n_samples,
            perturbations_per_eval,
            seed,
            reference,
        )
        return torch.cat([s.cpu() for s, _ in comparison.similarities(show_progress)])

    @overload
    @undisturbed
    def estimate(
        self,
        inputs: Tensor,
        similarities: Tensor,
        *,
        baselines: Any = None,
        feature_mask: Tensors | None = None,
        seed: int | None = 0,
        null: bool = False,
    ) -> Explanation: ...

    @overload
    @undisturbed
    def estimate(
        self,
        inputs: tuple[Tensor, ...],
        similarities: Tensor,
        *,
        baselines: Any = None,
        feature_mask: Tensors | None = None,
        seed: int | None = 0,
        null: bool = False,
    ) -> tuple[Explanation, ...]: ...

    @undisturbed
    def estimate(
        self,
        inputs: Tensors,
        similarities: Tensor,
        *,
        baselines: Any = None,
        feature_mask: Tensors | None = None,
        seed: int | None = 0,
        null: bool = False,
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
        baselines, feature_mask, seed
            As they were for `similarities`; of the baselines only ``surrogate`` makes use, to weigh what each mask changes.
        null
            As in `explain`.
        """
        similarities = checks.finite("similarities", checks.tensor("similarities", similarities))
        problem = self._pose(inputs, baselines, None, None, feature_mask, len(similarities), None, seed)
        if tuple(similarities.shape) != (problem.n_samples, problem.batch):
            rule = f"shape (N, B) = (N, {problem.batch})"
            checks.refuse("similarities", rule, similarities, "pass what `similarities` returned", ShapeError)
        return Estimation(self.estimator, problem, null).of_given(similarities)

    @undisturbed
    def plan(
        self,
        inputs: Tensors,
        n_samples: int = 3000,
        perturbations_per_eval: int | None = None,
    ) -> Plan:
        """Say how `attribute` runs the encoder on such inputs: masks a forward, and precision.

        With the `Plan`'s ``perturbations_per_eval`` and ``precision`` given, the result is the same bit for bit as with None, on the same
        device with the same number of threads. What has not been measured yet for such inputs is measured now, if ``n_samples`` masks pay
        for it, and remembered for as long as the encoder lives. Costs a forward an example, and at most a twentieth of the call's.
        """
        return self._comparison(
            inputs, None, None, None, None, n_samples, perturbations_per_eval, 0, None
        ).execution.plan

    def _pose(
        self,
        inputs: Tensors,
        baselines: Any,
        target: Any,
        additional_forward_args: Any,
        feature_mask: Any,
        n_samples: int,
        perturbations_per_eval: int | None,
        seed: int | None,
    ) -> Problem:
        """Validate one call's arguments against this attribution's settings."""
        if target is not None and is_directional(self.similarity):
            raise ArgumentError(
                "target: expected None with a cosine, got a target, which leaves a scalar whose cosine is +-1; "
                "pass another similarity or explain the whole embedding."
            )
        return pose(
            inputs,
            self.masks,
            baselines=baselines,
            feature_mask=feature_mask,
            n_samples=n_samples,
            seed=seed,
            domain=self.domain,
            perturbations_per_eval=perturbations_per_eval,
            target=target,
            additional_forward_args=additional_forward_args,
        )

    def _comparison(self, inputs: Tensors, *arguments: Any) -> Comparison:
        """Validate one call's arguments, those of `_pose` and last the reference, and embed the reference."""
        *settings, reference = arguments
        problem = self._pose(inputs, *settings)
        return Comparison(self.forward_func, self.similarity, problem, reference, self.precision)
