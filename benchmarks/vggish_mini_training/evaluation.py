"""Measure how well an encoder tells apart clips that it was not trained on.

It also measures how much of that the recording chain explains.

Last step of the training flow. Clips are embedded from `LogMel` examples as
`relax_quantus.load_examples` cuts them (whole examples; shorter clips padded with silence); a
logistic regression on standardised embeddings, every clip weighing the same, gives class
probabilities; a clip's are the mean of its examples'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor, nn

from benchmarks.vggish_mini_training.recordings import EXAMPLE, QUIET_BELOW_LOUD_DB, Recordings
from relax_quantus.frontend.log_mel import LogMel

COMMON_BAND_HZ = 3_400.0
QUIET_SHARE = 0.2
HEAD_C = 1.0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clips:
    """Embeddings of clips: h (examples, D), the clip of each example, the label of each clip."""

    h: Floats
    clip: Ints
    labels: Ints

    def weights(self) -> Floats:
        """Weigh examples so that each clip weighs 1, (examples,)."""
        return 1.0 / np.bincount(self.clip, minlength=len(self.labels))[self.clip]

    def mean(self, values: Floats) -> Floats:
        """Average over each clip's examples, (examples, K) -> (clips, K)."""
        out = np.zeros((len(self.labels), values.shape[1]))
        np.add.at(out, self.clip, values * self.weights()[:, None])
        return out


def examples_of(wave: Tensor, front_end: LogMel) -> Tensor:
    """Cut a clip into log-mel examples (n >= 1, 1, 96, 64), padding a short one with silence."""
    return torch.as_tensor(front_end(torch.nn.functional.pad(wave, (0, max(0, EXAMPLE - wave.numel())))))


def band_limited(wave: Tensor, limit_hz: float = COMMON_BAND_HZ) -> Tensor:
    """Remove everything above a frequency, (samples,) at 16 kHz."""
    spectrum = torch.fft.rfft(wave)
    spectrum[int(limit_hz / 16_000 * wave.numel()) + 1 :] = 0
    return torch.as_tensor(torch.fft.irfft(spectrum, wave.numel()))


def frame_level(x: Tensor) -> Tensor:
    """Return each frame's level in natural-log mel amplitude, (n, 1, 96, 64) -> (96 n,)."""
    return x.exp().sub(0.01).clamp_min(0).square().sum(-1).flatten().clamp_min(1e-12).log() / 2


