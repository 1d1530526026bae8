"""The contract for networks that hear: what is read, how blocks are cut, what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import pytest
import torch
from tiny_networks import CLASSES, RATE, SAMPLES, WIDTH, tiny, waves
from torch import Tensor, nn

from relax_quantus.base.networks import fingerprint
from relax_quantus.encoders.contract import HearingNetwork, WaveformNetwork, as_network
from relax_quantus.errors import ArgumentError, ArgumentTypeError, EncoderError, ShapeError

FACTS = {"sample_rate_hz": RATE, "example_samples": SAMPLES, "output_names": ("embedding", "logits")}


class Blocks(WaveformNetwork):
    """Notes the blocks that it is given, and embeds each row by its sum."""

    def __init__(self, **facts: object) -> None:
        super().__init__(sample_rate_hz=8, example_samples=3, output_names=("embedding", "logits"), **facts)  # type: ignore[arg-type]
        self.blocks: list[Tensor] = []

    def run(self, block: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        self.blocks.append(block)
        return {"embedding": block.sum(1, keepdim=True), "logits": block[:, :2]}


def test_several_outputs_come_of_one_run() -> None:
    net, x = Blocks(), torch.rand(5, 3)
    found = net.outputs(x)
    assert len(net.blocks) == 1
    torch.testing.assert_close(found["embedding"], net(x))
    torch.testing.assert_close(found["logits"], net.logits(x))
    assert list(net.outputs(x, ("logits",))) == ["logits"]


@pytest.mark.parametrize(("facts", "sizes"), [({"max_batch": 2}, [2, 2, 1]), ({"fixed_batch": 4}, [4, 4]), ({}, [5])])
def test_blocks_are_those_that_the_network_takes(facts: dict[str, int], sizes: list[int]) -> None:
    net, x = Blocks(**facts), torch.rand(5, 3)
    torch.testing.assert_close(net(x), x.sum(1, keepdim=True))
    assert [len(block) for block in net.blocks] == sizes


def test_a_fixed_batch_is_filled_with_its_last_row_and_gradients_are_those_of_the_rows() -> None:
    net, x = Blocks(fixed_batch=4), torch.rand(5, 3, requires_grad=True)
    net(x).sum().backward()
    torch.testing.assert_close(net.blocks[1], x[4:].expand(4, 3))
    torch.testing.assert_close(x.grad, torch.ones(5, 3))


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.zeros(2, 4), ShapeError, "waveforms of shape (n, 3)"),
        (torch.zeros(2, 2, 3), ShapeError, "waveforms of shape (n, 3)"),
        (torch.zeros(3), ShapeError, "at least one row"),
        (torch.zeros(0, 3), ShapeError, "at least one row"),
        (torch.zeros(2, 3, dtype=torch.int64), ArgumentTypeError, "floating-point"),
    ],
)
def test_other_shapes_are_one_line(x: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        Blocks()(x)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_channel_axis_is_taken_away() -> None:
    x = torch.rand(2, 3)
    torch.testing.assert_close(Blocks()(x[:, None]), Blocks()(x))


def test_output_names_and_their_shapes_are_checked() -> None:
    with pytest.raises(ArgumentError, match="did you mean 'logits'"):
        Blocks().outputs(torch.rand(1, 3), ("logit",))
    with pytest.raises(EncoderError, match="as many class scores as labels, 3"):
        Blocks(labels=("a", "b", "c")).logits(torch.rand(1, 3))
    net = as_network(lambda x: x[:, :, None], sample_rate_hz=8, example_samples=None)
    with pytest.raises(EncoderError, match=r"embedding of shape \(n, D\) from <lambda>"):
        net(torch.rand(1, 3))


def test_a_tuple_is_read_in_the_order_of_the_names() -> None:
    net, x = as_network(tiny(), **FACTS, labels=("a", "b", "c")), waves(3)
    embedding, logits = tiny()(x)
    torch.testing.assert_close(net(x), embedding)
    torch.testing.assert_close(net.logits(x), logits)
    assert (embedding.shape[1], logits.shape[1]) == (WIDTH, CLASSES)
    assert isinstance(net, HearingNetwork)
    assert not net.training


def test_attributes_are_read_and_facts_go_before_them() -> None:
    module = nn.Flatten()
    module.sample_rate_hz, module.example_samples, module.max_batch = 32_000, 7, 2  # type: ignore[assignment]
    net = as_network(module, max_batch=5)
    assert (net.sample_rate_hz, net.example_samples, net.max_batch, net.labels) == (32_000, 7, 5, ())
    assert net.range_hz == (0.0, 16_000.0)
    assert as_network(net) is net


def test_what_is_missing_is_named_in_one_line() -> None:
    with pytest.raises(ArgumentError) as caught:
        as_network(nn.Flatten())
    assert str(caught.value) == (
        "sample_rate_hz: expected sample_rate_hz and example_samples of Flatten, got no such attribute; set them on it "
        "or pass sample_rate_hz=, example_samples= (example_samples=None: any length)."
    )
    with pytest.raises(ArgumentTypeError, match="did you mean 'labels'"):
        as_network(nn.Flatten(), label=("a",))
    with pytest.raises(ArgumentError, match="say which output scores the classes"):
        as_network(nn.Flatten(), sample_rate_hz=8, example_samples=3, labels=("a",))
    with pytest.raises(ArgumentTypeError, match="a module or a callable"):
        as_network(3)


def test_methods_of_the_users_are_called_once() -> None:
    class Own(nn.Module):
        sample_rate_hz, example_samples = 8, None
        output_names = ("embedding", "logits")
        calls = 0

        def outputs(self, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
            self.calls += 1
            return {name: x[:, : 1 + len(name)] for name in names}

    own = Own()
    net = as_network(own)
    assert {name: part.shape[1] for name, part in net.outputs(torch.rand(2, 20)).items()} == {
        "embedding": 10,
        "logits": 7,
    }
    assert own.calls == 1


def test_class_scores_alone_are_explained_and_this_is_said_once() -> None:
    net = as_network(nn.Linear(3, 2), sample_rate_hz=8, example_samples=3, output_names=("logits",))
    with pytest.warns(UserWarning, match="Linear gives class scores alone"):
        scores = net(torch.ones(1, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(net(torch.ones(1, 3)), scores)
        torch.testing.assert_close(net.logits(torch.ones(1, 3)), scores)
    alone = as_network(nn.Linear(3, 2), sample_rate_hz=8, example_samples=3)
    with pytest.raises(ArgumentError, match="a network that scores classes"):
        alone.logits(torch.ones(1, 3))


def test_fingerprints_follow_weights_rate_and_window() -> None:
    def made(**facts: object) -> WaveformNetwork:
        return as_network(tiny(), **{**FACTS, **facts})

    assert made().fingerprint() == made(labels=("a", "b", "c"), max_batch=3).fingerprint() == fingerprint(made())
    others = [made(sample_rate_hz=8_000), made(example_samples=None), made(output_names=("logits", "embedding"))]
    changed = made()
    with torch.no_grad():
        changed.network.dense.bias += 1  # type: ignore[union-attr, operator]
    prints = {net.fingerprint() for net in (made(), changed, *others)}
    assert len(prints) == 5
    assert Blocks().fingerprint() != ""
    opaque = as_network(torch.jit.trace(nn.Flatten(), torch.rand(1, 3)), sample_rate_hz=8, example_samples=3)
    # nothing tells it from others: a head looks at examples instead
    assert opaque.fingerprint() == ""


@pytest.mark.parametrize("range_hz", [(5.0, 1.0), (0.0, 9.0), (-1.0, 2.0)])
def test_bands_that_cannot_be_heard_are_refused(range_hz: tuple[float, float]) -> None:
    with pytest.raises(ArgumentError, match="two frequencies from 0 to 4 Hz"):
        Blocks(range_hz=range_hz)
