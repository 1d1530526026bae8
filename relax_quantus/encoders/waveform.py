"""Embed waveforms with a wav2vec2-family model of torchaudio.

Waveforms ``(n, samples)`` enter, embeddings ``(n, D)`` leave: the features of one transformer
layer, pooled over time. In the flow it stands in the place of front end and encoder at once, so
RELAX masks the waveform itself. The model is the caller's, so this module never imports torchaudio:
wav2vec 2.0, HuBERT and WavLM as built by ``torchaudio.models`` or fetched by
``torchaudio.pipelines``, with any weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from relax_quantus.base import checks
from relax_quantus.errors import ArgumentError, ArgumentTypeError, EncoderError, ShapeError

POOLINGS = ("mean", "max")


class WaveformEncoder(nn.Module):
    """Pool the features of one layer of a wav2vec2-family model.

    Parameters
    ----------
    model
        Has torchaudio's ``extract_features(waveforms, lengths, num_layers) -> (list of (n, frames,
        D), frame lengths or None)``; a pretraining model that holds such a one as its ``wav2vec2``
        will do. It is put into eval mode, as its dropout would make every forward differ.
    pooling
        ``"mean"`` or ``"max"`` over the frames.
    layer
        Transformer layer, counted from 1; None takes the last one. Layers above it are not run.
    normalize
        Bring each waveform (its samples up to ``lengths``) to mean 0 and variance 1 first, as
        torchaudio's pipelines do for the large models.

    Examples
    --------
    >>> from relax_quantus.audio.torchaudio_bridge import import_torchaudio
    >>> model = import_torchaudio().models.wav2vec2_base()  # doctest: +SKIP
    >>> WaveformEncoder(model, layer=6)(torch.zeros(2, 16_000)).shape  # doctest: +SKIP
    torch.Size([2, 768])
    """

    def __init__(
        self, model: nn.Module, pooling: str = "mean", layer: int | None = None, *, normalize: bool = False
    ) -> None:
        super().__init__()
        model = model if hasattr(model, "extract_features") else getattr(model, "wav2vec2", model)
        if not (isinstance(model, nn.Module) and callable(getattr(model, "extract_features", None))):
            remedy = "pass for example torchaudio.models.wav2vec2_base()"
            rule = "a module with torchaudio's extract_features"
            checks.refuse("model", rule, f"a {type(model).__name__}", remedy, ArgumentTypeError)
        if pooling not in POOLINGS:
            checks.refuse("pooling", "'mean' or 'max'", repr(pooling), "pick one")
        self.model = model
        self.pooling = pooling
        self.layer = None if layer is None else checks.integer("layer", layer)
        if not isinstance(normalize, bool):
            checks.refuse("normalize", "True or False", repr(normalize), "pick one", ArgumentTypeError)
        self.normalize = normalize
        self.eval()

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms.

        Parameters
        ----------
        x
            ``(n, samples)`` or ``(n, 1, samples)``, floating, at the model's sample rate (16 kHz
            for all that torchaudio ships), on its device. Gradients flow back to it.
        lengths
            ``(n,)`` integers, the samples of each waveform that are not padding; None where all
            are. In RELAX it goes into ``additional_forward_args``.

        Returns
        -------
        Tensor
            ``(n, D)``, pooled over the frames that are not padding.

        Raises
        ------
        ShapeError
            If `x` has other axes, or fewer samples than one frame needs.
        ArgumentError, ArgumentTypeError
            If `lengths` are not integers from one frame's samples to those of `x`, or the model has
            not so many layers.
        EncoderError
            If the model's features are not ``(n, frames, D)``.
        """
        x = self._checked(x)
        lengths = None if lengths is None else self._checked_lengths(x, lengths)
        x = normalized(x, lengths) if self.normalize else x
        features, frame_lengths = self.features(x, lengths)
        return pool(features, frame_lengths, self.pooling)

    def features(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the layer's features ``(n, frames, D)`` and each example's number of frames.

        Padding does not count; the numbers are None where there is none.
        """
        try:
            layers, frame_lengths = self.model.extract_features(x, lengths, num_layers=self.layer)  # type: ignore[operator]
        except ValueError as error:
            if self.layer is None:
                raise
            reason = f"{self.layer} ({error})"
            raise ArgumentError(
                checks.message("layer", "a layer that the model has", reason, "count from 1")
            ) from error
        features = layers[-1] if isinstance(layers, list | tuple) and layers else layers
        if not isinstance(features, Tensor) or features.ndim != 3 or len(features) != len(x) or 0 in features.shape:
            got = features if isinstance(features, Tensor) else f"a {type(features).__name__}"
            rule = f"features of shape ({len(x)}, frames, D)"
            checks.refuse("model", rule, got, "pass one whose extract_features returns them", EncoderError)
        return features, frame_lengths

    @property
    def frame_samples(self) -> int:
        """Samples that the model's convolutions need for one frame (400 for wav2vec 2.0).

        It is 1 where they cannot be told.
        """
        convolutions: list[nn.Conv1d] = []
        for module in self.model.modules():
            if isinstance(getattr(module, "conv_layers", None), nn.ModuleList):
                convolutions = [part for part in module.modules() if isinstance(part, nn.Conv1d)]
                break
        needed = 1
        for convolution in reversed(convolutions):
            needed = (needed - 1) * convolution.stride[0] + convolution.kernel_size[0]
        return needed

    def _checked(self, x: Tensor) -> Tensor:
        """Return `x` as floating waveforms ``(n, samples)`` that are long enough."""
        x = checks.tensor("x", x)
        if not x.is_floating_point():
            checks.refuse("x", "floating-point samples", x, "scale them to [-1, 1] first", ArgumentTypeError)
        if x.ndim == 3 and x.shape[1] == 1:
            x = x[:, 0]
        if x.ndim != 2:
            rule = "waveforms of shape (n, samples) or (n, 1, samples)"
            checks.refuse("x", rule, x, "add the batch axis, or mix channels down to mono", ShapeError)
        if x.shape[1] < self.frame_samples:
            rule = f"at least {self.frame_samples} samples, which one frame needs"
            checks.refuse("x", rule, x, "pass a longer recording or pad it", ShapeError)
        return x

    def _checked_lengths(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return `lengths` as integers ``(n,)`` on the device of `x`."""
        lengths = checks.tensor("lengths", lengths)
        if lengths.is_floating_point() or lengths.shape != (len(x),):
            remedy = "pass the samples of each waveform"
            checks.refuse("lengths", f"integers of shape ({len(x)},)", lengths, remedy, ArgumentTypeError)
        low, high = (int(lengths.min()), int(lengths.max())) if len(x) else (self.frame_samples, self.frame_samples)
        if low < self.frame_samples or high > x.shape[1]:
            rule = f"from {self.frame_samples} (one frame) to {x.shape[1]} samples"
            checks.refuse("lengths", rule, f"{low} to {high}", "count samples, not seconds or frames")
        return lengths.to(x.device)


def normalized(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Bring waveforms ``(n, samples)`` to mean 0 and variance 1 over their first `lengths` samples.

    Padding becomes 0.

    Examples
    --------
    >>> normalized(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([2])).round(decimals=2)
    tensor([[-1.,  1.,  0.]])
    """
    if lengths is None:
        return functional.layer_norm(x, x.shape[1:])
    sound = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    count = lengths[:, None].to(x.dtype)
    centred = (x - (x * sound).sum(1, keepdim=True) / count) * sound
    return centred / (centred.square().sum(1, keepdim=True) / count + 1e-5).sqrt()


def pool(features: Tensor, frame_lengths: Tensor | None, pooling: str) -> Tensor:
    """Pool ``(n, frames, D) -> (n, D)`` over the first `frame_lengths` frames of each.

    Examples
    --------
    >>> pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2]), "mean")
    tensor([[2.]])
    """
    if frame_lengths is None:
        return features.mean(dim=1) if pooling == "mean" else features.amax(dim=1)
    padding = (torch.arange(features.shape[1], device=features.device) >= frame_lengths[:, None])[..., None]
    if pooling == "max":
        return features.masked_fill(padding, -torch.inf).amax(dim=1)
    return features.masked_fill(padding, 0.0).sum(dim=1) / frame_lengths[:, None].to(features.dtype)
