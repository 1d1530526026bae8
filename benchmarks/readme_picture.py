"""Make the README's picture: ``python -m benchmarks.readme_picture``.

A synthetic soundscape (dog-like barks with a louder tone beside them) is written to a temporary
folder and explained by the command line towards the clean call, as anyone would explain a recording
of their own.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile

from relax_quantus.benchmark.data.soundscapes import soundscape
from relax_quantus.benchmark.data.synthetic_calls import CLASS_NAMES, SAMPLE_RATE_HZ

SEED, INDEX, LABEL = 2026, 7, CLASS_NAMES.index("dog")


def main(out: Path, seed: int = SEED, index: int = INDEX, label: int = LABEL, n_samples: int = 1000) -> None:
    """Write the picture to `out`."""
    scape = soundscape(seed, index, label)
    with tempfile.TemporaryDirectory() as folder:
        mixture, stem = (
            Path(folder, f"{scape.label_name}_with_{scape.nuisance.decoy}.wav"),
            Path(folder, "clean_call.wav"),
        )
        soundfile.write(mixture, scape.wave, SAMPLE_RATE_HZ, subtype="FLOAT")
        soundfile.write(stem, scape.stem, SAMPLE_RATE_HZ, subtype="FLOAT")
        command = ["explain", str(mixture), "--out", folder, "--n-samples", str(n_samples), "--reference", str(stem)]
        subprocess.run([sys.executable, "-m", "relax_quantus", *command], check=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(mixture.with_suffix(".png"), out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs/pictures/explanation.png"
    )
    main(parser.parse_args().out)
