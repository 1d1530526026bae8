"""RELAX for audio representations: which part of a sound made its embedding what it is, and how sure are we.

The flow, from left to right, one package or module a step::

    audio file --audio--> waveform 16 kHz --frontend--> log-mel x (B,1,T,F) --encoder--> h (B,D)
                                                            |  masks m (M,1,T,F) + fill
                                                            +--> x~ --encoder--> h~ --similarity(h,h~)--> s (M,)
    s, m --estimator--> importance, uncertainty, standard error (B,1,T,F) --> Captum / Quantus / plots / sound / report
    methods x metrics x clips --benchmark--> tidy results --> tables, figures, statistics

Axes: B batch, N samples, M masks, T = 96 frames of 10 ms (axis -2), F = 64 mel bands (axis -1), D embedding. Masks: 1 keeps, 0 replaces by
the fill. Every public name below is imported when it is first used (PEP 562), so ``import relax_quantus`` is quick.
"""

import importlib.util
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "read_audio": "audio",
    "waveform_blocks": "audio",
    "load_waveform": "audio",
    "resample": "audio",
    "load_examples": "frontend",
    "LogMel": "frontend",
    "LogMelConfig": "frontend",
    "TransformFrontEnd": "transform_front_end",
    "load_encoder": "encoders",
    "WaveformEncoder": "encoders.waveform",
    "import_torchaudio": "torchaudio_bridge",
    "EmbeddingClassifier": "heads",
    "RELAX": "relax",
    "Stitched": "stitching",
    "stitch": "stitching",
    "explain_overlapping": "stitching",
    "SimilarityForward": "similarity_forward",
    "Explanation": "explanation",
    "explain_func": "quantus_bridge",
    "register_with_quantus": "quantus_bridge",
    "unregister_from_quantus": "quantus_bridge",
    "SimilarityModel": "quantus_bridge",
}
_MODULES = {
    "audio",
    "benchmark",
    "encoders",
    "errors",
    "estimators",
    "fills",
    "frontend",
    "heads",
    "masks",
    "plotting",
    "quantus_bridge",
    "relax",
    "similarity",
}

__all__ = ["__version__", *sorted(_HOME), *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES or (not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None):
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
