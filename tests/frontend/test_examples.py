"""`Examples`: what keeps what they are, what loses
it, and that all that takes a tensor takes them.
"""

from __future__ import annotations

import copy
import io
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import relax_quantus as rq
from relax_quantus.frontend import BinAxis, Examples, LogMelAxis, SampleAxis
from relax_quantus.frontend import front_end as front_ends
from relax_quantus.frontend.examples import plain, without_source

METADATA = ("axis", "silence", "sample_rate_hz", "front_end")
WAVE = 0.1 * np.random.default_rng(0).standard_normal(48_000).astype(np.float32)


@pytest.fixture
def x() -> Examples:
    made = rq.LogMel()(WAVE)
    assert isinstance(made, Examples)
    return made


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "clip.wav", WAVE, 16_000, subtype="FLOAT")
    return tmp_path / "clip.wav"


class Decibels(nn.Module):
    """Power of windows of 400 samples in 4 bands, in dB with a floor of -80."""

    sample_rate_hz = 16_000

    def forward(self, wave: Tensor) -> Tensor:
        power = wave.unfold(-1, 400, 400).reshape(*wave.shape[:-1], -1, 4, 100).square().mean(-1)
        return 10 * (power + 1e-8).log10().transpose(-1, -2)


def test_what_vggish_makes_says_what_it_is(x: Examples, clip: Path) -> None:
    assert isinstance(x.source, Tensor)
    assert x.source.data_ptr() == torch.from_numpy(WAVE).data_ptr()
    assert (x.axis, x.sample_rate_hz, x.front_end) == (LogMelAxis(), 16_000, "log_mel")
    assert x.silence == pytest.approx(math.log(0.01))
    for hop_s in (None, 0.48):
        read = rq.load_examples(clip, hop_s=hop_s)
        assert isinstance(read, Examples)
        assert (read.axis, read.source.shape) == (LogMelAxis(), (48_000,))


def test_another_log_mel_has_its_own_axis_and_silence() -> None:
    config = rq.LogMelConfig(sample_rate_hz=8000, mel_max_hz=3500.0, log_offset=1e-3, mel_bands=20)
    x = rq.LogMel(config)(torch.zeros(20_000))
    assert (x.axis, x.sample_rate_hz) == (LogMelAxis(config), 8000)
    assert x.silence == pytest.approx(float(x[0].max()))
    assert "mel_bands=20" in x.front_end


def test_a_transform_says_the_silence_of_this_recording(clip: Path) -> None:
    x = rq.TransformFrontEnd(Decibels(), frames=10).load_examples(clip)
    assert isinstance(x, Examples)
    assert x.shape[1:] == (1, 10, 4)
    torch.testing.assert_close(x.silence, torch.full((4,), -80.0))
    assert (x.axis.bands, x.sample_rate_hz) == (4, 16_000)


@pytest.mark.parametrize("name", ["log_mel", "waveform", "decibels"])
def test_a_front_end_of_the_command_line_reads_examples(name: str, clip: Path) -> None:
    made = {"log_mel": front_ends.log_mel, "waveform": front_ends.waveform}
    own = rq.TransformFrontEnd(Decibels(), frames=10)
    front_end = made[name]() if name in made else front_ends.of_object("own", own)
    read = front_end.read(clip).examples
    assert isinstance(read, Examples)
    assert (read.axis, read.sample_rate_hz, read.front_end) == (front_end.axis, front_end.rate_hz, front_end.text)
    np.testing.assert_array_equal(read.source, WAVE[: read.source.numel()])
    silent = front_end.silent_example()
    torch.testing.assert_close(silent, torch.as_tensor(read.silence).float().expand_as(silent).contiguous())
    torch.testing.assert_close(front_end.examples_of(WAVE[: read.source.numel()]), read)
    if name == "waveform":
        assert isinstance(read.axis, SampleAxis)
        assert isinstance(read[0], Examples)
        assert not isinstance(read[:, :5], Examples)


KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "one": lambda x: x[1],
    "some": lambda x: x[1:3],
    "in any order": lambda x: x[[2, 0]],
    "where": lambda x: x[torch.tensor([True, False, True])],
    "without channel": lambda x: x[:, 0],
    "one in a batch": lambda x: x[0][None],
    "another type": lambda x: x.to(torch.float64),
    "half": lambda x: x.half(),
    "elsewhere": lambda x: x.to("meta"),
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach(),
    "contiguous": lambda x: x.contiguous(),
    "wants gradients": lambda x: x.clone().requires_grad_(),
    "joined": lambda x: torch.cat([x, x]),
    "stacked": lambda x: torch.stack(list(x)),
    "deep copy": copy.deepcopy,
    "pickled": lambda x: pickle.loads(pickle.dumps(x)),
    "parameter": nn.Parameter,
    "from loader": lambda x: next(iter(DataLoader(x, batch_size=2))),  # type: ignore[arg-type]
    "from workers": lambda x: next(iter(DataLoader(x, batch_size=2, num_workers=1))),  # type: ignore[arg-type]
    "with labels": lambda x: next(iter(DataLoader(TensorDataset(x, torch.arange(3)), batch_size=2)))[0],
}
LOST: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x + 1,
    "exponential": lambda x: x.exp(),
    "some frames": lambda x: x[:, :, 4:],
    "some bands": lambda x: x[..., :32],
    "one frame": lambda x: x[:, 0, 3],
    "turned": lambda x: x.transpose(-1, -2),
    "flat": lambda x: x.flatten(1),
    "whole numbers": lambda x: x.long(),
    "joined in time": lambda x: torch.cat([x, x], dim=2),
    "joined with another": lambda x: torch.cat([x, torch.zeros(1, 1, 96, 64)]),
    "joined with other levels": lambda x: torch.cat(
        [x, rq.LogMel(rq.LogMelConfig(log_offset=0.1))(torch.zeros(16_000))]
    ),
    "noise alike": torch.randn_like,
    "encoded": nn.Conv2d(1, 2, 3),
}


