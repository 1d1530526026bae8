"""``--encoder``, ``--weights``, ``--sha256`` and ``--front-end`` -> an encoder and the front end that it takes its examples from.

What `explain`, `fit` and `bench` share: the texts of the options enter, two loaded objects that fit together leave.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relax_quantus.base import checks
from relax_quantus.base.specifications import FORM, parse, user_object
from relax_quantus.base.text import one_line
from relax_quantus.encoders import ENCODERS, load_encoder
from relax_quantus.encoders.waveform import WaveformEncoder
from relax_quantus.encoders.weights_file import load_weights
from relax_quantus.errors import ArgumentError, ArgumentTypeError, WeightsError
from relax_quantus.frontend import front_end as front_ends
from relax_quantus.frontend.front_end import FrontEnd

ENCODER, WEIGHTS, FRONT_END = "--encoder", "--weights", front_ends.OPTION
OWN = "the encoder's own"


def load(
    encoder: str, weights: Path | None = None, sha256: str | None = None, front_end: str | None = None
) -> tuple[FrontEnd, nn.Module]:
    """Load an encoder, in eval mode, and its front end.

    Parameters
    ----------
    encoder
        A name with settings, ``name:key=value,...``, or the user's own, ``module:attribute`` or ``file.py:name``.
    weights, sha256
        A file of its weights, and the digest that the file must have.
    front_end
        The same for a front end. None gives an encoder of waveforms the waveform, a pair its own, and any other log-mel.

    Raises
    ------
    RelaxQuantusError
        If a name, file or setting cannot work, or the two do not go together.
    """
    if sha256 is not None and weights is None:
        checks.refuse("--sha256", "a file to check, --weights FILE", "none", "name it, or leave --sha256 out")
    chosen = None if front_end is None else _front_end(front_end)
    spec = parse(ENCODER, encoder)
    brought: Any = None
    if spec.target is not None and spec.target[0] in ENCODERS:
        checks.refuse(ENCODER, f"{FORM}, or module:attribute", repr(spec.text), "settings are key=value")
    if spec.target is not None:
        brought, network = _users(spec.text, spec.target, weights, sha256)
    else:
        network = _registered(spec.name, spec.settings, weights, sha256)
    if brought is not None:
        if chosen is not None:
            rule = f"none beside {spec.text}, which brings its own"
            checks.refuse(FRONT_END, rule, repr(front_end), "leave it out")
        chosen = front_ends.of_object(OWN, brought)
    if chosen is None:
        chosen = front_ends.waveform() if isinstance(network, WaveformEncoder) else front_ends.log_mel()
    if isinstance(network, WaveformEncoder) and not chosen.of_waveforms:
        rule = f"{front_ends.WAVEFORM} with {encoder}, an encoder of waveforms"
        checks.refuse(FRONT_END, rule, repr(chosen.text), "leave it out")
    if spec.target is None and chosen.of_waveforms and not isinstance(network, WaveformEncoder):
        rule = f"spectrograms for {encoder}"
        checks.refuse(FRONT_END, rule, repr(chosen.text), "leave it out, or name an encoder of waveforms")
    network.eval()
    if chosen.text != front_ends.LOG_MEL:
        _try(network, chosen, encoder)
    return chosen, network


@torch.no_grad()
def _try(encoder: nn.Module, front_end: FrontEnd, name: str) -> None:
    """Run an encoder on one silent example, so that shapes that do not fit are one error and not one a recording."""
    x = front_end.silent_example()
    try:
        encoder(x)
    except Exception as error:  # of whatever runtime it calls
        rule = f"an encoder of examples {tuple(x.shape)}, as {front_end.text} makes them"
        got = one_line(f"{name}, which says: {error}")
        raise ArgumentError(checks.message(ENCODER, rule, got, f"change it or {FRONT_END}")) from error


def _front_end(text: str) -> FrontEnd:
    spec = parse(FRONT_END, text)
    if spec.target is None:
        return front_ends.build(spec)
    if spec.target[0] in front_ends.NAMES:
        checks.refuse(FRONT_END, f"{FORM}, or module:attribute", repr(text), "settings are key=value")
    return front_ends.of_object(spec.text, user_object(FRONT_END, spec.target))


def _registered(name: str, settings: dict[str, Any], weights: Path | None, sha256: str | None) -> nn.Module:
    """An encoder by its name."""
    for key in ("weights", "sha256"):
        if key in settings:
            checks.refuse(ENCODER, "settings of the network", f"{key}=", f"use --{key}")
    if weights is not None and name in ENCODERS:
        if "weights" not in inspect.signature(ENCODERS.factory(name)).parameters:
            checks.refuse(WEIGHTS, f"none with {name}, which brings its own", str(weights), "leave it out")
        settings = {**settings, "weights": weights, "sha256": sha256}
    return load_encoder(name, **settings)


def _users(text: str, target: tuple[str, str], weights: Path | None, sha256: str | None) -> tuple[Any, nn.Module]:
    """The user's own encoder, and the front end that it comes with, or None."""
    front_end, encoder = None, user_object(ENCODER, target)
    if isinstance(encoder, tuple):
        if len(encoder) != 2:
            checks.refuse(ENCODER, f"an encoder, or a front end and an encoder, from {text}", f"{len(encoder)} things")
        front_end, encoder = encoder
    if not isinstance(encoder, nn.Module):
        got, remedy = f"a {type(encoder).__name__}", "return a module"
        checks.refuse(ENCODER, f"a torch.nn.Module from {text}", got, remedy, ArgumentTypeError)
    if weights is not None:
        remedy = "save encoder.state_dict() of this very network"
        load_weights(encoder, weights, sha256, f"the weights of {text}", remedy)
    if not isinstance(encoder, WaveformEncoder) and callable(getattr(encoder, "extract_features", None)):
        encoder = WaveformEncoder(encoder)
    return front_end, encoder


def refuse_other_front_end(head: Path, made_with: dict[str, str], front_end: FrontEnd) -> str | None:
    """Compare what a classifier's file says of its front end with the one in use; return a warning where only the user can know.

    Raises
    ------
    WeightsError
        If they are different ones of ours.
    """
    wanted = made_with.get("front_end", front_end.text)
    if wanted == front_end.text:
        return None
    text = checks.message(f"{head}", f"the front end it was fitted with, {wanted}", front_end.text)
    ours = [not (t == OWN or parse(FRONT_END, t).target) for t in (wanted, front_end.text)]
    if all(ours):
        raise WeightsError(f"{text[:-1]}; pass {FRONT_END} {wanted}.")
    return text
