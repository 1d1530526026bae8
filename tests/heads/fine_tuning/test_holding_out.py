"""What fine-tuning is judged on: groups stay on one side; and what it refuses."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from deaf_encoder import Deaf, data, labelled
from torch import Tensor

from relax_quantus.errors import ArgumentError, ArgumentTypeError, DataError, EncoderError
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.heads.holding_out import hold_out

# what is held out


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
