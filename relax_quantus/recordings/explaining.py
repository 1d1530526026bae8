"""A planned recording -> its blocks, each explained and stored before the next is read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus.audio.reading import waveform_blocks
from relax_quantus.base import checks
from relax_quantus.base.checks import shown
from relax_quantus.base.networks import checked_embedding, evaluation_mode
from relax_quantus.frontend.framing import FrameReader, cut
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.recordings.plan import TOGETHER, Plan
from relax_quantus.recordings.stitching import Stitcher, maps_of, phase_seed
from relax_quantus.relax.estimation import PERMUTATIONS
from relax_quantus.relax.explanation import Explanation
from relax_quantus.relax.fills import FILLS, warn_of_loud_silence

if TYPE_CHECKING:
    from relax_quantus.recordings.session import Session

NOT_EXPLAINED = "none"
"""Instead of an estimator's name."""
OF_WAVEFORMS = ("silence", "zero", "mean")
"""Fills that mean something on samples."""
EACH = (
    *("mean_similarity", "fully_masked_similarity", "compared_with_itself", "n_samples"),
    *("null_maxima", "null_statistic"),
)
"""What there is one, or one row, of an example."""
Silence = Tensor | float | str
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Block:
    """Hold what was found in a block.

    Attributes
    ----------
    first
        Number of the frame with which it begins.
    rows
        Its finished frames ``(rows, F)`` of the examples and of every map, by name.
    each
        What there is one of an example, by name, and one of a block.
    carry
        What the next block goes on from, by map and kind.
    """

    first: int
    rows: Mapping[str, Array]
    each: Mapping[str, Array]
    carry: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)


class Blocks(Protocol):
    """Store blocks, and give back what is in all of them."""

    def finished(self) -> int:
        """Return how many blocks there are, from the first on."""

    def put(self, number: int, block: Block) -> None:
        """Store a block."""

    def carry(self, number: int) -> Mapping[str, Mapping[str, Array]]:
        """Return what the block after a stored one goes on from."""

    def rows(self, name: str) -> Array | None:
        """Return a map of the whole recording, ``(frames, F)``; None if no block has it."""

    def each(self, name: str) -> Array | None:
        """Return what there is one of an example, of all; None if no block has it."""

    def remove(self) -> None:
        """Delete what was stored."""


class OneBlock:
    """Keep the only block of a recording in memory."""

    def __init__(self) -> None:
        self._block: Block | None = None

    def finished(self) -> int:
        """Return 0 until the block is there."""
        return int(self._block is not None)

    def put(self, number: int, block: Block) -> None:
        """Keep the block."""
        self._block = block

    def carry(self, number: int) -> Mapping[str, Mapping[str, Array]]:
        """Return nothing: no block follows."""
        return {}

    def rows(self, name: str) -> Array | None:
        """Return a map, ``(frames, F)``."""
        assert self._block is not None
        return self._block.rows.get(name)

    def each(self, name: str) -> Array | None:
        """Return what there is one of an example."""
        assert self._block is not None
        return self._block.each.get(name)

    def remove(self) -> None:
        """Do nothing."""


def part(values: Array, rows: slice) -> Array:
    """Return some rows of a map.

    Of a memory map as a copy, so that what was read does not stay in memory.
    """
    if isinstance(values, np.memmap) and values.filename is not None:
        fresh = np.memmap(values.filename, values.dtype, "r", values.offset, values.shape)
        return np.array(fresh[rows])
    return values[rows]


