"""Run networks from files: how their input lies, which tensors leave, what must be said.

The tensors that a file describes and the settings of ``--encoder FILE:output=..,rate=..,window=..``
enter; a `FileNetwork` with the whole contract leaves. The runtimes stand in modules beside this
one.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.checks import printable, shown
from relax_quantus.encoders.contract import EMBEDDING, LOGITS, WAVEFORM, WaveformNetwork, weights_digest
from relax_quantus.encoders.weights_file import RIGHT_FILE, check_sha256, existing, verify
from relax_quantus.errors import EncoderError, ShapeError, UnknownNameError, WeightsError

ANY = "any"
POOLS = ("mean", "max")
_EMBEDDINGS = ("embedding", "embeddings")
_LONGEST_LABELS = 2**24
"""Bytes of a file of labels at most."""


@dataclass(frozen=True)
class TensorNote:
    """A tensor that goes in, comes out or could come out.

    Attributes
    ----------
    name, index
        What ``output=`` takes.
    shape
        None where an axis is free; None altogether where the file does not say.
    dtype
        ``"float32"`` and the like.
    """

    name: str
    index: int
    shape: tuple[int | None, ...] | None
    dtype: str = "float32"

    def __str__(self) -> str:
        if self.shape is None:
            return f"{printable(self.name)} (shape not said)"
        axes = ", ".join("n" if axis is None else str(axis) for axis in self.shape)
        return f"{printable(self.name)} ({axes}) {self.dtype}"


@dataclass(frozen=True)
class FileSettings:
    """Hold what the user says of a file, and the file may not.

    Attributes
    ----------
    output, logits
        Name or index of the tensor to be used as embedding, and as class scores.
    rate
        Sample rate in Hz.
    window
        Length of an example in seconds; ``"any"`` for a network of any length.
    labels
        A text file with the name of a class in each line, or the names.
    pool
        ``"mean"`` or ``"max"`` over all axes but the first and the last, for an output of frames.
    batch
        The most rows that are run at once.
    rows
        Rows that the network takes, exactly, where the file does not say.
    front_end
        What makes the network's input from a waveform, for a network that takes a spectrogram.
    """

    output: str | int | None = None
    logits: str | int | None = None
    rate: int | None = None
    window: float | str | None = None
    labels: str | os.PathLike[str] | Sequence[str] | None = None
    pool: str | None = None
    batch: int | None = None
    rows: int | None = None
    front_end: Any = None

    def __post_init__(self) -> None:
        if self.pool is not None and self.pool not in POOLS:
            checks.refuse("pool", "'mean' or 'max'", repr(self.pool), "pick one")
        if self.rate is not None:
            checks.integer("rate", self.rate)
        if self.window is not None and self.window != ANY:
            checks.positive("window", self.window)


class FileNetwork(WaveformNetwork):
    """A network from a file. A subclass writes `tensors`, which runs it.

    Parameters
    ----------
    path
        The file, for messages.
    taken
        What goes in.
    chosen
        ``{"embedding": tensor, "logits": tensor}``, or one of the two.
    settings
        What the user said.
    facts
        Facts that the file says itself: ``sample_rate_hz``, ``example_samples``, ``labels``,
        ``fixed_batch``.
    digest
        SHA-256 of the file.
    """

    def __init__(
        self,
        path: Path,
        taken: TensorNote,
        chosen: Mapping[str, TensorNote],
        settings: FileSettings,
        facts: Mapping[str, Any],
        digest: str,
    ) -> None:
        self.layout = InputLayout.of(path, taken, settings.front_end)
        if settings.rows is not None and self.layout.rows not in (None, settings.rows):
            checks.refuse("rows", f"{self.layout.rows}, as {shown(path)} says", repr(settings.rows), "leave it out")
        samples = self.layout.samples
        if taken.shape is None:
            samples = facts.get("example_samples")
        rate = _rate(path, settings, facts.get("sample_rate_hz"))
        said = samples is not None or (taken.shape is not None and samples is None) or "example_samples" in facts
        super().__init__(
            sample_rate_hz=rate,
            example_samples=_window(path, settings, rate, samples, said or self.layout.front_end != WAVEFORM),
            input=self.layout.front_end,
            fixed_batch=self.layout.rows or settings.rows or facts.get("fixed_batch"),
            max_batch=settings.batch,
            labels=facts.get("labels", ()) if LOGITS in chosen else (),
            output_names=tuple(name for name in (EMBEDDING, LOGITS) if name in chosen),
        )
        self.path, self.digest, self.pool = path, digest, settings.pool
        self.chosen = dict(chosen)
        self._file_weights = ""
        self.eval()

    @abstractmethod
    def tensors(self, x: Tensor, wanted: Sequence[TensorNote]) -> list[Tensor]:
        """Run the network once on an input laid out as it wants; return the tensors `wanted`."""

    def run(self, block: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Run a block, row by row where the network's input has no axis for the batch."""
        wanted = [self.chosen[name] for name in names]
        x = self.layout.put(block)
        if not self.layout.has_batch:
            rows = [[part[None] for part in self.tensors(row, wanted)] for row in x]
            found = [torch.cat([row[k] for row in rows]) for k in range(len(wanted))]
        else:
            found = self.tensors(x, wanted)
        return {name: self._flat(name, part, len(block)) for name, part in zip(names, found, strict=True)}

    def _flat(self, name: str, found: Tensor, rows: int) -> Tensor:
        """Bring an output to ``(n, D)``: axes of length 1 go, frames are pooled if asked for."""
        if found.ndim and len(found) == rows:
            kept = [axis for axis in found.shape[1:] if axis != 1]
            found = found.reshape(rows, *(kept or [1]))
            if found.ndim > 2 and self.pool is not None:
                middle = tuple(range(1, found.ndim - 1))
                found = found.mean(middle) if self.pool == "mean" else found.amax(middle)
        if found.ndim != 2 or len(found) != rows:
            rule = f"{name} of shape ({rows}, D) from {printable(self.chosen[name].name)}"
            remedy = "pool=mean or pool=max pools frames (n, frames, D), or name another output"
            checks.refuse("output", rule, found, remedy, EncoderError)
        return found

    def fingerprint(self) -> str:
        """Digest the file, what was chosen of it, and weights that were changed since."""
        first = self.chosen[self.output_names[0]].name
        weights = weights_digest(self)
        changed = "" if weights == self._file_weights else weights
        facts = (self.digest, first, self.pool, self.sample_rate_hz, self.example_samples, changed)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _kind(self) -> str:
        return shown(self.path.name)


