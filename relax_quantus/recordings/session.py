"""Everything that explaining recordings needs, loaded once from `ExplainSettings`.

A `Session` holds the encoder, its front end, a classifier, a `RELAX` for each masking strategy and
what is compared with. Whoever explains many recordings makes one and calls `Session.explain` for
each.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from relax_quantus import __version__
from relax_quantus.base import checks
from relax_quantus.base.files import plain_stem
from relax_quantus.base.networks import fingerprint
from relax_quantus.base.registry import parse, user_object
from relax_quantus.encoders.contract import as_network
from relax_quantus.encoders.loading import (
    checked_front_end,
    front_end_of,
    keeps_contract,
    load,
    refuse_other_front_end,
)
from relax_quantus.errors import ArgumentTypeError, ShapeError
from relax_quantus.frontend import front_end as front_ends
from relax_quantus.frontend.front_end import FrontEnd
from relax_quantus.heads.classifier import EmbeddingClassifier
from relax_quantus.recordings.anchors import Anchor, Beside, load_anchor, load_beside
from relax_quantus.recordings.blocks import BlockStore, key_of
from relax_quantus.recordings.explaining import EACH, NOT_EXPLAINED, Array, Blocks, OneBlock, explain_plan, fill_for
from relax_quantus.recordings.plan import CENTRED, ExplainSettings, Plan, Source, plan_for
from relax_quantus.recordings.recording import RecordingExplanation, RecordingMap
from relax_quantus.relax.attribution import RELAX
from relax_quantus.relax.masks import STRATEGIES, MaskStrategy
from relax_quantus.relax.similarity import Similarity
from relax_quantus.relax.similarity import get as get_similarity

ON_WAVEFORMS = ("time",)
"""Masking strategies that mean something on samples."""


@contextmanager
def _no_progress(total: int, what: str, unit: str, begun: int = 0) -> Iterator[Any]:
    yield _Uncounted()


class _Uncounted:
    def update(self, n: int = 1) -> None:
        """Count nothing."""


@contextmanager
def progress_bar(total: int, what: str, unit: str, begun: int = 0) -> Iterator[Any]:
    """Draw a bar on stderr while examples are explained."""
    from tqdm import tqdm

    with tqdm(total=total, initial=begun, desc=what, unit=unit, leave=False) as bar:
        yield bar


@dataclass(frozen=True)
class Hooks:
    """Say what a program does while recordings are explained; by default nothing.

    Parameters
    ----------
    progress
        ``progress(total, what, unit, begun)`` is a context whose ``update(n)`` is told of `n` more.
        It may raise.
    check
        Called after a failure that others might swallow; raises if the program is to stop.
    """

    progress: Callable[..., AbstractContextManager[Any]] = _no_progress
    check: Callable[[], None] = lambda: None


class Session:
    """Load what `settings` name, to explain recordings with.

    Parameters
    ----------
    settings
        What to explain with; the defaults are those of `relax_quantus.explain_recording`.
    progress
        Draw a bar on stderr for each recording.
    hooks
        What a program does meanwhile, in place of the bar.

    Attributes
    ----------
    encoder, front_end, classifier
        What makes examples, embeddings and classes; the classifier is None without a head.
    explainers
        A `relax_quantus.RELAX` by the name of each masking strategy.
    towards, away
        What embeddings are compared with; None for the example's own, and for nothing.
    encoder_sha256
        The encoder's fingerprint, taken before it ran: a network may keep what it has computed
        once.

    Raises
    ------
    RelaxQuantusError
        If something cannot be loaded, or does not go together.

    Examples
    --------
    >>> session = Session(ExplainSettings(masks=("time", "frequency")))
    >>> list(session.explainers)
    ['time', 'frequency']
    """

    def __init__(
        self, settings: ExplainSettings | None = None, *, progress: bool = False, hooks: Hooks | None = None
    ) -> None:
        self.settings = settings = settings or ExplainSettings()
        self.hooks = hooks or (Hooks(progress_bar) if progress else Hooks())
        self.front_end, self.encoder = _networks(settings)
        for name in settings.fills:
            fill_for(self.front_end, name)
        strategies = _applicable(settings, self.front_end)
        self.classifier: EmbeddingClassifier | None = None
        head = settings.path("head")
        if head is not None:
            self.classifier = EmbeddingClassifier.load(head, self.encoder)
            doubt = refuse_other_front_end(head, self.classifier.made_with, self.front_end)
            if doubt:
                warnings.warn(doubt, stacklevel=2)
            # a network that was fine-tuned comes with its head, and maps are of the same one
            if isinstance(self.classifier.encoder, nn.Module):
                self.encoder = self.classifier.encoder
        self.encoder_sha256 = fingerprint(self.encoder)
        self.similarity = self._similarity()
        self.explainers = {
            name: RELAX(self.encoder, masks, self.similarity, settings.estimator, settings.domain, settings.precision)
            for name, masks in strategies.items()
        }
        self.towards, self.away = (self._anchor(name) for name in ("reference", "away"))

    def explain(
        self,
        recording: str | os.PathLike[str] | npt.NDArray[Any],
        *,
        sample_rate_hz: int | None = None,
        keep_in: str | os.PathLike[str] | None = None,
    ) -> RecordingExplanation:
        """Explain one recording, short or long.

        Parameters
        ----------
        recording
            A sound file; or a waveform ``(samples,)``, floating, full scale at 1.
        sample_rate_hz
            Of a waveform.
        keep_in
            Folder in which the blocks of a long recording are kept until
            `RecordingExplanation.remove_blocks`, so that a run that was stopped goes on; by default
            they live as long as the result, in a temporary folder.

        Returns
        -------
        RecordingExplanation
            Strategies x fills x N encoder forwards an example.

        Raises
        ------
        RelaxQuantusError
            If the recording or the encoder cannot be used.

        Warns
        -----
        UserWarning
            Of what is left out of the recording, is added to it, or has no explanation.
        """
        folder = None if keep_in is None else Path(keep_in)
        if isinstance(recording, str | os.PathLike):
            if sample_rate_hz is not None:
                checks.refuse("sample_rate_hz", "none with a file, which says it", sample_rate_hz, "leave it out")
            return _explain_path(Path(recording), self, folder)
        scratch = TemporaryDirectory(prefix="relax-quantus-", ignore_cleanup_errors=True)
        return _explain_path(_as_file(recording, sample_rate_hz, Path(scratch.name)), self, folder, (scratch,))

    @property
    def fills(self) -> tuple[str, ...]:
        """The names of the fills."""
        return self.settings.fills

    @property
    def encoder_name(self) -> str:
        """What results call the encoder."""
        encoder = self.settings.encoder
        return encoder if isinstance(encoder, str) else type(encoder).__name__

    @property
    def conditions(self) -> dict[str, tuple[str, str]]:
        """Strategy and fill of each map by its name.

        That of the strategy, and with several fills of both.
        """
        several = len(self.fills) > 1
        return {f"{name}.{fill}" if several else name: (name, fill) for name in self.explainers for fill in self.fills}

    @property
    def question(self) -> str:
        """What the maps are towards, in words."""
        towards = "the clip's own embedding" if self.towards is None else self.towards.label
        return towards if self.away is None else f"{towards}, away from {self.away.label}"

    @cached_property
    def beside(self) -> tuple[Beside, ...]:
        """What pages show of that which maps are towards or away from.

        Read when it is first asked for.
        """
        return load_beside(self.towards, self.away, self.similarity, self.front_end, self.settings.resampler)

    def described(self) -> dict[str, Any]:
        """Return what was asked for, whatever the recording, as results record it."""
        s = self.settings

        def resolved(name: str) -> str | None:
            path = s.path(name)
            return None if path is None else str(path.resolve())

        return {
            "program": f"relax_quantus {__version__}",
            "encoder": self.encoder_name,
            "weights": resolved("weights"),
            "front_end": self.front_end.text,
            "sample_rate_hz": self.front_end.rate_hz,
            "encoder_sha256": self.encoder_sha256,
            "head": resolved("head"),
            "class_names": None if self.classifier is None else list(self.classifier.class_names),
            "masks": list(self.explainers),
            "baseline": self.fills[0],
            "baselines": list(self.fills),
            "similarity": s.similarity,
            "corpus": resolved("corpus"),
            "domain": s.domain,
            "precision": s.precision,
            "resampler": s.resampler,
            "towards": None if self.towards is None else str(self.towards.path.resolve()),
            "away": None if self.away is None else str(self.away.path.resolve()),
            "n_samples": s.n_samples,
            "tolerance": s.tolerance,
            "seed": s.seed,
        }

    def _anchor(self, name: str) -> Anchor | None:
        path = self.settings.path(name)
        if path is None:
            return None
        return load_anchor(path, self.encoder, self.front_end, self.settings.resampler, self.hooks.check)

    def _similarity(self) -> Similarity:
        name, corpus = self.settings.similarity, self.settings.path("corpus")
        if name != CENTRED or corpus is None:
            return get_similarity(name)
        anchor = load_anchor(corpus, self.encoder, self.front_end, self.settings.resampler, self.hooks.check)
        return get_similarity(name, mean=anchor.embedding)


def _networks(settings: ExplainSettings) -> tuple[FrontEnd, nn.Module]:
    """Load the front end and the encoder, by name or as the user's own objects."""
    encoder, front_end = settings.encoder, settings.front_end
    if isinstance(encoder, str) and (front_end is None or isinstance(front_end, str)):
        return load(encoder, settings.path("weights"), settings.sha256, front_end)
    if isinstance(encoder, str):
        _, network = load(encoder, settings.path("weights"), settings.sha256)
    elif isinstance(encoder, nn.Module):
        if settings.weights is not None:
            checks.refuse("weights", "none with a module, which has its own", str(settings.weights), "leave it out")
        network = as_network(encoder) if keeps_contract(encoder) else encoder
    else:
        rule = "a name, or a torch.nn.Module"
        checks.refuse("encoder", rule, encoder, "wrap it in a module", ArgumentTypeError)
    if isinstance(front_end, str):
        spec = parse("front_end", front_end)
        if spec.target is None:
            return checked_front_end(network, front_ends.build(spec), type(network).__name__), network
        front_end = user_object("front_end", spec.target)
    if front_end is not None:
        return front_ends.of_object("the user's own", front_end), network
    return front_end_of(network), network


