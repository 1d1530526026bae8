"""Encoders: log-mel examples ``(n, 1, 96, 64)``, or waveforms ``(n, samples)``, -> embeddings ``(n, D)``.

Third step of the flow. One file an encoder, each registered here under its name and imported only when asked for. Any callable of that
shape is an encoder to the rest of the package; the registry only gives the ones we ship a name.
"""

import functools
import os
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from relax_quantus.base.checks import integer, refuse
from relax_quantus.base.networks import neutral_torch
from relax_quantus.base.registry import Registry, nearest
from relax_quantus.encoders.torchaudio_models import NORMALIZED, load_torchaudio_model
from relax_quantus.errors import UnknownNameError


@runtime_checkable
class Encoder(Protocol):
    """What the package asks of an encoder: finite embeddings, one row an example, independent of their neighbours."""

    def __call__(self, x: Tensor) -> Tensor:
        """Embed ``(n, 1, 96, 64) -> (n, D)``."""
        ...


ENCODERS: Registry[nn.Module] = Registry("encoder", "encoder", "relax_quantus.encoders")


def load_encoder(name: str, **parameters: Any) -> nn.Module:
    """Load an encoder by name, in eval mode.

    Parameters
    ----------
    name
        ``"vggish_mini"`` (bundled weights, no network), ``"vggish"`` (torchvggish), a model of torchaudio such as
        ``"wav2vec2_base"`` (``layer=6``, ``pooling="max"``), each with ``weights=PATH`` and ``sha256=HEX`` for
        weights of one's own; or ``"random"`` (``of="vggish_mini"``, ``seed=1``): the same network with random weights.
    **parameters
        Passed to the encoder's loader.

    Returns
    -------
    torch.nn.Module
        In the type of its weights' file, on torch's default device:
        ``(n, 1, 96, 64) -> (n, 128)``; a model of torchaudio ``(n, samples) -> (n, D)``, see `WaveformEncoder`.

    Raises
    ------
    UnknownNameError
        If no encoder has that name.
    MissingDependencyError
        If it needs a package that does not import.
    WeightsError
        If weights are missing or not what they should be.
    """
    with neutral_torch():
        encoder = ENCODERS.get(name, **parameters).eval()
    return encoder if torch.get_default_device().type == "cpu" else encoder.to(torch.get_default_device())


def _vggish_mini(weights: str | os.PathLike[str] | None = None, sha256: str | None = None) -> nn.Module:
    from relax_quantus.encoders.vggish_mini import load_vggish_mini

    return load_vggish_mini(weights, sha256)


ENCODERS.register("vggish_mini", _vggish_mini, "VGGish's layer plan with 1/4 to 1/8 of the channels, bundled weights")


def _vggish(weights: str | os.PathLike[str] | None = None, sha256: str | None = None) -> nn.Module:
    from relax_quantus.encoders.vggish import load_vggish

    return load_vggish(weights, sha256)


ENCODERS.register(
    "vggish", _vggish, "torchvggish's VGGish, 72 M parameters, weights fetched once (288 MB) or from weights=PATH"
)

for _name in NORMALIZED:
    _summary = "torchaudio's, of waveforms; needs torchaudio and weights=PATH, takes layer=N"
    ENCODERS.register(_name, functools.partial(load_torchaudio_model, _name), _summary)


def _random(of: str = "vggish_mini", seed: int = 0) -> nn.Module:
    if of == RANDOM or of not in ENCODERS:
        remedy = "for example of=vggish_mini" if of == RANDOM else nearest(of, ENCODERS.names())
        refuse("of", "the name of an encoder", repr(of), remedy, UnknownNameError)
    return randomised(load_encoder(of), integer("seed", seed, low=0))


def randomised(encoder: nn.Module, seed: int) -> nn.Module:
    """Draw all weights of `encoder` anew, in place, and return it.

    Convolutions and linear layers take He et al.'s normal weights (ICCV 2015) and biases of 0, so that what enters
    still reaches the embedding (torch's own first weights shrink it to the biases); other layers take what they start
    with. The global generators are left alone.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in encoder.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    module.bias.zero_()
            elif callable(getattr(module, "reset_parameters", None)):
                cast(Any, module).reset_parameters()
    return encoder


RANDOM = "random"
ENCODERS.register(RANDOM, _random, "of=NAME,seed=N: that network with random weights, what its architecture alone does")
