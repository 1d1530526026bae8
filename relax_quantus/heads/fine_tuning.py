"""Train an encoder on with a linear head; keep it only if it tells held-out groups apart better.

Log-mel examples with labels and groups and a torch encoder enter; a trained copy of it, a record of
the comparison and the head's penalty leave. `EmbeddingClassifier.fit` is built on it; the training
itself is in `relax_quantus.heads.training`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from relax_quantus.base.checks import message
from relax_quantus.base.networks import embed_all
from relax_quantus.heads.holding_out import Labelled, group_weights, hold_out
from relax_quantus.heads.logistic import Floats, fit_logistic
from relax_quantus.heads.training import Course, Settings, StandardisedHead, train, trainee, training


@dataclass(frozen=True)
class FineTuning:
    """A record of how fine-tuning went and which encoder was kept.

    Attributes
    ----------
    kept
        The encoder with the higher validation accuracy; "frozen", the one that was given, unless
        "fine_tuned" is strictly better.
    frozen_accuracy, tuned_accuracy
        Accuracy 0 to 1 on the held-out examples, each group weighing the same, of a logistic head
        fitted to the other examples' embeddings. ``tuned_accuracy`` is None if no epoch was
        finished. The epoch was chosen on the same examples by their loss, and the better of two is
        kept: the higher figure is a little optimistic.
    best_epoch, epochs_run
        The epoch, counted from 1, whose weights were kept as the fine-tuned ones (0: none), and how
        many were finished.
    interrupted
        Whether Ctrl-C ended the training.
    held_out_groups, held_out_examples
        The size of the validation split.
    validated_by_clip
        The classes of one group only, of which clips were held out instead of groups.
    losses
        Validation log loss after each epoch.
    """

    kept: Literal["frozen", "fine_tuned"]
    frozen_accuracy: float
    tuned_accuracy: float | None
    best_epoch: int
    epochs_run: int
    interrupted: bool
    held_out_groups: int
    held_out_examples: int
    validated_by_clip: tuple[str, ...] = ()
    losses: tuple[float, ...] = ()


def fine_tune(encoder: Any, data: Labelled, h: Floats, settings: Settings) -> tuple[nn.Module, FineTuning, float]:
    """Train a copy of `encoder` on four fifths of the groups and compare both on the rest.

    Parameters
    ----------
    encoder
        A float32 or float64 `torch.nn.Module` ``(n, 1, T, F) -> (n, D)``.
    data
        Examples, labels, groups and clips.
    h
        ``(n, D)`` embeddings of the examples by the encoder as it is.
    settings
        Epochs, frozen parts, learning rate, seed.

    Returns
    -------
    tuple
        The trained copy, at its best epoch and with the modes and flags of the original; the
        record; and the C that cross-validation chose for the frozen encoder's head, for the
        fine-tuned one's too: on embeddings by an encoder that was trained on the same examples,
        cross-validation would always choose the weakest penalty.
    """
    tuned, trained = trainee(encoder, settings.freeze)
    generator = torch.Generator()
    seed = generator.seed() if settings.seed is None else settings.seed
    held, by_clip = hold_out(data, np.random.default_rng(seed))
    _warn_about_split(data, held, by_clip)
    rest = ~held
    weight, bias, chosen = fit_logistic(h[rest], data.labels[rest], data.codes[rest])
    course = Course()
    with training(tuned, trained, seed):
        head = StandardisedHead(h[rest], group_weights(data.codes[rest]), weight, bias).to(next(iter(trained.values())))
        train(tuned, trained, head, data, held, settings, generator.manual_seed(seed), course)
    frozen_accuracy, tuned_accuracy = _accuracy(weight, bias, h, data, held), None
    if course.best_epoch:
        h = embed_all(tuned, data.x).double().cpu().numpy()
        weight, bias, _ = fit_logistic(h[rest], data.labels[rest], data.codes[rest], chosen.C)
        tuned_accuracy = _accuracy(weight, bias, h, data, held)
    record = FineTuning(
        kept="fine_tuned" if tuned_accuracy is not None and tuned_accuracy > frozen_accuracy else "frozen",
        frozen_accuracy=frozen_accuracy,
        tuned_accuracy=tuned_accuracy,
        best_epoch=course.best_epoch,
        epochs_run=len(course.losses),
        interrupted=course.interrupted,
        held_out_groups=len(np.unique(data.codes[held])),
        held_out_examples=int(held.sum()),
        validated_by_clip=by_clip,
        losses=tuple(course.losses),
    )
    return tuned, record, chosen.C


def _warn_about_split(data: Labelled, held: Any, by_clip: tuple[str, ...]) -> None:
    """Warn of classes validated on clips of a group that they are trained on, or not at all."""
    absent = [name for c, name in enumerate(data.names) if not (data.labels[held] == c).any()]
    for names, consequence in ((by_clip, "validated by clip"), (absent, "not validated, as it has one clip only")):
        for name in names:
            text = message(f"groups of class {name!r}", "at least two, one to hold out", "one", f"it is {consequence}")
            warnings.warn(text, UserWarning, stacklevel=5)


def _accuracy(weight: Floats, bias: Floats, h: Floats, data: Labelled, held: Any) -> float:
    """Return the share of right held-out examples, each group weighing the same."""
    right = (h[held] @ weight.T + bias).argmax(1) == data.labels[held]
    return float(np.average(right, weights=group_weights(data.codes[held])))
