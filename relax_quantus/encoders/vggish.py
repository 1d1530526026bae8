"""Load torchvggish's network with its AudioSet weights, 72 M parameters, not bundled (288 MB).

Log-mel examples ``(n, 1, 96, 64)`` enter, ReLU embeddings ``(n, 128)`` leave, neither quantised nor
squeezed. Weights come from torch.hub's cache (fetched on first use, as torchvggish does) or from a
file of the user's; either way they are checked before they are used, and unpickled without running
any code that the file may hold.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from relax_quantus.base import checks
from relax_quantus.base.extras import require
from relax_quantus.encoders.weights_file import (
    HASH_IN_NAME,
    RIGHT_FILE,
    assign,
    check_sha256,
    existing,
    read_state_dict,
    require_same_layout,
    verify,
)
from relax_quantus.errors import MissingDependencyError, ShapeError, WeightsError

STALLED_S = 30.0
"""Seconds without an answer after which a download is given up."""
FETCH_ANEW = "delete it, and it will be fetched anew"


class VGGish(nn.Module):
    """Build torchvggish's VGGish up to its embedding, its weights not yet loaded.

    It has the same state-dict keys.

    The layers are torchvggish's own. Their ReLUs are made to work out of place, because Captum's
    hooks (DeepLift, LRP, guided backpropagation) fail on in-place ones.
    """

    embedding_size = 128
    frozen_in_fine_tuning = ("features",)
    """What `EmbeddingClassifier.fit` leaves as it is by default when it fine-tunes: the
    convolutions."""

    def __init__(self) -> None:
        super().__init__()
        network = _torchvggish()._vgg(postprocess=False)
        self.features: nn.Sequential = network.features
        self.embeddings: nn.Sequential = network.embeddings
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False

    def forward(self, x: Tensor) -> Tensor:
        """Embed ``(n, 1, 96, 64) -> (n, 128)``."""
        if x.ndim != 4 or x.shape[1:] != (1, 96, 64):
            checks.refuse("x", "log-mel examples of shape (n, 1, 96, 64)", x, "make them with LogMel", ShapeError)
        features = self.features(x).permute(0, 2, 3, 1).flatten(1)  # TensorFlow's order: time, mel, channel
        embedded: Tensor = self.embeddings(features)
        return embedded


def load_vggish(weights: str | os.PathLike[str] | None = None, sha256: str | None = None) -> VGGish:
    """Load VGGish in eval mode.

    Parameters
    ----------
    weights
        A file holding torchvggish's state dict; None takes the one in torch.hub's cache, or fetches
        it there.
    sha256
        The file's SHA-256, 64 hexadecimal digits. Without it the file is checked against the hash
        in its name (``vggish-10086976.pth``); a file of the user's whose name holds none is checked
        for shape only.

    Returns
    -------
    VGGish
        ``(n, 1, 96, 64) -> (n, 128)``, float32, on the CPU.

    Raises
    ------
    WeightsError
        If the file is missing and cannot be fetched, has another hash, is not a plain state dict,
        or is one of another network.
    """
    check_sha256(sha256)
    path = _in_hub() if weights is None else existing(weights)
    verify(path, sha256, FETCH_ANEW if weights is None else RIGHT_FILE)
    state = read_state_dict(path)
    with torch.device("meta"):
        model = VGGish()
    require_same_layout(path, state, model.state_dict(), "torchvggish's weights", "pass a VGGish state dict")
    return assign(model, state).eval()


def weights_url() -> str:
    """Return where the installed torchvggish fetches its weights."""
    return str(_torchvggish().VGGISH_WEIGHTS)


def _torchvggish() -> ModuleType:
    """Run torchvggish's network module on its own.

    Importing the package takes resampy and numba along, which the network does not need.
    """
    require("vggish", "encoder 'vggish'")
    package = importlib.util.find_spec("torchvggish")
    folders = package.submodule_search_locations if package else None
    source = Path(folders[0], "torchvggish.py") if folders else None
    spec = (
        importlib.util.spec_from_file_location("relax_quantus_torchvggish", source)
        if source and source.is_file()
        else None
    )
    if spec is None or spec.loader is None:
        raise MissingDependencyError(
            "encoder 'vggish': expected torchvggish, got a package without its network; install it anew."
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _in_hub() -> Path:
    """Return the weights' place in torch.hub's cache, after fetching them if they are not there."""
    url = weights_url()
    path = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path))
    if path.is_file():
        return path
    found = HASH_IN_NAME.search(path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _give_up_when_stalled():
            torch.hub.download_url_to_file(url, str(path), hash_prefix=found.group(1) if found else None)
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(
            f"encoder 'vggish': expected its weights at {path}, got no such file and no download ({reason}); "
            f"fetch {url} on a connected machine and put it there, or pass weights=PATH."
        ) from error
    return path


@contextlib.contextmanager
def _give_up_when_stalled() -> Iterator[None]:
    """Give sockets a time limit unless the program has set one.

    torch.hub sets none and would wait for ever.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED_S if before is None else before)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
