"""Say in plain words what a run found: which strategies were told apart, what has no value.

`summarise`'s dictionary enters, Markdown leaves. Nothing is decided here: verdicts are those of the
tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from relax_quantus.benchmark.report.html import quoted
from relax_quantus.benchmark.report.layout import number
from relax_quantus.benchmark.report.statistics_page import estimate, p_value, title
from relax_quantus.benchmark.statistics.families import TWINS_CHECK

if TYPE_CHECKING:
    import pandas as pd

HOW_TO_READ = {
    "X − twin": "X minus its shuffled twin: the same masks with the similarities permuted. The twin has X's smoothness and shapes and no "
    "information, so 0 is nothing: a check of each method's level. Two methods are compared by their scores as they are.",
    "[low, high]": "A 95 % bootstrap interval over source groups, what the data say belongs together: were other groups of the same kind drawn, "
    "the mean would mostly lie in there. It is not the spread of single clips.",
    "X above Y": "A paired Wilcoxon test over source groups found a difference at 5 %, corrected for all tests of the table (Holm), and mean and "
    "ranks agree on its direction.",
    "not told apart": "Too little was measured to say which is higher. It does not say that they are equal.",
    "equivalent within ±d": "The 90 % interval of the difference lies within d either way, and d was set beforehand as what matters.",
    "too few": "With so few source groups no result, however clear, could pass the correction for so many tests.",
    "rank-biserial": "How one-sided the differences are: 1 if a is higher on every source, −1 if on none, 0 if as often and as much either way.",
    "own cell": "An evaluator that removes with a method's own fill or its own shape of cells favours that method; means leave these out, and the "
    "advantage is listed by itself.",
    "average rank": "Over source groups; 1 is best. Ranks nearer than the critical difference were not told apart.",
    "Kendall's W": "How much the evaluators agree in how they rank the methods by their scores: 1 entirely; rankings that are shuffled do not "
    "reach 0, so what they reach stands beside it.",
}
"""What the tables' words mean."""
ABOVE = " above "
"""In a verdict: mean and ranks agree that one is higher."""
AGAINST = {
    TWINS_CHECK: "their shuffled twins, which know nothing",
    "strategies and plain energy": "plain energy, which does not look at the network",
}
"""Families in which every strategy is compared with the same thing -> that thing."""


def in_short(summary: dict[str, Any]) -> str:
    """Say what was found on each end point.

    Mask strategies against each other, then all of them against their twins and against plain
    energy.
    """
    lines: list[str] = []
    for endpoint in summary["endpoints"]:
        families = endpoint["families"]
        if families and families[0]["comparisons"]:
            lines += [f"## {title({**endpoint, 'dataset': quoted(endpoint['dataset'])})}", ""]
            said = [
                *sentences(families[0]["comparisons"]),
                *(all_against(f) for f in families[1:] if f["name"] in AGAINST),
            ]
            lines += [*(f"- {sentence}" for sentence in said), ""]
    if not lines:
        return "No two mask strategies were compared on an end point in this run; the tables show what was measured.\n"
    amendment = summary.get("amendment")
    return "\n".join([amendment, "", *lines] if amendment else lines)


def sentences(comparisons: list[dict[str, Any]]) -> Iterator[str]:
    """Write one sentence for each comparison, those with a result first."""
    for c in sorted(comparisons, key=lambda c: (not c["significant"], c["p_holm"] is None, c["p_holm"] or 0.0)):
        yield sentence(c)


def all_against(family: dict[str, Any]) -> str:
    """Compare all strategies with one thing, in one sentence."""
    groups: dict[str, list[str]] = {"above": [], "below": [], "not told from": []}
    for c in family["comparisons"]:
        group = "not told from" if ABOVE not in c["verdict"] else "above" if c["difference"]["value"] > 0 else "below"
        groups[group].append(quoted(c["a"]))
    other = AGAINST[family["name"]]
    said = "; ".join(f"{group} {other}: {', '.join(names)}" for group, names in groups.items() if names)
    return f"{said[:1].upper()}{said[1:]}."


def sentence(c: dict[str, Any]) -> str:
    """Say what a comparison found."""
    a, b, verdict = quoted(c["a"]), quoted(c["b"]), quoted(c["verdict"])
    if not c["n"] or c["difference"]["value"] is None:
        return f"{a} and {b}: {verdict}."
    d = c["difference"]
    on = f"on {c['n']} source groups"
    if ABOVE in c["verdict"]:
        by = {**d, "value": abs(d["value"])}
        if d["value"] < 0 and d["low"] is not None:
            by |= {"low": -d["high"], "high": -d["low"]}
        p = p_value(c["p_holm"])
        return f"**{verdict}**: by {quoted(estimate(by))} {on} (p {p if p.startswith('<') else f'= {p}'} after correction)."
    p = "" if c["p"] is None else f", p = {number(c['p'], 1.0)} uncorrected"
    return f"{a} and {b}: {verdict}; the difference is {quoted(estimate(d))} {on}{p}."


MOST = 40
LONGEST = 300
MEANING = {
    "not_applicable": "not applicable: the question makes no sense there; no failure",
    "undefined": "undefined: the metric has no value for such a map",
    "nan": "not a number: the metric gave none",
    "failed": "failed: an error",
    "timeout": "timeout: longer than the time limit",
    "out_of_memory": "out of memory",
}


def failures(rows: pd.DataFrame) -> str:
    """Tabulate what has no value, or say in one sentence that everything has."""
    bad = rows[(rows.part == "") & (rows.status != "ok")]
    if bad.empty:
        return "Every cell has a value.\n"
    groups = bad.groupby(["status", "metric", "reason"], sort=False, dropna=False, observed=True)
    kinds = groups.agg(
        cells=("method", "size"), methods=("method", "nunique"), clips=("clip", "nunique"), such=("method", "first")
    )
    kinds = kinds.sort_values("cells", ascending=False, kind="stable").reset_index()
    total = int((rows.part == "").sum())
    lines = [f"{len(bad)} of {total} cells have no value; the reasons, most frequent first."]
    if len(kinds) > MOST:
        lines[0] += f" {len(kinds) - MOST} more kinds are in results.csv."
    lines += ["", "| what | metric | why | cells | methods | clips | such as |", "|---|---|---|---|---|---|---|"]
    for k in kinds.head(MOST).to_dict("records"):
        texts = (MEANING.get(k["status"], k["status"]), k["metric"], str(k["reason"])[:LONGEST])
        counts = f"{k['cells']} | {k['methods']} | {k['clips']}"
        lines.append(f"| {' | '.join(quoted(str(t)) for t in texts)} | {counts} | {quoted(str(k['such']))} |")
    return "\n".join(lines) + "\n"
