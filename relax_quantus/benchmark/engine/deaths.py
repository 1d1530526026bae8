"""Which cell was under way when a process died, counted over the runs of one store.

With one worker, a cell that makes the system kill its process takes the run with it, and the same command would end there again and again. So what
stores a finished cell also notes, in the same transaction, which cell is begun next; whatever ends within Python, an interrupt or an error, takes
that back. A note that a run finds when it begins tells of a death. Units enter, in the order in which they are computed; the batches of their
computation leave, with those notes, and rows of the cells that are given up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

from relax_quantus.benchmark.engine.cells import Unit
from relax_quantus.benchmark.engine.store import Store
from relax_quantus.benchmark.engine.workers import Batch, Lost

UNDER_WAY, DEATHS = "under_way", "deaths"
GIVEN_UP_AFTER = 3
"""Deaths in one cell: who kills a healthy run by hand may meet the same long cell twice."""
REASON = f"the process died {GIVEN_UP_AFTER} times while this was computed (killed, perhaps for memory)"


def noted(
    store: Store, units: list[Unit], lost: Lost, compute: Callable[[list[Unit]], Iterator[Batch]]
) -> Generator[Batch, None, None]:
    """The batches of `compute`, each with the note of the cell that is begun once it is stored. To be closed before the store is.

    Parameters
    ----------
    store
        Where the batches are put, each before the next is asked for.
    units
        What to do.
    lost
        Makes the rows of cells that are given up, from a status and a reason.
    compute
        Computes the cells of units in their order.
    """
    deaths = counted(store)
    units, hopeless = parted(units, {key for key, times in deaths.items() if times >= GIVEN_UP_AFTER})
    for unit in hopeless:
        for _, _, key in unit.todo:
            del deaths[key]  # another try begins anew
        yield lost(unit, "failed", REASON), {DEATHS: deaths}
    following = iter([key for unit in units for _, _, key in unit.todo][1:])
    try:
        if units:
            store.put([], {UNDER_WAY: units[0].todo[0][2]})
        for cells, notes in compute(units):
            begun = [next(following, None) for _ in cells]
            yield cells, {**notes, UNDER_WAY: begun[-1]}
    finally:
        if store.note(UNDER_WAY) is not None:
            store.put([], {UNDER_WAY: None})


def counted(store: Store) -> dict[str, int]:
    """Deaths by the key of the cell that was under way, with the one that the store tells of."""
    deaths: dict[str, int] = store.note(DEATHS, {})
    key = store.note(UNDER_WAY)
    if key is not None:
        deaths[key] = deaths.get(key, 0) + 1
        store.put([], {DEATHS: deaths, UNDER_WAY: None})
    return deaths


def parted(units: list[Unit], hopeless: set[str]) -> tuple[list[Unit], list[Unit]]:
    """Units without the hopeless cells, and units of these alone."""
    parts: tuple[list[Unit], list[Unit]] = [], []
    for unit in units:
        for part, wanted in zip(parts, (False, True), strict=True):
            todo = tuple(entry for entry in unit.todo if (entry[2] in hopeless) == wanted)
            if todo:
                part.append(unit if todo == unit.todo else replace(unit, todo=todo))
    return parts
