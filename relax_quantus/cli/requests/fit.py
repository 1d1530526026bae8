"""What `fit` can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from relax_quantus.cli.requests.shared import EncoderOptions, MessageOptions, Resampler, Seed


@dataclass(frozen=True)
class FitRequest:
    """Fit a classifier on labelled recordings, for `explain --head`.

    It is a logistic regression on the recordings' embeddings.

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

    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            show_default=False,
            help="One folder a class, or a clips.csv with file, label[, source_group].",
        ),
    ]
    out: Annotated[Path, typer.Option(metavar="FILE", show_default=False, help="Where the classifier is written.")]
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    fine_tune: Annotated[
        int,
        typer.Option(metavar="EPOCHS", show_default="not done", help="Train the encoder on, for at most EPOCHS."),
    ] = 0
    seed: Seed = 0
    resampler: Resampler = "soxr"
    messages: MessageOptions = field(default_factory=MessageOptions)

    def run(self) -> int:
        """Fit; see `relax_quantus.cli.fit`."""
        from relax_quantus.cli import fit

        return fit.run(self)
