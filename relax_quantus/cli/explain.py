"""``relax-quantus explain``: recordings -> a picture and arrays for each.

The whole flow but the benchmark: recordings enter, examples are explained under each masking strategy, and for every recording one PNG and
one .npz leave, and a page, sounds and annotations if asked for. Cost: strategies x fills x N encoder forwards an example (0.96 s), fewer with
a tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from relax_quantus.audio.reading import checked_resampler
from relax_quantus.base import checks
from relax_quantus.base.modules import checked_embedding, fingerprint
from relax_quantus.cli import console, files, stopping
from relax_quantus.cli.anchors import choose_similarity, load_anchor
from relax_quantus.cli.clips import Done, Models, done, fill_for, read
from relax_quantus.cli.companions import Beside, load_beside
from relax_quantus.cli.finding import embed, find
from relax_quantus.cli.long_recordings.plan import plan_for
from relax_quantus.cli.long_recordings.running import run_plan
from relax_quantus.cli.pages import refuse_impossible, regions_of, write_asked, write_index
from relax_quantus.cli.requests.explain import ExplainRequest
from relax_quantus.cli.result_files import ResultFiles
from relax_quantus.cli.results import facts_of, masks_used, write
from relax_quantus.cli.telling import facts
from relax_quantus.cli.verdicts import in_words
from relax_quantus.encoders.loading import load, refuse_other_front_end
from relax_quantus.errors import RelaxQuantusError
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.recordings.folders import is_own
from relax_quantus.relax.attribution import RELAX
from relax_quantus.relax.fills import FILLS, warn_of_loud_silence
from relax_quantus.relax.masks import STRATEGIES, MaskStrategy
from relax_quantus.views.page import Entry

ON_WAVEFORMS = ("time",)


def run(request: ExplainRequest) -> int:
    """Explain every recording of `request`; return 0, or 1 if one of them could not be.

    Raises
    ------
    RelaxQuantusError, OSError
        If nothing can be done at all: an unknown name, an impossible number, a folder that cannot be written to.
    """
    models = prepare(request)
    files.writable_folder(request.out)
    clips, failed = expand(request.clips)
    entries, stores = [], []
    with console.progress(len(clips), "explain", "clip") as bar:
        for path in clips:
            try:
                plan = plan_for(path, request, models)
                finished, store = (
                    (explain_clip(path, request, models), None) if plan is None else run_plan(plan, request, models)
                )
            except Exception as problem:  # of whatever runtime an encoder of the user's own calls
                stopping.raise_if_asked()
                console.report(problem, path)
                failed += 1
            else:
                entries += tell(path, finished, request, models)
                stores += [] if store is None else [store]
            bar.update()
    index = write_index(request.out, entries)
    if index is not None:
        console.result(console.shown(index), "file", path=index)
    for store in stores:  # not before all is done, so that a run of several recordings goes on where it stopped
        store.remove()
    return 1 if failed else 0


def explain_clip(path: Path, request: ExplainRequest, models: Models) -> Done:
    """Explain a recording in one go and write its results.

    Raises
    ------
    RelaxQuantusError
        If it or the encoder cannot be used.
    """
    clip = read(path, request.max_examples or None, models.front_end, request.resampler)
    x, name = clip.examples, console.shown(path)
    h = embed(x, models)
    usable = h.any(dim=1)
    if not usable.any():
        checked_embedding(h, len(x), nonzero=True)
    if not usable.all():
        console.warning(
            f"{name}: {int((~usable).sum())} of {len(x)} examples have an all-zero embedding and no explanation"
        )
    if "silence" in request.baselines and isinstance(clip.silence, Tensor) and clip.axis.label != "coefficient":
        warn_of_loud_silence(x, clip.silence)
    conditions = len(models.explainers) * len(request.baselines)
    with console.progress(conditions * len(x), console.shown(path.name), "example") as bar:
        findings = find(x, h, request, models, bar.update, silence=clip.silence)
    with ResultFiles(path, request.out) as results:
        write(clip, findings, request, models, results)
        boxes = regions_of(clip, findings) if request.annotations else {}
        entry = write_asked(clip, findings, boxes, request, models, results)
        stem = results.publish()
    remark = "" if request.tolerance is None else masks_used(findings, request)
    maps = facts_of(findings, boxes if request.annotations else None)
    return done(request.out, stem, remark, entry, clip.left_out_s, maps, in_words(findings.bounds))


def tell(path: Path, done: Done, request: ExplainRequest, models: Models) -> list[Entry]:
    """Say where one recording's results are; return its lines of the index."""
    picture = console.shown(done.picture)
    line = f"{picture}: {done.remark}" if done.remark else picture
    console.result(line, "clip", **facts(path, done, request, models.explainers))
    if done.verdict:
        console.note(f"{console.shown(path)}: {done.verdict}")
    if done.entry is None:
        return []
    console.result(console.shown(done.picture.with_suffix(".html")))
    return [done.entry]


