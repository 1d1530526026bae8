"""What the library calls an argument and the command line an option, in one place: messages name what the user typed."""

from __future__ import annotations

OPTIONS = {
    "annotations": "--annotations",
    "away": "--away",
    "baselines": "--baseline",
    "corpus": "--corpus",
    "data": "--data",
    "domain": "--domain",
    "encoder": "--encoder",
    "estimator": "--estimator",
    "fill": "--baseline",
    "fine_tune": "--fine-tune",
    "forward_func": "--encoder",
    "front_end": "--front-end",
    "hop_s": "--hop",
    "html": "--html",
    "layer": "--encoder NAME:layer",
    "masks": "--masks",
    "max_clips": "--max-clips",
    "max_examples": "--max-examples",
    "model": "--encoder",
    "n_samples": "--n-samples",
    "normalize": "--encoder NAME:normalize",
    "pooling": "--encoder NAME:pooling",
    "out": "--out",
    "precision": "--precision",
    "preset": "--preset",
    "reference": "--reference",
    "resampler": "--resampler",
    "retry": "--retry",
    "scheduler": "--scheduler",
    "seed": "--seed",
    "sha256": "--sha256",
    "similarity": "--similarity",
    "sounds": "--sounds",
    "strict": "--strict",
    "time_limit": "--time-limit",
    "tolerance": "--tolerance",
    "transform": "--front-end",
    "weights": "--weights",
    "workers": "--workers",
}
"""The library's argument -> what to call it on the command line."""


def spoken(text: str) -> str:
    """Replace the argument at the beginning of a message by its option, and advice for Python by that for a command.

    Examples
    --------
    >>> spoken("baselines: expected the name of a fill, got 'silense'")
    "--baseline: expected the name of a fill, got 'silense'"
    >>> spoken("masks.wav: expected sound")
    'masks.wav: expected sound'
    """
    text = text.replace("; max_examples=0 explains all of it", "; --max-examples 0 explains all of it")
    argument, colon, rest = text.partition(":")
    name, equals, value = argument.partition("=")
    if not colon or name not in OPTIONS or (equals and not value):
        return text
    return f"{OPTIONS[name]}{' ' if equals else ''}{value}:{rest}"
