"""Networks in files: a path, and what the file does not say, enter; a network that hears leaves.

`load_file` is what ``--encoder FILE:output=..,rate=..,window=..`` calls. Files are read as data;
the runtimes are extras and are imported when a file asks for one.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from relax_quantus.base import checks
from relax_quantus.base.checks import shown
from relax_quantus.base.networks import neutral_torch
from relax_quantus.base.registry import nearest
from relax_quantus.encoders.adapters.file_network import FileNetwork, FileSettings
from relax_quantus.errors import ArgumentTypeError, WeightsError

SUFFIXES = {".onnx": "onnx", ".tflite": "tflite", ".pt": "torch", ".pt2": "torch", ".ts": "torch"}
"""Runtime of a file by the end of its name."""


def is_network_file(text: str) -> bool:
    """Return whether a text names a file that `load_file` reads.

    Examples
    --------
    >>> is_network_file("models/perch.onnx"), is_network_file("birdnet")
    (True, False)
    """
    return Path(text).suffix.lower() in SUFFIXES


def load_file(
    path: str | os.PathLike[str],
    *,
    output: str | int | None = None,
    logits: str | int | None = None,
    rate: int | None = None,
    window: float | str | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    pool: str | None = None,
    batch: int | None = None,
    rows: int | None = None,
    front_end: Any = None,
    runtime: str | None = None,
    sha256: str | None = None,
) -> FileNetwork:
    """Load a network from a file, in eval mode.

    Parameters
    ----------
    path
        ``.onnx``, ``.tflite``, ``.pt`` or ``.ts`` (TorchScript, or ``torch.export``), ``.pt2``
        (``torch.export``).
    output, logits
        The tensor to be used as embedding, and the one of class scores before any sigmoid: a name
        or an index, as ``relax-quantus inspect FILE`` lists them. In ONNX and TFLite any tensor
        inside of the graph will do.
    rate, window
        Sample rate in Hz, and length of an example in seconds (``"any"``: any length), where the
        file does not say them.
    labels
        A text file with the name of a class in each line, or the names.
    pool
        ``"mean"`` or ``"max"``, over the frames of an output ``(n, frames, D)``.
    batch, rows
        The most rows that are run at once; the number of rows that the network takes exactly, where
        the file does not say.
    front_end
        What makes the network's input, for one that takes a spectrogram.
    runtime
        ``"litert"`` or ``"torch"``, for TFLite.
    sha256
        Of the file.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, another one or of a kind that is not known.
    MissingDependencyError
        If its runtime is not installed.
    RelaxQuantusError
        If the network wants more than one tensor of floats, or settings are missing or do not fit.
    """
    found = Path(path).expanduser()
    kind = SUFFIXES.get(found.suffix.lower())
    settings = FileSettings(output, logits, rate, window, labels, pool, batch, rows, front_end)
    if runtime is not None and kind != "tflite":
        checks.refuse("runtime", "no choice but for TFLite files", repr(runtime), "leave it out")
    with neutral_torch():
        match kind:
            case "onnx":
                from relax_quantus.encoders.adapters.onnx import load_onnx

                return load_onnx(found, settings, sha256)
            case "tflite":
                from relax_quantus.encoders.adapters.tflite import load_tflite

                return load_tflite(found, settings, sha256, runtime)
            case "torch":
                from relax_quantus.encoders.adapters.torchscript import load_torch

                return load_torch(found, settings, sha256)
    refuse_suffix(found)


def load_named(path: str | os.PathLike[str], **settings: Any) -> FileNetwork:
    """Load a network from a file with `settings` as a user typed them.

    Raises
    ------
    ArgumentTypeError
        If `load_file` has no such setting.
    """
    known = list(inspect.signature(load_file).parameters)[1:]
    for key in settings:
        if key not in known:
            rule = f"a setting of {shown(path)}"
            checks.refuse(key, rule, "another name", nearest(key, known), ArgumentTypeError)
    return load_file(path, **settings)


def refuse_suffix(path: Path) -> NoReturn:
    """Refuse a file whose name does not say what it holds."""
    checks.refuse(
        shown(path), f"a network in a file {', '.join(SUFFIXES)}", "another suffix", "export it", WeightsError
    )
