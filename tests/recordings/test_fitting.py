"""`fit_recordings`: a folder of recordings becomes a
classifier in one call, as ``relax-quantus fit`` makes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from command_line import call
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.audio.quality import AudioWarning
from relax_quantus.base.networks import fingerprint
from relax_quantus.errors import AudioError, DataError, EncoderError
from relax_quantus.frontend.front_end import log_mel
from relax_quantus.recordings.fitting import ClassCount

pytestmark = pytest.mark.usefixtures("one_thread")


class Counting:
    """What is told of progress, instead of a bar."""

    calls: list[tuple[str, str, int, int]]

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, total: int, what: str, unit: str, begun: int = 0) -> Counting:
        self.calls.append((what, unit, total, 0))
        return self

    def update(self, n: int = 1) -> None:
        what, unit, total, done = self.calls[-1]
        self.calls[-1] = what, unit, total, done + n

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_it_is_what_the_command_makes(classes: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        fit = rq.fit_recordings(classes, "vggish_mini", seed=3)
    assert isinstance(fit, rq.RecordingFit)
    assert fit.left_out == ()
    assert fit.classes == (ClassCount("high", 2, 2, 2), ClassCount("low", 2, 2, 2))
    said = call("fit", classes, "--out", tmp_path / "head", "--seed", 3)
    assert said.stdout.splitlines() == [*fit.lines(), str(tmp_path / "head")]
    encoder = rq.load_encoder("vggish_mini")
    loaded = rq.EmbeddingClassifier.load(tmp_path / "head", encoder)
    assert loaded.made_with == fit.classifier.made_with
    assert loaded.class_names == fit.classifier.class_names == ("high", "low")
    torch.testing.assert_close(loaded.head.weight, fit.classifier.head.weight, rtol=0, atol=0)
    x = rq.load_examples(classes / "low" / "0.wav")
    assert fit.classifier.class_names[int(fit.classifier(x)[0].argmax())] == "low"


@pytest.mark.parametrize("with_front_end", [False, True])
def test_an_encoder_may_be_an_object(classes: Path, with_front_end: bool) -> None:
    encoder = rq.load_encoder("vggish_mini")
    fit = rq.fit_recordings(classes, (log_mel(), encoder) if with_front_end else encoder)
    assert fit.classifier.encoder is encoder
    assert fit.classifier.made_with["encoder"] == type(encoder).__name__
    assert fit.classifier.made_with["front_end"] == "log_mel"
    by_name = rq.fit_recordings(classes)
    torch.testing.assert_close(by_name.classifier.head.weight, fit.classifier.head.weight, rtol=0, atol=0)


def test_what_cannot_be_read_is_left_out_with_a_warning_or_told(classes: Path) -> None:
    bad = classes / "low" / "bad.wav"
    bad.write_text("no")
    with pytest.warns(AudioWarning, match=r"left out .*bad\.wav") as caught:
        fit = rq.fit_recordings(classes)
    assert len([w for w in caught if issubclass(w.category, AudioWarning)]) == 1
    ((path, problem),) = fit.left_out
    assert path == bad
    assert isinstance(problem, AudioError)
    told: list[tuple[Path, Exception]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", AudioWarning)
        rq.fit_recordings(classes, when_left_out=lambda *it: told.append(it))
    assert [path for path, _ in told] == [bad]


class Picky(nn.Module):
    """An encoder that refuses some examples."""

    def __init__(self, refuses: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.refuses = refuses

    def forward(self, x: Tensor) -> Tensor:
        if any(self.refuses(one) for one in x):
            raise RuntimeError("not this one")
        return x.mean((1, 2))


def test_what_the_encoder_refuses_is_left_out_and_a_class_without_any_is_named(
    classes: Path, tone: Callable[..., Path]
) -> None:
    tone(str(classes.relative_to(classes.parent) / "middle" / "0.wav"), 1500.0)
    unwanted = rq.load_examples(classes / "middle" / "0.wav")[0]
    encoder = Picky(lambda x: torch.equal(x, unwanted))
    counting = Counting()
    with pytest.warns(UserWarning, match="class 'middle': no usable recording"):
        fit = rq.fit_recordings(classes, encoder, show_progress=counting, when_left_out=lambda *_: None)
    assert [(path.parent.name, str(problem)) for path, problem in fit.left_out] == [("middle", "not this one")]
    assert fit.classifier.class_names == ("high", "low")
    assert counting.calls == [("read", "clip", 5, 5), ("check", "clip", 5, 5)]


def test_an_encoder_that_fails_on_all_together_says_why(classes: Path) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 3)

    with pytest.raises(EncoderError, match="differ between examples"):
        rq.fit_recordings(classes, Constant())


def test_fine_tuning_is_told_of_too(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.5, 0.75])
    monkeypatch.setattr("relax_quantus.heads.fine_tuning._accuracy", lambda *_: next(accuracies))
    counting = Counting()
    encoder = rq.load_encoder("vggish_mini")
    before = fingerprint(encoder)
    fit = rq.fit_recordings(classes, encoder, fine_tune=1, show_progress=counting)
    assert [what for what, *_ in counting.calls] == ["read", "fine-tune"]
    assert counting.calls[-1][2] == counting.calls[-1][3] > 0
    assert fingerprint(encoder) == before != fingerprint(fit.classifier.encoder)
    assert "kept: the fine-tuned encoder" in fit.lines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"fine_tune": -1}, "fine_tune: expected an integer"),
        ({"seed": -1}, "seed: expected an integer"),
        ({"resampler": "sox"}, "resampler: expected"),
        ({"encoder": "vgish"}, "did you mean 'vggish'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(
    arguments: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        rq.fit_recordings(tmp_path / "none", **arguments)


def test_fewer_than_two_usable_classes_are_refused(classes: Path) -> None:
    for path in (classes / "high").iterdir():
        path.write_text("no")
    with pytest.raises(DataError, match="usable recordings of at least two classes, got 1"):
        rq.fit_recordings(classes, when_left_out=lambda *_: None)


def test_fine_tuning_follows_the_seed(classes: Path) -> None:
    encoder = rq.load_encoder("vggish_mini")
    losses = []
    for seed in (5, 5, 6):
        tuning = rq.fit_recordings(classes, encoder, fine_tune=1, seed=seed).classifier.fine_tuning
        assert tuning is not None
        losses.append(tuning.losses)
    assert losses[0] == losses[1] != losses[2]
