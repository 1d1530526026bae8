"""torchaudio: resampling, transforms as front ends, wav2vec2-family
models as encoders, and one line where it does not import.

Tests that need the real torchaudio take the fixture `torchaudio`; where it does not import they are
skipped with its reason, unless ``RELAX_QUANTUS_REQUIRE_TORCHAUDIO=1``, under which that is an
error.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from command_line import problems
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.audio.torchaudio_bridge import REMEDY
from relax_quantus.encoders.waveform import pool
from relax_quantus.errors import (
    ArgumentError,
    ArgumentTypeError,
    EncoderError,
    MissingDependencyError,
    ShapeError,
    UnknownNameError,
)

Write = Callable[..., Path]
DOCS = Path(__file__).resolve().parents[2] / "docs" / "torchaudio.md"


@pytest.fixture(scope="module")
def torchaudio() -> ModuleType:
    try:
        return rq.import_torchaudio()
    except MissingDependencyError as error:
        if os.environ.get("RELAX_QUANTUS_REQUIRE_TORCHAUDIO") == "1":
            raise
        pytest.skip(str(error))


def tone(hz: float, rate_hz: int, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


# ------------------------------------------------------------------------- where it does not import

BROKEN = {
    "absent": ("", "No module named 'torchaudio'"),
    "library": ("raise OSError('libc10_cuda.so: cannot open shared object file')", "libc10_cuda.so: cannot open"),
    "cuda": (
        "raise RuntimeError('compiled with different\\n    CUDA versions')",
        "compiled with different CUDA versions",
    ),
    "wrapped": (
        "raise OSError('could not load _torchaudio.abi3.so') from OSError('libc10_cuda.so: cannot open')",
        "libc10_cuda.so: cannot open",
    ),
    "symbol": ("raise ImportError('undefined symbol: _ZN3c10')", "undefined symbol: _ZN3c10"),
    "wordless": ("raise RuntimeError", "RuntimeError"),
}


@pytest.fixture(params=BROKEN)
def reason(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Stand a torchaudio in front of any real one that fails
    to import in one of the ways seen in the field; its reason.
    """
    source, said = BROKEN[request.param]
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    if source:
        (tmp_path / "torchaudio").mkdir()
        (tmp_path / "torchaudio" / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setattr(sys, "meta_path", [_Absent(), *sys.meta_path])
    return said


class _Absent:
    def find_spec(self, name: str, *_: object) -> None:
        if name == "torchaudio":
            raise ModuleNotFoundError("No module named 'torchaudio'", name=name)


def test_one_line_says_why_and_which_pair_works(reason: str) -> None:
    for _ in range(2):  # the second try is no different from the first
        with pytest.raises(MissingDependencyError) as caught:
            rq.import_torchaudio()
        line = str(caught.value)
        assert "\n" not in line
        assert line.startswith(f"torchaudio: expected to import beside torch {torch.__version__}, got {reason}")
        assert line.endswith(f"; {REMEDY}.")
        assert "torch 2.11.0 with torchaudio 2.11.0 (its last release)" in line


def test_resampling_with_it_is_refused_before_the_file_is_read(reason: str, write_wav: Write) -> None:
    path = write_wav(tone(440, 44_100), 44_100)
    with pytest.raises(MissingDependencyError, match=re.escape(reason)):
        rq.load_waveform("nowhere.wav", resampler="torchaudio")
    with pytest.raises(MissingDependencyError, match=re.escape(reason)):
        rq.load_examples(path, resampler="torchaudio")
    with pytest.raises(MissingDependencyError, match=re.escape(reason)):
        rq.resample(tone(440, 44_100), 44_100, resampler="torchaudio")
    assert rq.load_waveform(path).shape == (16_000,)


def test_a_long_complaint_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchaudio.py").write_text("raise OSError('x' * 5000)")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError) as caught:
        rq.import_torchaudio()
    assert "xxx...; install" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_mistake_inside_a_program_is_not_taken_for_a_missing_torchaudio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchaudio.py").write_text("raise ZeroDivisionError")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ZeroDivisionError):
        rq.import_torchaudio()


def test_nothing_imports_it_unasked() -> None:
    code = (
        "import sys, relax_quantus as rq; rq.load_examples, rq.resample, rq.TransformFrontEnd, rq.WaveformEncoder, rq.import_torchaudio; "
        "rq.load_encoder('vggish_mini'); print([n for n in sys.modules if n.startswith('torchaudio')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=True)
    assert done.stdout.strip() == "[]"


# --------------------------------------------------------------------------------------- resampling


def test_an_unknown_resampler_is_refused_with_the_nearest(write_wav: Write) -> None:
    with pytest.raises(
        UnknownNameError,
        match="resampler: expected the name of a resampler, got 'torchaudo'; did you mean 'torchaudio'",
    ):
        rq.resample(tone(440, 44_100), 44_100, resampler="torchaudo")
    with pytest.raises(UnknownNameError, match="Known: soxr, torchaudio"):
        rq.load_waveform(write_wav(tone(440, 44_100), 44_100), resampler="sox")


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_both_resamplers_keep_a_tone(torchaudio: ModuleType, rate_hz: int) -> None:
    """1 kHz comes out as 1 kHz at the same level and in the same
    phase; away from the ends the two agree to .2 % of full scale.
    """
    wave = tone(1_000, rate_hz)
    ours, theirs = rq.resample(wave, rate_hz), rq.resample(wave, rate_hz, resampler="torchaudio")
    assert ours.shape == theirs.shape == (16_000,)
    assert theirs.dtype == np.float32
    middle = slice(500, -500)
    np.testing.assert_allclose(theirs[middle], tone(1_000, 16_000)[middle], rtol=0, atol=1e-3)
    np.testing.assert_allclose(theirs[middle], ours[middle], rtol=0, atol=1e-3)
    assert np.argmax(np.abs(np.fft.rfft(theirs))) == 1_000


def test_passband_agrees_with_soxr_and_the_stopband_is_attenuated(torchaudio: ModuleType) -> None:
    """48 -> 16 kHz: up to 6 kHz within .2 dB of soxr; 10 kHz,
    which 16 kHz cannot carry, at least 40 dB down in both.
    """
    for hz in (125, 1_000, 3_000, 5_000, 6_000):
        levels = [_level_db(rq.resample(tone(hz, 48_000), 48_000, resampler=name)) for name in ("soxr", "torchaudio")]
        assert abs(levels[0] - levels[1]) < 0.2, hz
    for name in ("soxr", "torchaudio"):
        assert (
            _level_db(rq.resample(tone(10_000, 48_000), 48_000, resampler=name)) < _level_db(tone(10_000, 48_000)) - 40
        )


def _level_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(wave[500:-500], dtype=np.float64))))


