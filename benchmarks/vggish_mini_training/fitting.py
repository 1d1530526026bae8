"""Fit a `VGGishMini` to recordings, in one seeded run.

Third step of the training flow. Every batch is drawn anew: calls around loud moments, two of them
mixed, sent through random recording chains, turned into log-mel examples and partly replaced by
silence. A share of each batch holds no call at all (quiet parts of any clip, coloured noise,
digital silence) and has a class of its own, "nothing": so the background cannot stand for the
animal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from benchmarks.vggish_mini_training.chain import ChainConfig, coloured_noise, happens, record
from benchmarks.vggish_mini_training.recordings import EXAMPLE, Excerpts, Recordings
from relax_quantus.encoders.vggish_mini import VGGishMini, fold
from relax_quantus.frontend.log_mel import LogMel

SILENCE = LogMel().config.silence


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides data and seed; fractions are of a batch."""

    steps: int = 400
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    dropout: float = 0.3
    nothing: float = 0.15
    mix: float = 0.3
    cells: float = 0.15
    chain: ChainConfig = field(default_factory=ChainConfig)

    def as_dict(self) -> dict[str, object]:
        """Return plain values for the manifest."""
        return asdict(self)


def draw_batch(
    excerpts: Excerpts, classes: int, recipe: Recipe, front_end: LogMel, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one batch: examples (batch, 1, 96, 64) and soft targets (batch, classes + 1).

    The last class is "nothing".
    """
    nothing = round(recipe.nothing * recipe.batch)
    n = recipe.batch - nothing
    wave, label = excerpts.calls(n, generator)
    target = functional.one_hot(label, classes + 1).float()
    peaks = wave.abs().amax(-1, keepdim=True).clamp_min(1e-6)
    share = 0.5 * torch.rand(n, 1, generator=generator) * happens(recipe.mix, n, generator)
    other = torch.randperm(n, generator=generator)
    wave = (1 - share) * wave / peaks + share * (wave / peaks)[other]
    target = (1 - share) * target + share * target[other]
    empty = excerpts.quiet(nothing, generator)
    empty[: nothing // 4] = coloured_noise(nothing // 4, EXAMPLE, generator)
    quiet_level = 10 ** (-2.0 * torch.rand(nothing, 1, generator=generator))
    wave = record(torch.cat([wave, empty]), excerpts.quiet(recipe.batch, generator), generator, recipe.chain)
    wave[n:] *= quiet_level
    wave[-1:] = 0.0
    nowhere = functional.one_hot(torch.full((nothing,), classes), classes + 1).float()
    return mask(front_end(wave), recipe.cells, generator), torch.cat([target, nowhere])


def mask(x: Tensor, cells: float, generator: torch.Generator) -> Tensor:
    """Replace parts of examples (n, 1, 96, 64) by silence.

    Up to two time and two frequency stripes, or random smooth cells as RELAX does.
    """
    n = x.shape[0]
    keep = stripes(n, 96, 2, 20, generator)[:, :, None] * stripes(n, 64, 2, 12, generator)[:, None, :]
    probability = 0.4 + 0.6 * torch.rand(n, 1, 1, generator=generator)
    coarse = (torch.rand(n, 8, 8, generator=generator) < probability).float()
    smooth = functional.interpolate(coarse[:, None], (96, 64), mode="bilinear", align_corners=False)[:, 0]
    keep = torch.where(happens(cells, n, generator)[:, :, None], smooth, keep)
    return SILENCE + keep[:, None] * (x - SILENCE)


def stripes(n: int, length: int, count: int, widest: int, generator: torch.Generator) -> Tensor:
    """Draw (n, length) of ones with up to `count` stripes of zeros, each 0 to `widest` wide."""
    keep = torch.ones(n, length)
    for _ in range(count):
        width = torch.randint(0, widest + 1, (n, 1), generator=generator)
        start = torch.randint(0, length, (n, 1), generator=generator)
        at = torch.arange(length)
        keep = keep * ~((at >= start) & (at < start + width))
    return keep


def fit_encoder(recordings: Recordings, recipe: Recipe, seed: int, progress: bool = True) -> VGGishMini:
    """Train an encoder and fold its batch normalisation.

    The same seed and thread count give the same weights. The global generator, which initialises
    the network and drives dropout, is seeded inside a fork and left as it was found.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: VGGishMini = VGGishMini(batch_norm=True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fit_in_place(model, recordings, recipe, seed, progress)
    return fold(model)


def fit_network(
    make: Callable[[], nn.Module], recordings: Recordings, recipe: Recipe, seed: int, progress: bool = True
) -> nn.Module:
    """Train another network with an ``embedding_size`` by the same recipe as `fit_encoder`.

    It is seeded as there, too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        fit_in_place(model, recordings, recipe, seed, progress)
    return model.eval()


def fit_in_place(model: nn.Module, recordings: Recordings, recipe: Recipe, seed: int, progress: bool) -> None:
    """Train `model` with a linear head of one class more than the recordings have."""
    generator = torch.Generator().manual_seed(seed)
    classes = len(recordings.class_names)
    head = nn.Linear(int(model.embedding_size), classes + 1)  # type: ignore[arg-type]
    run(model.train(), head, Excerpts(recordings, generator), classes, recipe, generator, progress)


def run(
    model: nn.Module,
    head: nn.Module,
    excerpts: Excerpts,
    classes: int,
    recipe: Recipe,
    generator: torch.Generator,
    progress: bool,
) -> None:
    """Optimise model and head in place: AdamW under one cycle of the learning rate."""
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.15
    )
    front_end = LogMel()
    bar = tqdm(range(recipe.steps), desc="train", unit="step", mininterval=2.0, disable=not progress)
    for step in bar:
        with torch.no_grad():
            x, target = draw_batch(excerpts, classes, recipe, front_end, generator)
        h = functional.dropout(model(x.to(memory_format=torch.channels_last)), recipe.dropout)
        loss = functional.cross_entropy(head(h), target)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        if step % 10 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
