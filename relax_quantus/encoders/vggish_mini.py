"""Load `VGGishMini`: VGGish's layer plan with fewer channels, 0.7 M parameters, weights bundled.

Log-mel examples ``(n, 1, 96, 64)`` enter, ReLU embeddings ``(n, 128)`` leave. Trained by ``python
-m benchmarks.train_vggish_mini`` (see the model card in the documentation); batch normalisation is
used in training and folded into the convolutions of the shipped weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from importlib import resources
from itertools import pairwise

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from relax_quantus.encoders.weights_file import load_weights
from relax_quantus.errors import WeightsError

CHANNELS = (16, 32, 64, 64, 128, 128)
POOL_AFTER = (0, 1, 3, 5)
WEIGHTS = "vggish_mini.safetensors"
MANIFEST = "vggish_mini.json"


class VGGishMini(nn.Module):
    """Build six 3x3 convolutions, four poolings and two linear layers, as in VGGish.

    Parameters
    ----------
    batch_norm
        Put a batch normalisation after each convolution (training); False gives the folded network
        (inference).
    """

    embedding_size = 128

    def __init__(self, batch_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 1
        for index, channels in enumerate(CHANNELS):
            layers.append(nn.Conv2d(previous, channels, 3, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU())
            if index in POOL_AFTER:
                layers.append(nn.MaxPool2d(2))
            previous = channels
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(CHANNELS[-1] * 6 * 4, 128),
            nn.ReLU(),
            nn.Linear(128, self.embedding_size),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Embed ``(n, 1, 96, 64) -> (n, 128)``."""
        embedded: Tensor = self.embeddings(self.features(x).flatten(1))
        return embedded


def fold(model: VGGishMini) -> VGGishMini:
    """Fold a trained `VGGishMini`'s batch normalisations into its convolutions.

    Returned is a copy for inference.
    """
    folded = _blank().eval()
    source = list(model.eval().features)
    fused = [
        fuse_conv_bn_eval(conv, norm)
        for conv, norm in pairwise(source)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]
    for target, conv in zip((m for m in folded.features if isinstance(m, nn.Conv2d)), fused, strict=True):
        target.load_state_dict(conv.state_dict())
    folded.embeddings.load_state_dict(model.embeddings.state_dict())
    return folded


def _blank() -> VGGishMini:
    """Build a folded network to be filled.

    The random numbers that initialise it are not taken from the caller's generator.
    """
    with torch.random.fork_rng(devices=[]):
        return VGGishMini(batch_norm=False)


def load_vggish_mini(weights: str | os.PathLike[str] | None = None, sha256: str | None = None) -> VGGishMini:
    """Load the bundled weights, or those of a file.

    Parameters
    ----------
    weights, sha256
        A file of weights for the same layers, and the digest that it must have. None for the
        bundled ones, whose SHA-256 is checked against the manifest beside them.

    Raises
    ------
    WeightsError
        If the file is missing or is not the one that the manifest or `sha256` names, or of another
        network.
    """
    model = _blank() if weights is None else _from_file(weights, sha256)
    if weights is None:
        model.load_state_dict(load_safetensors(_bundled()))
    # Channels-last weights make a CPU's convolutions about twice as fast; inputs may come in
    # either format.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def _from_file(weights: str | os.PathLike[str], sha256: str | None) -> VGGishMini:
    remedy = "save the folded network's state_dict(), as benchmarks.train_vggish_mini does"
    return load_weights(_blank(), weights, sha256, "weights of vggish_mini", remedy)


def _bundled() -> bytes:
    """Read the bundled weights and check them."""
    home = resources.files(__package__)
    try:
        blob = home.joinpath(WEIGHTS).read_bytes()
        expected = json.loads(home.joinpath(MANIFEST).read_text())["sha256"]
    except FileNotFoundError as error:
        raise WeightsError(
            f"vggish_mini: expected its bundled weights, got {error}; install the package again."
        ) from error
    if (found := hashlib.sha256(blob).hexdigest()) != expected:
        raise WeightsError(f"{WEIGHTS}: expected SHA-256 {expected}, got {found}; install the package again.")
    return blob
