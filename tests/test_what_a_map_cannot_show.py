"""The page on what a map cannot show says what its own
examples print, and what they print is what the theory says.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "concepts" / "what_a_map_cannot_show.md"
CELL = re.compile(r"```\{code-cell\} ipython3\n(.*?)```", re.DOTALL)
DECIMAL = re.compile(r"(?<![\d.])[-−]?\d*\.\d+")
SHARES = re.compile(r"\d+(?= %)|\d+(?= to \d+ %)")


@pytest.fixture(scope="module")
def text() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def prose(text: str) -> str:
    return re.sub(r"`[^`]*`|\]\([^)]*\)", " ", CELL.sub("", text.split("---\n", 2)[2]))


@pytest.fixture(scope="module")
def printed(text: str) -> str:
    said, threads, names = io.StringIO(), torch.get_num_threads(), {}
    with contextlib.redirect_stdout(said):
        for cell in CELL.findall(text):
            exec("\n".join(line for line in cell.splitlines() if not line.startswith(":tags:")), names)
    torch.set_num_threads(threads)
    return said.getvalue()


def decimals(text: str) -> set[float]:
    return {float(number.replace("−", "-")) for number in DECIMAL.findall(text)}


def test_every_number_of_the_prose_is_printed_by_an_example(prose: str, printed: str) -> None:
    assert len(decimals(prose)) >= 10
    assert decimals(prose) <= decimals(printed)
    own, published = prose.split("On 22 recordings")
    shares = {int(x) for x in SHARES.findall(own)}
    assert len(shares) >= 6
    assert shares <= {int(x) for x in re.findall(r"(\d+) %", printed)}
    rows = pd.read_parquet(ROOT / "benchmarks" / "results" / "signs" / "results.parquet")
    rows = rows[(rows.metric == "MassAccuracy-region-absolute") & (rows.status == "ok") & (rows.twin_of == "")]
    means = 100 * rows[rows.masks != ""].groupby("method").value.mean()
    assert [int(x) for x in SHARES.findall(published)] == [round(means.min()), round(means.max())]
    assert rows.source_group.nunique() == 22


def test_the_examples_give_what_follows_from_the_masks(printed: str) -> None:
    together, noise = re.search(r"exclusive-or: (\S+) and (\S+) at", printed), 0.5 / 20_000**0.5
    assert together is not None
    assert all(abs(float(x)) < 4 * noise for x in together.groups())
    found = [float(x) for x in re.findall(r"suffices: (\S+) at the first", printed)]
    assert found == pytest.approx([0.5**n for n in (1, 2, 3, 4)], abs=0.02)
    assert re.findall(r"first alone (\S+)", printed) == ["0.00", "1.00", "1.00", "1.00"]
    few = re.search(r"keep a fifth: (\S+)", printed)
    assert few is not None
    assert float(few[1]) == pytest.approx(0.8**4, abs=0.02)