def explain_plan(plan: Plan, store: Blocks, session: Session) -> None:
    """Explain what is not in the store yet.

    Raises
    ------
    RelaxQuantusError
        If the recording or the encoder cannot be used.
    """
    start, conditions = store.finished(), session.conditions
    if start < plan.blocks:
        examples, of = _ExamplesOf(plan, session.front_end), len(conditions)
        stitchers = {label: Stitcher(plan.per_example, plan.hop, shared_masks=False) for label in conditions}
        for label, carry in store.carry(start - 1).items() if start else ():
            stitchers[label].carry = {kind: torch.from_numpy(sums) for kind, sums in carry.items()}
        name, begun = shown(plan.path.name), start * plan.block
        with session.hooks.progress(plan.count * of, name, "example", begun * of) as bar:
            for number in range(start, plan.blocks):
                x, frames = examples.block(number)
                h = embed(x, session.encoder)
                if plan.blocks == 1 and not h.any():
                    checked_embedding(h, len(h), nonzero=True)
                if number == 0:
                    _warn_of_loud_silence(x, examples.silence, session)
                found = find(x, h, session, bar.update, plan.phases_of(number), examples.silence)
                store.put(number, _block(found, h, frames, stitchers, plan, number, session))
    _say_what_is_unknown(plan, store)


class _ExamplesOf:
    """Read the examples and frames of a planned recording, block by block."""

    def __init__(self, plan: Plan, front_end: FrontEnd) -> None:
        self.plan, self.silence = plan, front_end.silence
        if plan.reading is not None:
            self.silence = plan.reading.silence
        elif plan.framing is not None:
            blocks = waveform_blocks(plan.path, front_end.rate_hz)
            self._reader = FrameReader(blocks, plan.framing, plan.padding)

    def block(self, number: int) -> tuple[Tensor, Array]:
        """Return examples, and the frames ``(rows, F)`` that no later block has."""
        plan, examples = self.plan, self.plan.examples_of(number)
        if plan.reading is not None:
            x = plan.reading.examples
            return x, np.asarray((x.reshape(-1, 1) if x.ndim == 2 else x.reshape(-1, x.shape[3])).numpy())
        rows = (len(examples) - 1) * plan.hop + plan.per_example
        frames = self._reader.take(examples.start * plan.hop, rows)
        is_last = number == plan.blocks - 1
        return cut(frames, plan.per_example, plan.hop), frames[: None if is_last else len(examples) * plan.hop].numpy()


def _block(
    found: dict[str, Explanation],
    h: Tensor,
    frames: Array,
    stitchers: dict[str, Stitcher],
    plan: Plan,
    number: int,
    session: Session,
) -> Block:
    """Put together what is stored of a block.

    Finished frames of every map, and what the next block goes on from.
    """
    rows: dict[str, Array] = {"x": frames}
    each: dict[str, Array] = {"embedding": h.numpy()}
    carry: dict[str, dict[str, Array]] = {}
    if session.classifier is not None:
        with torch.no_grad():
            each["probabilities"] = session.classifier.head(h).softmax(dim=1).numpy()
    usable, is_last = h.any(dim=1), number == plan.blocks - 1
    for label, explanation in found.items():
        each |= {f"{kind}_{label}": _array(getattr(explanation, kind)) for kind in EACH}
        each[f"spearman_{label}"] = explanation.spearman().numpy()
        each[f"estimator_{label}"] = np.array([explanation.estimator])
        stitcher = stitchers[label]
        parts = stitcher.push(maps_of(explanation), usable)
        rest = stitcher.finish() if is_last else {}
        for kind, part in parts.items():
            rows[f"{kind}_{label}"] = (torch.cat([part, rest[kind].to(part.dtype)]) if is_last else part).numpy()
        if not is_last:
            carry[label] = {kind: sums.numpy() for kind, sums in stitcher.carry.items()}
    return Block(plan.examples_of(number).start * plan.hop, rows, each, carry)


def _array(values: Tensor | None) -> Array:
    assert values is not None  # recordings are explained with null=True
    return np.asarray(values.numpy())


def _warn_of_loud_silence(x: Tensor, silence: Silence, session: Session) -> None:
    if "silence" in session.fills and isinstance(silence, Tensor) and session.front_end.axis.label != "coefficient":
        warn_of_loud_silence(x, silence)


