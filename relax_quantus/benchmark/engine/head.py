"""The logistic head of a data set on an encoder, and how much of what it was not fitted on it gets right.

A `Dataset` and an encoder enter, a `Head` leaves: small, and without the encoder, so that one process can fit it for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from relax_quantus.benchmark.data.clips import Dataset, Examples
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.heads.logistic import CrossValidation


@dataclass(frozen=True, eq=False)
class Head:
    """A logistic head on an encoder, without the encoder.

    Attributes
    ----------
    weight, bias
        ``(classes, D)``, ``(classes,)``.
    class_names, cross_validation
        Of `EmbeddingClassifier`.
    accuracy, followed
        Of `Bench`: ``head_accuracy`` and ``followed``.
    """

    weight: Tensor
    bias: Tensor
    class_names: tuple[str, ...]
    cross_validation: CrossValidation
    accuracy: float
    followed: float | None = None

    @classmethod
    def fit(cls, encoder: nn.Module, dataset: Dataset) -> Head:
        """Fit it on the training examples and judge it on the held-out ones. Costs one forward of each."""
        training = dataset.training
        made = EmbeddingClassifier.fit(encoder, training.x, training.y, list(dataset.class_names), training.groups)
        accuracy = clip_accuracy(made, dataset.held_out)
        followed = None if dataset.swapped is None else clip_accuracy(made, dataset.swapped)
        weight, bias = made.head.weight.detach(), made.head.bias.detach()
        return cls(weight, bias, made.class_names, made.cross_validation, accuracy, followed)

    def on(self, encoder: nn.Module) -> EmbeddingClassifier:
        """The classifier, in eval mode."""
        return EmbeddingClassifier(encoder, self.weight, self.bias, self.class_names, self.cross_validation).eval()


def clip_accuracy(classifier: EmbeddingClassifier, examples: Examples) -> float:
    """Share of clips whose mean logit over their examples is highest for their class."""
    with torch.no_grad():
        logits = torch.cat([classifier(chunk) for chunk in torch.split(examples.x, 48)]).cpu().numpy()
    clips = np.unique(np.array(examples.clips), return_inverse=True)[1]
    right = [logits[clips == c].mean(0).argmax() == examples.y[clips == c][0] for c in range(clips.max() + 1)]
    return float(np.mean(right))
