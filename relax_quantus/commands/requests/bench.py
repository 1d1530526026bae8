"""What `bench` can be asked; what is None was not, and is the configuration file's or the preset's to say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from relax_quantus.commands.requests.shared import DOMAIN, RESAMPLER, SEED, NetworkOptions


@dataclass(frozen=True)
class BenchRequest:
    """Score every masking strategy beside its shuffled twin and other methods, and print the table.

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
            metavar="[CONFIG]", show_default=False, help="TOML file of settings; options given beside it win."
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default="quick", help="How much to do: quick (minutes), default or paper (hours)."
        ),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="Recordings, as for `fit`; without it, synthetic soundscapes of which the truth is known.",
        ),
    ] = None
    max_clips: Annotated[
        int | None,
        typer.Option(metavar="N", show_default=False, help="Clips to explain; the preset's number by default."),
    ] = None
    n_samples: Annotated[
        int | None,
        typer.Option(metavar="N", show_default=False, help="Masks N of each method; the preset's number by default."),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default="relax-quantus-results",
            help="Folder for the results; a run that stopped goes on from what is there.",
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(metavar="N", show_default="0", help=SEED)] = None
    domain: Annotated[str | None, typer.Option(metavar="NAME", show_default="log", help=DOMAIN)] = None
    encoder: NetworkOptions = field(default_factory=NetworkOptions)
    resampler: Annotated[str | None, typer.Option(metavar="NAME", show_default="soxr", help=RESAMPLER)] = None
    workers: Annotated[
        int | None, typer.Option(metavar="N", show_default="1", help="Processes; they share the cores.")
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="Dask scheduler whose workers are used, such as tcp://10.0.0.1:8786.",
        ),
    ] = None
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            show_default=False,
            help="For one map, or one metric of one clip; longer is a row that says so.",
        ),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost here in time and memory, and stop.")
    ] = False
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first cell that fails or runs out of memory or time.")
    ] = False
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed when the same was run before.")] = False

    def run(self) -> int:
        """Run the benchmark; see `relax_quantus.commands.bench`."""
        from relax_quantus.commands import bench

        return bench.run(self)
