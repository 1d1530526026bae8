"""Each statistic against another way to the same number: enumeration,
a closed form, a published example, another library, or a simulation.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from relax_quantus.benchmark.statistics import agreement, comparisons, intervals, ranks, variance
from relax_quantus.benchmark.statistics.rows import CELL

RNG = np.random.default_rng(5)
DEMSAR = {  # Demsar 2006, table 6: AUC of C4.5, with m, with cf, with both, on 14 data sets; .975 of the 13th stands twice, ranked 2 and 3
    "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.940, 0.619, 0.972, 0.957],
    "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978],
    "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.0, 0.965, 0.614, 0.9751, 0.946],
    "C4.5+m+cf": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.0, 0.962, 0.669, 0.975, 0.970],
}


# -- intervals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_is_scipys_bca(sign: int) -> None:
    x = sign * RNG.exponential(size=40)
    found = intervals.mean(x, resamples=20_000)
    level = intervals.expanded(0.95, 40)
    other = stats.bootstrap((x,), np.mean, n_resamples=20_000, confidence_level=level, method="BCa", rng=1)
    assert found.value == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx(tuple(other.confidence_interval), abs=0.02)
    assert abs(found.high - found.value) != pytest.approx(abs(found.value - found.low), rel=0.05), "skew must show"


@pytest.mark.parametrize("n", [6, 12, 30])
def test_intervals_cover_in_nineteen_of_twenty_even_with_few_sources(n: int) -> None:
    rng = np.random.default_rng(n)
    hits = [
        abs((e := intervals.mean(rng.normal(1, 2, n), resamples=1000)).low) <= math.inf and e.low <= 1 <= e.high
        for _ in range(400)
    ]
    assert 0.92 <= np.mean(hits) <= 0.98


def test_for_many_sources_the_level_is_the_plain_one_and_for_few_that_of_t() -> None:
    assert intervals.expanded(0.95, 100_000) == pytest.approx(0.95, abs=1e-4)
    n, level = 8, intervals.expanded(0.95, 8)
    half_of_bootstrap = stats.norm.isf((1 - level) / 2) * math.sqrt((n - 1) / n)
    assert half_of_bootstrap == pytest.approx(stats.t.isf(0.025, n - 1))


def test_no_sources_one_source_and_equal_scores() -> None:
    assert intervals.mean([]).n == 0
    assert math.isnan(intervals.mean([math.nan]).value)
    alone = intervals.mean([0.3, math.nan])
    assert (alone.value, alone.n, alone.bounded) == (0.3, 1, False)
    same = intervals.mean([0.3] * 6)
    assert (same.low, same.high) == (0.3, 0.3)
    assert not intervals.mean([1.0, 2.0, 3.0, 4.0]).bounded
    assert intervals.mean([1.0, 1.1, 1.3, 0.9, 1.2]).excludes_zero


# -- paired comparisons ----------------------------------------------------------------------------


def enumerated(d: list[float]) -> float:
    """Two-sided signed-rank p by all 2^n signs; zeros left out, ties share ranks."""
    d = [x for x in d if x]
    order = stats.rankdata(np.abs(d))
    seen = abs(sum(r * np.sign(x) for r, x in zip(order, d, strict=True)))
    sums = [
        abs(sum(r * s for r, s in zip(order, signs, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(d))
    ]
    return float(np.mean([s >= seen - 1e-9 for s in sums]))


@pytest.mark.parametrize(
    "d",
    [[0.1, 0.2, -0.3, 0.4, 0.5], [1, 1, 1, -1, 2, 3], [0, 0, 0.5, 1, -2, 2], [0.1] * 6, [3, -1, 2, -4, 5, 6, -7, 8]],
)
def test_wilcoxon_by_enumeration(d: list[float]) -> None:
    assert comparisons.wilcoxon(d) == pytest.approx(enumerated(d))


def test_round_off_breaks_no_tie() -> None:
    d = np.array([0.1, 0.1 + 1e-16, 0.3 - 0.2, -0.1, 0.2, 0.2])
    assert comparisons.wilcoxon(d) == pytest.approx(enumerated([1, 1, 1, -1, 2, 2]))


def test_wilcoxon_of_nothing_and_of_equal_scores() -> None:
    assert math.isnan(comparisons.wilcoxon([]))
    assert comparisons.wilcoxon([0.0, 0.0, 0.0]) == 1.0
    same = comparisons.holm([comparisons.compare("a", "b", [0.0] * 8, smallest=0.05)])[0]
    assert (same.p_holm, same.effect.value, same.difference.value) == (1, 0, 0)
    assert same.verdict == "equivalent within ±0.05"


def test_rank_biserial_of_kerbys_kind_and_by_hand() -> None:
    d = [0, 3.0, -1.0, 2.0, 2.0, -2.0, 0]
    ranks_of = {3.0: 5, 1.0: 1, 2.0: 3}
    plus, minus = ranks_of[3.0] + 2 * ranks_of[2.0], ranks_of[1.0] + ranks_of[2.0]
    assert float(comparisons.rank_biserial(d)) == pytest.approx((plus - minus) / (plus + minus))
    assert comparisons.rank_biserial(np.array([d, [-x for x in d]])).tolist() == pytest.approx([7 / 15, -7 / 15])
    assert float(comparisons.rank_biserial([0.0, 0.0])) == 0


def test_an_effect_without_exceptions_is_not_certain() -> None:
    found = comparisons.effect_size(np.arange(1, 13))
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(2 * stats.binomtest(12, 12).proportion_ci(0.95).low - 1)
    mirrored = comparisons.effect_size(-np.arange(1, 13))
    assert (mirrored.low, mirrored.high) == (-1, -found.low)


def test_effect_intervals_cover() -> None:
    rng, truth = np.random.default_rng(3), 0.0
    big = float(comparisons.rank_biserial(rng.normal(0.5, 1, 400_000)))
    for shift, truth in ((0.0, 0.0), (0.5, big)):
        found = [
            comparisons.statistic(rng.normal(shift, 1, 25), comparisons.rank_biserial, resamples=300) for _ in range(60)
        ]
        assert np.mean([e.low <= truth <= e.high for e in found]) >= 0.86


def test_equivalence_is_two_t_tests() -> None:
    d = RNG.normal(0.01, 0.05, 25)
    error = d.std(ddof=1) / 5
    upper, lower = stats.t.cdf((d.mean() - 0.04) / error, 24), stats.t.sf((d.mean() + 0.04) / error, 24)
    assert comparisons.equivalence(d, 0.04) == pytest.approx(max(upper, lower))
    assert comparisons.equivalence([0.01] * 5, 0.04) == 0
    assert comparisons.equivalence([0.05] * 5, 0.04) == 1
    assert math.isnan(comparisons.equivalence([0.01], 0.04))
    assert math.isnan(comparisons.equivalence(d, math.nan))


def test_holm_by_hand_and_without_those_that_were_not_tested() -> None:
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan}
    nothing = intervals.mean([])
    family = [comparisons.Comparison(k, "x", nothing, v, nothing, math.nan, math.nan, 0.0) for k, v in p.items()]
    found = {c.a: c.p_holm for c in comparisons.holm(family)}
    assert [found[k] for k in "abc"] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(found["d"])
    assert comparisons.holm([]) == []
    near, some = [0.04, 0.01, math.nan, 0.03], intervals.mean([0.01] * 9)
    bounded = [replace(c, difference=some, p=0.5, p_equivalence=v) for c, v in zip(family, near, strict=True)]
    corrected = [c.p_equivalence_holm for c in comparisons.holm(bounded)]
    assert [*corrected[:2], corrected[3]] == pytest.approx([0.06, 0.03, 0.06])
    assert [c.small for c in comparisons.holm(bounded)] == [True, True, False, True], (
        "the 90 % interval, whatever the family"
    )


def test_holm_is_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    for n in (1, 2, 6, 30):
        p = RNG.uniform(0, 0.2, n).round(2)
        assert comparisons.multiple(list(p)) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_keeps_the_familys_error_near_five_percent() -> None:
    rng, errors, runs = np.random.default_rng(8), 0, 400
    for _ in range(runs):
        scores = rng.normal(size=(20, 4)) + rng.normal(size=(20, 1))
        family = [comparisons.wilcoxon(scores[:, i] - scores[:, j]) for i, j in itertools.combinations(range(4), 2)]
        errors += min(comparisons.multiple(family)) <= 0.05
    assert 0.015 <= errors / runs <= 0.075


def test_too_few_sources_are_said_to_be_too_few() -> None:
    family = [comparisons.compare("a", k, np.arange(1, 6) / 10, smallest=0.05) for k in "bcdefg"]
    made = comparisons.holm(family)
    assert made[0].smallest_p == pytest.approx(enumerated([1, 2, 3, 4, 5])) == pytest.approx(made[0].p)
    assert made[0].verdict == "n = 5 source groups: too few to tell 6 comparisons apart"
    assert comparisons.compare("a", "b", []).verdict == "not comparable"
    # fifteen sources say b, one far source turns the mean: the test goes by ranks, so no winner is
    # named
    torn = comparisons.holm([comparisons.compare("a", "b", [-0.01 - k / 1000 for k in range(15)] + [1.0])])[0]
    assert torn.significant
    assert torn.verdict == "differ, but mean and ranks disagree"
    twelve = comparisons.holm([comparisons.compare("a", k, np.arange(1, 13) / 10, smallest=0.05) for k in "bcdefg"])
    assert twelve[0].verdict == "a above b"


# -- ranks -----------------------------------------------------------------------------------------


def test_ranks_of_demsars_example() -> None:
    found = ranks.rank(pd.DataFrame(DEMSAR))
    assert {k: round(v, 3) for k, v in found.ranks.items()} == {
        "C4.5+m+cf": 1.964,
        "C4.5+m": 2.0,
        "C4.5+cf": 2.893,
        "C4.5": 3.143,
    }
    assert found.n == 14
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    r = np.array([3.143, 2.0, 2.893, 1.964])
    without_ties = 12 * 14 / (4 * 5) * ((r**2).sum() - 4 * 25 / 4)
    assert without_ties == pytest.approx(9.28, abs=0.02), (
        "the article's own number, so that the table above is the article's"
    )
    ties = 3 * (2**3 - 2) + (4**3 - 4)
    assert found.p == pytest.approx(stats.chi2.sf(without_ties / (1 - ties / (14 * 4 * 15)), 3), rel=0.01)


def test_a_pair_is_told_apart_where_its_ranks_are_further_than_the_critical_difference() -> None:
    table = pd.DataFrame(DEMSAR)
    found = ranks.rank(table)
    for a, b in itertools.combinations(table.columns, 2):
        assert (found.pairwise.loc[a, b] < 0.05) == (abs(found.ranks[a] - found.ranks[b]) > found.critical_difference)


def test_rankings_of_little() -> None:
    two = ranks.rank(pd.DataFrame({"a": [1.0, 2.0], "b": [0.0, 1.0]}))
    assert two.ranks == {"a": 1, "b": 2}
    assert math.isnan(two.p)
    assert ranks.rank(pd.DataFrame()).ranks == {}
    missing = ranks.rank(pd.DataFrame({"a": [1.0, np.nan], "b": [0.0, 1.0], "c": [2.0, 5.0]}))
    assert (missing.n, missing.ranks["c"]) == (1, 1)
    tied = ranks.rank(pd.DataFrame(np.ones((5, 3)), columns=list("abc")))
    assert (set(tied.ranks.values()), tied.p, tied.best) == ({2.0}, 1.0, ["a", "b", "c"])


# -- agreement -------------------------------------------------------------------------------------


def test_w_is_friedmans_statistic_scaled() -> None:
    scores = RNG.normal(size=(7, 5)) + np.arange(5)
    friedman = stats.friedmanchisquare(*scores.T).statistic
    assert agreement.kendall_w(scores) == pytest.approx(friedman / (7 * 4))
    tied = np.round(scores)
    assert agreement.kendall_w(tied) == pytest.approx(stats.friedmanchisquare(*tied.T).statistic / (7 * 4))
    assert math.isnan(agreement.kendall_w([[1, 1, 1], [2, 2, 2]]))
    assert math.isnan(agreement.kendall_w([[1, 2, 3]]))


def test_spearman_is_scipys() -> None:
    scores = RNG.normal(size=(4, 9)).round(1)
    np.testing.assert_allclose(agreement.spearman(scores), stats.spearmanr(scores.T).statistic)


# -- variance --------------------------------------------------------------------------------------


def cells(sources: int, clips: int, encoders: int, seeds: int, sd: dict[str, float], generator: int = 0) -> pd.Series:
    """Scores with planted standard deviations."""
    rng, made = np.random.default_rng(generator), []
    of_encoder = rng.normal(0, sd.get("encoder", 0), encoders)
    for s in range(sources):
        of_source = rng.normal(0, sd.get("source", 0))
        for c in range(clips):
            of_clip = rng.normal(0, sd.get("clip", 0))
            for e in range(encoders):
                of_both = rng.normal(0, sd.get("both", 0))
                for k in range(seeds):
                    y = of_source + of_clip + of_encoder[e] + of_both + rng.normal(0, sd["seed"])
                    made.append((f"s{s}", "d", f"e{e}", str(k), f"s{s}c{c}", y))
    return pd.DataFrame(made, columns=[*CELL, "y"]).set_index(list(CELL)).y


def test_planted_variances_are_found() -> None:
    sd = {"source": 0.1, "clip": 0.07, "both": 0.03, "seed": 0.02, "encoder": 0.05}
    found = [variance.components(cells(60, 2, 6, 3, sd, g)).variances for g in range(8)]
    mean = {k: np.mean([f[k] for f in found]) for k in found[0]}
    expected = {"encoder": 0.05**2, "source": 0.1**2, "clip": 0.07**2, "clip x encoder": 0.03**2, "mask seed": 0.02**2}
    assert math.isnan(mean.pop("dataset"))
    assert {k: mean[k] ** 0.5 for k in expected} == pytest.approx({k: v**0.5 for k, v in expected.items()}, rel=0.25)


def test_a_nested_design_in_closed_form_and_by_maximum_likelihood() -> None:
    import statsmodels.formula.api as smf

    scores = cells(40, 1, 1, 4, {"source": 0.1, "seed": 0.05})
    found = variance.components(scores)
    table = scores.to_numpy().reshape(40, 4)
    within = table.var(axis=1, ddof=1).mean()
    between = table.mean(axis=1).var(ddof=1) - within / 4
    assert found.variances["mask seed"] == pytest.approx(within)
    assert found.variances["source"] == pytest.approx(between, rel=1e-6)
    assert found.reasons["source"] == "includes clip, clip x encoder"
    frame = scores.rename("y").reset_index()
    model = smf.mixedlm("y ~ 1", frame, groups=frame.source_group).fit()
    assert found.variances["mask seed"] == pytest.approx(model.scale, rel=1e-3)
    assert found.variances["source"] == pytest.approx(float(model.cov_re.iloc[0, 0]), rel=1e-3)


def test_what_cannot_be_told_apart_is_said() -> None:
    alone = variance.components(cells(10, 1, 1, 1, {"source": 0.1, "seed": 0.05}))
    assert [k for k, v in alone.variances.items() if math.isfinite(v)] == ["source"]
    assert alone.reasons["source"] == "includes clip, clip x encoder, mask seed"
    assert alone.reasons["mask seed"] == "cannot be told from source"
    assert alone.reasons["encoder"] == "one level only"
    assert alone.shares["source"] == 1
    nothing = variance.components(cells(1, 1, 1, 2, {"seed": 0.1}))
    assert all(math.isnan(v) for v in nothing.variances.values())
    assert nothing.reasons["source"] == "2 scores are too few"


def test_an_unbalanced_design_is_not_biased() -> None:
    sd, found = {"source": 0.1, "clip": 0.07, "seed": 0.02}, []
    for g in range(10):
        scores = cells(60, 3, 1, 3, sd, g)
        found.append(variance.components(scores[np.random.default_rng(g).random(len(scores)) < 0.6]).variances)
    assert np.mean([f["source"] for f in found]) ** 0.5 == pytest.approx(0.1, rel=0.2)
    assert np.mean([f["mask seed"] for f in found]) ** 0.5 == pytest.approx(0.02, rel=0.2)
