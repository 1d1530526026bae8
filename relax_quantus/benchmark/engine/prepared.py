"""Prepare what all cells of a run share: data, encoder, head, and the questions of a clip.

Settings, an encoder, a data set and a seed enter, a `Prepared` leaves. Stands between the data sets
and the runner. `prepare` is a pure function of its arguments: any process that calls it with the
same ones gets the same, given the recorded micro-batch. The logistic `Head` is small and without
the encoder, so that one process can fit it for all.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from relax_quantus.base import checks
from relax_quantus.base.networks import fingerprint
from relax_quantus.base.registry import nearest
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.data import datasets
from relax_quantus.benchmark.data.clips import Clip, Dataset, LabelledExamples
from relax_quantus.benchmark.data.region import SeesOnly, with_region
from relax_quantus.benchmark.methods.questions import KINDS, NotApplicable, Question, Similarities
from relax_quantus.encoders import loading as nets
from relax_quantus.errors import UnknownNameError
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.heads.logistic import CrossValidation
from relax_quantus.relax.attribution import RELAX


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
        Of `Prepared`: ``head_accuracy`` and ``followed``.
    """

    weight: Tensor
    bias: Tensor
    class_names: tuple[str, ...]
    cross_validation: CrossValidation
    accuracy: float
    followed: float | None = None

    @classmethod
    def fit(cls, encoder: nn.Module, dataset: Dataset) -> Head:
        """Fit the head on the training examples and judge it on the held-out ones.

        Costs one forward of each.
        """
        training = dataset.training
        made = EmbeddingClassifier.fit(encoder, training.x, training.y, list(dataset.class_names), training.groups)
        accuracy = clip_accuracy(made, dataset.held_out)
        followed = None if dataset.swapped is None else clip_accuracy(made, dataset.swapped)
        weight, bias = made.head.weight.detach(), made.head.bias.detach()
        return cls(weight, bias, made.class_names, made.cross_validation, accuracy, followed)

    def on(self, encoder: nn.Module) -> EmbeddingClassifier:
        """Put the head on an encoder: a classifier in eval mode."""
        return EmbeddingClassifier(encoder, self.weight, self.bias, self.class_names, self.cross_validation).eval()


def clip_accuracy(classifier: EmbeddingClassifier, examples: LabelledExamples) -> float:
    """Return the share of clips whose mean logit is highest for their class.

    The mean is over a clip's examples.
    """
    with torch.no_grad():
        logits = torch.cat([classifier(chunk) for chunk in torch.split(examples.x, 48)]).cpu().numpy()
    clips = np.unique(np.array(examples.clips), return_inverse=True)[1]
    right = [logits[clips == c].mean(0).argmax() == examples.y[clips == c][0] for c in range(clips.max() + 1)]
    return float(np.mean(right))


HEAD_ACCURACY = 0.9
FOLLOWED = 0.5
RESPONSE = 1e-3
TOWARDS_STEM = 0.1
"""Least share of the way, in similarity, that a call must take an embedding from its background's
to its stem's.
"""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything that all cells of a run share.

    Attributes
    ----------
    config
        The settings.
    dataset, encoder, classifier
        What is explained; the classifier is the logistic head on the encoder.
    head_accuracy
        Share of held-out clips that it gets right.
    similarities
        What was already computed.
    seconds
        That loading and fitting took.
    seed
        Of masks and permutations.
    perturbations_per_eval
        Masks a forward, measured or as given: to be recorded and given again.
    encoder_sha256
        Of the weights.
    followed
        Of a shortcut's data set: share of held-out clips of other classes that the head calls the
        shortcut's class once the shortcut is planted in them; else None.
    """

    config: BenchmarkConfig
    dataset: Dataset
    encoder: nn.Module
    classifier: EmbeddingClassifier
    head_accuracy: float
    similarities: Similarities
    seconds: dict[str, float]
    seed: int = 0
    perturbations_per_eval: int | None = None
    encoder_sha256: str = ""
    followed: float | None = None

    def ask(self, kind: str, clip: Clip, n_samples: int | None = None) -> Question:
        """Put a question of a kind: "own", "stem" or "region".

        Raises
        ------
        NotApplicable
            If it cannot be asked of this clip, with the reason.
        """
        n_samples = self.config.n_samples if n_samples is None else n_samples
        if kind == "own":
            return self.question(clip, n_samples)
        if kind == "stem":
            return self.stem_question(clip, n_samples)
        if kind == "region":
            return self.region_question(clip, n_samples)
        checks.refuse("question", "a kind of question", repr(kind), nearest(kind, list(KINDS)), UnknownNameError)

    def question(self, clip: Clip, n_samples: int) -> Question:
        """Ask towards the clip's own embedding and its predicted class."""
        x = clip.x[None]
        with torch.no_grad():
            predicted = int(self.classifier(x).argmax())
        c, number = self.config, zlib.crc32(clip.name.encode())
        return Question(
            x,
            self.classifier,
            predicted,
            truth=clip.truth,
            n_samples=n_samples,
            seed=self.seed,
            clip=number,
            fill=c.fill,
            estimator=c.estimator,
            domain=c.domain,
            perturbations_per_eval=self.perturbations_per_eval,
        )

    def stem_question(self, clip: Clip, n_samples: int | None = None) -> Question:
        """Ask towards the clean stem's embedding and the logit of the stem's class.

        Raises
        ------
        NotApplicable
            If there is no truth, the head is not good enough on held-out calls (or does not follow
            the shortcut), or the encoder does not respond to this call.
        """
        if clip.truth is None:
            raise NotApplicable("no clean stem is known for this clip" if clip.label >= 0 else "the clip has no call")
        if not clip.truth.any():
            raise NotApplicable("the call dominates nowhere in this clip")
        if self.followed is not None and self.followed < FOLLOWED:
            raise NotApplicable(
                f"the head does not follow the shortcut: {self.followed:.0%} of other classes' clips, below {FOLLOWED:.0%}"
            )
        if self.dataset.needs_good_head and self.head_accuracy < HEAD_ACCURACY:
            raise NotApplicable(
                f"the head gets {self.head_accuracy:.1%} of held-out calls right, below {HEAD_ACCURACY:.0%}"
            )
        asked = self.question(clip, self.config.n_samples if n_samples is None else n_samples)
        asked = replace(asked, kind="stem", target=clip.label)
        if clip.stem is None:
            return replace(asked, views=("logit",))
        with torch.no_grad():
            stem = self.encoder(clip.stem[None])
            if clip.rest is not None:
                heard = float(cosine_similarity(self.encoder(asked.x), stem))
                without = float(cosine_similarity(self.encoder(clip.rest[None]), stem))
                if heard - without < max(RESPONSE, TOWARDS_STEM * (1 - without)):
                    raise NotApplicable(
                        f"the encoder does not respond to the call: similarity to it {heard:.3f}, {without:.3f} without it"
                    )
        return replace(asked, reference=stem[0])

    def region_question(self, clip: Clip, n_samples: int | None = None) -> Question:
        """Ask about an encoder that sees the clip's region alone, which is then the truth.

        The reference is that encoder's own embedding of the clip.

        The logit is that of the class which the region speaks for most: whose logit falls most when
        all of the region becomes the fill.

        Raises
        ------
        NotApplicable
            If the clip has no region, or the embedding hardly changes (cosine above 0.999) when all
            of the region becomes the fill.
        """
        if clip.region is None:
            raise NotApplicable("no region was drawn for this clip")
        asked = self.question(clip, self.config.n_samples if n_samples is None else n_samples)
        encoder = SeesOnly(self.encoder, clip.region, clip.x)
        with torch.no_grad():
            change = 1 - float(cosine_similarity(encoder(asked.baseline), encoder(asked.x)))
        if change < RESPONSE:
            raise NotApplicable(f"the encoder does not respond to the region: 1 - similarity {change:.1g} without it")
        head = self.classifier.head
        names, validation = self.classifier.class_names, self.classifier.cross_validation
        model = EmbeddingClassifier(encoder, head.weight, head.bias, names, validation).eval()
        with torch.no_grad():
            spoken_for = int((model(asked.x) - model(asked.baseline)).argmax())
        return replace(asked, kind="region", model=model, target=spoken_for, truth=clip.region)


