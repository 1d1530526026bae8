"""The engine end to end on a small encoder: rows, sharing, failures, files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from console_tables import broken_cells
from pyarrow.parquet import ParquetFile
from rich.console import Console
from torch import nn

from relax_quantus.benchmark import METHODS, METRICS, BenchmarkConfig, run, show
from relax_quantus.benchmark import metrics as metrics_package
from relax_quantus.benchmark.config import QUICK_METHODS
from relax_quantus.benchmark.data.datasets import Dataset, synthetic
from relax_quantus.benchmark.data.recordings import folder
from relax_quantus.benchmark.engine.cells import measured
from relax_quantus.benchmark.engine.prepared import Prepared, prepare
from relax_quantus.benchmark.engine.results import COLUMNS
from relax_quantus.benchmark.metrics import Metric
from relax_quantus.benchmark.report.output import FILES
from relax_quantus.benchmark.report.tables import markdown, tables
from relax_quantus.errors import ArgumentError, ArgumentTypeError, DataError, UnknownNameError

SMALL = BenchmarkConfig(
    max_clips=2, n_samples=16, reexplain_clips=1, reexplain_samples=8, perturbations=2, head_clips=30, seed=77
)

FEW_METRICS = (
    *("SRG-patch-silence", "PixelFlipping", "FaithfulnessCorrelation", "AUC", "LocalLipschitz", "MaxSensitivity"),
    *("Sparseness", "MPRT", "MPRT-ceiling"),
)


def small_encoder() -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    layers = nn.Sequential(
        nn.AvgPool2d(8), nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 10 * 6, 12)
    ).eval()
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return layers


@pytest.fixture(scope="module")
def data() -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relax_quantus.benchmark.data.datasets.HELD_OUT_CLIPS", 6)
        drawn = synthetic(2, 77, 30)
        return replace(drawn, clips=tuple(replace(clip, rest=None) for clip in drawn.clips))


@pytest.fixture(scope="module")
def good_head(monkeypatch_module) -> None:
    monkeypatch_module.setattr("relax_quantus.benchmark.engine.prepared.HEAD_ACCURACY", 0.0)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def results(data, good_head, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("bench"))
    config = replace(SMALL, methods=QUICK_METHODS, metrics=FEW_METRICS, out=out)
    return run(config, encoder=small_encoder(), dataset=data, show_progress=False)


def test_every_cell_is_a_row(results):
    rows = results.rows
    assert list(rows.columns) == list(COLUMNS)
    assert not rows.duplicated(["clip", "method", "metric", "part"]).any()
    assert set(rows[rows.part != ""].metric) >= {"SRG-patch-silence"}
    rows = rows[rows.part == ""]
    once = [name for name in FEW_METRICS if not METRICS.get(name).reexplains]
    again = [name for name in FEW_METRICS if METRICS.get(name).reexplains]
    assert len(rows) == results.cells == len(QUICK_METHODS) * (2 * len(once) + 1 * len(again))
    bad = rows[~rows.status.isin(["ok", "not_applicable"])]
    assert bad.empty, bad[["method", "metric", "status", "reason"]].to_string()
    assert rows[rows.status == "ok"].value.notna().all()
    assert (rows[rows.status != "ok"].reason != "").all()
    assert set(rows[rows.status == "not_applicable"].method) == {"oracle"}
    assert set(rows[rows.metric == "MPRT"].n_samples) == {0, 8}


def test_oracle_localises_perfectly_and_energy_ignores_the_model(results):
    value = results.rows.set_index(["method", "metric"]).value
    assert (value["oracle", "AUC"] == 1).all()
    assert (value["energy", "MPRT-ceiling"].round(9) == 1).all()
    energy = results.rows[(results.rows.method == "energy") & (results.rows.metric == "MPRT")].set_index("part").value
    assert energy[""] == pytest.approx(0)
    assert (energy.drop("").round(9) == 1).all()


def test_strategy_and_twin_share_forwards(results):
    own, stem = 4 * 2 * 16, 4 * 2 * 16
    layers = 2
    shaken, unshaken = 4 * 2 * 8, 4 * 8
    randomised = 4 * (2 + layers + 1) * 8
    # Fresh seeds start after the fixed one, so the re-explained map itself is shared by robustness
    # and randomisation.
    assert results.forwards <= own + stem + shaken + unshaken + randomised
    twin = results.rows[results.rows.method == "RELAX-time twin"].set_index(["clip", "metric"]).value
    strategy = results.rows[results.rows.method == "RELAX-time"].set_index(["clip", "metric"]).value
    assert not np.allclose(twin.dropna(), strategy.dropna())


def test_the_same_seed_gives_the_same_scores(results, data, good_head):
    config = replace(SMALL, methods=("RELAX-random", "Saliency"), metrics=("AUC", "FaithfulnessCorrelation", "MPRT"))
    again = run(config, encoder=small_encoder(), dataset=data, show_progress=False).rows
    keys = ["clip", "method", "metric", "part"]
    joined = again.merge(results.rows, on=keys, suffixes=("", "_all"))
    assert len(joined) == len(again)
    assert len(again[again.part == ""]) == 2 * 2 * 2 + 2
    pd.testing.assert_series_equal(joined.value, joined.value_all, check_names=False)


def test_files_hold_what_was_measured(results):
    from pathlib import Path

    out = Path(results.config.out)
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith((".", "cells"))) == sorted(FILES)
    parquet = pd.read_parquet(out / "results.parquet")
    pd.testing.assert_frame_equal(parquet, results.rows, check_dtype=False)
    for name in ("results", "curves", "maps"):
        columns = ParquetFile(out / f"{name}.parquet").metadata.row_group(0)
        assert {columns.column(i).compression for i in range(columns.num_columns)} == {"ZSTD"}
    assert len(pd.read_csv(out / "results.csv")) == len(results.rows)
    found = json.loads((out / "run.json").read_text())
    assert found["configuration"]["n_samples"] == 16
    assert found["encoders"][0]["sha256"] == results.encoder_sha256
    assert (
        found["packages"]["torch"] == torch.__version__.split("+")[0] or found["packages"]["torch"] == torch.__version__
    )
    assert (out / "table.md").read_text() == markdown(results)


def test_tables_mark_directions_questions_and_twins(results):
    made = {table.title: table for table in tables(results)}
    assert {"Faithfulness", "Localisation", "Robustness", "Randomisation", "Complexity"} <= set(made)
    assert "PixelFlipping ↓" in made["Faithfulness"].header
    assert "clean stem" in made["Localisation"].caption
    assert "n = 2 source groups, 2 clips" in made["Localisation"].caption
    lines = dict(made["Localisation"].lines)
    value = results.rows[results.rows.metric == "AUC"].set_index(["method", "clip"]).value
    difference = value["RELAX-time"] - value["RELAX-time twin"]
    column = made["Localisation"].header.index("AUC ↑") - 1
    assert lines["RELAX-time − twin"][column].estimate.value == pytest.approx(difference.mean())
    assert f"{difference.mean():.3f}" == lines["RELAX-time − twin"][column].text()


def test_the_console_table_fits_120_columns(results):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(results, console)
    text = console.export_text()
    assert "…" not in text
    assert "RELAX-time_frequency − twin" in text
    assert broken_cells(text, tables(results)) == []


def test_a_failing_metric_is_a_row_and_the_others_survive(data, good_head, monkeypatch):
    def explode(given):
        raise ZeroDivisionError("planted\nfailure")

    broken = Metric(name="Broken", category="complexity", direction="up", measure=explode)
    monkeypatch.setattr(metrics_package, "METRICS", METRICS)
    METRICS.register("Broken", lambda: broken, "test")
    try:
        config = replace(SMALL, methods=("energy",), metrics=("Broken", "Sparseness"))
        rows = run(config, encoder=small_encoder(), dataset=data, show_progress=False).rows
    finally:
        METRICS._factories.pop("Broken")
    assert rows.status.tolist() == ["failed", "ok"] * 2
    assert rows.reason.iloc[0] == "ZeroDivisionError: planted failure"
    assert np.isnan(rows.value.iloc[0])


def test_not_a_number_is_a_row():
    nothing = Metric(name="Nothing", category="complexity", direction="up", measure=lambda given: float("nan"))
    scores, _, status, reason = measured(lambda: None, nothing)
    assert np.isnan(scores.value)
    assert (status, reason) == ("nan", "the metric returned no finite number")


def test_a_bad_head_makes_localisation_not_applicable(data, monkeypatch):
    monkeypatch.setattr("relax_quantus.benchmark.engine.prepared.HEAD_ACCURACY", 0.9)
    config = replace(SMALL, methods=("RELAX-time",), metrics=("AUC", "Sparseness"))
    results = run(config, encoder=small_encoder(), dataset=data, show_progress=False)
    assert results.head_accuracy < 0.9
    assert results.rows.status.tolist() == ["not_applicable", "ok"] * 2
    assert "below 90%" in results.rows.reason.iloc[0]
    assert "no localisation on 2 clips" in markdown(results)


def test_a_clip_that_the_encoder_does_not_hear_is_not_localised(data, good_head):
    deaf = replace(data, clips=tuple(replace(clip, rest=clip.x) for clip in data.clips))
    config = replace(SMALL, methods=("energy",), metrics=("AUC",))
    rows = run(config, encoder=small_encoder(), dataset=deaf, show_progress=False).rows
    assert rows.status.iloc[0] == "not_applicable"
    assert "does not respond to the call" in rows.reason.iloc[0]


def test_questions_are_what_the_captions_say(data, good_head):
    prepared = prepare(SMALL.resolved(), small_encoder(), data)
    assert isinstance(prepared, Prepared)
    clip = data.clips[0]
    own, stem = prepared.question(clip, 8), prepared.stem_question(clip)
    assert own.reference is None
    assert own.model is prepared.classifier
    assert own.target == int(prepared.classifier(clip.x[None]).argmax())
    torch.testing.assert_close(stem.reference, prepared.encoder(clip.stem[None])[0])
    assert (stem.kind, stem.model, stem.target) == ("stem", prepared.classifier, clip.label)


def test_a_twin_permutes_differently_for_each_clip_and_the_same_when_explained_again(data):
    prepared = prepare(SMALL.resolved(), small_encoder(), data)
    twin, questions = METHODS.get("RELAX-time twin"), [prepared.question(clip, 16) for clip in data.clips]
    here, there = (replace(q, x=questions[0].x) for q in questions)
    maps = [twin.explain(q, prepared.similarities).importance for q in (here, there, here)]
    assert not np.allclose(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_recordings_run_without_localisation(tmp_path, write_wav):
    import soundfile

    rng = np.random.default_rng(0)
    for name, hz in (("cat", 500), ("dog", 2000)):
        (tmp_path / name).mkdir()
        for k in range(4):
            wave = 0.3 * np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000) + 0.01 * rng.standard_normal(16_000)
            soundfile.write(tmp_path / name / f"{k}.wav", wave, 16_000)
    config = replace(SMALL, data=str(tmp_path), methods=("RELAX-time", "oracle"), metrics=("AUC", "SRG-patch-silence"))
    rows = run(config, encoder=small_encoder(), show_progress=False).rows
    assert set(rows[rows.metric == "AUC"].status) == {"not_applicable"}
    assert rows[(rows.metric == "SRG-patch-silence") & (rows.method == "RELAX-time")].status.eq("ok").all()
    assert set(rows.label) == {"cat", "dog"}
    assert len(folder(tmp_path, 2).clips) == 2


def test_similarities_are_remembered_until_a_weight_changes(data):
    prepared = prepare(SMALL.resolved(), small_encoder(), data)
    question, strategy = prepared.question(data.clips[0], 8), METHODS.get("RELAX-time")
    first = strategy.explain(question, prepared.similarities).importance
    np.testing.assert_array_equal(strategy.explain(question, prepared.similarities).importance, first)
    assert prepared.similarities.forwards == 8
    with torch.no_grad():
        prepared.encoder[1].weight.neg_()
    assert not np.array_equal(strategy.explain(question, prepared.similarities).importance, first)
    assert prepared.similarities.forwards == 16


def test_what_was_not_measured_has_no_table_and_no_line(data, tmp_path):
    unknown = replace(data, clips=tuple(replace(clip, stem=None, truth=None) for clip in data.clips))
    config = replace(SMALL, methods=("energy", "oracle"), metrics=("AUC", "Sparseness"))
    results = run(config, encoder=small_encoder(), dataset=unknown, show_progress=False)
    assert [(table.title, [row[0] for row in table.rows]) for table in tables(results)] == [("Complexity", ["energy"])]
    assert len(results.rows) == 2 * 2 * 2


def test_configurations(tmp_path):
    quick = BenchmarkConfig.from_preset("quick")
    assert (quick.n_samples, quick.max_clips) == (300, 12)
    assert (BenchmarkConfig.from_preset("default").n_samples, BenchmarkConfig.from_preset("default").max_clips) == (
        500,
        18,
    )
    assert BenchmarkConfig.from_preset("paper", max_clips=None, seed=4).n_samples == 3000
    file = tmp_path / "bench.toml"
    file.write_text('preset = "default"\nmethods = ["energy"]\nseed = 3\n')
    read = BenchmarkConfig.from_file(file, seed=9, out=None)
    assert (read.preset, read.n_samples, read.methods, read.seed) == ("default", 500, ("energy",), 9)
    assert quick.resolved().methods == QUICK_METHODS
    assert BenchmarkConfig.from_preset("default").resolved().methods == tuple(METHODS.names())
    with pytest.raises(UnknownNameError, match="did you mean 'quick'"):
        BenchmarkConfig.from_preset("quik")
    with pytest.raises(UnknownNameError, match=r"methods: .*did you mean 'Saliency'"):
        BenchmarkConfig(methods=("Salience",)).resolved()
    with pytest.raises(ArgumentError, match="n_sample: expected a benchmark setting; did you mean 'n_samples'"):
        BenchmarkConfig.from_preset("quick", n_sample=3)
    with pytest.raises(ArgumentTypeError, match="methods"):
        BenchmarkConfig(methods="energy")
    file.write_text("preset = ")
    with pytest.raises(DataError, match="expected a TOML file"):
        BenchmarkConfig.from_file(file)
    with pytest.raises(ArgumentError, match="once"):
        run(replace(SMALL, methods=("energy", "energy")))


def test_blending_in_amplitude_reaches_relax_and_nothing_else(data, good_head):
    log, amplitude = (
        run(
            replace(SMALL, domain=domain, methods=("RELAX-random", "energy"), metrics=("Sparseness",)),
            encoder=small_encoder(),
            dataset=data,
            show_progress=False,
        ).rows.set_index(["method", "clip"])["value"]
        for domain in ("log", "amplitude")
    )
    assert (log["energy"] == amplitude["energy"]).all()
    assert (log["RELAX-random"] != amplitude["RELAX-random"]).all()
    with pytest.raises(ArgumentError, match="domain: expected 'log' or 'amplitude'"):
        BenchmarkConfig(domain="amp")
