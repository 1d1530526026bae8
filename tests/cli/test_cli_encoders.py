"""Encoders and front ends of the user's own on the command line. None of it needs torchaudio."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call, problems, refused

import relax_quantus as rq
from relax_quantus.base.registry import user_object
from relax_quantus.benchmark.config import PRESETS, BenchmarkConfig
from relax_quantus.encoders.weights_file import present_name
from relax_quantus.errors import UnknownNameError

FEW = ("--n-samples", "6")
LEFT_OUT = "warning: {}: the last {} s make no whole example and are left out\n"
SOURCE = """
import torch
from torch import nn
import relax_quantus as rq
import beside

class Waves(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 64, 32)
    def extract_features(self, x, lengths=None, num_layers=None):
        return [self.conv(x[:, None]).relu().transpose(1, 2)], None

class Frames(nn.Module):
    def forward(self, wave):
        frames = wave.reshape(len(wave), -1, 160) if wave.ndim == 2 else wave[: wave.numel() // 160 * 160].reshape(1, -1, 160)
        return frames[..., :10].abs().transpose(1, 2) * beside.GAIN

def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()

def network():
    return seeded(lambda: nn.Sequential(nn.AdaptiveAvgPool2d((12, 5)), nn.Flatten(), nn.Linear(60, 16)))

def waves():
    return seeded(Waves)

def front_end():
    return rq.TransformFrontEnd(Frames(), log_offset=0.01, frames=40)

def pair():
    return front_end(), network()

def three():
    return 1, 2, 3

def number():
    return 7

def broken():
    raise KeyError("two\\nlines")

LAYER = network()
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A file of the user's that imports another one beside it."""
    (tmp_path / "beside.py").write_text("GAIN = 2.0\n")
    path = tmp_path / "mine_for_test.py"
    path.write_text(SOURCE)
    return str(path)


@pytest.fixture
def labelled(write_wav: Callable[..., Path], sweep: np.ndarray, tmp_path: Path) -> Path:
    for label, gain in (("loud", 0.9), ("quiet", 0.05)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(4):
            write_wav(gain * sweep[i * 1000 : i * 1000 + 16_000], rate=16_000, name=f"set/{label}/{i}.wav")
    return tmp_path / "set"


def results(out: Path, name: str = "clip") -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(out / f"{name}.npz") as arrays:
        values = dict(arrays)
    return values, json.loads(str(values["settings"]))


# ---------------------------------------------------------------------------- encoders of one's own


def test_a_file_s_encoder_is_explained_as_in_python(clip: Path, mine: str, tmp_path: Path) -> None:
    result = call("explain", clip, "--out", tmp_path / "o", "--encoder", f"{mine}:network", "--masks", "time", *FEW)
    assert (result.exit_code, problems(result)) == (0, LEFT_OUT.format(clip, "0.53"))
    values, settings = results(tmp_path / "o")
    assert settings["encoder"] == f"{mine}:network"
    assert settings["front_end"] == "log_mel"
    encoder = user_object("--encoder", (mine, "network"))
    x = rq.load_examples(clip)
    expected = rq.RELAX(encoder, "time").explain(x, "silence", n_samples=6)
    np.testing.assert_allclose(values["importance_time"], expected.importance, atol=1e-5)


def test_a_module_on_the_path_a_layer_and_its_weights(
    clip: Path, mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = user_object("--encoder", ("mine_for_test", "LAYER"))
    state = {name: value + 1 for name, value in encoder.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    arguments = ("--encoder", "mine_for_test:LAYER", "--masks", "time", *FEW)
    for out, weights in (("a", ()), ("b", ("--weights", tmp_path / "w.pth"))):
        result = call("explain", clip, "--out", tmp_path / out, *arguments, *weights)
        assert result.exit_code == 0, result.output
    (first, before), (second, after) = results(tmp_path / "a"), results(tmp_path / "b")
    assert before["encoder_sha256"] != after["encoder_sha256"]
    assert not np.array_equal(first["embedding"], second["embedding"])
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for weights, parts in (
        (tmp_path / "other.pth", ["other.pth", "2.weight of shape (16, 60)", "got nothing"]),
        (tmp_path / "none.pth", ["--weights", "none.pth", "no such file"]),
    ):
        refused(call("explain", clip, "--out", tmp_path / "o", *arguments, "--weights", weights), *parts)
    wrong = ("--weights", tmp_path / "w.pth", "--sha256", "0" * 64)
    refused(call("explain", clip, "--out", tmp_path / "o", *arguments, *wrong), f"SHA-256 {'0' * 64}")


def test_a_pair_brings_its_own_front_end(clip: Path, mine: str, tmp_path: Path) -> None:
    result = call("explain", clip, "--out", tmp_path / "o", "--encoder", f"{mine}:pair", "--masks", "random", *FEW)
    assert (result.exit_code, problems(result)) == (0, LEFT_OUT.format(clip, "0.30"))
    values, settings = results(tmp_path / "o")
    assert values["x"].shape == (3, 1, 40, 10)
    assert settings["front_end"] == "the encoder's own"
    np.testing.assert_allclose(values["times_s"][:, 0], [0, 0.4, 0.8], atol=1e-6)
    front_end = user_object("--front-end", (mine, "front_end"))
    np.testing.assert_allclose(values["x"], front_end.load_examples(clip))
    expected = rq.RELAX(user_object("--encoder", (mine, "network")), "random").explain(
        torch.from_numpy(values["x"]), front_end.silence(), n_samples=6
    )
    np.testing.assert_allclose(values["importance_random"], expected.importance, atol=1e-5)


def test_encoders_of_waveforms_get_curves_over_time(clip: Path, mine: str, tmp_path: Path) -> None:
    arguments = ("--encoder", f"{mine}:waves", "--front-end", "waveform:seconds=0.5", *FEW)
    result = call("explain", clip, "--out", tmp_path / "o", *arguments)
    assert (result.exit_code, problems(result)) == (0, "")
    values, settings = results(tmp_path / "o")
    assert settings["masks"] == ["time"]
    assert values["importance_time"].shape == values["x"].shape == (3, 8_000)
    assert "frequencies_hz" not in values
    np.testing.assert_allclose(values["times_s"][:, 0], [0, 0.5, 1.0])
    encoder = rq.WaveformEncoder(user_object("--encoder", (mine, "waves")))
    expected = rq.RELAX(encoder, "time").explain(torch.from_numpy(values["x"]), 0.0, n_samples=6)
    np.testing.assert_allclose(values["importance_time"], expected.importance, atol=1e-5)
    assert (tmp_path / "o" / "clip.png").stat().st_size > 10_000


def test_a_recording_shorter_than_an_example_is_padded(
    write_wav: Callable[..., Path], mine: str, tmp_path: Path, sweep: np.ndarray
) -> None:
    short = write_wav(sweep[:3_000], name="short.wav")
    for encoder in ("waves", "pair"):
        result = call("explain", short, "--out", tmp_path / encoder, "--encoder", f"{mine}:{encoder}", *FEW)
        assert result.exit_code == 0, result.output
        assert "0.19 s is less than one example; padded with silence" in result.stderr or encoder == "pair"
        assert len(results(tmp_path / encoder, "short")[0]["x"]) == 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--encoder", "{mine}:netwrk"], ["--encoder", "'netwrk'", "did you mean 'network'"]),
        (["--encoder", "{mine}:broken"], ["--encoder", "KeyError", "two"]),
        (["--encoder", "{mine}:number"], ["--encoder", "torch.nn.Module", "a int"]),
        (["--encoder", "{mine}:three"], ["--encoder", "3 things"]),
        (["--encoder", "nowhere.py:network"], ["--encoder", "nowhere.py, which is not there"]),
        (["--encoder", "no_such_module_:x"], ["--encoder", "No module named 'no_such_module_'"]),
        (["--encoder", "vggish_mini:"], ["--encoder", "module:attribute"]),
        (["--encoder", "vggish_mini:size=3"], ["size: expected a parameter of the encoder 'vggish_mini'"]),
        (["--encoder", "vggish:weights=x.pth"], ["--encoder", "use --weights"]),
        (["--weights", "x.pth"], ["--weights x.pth: expected a file of weights", "no such file"]),
        (["--encoder", "random", "--weights", "x.pth"], ["--weights", "random, which brings its own"]),
        (["--sha256", "0"], ["--sha256", "--weights FILE"]),
        (["--encoder", "wav2vec_base"], ["--encoder", "did you mean", "'wav2vec2_base'"]),
        (["--front-end", "MelSpectogram"], ["--front-end", "did you mean 'MelSpectrogram'"]),
        (["--front-end", "waveform:second=1"], ["second", "did you mean 'seconds'"]),
        (["--front-end", "waveform:seconds=1,seconds=2"], ["--front-end", "each key once"]),
        (["--front-end", "waveform:seconds"], ["--front-end", "module:attribute"]),
        (["--front-end", "waveform:seconds=-1"], ["seconds", "above 0"]),
        (["--front-end", "log_mel:frames=3"], ["frames", "takes none"]),
        (["--front-end", "waveform"], ["--front-end", "spectrograms for vggish_mini"]),
        (["--encoder", "{mine}:pair", "--front-end", "log_mel"], ["--front-end", "brings its own"]),
        (["--encoder", "{mine}:waves", "--front-end", "log_mel"], ["--front-end", "an encoder of waveforms"]),
        (["--encoder", "{mine}:waves", "--masks", "frequency"], ["--masks", "time for waveforms", "'frequency'"]),
        (["--encoder", "{mine}:waves", "--baseline", "blur"], ["--baseline", "silence or zero or mean", "'blur'"]),
        (["--encoder", "{mine}:waves", "--domain", "amplitude"], ["--domain", "no natural logarithms"]),
        (["--resampler", "sox"], ["--resampler", "did you mean 'soxr'"]),
    ],
)
def test_what_cannot_go_together_is_one_line_before_any_work(
    arguments: list[str], parts: list[str], clip: Path, mine: str, tmp_path: Path
) -> None:
    arguments = [a.format(mine=mine) for a in arguments]
    if arguments[0] == "--front-end" and "seconds=-1" in arguments[1]:
        arguments += ["--encoder", f"{mine}:waves"]
    refused(call("explain", clip, "--out", tmp_path / "o", *arguments), *parts)
    assert not (tmp_path / "o").exists()


# ------------------------------------------------------------------------------------ fit and bench


def test_a_classifier_of_waveforms_remembers_its_front_end(labelled: Path, mine: str, tmp_path: Path) -> None:
    head, encoder = tmp_path / "h.safetensors", ("--encoder", f"{mine}:waves")
    result = call("fit", labelled, "--out", head, *encoder, "--fine-tune", 1)
    assert result.exit_code == 0, result.output
    assert "fine-tuning: 1 epochs" in result.stdout
    saved = rq.EmbeddingClassifier.load(head, rq.WaveformEncoder(user_object("--encoder", (mine, "waves"))))
    assert saved.made_with["front_end"] == "waveform"
    assert saved.made_with["resampler"] == "soxr"
    clip = labelled / "loud" / "0.wav"
    result = call("explain", clip, "--out", tmp_path / "o", *encoder, "--head", head, *FEW)
    assert (result.exit_code, problems(result)) == (0, "")
    assert results(tmp_path / "o", "0")[0]["probabilities"].shape == (1, 2)
    other = (*encoder, "--head", head, "--front-end", "waveform:seconds=0.5")
    refused(call("explain", clip, "--out", tmp_path / "o", *other), "front end it was fitted with, waveform,")


def test_a_head_fitted_with_another_front_end_of_one_s_own_is_a_warning(
    labelled: Path, mine: str, tmp_path: Path
) -> None:
    head, encoder = tmp_path / "h.safetensors", ("--encoder", f"{mine}:network")
    assert call("fit", labelled, "--out", head, *encoder, "--front-end", f"{mine}:front_end").exit_code == 0
    result = call("explain", labelled / "loud" / "0.wav", "--out", tmp_path / "o", *encoder, "--head", head, *FEW)
    assert result.exit_code == 0, result.output
    assert "expected the front end it was fitted with" in result.stderr


@pytest.fixture
def _small_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"methods": ("RELAX-time",), "metrics": ("Sparseness",), "head_clips": 4, "max_clips": 2}
    monkeypatch.setitem(PRESETS, "quick", small)


@pytest.mark.usefixtures("_small_bench")
def test_bench_takes_an_encoder_of_one_s_own_and_records_it(labelled: Path, mine: str, tmp_path: Path) -> None:
    arguments = ("bench", "--data", labelled, "--n-samples", 8, "--out", tmp_path / "b")
    result = call(*arguments, "--encoder", f"{mine}:network")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert record["configuration"]["encoder"] == f"{mine}:network"
    assert record["configuration"]["resampler"] == "soxr"
    refused(call(*arguments, "--encoder", f"{mine}:waves"), "--encoder", "(n, 1, 96, 64) -> (n, D)", "waves")
    refused(call(*arguments, "--encoder", f"{mine}:three"), "--encoder", "3 things")
    refused(call(*arguments, "--resampler", "sox"), "--resampler", "did you mean 'soxr'")
    refused(call("bench", "--resampler", "torchaudio"), "--resampler", "--data FOLDER")
    with pytest.raises(UnknownNameError, match="resampler"):
        BenchmarkConfig(resampler="sox")


# -------------------------------------------------------------------------- the encoders themselves


def test_normalized_waveforms_do_not_depend_on_level_or_padding(mine: str) -> None:
    model = user_object("--encoder", (mine, "waves"))
    encoder = rq.WaveformEncoder(model, normalize=True)
    x = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(x), encoder(5 * x + 3), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(encoder(x, torch.tensor([1000, 1000])), encoder(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="normalize: expected True or False"):
        rq.WaveformEncoder(model, normalize="yes")  # type: ignore[arg-type]


def test_older_names_of_weight_normalised_weights_are_known() -> None:
    wanted = {"a.parametrizations.weight.original0": torch.zeros(1), "b.weight_g": torch.zeros(1)}
    assert present_name("a.weight_g", wanted) == "a.parametrizations.weight.original0"
    assert [present_name(k, wanted) for k in ("b.weight_g", "c.weight_v", "bias")] == [
        "b.weight_g",
        "c.weight_v",
        "bias",
    ]
