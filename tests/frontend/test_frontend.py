"""LogMel against torchvggish 0.2 (its own numpy code is called,
not a stored table), and the laws a log-mel spectrogram obeys.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from relax_quantus.audio.reading import load_waveform
from relax_quantus.errors import ArgumentError, ArgumentTypeError, ShapeError
from relax_quantus.frontend.log_mel import CHUNK_FRAMES, LogMel, LogMelConfig, hz_to_mel, load_examples, mel_matrix

Array = np.ndarray
TIME_S = np.arange(24_000) / 16_000
NOISE = np.random.default_rng(0).standard_normal(24_000)
SIGNALS = {
    "noise": 0.1 * NOISE,
    "clipped noise": NOISE.clip(-1, 1),
    "faint noise": 1e-5 * NOISE,
    "silence": np.zeros(24_000),
    "offset": np.ones(24_000),
    "tone between bins": np.sin(2 * np.pi * 1000 * TIME_S),
    "tone on a bin": np.sin(2 * np.pi * 4000 * TIME_S),
    "tone below the range": np.sin(2 * np.pi * 30 * TIME_S),
    "nyquist": np.cos(np.pi * np.arange(24_000)),
    "square wave": np.sign(np.sin(2 * np.pi * 437 * TIME_S)),
    "overdriven tone": (5 * np.sin(2 * np.pi * 333 * TIME_S)).clip(-1, 1),
    "clicks": (np.arange(24_000) % 777 == 0) * 1.0,
    "tone and nothing": np.where(TIME_S < 0.5, np.sin(2 * np.pi * 1000 * TIME_S), 0.0),
    "wrongly scaled": 30 * np.sin(2 * np.pi * 1000 * TIME_S),
}


@pytest.fixture(scope="module")
def reference() -> Callable[[Array], Array]:
    from torchvggish.vggish_input import waveform_to_examples

    def examples(wave: Array) -> Array:
        return np.asarray(waveform_to_examples(wave, 16_000, return_tensor=False))[:, None]

    return examples


# ---------------------------------------------------------------------------- torchvggish's numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SIGNALS)
def test_equals_torchvggish_everywhere(reference: Callable[[Array], Array], name: str, dtype: type) -> None:
    wave = SIGNALS[name].astype(dtype)
    wanted = reference(wave)
    np.testing.assert_allclose(LogMel()(wave).numpy(), wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(LogMel().double()(torch.from_numpy(wave)).numpy(), wanted, rtol=0, atol=1e-9)


@pytest.mark.filterwarnings("ignore::relax_quantus.audio.reading.AudioWarning")
def test_equals_torchvggish_on_real_recordings(reference: Callable[[Array], Array], animal_sounds: Path) -> None:
    compared = 0
    for path in sorted(animal_sounds.glob("*/*.flac"))[::25]:
        wave = load_waveform(path)
        if wave.size >= 15_600:
            np.testing.assert_allclose(LogMel()(wave).numpy(), reference(wave), rtol=0, atol=1e-6)
            compared += 1
    assert compared > 10


@settings(deadline=None, max_examples=12)
@given(samples=st.integers(400, 40_000), cut=st.sampled_from([0, -1, 1]))
def test_number_of_examples_is_torchvggishs(reference: Callable[[Array], Array], samples: int, cut: int) -> None:
    edge = 400 + (96 * (samples // 15_360 + 1) - 1) * 160 + cut  # where a new example begins
    for size in (samples, edge):
        assert LogMel().examples_in(size) == len(reference(np.zeros(size)))
        assert len(LogMel()(torch.zeros(size))) == LogMel().examples_in(size)


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 15_599])
def test_too_short_gives_no_example(samples: int) -> None:
    assert LogMel()(np.zeros(samples)).shape == (0, 1, 96, 64)
    assert LogMel()(np.zeros((3, samples))).shape == (0, 1, 96, 64)
    assert LogMel()(np.zeros((0, 16_000))).shape == (0, 1, 96, 64)


def test_filters_are_torchvggishs() -> None:
    mel_features = pytest.importorskip("torchvggish.mel_features")
    wanted = mel_features.spectrogram_to_mel_matrix(64, 257, 16_000, 125, 7500)
    np.testing.assert_allclose(mel_matrix(LogMelConfig()), wanted, atol=1e-12)
    np.testing.assert_allclose(
        hz_to_mel([0.0, 125.0, 7500.0]), mel_features.hertz_to_mel(np.array([0.0, 125.0, 7500.0]))
    )


# --------------------------------------------------------------------------------------------- laws


def test_silence_is_the_floor_everywhere() -> None:
    assert LogMelConfig().silence == math.log(0.01)
    torch.testing.assert_close(LogMel()(torch.zeros(16_000)), torch.full((1, 1, 96, 64), math.log(0.01)))


@settings(deadline=None, max_examples=8)
@given(gain=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_gain_acts_on_the_magnitude_below_the_logarithm(gain: float, seed: int) -> None:
    wave = torch.from_numpy(np.random.default_rng(seed).standard_normal(15_600))
    front_end = LogMel().double()
    magnitude = front_end(wave).exp() - 0.01
    torch.testing.assert_close(front_end(gain * wave), torch.log(gain * magnitude + 0.01), rtol=0, atol=1e-9)
    torch.testing.assert_close(front_end(-wave), front_end(wave))


@settings(deadline=None, max_examples=8)
@given(hops=st.integers(1, 95))
def test_shift_by_whole_hops_shifts_frames(hops: int) -> None:
    wave = torch.from_numpy(NOISE[:15_600])
    front_end = LogMel().double()
    shifted = torch.cat([torch.zeros(160 * hops, dtype=torch.float64), wave])[:15_600]
    torch.testing.assert_close(front_end(shifted)[..., hops + 2 :, :], front_end(wave)[..., 2:-hops, :])


@settings(deadline=None, max_examples=5)
@given(waves=st.integers(1, 4), examples=st.integers(1, 3))
def test_batches_equal_singles_in_the_order_of_the_waves(waves: int, examples: int) -> None:
    batch = torch.from_numpy(
        np.random.default_rng(waves).standard_normal((waves, 240 + 15_360 * examples + 500))
    ).float()
    together = LogMel()(batch)
    assert together.shape == (waves * examples, 1, 96, 64)
    torch.testing.assert_close(together, torch.cat([LogMel()(wave) for wave in batch]), rtol=0, atol=1e-6)


def test_examples_do_not_overlap_and_chunks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 16_000 * 4))).float()
    whole = LogMel()(wave)
    monkeypatch.setattr("relax_quantus.frontend.log_mel.CHUNK_FRAMES", 37)
    torch.testing.assert_close(LogMel()(wave), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(LogMel()(wave[:1, 15_360 : 15_360 + 15_600]), whole[1:2], rtol=0, atol=1e-6)
    assert CHUNK_FRAMES % 96 == 0


def test_a_tone_lands_in_the_band_whose_centre_it_is() -> None:
    config = LogMelConfig()
    assert config.band_centres_hz.shape == (64,)
    assert config.band_edges_hz[[0, -1]] == pytest.approx([125.0, 7500.0])
    for band in (10, 30, 60):
        tone = np.sin(2 * np.pi * config.band_centres_hz[band] * TIME_S)
        assert int(LogMel()(tone).mean(dim=(0, 1, 2)).argmax()) == band


# -------------------------------------------------------------------------------- gradients, dtypes


def test_gradient_is_that_of_finite_differences() -> None:
    config = LogMelConfig(window_s=0.002, hop_s=0.001, mel_bands=4, frames=2)
    wave = torch.from_numpy(NOISE[:90]).requires_grad_()
    assert torch.autograd.gradcheck(LogMel(config).double(), (wave,), atol=1e-6)


def test_gradient_keeps_the_graph_and_the_dtype() -> None:
    wave = torch.from_numpy(NOISE[:16_000]).float().requires_grad_()
    x = LogMel()(wave)
    assert x.requires_grad
    assert x.dtype == torch.float32
    x.sum().backward()
    assert wave.grad is not None
    assert wave.grad.dtype == torch.float32
    assert wave.grad[1:15_599].ne(0).all()
    assert wave.grad[15_600:].eq(0).all()


def test_gradient_is_finite_at_digital_silence() -> None:
    wave = torch.zeros(16_000, requires_grad=True)
    LogMel()(wave).sum().backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_result_has_the_modules_dtype_and_the_waves_are_of_any(dtype: torch.dtype) -> None:
    wave = torch.from_numpy(0.1 * NOISE[:16_000])
    assert LogMel()(wave.to(dtype)).dtype == torch.float32
    converted = LogMel().to(dtype)(wave)
    assert converted.dtype == dtype
    torch.testing.assert_close(converted.double(), LogMel().double()(wave), rtol=1e-2, atol=1e-2)


def test_first_use_in_inference_mode_does_not_spoil_later_gradients() -> None:
    config = LogMelConfig(log_offset=0.02)  # a configuration nothing else has used
    with torch.inference_mode():
        LogMel(config)(torch.zeros(16_000))
    LogMel(config)(torch.zeros(16_000, requires_grad=True)).sum().backward()


def test_module_has_no_state_and_copies() -> None:
    assert LogMel().state_dict() == {}
    wave = torch.from_numpy(NOISE)
    torch.testing.assert_close(copy.deepcopy(LogMel())(wave), LogMel()(wave))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_other_devices_agree() -> None:
    on_gpu = LogMel().to("cuda")(NOISE)
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), LogMel()(NOISE), rtol=0, atol=1e-6)


def test_device_of_the_module_decides() -> None:
    assert LogMel().to("meta").silence.device.type == "meta"
    with torch.device("meta"):
        front_end = LogMel()
    assert front_end.to_empty(device="cpu")(torch.zeros(16_000)).shape == (1, 1, 96, 64)


# --------------------------------------------------------------------------------------- odd inputs


def test_any_layout_of_numpy_array_is_read_and_left_alone(recwarn: pytest.WarningsRecorder) -> None:
    wave = NOISE[:16_000].astype(np.float32)
    wanted = LogMel()(wave)
    locked = wave.copy()
    locked.flags.writeable = False
    strided = np.zeros((16_000, 2), np.float32)
    strided[:, 0] = wave
    for same in (
        locked,
        wave[::-1].copy()[::-1],
        wave.astype(">f4"),
        strided[:, 0],
        wave.astype(np.longdouble),
        wave.tolist(),
    ):
        torch.testing.assert_close(LogMel()(same), wanted)
    assert not recwarn.list
    before = wave.copy()
    LogMel()(wave)
    np.testing.assert_array_equal(wave, before)


@pytest.mark.parametrize("shape", [(), (1, 1, 16_000), (2, 1, 1, 16_000)])
def test_other_numbers_of_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ShapeError, match=r"wave: expected shape \(samples,\) or \(B, samples\), got .*; mix channels down"
    ):
        LogMel()(torch.zeros(shape))
    with pytest.raises(ShapeError, match="wave: expected shape"):
        LogMel()(np.zeros(shape))


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(16_000, np.int16),
        torch.zeros(16_000, dtype=torch.int32),
        np.zeros(9, bool),
        torch.zeros(9).cfloat(),
        "a",
        [1, 2],
    ],
)
def test_integers_and_other_types_are_refused_with_a_remedy(wave: object) -> None:
    with pytest.raises(
        ArgumentTypeError, match=r"wave: expected floating-point samples, got .*; scale them to \[-1, 1\] first"
    ):
        LogMel()(wave)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinite_samples_are_refused(bad: float) -> None:
    wave = torch.zeros(2, 16_000)
    wave[1, 5] = bad
    with pytest.raises(ArgumentError, match=r"wave: expected finite entries, got .* with 1 NaN or infinite"):
        LogMel()(wave)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": 0}, "frames: expected an integer of at least 1"),
        ({"mel_bands": 1.5}, "mel_bands: expected an integer"),
        ({"log_offset": 0.0}, "log_offset: expected a finite number above 0"),
        ({"hop_s": 1e-9}, "hop_s: expected at least one sample"),
        ({"mel_max_hz": 9000.0}, r"mel_max_hz: expected .* <= 8000 \(half the sample rate\)"),
        ({"mel_min_hz": 8000.0}, "mel_min_hz < mel_max_hz"),
    ],
)
def test_configuration_that_cannot_work_is_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises((ArgumentError, ArgumentTypeError), match=said):
        LogMelConfig(**change)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ load_examples


def test_load_examples_is_the_file_read_resampled_and_cut(write_wav: Callable[..., Path], sweep: Array) -> None:
    path = write_wav(np.stack([sweep, sweep], axis=1))
    x = load_examples(path)
    assert x.shape == (2, 1, 96, 64)
    assert not x.requires_grad
    torch.testing.assert_close(x, LogMel()(sweep))


def test_load_examples_pads_only_what_is_too_short(write_wav: Callable[..., Path], sweep: Array) -> None:
    for samples, count in ((15_599, 1), (15_600, 1), (16_000, 1), (30_959, 1), (30_960, 2)):
        x = load_examples(write_wav(sweep[:samples]))
        assert len(x) == count
    short = load_examples(write_wav(sweep[:3200]))
    padded: Tensor = LogMel()(np.pad(sweep[:3200], (0, 12_400)))
    torch.testing.assert_close(short, padded)


def test_load_examples_inside_inference_mode_gives_ordinary_tensors(
    write_wav: Callable[..., Path], sweep: Array
) -> None:
    with torch.inference_mode():
        x = load_examples(write_wav(sweep))
    assert not x.is_inference()
    x.requires_grad_()


def test_other_configurations_have_other_shapes(write_wav: Callable[..., Path], sweep: Array) -> None:
    config = LogMelConfig(sample_rate_hz=8_000, mel_max_hz=3_800.0, mel_bands=40, frames=50)
    assert load_examples(write_wav(sweep), config).shape == (3, 1, 50, 40)
