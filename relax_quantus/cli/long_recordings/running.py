"""One planned recording from its blocks to its results."""

from __future__ import annotations

import torch

from relax_quantus.base.modules import checked_embedding
from relax_quantus.cli import console
from relax_quantus.cli.clips import LEAST_LEFT_S, Done, Findings, Models, done, left_out_words
from relax_quantus.cli.long_recordings.explaining import explain_blocks
from relax_quantus.cli.long_recordings.page import write_page
from relax_quantus.cli.long_recordings.plan import Plan, key_of
from relax_quantus.cli.long_recordings.reading import Stored
from relax_quantus.cli.long_recordings.results import (
    bounds_of,
    facts_of,
    left_out_s,
    masks_used,
    overview_of,
    regions_of,
    write_annotations,
    write_arrays,
    write_picture,
    write_sounds,
)
from relax_quantus.cli.long_recordings.store import BlockStore
from relax_quantus.cli.requests.explain import ExplainRequest
from relax_quantus.cli.result_files import ResultFiles, plain_stem
from relax_quantus.cli.verdicts import in_words


def run_plan(plan: Plan, request: ExplainRequest, models: Models) -> tuple[Done, BlockStore]:
    """Explain a recording, or what is left of it, and write its results; the blocks are kept until the caller removes them.

    Raises
    ------
    RelaxQuantusError, OSError
        If that cannot be done.
    """
    _say_what_is_left_out(plan, models)
    store = BlockStore(request.out, plain_stem(plan.path), key_of(plan, request, models))
    try:
        explain_blocks(plan, store, request, models)
        conditions = {(name, fill): None for name in models.explainers for fill in request.baselines}
        labels = list(Findings(torch.empty(0), dict(conditions), None).by_name())  # type: ignore[arg-type]
        stored = Stored(plan, store, labels)
        _say_what_is_unknown(plan, stored)
        done = _write(stored, request, models)
    except BaseException:
        store.close()
        raise
    return done, store


def _write(stored: Stored, request: ExplainRequest, models: Models) -> Done:
    with ResultFiles(stored.plan.path, request.out) as files:
        write_arrays(stored, request, models, files.draft("npz"))
        overview = overview_of(stored, models)
        write_picture(stored, overview, request, models, files.draft("png"))
        boxes = regions_of(stored, models) if request.annotations else None
        if boxes is not None:
            write_annotations(stored, boxes, files)
        if request.sounds:
            write_sounds(stored, models, files)
        entry = write_page(stored, overview, request, models, files.draft("html")) if request.html else None
        stem = files.publish()
    remark = "" if request.tolerance is None else masks_used(stored, request)
    maps, verdict = facts_of(stored, boxes), in_words(bounds_of(stored))
    return done(request.out, stem, remark, entry, left_out_s(stored.plan, models), maps, verdict)


def _say_what_is_left_out(plan: Plan, models: Models) -> None:
    """Warn of a recording that holds more or less than whole examples."""
    rate, name = models.front_end.rate_hz, console.shown(plan.path)
    if plan.padding:
        seconds, whole = plan.samples / rate, (plan.samples + plan.padding) / rate
        console.warning(f"{name}: {seconds:.2f} s is less than one example; padded with silence to {whole:.3f} s")
    if plan.count < plan.in_all:
        used = plan.frames * models.front_end.axis.hop_s
        console.warning(
            f"{name}: explained are the first {plan.count} of {plan.in_all} examples, "
            f"{used:.1f} of {plan.samples / rate:.1f} s; --max-examples 0 explains all of it"
        )
    elif not plan.padding and left_out_s(plan, models) >= LEAST_LEFT_S:
        console.warning(f"{name}: {left_out_words(left_out_s(plan, models))}")


def _say_what_is_unknown(plan: Plan, stored: Stored) -> None:
    """Warn of examples without a direction; refuse a recording that has no other."""
    h = torch.from_numpy(stored.each("embedding"))
    zero = int((~h.any(dim=1)).sum())
    if zero == len(h):
        checked_embedding(h, len(h), nonzero=True)
    if zero:
        name = console.shown(plan.path)
        console.warning(f"{name}: {zero} of {len(h)} examples have an all-zero embedding and no explanation")
