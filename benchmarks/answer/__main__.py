"""Train what is missing, run what is not finished and write the report.

    python -m benchmarks.answer --data FOLDER [--only recordings truth] [--seeds 1] [--workers 2]
        [--steps 400]

This is the one command behind benchmarks/results. Encoders go to ``benchmarks/answer/encoders``,
the growing runs to ``benchmarks/answer/run`` (neither is published), tables, statistics and figures
to ``benchmarks/results``. A stopped command goes on where it was; more seeds, encoders or methods
in a configuration add to what is there, so that ``--seeds 1`` and then ``--seeds 3`` is a first
answer and then a better one. ``--report-only`` makes the reports again, those of grids that were
not run here from their published scores.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

from benchmarks.answer.networks import ENCODERS
from benchmarks.answer.publishing import publish, remake
from benchmarks.answer.train import train
from relax_quantus import benchmark
from relax_quantus.benchmark.config import BenchmarkConfig

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TRAINED = ("ENCODERS", "time_convolutions")
"""What a configuration names of the encoders that `train` makes."""
RUNS, RESULTS = HERE / "run", ROOT / "benchmarks" / "results"
GRIDS = (
    "recordings",
    "truth",
    "planted",
    "soundscapes",
    "control",
    "logit",
    "variants",
    "converged",
    "categories",
    "levels",
    "shortcut",
    "signs",
)
"""In the order of their weight: a run that is stopped early has the first."""


def grid(name: str, data: Path, workers: int, max_clips: int | None, seeds: int | None = None) -> BenchmarkConfig:
    """Read a configuration beside this file, with its first `seeds` mask seeds or all of them.

    Its folders are those of this machine, relative to the repository's.
    """
    path, filled = HERE / f"{name}.toml", RUNS / f"{name}.toml"
    shown = os.path.relpath(data, ROOT)
    text = path.read_text().replace("DATA", shown).replace("ENCODERS", str(ENCODERS.relative_to(ROOT)))
    filled.parent.mkdir(exist_ok=True)
    filled.write_text(text)
    out = str((RUNS / name).relative_to(ROOT))
    config = BenchmarkConfig.from_file(filled, out=out, workers=workers, threads=1, max_clips=max_clips)
    return replace(config, seeds=config.seeds[:seeds])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer", description="Which masking is right?")
    parser.add_argument("--data", type=Path, help="a folder of recordings with clips.csv")
    parser.add_argument("--only", nargs="+", choices=GRIDS, default=GRIDS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max-clips", type=int, help="fewer or more clips than the configurations say")
    parser.add_argument("--seeds", type=int, help="of each configuration's mask seeds the first so many")
    parser.add_argument("--steps", type=int, default=400, help="of each encoder's training")
    parser.add_argument("--report-only", action="store_true", help="no training and no run")
    arguments = parser.parse_args()
    if not (arguments.data or arguments.report_only):
        parser.error("--data: expected a folder with clips.csv, got none; name one, or ask for --report-only")
    data = Path(arguments.data or "").resolve()
    os.chdir(ROOT)
    asked = any(trained in (HERE / f"{name}.toml").read_text() for name in arguments.only for trained in TRAINED)
    weights = train(data, arguments.steps) if asked and not arguments.report_only else {}
    for name in arguments.only:
        if not arguments.report_only:
            benchmark.run(grid(name, data, arguments.workers, arguments.max_clips, arguments.seeds))
            (RUNS / name / "encoders.json").write_text(json.dumps(weights, indent=1) + "\n")
        ran = (RUNS / name / "results.parquet").is_file()
        for path in publish(RUNS / name, RESULTS / name) if ran else remake(RESULTS / name):
            print(path)


if __name__ == "__main__":
    main()
