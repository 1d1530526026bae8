"""Arrays and waveforms -> text that a page carries.

Maps as 16-bit codes in base64, sounds as FLAC in data: URIs.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from relax_quantus.base.networks import neutral_torch
from relax_quantus.views.sounds import sound_file
from relax_quantus.views.thresholds import as_values

UNKNOWN = 65535
"""The code of NaN; values take those below it."""


@neutral_torch()
def packed(values: Tensor | npt.NDArray[Any]) -> dict[str, Any]:
    """Pack a map as its lowest and highest value and little-endian 16-bit codes, in base64.

    A value is off by at most 1 / 131 068 of the range.

    Examples
    --------
    >>> packed(np.array([0.0, 1.0]))
    {'low': 0.0, 'high': 1.0, 'data': 'AAD+/w=='}
    """
    found = as_values(values)
    finite = np.isfinite(found)
    low, high = (float(found[finite].min()), float(found[finite].max())) if finite.any() else (0.0, 0.0)
    scaled = (np.where(finite, found, low) - low) * ((UNKNOWN - 1) / (high - low) if high > low else 0.0)
    codes = np.where(finite, np.rint(scaled), UNKNOWN).astype("<u2")
    return {"low": low, "high": high, "data": base64.b64encode(codes.tobytes()).decode("ascii")}


def finite(value: float) -> float | None:
    """A number as JSON has it: None where it is none or infinite."""
    return float(value) if math.isfinite(value) else None


def minus(value: float, form: str) -> str:
    """A number with a minus sign, which is as wide as a plus, instead of a hyphen.

    Examples
    --------
    >>> minus(-0.5, ".2f")
    '\u22120.50'
    """
    return format(value, form).replace("-", "\N{MINUS SIGN}")


def sound_uri(wave: npt.NDArray[Any], rate_hz: int) -> str:
    """A waveform ``(samples,)`` as FLAC of 16 bits in a data: URI."""
    # through a file, as libsndfile's callbacks into Python would swallow an interrupt
    with TemporaryDirectory() as folder:
        path = Path(folder, "sound.flac")
        with sound_file(path, rate_hz, "PCM_16") as sink:
            sink.write(np.asarray(wave))
        return f"data:audio/flac;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
