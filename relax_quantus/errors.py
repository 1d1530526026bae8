"""Define the package's one family of errors.

Stands at the very bottom of the flow: every other module raises these and imports nothing else to
do so. Each error is also the built-in exception a caller would expect (``ValueError``,
``TypeError`` ...), so ``except ValueError`` keeps working; the command line catches
`RelaxQuantusError` and prints its one line.
"""

from __future__ import annotations


class RelaxQuantusError(Exception):
    """Base of every error that the package raises on purpose."""


class ArgumentError(RelaxQuantusError, ValueError):
    """An argument has the right type and a value that cannot work."""


class ArgumentTypeError(RelaxQuantusError, TypeError):
    """An argument is of a type that cannot work, or is not known at all."""


class ShapeError(ArgumentError):
    """A tensor or array has a shape that cannot work."""


class UnknownNameError(ArgumentError):
    """A name is not in its registry; the message lists the nearest ones."""


class AudioError(RelaxQuantusError, ValueError):
    """A recording cannot be used: it does not decode, or is empty, silent or not finite."""


class DataError(RelaxQuantusError, ValueError):
    """A folder or table of recordings cannot be used."""


class EncoderError(RelaxQuantusError, ValueError):
    """An encoder returned something that is not a finite, non-zero ``(n, D)`` embedding."""


class WeightsError(RelaxQuantusError, OSError):
    """A file of weights is missing, damaged or not the one that was asked for."""


class MissingDependencyError(RelaxQuantusError, ImportError):
    """An optional or broken dependency is needed for what was asked."""


class CellError(RelaxQuantusError, RuntimeError):
    """A cell of a strict benchmark run could not be computed."""
