"""`EmbeddingClassifier`: scikit-learn's logistic regression as one linear layer on an encoder.

Log-mel examples ``(n, 1, 96, 64)`` with integer labels enter, a torch module
``examples -> logits (n, classes)`` leaves, through which gradients flow. Stands beside RELAX in the
flow: RELAX explains ``embed``; metrics and gradient methods that need classes call the module.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relax_quantus.base import checks
from relax_quantus.base.checks import examples, message, refuse
from relax_quantus.base.networks import embed_all, fingerprint, has_weights, like_weights, neutral_torch, weights_digest
from relax_quantus.base.progress import Progress
from relax_quantus.errors import ArgumentTypeError, EncoderError, WeightsError
from relax_quantus.heads import file as head_file
from relax_quantus.heads import fine_tuning
from relax_quantus.heads.file import Probe, SavedHead
from relax_quantus.heads.fine_tuning import FineTuning
from relax_quantus.heads.holding_out import Labelled
from relax_quantus.heads.logistic import CrossValidation, check_labels, fit_logistic, group_codes
from relax_quantus.heads.training import LEARNING_RATE, Settings

_OTHER = "use the encoder that the head was fitted on"


@dataclass(frozen=True)
class _Origin:
    """A record of the encoder before it was fine-tuned.

    Its kind, its fingerprint and the entries of its state dict that changed.
    """

    kind: str
    sha256: str
    changed: tuple[str, ...]


class EmbeddingClassifier(nn.Module):
    """A linear layer on an encoder, made by `fit` or `load`: ``(n, 1, 96, 64) -> (n, classes)``.

    The output is logits. The encoder is shared, not copied, unless a fine-tuned copy was better. If
    it is a module, ``training`` starts as the encoder's; Quantus wants eval mode.

    Attributes
    ----------
    encoder
        The callable ``(n, 1, 96, 64) -> (n, D)``.
    head
        `torch.nn.Linear` in float32, standardisation folded in. Quantus's randomisation tests
        re-initialise it first.
    class_names
        One name a logit.
    cross_validation
        How `fit` chose the regularisation.
    fine_tuning
        How fine-tuning went and which encoder was kept; None without.
    made_with
        What else a user needs to know, such as front end and resampler; empty unless set, saved
        with the head.

    Examples
    --------
    Ten clips of two examples each; the encoder here is the mean of each band.

    >>> generator = torch.Generator().manual_seed(0)
    >>> y = torch.arange(20) // 10
    >>> x = torch.randn(20, 1, 96, 64, generator=generator) + y.view(-1, 1, 1, 1)
    >>> clips = torch.arange(20) // 2
    >>> clf = EmbeddingClassifier.fit(lambda x: x.mean((1, 2)), x, y, ["cat", "dog"], groups=clips)
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
        fine_tuning: FineTuning | None = None,
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
        self.fine_tuning = fine_tuning
        self.made_with: dict[str, str] = {}
        self._origin: _Origin | None = None
        self._probe: Probe | None = None
        self.training = self.head.training = isinstance(encoder, nn.Module) and getattr(encoder, "training", False)

    def embed(self, x: Tensor) -> Tensor:
        """Embed ``(n, 1, 96, 64) -> (n, D)``; `EncoderError` if something else comes back."""
        h = self.encoder(x)
        if not isinstance(h, Tensor) or h.shape != (len(x), self.head.in_features):
            refuse("encoder", f"embeddings of shape ({len(x)}, {self.head.in_features})", h, _OTHER, EncoderError)
        return h

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, classes)`` of ``(n, 1, 96, 64)``.

        They are scikit-learn's decision d; of two classes, -d/2 and d/2.
        """
        h = self.embed(x)
        with neutral_torch(gradients=True):
            logits: Tensor = self.head(h.to(self.head.weight.dtype))
        return logits

    @torch.no_grad()
    def predict_proba(self, x: Tensor) -> Tensor:
        """Return each class's probability ``(n, classes)``, the softmax of the logits."""
        return self.forward(x).softmax(dim=1)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Return the index of the likeliest class in `class_names`, int64 ``(n,)``."""
        return self.forward(x).argmax(dim=1)

    @classmethod
    @neutral_torch()
    def fit(
        cls,
        encoder: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Any,
        class_names: Sequence[str] | None = None,
        groups: Any = None,
        fine_tune: int = 0,
        *,
        clips: Any = None,
        freeze: Sequence[str] | None = None,
        learning_rate: float = LEARNING_RATE,
        seed: int | None = 0,
        show_progress: bool | Progress = False,
    ) -> EmbeddingClassifier:
        """Fit a standardised logistic regression on the embeddings of `x`.

        Each group weighs the same: an example of a group of k has weight 1/k in the
        standardisation, the loss and the accuracies. C is chosen by cross-validation in which no
        group is on both sides: min(5, groups in the smallest class) folds, balanced by class
        (scikit-learn's `StratifiedGroupKFold` over the pairs of group and class); below 2 folds C
        = 1. Deterministic. Costs one forward of `x`, 64 examples at a time, without gradients and
        in eval mode; the encoder is left as found.

        With `fine_tune`, a copy of the encoder is trained together with a head that starts as the
        fitted one, on four fifths of each class's groups (`relax_quantus.heads.holding_out`).
        Training stops after 5 epochs without a smaller log loss on the others, and the epoch where
        that was smallest counts. Then a logistic head is fitted on each encoder's embeddings of the
        training groups; the encoder whose head names more of the held-out examples is kept, the one
        that was given if they are equal, and its head fitted on all examples. Ctrl-C ends the
        training early, with a warning, and the best epoch so far is compared in the same way. Costs
        about 4 forwards of `x` an epoch.

        Parameters
        ----------
        encoder
            Any callable ``(n, 1, 96, 64) -> (n, D)``; to fine-tune, a `torch.nn.Module` with
            float32 weights.
        x
            ``(n, 1, 96, 64)`` log-mel examples, or waveforms ``(n, samples)`` for an encoder of
            these.
        y
            ``(n,)`` integers, 0 to classes - 1.
        class_names
            One name a class; by default the numbers.
        groups
            ``(n,)`` the clip or source that each example comes from, numbers or strings; None makes
            each example its own.
        fine_tune
            The most epochs to fine-tune the encoder for; 0 leaves it as it is.
        clips
            ``(n,)`` the recording that each example comes from, for fine-tuning only: a class with
            one group is validated by clip, with a warning. None makes each example its own.
        freeze
            Names of the encoder's modules or parameters that are not trained, beside those that do
            not require gradients. None takes the encoder's attribute ``frozen_in_fine_tuning`` if
            it has one: ``("features",)``, the convolutions, of `vggish`.
        learning_rate
            AdamW's, for the encoder; the head's is 1e-3.
        seed
            Of the split, the batches, the shifts in time and dropout; None takes fresh entropy. The
            global generators are left as found. Without `fine_tune` nothing is random.
        show_progress
            Show a bar with the time left to the last epoch while fine-tuning; or what makes
            something else of it, see `relax_quantus.base.progress`.

        Returns
        -------
        EmbeddingClassifier
            On the device of the embeddings.

        Raises
        ------
        EncoderError
            If the embeddings are not ``(n, D)``, not finite, all zero or all the same; if there is
            nothing in the encoder to fine-tune.
        DataError
            If only one class, or not every class, has examples; if there is nothing to hold out.
        ShapeError, ArgumentError, ArgumentTypeError
            If `x`, `y`, `class_names`, `groups` or `clips` do not fit together, or another argument
            cannot work.

        Warns
        -----
        UserWarning
            If a class has one group only, or Ctrl-C ended fine-tuning.
        """
        x = examples("x", x)
        labels, names = check_labels(y, len(x), class_names)
        data = Labelled(x, labels, group_codes(groups, len(x)), group_codes(clips, len(x), "clips"), names)
        settings = Settings(
            epochs=checks.integer("fine_tune", fine_tune, low=0),
            freeze=freeze,
            learning_rate=checks.positive("learning_rate", learning_rate),
            seed=checks.seed(seed),
            show_progress=show_progress,
        )
        h, record, C = embed_all(encoder, x), None, None
        origin = encoder
        if settings.epochs:
            tuned, record, penalty = fine_tuning.fine_tune(encoder, data, h.double().cpu().numpy(), settings)
            if record.kept == "fine_tuned":
                encoder, C = tuned, penalty
                h = embed_all(encoder, x)
        weight, bias, chosen = fit_logistic(h.double().cpu().numpy(), data.labels, data.codes, C)
        made = cls(
            encoder, torch.from_numpy(weight).to(h.device), torch.from_numpy(bias).to(h.device), names, chosen, record
        )
        made._origin = None if encoder is origin else _origin(origin, encoder)
        made._probe = None if has_weights(origin) else Probe.of(origin, x)
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the head, and the weights that fine-tuning changed, to one safetensors file.

        An older file is replaced only once the new one is complete.

        The metadata holds, as strings, format and version, the class names, the cross-validation,
        the record of the fine-tuning, and kind and `fingerprint` of the encoder that was given to
        `fit` and of the fine-tuned one. Of an encoder without weights the file holds, too, what it
        makes of two made-up examples.
        """
        origin, changed = self._origin, {}
        if origin is not None and isinstance(self.encoder, nn.Module):
            state = self.encoder.state_dict()
            changed = {name: state[name] for name in origin.changed}
        saved = SavedHead(
            weight=self.head.weight,
            bias=self.head.bias,
            class_names=list(self.class_names),
            cross_validation=self.cross_validation,
            encoder=type(self.encoder).__name__ if origin is None else origin.kind,
            encoder_sha256=fingerprint(self.encoder) if origin is None else origin.sha256,
            fine_tuning=self.fine_tuning,
            tuned_sha256="" if origin is None else fingerprint(self.encoder),
            changed=changed,
            made_with=self.made_with,
            probe=self._probe,
        )
        head_file.write(Path(path), saved)

    @classmethod
    @neutral_torch()
    def load(
        cls, path: str | os.PathLike[str], encoder: Callable[[Tensor], Tensor], *, strict: bool = True
    ) -> EmbeddingClassifier:
        """Read a head that `save` wrote and put it on `encoder`.

        If the file holds a fine-tuned encoder, the head is put on a fine-tuned copy of `encoder`.

        Parameters
        ----------
        path
            The file.
        encoder
            The encoder that was given to `fit`, fine-tuned or not.
        strict
            Refuse another encoder, on which the logits would mean nothing: one with other weights
            or, where the head was fitted on one without weights, one that is made otherwise and
            embeds made-up examples otherwise. False makes that a warning (for the same encoder in
            another precision, say). Where it cannot be told, as for files of version 0.1.0 of
            encoders without weights, a warning says so.

        Raises
        ------
        WeightsError
            If the file is missing, damaged, not such a head, or fitted on another encoder.
        """
        if not callable(encoder):
            refuse(
                "encoder", "a callable (n, 1, 96, 64) -> (n, D)", encoder, "pass the encoder itself", ArgumentTypeError
            )
        saved = head_file.read(Path(path))
        same = _compare(path, saved, encoder, strict)
        used = _tuned_copy(path, saved, encoder, same) if saved.changed else encoder
        place = like_weights(torch.zeros(()), used).device
        weight, bias = saved.weight.to(place), saved.bias.to(place)
        made = cls(used, weight, bias, saved.class_names, saved.cross_validation, saved.fine_tuning)
        made.made_with, made._probe = saved.made_with, saved.probe
        if saved.changed:
            made._origin = _Origin(saved.encoder, saved.encoder_sha256, tuple(saved.changed))
        return made


def _origin(given: Any, tuned: Any) -> _Origin:
    """Record what the encoder was before it was fine-tuned."""
    before, after = given.state_dict(), tuned.state_dict()
    changed = (n for n, value in after.items() if isinstance(value, Tensor) and not torch.equal(value, before[n]))
    return _Origin(type(given).__name__, fingerprint(given), tuple(changed))


def _tuned_copy(path: str | os.PathLike[str], saved: SavedHead, encoder: object, same: bool) -> nn.Module:
    """Copy `encoder` and put the fine-tuned weights of the file into the copy."""
    wanted = f"{saved.encoder} with {', '.join(saved.changed)}"
    wanted = wanted if len(wanted) <= 100 else f"{saved.encoder} with its {len(saved.changed)} fine-tuned weights"
    state = encoder.state_dict() if isinstance(encoder, nn.Module) else {}
    fits = all(name in state and state[name].shape == value.shape for name, value in saved.changed.items())
    if not isinstance(encoder, nn.Module) or not fits:
        refuse(os.fspath(path), wanted, type(encoder).__name__, "load the encoder that was fine-tuned", WeightsError)
    with torch.inference_mode(False):
        tuned = copy.deepcopy(encoder)
        with torch.no_grad():
            for name, value in tuned.state_dict().items():
                if name in saved.changed:
                    value.copy_(saved.changed[name])
    if same and saved.tuned_sha256 not in (fingerprint(tuned), weights_digest(tuned)):
        expected = f"fine-tuned weights of SHA-256 {saved.tuned_sha256[:12]}"
        refuse(os.fspath(path), expected, fingerprint(tuned)[:12], "fit and save again", WeightsError)
    return tuned


def _compare(path: str | os.PathLike[str], saved: SavedHead, encoder: Callable[[Tensor], Tensor], strict: bool) -> bool:
    """Tell whether `encoder` is the one of the file; refuse, or warn about, another one."""
    wanted, found = saved.encoder_sha256, fingerprint(encoder)
    untold = wanted in ("", head_file.NO_WEIGHTS)
    if not untold and wanted in (found, weights_digest(encoder)):  # the latter in files of 0.1.0
        return True
    if saved.probe is not None and saved.probe.agrees(encoder):
        return True
    kind = type(encoder).__name__
    if untold and saved.probe is None:
        rule, got = "a head that says which encoder it was fitted on", f"one of {saved.encoder}, without its weights"
        remedy = f"make sure that this {kind} is that encoder, or fit and save again"
        warnings.warn(message(os.fspath(path), rule, got, remedy), UserWarning, stacklevel=4)
        return False
    text = message(
        os.fspath(path),
        f"the encoder it was fitted on, {saved.encoder} {wanted[:12]}".rstrip(),
        f"{kind} {found[:12]}".rstrip(),
        "load that encoder, fit again, or pass strict=False if you know that they agree",
    )
    if strict and (saved.probe is not None or isinstance(encoder, nn.Module)):
        raise WeightsError(text)
    warnings.warn(text, UserWarning, stacklevel=4)
    return False
