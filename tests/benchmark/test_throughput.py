"""One worker or several: what the timed rounds are turned
into. That the timing itself runs, the published rounds show.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.throughput import ratios

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "results" / "speed" / "throughput.json"


def test_ratios_are_taken_within_rounds() -> None:
    one = {"cells": 8.0, "cells_s": 30.0, "whole_s": 40.0}
    several = {"cells": 8.0, "cells_s": 15.0, "whole_s": 25.0}
    slow = {name: 3 * value for name, value in several.items()}
    rounds = [
        {"one": one, "several": several, "alone": {"one": 100.0, "several": 190.0}},
        {
            "one": {name: 3 * value for name, value in one.items()},
            "several": slow,
            "alone": {"one": 50.0, "several": 95.0},
        },
    ]
    found = ratios(rounds)
    assert found["cells"] == pytest.approx([2.0, 2.0])
    assert found["whole"] == pytest.approx([1.6, 1.6])
    assert found["encoder_alone"] == pytest.approx([1.9, 1.9])


def test_the_published_ratios_are_those_of_the_published_rounds() -> None:
    published = json.loads(PUBLISHED.read_text())
    assert published["ratios"] == ratios(published["rounds"])
    assert all(r["one"]["cells"] == r["several"]["cells"] for r in published["rounds"])
