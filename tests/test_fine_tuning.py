"""Fine-tuning: the better encoder is kept, nothing that was given changes, groups stay on one side, and files bring the weights back."""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus import encoder_training, fine_tuning, logistic
from relax_quantus.encoders.vggish import VGGish
from relax_quantus.errors import ArgumentError, ArgumentTypeError, DataError, EncoderError, WeightsError
from relax_quantus.heads import EmbeddingClassifier
from relax_quantus.holding_out import Labelled, hold_out
from relax_quantus.logistic import fit_logistic
from relax_quantus.modules import fingerprint

T, F = 16, 8
FAST = {"learning_rate": 1e-2}


class Deaf(nn.Module):
    """An encoder that hears the level of one band well and the pattern that tells the classes apart hardly at all."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, (1, F)), nn.BatchNorm2d(6), nn.ReLU())
        self.dropout = nn.Dropout(0.1)
        self.embeddings = nn.Linear(6, 4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            self.embeddings.weight[:, 1:] *= 0.05

    def forward(self, x: Tensor) -> Tensor:
        return self.embeddings(self.dropout(self.features(x).mean((2, 3))))


def data(n: int = 96, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Two classes that differ in whether band 2 and band 5 go up and down together; groups of four."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.1 * torch.randn(n, 1, T, F, generator=generator)
    y = torch.arange(n) // 4 % 2
    beat = torch.randn(n, T, generator=generator).sign()
    x[:, 0, :, 2] += beat
    x[:, 0, :, 5] += beat * (2 * y[:, None] - 1)
    return x, y, torch.arange(n) // 4


@pytest.fixture(scope="module", autouse=True)
def _two_penalties() -> Iterator[None]:
    """Cross-validate two penalties instead of seven, for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic, "REGULARISATION", (0.1, 10.0))
        yield


@pytest.fixture(scope="module")
def base() -> Deaf:
    return Deaf().eval()


@pytest.fixture(scope="module")
def tuned(base: Deaf) -> EmbeddingClassifier:
    x, y, groups = data()
    return EmbeddingClassifier.fit(base, x, y, ["apart", "together"], groups, fine_tune=25, **FAST)


def test_a_better_encoder_is_kept(base: Deaf, tuned: EmbeddingClassifier) -> None:
    record = tuned.fine_tuning
    assert record is not None
    assert record.kept == "fine_tuned"
    assert record.frozen_accuracy < record.tuned_accuracy
    assert record.held_out_groups == 4
    assert record.held_out_examples == 16
    assert 1 <= record.best_epoch <= record.epochs_run == len(record.losses) <= 25
    assert record.losses[record.best_epoch - 1] == min(record.losses)
    assert not record.interrupted
    assert tuned.encoder is not base
    assert tuned.cross_validation.accuracy is None
    new, y, _ = data(seed=7)
    x, labels, groups = data()
    frozen = EmbeddingClassifier.fit(base, x, labels, groups=groups)
    assert (tuned(new).argmax(1) == y).float().mean() > (frozen(new).argmax(1) == y).float().mean() + 0.05


def test_the_head_is_the_logistic_regression_on_the_tuned_embeddings(tuned: EmbeddingClassifier) -> None:
    x, y, groups = data()
    with torch.no_grad():
        h = tuned.encoder(x).double().numpy()
    weight, bias, _ = fit_logistic(h, y.numpy(), groups.numpy(), tuned.cross_validation.C)
    torch.testing.assert_close(tuned.head.weight, torch.from_numpy(weight).float())
    torch.testing.assert_close(tuned.head.bias, torch.from_numpy(bias).float())


def test_a_useless_fine_tuning_changes_nothing(base: Deaf) -> None:
    x, y, groups = data()
    plain = EmbeddingClassifier.fit(base, x, y, groups=groups)
    clf = EmbeddingClassifier.fit(base, x, y, groups=groups, fine_tune=2, learning_rate=1e-12)
    assert clf.fine_tuning.kept == "frozen"
    assert clf.fine_tuning.tuned_accuracy == clf.fine_tuning.frozen_accuracy
    assert clf.encoder is base
    assert plain.fine_tuning is None
    torch.testing.assert_close(clf.head.weight, plain.head.weight, atol=0, rtol=0)
    assert clf.cross_validation == plain.cross_validation


