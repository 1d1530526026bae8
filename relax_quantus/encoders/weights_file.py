"""Read files of weights: a path enters, a checked state dict or a module that holds it leaves.

Stands before the encoders that take weights of the user's. Nothing in a file is run: safetensors,
or a pickle of tensors alone (``torch.load(weights_only=True)``). The SHA-256 is compared before the
file is read, names and shapes before a module takes them.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from relax_quantus.base import checks
from relax_quantus.base.checks import printable
from relax_quantus.errors import WeightsError

RIGHT_FILE = "pass the right file, its own sha256=, or rename it if what follows the hyphen is no hash"
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")
M = TypeVar("M", bound=nn.Module)


def check_sha256(sha256: str | None) -> None:
    """Refuse what is neither None nor 64 hexadecimal digits."""
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", str(sha256)):
        checks.refuse("sha256", "64 hexadecimal digits", repr(sha256), "pass the whole SHA-256 of the file")


def existing(weights: str | os.PathLike[str]) -> Path:
    """Return the path of a file of weights that is there."""
    path = Path(weights).expanduser()
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        checks.refuse(f"weights={printable(str(path))}", "a file of weights", got, "check the path", WeightsError)
    return path


def load_weights(
    model: M,
    weights: str | os.PathLike[str],
    sha256: str | None,
    whose: str,
    remedy: str,
    ignored: tuple[str, ...] = (),
) -> M:
    """Put the weights of a file into `model`, float32 on the CPU.

    Parameters
    ----------
    model
        Built as it will be used; it may be on the meta device.
    weights, sha256
        The file, and its SHA-256; without it, the hash in the file's name counts if it has one.
    whose, remedy
        What is expected and what to do, for messages.
    ignored
        Beginnings of names that `model` does without.

    Raises
    ------
    WeightsError
        If the file is missing, has another hash, is not a plain state dict, or is one of another
        network.
    """
    check_sha256(sha256)
    path = existing(weights)
    verify(path, sha256, RIGHT_FILE)
    wanted = model.state_dict()
    state = {present_name(k, wanted): v for k, v in read_state_dict(path).items() if not k.startswith(ignored)}
    require_same_layout(path, state, wanted, whose, remedy)
    return assign(model, state)


def present_name(key: str, wanted: dict[str, Tensor]) -> str:
    """Return what a weight-normalised weight, saved by a torch before 2.1, is called today.

    Other names are left as they are.
    """
    stem, _, kind = key.rpartition(".")
    renamed = {"weight_g": "original0", "weight_v": "original1"}.get(kind)
    today = f"{stem}.parametrizations.weight.{renamed}"
    return today if renamed and key not in wanted and today in wanted else key


def verify(path: Path, sha256: str | None, remedy: str) -> None:
    """Compare the file's SHA-256 with `sha256`.

    Without it, with the prefix in the file's name.
    """
    in_name = HASH_IN_NAME.search(path.name)
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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors and nothing else: safetensors by its suffix, else a pickle of tensors."""
    expected, remedy = (
        "a state dict that torch.load reads with weights_only=True",
        "save model.state_dict() with torch.save",
    )
    safe = path.suffix == ".safetensors"
    if safe:
        expected, remedy = "a safetensors file", "save model.state_dict() with safetensors.torch.save_file"
    try:
        state: Any = _safetensors(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can raise anything
        reason = f"a file it refuses ({type(error).__name__})"
        raise WeightsError(checks.message(printable(str(path)), expected, reason, remedy)) from error
    if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
        checks.refuse(printable(str(path)), expected, f"a {type(state).__name__} of other things", remedy, WeightsError)
    return state


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def require_same_layout(
    path: Path, state: dict[str, Tensor], wanted: dict[str, Tensor], whose: str, remedy: str
) -> None:
    """Refuse a state dict whose names or shapes differ from the network's.

    The first that does is named.
    """
    for key in [*wanted, *state]:
        expected = tuple(wanted[key].shape) if key in wanted else "nothing"
        got = tuple(state[key].shape) if key in state else "nothing"
        if expected != got:
            checks.refuse(printable(str(path)), f"{whose}, {key} of shape {expected}", str(got), remedy, WeightsError)


def assign(model: M, state: dict[str, Tensor]) -> M:
    """Give `model` the tensors of `state`, floating ones as float32, on the CPU."""
    model.load_state_dict(
        {k: v.to("cpu", torch.float32 if v.is_floating_point() else v.dtype).contiguous() for k, v in state.items()},
        assign=True,
    )
    return model
