"""What docs/which_masking.md and README.md say in numbers is what the published statistics say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.answer.__main__ import RESULTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "which_masking.md").read_text(encoding="utf-8")
NUMBER = r"[-−]?\d*\.\d+"
ESTIMATE = re.compile(rf"({NUMBER}) \[({NUMBER}), ({NUMBER})\]")
TABLES = {
    "## Strategies and fills on recordings": ("recordings", "gain_embedding", 9),
    "## Soundscapes": ("soundscapes", "gain_embedding", 9),
    "## Maps of the class logit": ("logit", "gain_logit", 9),
    "## Settings of the masks": ("variants", "gain_embedding", 5),
}
NAMES = {"paper's estimator": "paper", "smooth edges": "smooth", "keep .5": "0.5", "keep .3": "0.3", "keep .7": "0.7"}


def endpoint(folder: str, key: str) -> dict:
    found = json.loads((RESULTS / folder / "statistics.json").read_text(encoding="utf-8"))["endpoints"]
    return next(e for e in found if e["key"] == key)


def read(text: str) -> float:
    return float(text.replace("−", "-"))


def section(heading: str) -> str:
    return re.split(r"\n#{2,3} ", PAGE.split(heading + "\n")[1])[0]


def compared(folder: str, key: str, minus_twins: bool = False) -> dict[tuple[str, str], dict]:
    """Every comparison over all fills, both ways round."""
    made: dict[tuple[str, str], dict] = {}
    for family in endpoint(folder, key)["families"]:
        if ", fill" not in family["name"] and family["name"].endswith(", minus twins") == minus_twins:
            for c in family["comparisons"]:
                a, b, d = c["a"].replace("RELAX-", ""), c["b"].replace("RELAX-", ""), c["difference"]
                there = {**c, "told": (d["value"], d["low"], d["high"])}
                made |= {(a, b): there, (b, a): {**c, "told": (-d["value"], -d["high"], -d["low"])}}
    return made


@pytest.mark.parametrize("heading", TABLES)
def test_a_table_of_differences_holds_what_the_statistics_hold(heading: str) -> None:
    folder, key, rows = TABLES[heading]
    known, before, told = compared(folder, key), compared(folder, key, minus_twins=True), 0
    for line in section(heading).splitlines():
        cells = [cell.strip(" *") for cell in line.split("|")[1:-1]]
        if len(cells) < 4 or not ESTIMATE.search(line):
            continue
        pair = tuple(NAMES.get(name, name) for name in cells[:2])
        if pair not in known:
            continue
        c, numbers = known[pair], [tuple(map(read, found)) for found in ESTIMATE.findall(line)]
        assert numbers[0] == pytest.approx(c["told"], abs=6e-4), line
        if len(numbers) > 1:
            assert numbers[1] == pytest.approx(before[pair]["told"], abs=6e-4), line
        p = cells[3]
        assert c["p_holm"] < 0.001 if p == "< .001" else c["p_holm"] == pytest.approx(float(p), abs=6e-3), line
        rule = " ".join(cells[4:])
        assert ("equivalent" in rule) == (c["p_equivalence"] <= 0.05), line
        assert (" above" in f" {rule}") == c["significant"], line
        told += 1
    assert told >= rows


def test_agreement_is_what_the_statistics_say() -> None:
    lines = [line for line in section("## Do evaluators agree?").splitlines() if " × " in line and "[" in line]
    known = [
        block
        for folder in ("recordings", "soundscapes", "control")
        for block in endpoint(folder, "gain_embedding")["agreement"]
    ]
    assert len(lines) == len(known) == 6
    for line, block in zip(lines, known, strict=True):
        w, cells = ESTIMATE.search(line.replace("*", "")), [c.strip(" *") for c in line.split("|")]
        assert w is not None
        assert tuple(map(read, w.groups())) == pytest.approx(
            [block["w"][k] for k in ("value", "low", "high")], abs=6e-3
        )
        assert cells[2] == f"{len(block['methods'])} × {len(block['evaluators'])}"
        assert float(cells[4]) == pytest.approx(block["by_chance"], abs=6e-3)
        assert block["p"] < 0.001 if cells[5] == "< .001" else block["p"] == pytest.approx(float(cells[5]), abs=6e-3)
        assert float(cells[6]) == pytest.approx(block["of_twins"], abs=6e-3)


def test_the_readme_says_the_same() -> None:
    said = (
        (ROOT / "README.md").read_text(encoding="utf-8").split("## What the benchmark says so far")[1].split("\n## ")[0]
    )
    known = compared("recordings", "gain_embedding") | {
        ("scenes", *pair): c for pair, c in compared("soundscapes", "gain_embedding").items()
    }
    pairs = [("time_frequency", "time"), ("time_frequency", "random"), ("time_frequency", "frequency")]
    expected = [known[p]["told"] for p in pairs] + [known["scenes", "time_frequency", "time"]["told"]]
    found = [tuple(map(read, numbers)) for numbers in re.findall(rf"({NUMBER}) \[({NUMBER}), ({NUMBER})\]", said)]
    assert len(found) == len(expected)
    for numbers, wanted in zip(found, expected, strict=True):
        assert numbers == pytest.approx(wanted, abs=6e-3)
