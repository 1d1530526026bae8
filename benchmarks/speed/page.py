"""The page of figures: ``results.json`` -> Markdown, nothing measured here."""

from __future__ import annotations

from itertools import groupby
from typing import Any

TITLES = {
    "overhead": "Around the encoder",
    "official": "Against relax_xai, the same number of masks",
    "captum": "Against Captum's perturbation methods, per forward",
    "equal_error": "Against relax_xai, to equal error",
    "memory": "Memory",
    "gpu": "On a GPU",
}
LISTED = 8
"""Rows without a figure that are named one by one."""
READING = {
    "overhead": """1 is a call that costs nothing but its forwards. The forwards alone are the fastest that a scan of micro-batches and
memory formats found in the same run, of the encoder as it is (below 1: the call runs a better prepared copy of it) or with its batch
normalisations folded by hand. Batched calls take N / 8 masks, so that the number of forwards is that of one clip. Warm calls; "first" is the
first call on an encoder never seen before, everything that is tuned or prepared included.""",
    "official": """Above 1 is faster than relax_xai 0.0.5 with its defaults (batches of 100 masks, fill 0; gradients switched off for it).
Both get the same encoder object, as it is loaded. Where the processor has no bfloat16 instructions (see the machine) bfloat16 loses. A call of
this package lets the C library keep freed memory for the whole process, so relax_xai is faster beside it than it is alone.""",
    "captum": """1 is a method that costs nothing but its forwards. All explain the similarity to the clip's own embedding; KernelShap
perturbs 7 x 7 cells, FeatureAblation N - 1 groups of bins, Occlusion a window of a cell's size; all with the micro-batch that is best for the
forwards alone.""",
    "equal_error": """Each map is judged against the converged map of its own masks (relax_xai moves its lattice by pixels only, so its map
converges to another value), relative to that map's spread over bins; the noise of the converged map, long runs of `weighted`, is subtracted.
The error study runs on vggish_mini; its numbers of masks are used for the other encoders too, whose errors were not measured. N is the number
of masks at which the median clip is as well converged as with relax_xai and its largest N, and at least the smallest N studied; the time is
measured at that N. `weighted` shows how much of it the masks alone give (stripes have fewer cells to tell apart than relax_xai's lattice), the
other estimators what they add.""",
    "memory": """Peak resident memory of a fresh process, interpreter and libraries included; "pooling" is an encoder of next to no cost.""",
}


def page(results: dict[str, Any]) -> str:
    """Write the whole page."""
    sections = results["unfinished"] | results["sections"]
    lines = ["# Speed", ""]
    if not sections:
        return "\n".join([*lines, "Nothing has been measured.", ""])
    lines += [
        "Written by `python -m benchmarks.speed` from `results.json`, which holds every repetition. A figure is the median of ratios taken within",
        "a round; rounds run all arms in turn, every second one in reverse. Quartiles and extremes are over rounds, or over clips where it says so.",
        "",
    ]
    for name in [*TITLES, *(name for name in sections if name not in TITLES)]:
        if name in sections:
            lines += section(name, sections[name], name not in results["sections"])
    return "\n".join(lines).rstrip() + "\n"


def section(name: str, entry: dict[str, Any], unfinished: bool) -> list[str]:
    """Write a section: how to read it, what wrote it, a table a quantity, what has no figure."""
    lines = [f"## {TITLES.get(name, name)}", ""]
    if unfinished:
        lines += ["*Unfinished: the run ended in the middle of it.*", ""]
    if READING.get(name):
        lines += [READING[name], ""]
    lines += ["```", entry["command"], "```", "", described(entry), ""]
    measured = [row for row in entry["rows"] if row["summary"] is not None]
    quantities = list(dict.fromkeys(row["quantity"] for row in measured))
    for quantity in quantities:
        rows = [row for row in measured if row["quantity"] == quantity]
        lines += [f"**{quantity[0].upper()}{quantity[1:]}**", "", *table(rows), ""]
    missing = [row for row in entry["rows"] if row["summary"] is None]
    if missing:
        lines += ["Not measured:", ""]
        for reason, group in groupby(sorted(missing, key=reason_of), reason_of):
            where = list(dict.fromkeys(", ".join(row["labels"].values()) for row in group))
            more = f"; and {len(where) - LISTED} more" if len(where) > LISTED else ""
            lines.append(f"- {reason}: {'; '.join(where[:LISTED])}{more}")
        lines.append("")
    return lines


def reason_of(row: dict[str, Any]) -> str:
    """Return the status and the reason of a row without a figure."""
    return f"{row['status']}, {escaped(row['reason'] or 'no finite value')}"


def described(entry: dict[str, Any]) -> str:
    """Describe when, on what machine and with which sizes the suite ran."""
    machine, settings = entry["machine"], entry["settings"]
    versions = ", ".join(f"{name} {number or 'not installed'}" for name, number in machine["versions"].items())
    notes = dict.fromkeys(
        f"{row['labels']['encoder']}: {row['details']['note']}"
        for row in entry["rows"]
        if row["details"].get("note") and "encoder" in row["labels"]
    )
    load = f"{machine['load_average']} at the start, {entry.get('load_average_at_the_end', 'unknown')} at the end"
    parts = [
        f"{entry['started']}. {machine['cpu']}, {machine['logical_cpus']} logical CPUs, {settings['threads']} threads, {machine['cpu_capability']},",
        f"bfloat16 instructions: {', '.join(machine['bfloat16_instructions']) or 'none'}, GPU: {machine['gpu'] or 'none'}, load average {load}.",
        f"Python {machine['python']}, {versions}; commit {machine['commit'] or 'unknown'}.",
        f"N = {settings['n_samples']} ({settings['repeats']} rounds), vggish {settings['heavy_n_samples']} ({settings['heavy_repeats']} rounds); "
        f"clips: {settings['data'] or 'synthetic soundscapes'}.",
        *(f"{note}." for note in notes),
    ]
    return " ".join(parts)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Write one line a row: labels, median, quartiles, extremes, count, median time, aim.

    The median time is there where there is one.
    """
    labels = list(dict.fromkeys(key for row in rows for key in row["labels"]))
    with_time, with_aim = any(row["seconds"] for row in rows), any(row["aim"] for row in rows)
    head = [*labels, "median", "quartiles", "min to max", "count"]
    head += ["seconds", "against"] * with_time + ["aim", "met"] * with_aim
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        s = row["summary"]
        cells = [escaped(row["labels"].get(key, "")) for key in labels]
        cells += [f"**{figure(s['median'])}**", f"{figure(s['lower_quartile'])} to {figure(s['upper_quartile'])}"]
        cells += [f"{figure(s['minimum'])} to {figure(s['maximum'])}", str(s["count"])]
        if with_time:
            cells += [figure(median(row["seconds"])), figure(median(row["base_seconds"]))]
        if with_aim:
            cells += aim_cells(row["aim"])
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def aim_cells(aim: dict[str, Any] | None) -> list[str]:
    """Return the aim and whether the median keeps it."""
    return ["", ""] if aim is None else [f"{aim['kind']} {aim['value']:g}", "yes" if aim["met"] else "no"]


def median(values: list[float]) -> float:
    """Return the middle value, NaN of none."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return float("nan")
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def figure(value: float) -> str:
    """Write three significant digits, at most three decimals unless very small."""
    if value != value:
        return ""
    if value == 0 or abs(value) < 1e-3:
        return f"{value:.1e}" if value else "0"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def escaped(text: str) -> str:
    """Escape pipes and line breaks in a table's cell."""
    return " ".join(str(text).replace("|", "\\|").split())
