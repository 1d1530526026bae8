"""Train a copy of an encoder and a linear head until a validation loss stops falling.

Examples with labels and groups, a mask of those to validate on and a copied encoder enter; the copy
leaves at its best epoch, with the course of the training. Used by
`relax_quantus.heads.fine_tuning`. The given encoder and the global random generators are left as
they were.
"""

from __future__ import annotations

import copy
import difflib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from relax_quantus.base.checks import message, refuse
from relax_quantus.base.networks import MICRO_BATCH, callers_torch, like_weights
from relax_quantus.base.progress import Progress, progress_bar
from relax_quantus.errors import EncoderError
from relax_quantus.heads.holding_out import Labelled, group_weights
from relax_quantus.heads.logistic import Floats

LEARNING_RATE, HEAD_LEARNING_RATE, WEIGHT_DECAY = 1e-4, 1e-3, 0.01
BATCH = 32
PATIENCE = 5
"""Epochs without a smaller validation loss after which training stops."""
ROLL = 1 / 8
"""Largest cyclic shift in time of a training example, as a share of its length."""


@dataclass(frozen=True)
class Settings:
    """Settings that the caller of `EmbeddingClassifier.fit` chose; see there."""

    epochs: int
    freeze: Sequence[str] | None = None
    learning_rate: float = LEARNING_RATE
    seed: int | None = 0
    show_progress: bool | Progress = False


@dataclass
class Course:
    """The course of a training so far; it is read also when the training was interrupted."""

    losses: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    interrupted: bool = False


def trainee(encoder: Any, freeze: Sequence[str] | None) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """Copy the encoder; return the copy and, by name, the parameters that are to be trained."""
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
def training(tuned: nn.Module, trained: dict[str, nn.Parameter], seed: int) -> Iterator[None]:
    """Put the copy into training mode and give modes, flags and generators back afterwards.

    Frozen parts and normalisations with running statistics stay in eval mode: a few small batches
    would spoil the statistics. Dropout draws from the global generators, which are seeded inside a
    fork.
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


class StandardisedHead(nn.Module):
    """The fitted logistic head on standardised embeddings.

    One learning rate so suits embeddings of any scale.
    """

    def __init__(self, h: Floats, weights: Floats, weight: Floats, bias: Floats) -> None:
        super().__init__()
        mean = np.average(h, axis=0, weights=weights)
        scale = np.sqrt(np.average((h - mean) ** 2, axis=0, weights=weights))
        scale[scale < 1e-6 * max(float(scale.max()), 1e-12)] = 1.0
        self.mean, self.scale = nn.Buffer(torch.from_numpy(mean)), nn.Buffer(torch.from_numpy(scale))
        self.weight = nn.Parameter(torch.from_numpy(weight * scale))
        self.bias = nn.Parameter(torch.from_numpy(bias + weight @ mean))

    def forward(self, h: Tensor) -> Tensor:
        """Return logits ``(n, classes)`` of embeddings ``(n, D)``."""
        return functional.linear((h - self.mean) / self.scale, self.weight, self.bias)


def train(
    tuned: nn.Module,
    trained: dict[str, nn.Parameter],
    head: nn.Module,
    data: Labelled,
    held: Any,
    settings: Settings,
    generator: torch.Generator,
    course: Course,
) -> None:
    """Train in place until epochs, patience or Ctrl-C end it; put the best epoch's weights back."""
    optimiser = torch.optim.AdamW(
        [
            {"params": list(trained.values()), "lr": settings.learning_rate},
            {"params": list(head.parameters()), "lr": HEAD_LEARNING_RATE},
        ],
        weight_decay=WEIGHT_DECAY,
    )
    steps = -(-int((~held).sum()) // BATCH)
    try:
        with progress_bar(settings.show_progress, settings.epochs * steps, "fine-tune", "batch") as bar:
            while len(course.losses) < settings.epochs and len(course.losses) - course.best_epoch < PATIENCE:
                _epoch(tuned, trained, head, data, ~held, optimiser, generator, bar)
                loss = _validation_loss(tuned, head, data, held)
                if loss < min(course.losses, default=np.inf):
                    best = {name: parameter.detach().clone() for name, parameter in trained.items()}
                    course.best, course.best_epoch = best, len(course.losses) + 1
                course.losses.append(loss)
                if hasattr(bar, "set_postfix"):
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
    """Train for one epoch: as many draws as there are examples, each group equally likely.

    One step is taken a batch.
    """
    rows = torch.from_numpy(np.flatnonzero(rest))
    weights = torch.from_numpy(group_weights(data.codes[rest]))
    drawn = rows[torch.multinomial(weights, len(rows), replacement=True, generator=generator)]
    labels = torch.from_numpy(data.labels)
    for batch in torch.split(drawn, BATCH):
        x = like_weights(_rolled(data.x[batch.to(data.x.device)], generator), tuned)
        loss = functional.cross_entropy(head(_run(tuned, x)), labels[batch].to(x.device))
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if all(parameter.grad is None for parameter in trained.values()):
            got, remedy = "none in the encoder's parameters", "take torch.no_grad() out of its forward"
            refuse("encoder", "gradients of the loss", got, remedy, EncoderError)
        nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimiser.step()
        bar.update()


def _run(tuned: nn.Module, x: Tensor) -> Tensor:
    """Run the encoder, which is the caller's, as the caller has torch."""
    with callers_torch(gradients=True):
        h: Tensor = tuned(x)
    return h


def _rolled(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift examples ``(n, 1, T, F)`` or ``(n, samples)`` cyclically in time, by up to `ROLL`."""
    frames = x.shape[1] if x.ndim == 2 else x.shape[-2]
    most = round(frames * ROLL)
    shift = torch.randint(-most, most + 1, (len(x), 1), generator=generator)
    at = ((torch.arange(frames) - shift) % frames).to(x.device)
    if x.ndim == 2:
        return x.gather(1, at)
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
            losses.append(functional.cross_entropy(head(_run(tuned, x)), y, reduction="none").double().cpu())
    finally:
        for part, mode in modes:
            part.training = mode
    return float(np.average(torch.cat(losses).numpy(), weights=group_weights(data.codes[held])))