def test_a_file_is_resampled_as_its_waveform_is(torchaudio: ModuleType, write_wav: Write, sweep: np.ndarray) -> None:
    path = write_wav(np.stack([sweep, 0.5 * sweep], axis=1), 44_100)
    wave, rate_hz = rq.read_audio(path)
    before = wave.copy()
    expected = torchaudio.functional.resample(torch.from_numpy(wave), 44_100, 16_000).numpy()
    np.testing.assert_array_equal(rq.load_waveform(path, resampler="torchaudio"), expected)
    np.testing.assert_array_equal(rq.resample(wave, rate_hz, resampler="torchaudio"), expected)
    np.testing.assert_array_equal(wave, before)
    assert rq.resample(wave, 44_100, 44_100, resampler="torchaudio") is wave
    assert not np.array_equal(rq.load_waveform(path), expected)


def test_examples_of_a_recording_hardly_depend_on_the_resampler(torchaudio: ModuleType, animal_sounds: Path) -> None:
    """Real recordings at 44.1 kHz: log-mel agrees within .002
    on average up to band 56 (5.5 kHz), and is not the same.
    """
    recordings = (path for path in sorted(animal_sounds.rglob("*.flac")) if soundfile.info(path).samplerate == 44_100)
    for path in islice(recordings, 3):
        ours, theirs = (rq.load_examples(path, resampler=name) for name in ("soxr", "torchaudio"))
        assert ours.shape == theirs.shape
        assert 0 < float((ours - theirs)[..., :56].abs().mean()) < 0.002


# ------------------------------------------------------------------------- transforms as front ends


class Frames(nn.Module):
    """A stand-in for a transform that needs no torchaudio: mean
    magnitude of 4 interleaved bands in frames of 100 samples.
    """

    def __init__(self, sample_rate: int = 16_000) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.register_buffer("window", torch.hann_window(100))

    def forward(self, wave: Tensor) -> Tensor:
        frames = wave.unfold(-1, 100, 100) * self.window
        return frames.abs().unflatten(-1, (25, 4)).mean(dim=-2).transpose(1, 2)


def test_time_becomes_axis_minus_two_and_waveforms_keep_their_order() -> None:
    waves = torch.zeros(2, 1_000)
    waves[0, 300:400] = 1.0
    waves[1, 900:] = 1.0
    x = rq.TransformFrontEnd(Frames())(waves)
    assert x.shape == (2, 1, 10, 4)
    assert x.is_contiguous()
    assert x[0, 0].sum(dim=-1).argmax() == 3
    assert x[1, 0].sum(dim=-1).argmax() == 9
    cut = rq.TransformFrontEnd(Frames(), frames=4)(waves)
    assert cut.shape == (4, 1, 4, 4)
    torch.testing.assert_close(cut, x[:, 0, :8].reshape(4, 1, 4, 4))
    assert rq.TransformFrontEnd(Frames(), frames=11)(waves).shape == (0, 1, 11, 4)