def _say_what_is_unknown(plan: Plan, store: Blocks) -> None:
    """Warn of examples without a direction; refuse a recording that has no other."""
    h = store.each("embedding")
    assert h is not None
    zero = int((~h.any(axis=1)).sum())
    if zero == len(h):
        checked_embedding(torch.from_numpy(h), len(h), nonzero=True)
    if zero:
        said = f"{zero} of {len(h)} examples have an all-zero embedding and no explanation"
        warnings.warn(f"{shown(plan.path)}: {said}", stacklevel=3)


@torch.no_grad()
def embed(x: Tensor, encoder: nn.Module) -> Tensor:
    """Return embeddings ``(n, D)`` of examples, a few at a time.

    Raises
    ------
    EncoderError
        If they are not finite ``(n, D)``.
    """
    parts = torch.split(x, TOGETHER)
    with evaluation_mode(encoder):
        return torch.cat([checked_embedding(encoder(part), len(part), nonzero=False).cpu() for part in parts])


@torch.no_grad()
def find(
    x: Tensor,
    h: Tensor,
    session: Session,
    done: Callable[[int], object],
    phases: Tensor,
    silence: Silence | None = None,
) -> dict[str, Explanation]:
    """Explain examples, a few at a time, under every strategy and fill; by the names of these.

    An example whose embedding is zero has no direction: its maps are NaN, and if there is no other,
    so are all.

    Parameters
    ----------
    x, h
        The examples, and their embeddings ``(n, D)``.
    done
        Told the number of examples whenever some were explained under one strategy and fill.
    phases
        ``(n,)``: examples of different phases draw different masks, see
        `relax_quantus.recordings.stitching`.
    silence
        What a muted part of this recording becomes; the front end's by default.
    """
    settings, usable, found = session.settings, h.any(dim=1), {}
    fills = {name: fill_for(session.front_end, name, silence) for name in session.fills}
    itself = session.towards is None and session.away is None
    for label, (name, fill_name) in session.conditions.items():
        parts: list[Explanation] = []
        places: list[Tensor] = []
        for phase in sorted(set(phases[usable].tolist())):
            for some in torch.split(torch.nonzero(usable & (phases == phase)).flatten(), TOGETHER):
                explained = session.explainers[name].explain(
                    x[some],
                    fills[fill_name],
                    n_samples=settings.n_samples,
                    seed=phase_seed(settings.seed, phase),
                    reference=_reference(h[some], session),
                    tolerance=settings.tolerance,
                    null=True,
                )
                e = explained[0] if isinstance(explained, tuple) else explained
                parts.append(replace(e, compared_with_itself=torch.full((len(some),), itself)))
                places.append(some)
                done(len(some))
        if not usable.all():
            done(int((~usable).sum()))
        found[label] = join(parts, torch.cat(places), len(x)) if parts else unknown(x)
    return found


def fill_for(front_end: FrontEnd, name: str, silence: Silence | None = None) -> Any:
    """Return what a fill's name means to `RELAX` on a front end's examples.

    "silence" is a recording's, if it is given.

    Raises
    ------
    UnknownNameError, ArgumentError
        If there is no such fill, or none on waveforms.
    """
    FILLS.get(name)
    if front_end.of_waveforms and name not in OF_WAVEFORMS:
        rule = f"{' or '.join(OF_WAVEFORMS)} for waveforms, which have no bands"
        checks.refuse("baselines", rule, repr(name), "pick one of these")
    if name != "silence":
        return name
    return front_end.silence if silence is None else silence


def _reference(h: Tensor, session: Session) -> Tensor | tuple[Tensor, Tensor]:
    """Return what examples of embeddings ``(n, D)`` are compared with."""
    towards = h if session.towards is None else session.towards.embedding
    return towards if session.away is None else (towards, session.away.embedding.expand_as(towards))


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
    """Build an all-NaN explanation for examples whose embeddings are all zero."""
    maps, values = torch.full_like(x, torch.nan), x.new_full((len(x),), torch.nan)
    used = torch.zeros(len(x), dtype=torch.long)
    chance = {"null_maxima": x.new_full((len(x), PERMUTATIONS), torch.nan), "null_statistic": values}
    return Explanation(maps, maps, maps, values, values, used, maps, NOT_EXPLAINED, **chance)
