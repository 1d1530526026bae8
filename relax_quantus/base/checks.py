"""Check arguments, and write the one line that a message is.

Every message reads ``<argument>: expected <rule>, got <value and shape>; <what to do>.`` Values
enter, the same values leave (converted to a plain Python type where that is useful), or an error
from `relax_quantus.errors` is raised.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from typing import TYPE_CHECKING, Any, NoReturn

from relax_quantus.errors import ArgumentError, ArgumentTypeError, RelaxQuantusError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor  # loaded where a tensor is checked: the command line writes messages before


def describe(value: object) -> str:
    """Say in a few words what `value` is.

    Type, shape and dtype of tensors and arrays, the value itself of anything short.

    Examples
    --------
    >>> import torch
    >>> describe(torch.zeros(2, 3))
    'a Tensor of shape (2, 3), torch.float32'
    >>> describe(-1)
    '-1'
    """
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"a {type(value).__name__} of shape {tuple(shape)}, {getattr(value, 'dtype', '')}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def printable(text: str) -> str:
    r"""Escape whatever would break a one-line message.

    That is line breaks, control characters and undecodable bytes of a file name.

    Examples
    --------
    >>> printable("two\nlines")
    'two\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shown(path: str | bytes | os.PathLike[Any]) -> str:
    r"""Return a path as printable text on one line: what does not print or decode is escaped.

    Examples
    --------
    >>> print(shown("a" + chr(10) + "b.wav"))
    a\nb.wav
    """
    return printable(os.fsdecode(path))


def one_line(text: str) -> str:
    """Join the lines of `text` and replace what cannot be encoded."""
    text = re.sub(r"\s*[\r\n]+\s*", " ", text.strip())
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def duration(seconds: float) -> str:
    """Write seconds as messages show them.

    Examples
    --------
    >>> duration(0.96), duration(2.0)
    ('0.96', '2')
    """
    return f"{seconds:.3g}" if math.isfinite(seconds) else "unknown"


def message(argument: str, expected: str, got: object, remedy: str = "") -> str:
    """Compose the one form in which the package complains."""
    got = got if isinstance(got, str) else describe(got)
    return f"{argument}: expected {expected}, got {got}" + (f"; {remedy}." if remedy else ".")


def refuse(
    argument: str, expected: str, got: object, remedy: str = "", error: type[RelaxQuantusError] = ArgumentError
) -> NoReturn:
    """Raise `error` with the message of `message`."""
    raise error(message(argument, expected, got, remedy))


def integer(argument: str, value: object, *, low: int = 1) -> int:
    """Return `value` as an int of at least `low`; booleans and fractions are refused.

    Examples
    --------
    >>> integer("n_samples", 3)
    3
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        refuse(argument, f"an integer of at least {low}", repr(value), "pass a whole number", ArgumentTypeError)
    if value < low:
        refuse(argument, f"an integer of at least {low}", repr(value), f"pass {low} or more")
    return int(value)


def fraction(argument: str, value: object) -> float:
    """Return `value` as a float strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        refuse(argument, "a number between 0 and 1", repr(value), "pass a float such as 0.5", ArgumentTypeError)
    if not 0.0 < float(value) < 1.0:
        refuse(argument, "a number strictly between 0 and 1", repr(value), "pass a float such as 0.5")
    return float(value)


def positive(argument: str, value: object) -> float:
    """Return `value` as a finite float above 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        refuse(argument, "a positive number", repr(value), "pass a float", ArgumentTypeError)
    if not (math.isfinite(float(value)) and float(value) > 0):
        refuse(argument, "a finite number above 0", repr(value), "pass a positive float")
    return float(value)


def real(argument: str, value: object) -> float:
    """Return `value` as a finite float of any sign."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        refuse(argument, "a number", repr(value), "pass a float", ArgumentTypeError)
    if not math.isfinite(float(value)):
        refuse(argument, "a finite number", repr(value), "pass a float")
    return float(value)


def seed(value: object) -> int | None:
    """Return a seed for `torch.Generator`.

    An int from 0 to 2**63 - 1, or None for fresh entropy.
    """
    if value is None:
        return None
    value = integer("seed", value, low=0)
    if value >= 2**63:
        refuse("seed", "an integer below 2**63", repr(value), "pass a smaller one, or None for fresh entropy")
    return value


def tensor(argument: str, value: object) -> Tensor:
    """Return `value` if it is a tensor."""
    from torch import Tensor

    if not isinstance(value, Tensor):
        refuse(
            argument, "a torch.Tensor or a tuple of them", type(value).__name__, "convert it first", ArgumentTypeError
        )
    return value


def finite(argument: str, value: Tensor, remedy: str = "remove or replace the NaN and infinite entries") -> Tensor:
    """Return `value` if all its entries are finite; integer and boolean tensors always are."""
    if (value.is_floating_point() or value.is_complex()) and not bool(value.isfinite().all()):
        bad = int((~value.isfinite()).sum())
        refuse(argument, "finite entries", f"{describe(value)} with {bad} NaN or infinite", remedy)
    return value


def examples(argument: str, value: Any) -> Tensor:
    """Return `value` if it is a finite tensor of examples.

    Those are spectrograms ``(B, 1, T, F)`` or waveforms ``(B, samples)``.
    """
    value = tensor(argument, value)
    if value.ndim != 2:
        return spectrograms(argument, value)
    if 0 in value.shape:
        refuse(argument, "waveforms of shape (B, samples)", value, "pass at least one", ShapeError)
    return finite(argument, value)


def spectrograms(argument: str, value: Any) -> Tensor:
    """Return `value` if it is a finite ``(B, 1, T, F)`` tensor with at least one example."""
    value = tensor(argument, value)
    if value.ndim != 4 or value.shape[1] != 1 or 0 in value.shape:
        refuse(argument, "examples of shape (B, 1, T, F)", value, "add the batch and channel axes", ShapeError)
    return finite(argument, value)
