"""Two real recordings, one after the other in one
example: towards either one the map moves to its half.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import relax_quantus as rq

EXAMPLE = 15_600
LOUDNESS = 0.1
PAIRS = (("bird/bird_025.flac", "dog/dog_011.flac"), ("cat/cat_123.flac", "dog/dog_098.flac"))


def loudest(wave: np.ndarray, samples: int) -> np.ndarray:
    """The loudest stretch of a recording, scaled to one
    loudness, so that level cannot tell the halves apart.
    """
    energy = np.convolve(wave.astype(np.float64) ** 2, np.ones(samples), "valid")
    stretch = wave[int(energy.argmax()) :][:samples]
    return np.asarray(LOUDNESS * stretch / np.sqrt(np.mean(stretch**2)), dtype=np.float32)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_map_moves_to_the_half_of_the_reference(pair: tuple[str, str], animal_sounds: Path) -> None:
    encoder, log_mel = rq.load_encoder("vggish_mini").to(memory_format=torch.channels_last), rq.LogMel()
    waves = [rq.load_waveform(animal_sounds / name) for name in pair]
    example = log_mel(np.concatenate([loudest(wave, EXAMPLE // 2) for wave in waves]))
    assert example.shape == (1, 1, 96, 64)
    for masks in ("random", "time", "time_frequency"):  # frequency stripes cannot tell moments apart
        relax = rq.RELAX(encoder, masks=masks)
        first_minus_second = []
        for wave in waves:
            whole = log_mel(loudest(wave, EXAMPLE))
            explained = relax.explain(example, "silence", n_samples=400, reference=whole).centred()[0, 0]
            first_minus_second.append(float(explained[:48].mean() - explained[48:].mean()))
        assert first_minus_second[0] > 0 > first_minus_second[1], (masks, first_minus_second)