def prepare(request: ExplainRequest) -> Models:
    """Check every name and number before any work, and load what was named."""
    checks.integer("--n-samples", request.n_samples)
    checks.integer("--max-examples", request.max_examples, low=0)
    if request.hop is not None:
        checks.positive("--hop", request.hop)
    if request.tolerance is not None:
        checks.positive("--tolerance", request.tolerance)
    checks.seed(request.seed)
    checked_resampler(request.resampler)
    for name in request.baselines:
        FILLS.get(name)
    strategies = {name: STRATEGIES.get(name) for name in request.masks or STRATEGIES.names()}
    front_end, encoder = load(**request.encoder.named)
    for name in request.baselines:
        fill_for(front_end, name)
    refuse_impossible(request, front_end)
    strategies = applicable(strategies, request, front_end)
    classifier = None if request.head is None else EmbeddingClassifier.load(request.head, encoder)
    if classifier is not None and request.head is not None:
        doubt = refuse_other_front_end(request.head, classifier.made_with, front_end)
        if doubt:
            console.warning(doubt)
    if classifier is not None and isinstance(classifier.encoder, nn.Module):
        encoder = (
            classifier.encoder
        )  # a fine-tuned copy if the head brings one: maps and class are then of the same encoder
    encoder_sha256 = fingerprint(encoder)
    similarity = choose_similarity(request.similarity, request.corpus, encoder, front_end, request.resampler)
    explainers = {
        name: RELAX(encoder, masks, similarity, request.estimator, request.domain, request.precision)
        for name, masks in strategies.items()
    }
    towards, away = (
        None if p is None else load_anchor(p, encoder, front_end, request.resampler)
        for p in (request.reference, request.away)
    )
    beside: tuple[Beside, ...] = ()
    if request.html:
        beside = load_beside((("towards", towards), ("away", away)), similarity, front_end, request.resampler)
    return Models(encoder, classifier, explainers, front_end, towards, away, beside, encoder_sha256)


def applicable(
    strategies: dict[str, MaskStrategy], request: ExplainRequest, front_end: FrontEnd
) -> dict[str, MaskStrategy]:
    """Those strategies that were asked for and mean something on the front end's examples: on waveforms, masks over time.

    Raises
    ------
    ArgumentError
        If one was named that does not, or amplitudes are asked for where there are none.
    """
    if request.domain == "amplitude" and not front_end.natural_log:
        rule = "log with a front end whose values are no natural logarithms"
        checks.refuse("domain", rule, "amplitude", "leave it out")
    if not front_end.of_waveforms:
        return strategies
    for name in request.masks or ():
        if name not in ON_WAVEFORMS:
            rule = f"{' or '.join(ON_WAVEFORMS)} for waveforms, which have no bands"
            checks.refuse("masks", rule, repr(name), "leave it out")
    return {name: strategy for name, strategy in strategies.items() if name in ON_WAVEFORMS}


def expand(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Replace folders by the recordings in them; the second value counts the folders without any, which are reported.

    Sounds that an earlier run wrote are explained only where nothing else is named, so that ``recordings/*`` means the same each time.
    """
    clips, failed = [], 0
    files_named = [path for path in paths if not path.is_dir()]
    own = [path for path in files_named if is_own(path)]
    if len(own) == len(paths):
        own = []
    for path in paths:
        try:
            clips += files.recordings_in(path) if path.is_dir() else [path] if path not in own else []
        except RelaxQuantusError as problem:
            console.report(problem, path)
            failed += 1
    if own:
        said = (
            f"{len(own)} sound{'s' if len(own) > 1 else ''} that relax-quantus wrote, such as {console.shown(own[0])}"
        )
        console.warning(f"left out {said}; name one by itself to use it")
    return files.unique(clips), failed
