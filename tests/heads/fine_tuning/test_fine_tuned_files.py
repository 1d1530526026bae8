"""Files bring the tuned encoder's weights back, and explanations are of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from deaf_encoder import FAST, Deaf, data
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import relax_quantus as rq
from relax_quantus.base.networks import fingerprint
from relax_quantus.errors import WeightsError
from relax_quantus.heads.classifier import EmbeddingClassifier


def test_the_file_brings_the_tuned_encoder_back(base: Deaf, tuned: EmbeddingClassifier, tmp_path: Path) -> None:
    path, twice = tmp_path / "head", tmp_path / "twice"
    tuned.save(path)
    before = fingerprint(base)
    again = EmbeddingClassifier.load(path, base)
    x, _, _ = data(seed=3)
    torch.testing.assert_close(again(x), tuned(x), atol=0, rtol=0)
    assert again.fine_tuning == tuned.fine_tuning
    assert again.encoder is not base
    assert fingerprint(base) == before != fingerprint(again.encoder) == fingerprint(tuned.encoder)
    again.save(twice)
    with safe_open(path, "pt") as file, safe_open(twice, "pt") as other:
        assert file.metadata() == other.metadata()
    assert all(torch.equal(value, load_file(twice)[name]) for name, value in load_file(path).items())
    with safe_open(path, "pt") as file:
        metadata, names = file.metadata(), set(file.keys())
    assert metadata["version"] == "2"
    assert metadata["encoder_sha256"] == before
    assert json.loads(metadata["fine_tuning"])["kept"] == "fine_tuned"
    weights = {f"encoder.{name}" for name, _ in base.named_parameters()}
    assert names == {"weight", "bias"} | weights  # no running statistics: they did not change
    copied = copy.deepcopy(tuned)
    torch.testing.assert_close(copied(x), tuned(x))


def test_only_what_changed_is_saved(base: Deaf, tmp_path: Path) -> None:
    x, y, groups = data()
    clf = EmbeddingClassifier.fit(base, x, y, groups=groups, fine_tune=25, freeze=["features"], **FAST)
    kept = clf.fine_tuning.kept == "fine_tuned"
    clf.save(tmp_path / "head")
    expected = {"weight", "bias"} | ({"encoder.embeddings.weight", "encoder.embeddings.bias"} if kept else set())
    assert set(load_file(tmp_path / "head")) == expected
    assert EmbeddingClassifier.load(tmp_path / "head", base).fine_tuning == clf.fine_tuning


def test_files_without_encoder_weights_are_as_they_were(base: Deaf, tmp_path: Path) -> None:
    x, y, groups = data()
    EmbeddingClassifier.fit(base, x, y, groups=groups).save(tmp_path / "plain")
    with safe_open(tmp_path / "plain", "pt") as file:
        assert file.metadata()["version"] == "1"
        assert "fine_tuning" not in file.metadata()
    loaded = EmbeddingClassifier.load(tmp_path / "plain", base)
    assert loaded.fine_tuning is None
    assert loaded.encoder is base


def test_files_that_do_not_fit_are_refused(base: Deaf, tuned: EmbeddingClassifier, tmp_path: Path) -> None:
    path = tmp_path / "head"
    tuned.save(path)
    with pytest.raises(WeightsError, match="the encoder it was fitted on"):
        EmbeddingClassifier.load(path, tuned.encoder)
    with pytest.raises(WeightsError, match=r"expected Deaf with its 6 fine-tuned weights, got Sequential"):
        EmbeddingClassifier.load(path, nn.Sequential(base))
    with (
        pytest.warns(UserWarning, match="got function"),
        pytest.raises(WeightsError, match="load the encoder that was fine-tuned"),
    ):
        EmbeddingClassifier.load(path, lambda x: x)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    damaged = {**tensors, "encoder.embeddings.bias": tensors["encoder.embeddings.bias"] + 1}
    save_file(damaged, path, metadata)
    with pytest.raises(WeightsError, match="fine-tuned weights of SHA-256"):
        EmbeddingClassifier.load(path, base)
    without = {name: value for name, value in tensors.items() if not name.startswith("encoder.")}
    for contents, changed in ((without, {}), (tensors, {"version": "1"}), (tensors, {"fine_tuning": '{"kept": "x"}'})):
        save_file(contents, path, {**metadata, **changed})
        with pytest.raises(WeightsError, match="a whole head"):
            EmbeddingClassifier.load(path, base)
    save_file(tensors, path, {**metadata, "version": "3"})
    with pytest.raises(WeightsError, match="format version 1 or 2, got 3"):
        EmbeddingClassifier.load(path, base)


def test_explanations_are_of_the_tuned_encoder(base: Deaf, tuned: EmbeddingClassifier) -> None:
    x, _, _ = data(4)
    options = {"masks": "random", "n_samples": 20, "baselines": "zero"}
    ours = rq.explain_func(tuned, x, **options)
    np.testing.assert_array_equal(ours, rq.explain_func(tuned.encoder, x, **options))
    assert not np.allclose(ours, rq.explain_func(base, x, **options))
    torch.testing.assert_close(tuned.embed(x), tuned.encoder(x))
