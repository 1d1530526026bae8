"""Sounds written a few seconds at a time are those of the whole recording."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from relax_quantus.frontend.axes import BinAxis
from relax_quantus.frontend.examples import Axis
from relax_quantus.frontend.log_mel import LogMelAxis
from relax_quantus.views import sounds
from relax_quantus.views.sounds import separate, write_separated


@pytest.mark.parametrize(("rate", "seconds"), [(16_000, 7.3), (44_100, 5.0), (22_050, 12.77), (8000, 0.5)])
@pytest.mark.parametrize(
    "axis", [LogMelAxis(), BinAxis(every_s=0.0125, size=64, bins_hz=tuple(np.linspace(0, 8000, 64)))]
)
def test_chunks_do_not_show(
    write_wav: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rate: int,
    seconds: float,
    axis: Axis,
) -> None:
    monkeypatch.setattr(sounds, "CHUNK_S", 1.0)
    generator = np.random.default_rng(0)
    wave = (0.1 * generator.standard_normal(round(rate * seconds))).astype(np.float32)
    gains = generator.random((max(96, int(seconds / 0.96) * 96), 64))  # a second at the end has no gains
    path = write_wav(wave, rate)
    kept, removed = tmp_path / "kept.flac", tmp_path / "removed.wav"
    write_separated(path, kept, removed, np.array_split(gains, 5), len(gains), axis)
    whole = separate(wave, rate, gains[None, None], axis)
    assert soundfile.SoundFile(kept).software.startswith("relax_quantus "), "so that it is no recording"
    for written, part in ((kept, whole.kept), (removed, whole.removed)):
        found, found_rate = soundfile.read(written)
        assert found_rate == rate
        np.testing.assert_allclose(found, part, atol=3e-7)  # 24 bits