def test_logarithm_silence_types_and_gradients() -> None:
    front_end = rq.TransformFrontEnd(Frames(), log_offset=0.01)
    wave = np.random.default_rng(0).standard_normal(1_000)
    torch.testing.assert_close(front_end(wave), torch.log(rq.TransformFrontEnd(Frames())(wave) + 0.01))
    assert front_end(wave).dtype == torch.float32
    assert front_end.double()(wave).dtype == torch.float64
    torch.testing.assert_close(front_end.float().silence(), torch.full((1, 1, 1, 4), np.log(0.01)))
    assert rq.TransformFrontEnd(Frames(), frames=500).silence().shape == (1, 1, 1, 4)
    samples = torch.randn(1_000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    front_end(samples).sum().backward()
    assert samples.grad is not None
    assert float(samples.grad.abs().sum()) > 0


def test_a_recording_is_read_at_the_transforms_rate(write_wav: Write) -> None:
    path = write_wav(tone(440, 44_100), 44_100)
    assert rq.TransformFrontEnd(Frames(8_000), sample_rate_hz=8_000, frames=20).load_examples(path).shape == (
        4,
        1,
        20,
        4,
    )
    with pytest.raises(ShapeError, match=r"frames: expected a recording of at least 500, got fewer from 1\.00 s"):
        rq.TransformFrontEnd(Frames(), frames=500).load_examples(path)


class Returns(nn.Module):
    """A transform that returns what it is told to."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, wave: Tensor) -> object:
        return self.value


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            torch.zeros(1, 4, 10, dtype=torch.complex64),
            ArgumentTypeError,
            r"expected a real spectrogram, got .*complex64; build it with power=1",
        ),
        (torch.zeros(1, 10), ShapeError, r"expected a spectrogram of shape \(1, F, T\)"),
        (torch.zeros(2, 4, 10), ShapeError, r"expected a spectrogram of shape \(1, F, T\)"),
        (torch.full((1, 4, 10), torch.nan), ArgumentError, "expected finite entries"),
        (
            torch.full((1, 4, 10), -1.0),
            ArgumentError,
            "expected values from 0 up for the logarithm, got negative ones; leave log_offset out",
        ),
        ((torch.zeros(1, 4, 10),), ArgumentTypeError, "expected a tensor, got a tuple"),
    ],
)
def test_results_that_are_no_spectrograms_are_refused(value: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="transform: " + message):
        rq.TransformFrontEnd(Returns(value), log_offset=0.01)(torch.zeros(100))


def test_front_end_arguments_are_checked() -> None:
    with pytest.raises(
        ArgumentTypeError, match=r"transform: expected a torch module \(an object, not its class\), got Frames"
    ):
        rq.TransformFrontEnd(Frames)  # type: ignore[arg-type]
    with pytest.raises(
        ArgumentError,
        match=r"sample_rate_hz: expected the transform's own rate, 8000, got 16000; pass sample_rate_hz=8000",
    ):
        rq.TransformFrontEnd(Frames(8_000))
    with pytest.raises(ArgumentError, match="log_offset: expected a finite number above 0"):
        rq.TransformFrontEnd(Frames(), log_offset=0)
    with pytest.raises(ArgumentTypeError, match="wave: expected floating-point samples"):
        rq.TransformFrontEnd(Frames())(torch.zeros(100, dtype=torch.int16))
    with pytest.raises(ShapeError, match="wave: expected shape"):
        rq.TransformFrontEnd(Frames())(torch.zeros(1, 1, 100))


TRANSFORMS: dict[str, tuple[Callable[[ModuleType], nn.Module], int]] = {
    "mel": (lambda ta: ta.transforms.MelSpectrogram(16_000, n_fft=512, hop_length=160, n_mels=40), 40),
    "magnitude": (lambda ta: ta.transforms.Spectrogram(n_fft=256, power=1), 129),
    "power": (lambda ta: ta.transforms.Spectrogram(n_fft=256, power=2), 129),
    "mfcc": (lambda ta: ta.transforms.MFCC(16_000, n_mfcc=13, melkwargs={"n_fft": 512, "n_mels": 40}), 13),
    "lfcc": (lambda ta: ta.transforms.LFCC(16_000, n_lfcc=20), 20),
    "decibels": (
        lambda ta: nn.Sequential(ta.transforms.MelSpectrogram(16_000, n_mels=32), ta.transforms.AmplitudeToDB()),
        32,
    ),
    "resampled": (
        lambda ta: nn.Sequential(ta.transforms.Resample(16_000, 8_000), ta.transforms.MelSpectrogram(8_000, n_mels=24)),
        24,
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_relax_runs_on_any_transform(torchaudio: ModuleType, name: str, sweep: np.ndarray) -> None:
    """The adapter changes the order of the axes and nothing else,
    and RELAX takes the result with time and frequency masks.
    """
    build, bands = TRANSFORMS[name]
    transform = build(torchaudio)
    front_end = rq.TransformFrontEnd(transform)
    waves = torch.from_numpy(sweep.reshape(2, 16_000))
    x = front_end(waves)
    torch.testing.assert_close(x[:, 0], transform(waves).mT)
    assert x.shape[0] == 2
    assert x.shape[3] == bands
    silence = front_end.silence()
    for masks in ("time", "frequency", "time_frequency"):
        importance = rq.RELAX(lambda z: z.mean(dim=2).flatten(1), masks=masks).attribute(
            x, baselines=silence, n_samples=8
        )
        assert importance.shape == x.shape
        assert bool(torch.isfinite(importance).all())


def test_complex_spectrograms_are_refused_with_a_remedy(torchaudio: ModuleType) -> None:
    with pytest.raises(
        ArgumentTypeError, match=r"transform: expected a real spectrogram, got .*; build it with power=1"
    ):
        rq.TransformFrontEnd(torchaudio.transforms.Spectrogram(power=None))(torch.zeros(16_000))
    with pytest.raises(ShapeError, match="end it with a spectrogram transform"):
        rq.TransformFrontEnd(torchaudio.transforms.Resample(16_000, 8_000))(torch.zeros(16_000))


def test_relax_finds_where_a_burst_is_on_torchaudios_mel(torchaudio: ModuleType) -> None:
    """A 3 kHz burst from .5 to .6 s over faint noise: time
    masks point at its frames, frequency masks at its band.
    """
    wave = 1e-3 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    wave[8_000:9_600] += torch.from_numpy(tone(3_000, 16_000, 0.1))
    front_end = rq.TransformFrontEnd(
        torchaudio.transforms.MelSpectrogram(16_000, n_fft=512, hop_length=160, n_mels=64), log_offset=0.01
    )
    x = front_end(wave)
    place = x[0, 0].flatten().argmax()
    frame, band = int(place) // 64, int(place) % 64
    weights = torch.randn(x.shape[2] * 64, 16, generator=torch.Generator().manual_seed(1))

    def encoder(z: Tensor) -> Tensor:
        return (z - front_end.silence()).flatten(1) @ weights

    time = rq.RELAX(encoder, masks="time").attribute(x, baselines=front_end.silence(), n_samples=200)
    frequency = rq.RELAX(encoder, masks="frequency").attribute(x, baselines=front_end.silence(), n_samples=200)
    assert abs(int(time[0, 0, :, 0].argmax()) - frame) <= 10
    assert abs(int(frequency[0, 0, 0].argmax()) - band) <= 8


# ----------------------------------------------------------------------- waveform encoders, without


class TwoLayers(nn.Module):
    """What torchaudio's models look like from outside: (list of
    (n, frames, D), lengths or None); D = 3, a frame is 10 samples.
    """

    def extract_features(
        self, waveforms: Tensor, lengths: Tensor | None = None, num_layers: int | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        if num_layers is not None and num_layers > 2:
            raise ValueError("num_layers must be between [1, 2]")
        frames = waveforms.unfold(-1, 10, 10).mean(dim=-1)
        layers = [torch.stack([frames, frames**2, k + frames], dim=-1) for k in (1, 2)]
        return layers[:num_layers], None if lengths is None else lengths // 10


def test_pooling_layers_lengths_and_channel_axis_without_torchaudio() -> None:
    x = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    frames = x.unfold(-1, 10, 10).mean(dim=-1)
    encoder = rq.WaveformEncoder(TwoLayers())
    torch.testing.assert_close(encoder(x), torch.stack([frames, frames**2, 2 + frames], dim=-1).mean(dim=1))
    torch.testing.assert_close(encoder(x[:, None]), encoder(x))
    first = rq.WaveformEncoder(TwoLayers(), pooling="max", layer=1)(x)
    torch.testing.assert_close(first, torch.stack([frames, frames**2, 1 + frames], dim=-1).amax(dim=1))
    padded = torch.cat([x, torch.full((3, 20), 9.0)], dim=1)
    for pooling in ("mean", "max"):
        encoder = rq.WaveformEncoder(TwoLayers(), pooling=pooling)
        torch.testing.assert_close(encoder(padded, torch.tensor([50, 50, 50])), encoder(x))
    mixed = rq.WaveformEncoder(TwoLayers())(padded, torch.tensor([50, 70, 10]))
    torch.testing.assert_close(mixed[2], rq.WaveformEncoder(TwoLayers())(x[2:, :10])[0])


def test_pool_ignores_padding() -> None:
    features = torch.tensor([[[1.0], [3.0], [9.0]], [[1.0], [3.0], [8.0]]])
    torch.testing.assert_close(pool(features, torch.tensor([2, 3]), "mean"), torch.tensor([[2.0], [4.0]]))
    torch.testing.assert_close(pool(features, torch.tensor([2, 3]), "max"), torch.tensor([[3.0], [8.0]]))


def test_waveform_encoder_arguments_are_checked() -> None:
    with pytest.raises(
        ArgumentTypeError, match="model: expected a module with torchaudio's extract_features, got a Linear"
    ):
        rq.WaveformEncoder(nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match="pooling: expected 'mean' or 'max', got 'median'"):
        rq.WaveformEncoder(TwoLayers(), pooling="median")
    with pytest.raises(ArgumentError, match="layer: expected an integer of at least 1, got 0"):
        rq.WaveformEncoder(TwoLayers(), layer=0)
    with pytest.raises(ArgumentError, match=r"layer: expected a layer that the model has, got 3 \(num_layers must be"):
        rq.WaveformEncoder(TwoLayers(), layer=3)(torch.zeros(1, 50))
    encoder = rq.WaveformEncoder(TwoLayers())
    with pytest.raises(ShapeError, match=r"x: expected waveforms of shape \(n, samples\) or \(n, 1, samples\)"):
        encoder(torch.zeros(2, 2, 50))
    with pytest.raises(ArgumentTypeError, match="x: expected floating-point samples"):
        encoder(torch.zeros(2, 50, dtype=torch.int16))
    with pytest.raises(ArgumentTypeError, match=r"lengths: expected integers of shape \(2,\)"):
        encoder(torch.zeros(2, 50), torch.tensor([0.5, 1.0]))
    with pytest.raises(ArgumentError, match=r"lengths: expected from 1 \(one frame\) to 50 samples, got 40 to 60"):
        encoder(torch.zeros(2, 50), torch.tensor([40, 60]))


@pytest.mark.parametrize("features", [[torch.zeros(2, 3)], [torch.zeros(1, 5, 3)], [torch.zeros(2, 0, 3)], []])
def test_features_of_another_shape_are_refused(features: list[Tensor]) -> None:
    model = TwoLayers()
    model.extract_features = lambda *_, **__: (features, None)  # type: ignore[method-assign]
    with pytest.raises(EncoderError, match=r"model: expected features of shape \(2, frames, D\)"):
        rq.WaveformEncoder(model)(torch.zeros(2, 50))


# ----------------------------------------------------------------------- waveform encoders, with it


def small_wav2vec2(torchaudio: ModuleType, mode: str = "layer_norm", **changes: object) -> nn.Module:
    """Build a wav2vec 2.0 of 3 convolutions (a frame is 20 samples of 80)
    and 2 transformer layers of 16, random weights from a fixed seed.
    """
    arguments: dict[str, object] = {
        "extractor_mode": mode,
        "extractor_conv_layer_config": [(16, 10, 5), (16, 4, 2), (16, 4, 2)],
        "extractor_conv_bias": False,
        "encoder_embed_dim": 16,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 8,
        "encoder_pos_conv_groups": 4,
        "encoder_num_layers": 2,
        "encoder_num_heads": 4,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 32,
        "encoder_ff_interm_dropout": 0.1,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "encoder_layer_drop": 0.1,
        "aux_num_out": None,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = torchaudio.models.wav2vec2_model(**{**arguments, **changes})
    return model


@pytest.fixture
def waves() -> Tensor:
    return 0.1 * torch.randn(3, 2_000, generator=torch.Generator().manual_seed(0))


def test_embeddings_are_the_pooled_features(torchaudio: ModuleType, waves: Tensor) -> None:
    model = small_wav2vec2(torchaudio)
    assert model.training
    encoder = rq.WaveformEncoder(model)
    assert not model.training
    h = encoder(waves)
    assert h.shape == (3, 16)
    layers, lengths = model.extract_features(waves)
    assert len(layers) == 2
    assert lengths is None
    torch.testing.assert_close(h, layers[-1].mean(dim=1))
    torch.testing.assert_close(h, model(waves)[0].mean(dim=1))  # without a head, forward gives the last layer too
    torch.testing.assert_close(rq.WaveformEncoder(model, layer=1)(waves), layers[0].mean(dim=1))
    torch.testing.assert_close(rq.WaveformEncoder(model, pooling="max")(waves[:, None]), layers[-1].amax(dim=1))
    torch.testing.assert_close(encoder(waves), h, rtol=0, atol=0)
    torch.testing.assert_close(encoder(waves[1:2]), h[1:2], rtol=1e-4, atol=1e-5)
    with pytest.raises(ArgumentError, match="layer: expected a layer that the model has, got 3"):
        rq.WaveformEncoder(model, layer=3)(waves)


def test_padding_is_left_out_given_lengths(torchaudio: ModuleType, waves: Tensor) -> None:
    """With layer norm in its convolutions, a waveform padded
    with noise embeds as the waveform alone, given its length.
    """
    encoder = rq.WaveformEncoder(small_wav2vec2(torchaudio))
    alone = encoder(waves[:1, :1_200])
    padded = encoder(waves, torch.tensor([1_200, 2_000, 1_600]))
    torch.testing.assert_close(padded[:1], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded[1:2], encoder(waves[1:2]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(encoder(waves)[:1], alone, atol=1e-4)


def test_a_waveform_shorter_than_a_frame_is_refused(torchaudio: ModuleType) -> None:
    encoder = rq.WaveformEncoder(small_wav2vec2(torchaudio))
    assert encoder.frame_samples == 10 + 5 * (4 + 2 * (4 - 1) - 1)
    assert encoder(torch.randn(1, encoder.frame_samples)).shape == (1, 16)
    with pytest.raises(ShapeError, match=f"x: expected at least {encoder.frame_samples} samples"):
        encoder(torch.randn(1, encoder.frame_samples - 1))
    assert rq.WaveformEncoder(torchaudio.models.wav2vec2_base()).frame_samples == 400


def test_gradients_reach_waveform_and_weights(torchaudio: ModuleType, waves: Tensor) -> None:
    encoder = rq.WaveformEncoder(small_wav2vec2(torchaudio))
    x = waves.clone().requires_grad_()
    encoder(x).square().sum().backward()
    assert x.grad is not None
    assert bool((x.grad.abs().sum(dim=1) > 0).all())
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in encoder.parameters())


def test_other_members_of_the_family(torchaudio: ModuleType, waves: Tensor) -> None:
    """WavLM; HuBERT's pretraining model, of which the inner
    model counts; and one with a head, which is left out.
    """
    wavlm = torchaudio.models.wavlm_model(
        "group_norm",
        [(16, 10, 5), (16, 4, 2), (16, 4, 2)],
        False,
        16,
        0.1,
        8,
        4,
        2,
        4,
        8,
        20,
        0.1,
        32,
        0.1,
        0.1,
        False,
        0.1,
        None,
    )
    assert rq.WaveformEncoder(wavlm)(waves).shape == (3, 16)
    headed = small_wav2vec2(torchaudio, aux_num_out=5)
    assert rq.WaveformEncoder(headed)(waves).shape == (3, 16)
    pretraining = nn.Module()
    pretraining.wav2vec2 = headed
    assert rq.WaveformEncoder(pretraining).model is headed


def test_relax_on_waveforms_is_deterministic_and_shaped_like_them(torchaudio: ModuleType, waves: Tensor) -> None:
    relax = rq.RELAX(rq.WaveformEncoder(small_wav2vec2(torchaudio)), masks="time")
    first = relax.explain(waves, n_samples=12, seed=3)
    assert first.importance.shape == waves.shape
    torch.testing.assert_close(relax.attribute(waves, n_samples=12, seed=3), first.importance, rtol=0, atol=0)
    assert not torch.equal(relax.attribute(waves, n_samples=12, seed=4), first.importance)
    alone = relax.attribute(waves[1:2], n_samples=12, seed=3, perturbations_per_eval=5)
    torch.testing.assert_close(alone, first.importance[1:2], rtol=1e-4, atol=1e-5)
    lengths = torch.tensor([1_200, 2_000, 1_600])
    given = relax.attribute(waves, n_samples=12, seed=3, additional_forward_args=lengths)
    torch.testing.assert_close(given[1], first.importance[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(given[0], first.importance[0], atol=1e-5)


@pytest.mark.parametrize("start", [500, 1_400])
def test_time_masks_find_a_planted_burst_in_the_waveform(torchaudio: ModuleType, start: int) -> None:
    """A burst of 250 samples over noise 60 dB below it: what the map
    calls most important lies within a stripe (250 samples) of it.
    """
    wave = 5e-4 * torch.randn(1, 2_000, generator=torch.Generator().manual_seed(1))
    wave[0, start : start + 250] += torch.from_numpy(tone(900, 16_000, 250 / 16_000))
    encoder = rq.WaveformEncoder(small_wav2vec2(torchaudio, mode="group_norm"))
    importance = rq.RELAX(encoder, masks="time").attribute(wave, n_samples=300)
    assert start - 250 <= int(importance[0].argmax()) <= start + 500
    inside = importance[0, start : start + 250].mean()
    outside = torch.cat([importance[0, : start - 250], importance[0, start + 500 :]]).mean()
    assert float(inside) > float(outside)


# ------------------------------------------------------------------------------------ documentation


def blocks() -> Iterator[str]:
    return iter(re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), flags=re.DOTALL | re.MULTILINE))


def test_the_documentations_examples_run(
    torchaudio: ModuleType, write_wav: Write, sweep: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_wav(np.tile(sweep, 2), 44_100, "robin.wav").parent)
    namespace: dict[str, object] = {}
    count = 0
    for block in blocks():
        exec(compile(block, str(DOCS), "exec"), namespace)
        count += 1
    assert count >= 3


def test_the_command_line_resamples_with_torchaudio(torchaudio: ModuleType, write_wav: Write, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from relax_quantus.cli import main as cli

    clip = write_wav(tone(3000.0, 44_100), rate=44_100)
    found = []
    for resampler in ("soxr", "torchaudio"):
        arguments = ["explain", clip, "--out", tmp_path / resampler, "--n-samples", "4", "--masks", "time"]
        result = CliRunner().invoke(cli.app, [str(a) for a in (*arguments, "--resampler", resampler)])
        assert result.exit_code == 0, result.output
        found.append(np.load(tmp_path / resampler / "clip.npz")["x"])
    np.testing.assert_allclose(found[1], rq.load_examples(clip, resampler="torchaudio"), atol=1e-6)
    assert not np.array_equal(found[0], found[1])


# ---------------------------------------------------------------------------- from the command line


def command(*arguments: object) -> tuple[int, str]:
    """Run the command line; its exit code and what it wrote to stderr but for its verdict."""
    from typer.testing import CliRunner

    from relax_quantus.cli import main as cli

    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    return result.exit_code, problems(result)


VGGISH_LIKE = "MelSpectrogram:n_fft=512,win_length=400,hop_length=160,n_mels=64,f_min=125,f_max=7500,power=1"


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "{clip}", "--out", "{out}", "--front-end", "MFCC"),
        ("explain", "{clip}", "--out", "{out}", "--encoder", "wav2vec2_base", "--weights", "{clip}"),
        ("explain", "{clip}", "--out", "{out}", "--resampler", "torchaudio"),
        ("fit", "{folder}", "--out", "{out}/h.safetensors", "--front-end", "Spectrogram"),
        ("fit", "{folder}", "--out", "{out}/h.safetensors", "--resampler", "torchaudio"),
        ("bench", "--data", "{folder}", "--out", "{out}", "--resampler", "torchaudio"),
    ],
)
def test_commands_that_ask_for_it_say_the_one_line(
    arguments: tuple[str, ...], write_wav: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Absent(), *sys.meta_path])
    clip, out = write_wav(tone(440, 44_100), 44_100), tmp_path / "out"
    code, said = command(*(a.format(clip=clip, out=out, folder=tmp_path) for a in arguments))
    assert code == 1
    assert said == (
        f"error: torchaudio: expected to import beside torch {torch.__version__}, got No module named 'torchaudio'; {REMEDY}.\n"
    )
    assert not out.exists()


def test_a_mel_spectrogram_from_the_command_line_is_that_of_python(
    torchaudio: ModuleType, write_wav: Write, tmp_path: Path, sweep: np.ndarray
) -> None:
    clip = write_wav(sweep)
    out, few = tmp_path / "out", ("--masks", "time", "--n-samples", "6")
    assert command("explain", clip, "--out", out, "--front-end", VGGISH_LIKE, *few) == (0, "")
    with np.load(out / "clip.npz") as found:
        mel = torchaudio.transforms.MelSpectrogram(
            16_000, n_fft=512, win_length=400, hop_length=160, n_mels=64, f_min=125.0, f_max=7500.0, power=1.0
        )
        front_end = rq.TransformFrontEnd(mel, log_offset=0.01, frames=96)
        x = front_end.load_examples(clip)
        np.testing.assert_allclose(found["x"], x, atol=1e-6)
        np.testing.assert_allclose(found["frequencies_hz"], rq.LogMelConfig().band_centres_hz, rtol=1e-6)
        np.testing.assert_allclose(found["times_s"][1, 0], 0.96)
        relax = rq.RELAX(rq.load_encoder("vggish_mini"), "time")
        expected = relax.explain(x, front_end.silence(), n_samples=6).importance
        np.testing.assert_allclose(found["importance_time"], expected, atol=1e-5)
        assert VGGISH_LIKE in str(found["settings"])


@pytest.mark.parametrize(
    ("spec", "size", "label", "first_hz"),
    [
        ("Spectrogram:n_fft=512,hop_length=160,power=1", 257, "frequency (Hz)", 0.0),
        ("MelSpectrogram:n_mels=40,mel_scale=slaney,norm=slaney", 40, "frequency (Hz)", None),
        ("MFCC:n_mfcc=20,melkwargs.n_mels=40,frames=50", 20, "coefficient", None),
        ("LFCC:n_lfcc=13,n_filter=40,frames=50", 13, "coefficient", None),
    ],
)
def test_axes_of_its_transforms(
    torchaudio: ModuleType, spec: str, size: int, label: str, first_hz: float | None, sweep: np.ndarray
) -> None:
    from relax_quantus.base.registry import parse
    from relax_quantus.frontend.front_end import build

    front_end = build(parse("--front-end", spec))
    x = front_end.make(sweep)
    assert x.shape[-1] == front_end.axis.bands == size
    assert front_end.axis.label == label
    assert front_end.natural_log == ("CC" not in spec)
    centres = front_end.axis.centres_hz
    assert (centres is None) == (label == "coefficient")
    if centres is not None and first_hz is not None:
        assert (centres[0], centres[-1]) == (first_hz, 8000.0)
    if "slaney" in spec:
        fb = torchaudio.functional.melscale_fbanks(4001, 0.0, 8000.0, 40, 16_000, "slaney", "slaney")
        peaks = 2.0 * fb.argmax(dim=0).numpy()
        np.testing.assert_allclose(centres, peaks, atol=3.0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("MelSpectrogram:n_mel=64", "did you mean 'n_mels'"),
        ("MelSpectrogram:n_fft=big", "--front-end: expected settings that MelSpectrogram takes"),
        ("MelSpectrogram:n_mels=40", "an encoder of examples (1, 1, 96, 40)"),
        ("Spectrogram:power=none", "real spectrogram"),
    ],
)
def test_settings_that_cannot_work_are_one_line(
    torchaudio: ModuleType, spec: str, said: str, write_wav: Write, tmp_path: Path
) -> None:
    code, line = command("explain", write_wav(tone(440, 16_000)), "--out", tmp_path / "out", "--front-end", spec)
    assert code == 2
    assert said in line
    assert "unexpected" not in line
    assert len(line.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_wav2vec2_by_name_with_weights_of_one_s_own(
    torchaudio: ModuleType,
    suffix: str,
    write_wav: Write,
    tmp_path: Path,
    sweep: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import hashlib

    from safetensors.torch import save_file

    monkeypatch.setattr(torchaudio.models, "wav2vec2_base", lambda: small_wav2vec2(torchaudio))
    model = small_wav2vec2(torchaudio, aux_num_out=7)
    weights = tmp_path / f"weights{suffix}"
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value.contiguous()
        for name, value in model.state_dict().items()
    }
    assert any(name.endswith("weight_g") for name in state)
    (torch.save if suffix == ".pth" else save_file)(state, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    clip, out = write_wav(sweep), tmp_path / "out"
    arguments = ("explain", clip, "--out", out, "--encoder", "wav2vec2_base:layer=1,pooling=max", "--n-samples", 6)
    assert command(*arguments, "--weights", weights, "--sha256", digest) == (0, "")
    with np.load(out / "clip.npz") as found:
        wave = rq.load_waveform(clip)
        x = torch.from_numpy(wave[: 2 * 15_360].reshape(2, -1))
        np.testing.assert_array_equal(found["x"], x)
        encoder = rq.WaveformEncoder(model, "max", layer=1)
        expected = rq.RELAX(encoder, "time").explain(x, 0.0, n_samples=6)
        np.testing.assert_allclose(found["importance_time"], expected.importance, atol=1e-5)
        np.testing.assert_allclose(found["embedding"], encoder(x).detach(), atol=1e-5)
    code, said = command(*arguments, "--weights", weights, "--sha256", "0" * 64)
    assert (code, f"expected SHA-256 {'0' * 64}, got {digest}" in said) == (1, True)
    code, said = command(*arguments)
    assert (code, "--weights: expected a file of weights for 'wav2vec2_base'" in said) == (1, True)


def test_every_named_model_is_built_and_normalised_as_its_pipeline_does(torchaudio: ModuleType) -> None:
    from relax_quantus.encoders.torchaudio_models import NORMALIZED

    bundles = {name.lower(): bundle for name, bundle in vars(torchaudio.pipelines).items()}
    for name, normalized in NORMALIZED.items():
        assert callable(getattr(torchaudio.models, name))
        assert bundles[name]._normalize_waveform == normalized
    with torch.device("meta"):
        wanted = torchaudio.models.wav2vec2_base().state_dict()
    assert all("weight_g" not in name for name in wanted)
