"""The engine's grid: which combinations a configuration
asks for, what it refuses, and what becomes of each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tiny_runs import TINY

from relax_quantus.benchmark import BenchmarkConfig, Results, forecast, run
from relax_quantus.benchmark.engine.resources import Resources
from relax_quantus.benchmark.engine.runner import layout_of
from relax_quantus.benchmark.engine.store import Store
from relax_quantus.errors import ArgumentError, ArgumentTypeError, DataError, UnknownNameError

pytestmark = pytest.mark.usefixtures("plugin")


def test_rows_hold_scores_parts_and_curves(serial: Results) -> None:
    rows = serial.rows
    assert set(rows.dataset) == {"tiny"}
    assert set(rows.encoder) == {"net"}
    assert set(rows.status) == {"ok"}
    assert serial.cells == 4 * (3 * 3 + 1) == len(rows[rows.part == ""])
    assert (rows[(rows.metric == "Slow") & (rows.part == "part")].value == 1).all()
    assert list(serial.curves[serial.curves.metric == "Slow"].value[:2]) == [1.0, 0.5]
    assert set(serial.maps.question) == {"own", "stem"}
    assert serial.forwards == 3 * 2 * 20 + 3 * 10, (
        "own and stem of three clips; one clip explained again, and two copies of it"
    )
    twin = rows[rows.twin_of == "RELAX-time"]
    assert set(twin.method) == {"RELAX-time twin"}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("n_sample = 3", ArgumentError, "n_sample: expected a benchmark setting; did you mean 'n_samples'"),
        ('methods = ["RELAX-tiem"]', UnknownNameError, "did you mean 'RELAX-time'"),
        ('methods = ["RELAX-time:fil=mean"]', ArgumentTypeError, "fil: .*did you mean 'fill'"),
        ('metrics = ["SRG-bin-silense"]', UnknownNameError, "metrics: .*did you mean 'SRG-bin-silence'"),
        ('datasets = ["sinthetic"]', UnknownNameError, "data: .*did you mean 'synthetic'"),
        ('encoders = ["vgish_mini"]', UnknownNameError, "encoder: .*did you mean 'vggish_mini'"),
        ('preset = "papre"', UnknownNameError, "did you mean 'paper'"),
        ('fill = "silense"', UnknownNameError, "did you mean 'silence'"),
        ("seeds = 3", ArgumentTypeError, r"seeds: expected a list of whole numbers, got 3; write \[0, 1\]"),
        ("seeds = [1, 1]", ArgumentError, "seeds: expected each once"),
        ('primary = ["gain_embeding"]', UnknownNameError, "did you mean 'gain_embedding'"),
        (
            'primary = ["auc_region"]\nsecondary = ["auc_region"]',
            ArgumentError,
            "secondary: expected end points that are not primary",
        ),
        ('n_samples = "many"', ArgumentTypeError, "n_samples: expected an integer"),
        ("strict = 1", ArgumentTypeError, "strict: expected true or false"),
        ("time_limit = 0", ArgumentError, "time_limit: expected a finite number above 0"),
        ("workers = 0", ArgumentError, "workers: expected an integer of at least 1"),
        ("methods = [", DataError, "expected a TOML file of benchmark settings"),
    ],
)
def test_a_grid_is_validated(tmp_path: Path, text: str, error: type[Exception], said: str) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(text)
    with pytest.raises(error, match=said):
        BenchmarkConfig.from_file(file).resolved()


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(
        'preset = "default"\ndatasets = ["tiny", "tiny:seed=5"]\nencoders = ["net", "random:of=net,seed=1"]\nseeds = [1, 2]\n'
        'methods = ["RELAX-time:fill=mean", "RELAX-time twin:fill=mean"]\nmetrics = ["Sparseness"]\nmax_clips = 1\n'
        "n_samples = 8\nhead_clips = 12\n"
    )
    found = run(BenchmarkConfig.from_file(file), show_progress=False)
    assert len(found.rows) == found.cells == 2 * 2 * 2 * 1 * 2
    assert list(found.datasets) == ["tiny", "tiny:seed=5"]
    assert found.rows.value.nunique() == 16
    where = found.rows[["dataset", "encoder", "seed"]].drop_duplicates()
    assert len(where) == 8


def test_all_seeds_of_a_clip_come_one_after_another(tmp_path: Path) -> None:
    config = replace(TINY, seeds=(0, 1), metrics=("AUC",), methods=("energy", "Saliency")).resolved()
    with Store(None) as store:
        laid = layout_of(config, Resources(config), store).grid
    clips = [unit.clip for unit in laid.units(())]
    assert clips == [clip for clip in range(3) for _ in range(4)]
    assert [unit.clip for unit in laid.units({p.key for p in laid.places if p.clip == 1})] == [0] * 4 + [2] * 4


def test_without_curves_the_scores_are_the_same_and_no_curve_is_stored(serial: Results, tmp_path: Path) -> None:
    config = replace(TINY, out=str(tmp_path), curves=False)
    found = run(config, show_progress=False)
    assert found.curves.empty
    assert len(serial.curves)
    pd.testing.assert_series_equal(found.rows.value, serial.rows.value)
    again = run(replace(config, curves=True), show_progress=False)
    pd.testing.assert_frame_equal(again.curves, serial.curves)


def test_a_dry_run_counts_what_the_run_does(serial: Results, tmp_path: Path) -> None:
    config = replace(TINY, out=str(tmp_path / "out"), workers=2)
    guess = forecast(config)
    assert (guess.cells, guess.done, guess.clips) == (serial.cells, 0, 3)
    assert guess.maps == len(serial.maps)
    assert guess.forwards >= serial.forwards
    assert not (tmp_path / "out").exists()
    assert "in 2 such workers" in "\n".join(guess.lines())
    run(replace(config, workers=1, metrics=("AUC",)), show_progress=False)
    assert forecast(config).done == 12
    other = forecast(replace(config, n_samples=21))
    assert (other.done, other.anew) == (0, {"settings": 12})
    assert "0 of 40 cells reused; 12 stored cells computed anew, as these changed: settings (12)" in other.lines()
