"""Captum's own tables for FeatureAblation, through leave-one-out masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import FeatureAblation
from reference.models import LeaveOneOut
from torch import Tensor, nn

import relax_quantus as rq


class MultiLayer(nn.Module):
    """Two linear layers with a ReLU between, weights written
    out; the model of Captum's own FeatureAblation tests.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        with torch.no_grad():
            self.first.weight.fill_(1.0)
            self.first.bias.copy_(torch.tensor([-10.0, 1.0, 1.0, 1.0]))
            self.second.weight.fill_(1.0)
            self.second.bias.copy_(torch.tensor([-1.0, 1.0]))
        self.double()

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        result: Tensor = self.second(torch.relu(self.first(x if add is None else x + add)))
        return result


class MultiInput(nn.Module):
    """Several inputs, summed and scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MultiLayer()

    def forward(
        self, a: Tensor, b: Tensor, c: Tensor | None = None, add: Tensor | None = None, scale: int = 1
    ) -> Tensor:
        return self.model(scale * (a + b + (0 if c is None else c)), add)  # type: ignore[no-any-return]


class Boolean(nn.Module):
    """Boolean inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MultiLayer()

    def forward(self, x: Tensor, add: Tensor | None = None, scale: float = 10.0) -> Tensor:
        assert x.dtype == torch.bool
        return self.model(x.double() * scale, add)  # type: ignore[no-any-return]


class Convolution(nn.Module):
    """One convolution, ReLU and a linear layer, for 4 x 4 images."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 2, 3), nn.Linear(8, 4)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.stack([torch.ones(1, 3, 3), -torch.ones(1, 3, 3)]))
            self.convolution.bias.copy_(torch.tensor([-50.0, 75.0]))
            self.linear.weight.copy_(torch.cat([torch.ones(4, 5), -torch.ones(4, 3)], 1))
            self.linear.bias.zero_()
        self.double()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        features = torch.relu(self.convolution(x if y is None else x + y)).reshape(-1, 8)
        return torch.relu(self.linear(features))


def d(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


IMAGE = torch.arange(16, dtype=torch.float64).reshape(1, 1, 4, 4)
BLOCKS = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]).reshape(1, 1, 4, 4)
SINGLE = d([20.0, 50.0, 30.0])
BATCH = d([20.0, 50.0, 30.0], [2.0, 10.0, 3.0])
A, B, C = (
    d([23.0, 100.0, 0.0], [20.0, 50.0, 30.0]),
    d([20.0, 50.0, 30.0], [0.0, 100.0, 0.0]),
    d([0.0, 100.0, 10.0], [20.0, 10.0, 13.0]),
)
Case = tuple[Callable[..., Any], tuple[Tensor, ...], dict[str, Any]]
CASES: dict[str, Case] = {
    "one example": (MultiLayer(), (SINGLE,), {"target": 0}),
    "grouped": (MultiLayer(), (SINGLE,), {"target": 0, "feature_mask": (torch.tensor([[0, 0, 1]]),)}),
    "unordered groups": (MultiLayer(), (SINGLE,), {"target": 1, "feature_mask": (torch.tensor([[2, 5, 2]]),)}),
    "a baseline": (MultiLayer(), (SINGLE,), {"target": 0, "baselines": 4}),
    "a tensor baseline": (MultiLayer(), (SINGLE,), {"target": 0, "baselines": d([10.0, 40.0, 0.5])}),
    "a batch": (MultiLayer(), (BATCH,), {"target": 0}),
    "a batch, targets each": (MultiLayer(), (BATCH,), {"target": torch.tensor([1, 0])}),
    "a batch, additional argument": (MultiLayer(), (BATCH,), {"target": 0, "additional_forward_args": d([1.0, 2.0, 3.0], [-30.0, 0.0, 9.0])}),
    "two inputs": (MultiInput(), (A, B), {"target": 0}),
    "three inputs, scaled": (MultiInput(), (A, B, C), {"target": 0, "additional_forward_args": (None, 3)}),
    "three inputs, groups": (
        MultiInput(),
        (A, B, C),
        {
            "target": 1,
            "additional_forward_args": (d([1.0, 1.0, 1.0], [2.0, -8.0, 3.0]), 2),
            "feature_mask": (torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])),
        },
    ),
    "three inputs, baselines": (
        MultiInput(), (A, B, C), {"target": 0, "additional_forward_args": (None, 3), "baselines": (2, 0.5, d([1.0, 2.0, 3.0]))},
    ),
    "boolean": (Boolean(), (torch.tensor([[True, False, True]]),), {"target": 0}),
    "boolean, groups": (Boolean(), (torch.tensor([[True, True, False]]),), {"target": 0, "feature_mask": (torch.tensor([[1, 0, 1]]),)}),
    "boolean, baseline": (Boolean(), (torch.tensor([[True, False, True]]),), {"target": 0, "baselines": True}),
    "boolean, argument": (Boolean(), (torch.tensor([[False, True, True]]),), {"target": 1, "additional_forward_args": d([5.0, 0.0, -20.0])}),
    "image": (Convolution(), (IMAGE,), {"target": 0}),
    "image, blocks": (Convolution(), (IMAGE,), {"target": 0, "feature_mask": (BLOCKS,)}),
    "two images": (Convolution(), (IMAGE, 2 * IMAGE.flip(-1)), {"target": 2, "feature_mask": (BLOCKS, BLOCKS.flip(-1))}),
}  # fmt: skip


def difference(h: Tensor, masked: Tensor) -> Tensor:
    return (h - masked).squeeze(-1)


@pytest.mark.parametrize("per_eval", [1, 4, None])
@pytest.mark.parametrize("case", CASES)
def test_feature_ablation_tables(case: str, per_eval: int | None) -> None:
    """FA_g = sum of C over all groups - (G - 1) C_g, with
    G groups in all tensors together, each left out once.
    """
    model, inputs, keywords = CASES[case]
    groups = keywords.get("feature_mask") or tuple(torch.arange(x[0].numel()).reshape(1, *x.shape[1:]) for x in inputs)
    total = sum(int(torch.unique(g).numel()) for g in groups)
    maps = rq.RELAX(model, masks=LeaveOneOut(), similarity=difference).attribute(
        inputs, n_samples=total, perturbations_per_eval=per_eval, **keywords
    )
    sums = torch.zeros(len(inputs[0]), dtype=torch.float64)
    for found, group in zip(maps, groups, strict=True):
        flat = group.flatten()
        for g in torch.unique(flat):
            sums += found.flatten(1)[:, int((flat == g).nonzero()[0])].double()
    table = FeatureAblation(model).attribute(inputs, **{**keywords, "feature_mask": offset(groups)})
    for found, expected in zip(maps, table, strict=True):
        ours = sums.reshape(-1, *[1] * (found.ndim - 1)) - (total - 1) * found.double()
        atol = 1e-9 if found.dtype == torch.float64 else 2e-4
        torch.testing.assert_close(ours, expected.double(), rtol=0, atol=atol)
    assert max(float(t.abs().max()) for t in table) > 0


def offset(groups: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Number the groups of each tensor on from the last
    tensor's, so that Captum ablates them one at a time.
    """
    numbered, start = [], 0
    for group in groups:
        index = torch.unique(group, return_inverse=True)[1]
        numbered.append(index + start)
        start += int(index.max()) + 1
    return tuple(numbered)
