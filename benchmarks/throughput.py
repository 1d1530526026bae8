"""Measure how much faster a benchmark is with several workers of one thread than with one.

Whole runs are timed in turn, in processes of their own.

    python -m benchmarks.throughput [--workers 2] [--clips 24] [--repeats 3] [--out FILE]

Preset quick on synthetic soundscapes. Cells a second of the part that workers share, and of the
whole run, which also loads the data, fits the head, starts and ends processes and writes the
results. As a yardstick, examples a second of the encoder alone in so many processes at once: what
these cores give when nothing is shared, so that more cannot be asked for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

ROWS, ALONE_S = 8, 10.0


def run_once(workers: int, clips: int) -> dict[str, float]:
    """Run once in this process; return cells, their seconds and the seconds of everything."""
    started = time.perf_counter()
    from relax_quantus import benchmark

    with tempfile.TemporaryDirectory() as out:
        config = benchmark.BenchmarkConfig.from_preset("quick", workers=workers, threads=1, max_clips=clips, out=out)
        results = benchmark.run(config, show_progress=False)
    return {
        "cells": results.cells,
        "cells_s": results.seconds["cells"],
        "whole_s": time.perf_counter() - started,
    }


def forwards_a_second(seconds: float) -> float:
    """Count the examples that the bundled encoder embeds in one thread in so many seconds."""
    from relax_quantus import load_encoder

    torch.set_num_threads(1)
    encoder, x = load_encoder("vggish_mini"), torch.zeros(ROWS, 1, 96, 64)
    done, started = 0, time.perf_counter()
    with torch.no_grad():
        while time.perf_counter() - started < seconds:
            encoder(x)
            done += ROWS
    return done / (time.perf_counter() - started)


def alone(workers: int) -> float:
    """Return the forwards a second of so many processes at once, together."""
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(forwards_a_second, [0.5] * workers))  # every process has loaded what it needs
        return sum(pool.map(forwards_a_second, [ALONE_S] * workers))


def in_a_process(workers: int, clips: int) -> dict[str, float]:
    """Do `run_once` as the command line would: in a new process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.throughput",
        "--once",
        "--workers",
        str(workers),
        "--clips",
        str(clips),
    ]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def ratios(rounds: list[dict[str, dict[str, float]]]) -> dict[str, list[float]]:
    """Divide the throughput of several workers by that of one, round by round."""
    return {
        name: [r["one"][f"{name}_s"] / r["several"][f"{name}_s"] for r in rounds] for name in ("cells", "whole")
    } | {"encoder_alone": [r["alone"]["several"] / r["alone"]["one"] for r in rounds]}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description="One worker or several?")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file for every round")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(run_once(arguments.workers, arguments.clips)))
        return
    rounds = []
    for number in range(arguments.repeats):
        counts = {"one": 1, "several": arguments.workers}
        order = list(counts) if number % 2 == 0 else list(counts)[::-1]
        made = {name: in_a_process(counts[name], arguments.clips) for name in order}
        made["alone"] = {name: alone(counts[name]) for name in order}
        rounds.append(made)
        print(json.dumps(made), flush=True)
    found = ratios(rounds)
    for name, values in found.items():
        print(f"{name}: {statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}], {len(values)} rounds")
    if arguments.out is not None:
        text = json.dumps(
            {"workers": arguments.workers, "clips": arguments.clips, "ratios": found, "rounds": rounds}, indent=1
        )
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
