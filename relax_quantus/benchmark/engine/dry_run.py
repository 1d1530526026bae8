"""Forecast what a run would cost here: cells, encoder forwards, time and memory.

A `BenchmarkConfig` enters, a `Forecast` leaves. Data and encoders are loaded and laid out as for
the run itself, and a few forwards of each encoder are timed; nothing is explained, and nothing is
written.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.engine.grid import reuse
from relax_quantus.benchmark.engine.resources import Resources, threads
from relax_quantus.benchmark.engine.runner import RunLayout, layout_of
from relax_quantus.benchmark.engine.store import FILE, Store
from relax_quantus.benchmark.engine.workers import threads_of

TIMED = 3
SECONDS_A_CELL = 0.01
"""What a metric costs beside the encoder, roughly."""


@dataclass(frozen=True)
class Forecast:
    """A forecast of what a run would cost.

    Attributes
    ----------
    cells, done
        Cells of the grid, and how many of them the results' folder already has.
    anew
        Cells that it has of another version or other settings, by what has changed.
    maps
        Maps to make, not counting those that metrics make anew.
    forwards
        Encoder forwards, of single examples, at most.
    seconds, preparation_s
        Of all that in one worker, and of loading the data and fitting the heads, in every worker.
    workers, threads
        Asked for; seconds are for so many threads a worker.
    bytes_a_worker
        Memory of one process, or None where it is not known.
    datasets, encoders, clips
        How many.
    """

    cells: int
    done: int
    maps: int
    forwards: int
    seconds: float
    preparation_s: float
    workers: int
    threads: int
    bytes_a_worker: int | None
    datasets: int
    encoders: int
    clips: int
    anew: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Put the forecast into sentences."""
        wall = self.preparation_s + self.seconds / self.workers
        text = [
            f"{_count(self.datasets, 'data set')}, {_count(self.encoders, 'encoder')}, {_count(self.clips, 'clip')}",
            f"{self.cells} cells, of which {self.done} are finished already",
            *([reuse(self.cells, self.done, self.anew)] if self.anew else []),
            f"{self.maps} maps; at most {self.forwards:,} encoder forwards, those of the metrics included",
            f"about {span(self.preparation_s + self.seconds)} in one worker of {_count(self.threads, 'thread')}",
        ]
        if self.workers > 1:
            text.append(f"about {span(wall)} in {self.workers} such workers, if there are as many cores")
        if self.bytes_a_worker:
            total = self.bytes_a_worker * (self.workers + (self.workers > 1))
            text.append(
                f"memory: about {self.bytes_a_worker / 2**30:.1f} GiB a process, {total / 2**30:.1f} GiB in all"
            )
        return text


def forecast(config: BenchmarkConfig) -> Forecast:
    """Lay out a run and say what it would cost on this machine."""
    config = config.resolved()
    count = threads_of(config)
    folder = config.out if config.out is not None and (Path(config.out) / FILE).is_file() else None
    with Store(folder) as store, threads(count):
        started = time.perf_counter()
        layout = layout_of(config, Resources(config), store)
        places = {place.key for place in layout.grid.places}
        anew = layout.grid.anew(store)
        done = places & store.keys(with_lost=not (config.retry or config.strict))
        seconds = {name: _seconds_a_forward(layout.resources.encoder(name)[0], layout) for name in layout.encoders}
        preparation_s = time.perf_counter() - started
    maps, forwards = costs(layout, done)
    heads = {spec: len(data.training.x) + len(data.held_out.x) for spec, data in layout.datasets.items()}
    fitting_s = sum(seconds[encoder] * n for n in heads.values() for encoder in seconds)
    todo = len(places) - len(done)
    return Forecast(
        cells=len(places),
        done=len(done),
        maps=maps,
        forwards=sum(forwards.values()),
        seconds=sum(seconds[encoder] * n for encoder, n in forwards.items()) + SECONDS_A_CELL * todo,
        preparation_s=preparation_s + fitting_s,
        workers=config.workers,
        threads=count,
        bytes_a_worker=_bytes(),
        datasets=len(layout.datasets),
        encoders=len(layout.encoders),
        clips=sum(len(data.clips) for data in layout.datasets.values()),
        anew=anew,
    )


def costs(layout: RunLayout, done: set[str]) -> tuple[int, Counter[str]]:
    """Count the maps to make, and the forwards by encoder, of cells that are not `done`."""
    config = layout.config
    methods, metrics = {m.name: m for m in layout.methods}, {m.name: m for m in layout.metrics}
    made, forwards = set[tuple[object, ...]](), Counter[str]()
    for p in layout.grid.places:
        if p.key in done:
            continue
        method, metric = methods[p.method], metrics[p.metric]
        n = config.reexplain_samples if metric.reexplains else config.n_samples
        one = (p.dataset, p.encoder, p.seed, p.clip, p.method, metric.question, n)
        again = metric.explanations(config.perturbations)
        forwards[p.encoder] += metric.forwards + again * method.forwards(n)
        if one not in made:
            made.add(one)
            forwards[p.encoder] += method.forwards(n)
    return len(made), forwards


@torch.no_grad()
def _seconds_a_forward(encoder: nn.Module, layout: RunLayout) -> float:
    """Time the forward of one example among as many as go through together."""
    clip = next(iter(layout.datasets.values())).clips[0]
    rows = max(n for n in layout.grid.micro_batches.values() if n is not None)
    x = clip.x[None].repeat(rows, 1, 1, 1)
    encoder(x)
    times = []
    for _ in range(TIMED):
        started = time.perf_counter()
        encoder(x)
        times.append(time.perf_counter() - started)
    return min(times) / rows


def _bytes() -> int | None:
    """Return the most memory that this process has held, if it is known."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def span(seconds: float) -> str:
    """Put a duration into words.

    Examples
    --------
    >>> span(42.4), span(600), span(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
