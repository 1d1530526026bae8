"""Define the comparison's other architecture: dilated convolutions over time only.

It sees no neighbourhood of bands. Log-mel examples ``(n, 1, 96, 64)`` enter, embeddings
``(n, 128)`` leave. `time_convolutions` loads the weights that `train` wrote, so that a benchmark
can name it: ``benchmarks.answer.networks:time_convolutions``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

ENCODERS = Path(__file__).parent / "encoders"
CHANNELS = (96, 96, 128, 128)
DILATIONS = (1, 2, 4, 8)
SILENCE = -4.605170
LOUD = 4.0


class TimeConvolutions(nn.Module):
    """An encoder of four dilated convolutions over time, mean and maximum, and a linear layer.

    Bands are channels; mean and maximum are over time. No ReLU at the end, unlike VGGish: a cosine
    of such embeddings has no offset.
    """

    embedding_size = 128

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 64
        for channels, dilation in zip(CHANNELS, DILATIONS, strict=True):
            layers += [nn.Conv1d(previous, channels, 3, padding=dilation, dilation=dilation), nn.GroupNorm(8, channels)]
            layers.append(nn.GELU())
            previous = channels
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Linear(2 * previous, self.embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        """Embed ``(n, 1, 96, 64) -> (n, 128)``."""
        scaled = (x[:, 0].transpose(1, 2) - SILENCE) / LOUD
        h = self.features(scaled)
        return torch.as_tensor(self.embeddings(torch.cat([h.mean(2), h.amax(2)], 1)))


def time_convolutions() -> TimeConvolutions:
    """Load the trained network.

    Raises
    ------
    FileNotFoundError
        Before ``python -m benchmarks.answer`` has trained it.
    """
    path = ENCODERS / "time_convolutions.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not there; python -m benchmarks.answer trains it")
    with torch.random.fork_rng(devices=[]):
        network = TimeConvolutions()
    network.load_state_dict(load_file(path))
    return network.eval()