@dataclass(frozen=True)
class InputLayout:
    """Describe an input: rows and samples (None: any), axes, and the front end that it wants."""

    rows: int | None
    samples: int | None
    shape: tuple[int | None, ...]
    front_end: Any = WAVEFORM

    @property
    def has_batch(self) -> bool:
        """Return whether the first axis counts examples."""
        return len(self.shape) != 1

    @classmethod
    def of(cls, path: Path, taken: TensorNote, front_end: Any) -> InputLayout:
        """Read it from the shape of the input; a spectrogram needs its front end named."""
        shape = (None, None) if taken.shape is None else taken.shape
        if front_end is not None and front_end != WAVEFORM:
            return cls(shape[0] if shape else None, None, shape, front_end)
        if len(shape) == 1:
            return cls(None, shape[0], shape)
        if len(shape) == 2:
            return cls(shape[0], shape[1], shape)
        if len(shape) == 3 and 1 in shape[1:]:
            return cls(shape[0], shape[2] if shape[1] == 1 else shape[1], shape)
        rule = f"waveforms (n, samples) as the input of {shown(path)}, or the front end that makes it"
        remedy = "name it, front_end= or --front-end"
        checks.refuse("front_end", rule, f"{taken} alone", remedy, ShapeError)

    def put(self, block: Tensor) -> Tensor:
        """Add or take away axes of length 1, as the network wants them; nothing is transposed."""
        if self.front_end == WAVEFORM:
            if len(self.shape) == 3:
                return block[:, None] if self.shape[1] == 1 else block[..., None]
            return block
        kept = [axis for axis in block.shape[1:] if axis != 1]
        long = [axis for axis in self.shape[1:] if axis != 1]
        if len(kept) != len(long) or any(want not in (None, have) for want, have in zip(long, kept, strict=True)):
            wanted = ", ".join("n" if axis is None else str(axis) for axis in self.shape)
            checks.refuse(
                "x", f"examples of ({wanted})", block, "give it the front end that it was trained on", ShapeError
            )
        sizes = iter(kept)
        return block.reshape(len(block), *(1 if axis == 1 else next(sizes) for axis in self.shape[1:]))


def open_file(path: str | os.PathLike[str], sha256: str | None) -> tuple[Path, str]:
    """Return the path of a file that is there, and its SHA-256, compared with `sha256` if given."""
    check_sha256(sha256)
    found = existing(path)
    verify(found, sha256, RIGHT_FILE)
    try:
        with open(found, "rb") as file:
            return found, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        text = checks.message(shown(found), "a readable file", str(error.strerror), "change its permissions")
        raise WeightsError(text) from error


def read_labels(labels: str | os.PathLike[str] | Sequence[str] | None) -> tuple[str, ...]:
    """Read the names of classes, one a line, or take them as they are."""
    if labels is None:
        return ()
    if not isinstance(labels, str | os.PathLike):
        return tuple(map(str, labels))
    path = existing(labels)
    if path.stat().st_size > _LONGEST_LABELS:
        checks.refuse("labels", "a text file", f"{path.stat().st_size} bytes", "one name a line", WeightsError)
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        text = checks.message("labels", "a text file in UTF-8", shown(path), "one name a line")
        raise WeightsError(text) from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def refuse_other_than_one_float(path: Path, taken: Sequence[TensorNote]) -> TensorNote:
    """Return the one input of floats; refuse a network that wants more, by what it wants."""
    if len(taken) != 1:
        rule = f"one input, a waveform, in {shown(path)}"
        got = f"{len(taken)}: {'; '.join(map(str, taken))}"
        checks.refuse("encoder", rule, got, "wrap it in a module of yours that keeps the rest", EncoderError)
    if taken[0].dtype != "float32":
        rule = f"an input of float32 in {shown(path)}"
        checks.refuse("encoder", rule, str(taken[0]), "export the network without quantised input", EncoderError)
    return taken[0]


