"""`EmbeddingClassifier`: scikit-learn's logistic regression as one linear layer on an encoder.

Log-mel examples ``(n, 1, 96, 64)`` with integer labels enter, a torch module ``examples -> logits (n, classes)``
leaves, through which gradients flow. Stands beside RELAX in the flow: RELAX explains ``embed``; metrics and gradient
methods that need classes call the module.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from relax_quantus.checks import describe, message, refuse, spectrograms
from relax_quantus.errors import ArgumentTypeError, EncoderError, WeightsError
from relax_quantus.logistic import CrossValidation, check_labels, fit_logistic, group_codes
from relax_quantus.modules import evaluation_mode, fingerprint, like_weights

MICRO_BATCH = 64
FORMAT, VERSION = "relax_quantus.EmbeddingClassifier", "1"
_OTHER = "use the encoder that the head was fitted on"
_LOOK = "check its weights and that its input is what it was trained on"


class EmbeddingClassifier(nn.Module):
    """A linear layer on an encoder: ``(n, 1, 96, 64) -> logits (n, classes)``. Made by `fit` or `load`.

    The encoder is shared, not copied. If it is a module, ``training`` starts as the encoder's; Quantus wants eval mode.

    Attributes
    ----------
    encoder
        The callable ``(n, 1, 96, 64) -> (n, D)``.
    head
        `torch.nn.Linear` in float32, standardisation folded in. Quantus's randomisation tests re-initialise it first.
    class_names
        One name a logit.
    cross_validation
        How `fit` chose the regularisation.

    Examples
    --------
    Ten clips of two examples each; the encoder here is the mean of each band.

    >>> generator = torch.Generator().manual_seed(0)
    >>> y = torch.arange(20) // 10
    >>> x = torch.randn(20, 1, 96, 64, generator=generator) + y.view(-1, 1, 1, 1)
    >>> clf = EmbeddingClassifier.fit(lambda x: x.mean((1, 2)), x, y, ["cat", "dog"], groups=torch.arange(20) // 2)
    >>> clf(x).shape, clf.embed(x).shape, clf.class_names, clf.cross_validation.accuracy
    (torch.Size([20, 2]), torch.Size([20, 64]), ('cat', 'dog'), 1.0)
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor],
        weight: Tensor,
        bias: Tensor,
        class_names: Sequence[str],
        cross_validation: CrossValidation,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        classes, size = weight.shape
        # skip_init: an ordinary Linear would draw its first weights from the global generator.
        self.head = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, size, classes, device=weight.device, dtype=torch.float32
        )
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)
        self.class_names = tuple(class_names)
        self.cross_validation = cross_validation
        self.training = self.head.training = encoder.training if isinstance(encoder, nn.Module) else False

    def embed(self, x: Tensor) -> Tensor:
        """Embed ``(n, 1, 96, 64) -> (n, D)`` with the encoder; one that does not return that is an `EncoderError`."""
        h = self.encoder(x)
        if not isinstance(h, Tensor) or h.shape != (len(x), self.head.in_features):
            refuse("encoder", f"embeddings of shape ({len(x)}, {self.head.in_features})", h, _OTHER, EncoderError)
        return h

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of ``(n, 1, 96, 64)``: scikit-learn's decision d; of two classes, -d/2 and d/2."""
        return torch.as_tensor(self.head(self.embed(x).to(self.head.weight.dtype)))

    @classmethod
    def fit(
        cls,
        encoder: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Any,
        class_names: Sequence[str] | None = None,
        groups: Any = None,
    ) -> EmbeddingClassifier:
        """Fit a standardised logistic regression on the embeddings of `x`.

        Each group weighs the same: an example of a group of k has weight 1/k in the standardisation, the loss and the
        accuracies. C is chosen by cross-validation in which no group is on both sides: min(5, groups in the smallest
        class) folds, balanced by class (scikit-learn's `StratifiedGroupKFold` over the pairs of group and class);
        below 2 folds C = 1. Deterministic. Costs one forward of `x`, 64 examples at a time, without gradients and in
        eval mode; the encoder is left as found.

        Parameters
        ----------
        encoder
            Any callable ``(n, 1, 96, 64) -> (n, D)``.
        x
            ``(n, 1, 96, 64)`` log-mel examples.
        y
            ``(n,)`` integers, 0 to classes - 1.
        class_names
            One name a class; by default the numbers.
        groups
            ``(n,)`` the clip or source that each example comes from, numbers or strings; None makes each example its
            own.

        Returns
        -------
        EmbeddingClassifier
            On the device of the embeddings.

        Raises
        ------
        EncoderError
            If the embeddings are not ``(n, D)``, not finite, all zero or all the same.
        DataError
            If only one class, or not every class, has examples.
        ShapeError, ArgumentError, ArgumentTypeError
            If `x`, `y`, `class_names` or `groups` do not fit together.
        """
        x = spectrograms("x", x)
        labels, names = check_labels(y, len(x), class_names)
        codes = group_codes(groups, len(x))
        h = _embed_all(encoder, x)
        weight, bias, chosen = fit_logistic(h.double().cpu().numpy(), labels, codes)
        return cls(encoder, torch.from_numpy(weight).to(h.device), torch.from_numpy(bias).to(h.device), names, chosen)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the head, without the encoder's weights, to one safetensors file.

        An older file is replaced only once the new one is complete.

        The metadata holds, as strings, format and version, the class names, the cross-validation and the encoder's
        kind and `fingerprint`.
        """
        path = Path(path)
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "class_names": json.dumps(self.class_names),
            "embedding_size": str(self.head.in_features),
            "cross_validation": json.dumps(asdict(self.cross_validation)),
            "encoder": type(self.encoder).__name__,
            "encoder_sha256": fingerprint(self.encoder),
        }
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.head.state_dict().items()}
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            unfinished.write_bytes(to_safetensors(tensors, metadata))
            os.replace(unfinished, path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise WeightsError(
                f"{path}: expected a file that can be written, got {error.strerror}; pick another."
            ) from error

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], encoder: Callable[[Tensor], Tensor], *, strict: bool = True
    ) -> EmbeddingClassifier:
        """Read a head that `save` wrote and put it on `encoder`.

        Parameters
        ----------
        path
            The file.
        encoder
            The encoder that the head was fitted on.
        strict
            Refuse an encoder with other weights, on which the logits would mean nothing. False makes that a warning
            (for the same encoder in another precision, say). Where one of the two is no module there are no weights
            to compare: a warning.

        Raises
        ------
        WeightsError
            If the file is missing, damaged, not such a head, or fitted on another encoder.
        """
        if not callable(encoder):
            refuse(
                "encoder", "a callable (n, 1, 96, 64) -> (n, D)", encoder, "pass the encoder itself", ArgumentTypeError
            )
        metadata, weight, bias = _read(Path(path))
        names, chosen = _described(Path(path), metadata, weight, bias)
        _compare(path, metadata, encoder, strict)
        place = like_weights(torch.zeros(()), encoder).device
        return cls(encoder, weight.to(place), bias.to(place), names, chosen)


def _embed_all(encoder: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
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


def _read(path: Path) -> tuple[dict[str, str], Tensor, Tensor]:
    """Metadata, weight and bias of a file that `EmbeddingClassifier.save` wrote."""
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            ours = metadata.get("format") == FORMAT
            weight, bias = (file.get_tensor(name) if ours else torch.empty(0) for name in ("weight", "bias"))
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: expected a saved head, got no such file; check the path.") from error
    except (SafetensorError, OSError) as error:
        got = f"a file that cannot be read ({error})"
        raise WeightsError(message(str(path), "a saved head", got, "fit and save again")) from error
    if not ours:
        refuse(str(path), "a head that EmbeddingClassifier.save wrote", "another file", "pass that one", WeightsError)
    return metadata, weight, bias


def _described(path: Path, metadata: dict[str, str], weight: Tensor, bias: Tensor) -> tuple[list[str], CrossValidation]:
    """Class names and cross-validation, once all of the file agrees with itself."""
    if metadata.get("version") != VERSION:
        refuse(
            str(path), f"format version {VERSION}", str(metadata.get("version")), "update relax-quantus", WeightsError
        )
    try:
        names = json.loads(metadata["class_names"])
        chosen = json.loads(metadata["cross_validation"])
        result = CrossValidation(chosen["C"], chosen["accuracy"], tuple(chosen["fold_accuracies"]))
        fits = isinstance(names, list) and all(isinstance(name, str) for name in names)
        fits &= weight.shape == (len(names), int(metadata["embedding_size"])) and bias.shape == (len(names),)
        fits &= weight.is_floating_point() and bool(weight.isfinite().all() and bias.isfinite().all())
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        refuse(str(path), "a whole head", "contents that do not fit together", "fit and save again", WeightsError)
    return names, result


def _compare(path: str | os.PathLike[str], metadata: dict[str, str], encoder: object, strict: bool) -> None:
    """Refuse, or warn about, an encoder that is not the one of the file."""
    wanted, found = metadata.get("encoder_sha256", ""), fingerprint(encoder)
    if wanted == found:
        return
    text = message(
        os.fspath(path),
        f"the encoder it was fitted on, {metadata.get('encoder')} {wanted[:12]}".rstrip(),
        f"{type(encoder).__name__} {found[:12]}".rstrip(),
        "load that encoder, fit again, or pass strict=False if you know that they agree",
    )
    if strict and wanted and found:
        raise WeightsError(text)
    warnings.warn(text, UserWarning, stacklevel=3)
