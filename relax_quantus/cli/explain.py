"""``relax-quantus explain``: recordings -> a picture and arrays for each.

The command line of `relax_quantus.recordings`: options become settings, every recording is
explained and its results are written, and what there is to say is said. Cost: strategies x fills x
N encoder forwards an example (0.96 s), fewer with a tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relax_quantus.cli import console
from relax_quantus.cli.options import (
    ENCODER,
    RESULTS,
    Domain,
    EncoderOptions,
    MessageOptions,
    Resampler,
    Seed,
    completing,
)
from relax_quantus.errors import RelaxQuantusError

if TYPE_CHECKING:
    from relax_quantus.recordings.recording import RecordingExplanation
    from relax_quantus.recordings.writing import Written

COMPARED = "What it is compared with"


@dataclass(frozen=True)
class ExplainRequest:
    """Explain recordings: a picture, arrays and a page for each.

    For each recording one PNG and one .npz are written, and a page with --html. The PNG shows the
    spectrogram and, for each masking strategy on one shared scale, which parts the embedding rests
    on and the standard error of that. What was written about a clip before is replaced, unless it
    was edited since; files of others are kept, and two clips of the same name never overwrite one
    another. A recording that cannot be used is reported, the others are done, and the exit code is
    1.

    With --hop, and where more than 60 examples are explained, a recording is explained block by
    block into one map; a run that was stopped goes on from its last block when the same command is
    given again.

    \b
    Examples:
      relax-quantus explain robin.wav --out pictures
      relax-quantus explain recordings/ --out pictures --masks time --masks frequency
      relax-quantus explain robin.wav --out pictures --n-samples 10000 --tolerance 0.1
      relax-quantus explain robin.wav --out pictures --html --sounds --annotations
      relax-quantus explain robin.wav --out pictures --html --baseline silence --baseline background
      relax-quantus explain dawn_chorus.wav --out pictures --max-examples 0 --hop 0.48
      relax-quantus explain robin.wav --out pictures --head animals.safetensors
      relax-quantus explain robin.wav --out pictures --reference wren.wav --away traffic/
      relax-quantus explain robin.wav --out pictures --encoder wav2vec2_base --weights wav2vec2.pth
      relax-quantus explain robin.wav --out pictures --encoder mine.py:network
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

    def run(self) -> int:
        """Explain every recording; return 0, or 1 if one of them could not be."""
        return run(self)


def run(request: ExplainRequest) -> int:
    """Explain every recording of `request`; return 0, or 1 if one of them could not be.

    Raises
    ------
    RelaxQuantusError, OSError
        If nothing can be done at all: an unknown name, an impossible number, a folder that cannot
        be written to.
    """
    from relax_quantus.base import files
    from relax_quantus.recordings.pages import write_index
    from relax_quantus.recordings.plan import ExplainSettings
    from relax_quantus.recordings.session import Hooks, Session
    from relax_quantus.recordings.writing import refuse_impossible

    def progress(total: int, what: str, unit: str, begun: int = 0) -> AbstractContextManager[Any]:
        if begun:
            maps = len(session.conditions)
            console.note(f"{what}: going on after {begun // maps} of {total // maps} {unit}s")
        bar: AbstractContextManager[Any] = console.Progress(total, what, unit, begun)
        return bar

    hooks = Hooks(progress, console.raise_if_asked)
    session = Session(ExplainSettings(**settings_of(request)), hooks=hooks)
    refuse_impossible(session.front_end, request.html, request.sounds, request.annotations)
    files.writable_folder(request.out)
    clips, failed = expand(request.clips)
    entries, stores = [], []
    asked = {"html": request.html, "sounds": request.sounds, "annotations": request.annotations}
    with console.Progress(len(clips), "explain", "clip") as bar:
        for path in clips:
            try:
                found = session.explain(path, keep_in=request.out)
                written = found.write(request.out, **asked, uninterrupted=console.held)
            except Exception as problem:  # of whatever runtime an encoder of the user's own calls
                console.raise_if_asked()
                console.report(problem, path)
                failed += 1
            else:
                tell(found, written)
                entries += [] if written.entry is None else [written.entry]
                stores += [found.store] if found.plan.blocks > 1 else []
            bar.update()
    index = write_index(request.out, entries) if entries else None
    if index is not None:
        console.result(console.shown(index), "file", path=index)
    for store in stores:  # not before all is done, so that a run that is stopped goes on
        store.remove()
    return 1 if failed else 0


def settings_of(request: ExplainRequest) -> dict[str, Any]:
    """Return what was asked for as `relax_quantus.ExplainSettings` takes it."""
    same = ("n_samples", "tolerance", "estimator", "seed", "max_examples", "reference", "away", "similarity", "corpus")
    given = {name: getattr(request, name) for name in (*same, "domain", "precision", "resampler", "head")}
    masks, baselines = request.masks or None, request.baseline or "silence"
    return {**asdict(request.encoder), **given, "masks": masks, "baselines": baselines, "hop_s": request.hop}


def tell(found: RecordingExplanation, written: Written) -> None:
    """Say where one recording's results are and what they say as a whole.

    With ``--json`` all facts.
    """
    from relax_quantus.recordings.writing import masks_used

    picture = console.shown(written.files["picture"])
    line = picture if found.session.settings.tolerance is None else f"{picture}: {masks_used(found)}"
    facts = {
        "clip": found.path,
        "files": written.files,
        "left_out_s": found.plan.left_out_s,
        "verdict": found.verdict,
        "maps": found.facts(written.regions),
    }
    console.result(line, "clip", **facts)
    if found.verdict:
        console.note(f"{console.shown(found.path)}: {found.verdict}")
    if written.entry is not None:
        console.result(console.shown(written.files["page"]))


def expand(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Replace folders by the recordings in them.

    The second value counts the folders without any, which are reported.

    Sounds that an earlier run wrote are explained only where nothing else is named, so that
    ``recordings/*`` means the same each time.
    """
    from relax_quantus.recordings.folders import is_own, paths_in

    clips: list[Path] = []
    failed = 0
    own = [path for path in paths if not path.is_dir() and is_own(path)] if len(paths) > 1 else []
    if len(own) == len(paths):
        own = []
    for path in paths:
        try:
            clips += paths_in(path) if path.is_dir() else [path] if path not in own else []
        except RelaxQuantusError as problem:
            console.report(problem, path)
            failed += 1
    if own:
        such = f"such as {console.shown(own[0])}; name one by itself to use it"
        console.warning(f"left out {len(own)} sound{'s' if len(own) > 1 else ''} that relax-quantus wrote, {such}")
    first: dict[Path, Path] = {}
    for path in clips:
        first.setdefault(path.resolve(), path)
    return list(first.values()), failed
