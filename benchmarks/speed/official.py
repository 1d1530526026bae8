"""Measure how many times faster than relax_xai RELAX is: the section "official".

The number of masks, the encoder and the fill (zero) are the same; all in one process.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from benchmarks.speed import official_package
from benchmarks.speed.explainers import BFLOAT16, FLOAT32, attribution, plan
from benchmarks.speed.networks import Network, load_clips, network
from benchmarks.speed.rounds import Arm, interleave
from benchmarks.speed.rows import Aim, Row
from benchmarks.speed.settings import HEAVY, Settings

SECTION = "official"
QUANTITY = "time of relax_xai over time of attribute, per mask, the same number of masks"
AIMS = {
    ("vggish_mini", FLOAT32): Aim("at least", 1.0),
    ("vggish", FLOAT32): Aim("at least", 1.0),
    ("vggish", BFLOAT16): Aim("at least", 2.0),
    ("plain", FLOAT32): Aim("at least", 3.0),
}


def official(settings: Settings) -> Iterator[Row]:
    """Yield one row an encoder, strategy, estimator and precision.

    relax_xai is in the middle of each round.
    """
    x = load_clips(settings, 1)
    for name in settings.encoders:
        loaded = network(name, settings)
        n_samples = official_package.masks_of(settings.n(name))
        masks = settings.masks[:1] if name in HEAVY else settings.masks
        arms = [our_arm(loaded, x, n_samples, m, e, FLOAT32) for e in settings.estimators for m in masks]
        arms += [our_arm(loaded, x, n_samples, masks[0], e, BFLOAT16) for e in settings.estimators]
        middle = len(arms) // 2
        arms.insert(middle, official_arm(loaded, x, n_samples))
        rounds = interleave(arms, settings.rounds(name), settings.device, f"{SECTION}, {name}")
        for index in range(len(arms)):
            if index != middle:
                row = rounds.row(SECTION, QUANTITY, index, middle, faster=True)
                way = (row.labels["masks"], row.labels["estimator"], row.labels["precision"])
                row.details.update(masks=n_samples, note=loaded.note, plan=plan(loaded.model, x, n_samples, *way))
                yield row


def official_arm(loaded: Network, x: Tensor, n_samples: int) -> Arm:
    """Return an arm of relax_xai with its defaults."""
    return Arm({"peer": "relax_xai"}, lambda: official_package.explain(loaded.model, x, n_samples), n_samples)


def our_arm(loaded: Network, x: Tensor, n_samples: int, masks: str, estimator: str, precision: str) -> Arm:
    """Return an arm of one way of this package."""
    labels = {"encoder": loaded.name, "masks": masks, "estimator": estimator, "precision": precision}
    run = attribution(loaded.model, x, n_samples, masks, estimator, precision)
    return Arm(labels, run, n_samples, aim=AIMS.get((loaded.name, precision)))
