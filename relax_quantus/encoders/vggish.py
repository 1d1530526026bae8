"""`VGGish`: torchvggish's network with its AudioSet weights, 72 M parameters, not bundled (288 MB).

Log-mel examples ``(n, 1, 96, 64)`` enter, ReLU embeddings ``(n, 128)`` leave, neither quantised nor squeezed. Weights come from torch.hub's
cache (fetched on first use, as torchvggish does) or from a file of the user's; either way they are checked before they are used, and unpickled
without running any code that the file may hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from relax_quantus import checks
from relax_quantus.decoding import printable
from relax_quantus.errors import MissingDependencyError, ShapeError, WeightsError

STALLED_S = 30.0
"""Seconds without an answer after which a download is given up."""
FETCH_ANEW = "delete it, and it will be fetched anew"
RIGHT_FILE = "pass the right file, its own sha256=, or rename it if what follows the hyphen is no hash"
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


class VGGish(nn.Module):
    """torchvggish's VGGish up to its embedding, with the same state-dict keys, its weights not yet loaded.

    The layers are torchvggish's own. Their ReLUs are made to work out of place, because Captum's hooks (DeepLift, LRP, guided backpropagation)
    fail on in-place ones.
    """

    embedding_size = 128
    frozen_in_fine_tuning = ("features",)
    """What `EmbeddingClassifier.fit` leaves as it is by default when it fine-tunes: the convolutions."""

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
        return torch.as_tensor(self.embeddings(features))


def load_vggish(weights: str | os.PathLike[str] | None = None, sha256: str | None = None) -> VGGish:
    """Load VGGish in eval mode.

    Parameters
    ----------
    weights
        A file holding torchvggish's state dict; None takes the one in torch.hub's cache, or fetches it there.
    sha256
        The file's SHA-256, 64 hexadecimal digits. Without it the file is checked against the hash in its name (``vggish-10086976.pth``); a file
        of the user's whose name holds none is checked for shape only.

    Returns
    -------
    VGGish
        ``(n, 1, 96, 64) -> (n, 128)``, float32, on the CPU.

    Raises
    ------
    WeightsError
        If the file is missing and cannot be fetched, has another hash, is not a plain state dict, or is one of another network.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", str(sha256)):
        checks.refuse("sha256", "64 hexadecimal digits", repr(sha256), "pass the whole SHA-256 of the file")
    path = _in_hub() if weights is None else Path(weights).expanduser()
    if weights is not None and not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        checks.refuse(f"weights={printable(str(path))}", "a file of weights", got, "check the path", WeightsError)
    _verify(path, sha256, FETCH_ANEW if weights is None else RIGHT_FILE)
    state = _read_state_dict(path)
    with torch.device("meta"):
        model = VGGish()
    _require_same_layout(path, state, model.state_dict())
    model.load_state_dict(
        {key: value.to("cpu", torch.float32).contiguous() for key, value in state.items()}, assign=True
    )
    return model.eval()


def weights_url() -> str:
    """Where the installed torchvggish fetches its weights."""
    return str(_torchvggish().VGGISH_WEIGHTS)


def _torchvggish() -> ModuleType:
    """Run torchvggish's network module on its own: importing the package takes resampy and numba along, which the network does not need."""
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
            "encoder 'vggish': expected torchvggish, got no such package; run pip install torchvggish."
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
    found = _HASH_IN_NAME.search(path.name)
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
    """Give sockets a time limit unless the program has set one: torch.hub sets none and would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED_S if before is None else before)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _verify(path: Path, sha256: str | None, remedy: str) -> None:
    """Compare the file's SHA-256 with `sha256` or, without it, with the prefix in the file's name."""
    in_name = _HASH_IN_NAME.search(path.name)
    expected = sha256.lower() if sha256 else in_name.group(1) if in_name else ""
    if not expected:
        return
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"{printable(str(path))}: expected a readable file, got {error.strerror}; change its permissions."
        ) from error
    if not found.startswith(expected):
        source = "" if sha256 else " (from its name)"
        checks.refuse(printable(str(path)), f"SHA-256 {expected}{source}", found, remedy, WeightsError)


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    """Unpickle tensors and nothing else."""
    expected, remedy = (
        "a state dict that torch.load reads with weights_only=True",
        "save model.state_dict() with torch.save",
    )
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle can raise anything
        reason = f"a file it refuses ({type(error).__name__})"
        raise WeightsError(checks.message(printable(str(path)), expected, reason, remedy)) from error
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        checks.refuse(printable(str(path)), expected, f"a {type(state).__name__} of other things", remedy, WeightsError)
    return state


def _require_same_layout(path: Path, state: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Refuse a state dict whose names or shapes differ from the network's, naming the first that does."""
    for key in [*wanted, *state]:
        expected = tuple(wanted[key].shape) if key in wanted else "nothing"
        got = tuple(state[key].shape) if key in state else "nothing"
        if expected != got:
            checks.refuse(
                printable(str(path)),
                f"torchvggish's weights, {key} of shape {expected}",
                str(got),
                "pass a VGGish state dict",
                WeightsError,
            )
