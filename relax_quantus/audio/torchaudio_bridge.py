"""Import torchaudio when something asks for it; no other module does.

Stands beside the decoder at the start of the flow: a waveform at one rate enters, one at another
leaves (`resample`). Front ends and models of torchaudio are modules like any other once it is
imported: see `relax_quantus.frontend.transform` and `relax_quantus.encoders.waveform`. torchaudio
is compiled against one torch and fails in many ways beside another; every one of them is reported
as one `MissingDependencyError`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch

from relax_quantus.base import checks
from relax_quantus.errors import MissingDependencyError

REMEDY = "install torch 2.11.0 with torchaudio 2.11.0 (its last release)"
LONGEST_REASON = 160
"""Characters of an import's own complaint that fit in one line of ours."""


def import_torchaudio() -> ModuleType:
    """Import torchaudio, or say in one line why it cannot be.

    Returns
    -------
    module
        torchaudio, with its submodules ``functional``, ``models``, ``pipelines`` and
        ``transforms``.

    Raises
    ------
    MissingDependencyError
        If it is not installed, or was built for another torch or CUDA; the line names the pair of
        versions that works.

    Examples
    --------
    >>> mel = import_torchaudio().transforms.MelSpectrogram(16_000)  # doctest: +SKIP
    """
    try:
        return importlib.import_module("torchaudio")
    except (
        ImportError,
        OSError,
        RuntimeError,
        AttributeError,
    ) as error:  # absent, libraries, CUDA check, renamed parts of torch
        line = checks.message("torchaudio", f"to import beside torch {torch.__version__}", _reason(error), REMEDY)
        raise MissingDependencyError(line) from error


def _reason(error: BaseException) -> str:
    """Say what first went wrong, in one line.

    torch wraps "libc10_cuda.so: cannot open" in "could not load" and torchaudio's own path.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 3] + "..."


def resample(wave: npt.NDArray[np.float32], rate_hz: int, to_rate_hz: int) -> npt.NDArray[np.float32]:
    """Resample a waveform (samples,) with torchaudio's own defaults.

    By ``torchaudio.functional.resample``.

    Those are a Hann-windowed sinc of 6 zero crossings on each side: what a network saw whose
    authors resampled with torchaudio.

    Parameters
    ----------
    wave
        ``(samples,)`` float32, left as it is.
    rate_hz, to_rate_hz
        Sample rates in Hz.

    Returns
    -------
    numpy.ndarray of float32, shape (ceil(samples * to_rate_hz / rate_hz),)

    Raises
    ------
    MissingDependencyError
        If torchaudio does not import.
    """
    functional = import_torchaudio().functional
    with torch.inference_mode(False), torch.no_grad():
        resampled = functional.resample(torch.tensor(wave, dtype=torch.float32), rate_hz, to_rate_hz)
    return np.asarray(resampled.numpy(), dtype=np.float32)
