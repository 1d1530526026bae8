"""``relax-quantus bench``: options and a configuration file -> a benchmark's table and files.

An option that is None was not given; the configuration file or the preset decides then.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relax_quantus.base.extras import require
from relax_quantus.cli import console
from relax_quantus.cli.options import (
    DOMAIN,
    ENCODER,
    RESAMPLER,
    RESULTS,
    SEED,
    MessageOptions,
    NetworkOptions,
    completing,
)
from relax_quantus.errors import DataError

if TYPE_CHECKING:
    from relax_quantus.benchmark.config import BenchmarkConfig
    from relax_quantus.benchmark.engine.results import Results

RUNNING = "Execution"
OUT = "relax-quantus-results"


@dataclass(frozen=True)
class BenchRequest:
    """Score masking strategies and other methods, and print tables.

    Every strategy stands beside its shuffled twin, the same masks without information.

    Every finished cell is on disk before the next begins. Whatever stops a run, the same command
    goes on from there; what is added to it (clips, seeds, methods, metrics) is all that is
    computed.

    The encoder is shown log-mel examples; one of waveforms, or with a front end of its own, is
    refused, as the metrics know VGGish's bands. DIR gets the tidy results (results.csv,
    results.parquet), the curves, the table (table.md) and what they depend on (run.json).

    \b
    Examples:
      relax-quantus bench
      relax-quantus bench --data animal-sounds/ --max-clips 48 --out results --workers 4
      relax-quantus bench grid.toml --dry-run
    """

    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            show_default="the preset alone",
            help="TOML file of settings; options given beside it win.",
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completing("presets"),
            show_default="quick",
            help="How much to do: quick (minutes), default or paper (hours).",
        ),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default="synthetic soundscapes, whose truth is known",
            help="Recordings, as for `fit`.",
        ),
    ] = None
    max_clips: Annotated[
        int | None,
        typer.Option(metavar="N", show_default="the preset's", help="Number of clips to explain."),
    ] = None
    n_samples: Annotated[
        int | None,
        typer.Option(metavar="N", show_default="the preset's", help="Number of masks for each method."),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=RESULTS,
            show_default=OUT,
            help="Folder for the results; a run that stopped goes on from what is there.",
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(metavar="N", show_default="0", help=SEED)] = None
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", autocompletion=completing("domains"), show_default="log", help=DOMAIN)
    ] = None
    encoder: NetworkOptions = field(default_factory=NetworkOptions)
    resampler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=ENCODER,
            autocompletion=completing("resamplers"),
            show_default="soxr",
            help=RESAMPLER,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel=RUNNING,
            show_default="1",
            help="Number of worker processes, which share the cores.",
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            rich_help_panel=RUNNING,
            show_default="none",
            help="Dask scheduler whose workers are used, such as tcp://10.0.0.1:8786.",
        ),
    ] = None
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            rich_help_panel=RUNNING,
            show_default="none",
            help="Time limit for one map, or for one metric of one clip; a row records what takes longer.",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            rich_help_panel=RUNNING,
            help="Print what the run would cost here in time and memory, and stop.",
        ),
    ] = False
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", rich_help_panel=RUNNING, help="Stop at the first cell that fails or runs out of memory or time."
        ),
    ] = False
    retry: Annotated[
        bool,
        typer.Option("--retry", rich_help_panel=RUNNING, help="Try cells again that failed in an earlier run."),
    ] = False
    messages: MessageOptions = field(default_factory=MessageOptions)

    def run(self) -> int:
        """Run the benchmark that the file, the preset and the other options describe.

        Return 0, or 1 if a recording or a cell could not be used, 130 after Ctrl-C, 143 after
        SIGTERM.

        Raises
        ------
        RelaxQuantusError
            If the file, the preset, a number, the recordings or the folder cannot work.
        """
        require("bench", "bench")
        import sqlite3

        from relax_quantus import benchmark
        from relax_quantus.audio.reading import checked_resampler
        from relax_quantus.base import checks, files

        config = configured(self)
        checked_resampler(config.resampler)
        if self.dry_run:
            forecast = benchmark.forecast(config)
            console.result("\n".join(forecast.lines()), "forecast", **asdict(forecast))
            return 0
        out = files.writable_folder(Path(str(config.out)))
        try:
            results = benchmark.run(config, show_progress=console.progress)
        except KeyboardInterrupt as stop:
            console.answered()
            console.error(
                f"interrupted; every finished cell is kept in {console.shown(out)}, and the same command goes on"
            )
            return console.exit_code(stop)
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
    """Print the tables; with ``--json`` each score as an object."""
    from relax_quantus import benchmark
    from relax_quantus.benchmark.report.tables import tables

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
    """Return the configuration: the file's or the preset's, with the options that were given."""
    from relax_quantus.base import checks
    from relax_quantus.benchmark.config import BenchmarkConfig

    settings = {f.name for f in fields(BenchmarkConfig)} - {"preset", "encoder"}
    given = {f.name: getattr(request, f.name) for f in fields(request) if f.name in settings}
    given = {
        name: str(v) if isinstance(v, Path) else v for name, v in given.items() if v is not None and v is not False
    }
    if request.encoder != NetworkOptions():
        given |= {"encoder": specification(request.encoder), "encoders": ()}
    # An option for one data set or seed replaces the file's list.
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
    """Return the encoder and its weights as one text, as a configuration holds it."""
    from relax_quantus.base import checks

    if encoder.sha256 is not None and encoder.weights is None:
        checks.refuse("--sha256", "a file to check, --weights FILE", "none", "name it, or leave --sha256 out")
    settings = {"weights": encoder.weights, "sha256": encoder.sha256}
    text = ",".join(f"{key}={value}" for key, value in settings.items() if value is not None)
    return encoder.encoder + (("," if "=" in encoder.encoder else ":") + text if text else "")
