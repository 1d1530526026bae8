"""``relax-quantus fit``: a folder of labelled recordings -> a classifier for `explain --head`.

The work is done by `relax_quantus.fit_recordings`; its result is written and described here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relax_quantus.cli import console
from relax_quantus.cli.options import EncoderOptions, MessageOptions, Resampler, Seed

if TYPE_CHECKING:
    from relax_quantus.recordings.fitting import RecordingFit


@dataclass(frozen=True)
class FitRequest:
    """Fit a classifier on labelled recordings, for `explain --head`.

    It is a logistic regression on the recordings' embeddings.

    Recordings with the same source_group (by default: each recording alone) are kept together in
    cross-validation. A recording that cannot be used is reported and left out, and the exit code
    is 1 although the classifier is written.

    With --fine-tune, a copy of the encoder is trained together with the classifier, a fifth of
    each class's sources being held out. The encoder that names more of those correctly is kept,
    the fine-tuned one in FILE, from which `explain --head` takes it. Ctrl-C ends the training
    early; the best epoch so far is compared and kept in the same way.

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
    out: Annotated[Path, typer.Option(metavar="FILE", show_default=False, help="File to write the classifier to.")]
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    fine_tune: Annotated[
        int,
        typer.Option(metavar="EPOCHS", show_default="no fine-tuning", help="Fine-tune the encoder for at most EPOCHS."),
    ] = 0
    seed: Seed = 0
    resampler: Resampler = "soxr"
    messages: MessageOptions = field(default_factory=MessageOptions)

    def run(self) -> int:
        """Fit, write and describe a classifier; return 0, or 1 if a recording had to be left out.

        Ctrl-C during fine-tuning ends that, with a warning; the classifier is written all the
        same. So does SIGTERM, and the exit code is then 143.

        Raises
        ------
        RelaxQuantusError
            If no classifier can be made: an unknown encoder, a folder without recordings, fewer
            than two classes of usable ones.
        """
        from relax_quantus.audio.reading import checked_resampler
        from relax_quantus.base import checks, files
        from relax_quantus.encoders.loading import load
        from relax_quantus.heads.file import is_head
        from relax_quantus.recordings.fitting import fit_recordings

        checks.integer("fine_tune", self.fine_tune, low=0)
        checks.seed(self.seed)
        checked_resampler(self.resampler)
        loaded = load(**asdict(self.encoder))
        files.writable_file(self.out, is_head)
        fit = fit_recordings(
            self.folder,
            loaded,
            fine_tune=self.fine_tune,
            seed=self.seed,
            resampler=self.resampler,
            show_progress=console.Progress,
            when_left_out=_say_left_out,
        )
        classifier, tuning = fit.classifier, fit.classifier.fine_tuning
        stop = console.answered() if tuning is not None and tuning.interrupted else None
        classifier.made_with["encoder"] = self.encoder.encoder
        classifier.save(self.out)
        for line in fit.lines():
            console.result(line)
        console.result(console.shown(self.out), "classifier", path=self.out, **facts(fit))
        if stop is not None and issubclass(stop, console.Terminated):
            return console.exit_code(stop)
        return 1 if fit.left_out else 0


def _say_left_out(path: Path, problem: Exception) -> None:
    console.raise_if_asked()
    console.report(problem, path)


def facts(fit: RecordingFit) -> dict[str, Any]:
    """Describe a fit to programs; an accuracy that was not measured is None."""
    result, tuning = fit.classifier.cross_validation, fit.classifier.fine_tuning
    return {
        "classes": [asdict(c) for c in fit.classes],
        "accuracy": result.accuracy,
        "fold_accuracies": list(result.fold_accuracies),
        "fine_tuning": None if tuning is None else asdict(tuning),
    }
