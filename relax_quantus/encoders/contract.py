"""The contract for networks that hear: what a network says of itself, so that nothing is guessed.

Waveforms ``(n, samples)`` enter (or the examples of the front end that the network wants),
embeddings ``(n, D)`` and class scores ``(n, classes)`` leave. `WaveformNetwork` is the base class
of those that this package loads; `as_network` wraps a module or callable of the user's, whose
attributes are read. Both run a batch in blocks that the network can take.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from relax_quantus.base import checks
from relax_quantus.base.identity import identity
from relax_quantus.base.networks import fingerprint as fingerprint_of
from relax_quantus.base.networks import like_weights
from relax_quantus.base.registry import nearest
from relax_quantus.errors import ArgumentTypeError, EncoderError, ShapeError

WAVEFORM = "waveform"
EMBEDDING, LOGITS = "embedding", "logits"
OUTPUT_NAMES = (EMBEDDING, LOGITS)
_ABSENT: Any = object()


@runtime_checkable
class HearingNetwork(Protocol):
    """Say what the package asks of a network that hears; `WaveformNetwork` explains each member."""

    sample_rate_hz: int
    example_samples: int | None
    input: Any
    fixed_batch: int | None
    max_batch: int | None
    labels: tuple[str, ...]
    output_names: tuple[str, ...]

    def __call__(self, waveform: Tensor) -> Tensor:
        """Embed ``(n, samples) -> (n, D)``."""
        ...

    def logits(self, waveform: Tensor) -> Tensor:
        """Return the class scores ``(n, classes)`` before any sigmoid or softmax."""
        ...

    def outputs(self, waveform: Tensor, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return several outputs of one run."""
        ...

    def fingerprint(self) -> str:
        """Digest what tells the network from others."""
        ...