def choose_outputs(
    path: Path, given: Sequence[TensorNote], inner: Sequence[TensorNote], settings: FileSettings, labels: Sequence[str]
) -> dict[str, TensorNote]:
    """Choose embedding and class scores by settings, names and labels, in this order.

    Parameters
    ----------
    path
        The file, for messages.
    given, inner
        The file's outputs, and tensors inside of it that could be.
    settings, labels
        What the user said, and the names of the classes.

    Raises
    ------
    UnknownNameError
        If no tensor has that name or index.
    ArgumentError
        If the file has several outputs and nothing says which is which.
    EncoderError
        If what is chosen is no tensor of floats.
    """
    chosen: dict[str, TensorNote] = {}
    for name, wanted in ((EMBEDDING, settings.output), (LOGITS, settings.logits)):
        if wanted is not None:
            chosen[name] = _find(path, "output" if name == EMBEDDING else "logits", wanted, given, inner)
    named = {tensor.name.rpartition("/")[2].partition(":")[0].lower(): tensor for tensor in given}
    if LOGITS not in chosen and LOGITS in named:
        chosen[LOGITS] = named[LOGITS]
    if LOGITS not in chosen and labels:
        fitting = [t for t in given if t.shape and t.shape[-1] == len(labels) and t != chosen.get(EMBEDDING)]
        if len(fitting) != 1:
            rule = f"one output of {len(labels)} classes, as many as labels, in {shown(path)}"
            got = "; ".join(map(str, given))
            checks.refuse("logits", rule, got, "name it, logits=NAME_OR_INDEX, or pass its labels")
        chosen[LOGITS] = fitting[0]
    if EMBEDDING not in chosen:
        rest = [tensor for tensor in given if tensor != chosen.get(LOGITS)]
        known = [named[name] for name in _EMBEDDINGS if name in named]
        if known or len(rest) == 1:
            chosen[EMBEDDING] = known[0] if known else rest[0]
        elif not chosen:
            got = f"{len(rest)}: {'; '.join(map(str, rest))}"
            checks.refuse("output", f"one output in {shown(path)}", got, "pick one, output=NAME_OR_INDEX")
    for name, tensor in chosen.items():
        if tensor.dtype != "float32":
            rule = f"{name} of float32 in {shown(path)}"
            checks.refuse("output", rule, str(tensor), "name another, output=NAME_OR_INDEX", EncoderError)
    return chosen


def _find(
    path: Path, argument: str, wanted: str | int, given: Sequence[TensorNote], inner: Sequence[TensorNote]
) -> TensorNote:
    everything = (*given, *inner)
    for tensor in everything:
        if wanted == (tensor.index if isinstance(wanted, int) else tensor.name):
            return tensor
    # a name may be a number
    by_name = [tensor for tensor in everything if tensor.name == str(wanted)]
    if by_name:
        return by_name[0]
    close = difflib.get_close_matches(str(wanted), [tensor.name for tensor in everything], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    hint += f"its outputs are {', '.join(f'{t.index} {t.name!r}' for t in given)}; relax-quantus inspect lists the rest"
    rule = f"the name or index of a tensor in {shown(path)}"
    checks.refuse(argument, rule, printable(repr(wanted)), printable(hint), UnknownNameError)


def _rate(path: Path, settings: FileSettings, said: int | None) -> int:
    if said is not None and settings.rate not in (None, said):
        checks.refuse("rate", f"{said}, as {shown(path)} says", repr(settings.rate), "leave it out")
    rate = settings.rate if said is None else said
    for name in ("sample_rate_hz", "rate_hz"):
        rate = getattr(settings.front_end, name, None) if rate is None else rate
    if rate is None:
        checks.refuse(
            "rate", f"the sample rate of {shown(path)} in Hz", "nothing", "the file does not say it: pass rate="
        )
    return int(rate)


def _window(path: Path, settings: FileSettings, rate: int, samples: int | None, said: bool) -> int | None:
    """Samples of an example, which the file or the user must have said."""
    if settings.window is None:
        if not said:
            rule = f"the length of an example of {shown(path)} in seconds"
            checks.refuse("window", rule, "nothing", f"the file does not say it: pass window=, or window={ANY}")
        return samples
    wanted = None if settings.window == ANY else round(float(settings.window) * rate)
    if samples is not None and wanted != samples:
        rule = f"{samples / rate:g} s ({samples} samples), as {shown(path)} says"
        checks.refuse("window", rule, repr(settings.window), "leave it out")
    return wanted
