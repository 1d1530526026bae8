"""The encoders of a run: a specification enters, a network in eval mode and the SHA-256 of its weights leave.

``vggish_mini``; ``vggish_mini:weights=PATH`` (weights trained by the user, of the same layers); ``random:of=vggish_mini,seed=1`` (the same network
with random weights: what the architecture alone does); any registered encoder with its settings; ``module:attribute`` or ``file.py:name`` (the
user's own). Encoders of log-mel examples only.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from relax_quantus.base import checks
from relax_quantus.base.registry import nearest
from relax_quantus.base.specifications import Specification, parse, user_object
from relax_quantus.benchmark.methods.questions import fingerprint
from relax_quantus.encoders import ENCODERS, load_encoder
from relax_quantus.encoders.waveform import WaveformEncoder
from relax_quantus.encoders.weights_file import load_weights
from relax_quantus.errors import ArgumentError, ArgumentTypeError, UnknownNameError

ARGUMENT = "encoder"
RANDOM = "random"


def resolve(spec: str) -> tuple[nn.Module, str]:
    """Load an encoder.

    Parameters
    ----------
    spec
        See the module's text.

    Returns
    -------
    encoder : torch.nn.Module
        ``(n, 1, 96, 64) -> (n, D)``, in eval mode; convolutions in channels-last format, about twice as fast on a CPU.
    sha256 : str
        Over its weights.

    Raises
    ------
    UnknownNameError, ArgumentError, ArgumentTypeError
        For an unknown name or setting, with the nearest; for what is no encoder of log-mel examples.
    WeightsError
        If weights are missing or not what they should be.
    """
    encoder = _load(parse(ARGUMENT, spec)).eval()
    if isinstance(encoder, WaveformEncoder):
        remedy = "name another; explain its recordings instead"
        checks.refuse(ARGUMENT, "an encoder of log-mel examples", f"{spec}, which takes waveforms", remedy)
    _try(encoder, spec)
    encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder, fingerprint(encoder)


def known(spec: str) -> None:
    """Refuse a specification whose name is unknown, without loading anything."""
    parsed = parse(ARGUMENT, spec)
    names = [*ENCODERS.names(), RANDOM]
    if parsed.target is None and parsed.name not in names:
        raise UnknownNameError(
            f"{ARGUMENT}: expected the name of an encoder, got {parsed.name!r}; {nearest(parsed.name, names)}."
        )


def _load(spec: Specification) -> nn.Module:
    if spec.target is not None:
        found = user_object(ARGUMENT, spec.target)
        if not isinstance(found, nn.Module):
            got, remedy = f"a {type(found).__name__}", "return a module"
            checks.refuse(ARGUMENT, f"a torch.nn.Module from {spec.text}", got, remedy, ArgumentTypeError)
        return found
    known(spec.text)
    if spec.name == RANDOM:
        return _random(spec)
    settings = dict(spec.settings)
    for key in ("weights", "sha256"):
        if key in settings:
            settings[key] = spec.texts[key]
    if spec.name == "vggish_mini" and "weights" in settings:
        return _mini(settings)
    return load_encoder(spec.name, **settings)


def _mini(settings: dict[str, Any]) -> nn.Module:
    """The bundled network's layers with weights of the user's."""
    _only(settings, ["weights", "sha256"], "vggish_mini")
    remedy = "save the folded network's state_dict(), as benchmarks.train_vggish_mini does"
    encoder = load_encoder("vggish_mini")
    return load_weights(encoder, settings["weights"], settings.get("sha256"), "weights of vggish_mini", remedy)


def _random(spec: Specification) -> nn.Module:
    """A network with weights drawn anew from a seed."""
    _only(spec.settings, ["of", "seed"], RANDOM)
    of, seed = str(spec.settings.get("of", "vggish_mini")), checks.integer("seed", spec.settings.get("seed", 0), low=0)
    if of == RANDOM:
        checks.refuse("of", "the name of an encoder", repr(of), "for example of=vggish_mini")
    return randomised(_load(Specification(of, of)), seed)


def randomised(encoder: nn.Module, seed: int) -> nn.Module:
    """Draw all weights of `encoder` anew, in place, and return it.

    Convolutions and linear layers take He et al.'s normal weights (ICCV 2015) and biases of 0, so that what enters still reaches the embedding
    (torch's own first weights shrink it to the biases); other layers take what they start with. The global generators are left alone.
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


def _only(settings: dict[str, Any], accepted: list[str], whose: str) -> None:
    for key in settings:
        if key not in accepted:
            raise ArgumentError(f"{key}: expected a setting of the encoder {whose!r}; {nearest(key, accepted)}.")


@torch.no_grad()
def _try(encoder: nn.Module, spec: str) -> None:
    """Run an encoder on one example, so that shapes that do not fit are one error."""
    rule, remedy = "an encoder (n, 1, 96, 64) -> (n, D)", "change it"
    try:
        h = encoder(torch.zeros(1, 1, 96, 64))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        said = " ".join(f"{spec}, which says: {error}".split())
        raise ArgumentError(checks.message(ARGUMENT, rule, said, remedy)) from error
    if not isinstance(h, torch.Tensor) or h.ndim != 2 or len(h) != 1:
        checks.refuse(ARGUMENT, rule, h, remedy)