def _applicable(settings: ExplainSettings, front_end: FrontEnd) -> dict[str, MaskStrategy]:
    """Build those strategies that were asked for and mean something on the front end's examples.

    Raises
    ------
    ArgumentError
        If one was named that does not, or amplitudes are asked for where there are none.
    """
    if settings.domain == "amplitude" and not front_end.natural_log:
        rule = "log with a front end whose values are no natural logarithms"
        checks.refuse("domain", rule, "amplitude", "leave it out")
    wanted = settings.named_masks
    for name in wanted if front_end.of_waveforms else ():
        if isinstance(name, str) and name not in ON_WAVEFORMS:
            rule = f"{' or '.join(ON_WAVEFORMS)} for waveforms, which have no bands"
            checks.refuse("masks", rule, repr(name), "leave it out")
    if not wanted:
        wanted = ON_WAVEFORMS if front_end.of_waveforms else tuple(STRATEGIES.names())
    found: dict[str, MaskStrategy] = {}
    for one in wanted:
        name = one if isinstance(one, str) else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(one).__name__).lower()
        if name in found and not isinstance(one, str):
            name = f"{name}_{len(found) + 1}"
        found[name] = STRATEGIES.get(one) if isinstance(one, str) else one
    return found


def _explain_path(
    path: Path, session: Session, keep_in: Path | None = None, scratch: tuple[TemporaryDirectory[str], ...] = ()
) -> RecordingExplanation:
    """Explain a recording, or what is left of it.

    Temporary folders in `scratch` live as long as the result.
    """
    plan = plan_for(path, session)
    plan.warn()
    store: Blocks = OneBlock()
    if plan.blocks > 1:
        if keep_in is None:
            scratch += (TemporaryDirectory(prefix="relax-quantus-", ignore_cleanup_errors=True),)
            keep_in = Path(scratch[-1].name)
        store = BlockStore(keep_in, plain_stem(path), key_of(plan, session), plan.frames)
    try:
        explain_plan(plan, store, session)
        return _gathered(plan, store, session, scratch)
    except BaseException:
        if isinstance(store, BlockStore):
            store.close()
        raise