def quietest(x: Tensor) -> Tensor:
    """Build examples from the quietest 20 % of a clip's frames, kept in order of time.

    They are repeated cyclically to whole examples.
    """
    frames = x.reshape(-1, x.shape[-1])
    count = max(1, round(QUIET_SHARE * len(frames)))
    kept = frame_level(x).argsort(stable=True)[:count].sort().values
    length = -(-count // x.shape[-2]) * x.shape[-2]
    return frames[kept[torch.arange(length) % count]].reshape(-1, *x.shape[1:])


def has_background(x: Tensor) -> bool:
    """Tell whether the quietest 20 % of frames lie at least 15 dB below the loudest 5 %.

    They then hardly hold the call itself.
    """
    level = frame_level(x) * 20 / np.log(10)
    return bool(level.quantile(QUIET_SHARE) <= level.quantile(0.95) - QUIET_BELOW_LOUD_DB)


@torch.inference_mode()
def embed(encoder: nn.Module, examples: list[Tensor], labels: Ints) -> Clips:
    """Embed each clip's examples."""
    clip = np.repeat(np.arange(len(examples)), [len(x) for x in examples])
    encoder = encoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    chunks = torch.split(torch.cat(examples), 50)
    h = torch.cat([encoder(chunk.to(memory_format=torch.channels_last)) for chunk in chunks])
    return Clips(h.double().numpy(), clip, labels)


def fit_head(train: Clips) -> Pipeline:
    """Fit the logistic regression on examples, each clip weighing the same."""
    head = make_pipeline(StandardScaler(), LogisticRegression(C=HEAD_C, max_iter=2000))
    return head.fit(train.h, train.labels[train.clip], logisticregression__sample_weight=train.weights())


def head_predictions(head: Pipeline, test: Clips) -> Ints:
    """Predict each clip from the mean of its examples' probabilities."""
    return np.asarray(head.classes_[test.mean(head.predict_proba(test.h)).argmax(1)])


def neighbour_predictions(train: Clips, test: Clips) -> Ints:
    """Predict each clip as the training clip whose mean embedding is nearest in cosine distance."""
    a, b = (c.mean(c.h) / np.linalg.norm(c.mean(c.h), axis=1, keepdims=True).clip(1e-9) for c in (train, test))
    return np.asarray(train.labels[(b @ a.T).argmax(1)])


def metadata_predictions(train: pd.DataFrame, test: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Predict labels from sample rate, channels, encoding and duration: no sound at all."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier

    kinds = ["sample_rate", "channels", "source_encoding"]
    columns = ColumnTransformer([("kind", OneHotEncoder(handle_unknown="ignore"), kinds)], remainder="passthrough")
    forest = make_pipeline(columns, RandomForestClassifier(300, min_samples_leaf=2, random_state=0, n_jobs=1))
    wanted = [*kinds, "seconds"]
    return np.asarray(forest.fit(train[wanted], train["label"]).predict(test[wanted]))


def evaluate_fold(encoder: nn.Module, train: Recordings, test: Recordings) -> pd.DataFrame:
    """Predict every test clip in each of the ways that the model card reports.

    Returns
    -------
    pandas.DataFrame
        One row a test clip: file, label, source_group, background (bool) and a column of predicted
        labels for each way.
    """
    front_end = LogMel()
    names = np.asarray(train.class_names)
    x_train = [examples_of(wave, front_end) for wave in train.waves]
    x_test = [examples_of(wave, front_end) for wave in test.waves]
    quiet_train, quiet_test = [quietest(x) for x in x_train], [quietest(x) for x in x_test]
    narrow = [examples_of(band_limited(wave), front_end) for wave in test.waves]
    h_train, h_test = embed(encoder, x_train, train.labels), embed(encoder, x_test, test.labels)
    h_quiet_train, h_quiet = embed(encoder, quiet_train, train.labels), embed(encoder, quiet_test, test.labels)
    h_narrow = embed(encoder, narrow, test.labels)
    head = fit_head(h_train)
    counts = np.bincount(train.labels, minlength=len(names))
    out = test.table[["file", "label", "source_group"]].copy()
    out["background"] = [has_background(x) for x in x_test]
    out["clip"] = names[head_predictions(head, h_test)]
    out["neighbour"] = names[neighbour_predictions(h_train, h_test)]
    out["common_band"] = names[head_predictions(head, h_narrow)]
    out["quietest"] = names[head_predictions(head, h_quiet)]
    out["quietest_refitted"] = names[head_predictions(fit_head(h_quiet_train), h_quiet)]
    out["quietest_spectrum"] = names[spectrum_predictions(quiet_train, train.labels, quiet_test, test.labels)]
    out["metadata"] = metadata_predictions(train.table, test.table)
    out["majority"] = names[counts.argmax()]
    return out


def spectrum_predictions(train: list[Tensor], train_labels: Ints, test: list[Tensor], test_labels: Ints) -> Ints:
    """Predict clips from the mean spectrum of their quietest frames, without an encoder.

    This is what the background gives away.
    """
    a = Clips(np.stack([x.mean((0, 1, 2)).double().numpy() for x in train]), np.arange(len(train)), train_labels)
    b = Clips(np.stack([x.mean((0, 1, 2)).double().numpy() for x in test]), np.arange(len(test)), test_labels)
    return head_predictions(fit_head(a), b)


def summary(predictions: pd.DataFrame, ways: list[str]) -> pd.DataFrame:
    """Count right clips a way, with Wilson's 95 % interval.

    Index way, columns right, clips, recall (mean over classes), accuracy, low, high.
    """
    rows = {}
    for way in ways:
        right = int((predictions[way] == predictions["label"]).sum())
        recall = float((predictions[way] == predictions["label"]).groupby(predictions["label"]).mean().mean())
        interval = binomtest(right, len(predictions)).proportion_ci(method="wilson")
        low, high = interval.low, interval.high
        rows[way] = {
            "right": right,
            "clips": len(predictions),
            "recall": recall,
            "accuracy": right / len(predictions),
            "low": low,
            "high": high,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def geometry(encoder: nn.Module, recordings: Recordings) -> dict[str, float]:
    """Measure what RELAX depends on: cosines to silence, between and within classes, dead units.

    Dead units never respond.
    """
    front_end = LogMel()
    clips = embed(encoder, [examples_of(wave, front_end) for wave in recordings.waves], recordings.labels)
    with torch.inference_mode():
        silence = encoder(torch.full((1, 1, 96, 64), front_end.config.silence)).double().numpy()[0]
    unit = clips.h / np.linalg.norm(clips.h, axis=1, keepdims=True).clip(1e-9)
    mean = clips.mean(clips.h)
    mean = mean / np.linalg.norm(mean, axis=1, keepdims=True).clip(1e-9)
    cosine = mean @ mean.T
    same = clips.labels[:, None] == clips.labels[None]
    off = ~np.eye(len(mean), dtype=bool)
    to_silence = unit @ (silence / np.linalg.norm(silence))
    return {
        "silence_norm": float(np.linalg.norm(silence)),
        "median_norm": float(np.median(np.linalg.norm(clips.h, axis=1))),
        "zero_embeddings": int((np.linalg.norm(clips.h, axis=1) < 1e-6).sum()),
        "cosine_to_silence_median": float(np.median(to_silence)),
        "cosine_to_silence_p95": float(np.quantile(to_silence, 0.95)),
        "cosine_same_class_median": float(np.median(cosine[same & off])),
        "cosine_other_class_median": float(np.median(cosine[~same])),
        "cosine_other_class_p95": float(np.quantile(cosine[~same], 0.95)),
        "dead_units": int((clips.h.max(0) < 1e-6).sum()),
    }
