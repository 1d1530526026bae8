"""Reach Captum's private functions, in this one place.

They barely change and every third-party attribution uses them; should a release move one, this is
the file to mend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from captum._utils.common import _expand_additional_forward_args, _expand_target, _run_forward
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Tensor

__all__ = ["PerturbationAttribution", "forward_repeated", "logged"]

Method = TypeVar("Method", bound=Callable[..., Any])


def logged(method: Method) -> Method:
    """Let Captum log the use of an attribution's method, where its user has switched that on."""
    return cast(Method, log_usage(part_of_slo=True)(method))


def forward_repeated(
    forward: Callable[..., Any], inputs: tuple[Tensor, ...], times: int, target: Any, additional_forward_args: Any
) -> Any:
    """Run `forward` on inputs that hold `times` copies of the batch, one after another.

    `target` and `additional_forward_args` are for one batch and are repeated to match.
    """
    if additional_forward_args is not None and not isinstance(additional_forward_args, tuple):
        additional_forward_args = (additional_forward_args,)
    return _run_forward(
        forward,
        inputs,
        _expand_target(target, times) if times > 1 else target,
        _expand_additional_forward_args(additional_forward_args, times) if times > 1 else additional_forward_args,
    )
