"""Section "overhead": `RELAX.attribute` over the same number of forwards alone.

The forwards alone are the fastest that a scan of micro-batches and memory formats finds in the same
run, on rows that lie ready, in inference mode, embeddings dropped. "First call" is a call on an
encoder never seen before, whatever the package tunes or prepares included.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor, nn

from benchmarks.speed.explainers import attribution, plan
from benchmarks.speed.networks import Floor, Network, best_floor, load_clips, network
from benchmarks.speed.rounds import Arm, interleave
from benchmarks.speed.rows import Aim, Row
from benchmarks.speed.settings import Settings

SECTION = "overhead"
QUANTITY = "time of attribute over time of the same number of forwards alone"
AIMS = {"cpu": {"vggish_mini": Aim("at most", 1.10), "vggish": Aim("at most", 1.03)}}
AIMS["cuda"] = {"vggish": Aim("at most", 1.15)}


def overhead(settings: Settings) -> Iterator[Row]:
    """Yield one row an encoder, number of clips, strategy and estimator."""
    clips = load_clips(settings, settings.batch)
    for name in settings.encoders:
        loaded = network(name, settings)
        floors = {"as it is": best_floor(loaded.model, clips, settings.n(name), settings.device)}
        if loaded.folded is not None:
            floors["folded by hand"] = best_floor(loaded.folded, clips, settings.n(name), settings.device)
        for count in dict.fromkeys((1, settings.batch)):
            yield from measured(settings, loaded, floors, clips[:count])


def measured(settings: Settings, loaded: Network, floors: dict[str, Floor], x: Tensor) -> Iterator[Row]:
    """Time all strategies and estimators on one number of clips.

    The forwards alone are in the middle of each round.
    """
    n_samples = max(1, settings.n(loaded.name) // len(x))
    forwards = n_samples * len(x)
    arms = [
        our_arm(settings, loaded, x, n_samples, masks, estimator)
        for estimator in settings.estimators
        for masks in settings.masks
    ]
    if len(x) == 1:
        arms.append(first_call(settings, loaded, x, n_samples))
    middle = len(arms) // 2
    base = [Arm({"floor": name}, floor.arm(forwards), forwards) for name, floor in floors.items()]
    rounds = interleave(
        arms[:middle] + base + arms[middle:],
        settings.rounds(loaded.name),
        settings.device,
        f"{SECTION}, {loaded.name}, {len(x)} clips",
    )
    for index, (floor, scanned) in enumerate(floors.items()):
        for arm in range(len(rounds.arms)):
            if not middle <= arm < middle + len(base):
                row = rounds.row(SECTION, QUANTITY, arm, middle + index)
                chosen = plan(loaded.model, x, n_samples, row.labels["masks"], row.labels["estimator"])
                details = {"masks": n_samples, "note": loaded.note, "plan": chosen, "floor": scanned.describe()}
                labels = row.labels | {"forwards alone": floor}
                yield replace(row, labels=labels, aim=None if index else row.aim, details=row.details | details)


def our_arm(settings: Settings, loaded: Network, x: Tensor, n_samples: int, masks: str, estimator: str) -> Arm:
    """Return an arm of one strategy and estimator, warm."""
    labels = {"encoder": loaded.name, "clips": str(len(x)), "masks": masks, "estimator": estimator, "call": "warm"}
    aim = AIMS[settings.device.split(":")[0]].get(loaded.name)
    return Arm(labels, attribution(loaded.model, x, n_samples, masks, estimator), n_samples * len(x), aim=aim)


def first_call(settings: Settings, loaded: Network, x: Tensor, n_samples: int) -> Arm:
    """Return an arm of the first strategy on a copy of the encoder, new in every round."""
    masks, estimator = settings.masks[0], settings.estimators[0]
    fresh: list[nn.Module] = []

    def renew() -> None:
        fresh[:] = [copy.deepcopy(loaded.model)]

    def run() -> Tensor:
        return attribution(fresh[0], x, n_samples, masks, estimator)()

    labels = {"encoder": loaded.name, "clips": str(len(x)), "masks": masks, "estimator": estimator, "call": "first"}
    return Arm(labels, run, n_samples * len(x), renew)