def _gathered(
    plan: Plan, store: Blocks, session: Session, scratch: tuple[TemporaryDirectory[str], ...]
) -> RecordingExplanation:
    def rows(name: str) -> Array:
        found = store.rows(name)
        assert found is not None  # every block has it
        return found

    def each(name: str) -> Array:
        found = store.each(name)
        assert found is not None
        return found

    def estimator(label: str) -> str:
        names = set(map(str, each(f"estimator_{label}").tolist())) - {NOT_EXPLAINED}
        return ", ".join(sorted(names)) or NOT_EXPLAINED

    kinds = ("importance", "uncertainty", "standard_error", "centred_standard_error", "neutral")
    maps = {
        label: RecordingMap(
            strategy,
            fill,
            estimator(label),
            plan,
            **{kind: rows(f"{kind}_{label}") for kind in kinds},
            cell_effects=store.rows(f"cell_effects_{label}"),
            **{kind: each(f"{kind}_{label}") for kind in (*EACH, "spearman")},
        )
        for label, (strategy, fill) in session.conditions.items()
    }
    return RecordingExplanation(
        session, plan, maps, rows("x"), each("embedding"), store.each("probabilities"), store, scratch
    )


def _as_file(wave: Any, sample_rate_hz: int | None, folder: Path) -> Path:
    """Write a waveform as a file, without loss, to be checked and read as any other recording."""
    import soundfile

    if sample_rate_hz is None:
        checks.refuse("sample_rate_hz", "the rate of the waveform in Hz", "none", "pass it beside the array")
    rate_hz = checks.integer("sample_rate_hz", sample_rate_hz)
    wave = np.asarray(wave)
    if wave.ndim != 1 or wave.size == 0:
        rule = "a file, or a waveform of shape (samples,)"
        checks.refuse("recording", rule, wave, "mix channels down to mono first", ShapeError)
    if wave.dtype.kind != "f":
        checks.refuse("recording", "floating-point samples", wave, "scale it to [-1, 1] first", ArgumentTypeError)
    checks.finite("recording", torch.as_tensor(wave))
    path = folder / "array.wav"
    soundfile.write(path, wave.astype(np.float32), rate_hz, subtype="FLOAT")
    return path


