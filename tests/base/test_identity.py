"""Encoders without weights are told apart by what they are,
in every process, and heads know on which they were fitted.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference.models import rand, relu_encoder
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.base.networks import fingerprint, weights_digest
from relax_quantus.errors import WeightsError
from relax_quantus.heads.file import NO_WEIGHTS

FACTOR = 2.0
Y = np.arange(20) % 2
X = rand(20, 1, 24, 16, dtype=torch.float32) + torch.from_numpy(Y.astype(np.float32))[:, None, None, None]


class Scaled(nn.Module):
    def __init__(self, by: float = 2.0) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.by).mean(2).flatten(1) + 1.5


class Shifted(nn.Module):
    def __init__(self, by: float = 2.0) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.by).mean(2).flatten(1) + 1


class Buffered(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("level", torch.full((16,), value), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2).flatten(1) + self.level


class Calling(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).flatten(1) + 1


class Plain:
    """No module: an object that is called."""

    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, x: Tensor) -> Tensor:
        return x.mean(2).flatten(1) * self.by + 1


def closing_over(value: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: x.mean(2).flatten(1) * value + 1


def with_default(value: float) -> Callable[[Tensor], Tensor]:
    def encode(x: Tensor, by: float = value) -> Tensor:
        return x.mean(2).flatten(1) * by + 1

    return encode


def hooked(value: float) -> nn.Module:
    made = Scaled()
    made.register_forward_hook(lambda module, inputs, output: output + torch.arange(16) * value)
    return made


ENCODERS: dict[str, Callable[[], Any]] = {
    "module": Scaled,
    "another constant": lambda: Scaled(2.5),
    "another class with the same attributes": Shifted,
    "buffer": lambda: Buffered(1.0),
    "another buffer": lambda: Buffered(1.5),
    "structure": lambda: nn.Sequential(nn.AvgPool2d(8), nn.Flatten()),
    "another structure": lambda: nn.Sequential(nn.AvgPool2d(4), nn.Flatten()),
    "another order": lambda: nn.Sequential(nn.Flatten(), nn.Tanh()),
    "another activation": lambda: nn.Sequential(nn.Flatten(), nn.Softsign()),
    "function of torch": lambda: Calling(torch.tanh),
    "another function of torch": lambda: Calling(torch.sigmoid),
    "lambda": lambda: Calling(lambda x: x[..., ::2]),
    "another lambda": lambda: Calling(lambda x: x[..., 1::2]),
    "reads a global": lambda: Calling(lambda x: x**2 * FACTOR),
    "closure": lambda: closing_over(2.0),
    "another closure": lambda: closing_over(3.0),
    "closes over a tensor": lambda: closing_over(torch.linspace(1, 2, 16)),
    "closes over another tensor": lambda: closing_over(torch.linspace(1, 3, 16)),
    "default": lambda: with_default(4.0),
    "another default": lambda: with_default(5.0),
    "partial": lambda: functools.partial(with_default(4.0), by=6.0),
    "object": lambda: Plain(7.0),
    "another object": lambda: Plain(8.0),
    "hook": lambda: hooked(1.0),
    "another hook": lambda: hooked(2.0),
    "function of weights": lambda: functools.partial(nn.Module.__call__, relu_encoder(24 * 16, dtype=torch.float32)),
    "method of other weights": lambda: relu_encoder(24 * 16, seed=1, dtype=torch.float32).forward,
}


def test_different_encoders_have_different_fingerprints_and_like_ones_the_same() -> None:
    found = {name: fingerprint(make()) for name, make in ENCODERS.items()}
    assert "" not in found.values()
    assert NO_WEIGHTS not in found.values()
    assert len(set(found.values())) == len(found)
    assert found == {name: fingerprint(make()) for name, make in ENCODERS.items()}


def test_fingerprints_are_the_same_in_every_process() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import json, test_identity as t\n"
        "print(json.dumps({name: t.fingerprint(make()) for name, make in t.ENCODERS.items()}))"
    )
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == {name: fingerprint(make()) for name, make in ENCODERS.items()}


def test_a_global_that_is_read_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(ENCODERS["reads a global"]())
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert fingerprint(ENCODERS["reads a global"]()) != before


def test_running_a_network_does_not_change_its_fingerprint() -> None:
    for make in ENCODERS.values():
        encoder = make()
        before = fingerprint(encoder)
        encoder(X)
        if isinstance(encoder, nn.Module):
            encoder.train()
        assert fingerprint(encoder) == before


def layer_of_counts() -> nn.Linear:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6.0).reshape(2, 3))
        layer.bias.zero_()
    return layer


def test_weights_are_digested_as_heads_of_version_0_1_0_hold_them() -> None:
    layer = layer_of_counts()
    assert weights_digest(layer) == "71591a8266a071b37e749999914057e7690d9ef4ad89da105694ef7147295ac7"
    assert weights_digest(nn.Sequential(nn.Tanh(), layer)) == weights_digest(layer)
    assert weights_digest(nn.Tanh()) == weights_digest(len) == ""


def test_of_equal_weights_the_structure_makes_the_difference_and_names_do_not() -> None:
    layer = layer_of_counts()
    others = [
        nn.Sequential(layer, nn.Tanh()),
        nn.Sequential(layer, nn.Sigmoid()),
        nn.Sequential(layer, nn.LeakyReLU(0.1)),
        nn.Sequential(layer, nn.LeakyReLU(0.2)),
        nn.Sequential(layer, nn.AvgPool1d(2)),
    ]
    found = [fingerprint(net) for net in (layer, *others)]
    assert len(set(found)) == len(found)
    for same in (nn.Sequential(nn.Identity(), layer), nn.ModuleDict({"a": layer}), layer.train(), torch.compile(layer)):
        assert fingerprint(same) == found[0]
    assert fingerprint(nn.Sequential(layer, nn.ReLU())) == fingerprint(nn.Sequential(layer, nn.ReLU(inplace=True)))


def test_a_head_refuses_equal_weights_in_another_structure(tmp_path: Path) -> None:
    def pooled(pool: nn.Module) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(pool, nn.Flatten(), nn.Linear(24, 5)).eval()

    path = tmp_path / "head"
    rq.EmbeddingClassifier.fit(pooled(nn.AvgPool2d(4)), X, Y).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rq.EmbeddingClassifier.load(path, pooled(nn.AvgPool2d(4)))
    with pytest.raises(WeightsError, match="expected the encoder it was fitted on"):
        rq.EmbeddingClassifier.load(path, pooled(nn.MaxPool2d(4)))


def test_heads_of_version_0_1_0_open_on_their_weights(tmp_path: Path) -> None:
    own, other = (relu_encoder(24 * 16, seed=seed, dtype=torch.float32) for seed in (0, 1))
    path = tmp_path / "head"
    clf = rq.EmbeddingClassifier.fit(own, X, Y)
    clf.save(path)
    as_of_version_0_1_0(path, weights_digest(own))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = rq.EmbeddingClassifier.load(path, own)
    torch.testing.assert_close(again(X), clf(X))
    with pytest.raises(WeightsError, match="expected the encoder it was fitted on"):
        rq.EmbeddingClassifier.load(path, other)


def test_what_cannot_be_looked_into_has_no_fingerprint() -> None:
    script = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(24 * 16, 4)).eval()))
    for opaque in (script, closing_over(object()), Calling(functools.partial(torch.add, torch.Generator()))):
        assert fingerprint(opaque) == ""


@pytest.mark.parametrize("name", ENCODERS)
def test_a_head_loads_on_its_own_encoder_alone(name: str, tmp_path: Path) -> None:
    path, own = tmp_path / "head", ENCODERS[name]()
    clf = rq.EmbeddingClassifier.fit(own, X, Y)
    clf.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for encoder in (own, ENCODERS[name]()):
            again = rq.EmbeddingClassifier.load(path, encoder)
            torch.testing.assert_close(again(X), clf(X), rtol=0, atol=0)
        again.save(tmp_path / "again")
        rq.EmbeddingClassifier.load(tmp_path / "again", own)
    size = clf.head.in_features
    for other, make in ENCODERS.items():
        encoder = make()
        if other != name and encoder(X).shape[1] == size:
            with pytest.raises(WeightsError, match=r"^[^\n]*head: expected the encoder it was fitted on[^\n]*$"):
                rq.EmbeddingClassifier.load(path, encoder)
            with pytest.warns(UserWarning, match="expected the encoder it was fitted on"):
                rq.EmbeddingClassifier.load(path, encoder, strict=False)


def test_an_encoder_that_cannot_be_looked_into_is_told_by_what_it_does(tmp_path: Path) -> None:
    def script(slope: float) -> Any:
        return torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Flatten(), nn.LeakyReLU(slope)).eval()))

    path = tmp_path / "head"
    rq.EmbeddingClassifier.fit(script(0.1), X, Y).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rq.EmbeddingClassifier.load(path, script(0.1))
        rq.EmbeddingClassifier.load(path, nn.Sequential(nn.Flatten(), nn.LeakyReLU(0.1)))
    with pytest.raises(WeightsError, match="expected the encoder it was fitted on"):
        rq.EmbeddingClassifier.load(path, script(0.2))


def as_of_version_0_1_0(path: Path, sha256: str) -> None:
    """Take out of a file what 0.1.0 did not write."""
    with safe_open(path, "pt") as file:
        metadata = {k: v for k, v in file.metadata().items() if k != "probe"} | {"encoder_sha256": sha256}
    save_file({k: v for k, v in load_file(path).items() if k != "probe_embedding"}, path, metadata)


@pytest.mark.parametrize(("name", "sha256"), [("module", NO_WEIGHTS), ("closure", "")])
def test_where_an_old_file_cannot_tell_it_says_so_in_one_line(name: str, sha256: str, tmp_path: Path) -> None:
    path, own = tmp_path / "head", ENCODERS[name]()
    rq.EmbeddingClassifier.fit(own, X, Y).save(path)
    as_of_version_0_1_0(path, sha256)
    line = (
        r"^[^\n]*head: expected a head that says which encoder it was fitted on, got one of \w+, without its weights; "
    )
    for encoder in (own, ENCODERS["another closure"]()):
        with pytest.warns(UserWarning, match=line) as caught:
            rq.EmbeddingClassifier.load(path, encoder)
        assert len(caught) == 1
        assert caught[0].filename == __file__


def test_a_head_on_the_bundled_encoder_is_as_version_0_1_0_wrote_it(tmp_path: Path) -> None:
    encoder = rq.load_encoder("vggish_mini")
    x = rand(8, 1, 96, 64, dtype=torch.float32)
    clf = rq.EmbeddingClassifier.fit(encoder, x, Y[:8])
    path = tmp_path / "head"
    clf.save(path)
    with safe_open(path, "pt") as file:
        metadata, keys = file.metadata(), set(file.keys())
    assert keys == {"weight", "bias"}
    assert "probe" not in metadata
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rq.EmbeddingClassifier.load(path, rq.load_encoder("vggish_mini"))
    with pytest.raises(WeightsError):
        rq.EmbeddingClassifier.load(path, Scaled())