@pytest.mark.parametrize("name", KEPT)
def test_copies_and_choices_of_examples_are_examples(x: Examples, name: str) -> None:
    made = KEPT[name](x)
    assert isinstance(made, Examples)
    assert [getattr(made, key) for key in METADATA] == [getattr(x, key) for key in METADATA]
    assert name in ("pickled", "from workers") or made.source is x.source


@pytest.mark.parametrize("name", LOST)
def test_anything_else_is_a_plain_tensor(x: Examples, name: str) -> None:
    assert type(LOST[name](x)) is Tensor


def test_values_are_those_of_the_plain_tensor(x: Examples) -> None:
    bare = plain(x)
    assert type(bare) is Tensor
    assert bare.data_ptr() == x.data_ptr()
    for change in (*KEPT.values(), lambda x: x.exp()):
        made, wanted = change(x), change(bare)
        assert made.shape == wanted.shape
        assert made.is_meta or torch.equal(plain(made.detach()), wanted.detach())
    np.testing.assert_array_equal(x.numpy(), bare.numpy())
    np.testing.assert_array_equal(np.asarray(x), bare.numpy())


def test_of_several_recordings_there_is_no_one_waveform(x: Examples) -> None:
    other = rq.LogMel()(WAVE[::-1].copy())
    joined = torch.cat([x, other])
    assert isinstance(joined, Examples)
    assert joined.source is None
    alone = without_source(x)
    assert isinstance(alone, Examples)
    assert alone.source is None
    assert x.source is not None


def test_silence_follows_to_another_device() -> None:
    x = Examples.of(torch.zeros(2, 1, 3, 4), BinAxis(size=4), torch.full((1, 1, 1, 4), -80.0), 16_000)
    moved = x.to("meta")
    assert isinstance(moved, Examples)
    assert isinstance(moved.silence, Tensor)
    assert moved.silence.shape == (4,)
    assert moved.silence.is_meta


def test_saved_examples_are_opened_again(x: Examples) -> None:
    for saved in (x, {"x": x}, nn.ParameterDict({"x": nn.Parameter(x)}).state_dict()):
        file = io.BytesIO()
        torch.save(saved, file)
        file.seek(0)
        opened = torch.load(file)
        found = next(iter(opened.values())) if isinstance(opened, dict) else opened
        assert torch.equal(found, x)
        assert found.axis == x.axis


def test_gradients_reach_the_waveform_and_the_examples() -> None:
    wave = torch.tensor(WAVE, requires_grad=True)
    x = rq.LogMel()(wave)
    x.sum().backward()
    assert wave.grad is not None
    assert float(wave.grad.abs().sum()) > 0
    leaf = x.detach().requires_grad_()
    leaf.square().sum().backward()
    assert type(leaf.grad) is Tensor


def test_networks_in_other_forms_take_examples(x: Examples) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 5), nn.ReLU(), nn.Flatten()).eval()
    wanted = net(plain(x))
    forms = {"eager": net, "scripted": torch.jit.script(net), "traced": torch.jit.trace(net, x)}
    forms["exported"] = torch.export.export(net, (x,)).module()
    for form, made in forms.items():
        with torch.inference_mode():
            torch.testing.assert_close(made(x), wanted, msg=form)


def test_compiled_networks_take_examples_whenever_the_compiler_is_loaded() -> None:
    program = """
import sys, torch, relax_quantus as rq
if sys.argv[1] == "first":
    import torch._dynamo
x = rq.LogMel()(torch.ones(16_000))
net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 5), torch.nn.Flatten())
assert type(x).__name__ == "Examples"
assert torch.equal(torch.compile(net, backend="aot_eager")(x), net(x))
assert not any(type(finder).__module__.startswith("relax_quantus") for finder in sys.meta_path)
"""
    for when in ("first", "last"):
        done = subprocess.run([sys.executable, "-c", program, when], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-500:]


def test_captum_and_relax_take_examples_and_give_plain_maps(x: Examples) -> None:
    from captum.attr import IntegratedGradients

    net = rq.load_encoder("vggish_mini")
    found = IntegratedGradients(lambda x: net(x).sum(1)).attribute(x[:1].clone(), n_steps=2)
    assert type(found) is Tensor
    relax = rq.RELAX(net, masks="time")
    torch.testing.assert_close(relax.attribute(x, n_samples=20), relax.attribute(plain(x), n_samples=20))
    assert type(relax.attribute(x, n_samples=20)) is Tensor


def test_a_heads_embeddings_and_probabilities_are_plain(x: Examples) -> None:
    net = rq.load_encoder("vggish_mini")
    many = torch.cat([x, rq.LogMel()(10 * WAVE)])
    head = rq.EmbeddingClassifier.fit(net, many, [0, 0, 0, 1, 1, 1], class_names=["faint", "loud"])
    assert type(head(x)) is type(head.embed(x)) is Tensor
