"""The file of a classifier head: safetensors with JSON strings as metadata, never pickle.

A `SavedHead` enters or leaves: the linear layer, what is known about it, of a fine-tuned encoder
the entries of its state dict that differ from the original's, and of an encoder without weights
what it makes of made-up examples (`Probe`). Version "1" holds no encoder weights, version "2" does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from relax_quantus.base.checks import message, refuse
from relax_quantus.base.files import complete
from relax_quantus.base.networks import callers_torch, evaluation_mode, like_weights, modules_behind, neutral_torch
from relax_quantus.errors import WeightsError
from relax_quantus.heads.fine_tuning import FineTuning
from relax_quantus.heads.logistic import CrossValidation

FORMAT, PLAIN, WITH_ENCODER = "relax_quantus.EmbeddingClassifier", "1", "2"
PREFIX = "encoder."
PROBE = "probe_embedding"
PROBE_SEED = 20110413
ROUNDING = 1e-3
"""Largest distance of two embeddings, as a share of their length, that counts as the same."""
NO_WEIGHTS = hashlib.sha256().hexdigest()
"""Fingerprint that files of version 0.1.0 hold of every module without weights."""


@dataclass(frozen=True)
class Probe:
    """Embeddings of made-up examples, which tell encoders without weights apart.

    Attributes
    ----------
    shape
        Of one example, without the batch axis.
    low, high
        The range of the examples' numbers, which are uniform.
    embedding
        ``(2, D)``.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    embedding: Tensor

    @classmethod
    def of(cls, encoder: Callable[[Tensor], Tensor], x: Tensor) -> Probe | None:
        """Embed two made-up examples in the range of `x` in one forward; None if that fails."""
        low, high, shape = float(x.min()), float(x.max()), tuple(x.shape[1:])
        embedding = _embedded(encoder, _made_up(shape, low, high).to(x.device))
        return None if embedding is None else cls(shape, low, high, embedding)

    def agrees(self, encoder: Callable[[Tensor], Tensor]) -> bool:
        """Tell, by one forward of two examples, whether an encoder embeds them alike.

        Embeddings may differ by rounding.
        """
        h, wanted = _embedded(encoder, _made_up(self.shape, self.low, self.high)), self.embedding.double()
        if h is None or h.shape != wanted.shape:
            return False
        return bool(((h.double() - wanted).norm(dim=1) <= ROUNDING * wanted.norm(dim=1)).all())


def _made_up(shape: tuple[int, ...], low: float, high: float) -> Tensor:
    uniform = np.random.default_rng(PROBE_SEED).random((2, *shape))
    return torch.from_numpy(low + (high - low) * uniform).float()