def test_nothing_that_was_given_changes() -> None:
    encoder = Deaf()
    encoder.dropout.eval()
    encoder.features[0].bias.requires_grad_(False)
    before, modes = copy.deepcopy(encoder.state_dict()), [m.training for m in encoder.modules()]
    x, y, groups = data()
    x_before, state, numpy_state = x.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    clf = EmbeddingClassifier.fit(encoder, x, y, groups=groups, fine_tune=12, **FAST)
    assert clf.fine_tuning.kept == "fine_tuned"
    for made in (encoder, clf.encoder):
        assert [m.training for m in made.modules()] == modes
        assert [p.requires_grad for p in made.parameters()] == [
            p is not made.features[0].bias for p in made.parameters()
        ]
        assert all(p.grad is None for p in made.parameters())
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert torch.equal(x, x_before)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    after = clf.encoder.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    statistics = {f"features.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert same == statistics | {"features.0.bias"}


def test_one_seed_one_result(base: Deaf, tuned: EmbeddingClassifier) -> None:
    x, y, groups = data()
    torch.manual_seed(5)
    again = EmbeddingClassifier.fit(base, x, y, ["apart", "together"], groups, fine_tune=25, **FAST)
    assert again.fine_tuning == tuned.fine_tuning
    assert fingerprint(again.encoder) == fingerprint(tuned.encoder)
    other = EmbeddingClassifier.fit(base, x, y, groups=groups, fine_tune=2, seed=1, **FAST)
    assert other.fine_tuning.losses != tuned.fine_tuning.losses[:2]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_trains_where_gradients_are_off(base: Deaf, mode: Any) -> None:
    with mode():
        x, y, groups = data()
        clf = EmbeddingClassifier.fit(base, x, y, groups=groups, fine_tune=12, **FAST)
    assert clf.fine_tuning.kept == "fine_tuned"


def test_frozen_parts_stay(base: Deaf) -> None:
    x, y, groups = data()

    def moved(encoder: nn.Module, **options: Any) -> set[str]:
        copy_, parameters = encoder_training.trainee(encoder, options.get("freeze"))
        assert copy_ is not encoder
        return {name.split(".")[0] for name in parameters}

    assert moved(base) == {"features", "embeddings"}
    assert moved(base, freeze=["features"]) == {"embeddings"}
    assert moved(base, freeze=["features.0", "embeddings"]) == {"features"}
    assert moved(base, freeze="features") == {"embeddings"}
    clf = EmbeddingClassifier.fit(base, x, y, groups=groups, fine_tune=3, freeze=["features"], **FAST)
    for name, value in clf.encoder.features.state_dict().items():
        assert torch.equal(value, base.features.state_dict()[name])


def test_vggish_keeps_its_convolutions_by_default() -> None:
    with torch.device("meta"):
        vggish = VGGish()
    _, default = encoder_training.trainee(vggish, None)
    assert {name.split(".")[0] for name in default} == {"embeddings"}
    _, everything = encoder_training.trainee(vggish, ())
    assert {name.split(".")[0] for name in everything} == {"features", "embeddings"}


def test_training_modes(base: Deaf) -> None:
    copy_, trained = encoder_training.trainee(base, ["embeddings"])
    with encoder_training.training(copy_, trained, 0):
        assert copy_.dropout.training
        assert copy_.features[0].training
        assert not copy_.features[1].training  # running statistics
        assert not copy_.embeddings.training
        first = torch.rand(3)
    with encoder_training.training(copy_, trained, 0):
        assert torch.equal(torch.rand(3), first)
    assert not any(part.training for part in copy_.modules())


def interrupting(after: int) -> Any:
    """A validation loss that is interrupted when it is asked for once more than `after` times."""
    asked, measured = [], encoder_training._validation_loss

    def loss(*arguments: Any) -> float:
        asked.append(1)
        if len(asked) > after:
            raise KeyboardInterrupt
        return measured(*arguments)

    return loss


def test_ctrl_c_keeps_the_best_so_far(base: Deaf, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, groups = data()
    whole = EmbeddingClassifier.fit(base, x, y, groups=groups, fine_tune=5, **FAST)
    monkeypatch.setattr(encoder_training, "_validation_loss", interrupting(5))
    with pytest.warns(UserWarning, match=r"interrupted after 5 of 25 epochs; the best so far, epoch \d, is kept"):
        cut = EmbeddingClassifier.fit(base, x, y, groups=groups, fine_tune=25, **FAST)
    assert cut.fine_tuning == dataclasses.replace(whole.fine_tuning, interrupted=True)
    assert fingerprint(cut.encoder) == fingerprint(whole.encoder)
    torch.testing.assert_close(cut(x), whole(x), atol=0, rtol=0)


def test_ctrl_c_before_the_first_epoch_ends_keeps_the_frozen_encoder(
    base: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, groups = data()
    monkeypatch.setattr(encoder_training, "_validation_loss", interrupting(0))
    with pytest.warns(UserWarning, match="interrupted after 0 of 5 epochs; the encoder as given is kept"):
        clf = EmbeddingClassifier.fit(base, x, y, groups=groups, fine_tune=5, **FAST)
    record = clf.fine_tuning
    assert (record.kept, record.tuned_accuracy, record.best_epoch, record.epochs_run) == ("frozen", None, 0, 0)
    assert clf.encoder is base


def test_patience_ends_training_and_the_best_epochs_weights_come_back(
    base: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, groups = data()
    made = Labelled(x, y.numpy(), groups.numpy(), np.arange(96), ["a", "b"])
    with torch.no_grad():
        h = base(x).double().numpy()
    states = {}
    for epochs in (20, 2):
        losses = iter([0.5, 0.4, 0.6, 0.4, 0.41, float("nan"), 0.9, 0.1])
        monkeypatch.setattr(encoder_training, "_validation_loss", lambda *_, losses=losses: next(losses))
        tuned, record, _ = fine_tuning.fine_tune(base, made, h, encoder_training.Settings(epochs))
        assert (record.best_epoch, record.epochs_run) == (2, min(7, epochs))
        states[epochs] = fingerprint(tuned)
    assert states[20] == states[2]


def test_each_group_is_drawn_alike(base: Deaf, monkeypatch: pytest.MonkeyPatch) -> None:
    """One group of 60 examples among groups of one makes 1/33 of the draws, not two thirds."""
    x, y, _ = data(96)
    groups = torch.where(torch.arange(96) < 60, 0, torch.arange(96))
    y = torch.where(groups == 0, 0, torch.arange(96) % 2)
    x[:60] = 9.0
    seen: list[Tensor] = []
    rolled = encoder_training._rolled
    monkeypatch.setattr(encoder_training, "_rolled", lambda x, g: (seen.append(x), rolled(x, g))[1])
    labelled = Labelled(x, y.numpy(), groups.numpy(), np.arange(96), ["a", "b"])
    monkeypatch.setattr(fine_tuning, "hold_out", lambda *_: (np.arange(96) >= 90, ()))
    settings = encoder_training.Settings(epochs=20, seed=0)
    fine_tuning.fine_tune(base, labelled, base(x).detach().double().numpy(), settings)
    share = float((torch.cat(seen)[:, 0, 0, 0] == 9.0).float().mean())
    assert share == pytest.approx(1 / 31, abs=0.02)


def test_shifts_in_time_are_cyclic_and_mild() -> None:
    x = torch.arange(T, dtype=torch.float32).view(1, 1, T, 1).expand(200, 1, T, F)
    out = encoder_training._rolled(x, torch.Generator().manual_seed(0))
    assert torch.equal(out.sort(2).values, x)
    shift = (-out[:, 0, 0, 0]) % T
    assert set(shift.tolist()) == {0, 1, 2, T - 2, T - 1}
    assert torch.equal(out[..., 0], out[..., -1])


# what is held out


def labelled(labels: list[int], codes: list[int], clips: list[int] | None = None) -> Labelled:
    n = len(labels)
    names = [f"class{c}" for c in range(max(labels) + 1)]
    return Labelled(
        torch.zeros(n), np.array(labels), np.array(codes), np.arange(n) if clips is None else np.array(clips), names
    )


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_on_one_side_and_every_class_on_both(seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 30, 300)
    made = labelled((codes % 3).tolist(), codes.tolist())
    held, by_clip = hold_out(made, np.random.default_rng(seed))
    assert not set(codes[held]) & set(codes[~held])
    assert [len(np.unique(codes[held & (codes % 3 == c)])) for c in range(3)] == [2, 2, 2]
    assert by_clip == ()


def test_a_class_of_one_group_is_split_by_clip() -> None:
    labels, codes = [0] * 20 + [1] * 20, [*range(10)] * 2 + [99] * 20
    clips = [*range(20)] + [100 + i // 2 for i in range(20)]
    made = labelled(labels, codes, clips)
    held, by_clip = hold_out(made, np.random.default_rng(0))
    assert by_clip == ("class1",)
    assert held[20:].sum() == 4
    assert not set(made.clips[held]) & set(made.clips[~held])
    assert not set(made.codes[:20][held[:20]]) & set(made.codes[:20][~held[:20]])


def test_classes_in_one_group_keep_their_last_examples() -> None:
    """Class 2 lives in group 0 only, with class 0: group 0 cannot be held out whole."""
    made = labelled([0, 2, 0, 1, 1, 0, 0, 1], [0, 0, 1, 2, 3, 1, 0, 3])
    for seed in range(10):
        held, _ = hold_out(made, np.random.default_rng(seed))
        assert set(made.labels[~held]) == {0, 1, 2}
        assert not held[[0, 6]].any()


def test_warnings_about_classes_of_one_group(base: Deaf) -> None:
    x, y, _ = data()
    with pytest.warns(UserWarning, match="groups of class") as caught:
        EmbeddingClassifier.fit(base, x, y, ["a", "b"], groups=torch.where(y == 0, torch.arange(96), -1), fine_tune=1)
    assert [str(w.message) for w in caught] == [
        "groups of class 'b': expected at least two, one to hold out, got one; it is validated by clip."
    ]
    assert caught[0].filename == __file__
    clips = torch.where(y == 0, torch.arange(96), -1)
    with pytest.warns(UserWarning, match="'b'.*not validated, as it has one clip only"):
        EmbeddingClassifier.fit(base, x, y, ["a", "b"], groups=clips, clips=clips, fine_tune=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EmbeddingClassifier.fit(base, x, y, ["a", "b"], fine_tune=1)
    with pytest.raises(DataError, match="two groups or clips, one to hold out"):
        EmbeddingClassifier.fit(base, x, y, groups=y, clips=y, fine_tune=1)


# refusals


class WithoutGradients(Deaf):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Uncopyable(Deaf):
    def __deepcopy__(self, memo: Any) -> Deaf:
        raise RuntimeError("no copies")


@pytest.mark.parametrize(
    ("encoder", "options", "error", "match"),
    [
        (lambda x: x.mean((1, 2)), {}, EncoderError, "a torch.nn.Module to fine-tune, got .*leave fine_tune at 0"),
        (Deaf().requires_grad_(False), {}, EncoderError, "parameters to fine-tune, got none"),
        (Deaf(), {"freeze": ["features", "embeddings"]}, EncoderError, "parameters to fine-tune, got none"),
        (Deaf(), {"freeze": ["feature"]}, ArgumentError, "freeze: .*'feature'; nearest are .'features'"),
        (Deaf().to(torch.bfloat16), {}, EncoderError, "float32 weights.*bfloat16"),
        (WithoutGradients(), {}, EncoderError, "gradients of the loss"),
        (Uncopyable(), {}, EncoderError, "can be copied.*no copies"),
        (Deaf(), {"fine_tune": -1}, ArgumentError, "fine_tune: expected an integer of at least 0"),
        (Deaf(), {"fine_tune": 1.5}, ArgumentTypeError, "fine_tune"),
        (Deaf(), {"learning_rate": 0}, ArgumentError, "learning_rate"),
        (Deaf(), {"seed": -1}, ArgumentError, "seed"),
        (Deaf(), {"clips": [1, 2]}, ArgumentError, "clips: expected one clip"),
    ],
)
def test_what_cannot_work_is_refused(encoder: Any, options: dict[str, Any], error: type[Exception], match: str) -> None:
    x, y, groups = data(32)
    with pytest.raises(error, match=match):
        EmbeddingClassifier.fit(encoder, x, y, groups=groups, **({"fine_tune": 1} | options))


# files and explanations


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
