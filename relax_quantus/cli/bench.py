"""``relax-quantus bench``: the benchmark engine run or gone on with, its table printed, its files written."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, fields, replace
from pathlib import Path

from relax_quantus import benchmark
from relax_quantus.audio.reading import checked_resampler
from relax_quantus.base import checks
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.engine.results import Results
from relax_quantus.benchmark.report.tables import tables
from relax_quantus.cli import console, files, stopping
from relax_quantus.cli.requests.bench import BenchRequest
from relax_quantus.cli.requests.shared import NetworkOptions
from relax_quantus.errors import DataError

OUT = "relax-quantus-results"


def run(request: BenchRequest) -> int:
    """Run what a file or a preset says, with what was given beside it.

    Returns 0, 1 if a recording or a cell could not be used, 130 after Ctrl-C and 143 after SIGTERM.

    Raises
    ------
    RelaxQuantusError
        If the file, the preset, a number, the recordings or the folder cannot work.
    """
    config = configured(request)
    checked_resampler(config.resampler)
    if request.dry_run:
        forecast = benchmark.forecast(config)
        console.result("\n".join(forecast.lines()), "forecast", **asdict(forecast))
        return 0
    out = files.writable_folder(Path(str(config.out)))
    try:
        results = benchmark.run(config, show_progress=console.progress)
    except KeyboardInterrupt as stop:
        stopping.answered()
        console.error(f"interrupted; every finished cell is kept in {console.shown(out)}, and the same command goes on")
        return stopping.exit_code(stop)
    except sqlite3.OperationalError as error:
        rule, remedy = (
            "room for the results",
            "make room or name another folder; the same command goes on from what is finished",
        )
        raise DataError(checks.message(console.shown(out), rule, str(error), remedy)) from error
    try:
        tell(results)
    finally:
        for name in benchmark.FILES:
            console.result(console.shown(out / name), "file", path=out / name)
    lost = results.rows[results.rows.status.isin(benchmark.LOST) & (results.rows.part == "")]
    if len(lost):
        first = lost.iloc[0]
        console.error(
            f"{len(lost)} cells could not be computed, such as {first.metric} of {first.method} on {first['clip']} "
            f"({first.status}: {first.reason}); their rows in results.csv say why, and --retry tries them again"
        )
    return 1 if len(lost) or any(data.skipped for data in results.datasets.values()) else 0


def tell(results: Results) -> None:
    """Print the tables; for programs, every cell of them."""
    if console.for_people():
        benchmark.show(results)
        return
    for data in results.datasets.values():
        for line in data.skipped:
            console.error(f"skipped {line}")
    for table in tables(results):
        for score in table.tidy():
            console.result("", "score", **score)


def configured(request: BenchRequest) -> BenchmarkConfig:
    """The configuration that was asked for; what was not given is left to the file or the preset."""
    settings = {f.name for f in fields(BenchmarkConfig)} - {"preset", "encoder"}
    given = {f.name: getattr(request, f.name) for f in fields(request) if f.name in settings}
    given = {
        name: str(v) if isinstance(v, Path) else v for name, v in given.items() if v is not None and v is not False
    }
    if request.encoder != NetworkOptions():
        given |= {"encoder": specification(request.encoder), "encoders": ()}
    # What is given in the short way replaces the file's list.
    given |= {many: () for short, many in (("data", "datasets"), ("seed", "seeds")) if short in given}
    if request.config is None:
        config = BenchmarkConfig.from_preset(request.preset or "quick", **given)
    else:
        config = BenchmarkConfig.from_file(request.config, preset=request.preset, **given)
    if config.data is None and not config.datasets and config.resampler != "soxr":
        rule, got = "recordings to resample, --data FOLDER", f"synthetic soundscapes and {config.resampler!r}"
        checks.refuse("--resampler", rule, got, "name a folder or leave it out")
    return config if config.out is not None else replace(config, out=OUT)


def specification(encoder: NetworkOptions) -> str:
    """An encoder with its weights, as one text."""
    if encoder.sha256 is not None and encoder.weights is None:
        checks.refuse("--sha256", "a file to check, --weights FILE", "none", "name it, or leave --sha256 out")
    settings = {"weights": encoder.weights, "sha256": encoder.sha256}
    text = ",".join(f"{key}={value}" for key, value in settings.items() if value is not None)
    return encoder.encoder + (("," if "=" in encoder.encoder else ":") + text if text else "")
