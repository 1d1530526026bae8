"""What is published of the answer's runs says the same as the runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import planted_results as planted
import pytest

from benchmarks.answer import publishing
from benchmarks.answer.by_evaluator import difference, gains, with_energy
from benchmarks.answer.exploring import beside_energy, draws, pairs, price_of_twins, twins
from benchmarks.answer.publishing import publish, remake, smaller
from relax_quantus.benchmark.report import report
from relax_quantus.benchmark.statistics import summary
from relax_quantus.benchmark.statistics.endpoints import Endpoint, crossed, normalised
from relax_quantus.benchmark.statistics.rows import checked


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    table = planted.rows(sources=8, clips=2, seeds=(0, 1), fills=planted.FILLS)
    return planted.with_falls(planted.as_judged(table), {"vggish_mini": 0.5})


def test_a_published_folder_gives_the_same_comparisons_from_fewer_rows(whole: pd.DataFrame) -> None:
    small = smaller(whole, with_parts=False)
    assert (small.part == "fall").sum() == 16 * 24, "once a clip and evaluator"
    assert len(small) == (whole.part == "").sum() + 16 * 24
    found, wanted = (summary.summarise(checked(rows))["endpoints"][0] for rows in (small, whole))
    for a, b in zip(found["families"], wanted["families"], strict=True):
        for c, d in zip(a["comparisons"], b["comparisons"], strict=True):
            assert c["verdict"] == d["verdict"]
            assert c["difference"]["value"] == pytest.approx(d["difference"]["value"], abs=2e-5)


def test_what_is_published_takes_the_place_of_the_old_at_once(
    whole: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = tmp_path / "run", tmp_path / "results" / "planted"
    run.mkdir()
    whole.to_parquet(run / "results.parquet")
    (run / "run.json").write_text(json.dumps({"configuration": {"curves": False}}))
    maps = pd.DataFrame(
        {"dataset": "d", "encoder": "e", "seed": [0, 0, 1, 0], "clip": "c", "method": ["A", "A", "A", "B"]}
    )
    maps.assign(question="own", n_samples=9, seconds=[1.0, 5.0, 2.0, 0.5]).to_parquet(run / "maps.parquet")
    out.mkdir(parents=True)
    (out / "of_an_earlier_run.png").touch()
    monkeypatch.setattr(publishing, "report", lambda folder, _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        publish(run, out)
    assert [path.name for path in out.iterdir()] == ["of_an_earlier_run.png"], (
        "the old one stays until the new one is there"
    )
    monkeypatch.setattr(publishing, "report", lambda folder, _: report(folder, None, figures=False))
    made = publish(run, out)
    assert {path.name for path in made} > {"table.md", "statistics.md", "report.html"}
    assert all(path.is_file() for path in made)
    assert not list(out.glob("*.png"))
    assert [path.name for path in out.parent.iterdir()] == ["planted"]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "tables" / "of_an_earlier_report.csv").touch()
    assert set(remake(out)) <= set(before)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before, "from what is stored"
    assert dict(pd.read_parquet(out / "maps.parquet").set_index("method").seconds) == {"A": 2.0, "B": 0.5}


def test_strategies_by_unit_are_the_planted_skills_where_maps_can_rank(whole: pd.DataFrame) -> None:
    table = gains(normalised(crossed(checked(whole), "embedding"))).groupby("granularity").mean()
    assert table["time"].isna()["frequency"]
    assert table["frequency"].isna()["time"]
    difference = table.loc["bin", "time"] - table.loc["bin", "frequency"]
    assert difference == pytest.approx(planted.SKILL["time"] - planted.SKILL["frequency"], abs=0.05)
    easier = table.loc["time", "random"] - table.loc["bin", "random"]
    assert easier == pytest.approx(planted.LEVELS["time"], abs=0.015)
    own = table.loc["patch", "random"] - table.loc["bin", "random"]
    assert own == pytest.approx(planted.ADVANTAGE + planted.LEVELS["patch"] - planted.LEVELS["bin"], abs=0.05)


def test_strategies_are_compared_on_the_same_examples_and_fills_alone(whole: pd.DataFrame) -> None:
    rows = normalised(crossed(checked(whole), "embedding"))
    lost = (
        (rows.masks == "time")
        & (rows.twin_of == "")
        & (rows.fill == "silence")
        & (rows["clip"] == rows["clip"].iloc[0])
    )
    table = gains(rows[~lost]).loc["bin"]
    there = table.time.notna()
    assert 0 < (~there).sum() < len(table)
    shifted = table.assign(random=table.random + 100.0 * ~there)
    assert difference(shifted, "time", "random").equals(difference(table, "time", "random"))
    assert difference(table, "time", "random").abs().max() < 1


def test_energy_is_compared_as_it_is_where_silence_does_not_judge(whole: pd.DataFrame) -> None:
    rows = normalised(crossed(checked(whole), "embedding"))
    silent = rows.evaluator_fill == "silence"
    table = with_energy(rows.assign(score=rows.score + 9.0 * (silent & (rows.method == "energy"))))
    assert set(table.index.get_level_values("evaluator_fill")) == {"mean", "background"}
    mine = rows[(rows.method == "energy") & (rows.granularity == "patch") & (rows.evaluator_fill == "mean")]
    there = table.loc["patch"].xs("mean", level="evaluator_fill").energy
    assert there.mean() == pytest.approx(mine.score.mean())


def test_draws_are_the_spread_between_seeds_of_one_clip(whole: pd.DataFrame) -> None:
    rows = normalised(crossed(checked(whole), "embedding"))
    seeds = rows.seed.map({seed: sign for seed, sign in zip(sorted(rows.seed.unique()), (-1, 1), strict=True)})
    flat = rows.assign(score=0.1 * seeds * (1 + 2 * (rows.twin_of != "")))
    lines = list(draws(flat))
    assert len(lines) == 4
    assert all(line.endswith(": 0.141, its twin's 0.424") for line in lines)  # of -.1 and .1, and three times that


def test_exploring_says_who_is_above_whom_and_what_twins_score(whole: pd.DataFrame) -> None:
    rows = normalised(crossed(checked(whole), "embedding"))
    lines = list(pairs(Endpoint("gain", rows, 0.05)))
    line = next(line for line in lines if line.startswith("RELAX-time - RELAX-frequency: "))
    assert float(line.split(": ")[1].split(" ")[0]) == pytest.approx(0.12, abs=0.05)
    assert ", n = 8, " in line
    assert len(lines) == 6 + 3
    means = [float(line.split(": ")[1].split(" ")[0]) for line in twins(rows)]
    assert max(map(abs, means)) < 0.08
    assert len(means) == 4
    against = list(beside_energy(Endpoint("gain", rows, 0.05)))
    assert [line.split(": ")[0] for line in against] == [
        f"RELAX-{m} - energy" for m in ("random", "time", "frequency", "time_frequency")
    ]


def test_the_price_of_twins_is_what_their_noise_adds_to_a_difference(whole: pd.DataFrame) -> None:
    rows = normalised(crossed(checked(whole), "embedding"))
    quiet = rows.assign(score=rows.score.where(rows.twin_of == "", 0.0))
    times = {line.split(": ")[0]: line.split(": ")[1] for line in price_of_twins(Endpoint("gain", quiet, 0.05))}
    assert len(times) == 6
    assert all(said.startswith("1.0 times") for said in times.values()), "twins that never vary cost nothing"
    noise = np.random.default_rng(0).normal(0, 1.0, len(rows)) * (rows.twin_of != "")
    times = [
        line.split(": ")[1] for line in price_of_twins(Endpoint("gain", quiet.assign(score=quiet.score + noise), 0.05))
    ]
    assert min(float(said.split(" ")[0]) for said in times) > 3
