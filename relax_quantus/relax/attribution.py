"""Attribute an embedding to its input: the class `RELAX`, the heart of the flow.

Inputs enter, a Captum attribution (`RELAX.attribute`) or an `Explanation` (`RELAX.explain`) leaves.
Masks, fills, similarities and estimators plug in by name or as objects. The arguments of a call are
listed in `relax_quantus.relax.call`, and only there: `takes` gives them to the methods.

Source: Wickstrom et al., "RELAX: Representation Learning Explainability", IJCV 131:1584-1610, 2023
(arXiv 2112.10161).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.networks import evaluation_mode, neutral_torch
from relax_quantus.errors import ArgumentError, ArgumentTypeError, ShapeError
from relax_quantus.relax.call import DOMAINS, Call, CheckedCall, ExplainCall, Strategy, Tensors
from relax_quantus.relax.captum_private import PerturbationAttribution, logged
from relax_quantus.relax.estimation import Estimation, Explanations
from relax_quantus.relax.estimators import DEFAULT, ESTIMATORS, Estimator
from relax_quantus.relax.execution import FORWARD_ROWS, PRECISIONS, Plan
from relax_quantus.relax.masked_forward import MaskedForward, MaskStream
from relax_quantus.relax.masks import STRATEGIES, BindingStrategy, MaskStrategy
from relax_quantus.relax.similarity import SIMILARITIES, Similarity, SimilarityForward, is_directional

__all__ = ["FEW_MASKS", "FORWARD_ROWS", "RELAX", "SimilarityForward"]

FEW_MASKS = 50
"""With fewer, errors are estimated too roughly to be believed; `RELAX.explain` warns."""

Arguments = ParamSpec("Arguments")
Others = ParamSpec("Others")
Result = TypeVar("Result")
Told = TypeVar("Told", covariant=True)
SomeCall = TypeVar("SomeCall", bound=Call)


class OneEach(Protocol[Others, Told]):
    """A method that returns one result for a tensor, and for a tuple of tensors one each."""

    @overload
    def __call__(self, inputs: Tensor, *args: Others.args, **kwargs: Others.kwargs) -> Told: ...

    @overload
    def __call__(self, inputs: tuple[Tensor, ...], *args: Others.args, **kwargs: Others.kwargs) -> tuple[Told, ...]: ...


def one_each(
    method: Callable[Concatenate[RELAX, Any, Others], Told | tuple[Told, ...]],
) -> OneEach[Others, Told]:
    """Tell type checkers what a method returns for which inputs; the method is left as it is."""
    return cast(OneEach[Others, Told], method)


def undisturbed(
    method: Callable[Concatenate[RELAX, Arguments], Result],
) -> Callable[Concatenate[RELAX, Arguments], Result]:
    """Run a method with torch as in a fresh process and the encoder in eval mode, and undo both."""

    @wraps(method)
    def run(self: RELAX, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with neutral_torch(), evaluation_mode(self.forward_func):
            return method(self, *args, **kwargs)

    return run


def takes(
    kind: Callable[Arguments, SomeCall],
) -> Callable[[Callable[[RELAX, SomeCall], Result]], Callable[Concatenate[RELAX, Arguments], Result]]:
    """Give a method the arguments, signature and documentation of a kind of call; `undisturbed`."""

    def given(method: Callable[[RELAX, SomeCall], Result]) -> Callable[Concatenate[RELAX, Arguments], Result]:
        name, made_by = f"RELAX.{method.__name__}", f"{getattr(kind, '__name__', '')}.__init__"

        @wraps(method)
        def run(self: RELAX, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            try:
                call = kind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(str(error).replace(made_by, name)) from None
            with neutral_torch(), evaluation_mode(self.forward_func):
                return method(self, call)

        own, arguments = inspect.signature(method), inspect.signature(kind)
        first = next(iter(own.parameters.values()))
        signature = own.replace(parameters=[first, *arguments.parameters.values()])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__doc__ = (inspect.getdoc(method) or "").replace("{parameters}", documented(kind))
        return run

    return given


def documented(kind: Any) -> str:
    """Return the documentation of a kind of call's parameters, inherited ones first."""
    sections = [inspect.getdoc(k) or "" for k in reversed(kind.__mro__) if issubclass(k, Call)]
    return "Parameters\n----------\n" + "\n".join(s.split("----------\n", 1)[1].rstrip() for s in sections)