def explain_recording(
    recording: str | os.PathLike[str] | npt.NDArray[Any],
    encoder: str | nn.Module = "vggish_mini",
    masks: str | MaskStrategy | Sequence[str | MaskStrategy] | None = "time_frequency",
    *,
    sample_rate_hz: int | None = None,
    reference: Source | None = None,
    away: Source | None = None,
    n_samples: int = 500,
    tolerance: float | None = None,
    baselines: str | Sequence[str] = "silence",
    estimator: str = "surrogate",
    seed: int = 0,
    head: Source | None = None,
    hop_s: float | None = None,
    max_examples: int = 60,
    front_end: Any = None,
    weights: Source | None = None,
    sha256: str | None = None,
    similarity: str = "cosine",
    corpus: Source | None = None,
    domain: str = "log",
    precision: str = "float32",
    resampler: str = "soxr",
    progress: bool = False,
) -> RecordingExplanation:
    """Explain a recording, short or long.

    Which part of it makes its embedding what it is, and how sure that is.

    For many recordings, make a `relax_quantus.Session`, which loads everything once.

    Parameters
    ----------
    recording
        A sound file; or a waveform ``(samples,)``, floating, full scale at 1, with its
        `sample_rate_hz`.
    encoder, masks, reference, away, n_samples, tolerance, baselines, estimator, seed, head, hop_s,
    max_examples
        As in `relax_quantus.ExplainSettings`.
    front_end, weights, sha256, similarity, corpus, domain, precision, resampler
        As in `relax_quantus.ExplainSettings`.
    sample_rate_hz
        Of a waveform, in Hz.
    progress
        Draw a bar on stderr.

    Returns
    -------
    RecordingExplanation
        Strategies x fills x N encoder forwards an example.

    Raises
    ------
    RelaxQuantusError
        If an argument, the recording or the encoder cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.arange(32_000) / 16_000
    >>> wave = np.sin(2 * np.pi * 2000 * t) * (t > 0.5) * (t < 0.8)
    >>> found = explain_recording(wave, masks="time", sample_rate_hz=16_000, n_samples=20)
    >>> found.importance.shape, found.times_s.shape
    ((192, 64), (192,))
    """
    settings = ExplainSettings(
        encoder=encoder,
        masks=masks,
        baselines=baselines,
        n_samples=n_samples,
        tolerance=tolerance,
        estimator=estimator,
        seed=seed,
        max_examples=max_examples,
        hop_s=hop_s,
        reference=reference,
        away=away,
        similarity=similarity,
        corpus=corpus,
        domain=domain,
        precision=precision,
        resampler=resampler,
        head=head,
        front_end=front_end,
        weights=weights,
        sha256=sha256,
    )
    return Session(settings, progress=progress).explain(recording, sample_rate_hz=sample_rate_hz)
