"""``relax-quantus explain``: recordings -> a picture and arrays for each.

The command line of `relax_quantus.recordings`: options become settings, every recording is explained and its results are
written, and what there is to say is said. Cost: strategies x fills x N encoder forwards an example (0.96 s), fewer with a
tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from relax_quantus.cli import console, files, stopping
from relax_quantus.cli.requests.explain import ExplainRequest
from relax_quantus.errors import RelaxQuantusError
from relax_quantus.recordings.folders import is_own, paths_in
from relax_quantus.recordings.pages import write_index
from relax_quantus.recordings.recording import RecordingExplanation
from relax_quantus.recordings.session import Hooks, Session
from relax_quantus.recordings.settings import ExplainSettings
from relax_quantus.recordings.writing import Written, masks_used, refuse_impossible, write_results


def run(request: ExplainRequest) -> int:
    """Explain every recording of `request`; return 0, or 1 if one of them could not be.

    Raises
    ------
    RelaxQuantusError, OSError
        If nothing can be done at all: an unknown name, an impossible number, a folder that cannot be written to.
    """
    session = Session(settings_of(request))
    session.hooks = Hooks(_progress(session), stopping.raise_if_asked, stopping.held)
    refuse_impossible(session.front_end, request.html, request.sounds, request.annotations)
    files.writable_folder(request.out)
    clips, failed = expand(request.clips)
    entries, explained = [], []
    asked = {"html": request.html, "sounds": request.sounds, "annotations": request.annotations}
    with console.progress(len(clips), "explain", "clip") as bar:
        for path in clips:
            try:
                found = session.explain(path, keep_in=request.out)
                written = write_results(found, request.out, **asked, uninterrupted=stopping.held)
            except Exception as problem:  # of whatever runtime an encoder of the user's own calls
                stopping.raise_if_asked()
                console.report(problem, path)
                failed += 1
            else:
                tell(found, written)
                entries += [] if written.entry is None else [written.entry]
                explained += [found.remove_blocks]
            bar.update()
    index = write_index(request.out, entries)
    if index is not None:
        console.result(console.shown(index), "file", path=index)
    for (
        remove_blocks
    ) in explained:  # not before all is done, so that a run of several recordings goes on where it stopped
        remove_blocks()
    return 1 if failed else 0


def settings_of(request: ExplainRequest) -> ExplainSettings:
    """Return what was asked for as the library takes it."""
    return ExplainSettings(
        **request.encoder.named,
        masks=request.masks or None,
        baselines=request.baselines,
        n_samples=request.n_samples,
        tolerance=request.tolerance,
        estimator=request.estimator,
        seed=request.seed,
        max_examples=request.max_examples,
        hop_s=request.hop,
        reference=request.reference,
        away=request.away,
        similarity=request.similarity,
        corpus=request.corpus,
        domain=request.domain,
        precision=request.precision,
        resampler=request.resampler,
        head=request.head,
    )


def _progress(session: Session) -> Any:
    """Return what draws how far a recording is, and says first that it goes on where it was stopped."""

    def progress(total: int, what: str, unit: str, begun: int = 0) -> AbstractContextManager[Any]:
        if begun:
            of = len(session.conditions)
            console.note(f"{what}: going on after {begun // of} of {total // of} {unit}s")
        bar: AbstractContextManager[Any] = console.progress(total, what, unit, begun)
        return bar

    return progress


def tell(found: RecordingExplanation, written: Written) -> None:
    """Say where one recording's results are and what they say as a whole; with ``--json`` all facts."""
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
    """Replace folders by the recordings in them; the second value counts the folders without any, which are reported.

    Sounds that an earlier run wrote are explained only where nothing else is named, so that ``recordings/*`` means the
    same each time.
    """
    clips, failed = [], 0
    files_named = [path for path in paths if not path.is_dir()]
    own = [path for path in files_named if is_own(path)]
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
    return files.unique(clips), failed
