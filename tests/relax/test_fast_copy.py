"""Inference copies: the same embeddings, the caller's module
as it was, and no copy where one could mean something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.models import rand
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import relax_quantus as rq
from relax_quantus.base.networks import module_behind
from relax_quantus.relax.fast_copy import inference_copy

X = rand(2, 1, 12, 8, dtype=torch.float32)


class Net(nn.Module):
    """Convolutions with batch norms that have seen data, and a
    branch on the input's shape, which symbolic tracing refuses.
    """

    def __init__(self, skip: bool = False, twice: bool = False) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.other = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, affine=False)
        self.skip, self.twice = skip, twice
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for value in (*self.parameters(), *(b for b in self.buffers() if b.is_floating_point())):
                value.copy_(0.2 + torch.rand(value.shape, generator=generator))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ValueError
        h = self.first(x)
        z = self.norm(h).relu()
        z = z + h if self.skip else z
        z = self.other(self.second(z))
        z = self.other(self.second(z)) if self.twice else z
        return z.mean((2, 3))


class Viewing(Net):
    """A view of activations, which channels-last order does not allow."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.other(self.second(self.norm(self.first(x)).relu()))
        return z.view(len(z), -1)


def norms(encoder: Any) -> int:
    module = module_behind(encoder) or encoder.module
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def state(module: nn.Module) -> list[Any]:
    """All that a caller could see of a module: tensors,
    where they lie and how, flags, submodules, hooks.
    """
    tensors = [*module.parameters(), *module.buffers()]
    return [
        [(id(t), t.data_ptr(), t.stride(), t._version, t.requires_grad, t.detach().clone().tolist()) for t in tensors],
        [(id(m), m.training, sorted(m.__dict__), len(m._forward_hooks)) for m in module.modules()],
    ]


def check(encoder: Callable[..., Any], tolerance: float = 1e-5) -> Any:
    """Copy, and compare on inputs that the copy was not tried on."""
    other = rand(5, 1, 12, 8, seed=3, dtype=X.dtype)
    with torch.no_grad():
        made = inference_copy(encoder, (X,))
        torch.testing.assert_close(made(other), encoder(other), rtol=tolerance, atol=tolerance)
    return made


def test_batch_norms_are_folded_and_the_embeddings_stay() -> None:
    made = check(Net())
    assert norms(made) == 0
    assert made.module.first.weight.stride() == made.module.first.weight.to(memory_format=torch.channels_last).stride()
    assert made.module.second.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_callers_module_is_not_touched() -> None:
    net = Net()
    before = state(net)
    made = check(net)
    assert made is not net
    assert state(net) == before
    rq.RELAX(net).attribute(X, n_samples=100)
    assert state(net) == before


def test_linear_weights_are_shared_not_copied() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(128, 5)).eval()
    made = check(net)
    assert made.module[3].weight is net[3].weight
    assert made.module[1].weight is not net[1].weight


def test_inputs_come_in_channels_last_order() -> None:
    seen: list[tuple[int, ...]] = []

    class Seeing(Net):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.stride())
            return super().forward(x)

    x = rand(2, 1, 12, 8, dtype=torch.float32)
    made = inference_copy(Seeing(), (x,))
    seen.clear()
    made(x)
    assert seen == [(96, 1, 8, 1)]
    assert x.stride() == (96, 96, 8, 1)


def test_a_convolution_that_something_else_reads_is_not_folded() -> None:
    assert norms(check(Net(skip=True))) == 1


def test_layers_that_run_twice_are_not_folded() -> None:
    assert norms(check(Net(twice=True))) == 1


def test_shared_weights_stay_shared_and_unfolded() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3), nn.Flatten()).eval()
    net[2].weight = net[0].weight
    made = inference_copy(net, (rand(2, 1, 12, 8, dtype=torch.float32),))
    if made is not net:
        assert norms(made) == 1
        assert made.module[0].weight is made.module[2].weight


def test_views_of_activations_are_folded_in_the_usual_order() -> None:
    made = check(Viewing())
    assert norms(made) == 0
    assert made.module.second.weight.is_contiguous()


def test_bound_methods_run_on_the_copy() -> None:
    anchors = rand(3, 4, seed=4, dtype=torch.float32)
    model = rq.SimilarityModel(Net(), anchors)
    made = check(model.embed)
    assert norms(made) == 0
    assert norms(model) == 2


def hooked(net: Net) -> None:
    net.norm.register_forward_hook(lambda *_: None)


def parametrised(net: Net) -> None:
    parametrizations.weight_norm(net.second)


def partly_training(net: Net) -> None:
    net.other.train()


@pytest.mark.parametrize("change", [hooked, parametrised, partly_training, nn.Module.train])
def test_modules_that_are_more_than_their_weights_are_used_as_they_are(change: Callable[[Any], Any]) -> None:
    net = Net()
    change(net)
    before = state(net)
    assert inference_copy(net, (X,)) is net
    assert state(net) == before


def test_other_callables_are_used_as_they_are() -> None:
    net = Net()

    def encoder(x: Tensor) -> Tensor:
        return net(x)

    assert inference_copy(encoder, (X,)) is encoder


def test_without_anything_to_gain_nothing_runs() -> None:
    calls: list[int] = []

    class Counting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    net = nn.Sequential(nn.Flatten(), Counting(96, 4)).eval()
    assert inference_copy(net, (X,)) is net
    mini = rq.load_encoder("vggish_mini")
    assert inference_copy(mini, (rand(2, 1, 96, 64, dtype=torch.float32),)) is mini
    assert not calls


def test_a_copy_that_does_not_agree_is_not_used() -> None:
    class Looking(Net):
        """Does something else once its batch norm is gone."""

        def forward(self, x: Tensor) -> Tensor:
            h = super().forward(x)
            return h if isinstance(self.norm, nn.BatchNorm2d) else h + 1

    net = Looking()
    assert inference_copy(net, (X,)) is net


def test_an_encoder_that_breaks_says_so_itself() -> None:
    class Broken(Net):
        def forward(self, x: Tensor) -> Tensor:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        inference_copy(Broken(), (X,))


def test_training_on_changes_what_is_explained() -> None:
    """Nothing is kept between calls, so no stale copy can be."""
    net = Net()
    relax = rq.RELAX(net, similarity="dot")
    before = relax.attribute(X, n_samples=100)
    with torch.no_grad():
        net.norm.bias.add_(1.0)
    after = relax.attribute(X, n_samples=100)
    fresh = Net()
    with torch.no_grad():
        fresh.norm.bias.add_(1.0)
    assert not torch.allclose(before, after)
    assert torch.equal(after, rq.RELAX(fresh, similarity="dot").attribute(X, n_samples=100))


def test_weights_for_autocast_are_kept_in_its_type() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(240, 5)).eval()
    made = inference_copy(net, (X,), torch.bfloat16)
    assert {p.dtype for p in made.module.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(made(X).float(), net(X).float(), rtol=0.03, atol=0.03)


@pytest.mark.parametrize("masks", ["random", "time"])
def test_maps_with_and_without_a_copy_agree(masks: str) -> None:
    """The same network behind a function is used as it is."""
    net = Net()
    copied = rq.RELAX(net, masks).explain(X, n_samples=150)
    plain = rq.RELAX(lambda x: net(x), masks).explain(X, n_samples=150)
    torch.testing.assert_close(copied.importance, plain.importance, rtol=0, atol=1e-6)
    torch.testing.assert_close(copied.standard_error, plain.standard_error, rtol=1e-3, atol=1e-7)
