"""Fine-tuning: the better encoder is kept, nothing
that was given changes, and it can be stopped.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from deaf_encoder import FAST, Deaf, F, T, data
from torch import Tensor, nn

from relax_quantus.base.networks import fingerprint
from relax_quantus.encoders.vggish import VGGish
from relax_quantus.heads import fine_tuning
from relax_quantus.heads import training as encoder_training
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.heads.holding_out import Labelled
from relax_quantus.heads.logistic import fit_logistic


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
