"""Fine-tuning: an encoder is trained on with a linear head, and kept only if held-out groups are told apart better.

Log-mel examples with labels and groups and a torch encoder enter; a trained copy of it, a record of the comparison and
the head's penalty leave. `EmbeddingClassifier.fit` is built on it. The given encoder and the global random generators
are left as they were.
"""

from __future__ import annotations

import copy
import difflib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from relax_quantus.checks import message, refuse
from relax_quantus.errors import EncoderError
from relax_quantus.holding_out import Labelled, group_weights, hold_out
from relax_quantus.logistic import Floats, fit_logistic
from relax_quantus.modules import MICRO_BATCH, embed_all, like_weights

LEARNING_RATE, HEAD_LEARNING_RATE, WEIGHT_DECAY = 1e-4, 1e-3, 0.01
BATCH = 32
PATIENCE = 5
"""Epochs without a smaller validation loss after which training stops."""
ROLL = 1 / 8
"""Largest shift in time of a training example, as a share of its length; what leaves at one end enters at the other."""


@dataclass(frozen=True)
class FineTuning:
    """How fine-tuning went, and which encoder was kept.

    Attributes
    ----------
    kept
        The encoder with the higher validation accuracy; "frozen", the one that was given, unless "fine_tuned" is
        strictly better.
    frozen_accuracy, tuned_accuracy
        Accuracy 0 to 1 on the held-out examples, each group weighing the same, of a logistic head fitted to the other
        examples' embeddings. ``tuned_accuracy`` is None if no epoch was finished. The epoch was chosen on the same
        examples by their loss, and the better of two is kept: the higher figure is a little optimistic.
    best_epoch, epochs_run
        The epoch, counted from 1, whose weights were kept as the fine-tuned ones (0: none), and how many were finished.
    interrupted
        Whether Ctrl-C ended the training.
    held_out_groups, held_out_examples
        The size of the validation split.
    validated_by_clip
        The classes of one group only, of which clips were held out instead of groups.
    losses
        Validation log loss after each epoch.
    """

    kept: Literal["frozen", "fine_tuned"]
    frozen_accuracy: float
    tuned_accuracy: float | None
    best_epoch: int
    epochs_run: int
    interrupted: bool
    held_out_groups: int
    held_out_examples: int
    validated_by_clip: tuple[str, ...] = ()
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What the caller of `EmbeddingClassifier.fit` chose; see there."""

    epochs: int
    freeze: Sequence[str] | None = None
    learning_rate: float = LEARNING_RATE
    seed: int | None = 0
    show_progress: bool = False


@dataclass
class Course:
    """What training has reached so far; read also when it was interrupted."""

    losses: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    interrupted: bool = False


def fine_tune(encoder: Any, data: Labelled, h: Floats, settings: Settings) -> tuple[nn.Module, FineTuning, float]:
    """Train a copy of `encoder` on four fifths of the groups and compare both on the rest.

    Parameters
    ----------
    encoder
        A float32 or float64 `torch.nn.Module` ``(n, 1, T, F) -> (n, D)``.
    data
        Examples, labels, groups and clips.
    h
        ``(n, D)`` embeddings of the examples by the encoder as it is.
    settings
        Epochs, frozen parts, learning rate, seed.

    Returns
    -------
    tuple
        The trained copy, at its best epoch and with the modes and flags of the original; the record; and the C that
        cross-validation chose for the frozen encoder's head, for the fine-tuned one's too: on embeddings by an encoder
        that was trained on the same examples, cross-validation would always choose the weakest penalty.
    """
    tuned, trained = _trainee(encoder, settings.freeze)
    generator = torch.Generator()
    seed = generator.seed() if settings.seed is None else settings.seed
    held, by_clip = hold_out(data, np.random.default_rng(seed))
    _warn_about_split(data, held, by_clip)
    rest = ~held
    weight, bias, chosen = fit_logistic(h[rest], data.labels[rest], data.codes[rest])
    course = Course()
    with _training(tuned, trained, seed):
        head = _StandardisedHead(h[rest], group_weights(data.codes[rest]), weight, bias).to(
            next(iter(trained.values()))
        )
        _train(tuned, trained, head, data, held, settings, generator.manual_seed(seed), course)
    frozen_accuracy, tuned_accuracy = _accuracy(weight, bias, h, data, held), None
    if course.best_epoch:
        h = embed_all(tuned, data.x).double().cpu().numpy()
        weight, bias, _ = fit_logistic(h[rest], data.labels[rest], data.codes[rest], chosen.C)
        tuned_accuracy = _accuracy(weight, bias, h, data, held)
    record = FineTuning(
        kept="fine_tuned" if tuned_accuracy is not None and tuned_accuracy > frozen_accuracy else "frozen",
        frozen_accuracy=frozen_accuracy,
        tuned_accuracy=tuned_accuracy,
        best_epoch=course.best_epoch,
        epochs_run=len(course.losses),
        interrupted=course.interrupted,
        held_out_groups=len(np.unique(data.codes[held])),
        held_out_examples=int(held.sum()),
        validated_by_clip=by_clip,
        losses=tuple(course.losses),
    )
    return tuned, record, chosen.C


def _warn_about_split(data: Labelled, held: Any, by_clip: tuple[str, ...]) -> None:
    """Say which classes are validated on clips of the group that they are trained on, and which not at all."""
    absent = [name for c, name in enumerate(data.names) if not (data.labels[held] == c).any()]
    for names, consequence in ((by_clip, "validated by clip"), (absent, "not validated, as it has one clip only")):
        for name in names:
            text = message(f"groups of class {name!r}", "at least two, one to hold out", "one", f"it is {consequence}")
            warnings.warn(text, UserWarning, stacklevel=5)


def _trainee(encoder: Any, freeze: Sequence[str] | None) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """Copy the encoder; return the copy and those of its parameters that are to be trained, by name."""
    if not isinstance(encoder, nn.Module):
        remedy = "wrap it in a module, or leave fine_tune at 0"
        refuse("encoder", "a torch.nn.Module to fine-tune", encoder, remedy, EncoderError)
    if freeze is None:
        freeze = getattr(encoder, "frozen_in_fine_tuning", ())
    if isinstance(freeze, str):
        freeze = (freeze,)
    parts = {name for name, _ in (*encoder.named_modules(), *encoder.named_parameters()) if name}
    for name in freeze:
        if name not in parts:
            near = difflib.get_close_matches(str(name), parts, n=3, cutoff=0.5) or sorted(parts, key=len)[:3]
            refuse("freeze", "names of the encoder's modules or parameters", repr(name), f"nearest are {near}")
    try:
        with torch.inference_mode(False):
            tuned = copy.deepcopy(encoder)
    except (TypeError, RuntimeError, ValueError) as error:
        got = f"{type(encoder).__name__}, of which copy.deepcopy says {error}"
        raise EncoderError(message("encoder", "a module that can be copied to fine-tune it", got)) from error
    frozen = tuple(f"{name}." for name in freeze)
    trained = {
        name: parameter
        for name, parameter in tuned.named_parameters()
        if parameter.requires_grad and not f"{name}.".startswith(frozen)
    }
    if not trained:
        remedy = "freeze less, or call requires_grad_() on what is to be trained"
        refuse(
            "encoder", "parameters to fine-tune", "none that requires gradients and is not frozen", remedy, EncoderError
        )
    for name, parameter in trained.items():
        if parameter.dtype not in (torch.float32, torch.float64):
            got = f"{name} of {parameter.dtype}"
            refuse("encoder", "float32 weights to fine-tune", got, "call encoder.float() first", EncoderError)
    return tuned, trained


@contextmanager
def _training(tuned: nn.Module, trained: dict[str, nn.Parameter], seed: int) -> Iterator[None]:
    """Put the copy into training mode and give modes, flags and generators back afterwards.

    Frozen parts and normalisations with running statistics stay in eval mode: a few small batches would spoil the
    statistics. Dropout draws from the global generators, which are seeded inside a fork.
    """
    modes = [(part, part.training) for part in tuned.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in tuned.parameters()]
    chosen = {id(parameter) for parameter in trained.values()}
    devices = sorted({p.device.index or 0 for p in trained.values() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        for part, _ in modes:
            parameters = list(part.parameters())
            frozen = bool(parameters) and not any(id(parameter) in chosen for parameter in parameters)
            part.training = not (frozen or getattr(part, "running_mean", None) is not None)
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in chosen)
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode
            for parameter, flag in flags:
                parameter.grad = None
                parameter.requires_grad_(flag)


class _StandardisedHead(nn.Module):
    """The fitted logistic head, on standardised embeddings, so that one learning rate suits embeddings of any scale."""

    def __init__(self, h: Floats, weights: Floats, weight: Floats, bias: Floats) -> None:
        super().__init__()
        mean = np.average(h, axis=0, weights=weights)
        scale = np.sqrt(np.average((h - mean) ** 2, axis=0, weights=weights))
        scale[scale < 1e-6 * max(float(scale.max()), 1e-12)] = 1.0
        self.mean, self.scale = nn.Buffer(torch.from_numpy(mean)), nn.Buffer(torch.from_numpy(scale))
        self.weight = nn.Parameter(torch.from_numpy(weight * scale))
        self.bias = nn.Parameter(torch.from_numpy(bias + weight @ mean))

    def forward(self, h: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of ``(n, D)``."""
        return functional.linear((h - self.mean) / self.scale, self.weight, self.bias)


