"""``relax-quantus explain``: recordings -> a picture and arrays for each.

The whole flow but the benchmark: recordings enter, examples are explained under each masking strategy, and for every recording one PNG and
one .npz leave, and a page, sounds and annotations if asked for. Cost: strategies x fills x N encoder forwards an example (0.96 s), fewer with
a tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from relax_quantus import checks
from relax_quantus.audio import checked_resampler
from relax_quantus.commands import console, files
from relax_quantus.commands.anchors import choose_similarity, load_anchor
from relax_quantus.commands.clips import Clip, Findings, Models, read
from relax_quantus.commands.companions import Beside, load_beside
from relax_quantus.commands.front_ends import FrontEnd
from relax_quantus.commands.loading import load, refuse_other_front_end
from relax_quantus.commands.pages import refuse_impossible, write_asked, write_index
from relax_quantus.commands.requests.explain import ExplainRequest
from relax_quantus.commands.results import masks_used, write
from relax_quantus.commands.telling import facts
from relax_quantus.errors import RelaxQuantusError
from relax_quantus.explanation import Explanation
from relax_quantus.fills import FILLS
from relax_quantus.heads import EmbeddingClassifier
from relax_quantus.masks import STRATEGIES, MaskStrategy
from relax_quantus.references import checked_embedding
from relax_quantus.relax import RELAX

BLOCK = 8
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
    entries = []
    with console.progress(len(clips), "explain", "clip") as bar:
        for path in clips:
            try:
                clip = read(path, request.max_examples, models.front_end, request.resampler)
                findings = find(clip, request, models)
                written = write(clip, findings, request, models)
                entry = write_asked(clip, findings, request, models, written.name.removesuffix(".png"))
            except (RelaxQuantusError, ValueError, RuntimeError, MemoryError) as problem:
                console.report(problem, path)
                failed += 1
            else:
                picture = console.shown(written)
                line = picture if request.tolerance is None else f"{picture}: {masks_used(findings, request)}"
                console.result(line, "clip", **facts(path, written, request, models.explainers))
                if entry is not None:
                    entries.append(entry)
                    console.result(console.shown(written.with_name(written.name.removesuffix(".png") + ".html")))
            bar.update()
    index = write_index(request.out, entries)
    if index is not None:
        console.result(console.shown(index), "file", path=index)
    return 1 if failed else 0


def prepare(request: ExplainRequest) -> Models:
    """Check every name and number before any work, and load what was named."""
    checks.integer("--n-samples", request.n_samples)
    checks.integer("--max-examples", request.max_examples)
    if request.tolerance is not None:
        checks.positive("--tolerance", request.tolerance)
    checks.integer("--seed", request.seed, low=0)
    checked_resampler(request.resampler)
    for name in request.baselines:
        FILLS.get(name)
    strategies = {name: STRATEGIES.get(name) for name in request.masks or STRATEGIES.names()}
    front_end, encoder = load(request.encoder)
    for name in request.baselines:
        front_end.fill(name)
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
    return Models(encoder, classifier, explainers, front_end, towards, away, beside)


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
    """Replace folders by the recordings in them; the second value counts the folders without any, which are reported."""
    clips, failed = [], 0
    for path in paths:
        try:
            clips += files.recordings_in(path) if path.is_dir() else [path]
        except RelaxQuantusError as problem:
            console.report(problem, path)
            failed += 1
    return files.unique(clips), failed


@torch.no_grad()
def find(clip: Clip, request: ExplainRequest, models: Models) -> Findings:
    """Embed, classify and explain a clip, a few examples at a time.

    An example whose embedding is zero has no direction: its maps are NaN, with a warning.

    Raises
    ------
    EncoderError
        If the encoder does not return finite embeddings ``(n, D)``, or zeros for every example.
    """
    x = clip.examples
    h = torch.cat([checked_embedding(models.encoder(part), len(part), nonzero=False) for part in torch.split(x, BLOCK)])
    usable = h.any(dim=1)
    if not usable.any():
        checked_embedding(h, len(x), nonzero=True)
    if not usable.all():
        console.warning(
            f"{console.shown(clip.path)}: {int((~usable).sum())} of {len(x)} examples have an all-zero embedding and no explanation"
        )
    probabilities = None if models.classifier is None else models.classifier.head(h).softmax(dim=1)
    explanations, fills = {}, {name: models.front_end.fill(name) for name in request.baselines}
    conditions = list(product(models.explainers.items(), fills.items()))
    with console.progress(len(conditions) * len(x), console.shown(clip.path.name), "example") as bar:
        for (name, relax), (fill_name, fill) in conditions:
            parts: list[Explanation] = []
            for part, anchors in zip(torch.split(x[usable], BLOCK), torch.split(h[usable], BLOCK), strict=True):
                towards = anchors if models.towards is None else models.towards.embedding
                reference = towards if models.away is None else (towards, models.away.embedding.expand_as(towards))
                explained = relax.explain(
                    part,
                    fill,
                    n_samples=request.n_samples,
                    seed=request.seed,
                    reference=reference,
                    tolerance=request.tolerance,
                )
                parts += explained if isinstance(explained, tuple) else (explained,)
                bar.update(len(part))
            explanations[name, fill_name] = join(parts, usable)
    return Findings(h, explanations, probabilities)


def join(parts: list[Explanation], usable: Tensor) -> Explanation:
    """Join the explanations of consecutive examples, with NaN for the examples that are not `usable`."""

    def whole(name: str) -> Tensor:
        known = torch.cat(
            [getattr(part, name).expand(len(part.importance), *getattr(part, name).shape[1:]) for part in parts]
        )
        values = known.new_zeros(len(usable), *known.shape[1:])
        if known.is_floating_point():
            values.fill_(torch.nan)
        values[usable] = known
        return values

    names = [f.name for f in fields(Explanation) if isinstance(getattr(parts[0], f.name), Tensor)]
    return Explanation(**{name: whole(name) for name in names}, estimator=parts[0].estimator)
