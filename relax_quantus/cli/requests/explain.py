"""What `explain` can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from relax_quantus.cli.requests.names import completing
from relax_quantus.cli.requests.shared import ENCODER, RESULTS, Domain, EncoderOptions, MessageOptions, Resampler, Seed

COMPARED = "What it is compared with"


@dataclass(frozen=True)
class ExplainRequest:
    """Explain recordings: a picture, arrays and a page for each.

    For each recording one PNG and one .npz are written, and a page with --html. The PNG shows the spectrogram and, for each masking strategy on
    one shared scale, which parts the embedding rests on and the standard error of that. What was written about a clip before is replaced,
    unless it was edited since; files of others are kept, and two clips of the same name never overwrite one another.
    A recording that cannot be used is reported, the others are done, and the exit code
    is 1.

    With --hop, and where more than 60 examples are explained, a recording is explained block by block into one map; a run that was stopped goes
    on from its last block when the same command is given again.

    \b
    Examples:
      relax-quantus explain robin.wav --out pictures
      relax-quantus explain recordings/ --out pictures --masks time --masks frequency --n-samples 1000
      relax-quantus explain robin.wav --out pictures --n-samples 10000 --tolerance 0.1 --estimator surrogate
      relax-quantus explain robin.wav --out pictures --html --sounds --annotations
      relax-quantus explain robin.wav --out pictures --html --masks random --baseline silence --baseline background
      relax-quantus explain dawn_chorus.wav --out pictures --max-examples 0 --hop 0.48 --masks time --annotations
      relax-quantus explain robin.wav --out pictures --head animals.safetensors
      relax-quantus explain robin.wav --out pictures --reference wren.wav --away traffic/
      relax-quantus explain robin.wav --out pictures --encoder wav2vec2_base:layer=6 --weights wav2vec2.pth
      relax-quantus explain robin.wav --out pictures --encoder mine.py:network --front-end MelSpectrogram:n_mels=80
    """

    clips: Annotated[
        list[Path],
        typer.Argument(
            metavar="CLIP", show_default=False, help="Recordings; of a folder, every recording in it and below."
        ),
    ]
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", rich_help_panel=RESULTS, show_default=False, help="Folder for the results; made if need be."
        ),
    ]
    masks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completing("masks"),
            show_default="all",
            help="Masking strategy; `relax-quantus list masks` names them. May be repeated.",
        ),
    ] = None
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    head: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=ENCODER,
            show_default="none",
            help="Classifier made by `fit`: adds class and confidence.",
        ),
    ] = None
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completing("fills"),
            show_default="silence",
            help="What replaces the masked part; `relax-quantus list fills` names them. May be repeated: each fill is "
            "explained with every strategy and costs as much as the first.",
        ),
    ] = None
    n_samples: Annotated[int, typer.Option(metavar="N", help="Masks for each strategy; with --tolerance, at most.")] = (
        500
    )
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            show_default="never",
            help="Stop each example when its largest standard error is under this share of its map's spread.",
        ),
    ] = None
    estimator: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=completing("estimators"),
            help="surrogate; weighted, the same map, plainly, from more masks; or paper, as published.",
        ),
    ] = "surrogate"
    seed: Seed = 0
    max_examples: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Explain at most the first N examples (0.96 s each) of a clip; 0 explains all, an hour too.",
        ),
    ] = 60
    hop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            show_default="an example's length",
            help="From one example to the next; shorter ones overlap and are averaged into one map.",
        ),
    ] = None
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="CLIP",
            rich_help_panel=COMPARED,
            show_default="itself",
            help="What makes it sound like this one? A folder stands for its centroid.",
        ),
    ] = None
    away: Annotated[
        Path | None,
        typer.Option(
            metavar="CLIP",
            rich_help_panel=COMPARED,
            show_default="none",
            help="... and unlike this one? A folder, too.",
        ),
    ] = None
    similarity: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=COMPARED,
            autocompletion=completing("similarities"),
            help="How embeddings are compared; see `relax-quantus list similarities`.",
        ),
    ] = "cosine"
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            rich_help_panel=COMPARED,
            show_default="none",
            help="Recordings whose mean embedding --similarity centred_cosine removes; only for that.",
        ),
    ] = None
    domain: Domain = "log"
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=ENCODER,
            autocompletion=completing("precisions"),
            help="Of its numbers: float32, bfloat16, or auto, whichever is faster here.",
        ),
    ] = "float32"
    resampler: Resampler = "soxr"
    html: Annotated[
        bool,
        typer.Option(
            "--html",
            rich_help_panel=RESULTS,
            help="Write a page that shows and plays what matters; one file, opens anywhere.",
        ),
    ] = False
    sounds: Annotated[
        bool,
        typer.Option(
            "--sounds",
            rich_help_panel=RESULTS,
            help="Write what matters and all the rest as two FLAC files a strategy.",
        ),
    ] = False
    annotations: Annotated[
        bool,
        typer.Option(
            "--annotations", rich_help_panel=RESULTS, help="Write what matters as Raven selections and Audacity labels."
        ),
    ] = False
    messages: MessageOptions = field(default_factory=MessageOptions)

    @property
    def baselines(self) -> tuple[str, ...]:
        """The fills, each once."""
        return tuple(dict.fromkeys(self.baseline or ("silence",)))

    def run(self) -> int:
        """Explain; see `relax_quantus.cli.explain`."""
        from relax_quantus.cli import explain

        return explain.run(self)
