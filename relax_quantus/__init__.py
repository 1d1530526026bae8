"""Explain audio representations by RELAX: what in a sound made its embedding, and how surely.

The flow, from left to right, one room (package) a step::

    sound file --audio--> waveform --frontend--> examples x (B,1,T,F) --encoders--> h (B,D)
                                          |  relax: masks m (M,1,T,F) + fill
                                          +--> x~ --encoder--> h~ --similarity(h,h~)--> s (M,)
    s, m --relax.estimators--> Explanation (B,1,T,F) --> Captum / Quantus
                                                     --> views: pictures, sounds, boxes, pages
    a whole recording --recordings--> one map over its own time axis
    methods x metrics x clips --benchmark--> rows --> tables, figures, statistics
    cli: the command line

Axes: B batch, N samples, M masks, T frames (axis -2), F bands (axis -1), D embedding. Masks: 1
keeps, 0 replaces by the fill. Public names are imported when they are first used (PEP 562), so
``import relax_quantus`` is quick; ``__init__.pyi`` tells type checkers and editors what they are.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "EmbeddingClassifier": "heads.classifier",
    "ExplainSettings": "recordings.plan",
    "Explanation": "relax.explanation",
    "LogMel": "frontend.log_mel",
    "LogMelConfig": "frontend.log_mel",
    "RELAX": "relax.attribution",
    "RecordingExplanation": "recordings.recording",
    "RecordingFit": "recordings.fitting",
    "RecordingMap": "recordings.recording",
    "Session": "recordings.session",
    "SimilarityForward": "relax.similarity",
    "SimilarityModel": "relax.similarity",
    "Stitched": "recordings.stitching",
    "TransformFrontEnd": "frontend.transform",
    "WaveformEncoder": "encoders.waveform",
    "explain_func": "quantus_bridge",
    "explain_overlapping": "recordings.stitching",
    "explain_recording": "recordings.session",
    "fit_recordings": "recordings.fitting",
    "import_torchaudio": "audio.torchaudio_bridge",
    "load_encoder": "encoders",
    "load_examples": "frontend.log_mel",
    "load_waveform": "audio.reading",
    "read_audio": "audio.reading",
    "register_with_quantus": "quantus_bridge",
    "resample": "audio.reading",
    "stitch": "recordings.stitching",
    "unregister_from_quantus": "quantus_bridge",
    "waveform_blocks": "audio.reading",
}
_MODULES = {
    "audio": "audio",
    "benchmark": "benchmark",
    "encoders": "encoders",
    "errors": "errors",
    "estimators": "relax.estimators",
    "fills": "relax.fills",
    "frontend": "frontend",
    "heads": "heads",
    "masks": "relax.masks",
    "plotting": "views.maps",
    "quantus_bridge": "quantus_bridge",
    "relax": "relax",
    "similarity": "relax.similarity",
}

__all__ = ["__version__", *sorted(_HOME), *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