def _train(
    tuned: nn.Module,
    trained: dict[str, nn.Parameter],
    head: nn.Module,
    data: Labelled,
    held: Any,
    settings: Settings,
    generator: torch.Generator,
    course: Course,
) -> None:
    """Train in place until `settings.epochs`, patience or Ctrl-C ends it, then put the best epoch's weights back."""
    optimiser = torch.optim.AdamW(
        [
            {"params": list(trained.values()), "lr": settings.learning_rate},
            {"params": list(head.parameters()), "lr": HEAD_LEARNING_RATE},
        ],
        weight_decay=WEIGHT_DECAY,
    )
    steps = -(-int((~held).sum()) // BATCH)
    try:
        with tqdm(
            total=settings.epochs * steps, desc="fine-tune", unit="batch", disable=not settings.show_progress
        ) as bar:
            while len(course.losses) < settings.epochs and len(course.losses) - course.best_epoch < PATIENCE:
                _epoch(tuned, trained, head, data, ~held, optimiser, generator, bar)
                loss = _validation_loss(tuned, head, data, held)
                if loss < min(course.losses, default=np.inf):
                    best = {name: parameter.detach().clone() for name, parameter in trained.items()}
                    course.best, course.best_epoch = best, len(course.losses) + 1
                course.losses.append(loss)
                bar.set_postfix(epoch=len(course.losses), best=course.best_epoch, loss=f"{loss:.3f}")
    except KeyboardInterrupt:
        course.interrupted = True
        best_so_far = f"the best so far, epoch {course.best_epoch}," if course.best_epoch else "the encoder as given"
        text = f"fine_tune: interrupted after {len(course.losses)} of {settings.epochs} epochs; {best_so_far} is kept."
        warnings.warn(text, UserWarning, stacklevel=5)
    with torch.no_grad():
        for name, value in course.best.items():
            trained[name].copy_(value)


def _epoch(
    tuned: nn.Module,
    trained: dict[str, nn.Parameter],
    head: nn.Module,
    data: Labelled,
    rest: Any,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    bar: Any,
) -> None:
    """Draw as many examples as there are to train on, each group as likely as any other, and take a step a batch."""
    rows = torch.from_numpy(np.flatnonzero(rest))
    weights = torch.from_numpy(group_weights(data.codes[rest]))
    drawn = rows[torch.multinomial(weights, len(rows), replacement=True, generator=generator)]
    labels = torch.from_numpy(data.labels)
    for batch in torch.split(drawn, BATCH):
        x = like_weights(_rolled(data.x[batch.to(data.x.device)], generator), tuned)
        loss = functional.cross_entropy(head(tuned(x)), labels[batch].to(x.device))
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if all(parameter.grad is None for parameter in trained.values()):
            got, remedy = "none in the encoder's parameters", "take torch.no_grad() out of its forward"
            refuse("encoder", "gradients of the loss", got, remedy, EncoderError)
        nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimiser.step()
        bar.update()


def _rolled(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each example of ``(n, 1, T, F)`` in time, cyclically, by up to an eighth of its length."""
    frames = x.shape[-2]
    most = round(frames * ROLL)
    shift = torch.randint(-most, most + 1, (len(x), 1), generator=generator)
    at = ((torch.arange(frames) - shift) % frames).to(x.device)
    return x.gather(2, at[:, None, :, None].expand_as(x))


@torch.no_grad()
def _validation_loss(tuned: nn.Module, head: nn.Module, data: Labelled, held: Any) -> float:
    """Log loss of encoder and head on the held-out examples, each group weighing the same."""
    modes = [(part, part.training) for part in tuned.modules()]
    rows = torch.from_numpy(np.flatnonzero(held))
    losses = []
    try:
        for part, _ in modes:
            part.training = False
        for batch in torch.split(rows, MICRO_BATCH):
            x = like_weights(data.x[batch.to(data.x.device)], tuned)
            y = torch.from_numpy(data.labels)[batch].to(x.device)
            losses.append(functional.cross_entropy(head(tuned(x)), y, reduction="none").double().cpu())
    finally:
        for part, mode in modes:
            part.training = mode
    return float(np.average(torch.cat(losses).numpy(), weights=group_weights(data.codes[held])))


def _accuracy(weight: Floats, bias: Floats, h: Floats, data: Labelled, held: Any) -> float:
    """Share of right held-out examples, each group weighing the same."""
    right = (h[held] @ weight.T + bias).argmax(1) == data.labels[held]
    return float(np.average(right, weights=group_weights(data.codes[held])))