def _embedded(encoder: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | None:
    """Embed made-up examples on the weights' device and in their type; None if that fails.

    It fails if the encoder raises, or its embeddings are not finite, or one is zero.
    """
    for module in modules_behind(encoder)[:1]:
        x = like_weights(x, module)
    with neutral_torch(), evaluation_mode(encoder):
        try:
            with callers_torch():
                h = encoder(x)
        except Exception:  # another network may say in any way that it does not take them
            return None
    usable = isinstance(h, Tensor) and h.ndim == 2 and len(h) == len(x) and h.is_floating_point()
    return h.detach().cpu().clone() if usable and bool(h.isfinite().all()) and bool(h.any(dim=1).all()) else None


@dataclass(frozen=True)
class SavedHead:
    """All that a file holds.

    Attributes
    ----------
    weight, bias
        ``(classes, D)`` and ``(classes,)``.
    class_names, cross_validation, fine_tuning
        As of the `EmbeddingClassifier`.
    encoder, encoder_sha256
        Kind and fingerprint of the encoder that was given to `EmbeddingClassifier.fit`; "" where
        none could be taken.
    tuned_sha256
        Fingerprint of the fine-tuned encoder; "" if the encoder is used as it was given.
    changed
        Entries of the fine-tuned encoder's state dict that differ from the original's.
    made_with
        As of the `EmbeddingClassifier`.
    probe
        Of an encoder without weights; None where weights and structure tell it from others.
    """

    weight: Tensor
    bias: Tensor
    class_names: list[str]
    cross_validation: CrossValidation
    encoder: str = ""
    encoder_sha256: str = ""
    fine_tuning: FineTuning | None = None
    tuned_sha256: str = ""
    changed: dict[str, Tensor] = field(default_factory=dict)
    made_with: dict[str, str] = field(default_factory=dict)
    probe: Probe | None = None


def write(path: Path, saved: SavedHead) -> None:
    """Write `saved`; an older file is replaced only once the new one is complete."""
    metadata = {
        "format": FORMAT,
        "version": WITH_ENCODER if saved.changed else PLAIN,
        "class_names": json.dumps(saved.class_names),
        "embedding_size": str(saved.weight.shape[1]),
        "cross_validation": json.dumps(asdict(saved.cross_validation)),
        "encoder": saved.encoder,
        "encoder_sha256": saved.encoder_sha256,
    }
    if saved.fine_tuning is not None:
        metadata["fine_tuning"] = json.dumps(asdict(saved.fine_tuning))
    if saved.made_with:
        metadata["made_with"] = json.dumps(saved.made_with)
    if saved.changed:
        metadata["tuned_encoder_sha256"] = saved.tuned_sha256
    tensors = {"weight": saved.weight, "bias": saved.bias}
    if saved.probe is not None:
        made_of = {"shape": saved.probe.shape, "low": saved.probe.low, "high": saved.probe.high}
        metadata["probe"] = json.dumps(made_of)
        tensors[PROBE] = saved.probe.embedding
    tensors |= {PREFIX + name: value for name, value in saved.changed.items()}
    # Copies, as safetensors refuses tensors that share their memory, as tied weights do.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    try:
        with complete(path) as draft:
            draft.write_bytes(to_safetensors(tensors, metadata))
    except OSError as error:
        raise WeightsError(
            f"{path}: expected a file that can be written, got {error.strerror}; pick another."
        ) from error


def is_head(path: Path) -> bool:
    """Tell whether a file says that it is a head, of whatever version."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def read(path: Path) -> SavedHead:
    """Read what `write` wrote.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, of a later version or not a head.
    """
    metadata, tensors = _contents(path)
    version = metadata.get("version")
    if version not in (PLAIN, WITH_ENCODER):
        refuse(
            str(path), f"format version {PLAIN} or {WITH_ENCODER}", str(version), "update relax-quantus", WeightsError
        )
    try:
        chosen = json.loads(metadata["cross_validation"])
        saved = SavedHead(
            weight=tensors["weight"],
            bias=tensors["bias"],
            class_names=json.loads(metadata["class_names"]),
            cross_validation=CrossValidation(chosen["C"], chosen["accuracy"], tuple(chosen["fold_accuracies"])),
            encoder=metadata.get("encoder", ""),
            encoder_sha256=metadata.get("encoder_sha256", ""),
            fine_tuning=_fine_tuning(json.loads(metadata.get("fine_tuning", "null"))),
            tuned_sha256=metadata.get("tuned_encoder_sha256", ""),
            changed={k.removeprefix(PREFIX): value for k, value in tensors.items() if k.startswith(PREFIX)},
            made_with={str(k): str(v) for k, v in json.loads(metadata.get("made_with", "{}")).items()},
            probe=_probe(json.loads(metadata.get("probe", "null")), tensors),
        )
        whole = _fits(saved, version, int(metadata["embedding_size"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        refuse(str(path), "a whole head", "contents that do not fit together", "fit and save again", WeightsError)
    return saved


def _contents(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and tensors of a file that says it is a head."""
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            ours = metadata.get("format") == FORMAT
            tensors = {name: file.get_tensor(name) for name in file.keys()} if ours else {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: expected a saved head, got no such file; check the path.") from error
    except (SafetensorError, OSError) as error:
        got = f"a file that cannot be read ({error})"
        raise WeightsError(message(str(path), "a saved head", got, "fit and save again")) from error
    if not ours:
        refuse(str(path), "a head that EmbeddingClassifier.save wrote", "another file", "pass that one", WeightsError)
    return metadata, tensors


def _probe(made_of: dict[str, Any] | None, tensors: dict[str, Tensor]) -> Probe | None:
    """Restore the probe from JSON and a tensor."""
    if made_of is None:
        return None
    return Probe(tuple(made_of["shape"]), float(made_of["low"]), float(made_of["high"]), tensors[PROBE])


def _fine_tuning(values: dict[str, Any] | None) -> FineTuning | None:
    """Restore the record from JSON, which knows no tuples; leave out fields of later releases."""
    if values is None:
        return None
    known = {f.name for f in fields(FineTuning)}
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    return FineTuning(**kept)


def _fits(saved: SavedHead, version: str | None, size: int) -> bool:
    """Tell whether all of the file agrees with itself."""
    names, weight, bias = saved.class_names, saved.weight, saved.bias
    fits = isinstance(names, list) and all(isinstance(name, str) for name in names)
    fits &= weight.shape == (len(names), size) and bias.shape == (len(names),)
    fits &= all(bool(value.isfinite().all()) for value in (weight, bias, *saved.changed.values()))
    fits &= weight.is_floating_point()
    tuned = saved.fine_tuning is not None and saved.fine_tuning.kept == "fine_tuned"
    return fits and tuned == bool(saved.changed) == bool(saved.tuned_sha256) == (version == WITH_ENCODER)
