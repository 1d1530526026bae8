"""What `bench` can be asked; what is None was not, and is the configuration file's or the preset's to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from relax_quantus.base.extras import require
from relax_quantus.cli.requests.names import completing
from relax_quantus.cli.requests.shared import DOMAIN, ENCODER, RESAMPLER, RESULTS, SEED, MessageOptions, NetworkOptions

RUNNING = "How it is run"


@dataclass(frozen=True)
class BenchRequest:
    """Score masking strategies and other methods, and print tables.

    Every strategy stands beside its shuffled twin, the same masks without information.

    Every finished cell is on disk before the next begins. Whatever stops a run, the same command goes on from there; what is added to it (clips,
    seeds, methods, metrics) is all that is computed.

    The encoder is shown log-mel examples; one of waveforms, or with a front end of its own, is refused, as the metrics know VGGish's bands.
    DIR gets the tidy results (results.csv, results.parquet), the curves, the table (table.md) and what they depend on (run.json).

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
        typer.Option(metavar="N", show_default="the preset's", help="Clips to explain."),
    ] = None
    n_samples: Annotated[
        int | None,
        typer.Option(metavar="N", show_default="the preset's", help="Masks N of each method."),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=RESULTS,
            show_default="relax-quantus-results",
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
        typer.Option(metavar="N", rich_help_panel=RUNNING, show_default="1", help="Processes; they share the cores."),
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
            help="For one map, or one metric of one clip; longer is a row that says so.",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", rich_help_panel=RUNNING, help="Say what it would cost here in time and memory, and stop."
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
        typer.Option("--retry", rich_help_panel=RUNNING, help="Try again what failed when the same was run before."),
    ] = False
    messages: MessageOptions = field(default_factory=MessageOptions)

    def run(self) -> int:
        """Run the benchmark; see `relax_quantus.cli.bench`."""
        require("bench", "bench")
        from relax_quantus.cli import bench

        return bench.run(self)
