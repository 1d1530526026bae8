"""The report from a folder of results alone: what is
written, what is bold, what is drawn, and how it refuses.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import planted_results as planted
import pytest
from console_tables import broken_cells
from rich.console import Console
from typer.testing import CliRunner

from relax_quantus.benchmark.report import headings, report, statistics_page, tables
from relax_quantus.benchmark.report.figures import flipping, scores, style
from relax_quantus.benchmark.report.latex import escaped, latex
from relax_quantus.benchmark.report.layout import Table, TableCell, number
from relax_quantus.benchmark.report.results_folder import read
from relax_quantus.benchmark.statistics import ranks
from relax_quantus.benchmark.statistics.intervals import Interval
from relax_quantus.benchmark.statistics.rows import checked
from relax_quantus.cli.main import app
from relax_quantus.errors import DataError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A small run's results and its report."""
    path = tmp_path_factory.mktemp("results")
    table = planted.rows(sources=12, clips=1, seeds=(0,), fills=("silence",), evaluators=("silence", "mean"))
    few = table.metric.isin(["AUC", "AUC-region", "PixelFlipping"]) | table.metric.str.startswith("SRG-")
    planted.folder(path, table[few])
    return path, report(path, path / "report")


def test_every_file_is_there(made: tuple[Path, list[Path]]) -> None:
    names = {str(p.relative_to(made[0] / "report")) for p in made[1]}
    assert {
        "table.md",
        "statistics.md",
        "statistics.json",
        "tables/comparisons.csv",
        "tables/localisation.tex",
    } <= names
    assert {"tables/crossed-faithfulness-embedding-view.csv", "tables/crossed-faithfulness-embedding-view.tex"} <= names
    drawn = {
        "curves-gain_embedding",
        "evaluators-gain_logit",
        "critical-difference-auc_region",
        "runtime-gain_embedding",
        "categories",
    }
    assert {f"figures/{name}.{ending}" for name in (*drawn, "boxes-faithfulness") for ending in ("png", "pdf")} <= names
    assert all(p.stat().st_size > 100 for p in made[1])


