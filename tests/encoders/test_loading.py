"""One resolver: every way to say which encoder gives the
same network and front end to explain, fit and bench.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.base.networks import fingerprint
from relax_quantus.encoders import loading
from relax_quantus.errors import ArgumentError, ArgumentTypeError, UnknownNameError
from relax_quantus.frontend import front_end as front_ends

SMALL = rq.LogMelConfig(sample_rate_hz=8000, mel_max_hz=3500.0, mel_bands=20, frames=50)
SOURCE = """
import relax_quantus as rq
from torch import nn

def net():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())

def pair():
    return rq.LogMel(rq.LogMelConfig(sample_rate_hz=8000, mel_max_hz=3500.0, mel_bands=20, frames=50)), net()
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(SOURCE)
    return str(tmp_path / "mine.py")


@pytest.mark.parametrize("argument", [loading.ENCODER, loading.ARGUMENT])
def test_random_weights_are_the_same_for_whoever_asks(argument: str) -> None:
    front_end, one = loading.load("random:of=vggish_mini,seed=1", argument=argument)
    assert front_end.text == "log_mel"
    assert not one.training
    again = rq.load_encoder("random", of="vggish_mini", seed=1)
    assert fingerprint(one) == fingerprint(again) == loading.resolve("random:seed=1")[1]
    assert fingerprint(one) != fingerprint(rq.load_encoder("random", seed=2))
    assert fingerprint(one) != fingerprint(rq.load_encoder("vggish_mini"))


def test_weights_are_an_option_or_a_setting(tmp_path: Path) -> None:
    state = {k: v.contiguous() + 0.01 for k, v in rq.load_encoder("vggish_mini").state_dict().items()}
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    by_option = loading.load("vggish_mini", path)[1]
    by_setting = loading.load(f"vggish_mini:weights={path}", argument=loading.ARGUMENT)[1]
    by_name = rq.load_encoder("vggish_mini", weights=path)
    assert fingerprint(by_option) == fingerprint(by_setting) == fingerprint(by_name)
    assert fingerprint(by_option) != fingerprint(rq.load_encoder("vggish_mini"))
    with pytest.raises(ArgumentError, match="use --weights"):
        loading.load(f"vggish_mini:weights={path}")


def test_objects_are_taken_as_they_are(mine: str) -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    assert loading.load(net)[1] is net
    own = rq.LogMel(SMALL)
    front_end, found = loading.load((own, net))
    assert found is net
    assert front_end.silent_example().shape == (1, 1, 50, 20)
    by_name, _ = loading.load(f"{mine}:pair")
    assert (by_name.axis, by_name.rate_hz) == (front_end.axis, 8000)
    assert loading.load(net, front_end=front_end)[0] is front_end
    assert loading.load(net, front_end=own)[0].axis == front_end.axis


def test_a_callable_becomes_a_module_told_by_what_it_does() -> None:
    def mean(x: Tensor) -> Tensor:
        return x.mean(2).flatten(1)

    _, net = loading.load(mean)
    x = torch.rand(2, 1, 96, 64)
    torch.testing.assert_close(net(x), mean(x))
    assert fingerprint(net) == fingerprint(loading.load(mean)[1]) != fingerprint(loading.load(lambda x: x[:, 0, 0])[1])
    with pytest.raises(ArgumentTypeError, match=r"encoder: expected a torch\.nn\.Module"):
        loading.load(7, argument=loading.ARGUMENT)  # type: ignore[arg-type]


def test_a_run_has_one_front_end(mine: str) -> None:
    assert loading.shared_front_end(("vggish_mini",)).text == "log_mel"
    brought = loading.shared_front_end((f"{mine}:pair",))
    assert brought.rate_hz == 8000
    assert loading.resolve(f"{mine}:pair", brought)[0](brought.silent_example()).shape == (1, 16)
    with pytest.raises(ArgumentError, match="front_end: expected one front end for all encoders"):
        loading.shared_front_end((f"{mine}:pair", "vggish_mini"))
    with pytest.raises(UnknownNameError, match="did you mean 'log_mel'"):
        loading.shared_front_end(("vggish_mini",), "log_mle")


def test_what_does_not_fit_is_said_with_the_examples_shape() -> None:
    small = front_ends.log_mel("small", rq.LogMel(SMALL))
    with pytest.raises(ArgumentError, match=r"examples \(1, 1, 50, 20\), as small makes them"):
        loading.load(nn.Linear(7, 3), front_end=small)
