"""Write the texts above and under tables: what was run, on what, and how to read it.

Oriented rows and what ``run.json`` holds enter; lines of text leave. Whatever an older or another
program's ``run.json`` does not say is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LEGEND = (
    "A cell is the mean over source groups (`source_group`, what the data say belongs together) and its 95 % interval (bootstrap of whole groups). "
    "↑ higher is better, ↓ lower is better. "
    "*X − twin*: X minus its shuffled twin, the same masks with the similarities permuted, on the same clips: 0 is what no information scores. "
    "Bold: the best method of a column, only where it is better than every other one (paired Wilcoxon tests over source groups, corrected for all "
    "pairs of methods, 5 %); and *X − twin* where X is better than its twin (Holm over the column). What is not bold was not told apart."
)
SHORT_LEGEND = (
    "mean over source groups ± wider half of its 95 % interval; ↑ higher is better, ↓ lower is better; X − twin: minus the same masks with the "
    "similarities permuted, 0 is no information; bold: better than all others, or than its twin, after correction"
)
VIEWS = {
    "embedding": "scored by the similarity to the own embedding",
    "logit": "scored by the predicted class's logit",
    "probability": "scored by the class probability",
}
UNITS = {"bin": "bins", "patch": "patches", "time": "time stripes", "frequency": "frequency stripes"}
QUESTIONS = {
    "stem": "maps towards the clean stem's embedding",
    "region": "maps of an encoder shown only a known region",
}


def heading(rows: pd.DataFrame, run: dict[str, Any]) -> list[str]:
    """Say what holds for all tables."""
    lines = [*_datasets(run), *_settings(run), *_heads(run)]
    bad = rows[(rows.part == "") & ~rows.status.isin(["ok", "not_applicable"])]
    if len(bad):
        worst = ", ".join(f"{n} {status}" for status, n in bad.status.value_counts().items())
        lines.append(f"{len(bad)} cells without a value ({worst}), e.g. {bad.metric.iloc[0]}: {bad.reason.iloc[0]}")
    away = rows[(rows.status == "not_applicable") & (rows.category == "localisation")]
    away = away[away.masks != ""].drop_duplicates(["dataset", "clip"])
    return lines + [
        f"no localisation on {n} clips: {reason}" for reason, n in away.reason.value_counts().head(3).items()
    ]


def _datasets(run: dict[str, Any]) -> Iterator[str]:
    listed = run.get("datasets") or ([run["dataset"]] if run.get("dataset") else [])
    for data in listed:
        classes = ", ".join(map(str, data.get("classes", ())))
        yield f"{data.get('name', 'data')}: {len(data.get('clips', ()))} clips" + (
            f"; classes {classes}" if classes else ""
        )
        yield from (f"note: {note}" for note in data.get("notes", ()))
        yield from (f"skipped {line}" for line in data.get("skipped", ()))


def _settings(run: dict[str, Any]) -> Iterator[str]:
    c = run.get("configuration", {})
    encoders = [e.get("name", "") for e in run.get("encoders", ())] or [c[k] for k in ("encoder",) if c.get(k)]
    if encoders:
        yield f"encoder: {', '.join(map(str, encoders))}"
    words = {
        "preset": "preset {}",
        "n_samples": "N = {} masks",
        "fill": "fill {} unless named",
        "domain": "blended in {}",
        "estimator": "estimator {}",
        "seed": "data seed {}",
    }
    said = [text.format(c[key]) for key, text in words.items() if c.get(key) is not None]
    if said:
        yield ", ".join(said)


def _heads(run: dict[str, Any]) -> Iterator[str]:
    found = run.get("head_accuracy")
    if isinstance(found, int | float):
        found = [{"value": found}]
    for head in found or ():
        where = ", ".join(str(head[k]) for k in ("dataset", "encoder") if head.get(k))
        yield f"logistic head{f' on {where}' if where else ''}: {head['value']:.1%} of held-out clips right"


def caption(rows: pd.DataFrame) -> str:
    """Say what each metric of a table feeds to what, and which question the maps answered."""
    said = []
    for r in rows.drop_duplicates("metric").to_dict("records"):
        removed = (
            f"{UNITS.get(r['granularity'], r['granularity'])} replaced by {r['evaluator_fill']}"
            if r["granularity"] and r["evaluator_fill"]
            else ""
        )
        parts = [p for p in (removed, VIEWS.get(r["view"], ""), QUESTIONS.get(r["question"], "")) if p]
        if parts:
            said.append(f"{r['metric']}: {', '.join(parts)}")
    return f"{'; '.join(said)}." if said else ""
