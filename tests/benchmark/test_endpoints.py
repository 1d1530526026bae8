"""The crossed design on results with planted effects: no method
marks its own work, no evaluator counts for one side only.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import planted_results as planted
import pytest

from relax_quantus.benchmark.statistics import agreement, endpoints, families, summary
from relax_quantus.benchmark.statistics.endpoints import OWN_GRANULARITY, Endpoint, areas, crossed, normalised
from relax_quantus.benchmark.statistics.ranks import above_twins, clear_winner
from relax_quantus.benchmark.statistics.rows import checked, pooled
from relax_quantus.errors import DataError
from relax_quantus.relax.masks import STRATEGIES


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return checked(planted.rows(sources=14, clips=2, seeds=(0, 1)))


@pytest.fixture(scope="module")
def endpoint(rows: pd.DataFrame) -> Endpoint:
    return Endpoint("gain", crossed(rows, "embedding"), smallest=0.05)


def test_every_strategy_has_a_granularity_of_its_own() -> None:
    assert set(OWN_GRANULARITY) >= set(STRATEGIES.names())


def test_own_cells_are_those_of_fill_or_granularity(endpoint: Endpoint) -> None:
    assert set(endpoint.foreign("RELAX-time:fill=mean")) == {
        *("bin / silence", "bin / background", "patch / silence", "patch / background"),
        *("frequency / silence", "frequency / background"),
    }
    assert endpoint.own["RELAX-time twin:fill=mean"] == endpoint.own["RELAX-time:fill=mean"]
    assert len(endpoint.foreign("energy")) == 12
    assert endpoint.foreign("RELAX-time:fill=mean", "RELAX-random:fill=silence") == [
        "bin / background",
        "frequency / background",
    ]


def test_the_level_is_the_mean_over_foreign_cells_by_hand(endpoint: Endpoint, rows: pd.DataFrame) -> None:
    mine = rows[
        (rows.method == "RELAX-frequency:fill=silence") & (rows["view"] == "embedding") & (rows.granularity != "")
    ]
    mine = mine[(mine.granularity != "frequency") & (mine.evaluator_fill != "silence")]
    expected = mine.groupby("source_group").value.mean()
    pd.testing.assert_series_equal(endpoint.level("RELAX-frequency:fill=silence"), expected, check_names=False)
    twin = rows[(rows.method == "RELAX-frequency twin:fill=silence") & rows.metric.isin(mine.metric)]
    expected = expected - twin.groupby("source_group").value.mean()
    pd.testing.assert_series_equal(endpoint.level("RELAX-frequency:fill=silence", True), expected, check_names=False)


def test_the_planted_advantage_is_found_and_only_the_adjusted_one_ignores_easy_evaluators(endpoint: Endpoint) -> None:
    for method in endpoint.ranked:
        if method.startswith("RELAX"):
            assert endpoint.advantage(method, adjusted=True).mean() == pytest.approx(planted.ADVANTAGE, abs=0.02)
    plain = {m: endpoint.advantage(m).mean() for m in endpoint.ranked}
    assert plain["RELAX-time:fill=mean"] > planted.ADVANTAGE + 0.05, "time stripes are easy for everybody"
    assert plain["RELAX-frequency:fill=mean"] < planted.ADVANTAGE - 0.03
    assert endpoint.advantage("energy").empty


def test_effects_are_the_planted_skills_without_the_evaluators_levels(endpoint: Endpoint) -> None:
    effects = endpoint.effects().mean()
    assert "oracle" not in effects.index
    assert not any("twin" in name for name in effects.index)
    level = np.mean([planted.LEVELS[g] for g in planted.GRANULARITIES])
    for method, value in effects.items():
        skill = planted.SKILL[str(method).partition(":")[0].removeprefix("RELAX-")]
        assert value == pytest.approx(skill + level, abs=0.05)


def test_with_every_cell_foreign_effects_are_plain_means(rows: pd.DataFrame) -> None:
    auc = Endpoint("AUC", rows[rows.metric == "AUC"])
    pd.testing.assert_series_equal(auc.effects()["energy"], auc.level("energy"), check_names=False)
    found = Endpoint("gain", crossed(rows, "embedding")[lambda r: r.method.isin(["energy", "Saliency"])])
    pd.testing.assert_series_equal(found.effects()["energy"], found.level("energy"), check_names=False)


def test_a_missing_evaluator_never_shifts_a_mean(rows: pd.DataFrame) -> None:
    gone = (rows["clip"] == "s0/0.wav") & (rows.metric == "SRG-time-background") & (rows.method == "energy")
    assert gone.sum() == 2
    whole = Endpoint("gain", crossed(rows, "embedding"))
    torn = Endpoint("gain", crossed(rows[~gone], "embedding"))
    assert torn.foreign("energy") == whole.foreign("energy")
    other = whole.wide["energy"].mean(axis=1).loc["s0"]
    left = other[other.index.get_level_values("clip") == "s0/1.wav"]
    assert torn.level("energy")["s0"] == pytest.approx(left.mean()), (
        "the cell without all evaluators is left out, whole"
    )
    nowhere = (rows.metric == "SRG-time-background") & (rows.method == "energy")
    assert "time / background" not in Endpoint("gain", crossed(rows[~nowhere], "embedding")).foreign("energy")


def test_methods_are_compared_on_the_cells_that_both_have(rows: pd.DataFrame) -> None:
    auc = rows[(rows.metric == "AUC") & ~((rows.method == "energy") & (rows.source_group == "s3"))]
    differences, evaluators = Endpoint("AUC", auc).difference("energy", "Saliency")
    assert (len(differences), evaluators, "s3" in differences.index) == (13, ["AUC"], False)


def test_families_are_matched_by_what_the_names_say(endpoint: Endpoint) -> None:
    found = families.variants(endpoint.rows)
    pairs = families.matches(found, "masks")
    assert len(pairs) == 6
    assert pairs["RELAX-random", "RELAX-time"] == [
        (f"RELAX-random:fill={f}", f"RELAX-time:fill={f}") for f in ("silence", "mean")
    ]
    assert list(families.matches(found, "fill")) == [("silence", "mean")]
    assert families.matches(found, "edges") == {}
    made = families.factors(endpoint, "embedding")
    main, others = ["mask strategies", "fills"], ["mask strategies, fill silence", "mask strategies, fill mean"]
    again = [f"{name}, minus twins" for name in main]
    assert [f.name for f in made] == [main[0], *others, main[1], *again]
    assert [f.name for f in made if f.main] == main


def test_differences_do_not_know_the_twins_and_taking_twins_off_adds_their_noise(rows: pd.DataFrame) -> None:
    noisy = crossed(rows, "embedding")
    noise = np.random.default_rng(5).normal(0, 0.2, len(noisy))
    noisy = noisy.assign(score=noisy.score + noise * (noisy.twin_of != ""))
    with_noise, plain = (
        {f.name: f for f in families.factors(Endpoint("gain", r, 0.05), "embedding")}
        for r in (noisy, crossed(rows, "embedding"))
    )
    same, minus = "mask strategies", "mask strategies, minus twins"
    for a, b in zip(with_noise[same].comparisons, plain[same].comparisons, strict=True):
        assert a == b
    widths = [sum(c.difference.high - c.difference.low for c in with_noise[name].comparisons) for name in (minus, same)]
    assert widths[0] > 1.5 * widths[1]


def test_estimators_are_a_factor_of_their_own() -> None:
    table = planted.rows(sources=8, clips=1, seeds=(0,), fills=("silence",))
    other = table[table.masks == "random"].replace({"estimator": {"weighted": "paper"}})
    renamed = {name: other[name].str.replace("silence", "silence,estimator=paper") for name in ("method", "twin_of")}
    found = Endpoint("gain", crossed(checked(pd.concat([table, other.assign(**renamed)])), "embedding"))
    family = next(f for f in families.factors(found, "embedding") if f.name == "estimators")
    assert [(c.a, c.b, c.n) for c in family.comparisons] == [("weighted", "paper", 8)]


def test_the_planted_order_is_told_and_what_is_alike_is_not(endpoint: Endpoint) -> None:
    family = families.factors(endpoint, "embedding")[0]
    verdicts = {(c.a, c.b): c.verdict for c in family.comparisons}
    assert verdicts["RELAX-time", "RELAX-frequency"] == "RELAX-time above RELAX-frequency"
    assert "above" not in verdicts["RELAX-random", "RELAX-time_frequency"]
    by_twin = {
        c.a: c.significant
        for f in families.against_nulls(endpoint, "embedding")
        for c in f.comparisons
        if "twin" in c.b
    }
    assert by_twin == dict.fromkeys((f"RELAX-{m}" for m in planted.STRATEGIES), True)


def test_logit_endpoints_take_methods_that_explain_the_logit_where_there_are_any(rows: pd.DataFrame) -> None:
    found = families.variants(rows)
    assert families.towards(found, "logit") == found
    renamed = rows.assign(method=rows.method.where(rows["fill"] != "mean", rows.method + ",view=logit"))
    mixed = families.variants(renamed)
    assert {v.fill for v in families.towards(mixed, "logit")} == {"mean"}
    assert {v.fill for v in families.towards(mixed, "embedding")} == {"silence"}


def test_evaluators_agree_only_when_nobody_is_favoured(rows: pd.DataFrame) -> None:
    (mixed,) = agreement.between_evaluators(Endpoint("gain", crossed(rows, "embedding")))
    assert mixed.w.low < mixed.w.value < 0.9
    assert len(mixed.own_winners) >= 8
    own, third = {"bin": 4, "patch": 6, "time": 5, "frequency": 5}, {"bin": 0, "patch": 4, "time": 2, "frequency": 2}
    expected = (
        2 * sum(own.values()) + sum(third.values())
    ) / 8  # of eight methods; evaluators of two of their fills, and of a third
    assert mixed.own_by_chance == pytest.approx(expected)
    honest = rows[rows.masks == ""].replace({"method": {"oracle": "third"}, "base": {"oracle": "third"}})
    (alike,) = agreement.between_evaluators(Endpoint("gain", crossed(honest, "embedding")))
    assert alike.w.value == 1
    assert alike.p < 0.05
    assert (alike.median, alike.lowest, alike.own_winners) == (1, 1, [])
    assert agreement.between_evaluators(Endpoint("AUC", rows[rows.metric == "AUC"])) == []


def test_noise_of_twins_that_evaluators_share_is_no_agreement(rows: pd.DataFrame) -> None:
    """Evaluators that order strategies at random, and twins whose
    noise all evaluators see: W is that of shuffled rankings.
    """
    found = crossed(rows, "embedding")
    rng, alike = np.random.default_rng(3), {}
    for method in found.method.unique():
        alike[method] = rng.normal(0, 5) if " twin" in method else 0.0
    order = {key: rng.normal() for key in found.groupby(["method", "metric"]).groups}
    noise = [order[key] for key in zip(found.method, found.metric, strict=True)]
    (block,) = agreement.between_evaluators(Endpoint("gain", found.assign(score=found.method.map(alike) + noise)))
    assert block.w.value < block.by_chance
    assert block.p > 0.05
    assert block.of_twins > 0.8


def test_shuffled_rankings_have_a_w_of_one_over_the_evaluators_and_noise_is_no_agreement() -> None:
    rng = np.random.default_rng(0)
    assert agreement.chance(rng.normal(size=(5, 7)), 0, 4000).mean() == pytest.approx(1 / 5, abs=0.01)
    significant = []
    for repeat in range(200):
        scores = rng.normal(size=(6, 8))
        w, shuffled = float(agreement.kendall_w(scores)), agreement.chance(scores, repeat, 200)
        significant.append(np.mean(shuffled >= w) < 0.05)
    assert 0.01 < np.mean(significant) < 0.11


@pytest.fixture(scope="module")
def judged() -> pd.DataFrame:
    """Three encoders, of which one falls three times
    as far; three fills; stripes are not judged across.
    """
    encoders = ("vggish_mini", "other", "deaf")
    table = planted.rows(sources=14, clips=1, seeds=(0,), fills=planted.FILLS, encoders=encoders)
    return checked(planted.with_falls(planted.as_judged(table), {"vggish_mini": 0.5, "other": 1.5, "deaf": -0.1}))


def test_two_explainers_meet_on_what_both_can_rank_and_neither_owns(judged: pd.DataFrame) -> None:
    found = Endpoint("gain", crossed(judged, "embedding"))
    assert found.foreign("RELAX-time:fill=mean", "RELAX-random:fill=mean") == ["bin / silence", "bin / background"]
    assert found.foreign("RELAX-time:fill=mean", "RELAX-frequency:fill=mean") == [
        *("bin / silence", "bin / background", "patch / silence", "patch / background"),
    ]
    assert found.foreign("RELAX-random:fill=mean", "RELAX-random:fill=silence") == [
        *("bin / background", "time / background", "frequency / background"),
    ]
    strategies, *_, fills = families.factors(found, "embedding")
    by_pair = {(c.a, c.b): (c.evaluators, c.units) for c in strategies.comparisons}
    assert by_pair["RELAX-random", "RELAX-time"] == (2, ("bin",))
    assert by_pair["RELAX-random", "RELAX-time_frequency"] == (6, ("bin", "time", "frequency"))
    assert {(c.a, c.b) for c in fills.comparisons} == {
        ("silence", "mean"), ("silence", "background"), ("mean", "background"),
    }  # fmt: skip


def test_gains_are_shares_of_what_the_encoder_can_lose_and_an_encoder_that_loses_nothing_has_none(
    judged: pd.DataFrame,
) -> None:
    plain, shares = crossed(judged, "embedding"), normalised(crossed(judged, "embedding"))
    by_encoder = {n: Endpoint("g", p).level("energy").mean() for n, p in plain.groupby("encoder")}
    assert by_encoder["other"] / by_encoder["vggish_mini"] == pytest.approx(3, rel=0.3)
    by_encoder = {n: Endpoint("g", p).level("energy").mean() for n, p in shares.groupby("encoder")}
    assert by_encoder["other"] == pytest.approx(by_encoder["vggish_mini"], abs=0.06)
    assert by_encoder["vggish_mini"] == pytest.approx(planted.SKILL["energy"] + 0.0425, abs=0.06)
    assert np.isnan(by_encoder["deaf"]), "its score rises when everything is replaced: a share of that means nothing"
    one = shares[(shares.encoder == "other") & (shares.metric == "SRG-bin-mean")]
    factor = (one.score / one.value).to_numpy()
    np.testing.assert_allclose(factor, factor[0], err_msg="one number for all clips and methods")
    pd.testing.assert_frame_equal(normalised(plain.assign(fall=np.nan)), plain.assign(fall=np.nan))


def test_the_planted_answer_comes_out_of_the_whole_end_point(judged: pd.DataFrame) -> None:
    """Time is planted best, frequency worst, random and time_frequency
    alike, fills alike; evaluators' levels differ by granularity.
    """
    made = summary.summarise(judged, roles=summary.roles_of({"primary": ["gain_embedding"]}))
    primary = made["endpoints"][0]
    assert (primary["key"], primary["role"], primary["smallest_effect"]) == ("gain_embedding", "primary", 0.05)
    assert "as a share" in primary["unit"]
    found = {f["name"]: {(c["a"], c["b"]): c for c in f["comparisons"]} for f in primary["families"]}
    verdicts = {pair: c["verdict"] for pair, c in found["mask strategies"].items()}
    assert verdicts["RELAX-time", "RELAX-frequency"] == "RELAX-time above RELAX-frequency"
    assert verdicts["RELAX-random", "RELAX-time"] == "RELAX-time above RELAX-random"
    assert verdicts["RELAX-random", "RELAX-frequency"] == "RELAX-random above RELAX-frequency"
    assert "above" not in verdicts["RELAX-random", "RELAX-time_frequency"]
    difference = found["mask strategies"]["RELAX-random", "RELAX-frequency"]["difference"]["value"]
    assert difference == pytest.approx(planted.SKILL["random"] - planted.SKILL["frequency"], abs=0.03)
    assert not any("above" in c["verdict"] for c in found["fills"].values())
    assert all(c["significant"] for c in found["strategies and their shuffled twins"].values())
    blocks, planted_twins = primary["agreement"], Endpoint("gain", crossed(judged, "embedding")).twins
    assert [len(b["evaluators"]) for b in blocks] == [6, 12]
    assert not any("RELAX-time:" in m or "RELAX-frequency:" in m for m in blocks[1]["methods"])
    assert all(0 < b["by_chance"] < 1 for b in blocks)
    assert all(b["of_twins"] > 0.7 for b in blocks), "evaluators share a map's noise, which alone looks like agreement"
    assert all(m in planted_twins for b in blocks for m in b["methods"])
    assert {name.partition(" on ")[0] for name in primary["without_a_fall"]} == {"deaf"}


def test_an_encoder_whose_score_does_not_fall_is_said_to_be_left_out(judged: pd.DataFrame) -> None:
    found = crossed(judged, "embedding")
    found = found[found.encoder != "deaf"]
    flat = found.assign(fall=found.fall.where(found.metric != found.metric.iloc[0], -0.1))
    assert endpoints.without_a_fall(found) == []
    assert {name.partition(" on ")[2] for name in endpoints.without_a_fall(flat)} == {found.metric.iloc[0]}
    assert normalised(flat)[flat.fall < 0].score.isna().all()


def test_metrics_that_measure_the_same_agree_whatever_their_direction(rows: pd.DataFrame) -> None:
    for how in ("spearman", "kendall"):
        found = agreement.between_metrics(rows, how)
        assert found.loc["PixelFlipping", "AUC"] > 0.8
    few = agreement.between_metrics(rows[rows.method.isin(["energy", "Saliency"])])
    assert few.isna().all(axis=None)


def test_bold_is_earned(endpoint: Endpoint, rows: pd.DataFrame) -> None:
    assert clear_winner(endpoint) is None, "the best two share their skill"
    best = rows[~rows.method.str.startswith("RELAX") | rows.method.str.startswith("RELAX-time:fill=mean")]
    assert clear_winner(Endpoint("AUC", best[best.metric == "AUC"])) == "RELAX-time:fill=mean"
    lower = best[(best.metric == "PixelFlipping") & (best.method != "energy")]
    assert clear_winner(Endpoint("PixelFlipping", lower)) == "RELAX-time:fill=mean"
    few = best[best.source_group.isin(["s0", "s1", "s2", "s3"])]
    assert clear_winner(Endpoint("AUC", few[few.metric == "AUC"])) is None
    assert len(above_twins(endpoint)) == 8
    null = rows[rows.metric == "AUC"].assign(score=lambda r: np.random.default_rng(1).normal(size=len(r)))
    assert above_twins(Endpoint("AUC", null)) == set()


def test_both_halves_of_a_gain_are_told_and_their_difference_is_the_score() -> None:
    rows = planted.rows(sources=3, clips=2, seeds=(0,), fills=("silence",))
    main = rows[rows.metric.str.startswith("SRG-") & (rows.part == "")]
    parts = [main.assign(part=name, value=value) for name, value in (("LIF", main.value + 0.25), ("MIF", 0.25))]
    made = areas(checked(pd.concat([rows[rows.part == ""], *parts])))
    assert len(made) == len(main[["encoder", "metric", "method"]].drop_duplicates())
    assert {entry["sources"] for entry in made} == {3}
    for entry in made[:5]:
        scores = main[(main.metric == entry["metric"]) & (main.method == entry["method"])]
        assert entry["most_influential_first"] == pytest.approx(0.25)
        assert entry["difference"] == pytest.approx(scores.groupby("source_group").value.mean().mean())
    assert areas(checked(rows[rows.part == ""])) == []


def test_the_summary_has_the_protocols_endpoints_and_is_json() -> None:
    rows = checked(planted.rows(sources=8, clips=1, evaluators=("silence", "mean"), fills=("silence",)))
    null = rows[rows.source_group == "s0"].assign(encoder="random:of=vggish_mini", score=0.0, value=0.0)
    two = pd.concat([rows, rows[rows.method != "Saliency"].assign(dataset="real"), null])
    made = json.loads(json.dumps(summary.summarise(two), allow_nan=False))
    assert [(e["dataset"], e["role"], e["key"]) for e in made["endpoints"]] == [
        (d, "", k) for d in ("planted", "real") for k in ("gain_embedding", "gain_logit", "auc_region")
    ]
    assert made["left_out_of_what_is_pooled"] == ["random:of=vggish_mini"]
    assert made["sources"] == 8
    first = made["endpoints"][0]
    assert first["smallest_effect"] == 0.05
    assert {c["encoder"] for c in first["conditions"]} == {"vggish_mini", "random:of=vggish_mini"}
    shares = first["variance"]["RELAX-random:fill=silence"]["shares"]
    assert shares["source"] > shares["mask seed"] > 0


def test_controls_count_when_there_is_nothing_else(rows: pd.DataFrame) -> None:
    only = rows.assign(encoder="random:of=vggish_mini")
    assert len(pooled(only)[0]) == len(only)


def test_rows_of_other_programs() -> None:
    table = planted.rows(sources=2, clips=1, seeds=(0,))
    old = table[["dataset", "clip", "source_group", "method", "metric", "category", "direction", "value", "status"]]
    found = checked(old[~old.method.str.contains(":")])
    assert set(found.part) == {""}
    twin = checked(pd.DataFrame(old.iloc[:1]).assign(method="RELAX-time twin:fill=mean"))
    assert (twin.twin_of.iloc[0], twin.base.iloc[0]) == ("RELAX-time:fill=mean", "RELAX-time twin")
    with pytest.raises(
        DataError, match=r"results: expected the columns .*, got a table without source_group, value; name the folder"
    ):
        checked(table.drop(columns=["value", "source_group"]))
    with pytest.raises(DataError, match="expected at least one row, got none"):
        checked(table.iloc[:0])
