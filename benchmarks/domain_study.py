"""Measure whether it matters where soft masks blend.

``python -m benchmarks.domain_study --data FOLDER``

For a class-balanced sample of recordings and each strategy: mean and spread of the similarity over
masks with log and amplitude blending, and the rank correlation of the two maps, beside that of two
maps with log blending and other masks (the noise ceiling).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from tqdm import tqdm

import relax_quantus as rq
from relax_quantus.benchmark.data.recordings import folder
from relax_quantus.relax.masks import STRATEGIES


def main(data: Path, clips: int, n_samples: int, seed: int) -> None:
    """Print the table."""
    encoder = rq.load_encoder("vggish_mini")
    sample = [clip.x for clip in folder(data, clips, seed, 1).clips]
    print(
        "| masks | mean s, log | mean s, amplitude | sd of s, log | sd of s, amplitude | rank correlation | ceiling |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in STRATEGIES:
        rows = [measure(encoder, name, x[None], n_samples, seed) for x in tqdm(sample, desc=name)]
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in np.median(rows, axis=0)) + " |")


def measure(encoder: torch.nn.Module, masks: str, x: torch.Tensor, n_samples: int, seed: int) -> tuple[float, ...]:
    """Measure mean and spread of s for both ways, correlation of the maps, and the ceiling."""
    similarities, maps = [], []
    for domain, drawn in (("log", seed), ("amplitude", seed), ("log", seed + 1)):
        relax = rq.RELAX(encoder, masks, domain=domain)
        s = relax.similarities(x, "silence", n_samples=n_samples, seed=drawn)
        similarities.append(s)
        maps.append(relax.estimate(x, s, seed=drawn).importance.flatten().numpy())
    log, amplitude, _ = similarities
    correlation, ceiling = (float(spearmanr(maps[0], other).statistic) for other in maps[1:])
    return float(log.mean()), float(amplitude.mean()), float(log.std()), float(amplitude.std()), correlation, ceiling


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--n-samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.data, options.clips, options.n_samples, options.seed)
