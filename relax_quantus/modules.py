"""Running other people's modules without leaving a trace: eval mode, the type and place of weights, a fingerprint.

Any callable enters; nothing about it has changed when it leaves. Used wherever the package runs an encoder or model
that it was given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from relax_quantus.checks import describe, refuse
from relax_quantus.errors import ArgumentTypeError, EncoderError

MICRO_BATCH = 64
_LOOK = "check its weights and that its input is what it was trained on"


@contextmanager
def evaluation_mode(module: object) -> Iterator[None]:
    """Put `module` into eval mode and give every submodule its own flag back afterwards; callables are left alone."""
    parts = list(module.modules()) if isinstance(module, nn.Module) else []
    flags = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, flag in zip(parts, flags, strict=True):
            part.training = flag


def like_weights(x: Tensor, module: object) -> Tensor:
    """Return `x` on the device and in the floating type of `module`'s first weight; without one, `x` as floats."""
    if isinstance(module, nn.Module):
        for weight in (*module.parameters(), *module.buffers()):
            if weight.is_floating_point():
                return x.to(weight)
    return x if x.is_floating_point() else x.float()


def fingerprint(encoder: object) -> str:
    """SHA-256 over the encoder's weights in order, shapes and types included, names not; "" for what is not a module.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> fingerprint(layer) == fingerprint(nn.Sequential(layer)), fingerprint(abs)
    (True, '')
    """
    if not isinstance(encoder, nn.Module):
        return ""
    digest = hashlib.sha256()
    for value in encoder.state_dict().values():
        if isinstance(value, Tensor):
            digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def embed_all(encoder: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Embed `x` 64 examples at a time, in eval mode, without gradients; check what comes back."""
    if not callable(encoder):
        refuse("encoder", "a callable (n, 1, 96, 64) -> (n, D)", encoder, "pass the encoder itself", ArgumentTypeError)
    parts = []
    with torch.no_grad(), evaluation_mode(encoder):
        for chunk in torch.split(x.detach(), MICRO_BATCH):
            h = encoder(like_weights(chunk, encoder))
            if not isinstance(h, Tensor) or h.ndim != 2 or len(h) != len(chunk) or h.shape[1] == 0:
                refuse(
                    "encoder", f"embeddings of shape ({len(chunk)}, D)", h, "flatten or pool its output", EncoderError
                )
            if not bool(torch.isfinite(h).all()):
                refuse("encoder", "finite embeddings", f"NaN or infinite entries in {describe(h)}", _LOOK, EncoderError)
            parts.append(h)
    embedded = torch.cat(parts)
    if not bool(embedded.any()):
        refuse("encoder", "embeddings that are not zero", f"zeros only in {describe(embedded)}", _LOOK, EncoderError)
    if bool((embedded == embedded[0]).all()):
        refuse("encoder", "embeddings that differ between examples", "the same one for all", _LOOK, EncoderError)
    return embedded
