"""Load torchaudio's wav2vec2 family by name, as encoders of waveforms.

These are wav2vec 2.0, HuBERT and WavLM with weights of the user's.

A name, a file of weights and a layer enter, a `WaveformEncoder` ``(n, samples) -> (n, D)`` leaves.
torchaudio is imported when one is loaded; nothing is fetched.
"""

from __future__ import annotations

import os

import torch

from relax_quantus.audio.torchaudio_bridge import import_torchaudio
from relax_quantus.base import checks
from relax_quantus.encoders.waveform import WaveformEncoder
from relax_quantus.encoders.weights_file import load_weights
from relax_quantus.errors import WeightsError

NORMALIZED = {
    "wav2vec2_base": False,
    "wav2vec2_large": False,
    "wav2vec2_large_lv60k": True,
    "wav2vec2_xlsr_300m": True,
    "wav2vec2_xlsr_1b": True,
    "wav2vec2_xlsr_2b": True,
    "hubert_base": False,
    "hubert_large": True,
    "hubert_xlarge": True,
    "wavlm_base": False,
    "wavlm_large": True,
}
"""Factories of ``torchaudio.models``, and whether its pipelines bring each waveform to mean 0 and
variance 1 for such a model."""
HOW_TO_SAVE = "save torchaudio.pipelines.{}.get_model().state_dict() with torch.save"
PRETRAINED = "weights of torchaudio's {}"
SPEECH_HEAD = ("aux.",)


def load_torchaudio_model(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    sha256: str | None = None,
    layer: int | None = None,
    pooling: str = "mean",
    normalize: bool | None = None,
) -> WaveformEncoder:
    """Load a model of ``torchaudio.models`` as an encoder, in eval mode.

    Parameters
    ----------
    name
        Name of its factory, a key of `NORMALIZED`.
    weights, sha256
        A file holding its state dict, safetensors or ``torch.save``, and its SHA-256. The layer for
        speech recognition, ``aux``, is left out.
    layer, pooling
        See `WaveformEncoder`.
    normalize
        See `WaveformEncoder`; None does as torchaudio's pipelines do for that model.

    Raises
    ------
    MissingDependencyError
        If torchaudio does not import.
    WeightsError
        If there are no weights or they are not those of such a model.
    """
    models = import_torchaudio().models
    how = HOW_TO_SAVE.format(name.upper())
    if weights is None:
        checks.refuse("weights", f"a file of weights for {name!r}", "nothing", how, WeightsError)
    with torch.device("meta"):
        model = getattr(models, name)()
    normalize = NORMALIZED[name] if normalize is None else normalize
    encoder = WaveformEncoder(model, pooling, layer, normalize=normalize)
    load_weights(model, weights, sha256, PRETRAINED.format(name), how, SPEECH_HEAD)
    return encoder
