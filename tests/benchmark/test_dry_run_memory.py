"""What the dry run prints of memory: of one process, and
of the workers and the one that stores what they find.
"""

from __future__ import annotations

import pytest

from relax_quantus.benchmark.engine.dry_run import Forecast


@pytest.mark.parametrize(("workers", "in_all"), [(1, "1.5"), (2, "4.5"), (7, "12.0")])
def test_the_printed_memory_counts_every_process(workers: int, in_all: str) -> None:
    guess = Forecast(10, 0, 5, 100, 20.0, 10.0, workers, 1, 3 * 2**29, 1, 1, 2)
    assert guess.lines()[-1] == f"memory: about 1.5 GiB a process, {in_all} GiB in all"