class WaveformNetwork(nn.Module):
    """Run a network of waveforms in the blocks that it can take. A subclass writes `run`.

    Parameters
    ----------
    sample_rate_hz
        Rate of the waveforms that the network takes.
    example_samples
        Samples of one example; None for a network of any length.
    input
        ``"waveform"``, or the front end (its name or the object) that makes what the network takes
        from a waveform.
    fixed_batch
        Rows that the network takes, exactly: the last block is filled with its own last row and
        cut. None for any number.
    max_batch
        The most rows that are handed over at once; None sets no limit.
    labels
        Names of the classes, or none.
    output_names
        What it gives: ``("embedding",)``, ``("logits",)`` or both. A network of class scores alone
        is explained by them, and a warning says so once.
    range_hz
        Lowest and highest frequency that reaches the network; None takes 0 to half the rate.

    Examples
    --------
    >>> import torch
    >>> class Loudness(WaveformNetwork):
    ...     def run(self, block, names):
    ...         return {"embedding": torch.stack([block.abs().mean(1), block.abs().amax(1)], 1)}
    >>> net = Loudness(sample_rate_hz=16_000, example_samples=4, max_batch=2)
    >>> net(torch.ones(3, 4)).shape, net.range_hz
    (torch.Size([3, 2]), (0.0, 8000.0))
    """

    def __init__(
        self,
        *,
        sample_rate_hz: int,
        example_samples: int | None,
        input: Any = WAVEFORM,
        fixed_batch: int | None = None,
        max_batch: int | None = None,
        labels: Iterable[str] = (),
        output_names: Iterable[str] = (EMBEDDING,),
        range_hz: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.sample_rate_hz = checks.integer("sample_rate_hz", sample_rate_hz)
        self.example_samples = _optional("example_samples", example_samples)
        self.input = input
        self.fixed_batch = _optional("fixed_batch", fixed_batch)
        self.max_batch = _optional("max_batch", max_batch)
        self.labels = _names("labels", labels)
        self.output_names = _names("output_names", output_names)
        if not self.output_names or not set(self.output_names) <= set(OUTPUT_NAMES):
            rule = "'embedding', 'logits' or both"
            checks.refuse("output_names", rule, repr(self.output_names), "name what the network gives")
        if self.labels and LOGITS not in self.output_names:
            got = f"labels and output_names={self.output_names!r}"
            checks.refuse(
                "output_names", "'logits' among them beside labels", got, "say which output scores the classes"
            )
        low, high = (0.0, self.sample_rate_hz / 2) if range_hz is None else (float(edge) for edge in range_hz)
        if not 0 <= low < high <= self.sample_rate_hz / 2:
            rule = f"two frequencies from 0 to {self.sample_rate_hz / 2:g} Hz, the lower first"
            checks.refuse("range_hz", rule, f"({low:g}, {high:g})", "give them in hertz")
        self.range_hz = (low, high)
        self._said = False

    def run(self, block: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Run one block of checked rows, and return the outputs in `names`."""
        raise NotImplementedError(f"{type(self).__name__}.run")

    def outputs(self, waveform: Tensor, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return several outputs of one run over the batch.

        Parameters
        ----------
        waveform
            ``(n, samples)`` or ``(n, 1, samples)``, floating, at `sample_rate_hz`; for a network
            with a front end of its own, that front end's examples.
        names
            Some of `output_names`; None takes all.

        Returns
        -------
        dict
            ``"embedding"``: ``(n, D)``; ``"logits"``: ``(n, classes)``. One forward a block,
            however many names.

        Raises
        ------
        ShapeError
            If the waveform has another shape than the network takes.
        EncoderError
            If what the network returns is no ``(n, D)``, or has another number of classes than
            there are labels.
        """
        names = self.output_names if names is None else tuple(dict.fromkeys(names))
        for name in names:
            if name not in self.output_names:
                rule, hint = f"an output of {self._kind()}", nearest(name, list(self.output_names))
                checks.refuse("names", rule, repr(name), hint)
        x = like_weights(self._checked(waveform), self)
        rows = self.fixed_batch or self.max_batch or len(x)
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for block in torch.split(x, rows):
            found = self.run(self._filled(block), names)
            for name in names:
                parts[name].append(self._checked_output(name, found[name])[: len(block)])
        return {name: part[0] if len(part) == 1 else torch.cat(part) for name, part in parts.items()}

    def forward(self, waveform: Tensor) -> Tensor:
        """Embed ``(n, samples) -> (n, D)``; a network of class scores alone returns those."""
        if EMBEDDING in self.output_names:
            return self.outputs(waveform, (EMBEDDING,))[EMBEDDING]
        if not self._said:
            self._said = True
            warnings.warn(f"{self._kind()} gives class scores alone: it is explained by them.", stacklevel=2)
        return self.outputs(waveform, (LOGITS,))[LOGITS]

    def logits(self, waveform: Tensor) -> Tensor:
        """Return class scores ``(n, classes)`` before any sigmoid or softmax, as in `labels`."""
        if LOGITS not in self.output_names:
            checks.refuse(
                "logits", "a network that scores classes", self._kind(), "ask for its embedding, net(waveform)"
            )
        return self.outputs(waveform, (LOGITS,))[LOGITS]

    def fingerprint(self) -> str:
        """Digest weights (or code), rate and window; "" where a network cannot be told apart.

        Labels and sizes of batches are not part of it, as they do not change an embedding.
        """
        code = weights_digest(self) or identity(self)
        facts = f"{self.sample_rate_hz} {self.example_samples} {code}"
        return hashlib.sha256(facts.encode()).hexdigest() if code else ""

    def extra_repr(self) -> str:
        """Show rate, window and outputs."""
        window = "any length" if self.example_samples is None else f"{self.example_samples} samples"
        return f"{self.sample_rate_hz} Hz, {window}, {' and '.join(self.output_names)}, {len(self.labels)} labels"

    def _kind(self) -> str:
        return type(self).__name__

    def _checked(self, x: Tensor) -> Tensor:
        """Return waveforms as ``(n, samples)``, examples of another front end as they are."""
        x = checks.tensor("waveform", x)
        if not x.is_floating_point():
            checks.refuse("waveform", "floating-point samples", x, "scale them to [-1, 1] first", ArgumentTypeError)
        if x.ndim < 2 or 0 in x.shape:
            checks.refuse("waveform", "at least one row, (n, samples)", x, "add the batch axis", ShapeError)
        if self.input != WAVEFORM:
            return x
        if x.ndim == 3 and x.shape[1] == 1:
            x = x[:, 0]
        wanted = "samples" if self.example_samples is None else self.example_samples
        if x.ndim != 2 or (self.example_samples is not None and x.shape[1] != self.example_samples):
            remedy = f"cut or pad to {wanted} samples at {self.sample_rate_hz} Hz, in mono"
            checks.refuse("waveform", f"waveforms of shape (n, {wanted})", x, remedy, ShapeError)
        return x

    def _filled(self, block: Tensor) -> Tensor:
        """Fill a block up to `fixed_batch` with copies of its last row."""
        missing = (self.fixed_batch or len(block)) - len(block)
        if missing == 0:
            return block
        return torch.cat([block, block[-1:].expand(missing, *block.shape[1:])])

    def _checked_output(self, name: str, found: Any) -> Tensor:
        if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] == 0:
            rule = f"{name} of shape (n, {'classes' if name == LOGITS else 'D'}) from {self._kind()}"
            checks.refuse(name, rule, found, "flatten or pool it", EncoderError)
        if name == LOGITS and self.labels and found.shape[1] != len(self.labels):
            rule = f"as many class scores as labels, {len(self.labels)}"
            checks.refuse(name, rule, found, "pass the labels of this very network", EncoderError)
        return found


class WrappedNetwork(WaveformNetwork):
    """Give a user's module or callable the whole contract; made by `as_network`.

    Parameters
    ----------
    network
        Returns the embedding (or, where `output_names` says so, the class scores). With several
        outputs it has a method ``logits`` or ``outputs(waveform, names)``, or returns a dict by
        name or a tuple in the order of `output_names`.
    facts
        As of `WaveformNetwork`.
    """

    def __init__(self, network: Callable[[Tensor], Any], **facts: Any) -> None:
        super().__init__(**facts)
        self.network = network
        if isinstance(network, nn.Module):
            self.train(network.training)

    def run(self, block: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Run the user's network once, or its two methods once each."""
        several = getattr(self.network, "outputs", None)
        if callable(several):
            return dict(several(block, tuple(names)))
        scores = getattr(self.network, LOGITS, None)
        if callable(scores) and EMBEDDING in self.output_names:
            return {name: scores(block) if name == LOGITS else self.network(block) for name in names}
        found = self.network(block)
        if isinstance(found, Mapping):
            missing = [name for name in names if name not in found]
            if missing:
                rule = f"a dict with {missing[0]!r} from {self._kind()}"
                checks.refuse("outputs", rule, f"one with {', '.join(map(str, found))}", "name it so", EncoderError)
            return found
        if isinstance(found, tuple | list):
            if len(found) != len(self.output_names):
                rule = f"{len(self.output_names)} outputs, {' and '.join(self.output_names)}"
                checks.refuse(
                    "outputs", rule, f"{len(found)}", "name them in output_names, in their order", EncoderError
                )
            return dict(zip(self.output_names, found, strict=True))
        if len(self.output_names) > 1:
            rule = "both outputs: a method logits or outputs, a dict or a tuple"
            checks.refuse("outputs", rule, found, "add one, or name one output in output_names", EncoderError)
        return {self.output_names[0]: found}

    def fingerprint(self) -> str:
        """Digest the user's network (by its own `fingerprint`, if it has one), rate and window."""
        own = getattr(self.network, "fingerprint", None)
        found = str(own()) if callable(own) else fingerprint_of(self.network)
        facts = f"{self.sample_rate_hz} {self.example_samples} {self.output_names[0]} {found}"
        return hashlib.sha256(facts.encode()).hexdigest() if found else ""

    def _kind(self) -> str:
        return getattr(self.network, "__name__", type(self.network).__name__)


FACTS: dict[str, Any] = {
    "sample_rate_hz": _ABSENT,
    "example_samples": _ABSENT,
    "input": WAVEFORM,
    "fixed_batch": None,
    "max_batch": None,
    "labels": (),
    "output_names": (EMBEDDING,),
    "range_hz": None,
}
"""Attributes of the contract, with what is taken where one is missing; two of them must be said."""


def as_network(network: Any, **facts: Any) -> WaveformNetwork:
    """Return `network` as one that keeps the contract; attributes are read, not guessed.

    Parameters
    ----------
    network
        A `WaveformNetwork`, which is returned as it is, or any module or callable.
    **facts
        Attributes of the contract that `network` does not have, or has otherwise.

    Raises
    ------
    ArgumentTypeError
        If it cannot be called, or a fact has an unknown name.
    ArgumentError
        If neither `network` nor `facts` say its rate and window; the message names what is missing.

    Examples
    --------
    >>> import torch
    >>> def power(x):
    ...     return x.square().mean(1, keepdim=True)
    >>> net = as_network(power, sample_rate_hz=8_000, example_samples=None)
    >>> net(torch.ones(2, 100)).shape
    torch.Size([2, 1])
    """
    if isinstance(network, WaveformNetwork) and not facts:
        return network
    if not callable(network):
        checks.refuse(
            "network", "a module or a callable (n, samples) -> (n, D)", network, "pass one", ArgumentTypeError
        )
    for key in facts:
        if key not in FACTS:
            checks.refuse(
                key, "an attribute of the contract", "another name", nearest(key, list(FACTS)), ArgumentTypeError
            )
    said = {key: facts.get(key, getattr(network, key, default)) for key, default in FACTS.items()}
    missing = [key for key, value in said.items() if value is _ABSENT]
    if missing:
        rule = f"{' and '.join(missing)} of {getattr(network, '__name__', type(network).__name__)}"
        remedy = f"set them on it or pass {', '.join(f'{key}=' for key in missing)} (example_samples=None: any length)"
        checks.refuse(missing[0], rule, "no such attribute", remedy)
    scores = facts.get("output_names", getattr(network, "output_names", None)) is None
    if scores and callable(getattr(network, LOGITS, None)):
        said["output_names"] = OUTPUT_NAMES
    return WrappedNetwork(network, **said)


def weights_digest(module: nn.Module) -> str:
    """Digest weights and buffers in order, with shapes and types; "" for a module without any."""
    weights = [value for value in module.state_dict().values() if isinstance(value, Tensor)]
    digest = hashlib.sha256()
    for value in weights:
        digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if weights else ""


def _optional(argument: str, value: int | None) -> int | None:
    return None if value is None else checks.integer(argument, value)


def _names(argument: str, value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        checks.refuse(argument, "a sequence of names", repr(value), f"pass ({value!r},)", ArgumentTypeError)
    return tuple(map(str, value))
