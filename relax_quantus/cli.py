"""The command ``relax-quantus``: arguments enter, one function of `relax_quantus.commands` runs, an exit code leaves.

Thin on purpose: this module declares options and their help, and turns whatever goes wrong into one plain line on stderr. It imports nothing
heavy, so ``--help`` answers at once; each command imports what it needs when it runs. Exit codes: 0 all done, 1 something was refused or
skipped, 2 the command line was not understood, 130 interrupted.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import relax_quantus
from relax_quantus.commands import console

PROGRAM = "relax-quantus"


class PlainGroup(TyperGroup):
    """A group of commands that complains in one plain line and takes ``--debug`` before or after the command's name."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C becomes one line and exit code 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.error("interrupted; what was written before is kept")
            return 130

    def main(self, args: Sequence[str] | None = None, *_: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the command line `args` (those of the process by default) and exit with its code."""
        arguments = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in arguments
        arguments = [a for a in arguments if a != "--debug"]
        extra["prog_name"] = PROGRAM
        with console.plain(debug):
            try:
                code = super().main(arguments, standalone_mode=False, **extra)
            except Exception as problem:
                console.report(problem)
                code = getattr(problem, "exit_code", 1)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


app = typer.Typer(
    cls=PlainGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Encoder = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Encoder; `relax-quantus list encoders` names them. NAME:layer=6 sets its parameters. Your own: module:attribute or "
        "file.py:name, a torch module or a function that returns one, or a pair (front end, module).",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        show_default=False,
        help="Weights of that encoder, safetensors or a torch.save'd state dict; torchaudio's models need it.",
    ),
]
Sha256 = Annotated[
    str | None, typer.Option(metavar="HEX", show_default=False, help="SHA-256 that FILE must have, 64 digits.")
]
FrontEnd = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default=False,
        help="What the encoder is shown: log_mel; waveform[:seconds=0.96]; torchaudio's MelSpectrogram, Spectrogram, MFCC or LFCC, as in "
        "MelSpectrogram:n_mels=64,frames=96; or module:attribute. Without it, what suits the encoder.",
    ),
]
Resampler = Annotated[
    str,
    typer.Option(metavar="NAME", help="What brings clips to the encoder's rate: soxr, or torchaudio where it imports."),
]
Domain = Annotated[str, typer.Option(metavar="NAME", help="Where soft masks blend clip and fill: log or amplitude.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")]


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works with every command.")
    ] = False,
) -> None:
    """Which part of a sound made its embedding what it is, and how sure are we: RELAX for audio.

    \b
    Examples:
      relax-quantus explain robin.wav --out pictures
      relax-quantus bench
    """
    if version:
        typer.echo(f"{PROGRAM} {relax_quantus.__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command()
def explain(
    clips: Annotated[
        list[Path],
        typer.Argument(
            metavar="CLIP", show_default=False, help="Recordings; of a folder, every recording in it and below."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", show_default=False, help="Folder for the results; made if need be.")
    ],
    masks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", show_default=False, help="Masking strategy; may be repeated. All of them by default."
        ),
    ] = None,
    encoder: Encoder = "vggish_mini",
    weights: Weights = None,
    sha256: Sha256 = None,
    front_end: FrontEnd = None,
    head: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Classifier made by `fit`: adds class and confidence."),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="What replaces the masked part, silence by default; `relax-quantus list fills` names them. May be repeated: each fill is "
            "explained with every strategy and costs as much as the first.",
        ),
    ] = None,
    n_samples: Annotated[
        int, typer.Option(metavar="N", help="Masks for each strategy; with --tolerance, at most.")
    ] = 500,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            show_default=False,
            help="Stop each example when its largest standard error is under this share of its map's spread.",
        ),
    ] = None,
    estimator: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="surrogate; weighted, the same map, plainly, from more masks; or paper, as published."
        ),
    ] = "surrogate",
    seed: Seed = 0,
    max_examples: Annotated[
        int, typer.Option(metavar="N", help="Explain at most the first N examples (0.96 s each) of a clip.")
    ] = 60,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="CLIP",
            show_default=False,
            help="What makes it sound like this one? A folder stands for its centroid.",
        ),
    ] = None,
    away: Annotated[
        Path | None, typer.Option(metavar="CLIP", show_default=False, help="... and unlike this one? A folder, too.")
    ] = None,
    similarity: Annotated[
        str, typer.Option(metavar="NAME", help="How embeddings are compared; see `relax-quantus list similarities`.")
    ] = "cosine",
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", show_default=False, help="Recordings whose mean embedding centred_cosine removes."
        ),
    ] = None,
    domain: Domain = "log",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="Of the encoder: float32, bfloat16, or auto, whichever is faster here.")
    ] = "float32",
    resampler: Resampler = "soxr",
    html: Annotated[
        bool, typer.Option("--html", help="Write a page that shows and plays what matters; one file, opens anywhere.")
    ] = False,
    sounds: Annotated[
        bool, typer.Option("--sounds", help="Write what matters and all the rest as two FLAC files a strategy.")
    ] = False,
    annotations: Annotated[
        bool, typer.Option("--annotations", help="Write what matters as Raven selections and Audacity labels.")
    ] = False,
) -> int:
    """Explain recordings: one PNG and one .npz of arrays for each, and a page with --html.

    The PNG shows the spectrogram and, for each masking strategy on one shared scale, which parts the embedding rests on and the standard
    error of that. A clip that was explained into DIR before is replaced; two clips of the same name never overwrite one another. A
    recording that cannot be used is reported, the others are done, and the exit code is 1.

    \b
    Examples:
      relax-quantus explain robin.wav --out pictures
      relax-quantus explain recordings/ --out pictures --masks time --masks frequency --n-samples 1000
      relax-quantus explain robin.wav --out pictures --n-samples 10000 --tolerance 0.1 --estimator surrogate
      relax-quantus explain robin.wav --out pictures --html --sounds --annotations
      relax-quantus explain robin.wav --out pictures --html --masks random --baseline silence --baseline background
      relax-quantus explain robin.wav --out pictures --head animals.safetensors
      relax-quantus explain robin.wav --out pictures --reference wren.wav --away traffic/
      relax-quantus explain robin.wav --out pictures --encoder wav2vec2_base:layer=6 --weights wav2vec2.pth
      relax-quantus explain robin.wav --out pictures --encoder mine.py:network --front-end MelSpectrogram:n_mels=80
    """
    from relax_quantus.commands.clips import Request
    from relax_quantus.commands.explain import run
    from relax_quantus.commands.loading import EncoderOptions

    return run(
        Request(
            clips=tuple(clips),
            out=out,
            masks=tuple(masks or ()),
            encoder=EncoderOptions(encoder, weights, sha256, front_end),
            head=head,
            baselines=tuple(dict.fromkeys(baseline or ("silence",))),
            n_samples=n_samples,
            tolerance=tolerance,
            estimator=estimator,
            seed=seed,
            max_examples=max_examples,
            reference=reference,
            away=away,
            similarity=similarity,
            corpus=corpus,
            domain=domain,
            precision=precision,
            resampler=resampler,
            html=html,
            sounds=sounds,
            annotations=annotations,
        )
    )


@app.command()
def fit(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            show_default=False,
            help="One folder a class, or a clips.csv with file, label[, source_group].",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", show_default=False, help="Where the classifier is written.")],
    encoder: Encoder = "vggish_mini",
    weights: Weights = None,
    sha256: Sha256 = None,
    front_end: FrontEnd = None,
    fine_tune: Annotated[
        int,
        typer.Option(
            metavar="EPOCHS", show_default=False, help="Train the encoder on, for at most EPOCHS; not done by default."
        ),
    ] = 0,
    seed: Seed = 0,
    resampler: Resampler = "soxr",
) -> int:
    """Fit a logistic classifier on the embeddings of labelled recordings, for `explain --head`.

    Recordings with the same source_group (by default: each recording alone) are kept together in cross-validation. A recording that cannot
    be used is reported and left out, and the exit code is 1 although the classifier is written.

    With --fine-tune, a copy of the encoder is trained together with the classifier, a fifth of each class's sources being held out. The encoder
    that names more of those correctly is kept, the fine-tuned one in FILE, from which `explain --head` takes it. Ctrl-C ends the training early;
    the best epoch so far is compared and kept in the same way.

    \b
    Examples:
      relax-quantus fit animal-sounds/ --out animals.safetensors
      relax-quantus fit animal-sounds/ --out animals.safetensors --fine-tune 15
    """
    from relax_quantus.commands.fit import run
    from relax_quantus.commands.loading import EncoderOptions

    options = EncoderOptions(encoder, weights, sha256, front_end)
    return run(folder, out, options, fine_tune=fine_tune, seed=seed, resampler=resampler)


@app.command()
def bench(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG]", show_default=False, help="TOML file of settings; options given beside it win."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default="quick", help="How much to do: quick (minutes), default or paper (hours)."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="Recordings, as for `fit`; without it, synthetic soundscapes of which the truth is known.",
        ),
    ] = None,
    max_clips: Annotated[
        int | None,
        typer.Option(metavar="N", show_default=False, help="Clips to explain; the preset's number by default."),
    ] = None,
    n_samples: Annotated[
        int | None,
        typer.Option(metavar="N", show_default=False, help="Masks N of each method; the preset's number by default."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default="relax-quantus-results",
            help="Folder for the results; a run that stopped goes on from what is there.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", show_default="0", help="Seed of everything random.")] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default="log", help="Where soft masks blend clip and fill: log or amplitude."
        ),
    ] = None,
    encoder: Encoder = "vggish_mini",
    weights: Weights = None,
    sha256: Sha256 = None,
    resampler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="soxr",
            help="What brings clips to the encoder's rate: soxr, or torchaudio where it imports.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", show_default="1", help="Processes; they share the cores.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="Dask scheduler whose workers are used, such as tcp://10.0.0.1:8786.",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            show_default=False,
            help="For one map, or one metric of one clip; longer is a row that says so.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost here in time and memory, and stop.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first cell that fails or runs out of memory or time.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed when the same was run before.")] = False,
) -> int:
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
    from relax_quantus.commands.bench import run
    from relax_quantus.commands.loading import EncoderOptions

    given: dict[str, Any] = {
        "data": data,
        "out": out,
        "max_clips": max_clips,
        "n_samples": n_samples,
        "seed": seed,
        "domain": domain,
    }
    given |= {"resampler": resampler, "workers": workers, "scheduler": scheduler, "time_limit": time_limit}
    given |= {"strict": strict or None, "retry": retry or None}
    return run(config, preset, EncoderOptions(encoder, weights, sha256), dry_run=dry_run, **given)


@app.command()
def report(
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", show_default=False, help="Folder that `bench --out` wrote its results into."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default=False, help="Where the report is written; RESULTS itself by default."),
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw figures, too.")] = True,
) -> int:
    """Make tables, statistics and figures from the results of `bench`.

    Nothing is computed anew: results.parquet (or .csv) is enough; curves.parquet gives flipping curves, maps.parquet runtimes, run.json the
    settings. DIR gets table.md, statistics.md and .json, tables/ (CSV, LaTeX) and figures/ (PNG, PDF).

    \b
    Examples:
      relax-quantus report results
      relax-quantus report results --out report
    """
    from relax_quantus.commands.report import run

    return run(results, out, figures=figures)


@app.command("list")
def list_names(
    what: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            show_default=False,
            help="encoders, masks, fills, similarities, estimators, methods or metrics.",
        ),
    ],
) -> int:
    """List the names that options take, with one line about each.

    \b
    Examples:
      relax-quantus list masks
    """
    from relax_quantus.commands.listing import run

    return run(what)


def main() -> None:
    """Entry point of the command ``relax-quantus``; what the terminal cannot show is escaped, not fatal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
