"""``relax-quantus bench``: the benchmark engine run, its table printed, its files written."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from relax_quantus import benchmark, checks
from relax_quantus.audio import checked_resampler
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.commands import console, files
from relax_quantus.commands.loading import EncoderOptions, require_log_mel

FAST = torch.channels_last  # as `preparation.prepare` has it for an encoder that it loads itself


def run(
    preset: str,
    out: Path,
    encoder: EncoderOptions,
    *,
    data: Path | None,
    max_clips: int | None,
    n_samples: int | None,
    seed: int,
    domain: str,
    resampler: str = "soxr",
) -> int:
    """Run a preset with what was given beside it; return 0, or 1 if a recording could not be used.

    The table is printed before anything is written, so that a full disk does not lose it, and the files are written even if printing fails.

    Raises
    ------
    RelaxQuantusError
        If the preset, a number, the recordings or `out` cannot work.
    """
    if data is None and resampler != "soxr":
        rule = "recordings to resample, --data FOLDER"
        checks.refuse("--resampler", rule, f"synthetic soundscapes and {resampler!r}", "name a folder or leave it out")
    given = {"max_clips": max_clips, "n_samples": n_samples, "seed": seed, "domain": domain, "resampler": resampler}
    given["encoder"] = encoder.encoder
    config = BenchmarkConfig.from_preset(preset, data=None if data is None else str(data), **given)
    checked_resampler(resampler)
    network = None if encoder == EncoderOptions() else require_log_mel(encoder, "bench").to(memory_format=FAST)  # type: ignore[call-overload]
    files.writable_folder(out)
    results = benchmark.run(config, encoder=network, show_progress=sys.stderr.isatty())
    try:
        benchmark.show(results)
    finally:
        for path in benchmark.write(results, out):
            console.result(console.shown(path))
    return 1 if results.dataset.skipped else 0
