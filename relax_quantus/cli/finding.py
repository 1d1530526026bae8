"""Examples of a recording -> what `explain` says about them: embeddings, class probabilities, an explanation a strategy and fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import product

import torch
from torch import Tensor

from relax_quantus.base.modules import checked_embedding
from relax_quantus.cli.clips import Findings, Models, fill_for
from relax_quantus.cli.requests.explain import ExplainRequest
from relax_quantus.recordings.stitching import phase_seed
from relax_quantus.relax.explanation import Explanation
from relax_quantus.relax.null import PERMUTATIONS

BLOCK = 8
NOT_EXPLAINED = "none"
"""Instead of an estimator's name."""


@torch.no_grad()
def embed(x: Tensor, models: Models) -> Tensor:
    """Embeddings ``(n, D)`` of examples, a few at a time.

    Raises
    ------
    EncoderError
        If they are not finite ``(n, D)``.
    """
    parts = torch.split(x, BLOCK)
    return torch.cat([checked_embedding(models.encoder(part), len(part), nonzero=False) for part in parts])


@torch.no_grad()
def find(
    x: Tensor,
    h: Tensor,
    request: ExplainRequest,
    models: Models,
    done: Callable[[int], object],
    phases: Tensor | None = None,
    silence: Tensor | float | str | None = None,
) -> Findings:
    """Classify and explain examples, a few at a time.

    An example whose embedding is zero has no direction: its maps are NaN, and if there is no other, so are all.

    Parameters
    ----------
    x, h
        The examples, and their embeddings ``(n, D)``.
    done
        Told the number of examples whenever some were explained under one strategy and fill.
    phases
        ``(n,)``: examples of different phases draw different masks, see `relax_quantus.recordings.stitching`; without, all share theirs.
    silence
        What a muted part of this recording becomes; the front end's by default.
    """
    probabilities = None if models.classifier is None else models.classifier.head(h).softmax(dim=1)
    usable, phases = h.any(dim=1), torch.zeros(len(x), dtype=torch.long) if phases is None else phases
    explanations, fills = {}, {name: fill_for(models.front_end, name, silence) for name in request.baselines}
    for (name, relax), (fill_name, fill) in product(models.explainers.items(), fills.items()):
        parts: list[Explanation] = []
        places: list[Tensor] = []
        for phase in sorted(set(phases[usable].tolist())):
            for some in torch.split(torch.nonzero(usable & (phases == phase)).flatten(), BLOCK):
                explained = relax.explain(
                    x[some],
                    fill,
                    n_samples=request.n_samples,
                    seed=phase_seed(request.seed, phase),
                    reference=_reference(h[some], models),
                    tolerance=request.tolerance,
                    null=True,
                )
                for e in explained if isinstance(explained, tuple) else (explained,):
                    itself = torch.full((len(some),), models.towards is None and models.away is None)
                    parts.append(replace(e, compared_with_itself=itself))
                places.append(some)
                done(len(some))
        if not usable.all():
            done(int((~usable).sum()))
        explanations[name, fill_name] = join(parts, torch.cat(places), len(x)) if parts else unknown(x)
    return Findings(h, explanations, probabilities)


def _reference(h: Tensor, models: Models) -> Tensor | tuple[Tensor, Tensor]:
    """What examples of embeddings ``(n, D)`` are compared with."""
    towards = h if models.towards is None else models.towards.embedding
    return towards if models.away is None else (towards, models.away.embedding.expand_as(towards))


def join(parts: list[Explanation], places: Tensor, count: int) -> Explanation:
    """Join explanations of examples: those at `places`, of `count` in all; NaN for the others."""

    def whole(name: str) -> Tensor:
        known = torch.cat(
            [getattr(part, name).expand(len(part.importance), *getattr(part, name).shape[1:]) for part in parts]
        )
        values = known.new_zeros(count, *known.shape[1:])
        if known.is_floating_point():
            values.fill_(torch.nan)
        values[places] = known
        return values

    names = [f.name for f in fields(Explanation) if isinstance(getattr(parts[0], f.name), Tensor)]
    return Explanation(**{name: whole(name) for name in names}, estimator=parts[0].estimator)


def unknown(x: Tensor) -> Explanation:
    """Say that nothing is known of examples that have no direction, not one of them."""
    maps, values = torch.full_like(x, torch.nan), x.new_full((len(x),), torch.nan)
    used = torch.zeros(len(x), dtype=torch.long)
    chance = {"null_maxima": x.new_full((len(x), PERMUTATIONS), torch.nan), "null_statistic": values}
    return Explanation(maps, maps, maps, values, values, used, maps, NOT_EXPLAINED, **chance)
