"""The statistics as a page that a person reads: ``statistics.md``.

What `statistics.summary.summarise` returns enters, Markdown leaves. What could not be computed is
said in words, never left as "nan".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from relax_quantus.benchmark.report.layout import NOTHING, number

FEW = 20
"""Sources under which the page says at its top that they are few."""


def page(summary: dict[str, Any]) -> str:
    """Write the whole page."""
    lines = ["# Statistics", "", *_top(summary), ""]
    if not summary["endpoints"]:
        lines += [
            "None of the end points was measured in this run: no crossed relevance gain and no truth by construction.",
            "",
        ]
    for endpoint in summary["endpoints"]:
        lines += [*_endpoint(endpoint), ""]
    lines += list(_exploratory(summary["exploratory"]))
    return "\n".join(lines).rstrip() + "\n"


def _top(s: dict[str, Any]) -> Iterator[str]:
    yield (
        f"n = {s['sources']} source groups ({s['clips']} clips, {len(s['encoders'])} encoder(s), {len(s['seeds'])} mask seed(s)). The unit is "
        "the source group, what the data say belongs together: its cells are averaged first, intervals are 95 % bootstrap intervals over source "
        "groups. Where groups are not independent recordings, intervals are too narrow."
    )
    if s["sources"] < FEW:
        yield ""
        yield (
            f"**n = {s['sources']} source groups are few**: intervals are wide, only large differences can be told from noise, and what is not told "
            "apart may still differ."
        )
    if s["amendment"]:
        yield ""
        yield s["amendment"]
    if s["left_out_of_what_is_pooled"]:
        yield ""
        yield f"Left out of means over encoders, as a control: {', '.join(s['left_out_of_what_is_pooled'])}."


def title(e: dict[str, Any]) -> str:
    """Name an end point: its name, its data set, and its role if it has one."""
    return f"{e['name']}: {e['dataset']}" + (f" ({e['role']})" if e["role"] else "")


def _endpoint(e: dict[str, Any]) -> Iterator[str]:
    smallest = f" Smallest effect that matters: ±{e['smallest_effect']:g}." if e["smallest_effect"] else ""
    yield f"## {title(e)}"
    yield ""
    yield f"{e['unit'][:1].upper()}{e['unit'][1:]}; {len(e['evaluators'])} evaluator(s).{smallest}"
    yield ""
    if e["without_a_fall"]:
        yield f"Not in any mean, as the score does not fall there when everything goes: {', '.join(e['without_a_fall'])}."
        yield ""
    yield "| method | score | minus twin | own-cell advantage | adjusted | average rank |"
    yield "|---|---|---|---|---|---|"
    for m in e["methods"]:
        rank = e["ranking"]["ranks"].get(m["method"])
        estimates = (m[k] for k in ("level", "minus_twin", "own_cell_advantage", "own_cell_advantage_adjusted"))
        yield f"| {m['method']} | {' | '.join(estimate(x) for x in estimates)} | {NOTHING if rank is None else f'{rank:.2f}'} |"
    yield ""
    alone = [m["method"] for m in e["methods"] if not m["foreign_evaluators"]]
    if alone:
        yield f"No score for {', '.join(alone)}: every evaluator of this run has its fill or granularity."
        yield ""
    yield from _ranking(e["ranking"])
    yield from _agreement(e["agreement"])
    for family in e["families"]:
        yield from _family(family)
    yield from _variance(e["variance"])


def estimate(x: dict[str, Any]) -> str:
    """Write a plain `Interval` as ``mean [low, high]``."""
    if not x["n"] or x["value"] is None:
        return NOTHING
    value = number(x["value"], x["value"])
    return value if x["low"] is None else f"{value} [{number(x['low'], x['value'])}, {number(x['high'], x['value'])}]"


def p_value(p: float | None) -> str:
    """Write p with three digits; "< .001" below that."""
    return NOTHING if p is None else "< .001" if p < 0.001 else f"{p:.3f}"


def _ranking(r: dict[str, Any]) -> Iterator[str]:
    if r["friedman_p"] is None:
        yield "Ranks are not tested: it takes three methods and two source groups on which all were measured."
    else:
        names = ", ".join(r["not_told_from_best"])
        yield (
            f"Friedman's test that all methods are alike: p {_equals(r['friedman_p'])} (n = {r['sources']}); critical difference of average ranks "
            f"{r['critical_difference']:.2f} (Nemenyi, 5 %). Not told from the first: {names}. Ranks are of the "
            "scores; methods that different evaluators judged are ranked through third ones."
        )
    yield ""


def _equals(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _agreement(blocks: list[dict[str, Any]]) -> Iterator[str]:
    for a in blocks:
        worst = NOTHING if a["lowest"] is None else f"{a['lowest']:.2f}"
        middle = NOTHING if a["median"] is None else f"{a['median']:.2f}"
        twins = (
            "" if a["of_twins"] is None else f"; W of the twins alone, which know nothing: {number(a['of_twins'], 1.0)}"
        )
        yield (
            f"Do the {len(a['evaluators'])} evaluators that can judge {len(a['methods'])} methods rank them alike, by their scores? Kendall's W = "
            f"{estimate(a['w'])} (1 all alike; for these clips and maps, shuffled rankings reach {number(a['by_chance'], 1.0)} in one of twenty, "
            f"p {_equals(a['p'])}{twins}); "
            f"Spearman between two evaluators: median {middle}, lowest {worst}. On {len(a['own_winners'])} of {len(a['evaluators'])} evaluators "
            f"the winner is a method with this evaluator's own fill or granularity (a winner drawn at random: {a['own_by_chance']:.1f})."
        )
        yield ""


def _family(f: dict[str, Any]) -> Iterator[str]:
    said = f" ({f['role']})" if f["role"] else ""
    yield f"### {f['name'][:1].upper()}{f['name'][1:]}{said}"
    yield ""
    yield f"{len(f['comparisons'])} paired Wilcoxon test(s), Holm's correction within this table."
    yield ""
    yield "| a | b | a − b | rank-biserial | p | p (Holm) | p (equivalent) | p (equivalent, Holm) | n | evaluators | |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for c in f["comparisons"]:
        verdict = f"**{c['verdict']}**" if c["significant"] else c["verdict"]
        values = (
            estimate(c["difference"]),
            estimate(c["effect"]),
            *(p_value(c[k]) for k in ("p", "p_holm", "p_equivalence", "p_equivalence_holm")),
        )
        on = f"{c['evaluators']} ({', '.join(c['units'])})" if c["units"] else str(c["evaluators"])
        yield f"| {c['a']} | {c['b']} | {' | '.join(values)} | {c['n']} | {on} | {verdict} |"
    yield ""


def _variance(v: dict[str, Any]) -> Iterator[str]:
    v = {method: c for method, c in v.items() if any(x is not None for x in c["variances"].values())}
    if not v:
        return
    names = list(next(iter(v.values()))["shares"])
    yield "### Where the variance of the score comes from"
    yield ""
    yield "Shares of the variance of single scores. *mask seed* is whatever is left, another draw of the masks above all."
    yield ""
    yield f"| method | {' | '.join(names)} | standard deviation |"
    yield "|---" * (len(names) + 2) + "|"
    notes: dict[str, None] = {}
    for method, c in v.items():
        shares = (NOTHING if c["shares"][k] is None else f"{c['shares'][k]:.0%}" for k in names)
        total = sum(x for x in c["variances"].values() if x is not None)
        yield f"| {method} | {' | '.join(shares)} | {total**0.5:.3g} |"
        notes |= dict.fromkeys(f"{k}: {text}" for k, text in c["notes"].items())
    yield ""
    if notes:
        yield f"{'; '.join(notes)}. A component with few levels (encoders, above all) is a rough guess."
        yield ""


def _exploratory(found: list[dict[str, Any]]) -> Iterator[str]:
    told = [c for c in found if c["significant"]]
    if not found:
        return
    yield "## Exploratory: mask strategies on every other metric"
    yield ""
    yield (
        f"{len(told)} of {len(found)} comparisons are significant, each metric corrected by itself and not for the number of metrics: for ideas, "
        "not for claims. All of them are in tables/comparisons.csv."
    )
    yield ""
    if told:
        yield "| data set | metric | a | b | a − b (higher is better) | rank-biserial | p (Holm) | n |"
        yield "|---|---|---|---|---|---|---|---|"
        for c in told:
            values = (c["dataset"], c["metric"], c["a"], c["b"], estimate(c["difference"]), estimate(c["effect"]))
            yield f"| {' | '.join(values)} | {p_value(c['p_holm'])} | {c['n']} |"