def test_the_same_results_give_the_same_report(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    report(made[0] / "results.parquet", tmp_path, figures=False)
    for name in ("table.md", "statistics.md", "statistics.json", "tables/comparisons.csv"):
        assert (tmp_path / name).read_bytes() == (made[0] / "report" / name).read_bytes()


def test_csv_gives_the_same_tables_as_parquet(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    pd.read_parquet(made[0] / "results.parquet").to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "run.json").write_bytes((made[0] / "run.json").read_bytes())
    notes: list[str] = []
    report(tmp_path, figures=False, told=notes.append)
    assert (tmp_path / "table.md").read_text() == (made[0] / "report" / "table.md").read_text()
    assert notes == ["no curves.parquet: no flipping curves are drawn", "no maps.parquet: runtime is not drawn"]


def test_the_page_says_what_few_sources_can_tell(made: tuple[Path, list[Path]]) -> None:
    page = (made[0] / "report" / "statistics.md").read_text()
    assert "**n = 12 source groups are few**" in page
    assert "## Crossed relevance gain, embedding view: planted\n" in page, "no role was chosen before"
    assert "**RELAX-time above RELAX-frequency**" in page
    assert "Kendall's W = " in page
    assert not re.search(r"\bnan\b|\bNone\b|inf\b", page)


def test_headings_say_which_end_point_was_chosen_before_the_run(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    (tmp_path / "results.parquet").write_bytes((made[0] / "results.parquet").read_bytes())
    run = json.loads((made[0] / "run.json").read_text())
    run["configuration"] |= {"primary": ["gain_logit"], "secondary": ["auc_region"]}
    (tmp_path / "run.json").write_text(json.dumps(run))
    report(tmp_path, figures=False)
    page, html = (tmp_path / "statistics.md").read_text(), (tmp_path / "report.html").read_text()
    for name, role in (("embedding view", "exploratory"), ("logit view", "primary")):
        assert f"## Crossed relevance gain, {name}: planted ({role})\n" in page
        assert f"Crossed relevance gain, {name}: planted ({role})<" in html
    tested = (
        pd.read_csv(tmp_path / "tables" / "comparisons.csv")
        .set_index("endpoint")
        .loc["Crossed relevance gain, logit view"]
    )
    primary = tested[tested.role == "primary"].in_family.unique()
    assert list(primary) == ["mask strategies"], "not minus twins, nor against twins and energy"
    assert set(tested.role) == {"primary", "exploratory"}
    assert "### Mask strategies (primary)\n" in page
    assert "### Mask strategies, minus twins (exploratory)\n" in page


def test_a_run_that_chose_its_end_points_under_the_earlier_rule_says_so(
    made: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    for name in ("results.parquet", "results.csv"):
        if (made[0] / name).is_file():
            shutil.copy(made[0] / name, tmp_path / name)
    run = json.loads((made[0] / "run.json").read_text())
    run["configuration"] |= {"primary": ["gain_logit"]}
    for recorded, said in (({}, True), ({"differences": "raw"}, False)):
        (tmp_path / "run.json").write_text(json.dumps(run | recorded))
        report(tmp_path, figures=False)
        for name in ("statistics.md", "report.html", "statistics.json"):
            assert ("after the scores had been seen" in (tmp_path / name).read_text()) == said, name
    run["configuration"] |= {"primary": []}
    (tmp_path / "run.json").write_text(json.dumps(run))
    report(tmp_path, figures=False)
    assert "after the scores had been seen" not in (tmp_path / "statistics.md").read_text(), "nothing was chosen"


def test_bars_of_a_critical_difference_run_from_left_to_right() -> None:
    """Their points are those of a set of names: drawn in its
    order, the picture would be another one in each process.
    """
    names = ["b", "a", "d", "c"]
    pairwise = pd.DataFrame(1.0, index=names, columns=names)
    figure = scores.critical_difference(
        ranks.Ranking(dict(zip(names, (1, 2, 3, 4), strict=True)), 9, 0.01, 5.0, pairwise), "t"
    )
    (bar,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) == len(names)]
    assert list(bar.get_xdata()) == [1, 2, 3, 4]


def test_what_is_bold_is_significant(made: tuple[Path, list[Path]]) -> None:
    tested = pd.read_csv(made[0] / "report" / "tables" / "comparisons.csv")
    assert (tested.significant == (tested.p_holm <= 0.05)).all()
    bold = set(re.findall(r"\*\*([^*]+)\*\* \|$", (made[0] / "report" / "statistics.md").read_text(), flags=re.M))
    assert bold == set(tested.verdict[tested.significant & (tested.role != "exploratory")])
    cells = pd.read_csv(made[0] / "report" / "tables" / "localisation.csv")
    minus = cells[cells.method.str.endswith("twin") & cells.bold]
    assert len(minus)
    assert ((minus.low > 0) | (minus.high < 0)).all()
    shuffled = planted.rows(sources=12, clips=1, seeds=(0,), fills=("silence",))
    shuffled["value"] = np.random.default_rng(0).normal(size=len(shuffled))
    assert "**" not in re.sub(r"\*X|\*\*n = .*", "", tables.document(checked(shuffled), {})).partition("###")[2]


def test_tables_say_on_how_much_they_stand_and_split(made: tuple[Path, list[Path]]) -> None:
    text = (made[0] / "report" / "table.md").read_text()
    assert "n = 12 source groups, 12 clips, 1 encoder(s), 1 mask seed(s)." in text
    assert "planted: 0 clips; classes bird" in text
    assert "logistic head on planted, vggish_mini: 97.0% of held-out clips right" in text
    cells = tuple(TableCell(Interval(i / 10, 0.0, 1.0, 9)) for i in range(12))
    whole = Table("T", "c", ("method", *(f"m{i}" for i in range(12))), (("a|b", cells),))
    parts = whole.split(5)
    assert [p.header for p in parts] == [
        ("method", *(f"m{i}" for i in r)) for r in (range(5), range(5, 10), range(10, 12))
    ]
    assert parts[2].title == "T (3 of 3)"
    assert "a\\|b" in whole.markdown()


def test_each_data_set_has_tables_of_its_own_and_each_encoder_a_column() -> None:
    table = planted.rows(sources=5, clips=1, seeds=(0,), fills=("silence",), evaluators=("silence", "mean"))
    two = pd.concat([table, table.assign(dataset="real"), table.assign(encoder="random:of=vggish_mini")])
    made = {t.title: t for t in tables.tables_of(checked(two))}
    assert {"Localisation, planted", "Localisation, real", "Crossed faithfulness, embedding view, planted"} <= set(made)
    by_encoder = made["Crossed faithfulness by encoder, embedding view, planted"]
    assert by_encoder.header == ("method", "vggish_mini", "random:of=vggish_mini")
    assert "Crossed faithfulness by encoder, embedding view, real" not in made
    assert "without random:of=vggish_mini" in made["Localisation, planted"].caption


def test_one_source_one_method_and_failed_cells() -> None:
    table = planted.rows(sources=1, clips=1, seeds=(0,), fills=("silence",), evaluators=("silence",))
    alone = table[table.method == "energy"].copy()
    alone.loc[alone.metric == "MPRT", ["status", "reason", "value"]] = ["timeout", "longer than 3 s", np.nan]
    rows = checked(alone)
    text = tables.document(rows, {})
    assert "1 cells without a value (1 timeout), e.g. MPRT: longer than 3 s" in text
    assert "too few for intervals" in text
    assert "MPRT |" not in text
    page = statistics_page.page(
        __import__("relax_quantus.benchmark.statistics.summary", fromlist=["x"]).summarise(rows)
    )
    assert "Ranks are not tested" in page
    failed = checked(table.assign(status="failed", value=np.nan, reason="broken"))
    assert "### " not in tables.document(failed, {})


def test_the_console_shows_the_crossed_design_as_one_table_of_120_columns() -> None:
    class Run:
        rows = planted.rows(sources=6, clips=1, seeds=(0,))

    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relax_quantus.benchmark.report.tables.provenance", lambda results: {})
        tables.show(Run(), console)  # type: ignore[arg-type]
    text = console.export_text()
    assert "own-cell" in text
    assert "SRG-bin-silence" not in text
    assert "…" not in text
    assert broken_cells(text, tables.tables_of(checked(Run.rows))) == []


def test_on_the_console_many_metrics_are_several_tables_whose_cells_stay_whole() -> None:
    one = planted.rows(sources=6, clips=1, seeds=(0,), fills=("silence",))
    one = one[one.metric == "AUC"]

    class Run:
        rows = pd.concat([one.assign(metric=f"AUC-{i}") for i in range(12)], ignore_index=True)

    (whole,) = tables.tables_of(checked(Run.rows))
    assert len(whole.split(tables.fitting(whole))) == 3
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relax_quantus.benchmark.report.tables.provenance", lambda results: {})
        tables.show(Run(), console)  # type: ignore[arg-type]
    assert broken_cells(console.export_text(), [whole]) == []


def test_latex_escapes_and_keeps_bold() -> None:
    cells = (TableCell(Interval(-0.5, -0.7, -0.3, 9), bold=True), TableCell(Interval(np.nan, np.nan, np.nan, 0)))
    text = latex(
        Table("A & B", "95 % of_x", ("method", "m_1 ↑", "m|2"), (("RELAX-time_frequency − twin", cells),)), "a-b"
    )
    assert r"\textbf{$-$0.500 [$-$0.700, $-$0.300]} & -- \\" in text
    assert r"RELAX-time\_frequency $-$ twin" in text
    assert r"\caption{A \& B. 95 \% of\_x}" in text
    assert r"method & m\_1 $\uparrow$ & m\textbar{}2 \\" in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    assert escaped("\\~^") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}"


def test_numbers_have_the_digits_that_suit_them() -> None:
    assert [number(x, x) for x in (0.0, 0.1234, 12.345, 1234.5, 1.2345e7)] == [
        "0.000",
        "0.123",
        "12.3",
        "1234",
        "1.23e+07",
    ]
    assert TableCell(Interval(1.0, np.nan, np.nan, 3)).text() == "1.000"
    assert TableCell(Interval(0.5, 0.4, 0.8, 9)).text(short=True) == "0.500 ± 0.300"


def test_curves_are_means_over_cells_then_sources() -> None:
    table = planted.rows(sources=2, clips=2, seeds=(0,), fills=("silence",), evaluators=("silence",))
    rows = checked(table[table.method.isin(["energy", "RELAX-time:fill=silence"])])
    curves = planted.curves(table)
    found = flipping.by_source(curves, rows, {"energy": "energy", "RELAX-time:fill=silence": "RELAX-time"})
    mine = curves[(curves.method == "energy") & (curves.metric == "SRG-bin-silence") & (curves.order == "MIF")]
    mine = mine[mine["clip"].str.startswith("s1/") & (mine["share"] == 0.5)]
    line = found.xs(("bin", "MIF", "energy", "s1"), level=["granularity", "order", "label", "source_group"])
    assert line.iloc[0][20] != pytest.approx(mine.value.mean(), abs=1e-6), "both views are in it"
    embedding = checked(table[(table["view"] == "embedding") & (table.method == "energy")])
    line = flipping.by_source(curves, embedding, {"energy": "energy"}).xs(("bin", "MIF", "energy", "s1"))
    assert line[20] == pytest.approx(mine.value.mean())


def test_pictures_average_variants_by_name_when_there_are_many() -> None:
    rows = checked(planted.rows(sources=1, clips=1, seeds=(0,), evaluators=("silence",)))
    assert style.labels(rows, 20)[0]["RELAX-time:fill=mean"] == "RELAX-time, fill mean"
    few, said = style.labels(rows, 8)
    assert (few["RELAX-time:fill=mean"], said) == ("RELAX-time", "variants of a strategy averaged")
    scores = pd.DataFrame(
        {"RELAX-time:fill=mean": [1.0, 2.0], "RELAX-time:fill=silence": [3.0, 4.0], "energy": [5.0, np.nan]}
    )
    assert style.averaged(scores, few)["RELAX-time"].tolist() == [2, 3]
    colours = style.colours(["RELAX-time", "RELAX-random, fill mean", "Saliency", "Lime"])
    assert len(set(colours.values())) == 4
    assert colours["RELAX-time"] == style.colours(["RELAX-time, fill mean"])["RELAX-time, fill mean"]


def test_headings_of_old_and_new_runs(made: tuple[Path, list[Path]]) -> None:
    rows = read(made[0]).rows
    old = {
        "dataset": {"name": "synthetic", "classes": ["a"], "clips": ["x"], "skipped": ["y.wav"]},
        "head_accuracy": 0.5,
    }
    assert headings.heading(rows, old) == [
        *("synthetic: 1 clips; classes a", "skipped y.wav", "logistic head: 50.0% of held-out clips right")
    ]
    assert headings.heading(rows, {}) == []


def test_refusals(tmp_path: Path, made: tuple[Path, list[Path]]) -> None:
    with pytest.raises(
        DataError,
        match=r"nowhere: expected a folder with results\.parquet or results\.csv, got nothing there; name the --out",
    ):
        report(tmp_path / "nowhere")
    with pytest.raises(DataError, match="got a folder without them"):
        report(tmp_path)
    whole = (made[0] / "results.parquet").read_bytes()
    (tmp_path / "results.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError, match=r"results\.parquet: expected a Parquet table, got .*; it is torn .*keeps finished cells"
    ):
        report(tmp_path)
    pd.read_parquet(made[0] / "results.parquet").drop(columns="value").to_parquet(tmp_path / "results.parquet")
    with pytest.raises(DataError, match="got a table without value"):
        report(tmp_path)
    (tmp_path / "results.parquet").write_bytes(whole)
    (tmp_path / "run.json").write_text('{"torn": ')
    with pytest.raises(DataError, match=r"run\.json: expected JSON, got .*torn"):
        report(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(DataError, match="expected a JSON object, got list"):
        report(tmp_path)
    (tmp_path / "run.json").unlink()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "curves.parquet")
    with pytest.raises(DataError, match=r"curves\.parquet: expected the columns dataset, .*; remove the file"):
        report(tmp_path)
    (tmp_path / "curves.parquet").unlink()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="expected a folder that can be written to"):
        report(tmp_path, tmp_path / "file" / "below", figures=False)


def test_the_command(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(made[0]), "--out", str(tmp_path / "out"), "--no-figures"])
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "out" / "statistics.md") in done.output
    assert json.loads((tmp_path / "out" / "statistics.json").read_text())["sources"] == 12
    refused = CliRunner().invoke(app, ["report", str(tmp_path / "nothing")])
    assert refused.exit_code == 1
