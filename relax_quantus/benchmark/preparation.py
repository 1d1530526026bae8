"""What all cells of a run share: data, encoder, the logistic head and its accuracy, and the questions that are asked of a clip.

A `BenchmarkConfig` enters, a `Bench` leaves. Stands between the datasets and the runner.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from relax_quantus.benchmark import datasets, recordings
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.datasets import Clip, Dataset
from relax_quantus.benchmark.questions import NotApplicable, Question, Similarities
from relax_quantus.encoders import load_encoder
from relax_quantus.heads import EmbeddingClassifier
from relax_quantus.quantus_bridge import SimilarityModel

HEAD_ACCURACY = 0.9


@dataclass(frozen=True, eq=False)
class Bench:
    """What all cells of a run share."""

    config: BenchmarkConfig
    dataset: Dataset
    encoder: nn.Module
    classifier: EmbeddingClassifier
    head_accuracy: float
    similarities: Similarities
    seconds: dict[str, float]

    def question(self, clip: Clip, n_samples: int) -> Question:
        """Towards the clip's own embedding and its predicted class."""
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
            seed=c.seed,
            clip=number,
            fill=c.fill,
            estimator=c.estimator,
            domain=c.domain,
        )

    def stem_question(self, clip: Clip) -> Question:
        """Towards the clean stem's embedding.

        Raises
        ------
        NotApplicable
            If there is no stem, the head is not good enough on held-out calls, or the encoder does not respond to this call.
        """
        if clip.stem is None or clip.truth is None:
            raise NotApplicable("no clean stem is known for this clip" if clip.label >= 0 else "the clip has no call")
        if self.head_accuracy < HEAD_ACCURACY:
            raise NotApplicable(
                f"the head gets {self.head_accuracy:.1%} of held-out calls right, below {HEAD_ACCURACY:.0%}"
            )
        x = clip.x[None]
        with torch.no_grad():
            stem = self.encoder(clip.stem[None])
            response = float(cosine_similarity(self.encoder(x), stem))
            if self.dataset.background is not None:
                usual = float(cosine_similarity(self.encoder(self.dataset.background), stem).median())
                if response <= usual:
                    raise NotApplicable(
                        f"the encoder does not respond to the call: similarity {response:.2f}, {usual:.2f} without any call"
                    )
        asked = self.question(clip, self.config.n_samples)
        return replace(asked, model=SimilarityModel(self.encoder, stem), target=0, reference=stem[0])


def load(config: BenchmarkConfig) -> Dataset:
    """Load the dataset that the configuration names."""
    if config.data is None:
        return datasets.synthetic(config.max_clips, config.seed, config.head_clips)
    return recordings.folder(config.data, config.max_clips, config.seed, config.head_clips, config.resampler)


def clip_accuracy(classifier: EmbeddingClassifier, examples: datasets.Examples) -> float:
    """Share of clips whose mean logit over their examples is highest for their class."""
    with torch.no_grad():
        logits = torch.cat([classifier(chunk) for chunk in torch.split(examples.x, 48)]).cpu().numpy()
    clips = np.unique(np.array(examples.clips), return_inverse=True)[1]
    right = [logits[clips == c].mean(0).argmax() == examples.y[clips == c][0] for c in range(clips.max() + 1)]
    return float(np.mean(right))


def prepare(config: BenchmarkConfig, encoder: nn.Module | None = None, dataset: Dataset | None = None) -> Bench:
    """Load the data and the encoder, fit the head and judge it."""
    started = time.perf_counter()
    dataset = dataset or load(config)
    loaded = time.perf_counter()
    if encoder is None:
        # Convolutions of 48 masked copies are about twice as fast this way; weights and values stay the same.
        encoder = load_encoder(config.encoder).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = dataset.training
    classifier = EmbeddingClassifier.fit(encoder, training.x, training.y, list(dataset.class_names), training.groups)
    accuracy = clip_accuracy(classifier, dataset.held_out)
    seconds = {"data": loaded - started, "head": time.perf_counter() - loaded}
    return Bench(config, dataset, encoder, classifier.eval(), accuracy, Similarities(), seconds)
