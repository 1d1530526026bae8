"""Arms timed in turn: A B C, C B A, A B C, ...

Named callables enter, their times round by round leave. Every arm runs once a round, and every
second round in reverse, so that slow drifts of the machine fall on all arms alike; a ratio is taken
within a round. An arm that raises in its untimed first run is left out, with the reason.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from tqdm.auto import tqdm

from benchmarks.speed.rows import FAILED, SKIPPED, Aim, Row, ratios


class NotAvailableError(Exception):
    """An arm cannot run; the message says what it lacks."""


@dataclass(frozen=True)
class Arm:
    """Something to time.

    Parameters
    ----------
    labels
        What it is, in a table's columns.
    run
        What is timed.
    forwards
        Encoder forwards of one run; 1 to compare whole runs.
    prepare
        Called before each run, untimed.
    aim
        For its ratio to the base.
    """

    labels: dict[str, str]
    run: Callable[[], object]
    forwards: int = 1
    prepare: Callable[[], object] | None = None
    aim: Aim | None = None


@dataclass
class Rounds:
    """Times of arms, ``seconds[arm's index]`` one a round, and why some have none."""

    arms: Sequence[Arm]
    seconds: dict[int, list[float]] = field(default_factory=dict)
    refused: dict[int, tuple[str, str]] = field(default_factory=dict)

    def row(self, section: str, quantity: str, arm: int, base: int, faster: bool = False) -> Row:
        """Return the ratio of an arm to the base, or with `faster` of the base to the arm."""
        mine = self.arms[arm]
        for index in (arm, base):
            if index in self.refused:
                status, reason = self.refused[index]
                return Row(section, quantity, mine.labels, aim=mine.aim, status=status, reason=reason)
        top, bottom = (base, arm) if faster else (arm, base)
        forwards = self.arms[top].forwards, self.arms[bottom].forwards
        return Row(
            section,
            quantity,
            mine.labels,
            ratios(self.seconds[top], self.seconds[bottom], forwards),
            tuple(self.seconds[arm]),
            tuple(self.seconds[base]),
            mine.aim,
            details={"forwards": mine.forwards, "base_forwards": self.arms[base].forwards},
        )


def timed(arm: Arm, device: str = "cpu") -> float:
    """Time one run in seconds, with the device idle before and after."""
    if arm.prepare is not None:
        arm.prepare()
    synchronize(device)
    start = time.perf_counter()
    arm.run()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait for a GPU's queue; nothing on a CPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def interleave(arms: Sequence[Arm], repeats: int, device: str = "cpu", title: str = "") -> Rounds:
    """Run every arm once untimed, then `repeats` rounds of those that worked."""
    rounds = Rounds(arms)
    with tqdm(total=len(arms) * (1 + repeats), desc=title, unit="run", leave=False) as bar:
        for index, arm in enumerate(arms):
            try:
                timed(arm, device)
                rounds.seconds[index] = []
            except NotAvailableError as missing:
                rounds.refused[index] = SKIPPED, str(missing)
            except Exception as error:  # a cell that fails is a row with its reason
                rounds.refused[index] = FAILED, f"{type(error).__name__}: {error}"
            bar.update()
        order = list(rounds.seconds)
        bar.total = len(arms) + repeats * len(order)
        gc.collect()
        gc.freeze()  # so that the collection before each run has little to look at
        try:
            for _ in range(repeats):
                for index in order:
                    gc.collect()
                    rounds.seconds[index].append(timed(arms[index], device))
                    bar.update()
                order.reverse()
        finally:
            gc.unfreeze()
    return rounds