def load(config: BenchmarkConfig, spec: str | None = None) -> Dataset:
    """Load the data set of a specification, or the one that the settings name."""
    if spec is None and config.data is not None:
        kind = datasets.kind_of_folder(config.data)
        return datasets.DATASETS.get(
            kind,
            path=config.data,
            max_clips=config.max_clips,
            seed=config.seed,
            head_clips=config.head_clips,
            resampler=config.resampler,
            front_end=nets.shared_front_end(config.encoders or (config.encoder,), config.front_end),
        )
    return datasets.resolve(
        spec or "synthetic",
        max_clips=config.max_clips,
        seed=config.seed,
        head_clips=config.head_clips,
        resampler=config.resampler,
        front_end=nets.shared_front_end(config.encoders or (config.encoder,), config.front_end),
    )


def prepare(
    config: BenchmarkConfig,
    encoder: str | nn.Module | None = None,
    dataset: str | Dataset | None = None,
    seed: int | None = None,
    perturbations_per_eval: int | None = None,
    head: Callable[[nn.Module, Dataset], Head] = Head.fit,
) -> Prepared:
    """Load the data and the encoder, fit the head and judge it.

    Parameters
    ----------
    config
        Settings; its ``seed`` decides the data.
    encoder
        Specification (see `nets.resolve`) or network; None for the one that `config` names.
    dataset
        Specification (see `datasets.resolve`) or data set; None for the one that `config` names.
        Clips without a region are given one.
    seed
        Of masks and permutations; None for that of `config`.
    perturbations_per_eval
        The recorded micro-batch; None takes that of `config`, or measures, which depends on the
        machine and on what else it is doing.
    head
        Fits the head, or finds the one that another process has fitted.
    """
    started = time.perf_counter()
    dataset = dataset if isinstance(dataset, Dataset) else load(config, dataset)
    dataset = replace(dataset, clips=tuple(with_region(clip, config.seed) for clip in dataset.clips))
    loaded = time.perf_counter()
    if not isinstance(encoder, nn.Module):
        shared = nets.shared_front_end(config.encoders or (config.encoder,), config.front_end)
        encoder, sha256 = nets.resolve(encoder or config.encoder, shared)
    else:
        sha256 = fingerprint(encoder)
    fitted = head(encoder, dataset)
    seconds = {"data": loaded - started, "head": time.perf_counter() - loaded}
    masks_a_forward = perturbations_per_eval or config.perturbations_per_eval
    if masks_a_forward is None:
        masks_a_forward = RELAX(encoder).plan(dataset.clips[0].x[None], config.n_samples).perturbations_per_eval
    return Prepared(
        config,
        dataset,
        encoder,
        fitted.on(encoder),
        fitted.accuracy,
        Similarities(),
        seconds,
        config.seed if seed is None else seed,
        masks_a_forward,
        sha256,
        fitted.followed,
    )
