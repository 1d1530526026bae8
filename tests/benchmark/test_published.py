"""The answer as it is published: of the configurations that
are there, and made again from the published numbers alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.answer.__main__ import GRIDS, HERE, RESULTS
from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.benchmark.report import report

PUBLISHED = [name for name in GRIDS if (RESULTS / name).is_dir()]
SMALL = ("levels", "shortcut", "signs")
SAME = (
    "seeds",
    "max_clips",
    "methods",
    "metrics",
    "n_samples",
    "estimator",
    "primary",
    "secondary",
    "reexplain_clips",
    "curves",
)


def run_of(name: str) -> dict:
    found: dict = json.loads((RESULTS / name / "run.json").read_text())
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_is_of_the_configuration_beside_the_command(name: str) -> None:
    told, asked = (
        run_of(name)["configuration"],
        BenchmarkConfig.from_file(HERE / f"{name}.toml").resolved(encoder_given=True),
    )
    assert {key: told[key] for key in SAME} == {
        key: list(value) if isinstance(value := getattr(asked, key), tuple) else value for key in SAME
    }
    assert [e.replace("benchmarks/answer/encoders", "ENCODERS") for e in told["encoders"]] == list(asked.encoders)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_was_lost_of_a_published_run_is_little_and_has_a_reason(name: str) -> None:
    rows = pd.read_parquet(RESULTS / name / "results.parquet", columns=["status", "value", "reason"])
    assert rows.value[rows.status == "ok"].notna().all()
    lost = rows[rows.status.isin(["failed", "timeout", "out_of_memory", "nan"])]
    assert len(lost) < len(rows) / 1000
    assert (lost.reason != "").all()


@pytest.mark.parametrize("name", [name for name in SMALL if name in PUBLISHED])
def test_tables_and_statistics_come_again_from_the_published_numbers(name: str, tmp_path: Path) -> None:
    for file in (RESULTS / name).iterdir():
        if file.suffix in (".parquet", ".json") and file.name != "statistics.json":
            shutil.copy(file, tmp_path / file.name)
    made = [path.relative_to(tmp_path) for path in report(tmp_path, figures=False)]
    tables = [path for path in made if path.suffix in (".md", ".csv", ".tex", ".json")]
    assert len(tables) >= 4
    for path in tables:
        assert (tmp_path / path).read_bytes() == (RESULTS / name / path).read_bytes(), path
