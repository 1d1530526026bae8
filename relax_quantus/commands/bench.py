"""``relax-quantus bench``: the benchmark engine run, its table printed, its files written."""

from __future__ import annotations

import sys
from pathlib import Path

from relax_quantus import benchmark
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.commands import console, files


def run(
    preset: str, out: Path, *, data: Path | None, max_clips: int | None, n_samples: int | None, seed: int, domain: str
) -> int:
    """Run a preset with what was given beside it; return 0, or 1 if a recording could not be used.

    The table is printed before anything is written, so that a full disk does not lose it, and the files are written even if printing fails.

    Raises
    ------
    RelaxQuantusError
        If the preset, a number, the recordings or `out` cannot work.
    """
    given = {"max_clips": max_clips, "n_samples": n_samples, "seed": seed, "domain": domain}
    config = BenchmarkConfig.from_preset(preset, data=None if data is None else str(data), **given)
    files.writable_folder(out)
    results = benchmark.run(config, show_progress=sys.stderr.isatty())
    try:
        benchmark.show(results)
    finally:
        for path in benchmark.write(results, out):
            console.result(console.shown(path))
    return 1 if results.dataset.skipped else 0