class RELAX(PerturbationAttribution):  # type: ignore[misc]
    """Explain which part of an input made its embedding what it is.

    The input is masked N times; each masked copy's embedding is compared with the reference's, and
    every bin gets the mean similarity over the masks that keep it. One explanation costs N + 1
    encoder forwards an example.

    Parameters
    ----------
    forward_func
        The encoder: any callable from inputs ``(n, ...)`` to embeddings ``(n, D)``. Its modules run
        in eval mode and are left as found. It has the caller's torch settings, autocast apart,
        which is `precision`'s; all else is computed as in a fresh process. Inputs in float64 go to
        a module with float32 weights in float32, and the other way round.
    masks
        Name of a strategy (``"random"``, ``"time"``, ``"frequency"``, ``"time_frequency"``) or an
        object of your own, see `relax_quantus.relax.masks`: with ``bind(x)``, which streams and may
        look at the input, or with ``sample(n, shape, generator)`` alone, which is asked once a
        tensor, in tuple order, for all ``n_samples`` masks.
    similarity
        ``"cosine"``, ``"dot"``, ``"negative_euclidean"``, a `CentredCosine`, or any callable
        ``(h (B, D), h_masked (M, B, D)) -> (M, B)``.
    estimator
        ``"weighted"`` (sum s M / sum M); ``None`` or ``"surrogate"`` (the same limit from fewer
        masks, by regression; ``weighted`` where the masks are groups, an object of your own that
        does not say its distribution, or of several tensors); ``"paper"`` (sum s M / N); or an
        `Estimator`.
    domain
        Where a soft mask blends the input and the fill: ``"log"``, fill + m (x - fill), m acting as
        a weight; or ``"amplitude"``, the same in the magnitudes whose natural logarithms x and fill
        are, logaddexp(x + ln m, fill + ln(1 - m)), what a fader does. Hard masks make both equal.
    precision
        Of the encoder's forwards, whatever autocast they stand in: ``"float32"`` (as its weights
        are), ``"bfloat16"`` (autocast), or ``"auto"``, bfloat16 where the device computes in it and
        a measurement shows that it is faster. Similarities and sums are in float64 whatever it is.

    Examples
    --------
    >>> relax = RELAX(lambda x: x.flatten(1), masks="time")
    >>> relax.attribute(torch.rand(2, 1, 96, 64), n_samples=10).shape
    torch.Size([2, 1, 96, 64])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        masks: str | MaskStrategy | BindingStrategy = "random",
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
        self.masks: Strategy = STRATEGIES.resolve(masks)
        draws = any(callable(getattr(self.masks, way, None)) for way in ("bind", "sample"))
        if isinstance(masks, type) or not draws:
            rule = "a name or an object with sample(n, shape, generator) or bind(x)"
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

    @one_each
    @logged
    @takes(Call)
    def attribute(self, call: Call) -> Tensors:
        """Return the importance map alone, as Captum's attributions do.

        {parameters}

        Returns
        -------
        Tensor or tuple of Tensor
            Importance, shaped like `inputs`, in their type but at least float32, on their device,
            contiguous.

        Raises
        ------
        ArgumentError, ArgumentTypeError, ShapeError
            For arguments that cannot work.
        EncoderError
            If the encoder returns anything but finite embeddings ``(n, D)``, or zeros for the
            reference.
        """
        forward = self._forward(call)
        return Estimation(self.estimator, forward.call, forward.stream).importance(forward)

    def attribute_future(self) -> None:
        """Not available: RELAX has no asynchronous form."""
        raise NotImplementedError("attribute_future is not implemented for RELAX")

    @one_each
    @takes(ExplainCall)
    def explain(self, call: ExplainCall) -> Explanations:
        """Return all that RELAX says, for N + 2 forwards an example at most.

        {parameters}

        Returns
        -------
        Explanation or tuple of Explanation
            One a tensor of the inputs.
        """
        forward = self._forward(call)
        if forward.call.n_samples < FEW_MASKS:
            warnings.warn(
                f"n_samples: {forward.call.n_samples} masks are few, and errors estimated from them are rough; "
                f"use {FEW_MASKS} or more.",
                stacklevel=3,
            )
        return Estimation(self.estimator, forward.call, forward.stream).explained(forward)

    @takes(Call)
    def similarities(self, call: Call) -> Tensor:
        """Return the similarity under each mask, ``(N, B)`` float64 on the CPU, in order.

        {parameters}
        """
        return torch.cat([s.cpu() for s, _ in self._forward(call).similarities()])

    @one_each
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
    ) -> Explanations:
        """Pair given similarities with the masks of this seed, without running the encoder.

        With the output of `similarities` it gives the result of `explain`; with its rows permuted,
        the *shuffled twin*: the same masks, hence the same smoothness and stripes, and no
        information.

        Parameters
        ----------
        inputs
            What the masks are shaped for.
        similarities
            ``(N, B)``.
        baselines, feature_mask, seed
            As they were for `similarities`; of the baselines only ``surrogate`` makes use, to weigh
            what each mask changes.
        null
            As in `explain`.
        """
        similarities = checks.finite("similarities", checks.tensor("similarities", similarities))
        call = self._checked(
            ExplainCall(inputs, baselines, None, None, feature_mask, len(similarities), seed=seed, null=null)
        )
        if tuple(similarities.shape) != (call.n_samples, call.batch):
            rule = f"shape (N, B) = (N, {call.batch})"
            checks.refuse("similarities", rule, similarities, "pass what `similarities` returned", ShapeError)
        return Estimation(self.estimator, call, MaskStream.of(call)).of_given(similarities)

    @undisturbed
    def plan(self, inputs: Tensors, n_samples: int = 3000, perturbations_per_eval: int | None = None) -> Plan:
        """Say how `attribute` runs the encoder on such inputs: masks a forward, and precision.

        With the `Plan`'s ``perturbations_per_eval`` and ``precision`` given, the result is the same
        bit for bit as with None, on the same device with the same number of threads. What has not
        been measured yet for such inputs is measured now, if ``n_samples`` masks pay for it, and
        remembered for as long as the encoder lives. Costs a forward an example, and at most a
        twentieth of the call's.
        """
        call = Call(inputs, n_samples=n_samples, perturbations_per_eval=perturbations_per_eval)
        return self._forward(call).execution.plan

    def _checked(self, call: Call) -> CheckedCall:
        """Check one call's arguments, against this attribution's settings too."""
        if call.target is not None and is_directional(self.similarity):
            raise ArgumentError(
                "target: expected None with a cosine, got a target, which leaves a scalar whose cosine is +-1; "
                "pass another similarity or explain the whole embedding."
            )
        return call.checked(self.masks, self.domain)

    def _forward(self, call: Call) -> MaskedForward:
        """Check one call's arguments, and make the encoder ready for it."""
        return MaskedForward(self.forward_func, self.similarity, self._checked(call), self.precision).prepare()
