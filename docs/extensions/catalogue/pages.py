"""The text of one page an entry: masks, fills, estimators and metrics, from their registries alone.

A page has what the entry is, its formula and source, its knobs, a picture that the program draws,
and how to ask for it. A new entry gets its page by being registered; one that does not say its
formula stops the build.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from catalogue.docstrings import described, parsed
from relax_quantus.benchmark.data.datasets import DATASETS
from relax_quantus.benchmark.methods.registry import METHODS
from relax_quantus.benchmark.metrics import ARROWS, CATEGORIES, METRICS, Metric
from relax_quantus.benchmark.metrics.excluded import EXCLUDED, Excluded
from relax_quantus.benchmark.metrics.metric import cost
from relax_quantus.encoders import ENCODERS
from relax_quantus.relax.estimators import DEFAULT, ESTIMATORS
from relax_quantus.relax.fills import FILLS
from relax_quantus.relax.masks import STRATEGIES
from relax_quantus.relax.similarity import SIMILARITIES

REGISTRIES = {"masks": STRATEGIES, "fills": FILLS, "estimators": ESTIMATORS}
ASKED = {
    "masks": 'rq.RELAX(encoder, masks="{name}")                      # or masks=rq.masks.get("{name}", ...)',
    "fills": 'relax.explain(x, baselines="{name}")                   # or baselines=rq.fills.get("{name}", ...)',
    "estimators": 'rq.RELAX(encoder, estimator="{name}")             # or estimator=rq.estimators.ESTIMATORS.get("{name}", ...)',
}
OPTION = {"masks": "--masks", "fills": "--baseline", "estimators": "--estimator"}
DIRECTION = {"up": "higher is better", "down": "lower is better"}
Pages = dict[str, str]
"""Page below generated/, without its suffix -> Markdown."""


def entry_page(kind: str, name: str) -> str:
    """The page of a mask strategy, a fill or an estimator."""
    registry = REGISTRIES[kind]
    factory = registry.factory(name)
    found = described(factory)
    if ".. math::" not in found.notes:
        raise ValueError(f"{kind}: expected a formula in the Notes of {name!r}, got none; add a `.. math::` there.")
    knobs = [f"   * - ``{k.name}``\n     - ``{k.default}``\n     - {k.meaning}" for k in found.knobs]
    parts = [
        f"({kind}-{name})=\n# `{name}`",
        f"*{capital(registry.summary(name))}.*" + (" The default." if name == DEFAULT else ""),
        f"![{name}: drawn by the program](pictures/{name}.png)",
        rst("\n\n".join((found.summary, found.extended))),
        "## Formula and source",
        rst(found.notes),
        "## Knobs",
        rst(".. list-table::\n   :header-rows: 1\n\n   * - name\n     - default\n     - meaning\n" + "\n".join(knobs))
        if knobs
        else "None.",
        "## Ask for it",
        "```python\n" + re.sub(" +#", "  #", ASKED[kind].format(name=name)) + "\n```",
        f"On the command line `{OPTION[kind]} {name}`. Class: {{py:class}}`~{factory.__module__}.{factory.__qualname__}`.",
    ]
    return "\n\n".join(parts)


def capital(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def rst(text: str) -> str:
    """A block of reStructuredText within Markdown."""
    return "````{eval-rst}\n" + text.strip() + "\n````"


def families() -> dict[str, list[Metric]]:
    """Metrics by page: a crossed design is one page, every other metric has its own."""
    found: dict[str, list[Metric]] = {}
    for name in METRICS:
        metric = METRICS.get(name)
        crossed = re.fullmatch(r"(SRG(?:-logit)?)-\w+-\w+", name)
        found.setdefault(crossed[1] if crossed else name, []).append(metric)
    return found


def measured_by(metric: Metric) -> Callable[..., Any]:
    """The function that measures, without the settings bound to it."""
    return metric.measure.func if isinstance(metric.measure, partial) else metric.measure


def metric_page(name: str, members: list[Metric], meanings: dict[str, str]) -> str:
    """The page of a metric, or of the metrics that differ in shape and fill alone."""
    first = members[0]
    if not first.formula:
        raise ValueError(f"metrics: expected a formula for {name!r}, got none; give Metric(formula=...).")
    said = parsed(measured_by(first))
    rows = [
        ("category", first.category),
        ("direction", f"{DIRECTION[first.direction]}, as measured"),
        ("range", first.range),
        ("reads", f"the {first.map} map"),
        *([("scores by", first.evaluated_on)] if first.view else []),
        ("cost a clip", cost(first)),
        ("source", first.source),
        ("class in Quantus", f"`quantus.{first.quantus}`" if first.quantus else "none"),
    ]
    if len(members) == 1:
        rows.insert(3, ("configuration", first.configuration))
    parts = [
        f"(metric-{name})=\n# `{name}`",
        rst("\n".join((*said["Summary"], "", *said["Extended Summary"]))),
        table(rows),
        "## Formula",
        f"$$\n{first.formula}\n$$",
        "## A trial",
        f"![{name}: oracle, chance and anti-oracle](pictures/{name}.png)",
        f"{trial(first)} `tests/reference/metric_trials.py` has the maps and the model; the test suite wants the three in this order.",
    ]
    if name in meanings:
        parts += ["## What it means, and what it does not", meanings[name]]
    if len(members) > 1:
        parts += ["## Members", table([(f"`{m.name}`", m.configuration) for m in members], ("name", "configuration"))]
    parts += [
        "## Ask for it",
        f'```bash\nrelax-quantus bench grid.toml   # with metrics = ["{first.name}"] in grid.toml\n```',
    ]
    return "\n\n".join(parts)


def trial(metric: Metric) -> str:
    """What the three of a metric's trial are."""
    if metric.category in ("faithfulness", "localisation"):
        return (
            "Scores of a map that is right (oracle), of maps that know nothing (chance) and of one that is wrong on purpose (anti-oracle), on a "
            "model whose relevant region is planted."
        )
    return "Right and wrong have no meaning here; instead, maps of which it is known how they differ in what this metric is about."


def excluded_page(entry: Excluded) -> str:
    """The page of a metric class of Quantus that is not used."""
    return "\n\n".join(
        (
            f"(metric-{entry.name})=\n# `{entry.name}` (not used)",
            f"A {entry.category} metric of Quantus, `quantus.{entry.name}`. The benchmark does not use it:",
            f"> {entry.reason}",
            "Measured with Quantus 0.6.0 on examples (B, 1, 96, 64); `tests/test_metric_accounts.py` runs it and fails when a release changes the "
            "reason.",
        )
    )


def table(rows: list[tuple[str, str]], head: tuple[str, str] = ("", "")) -> str:
    """A Markdown table of two columns."""
    lines = [head, ("---", "---"), *((a, b.replace("|", r"\|")) for a, b in rows)]
    return "\n".join(f"| {a} | {b} |" for a, b in lines)


def meanings(page: str) -> dict[str, str]:
    """Metric -> its paragraph in metrics.md, which begins with the names it is about in bold."""
    found = {}
    section = page.partition("## What they mean, and what they do not")[2].partition("\n## ")[0]
    for paragraph in section.split("\n\n"):
        for part in re.split(r"(?m)\. (?=\*\*)|^(?=\*\*)", paragraph.strip()):
            head = re.match(r"((\*\*[\w-]+\*\*( \([^)]*\))?[ ↑↓,]*(all [↑↓]|with )?)+)", part)
            for name in re.findall(r"\*\*([\w-]+)\*\*", head[0]) if head else ():
                found.setdefault(name, re.sub(r"\]\(([\w/]+\.md)", r"](../../\1", part.strip().rstrip(".") + "."))
    return found | ({"SRG-logit": found["SRG"]} if "SRG" in found else {})


TITLES = {"masks": "Mask strategies", "fills": "Fills", "estimators": "Estimators"}


def index(kind: str) -> str:
    """The list of a registry's entries, in its order."""
    registry = REGISTRIES[kind]
    rows = [(f"[`{name}`]({name}.md)", registry.summary(name)) for name in registry]
    return f"# {TITLES[kind]}\n\n{table(rows, ('name', 'what'))}\n\n{toctree(list(registry))}"


def metrics_index() -> str:
    """The list of the metrics by category, with those of Quantus that are not used at the end."""
    parts = ["# Metrics", "One page a metric. [All of them in one table, with what they mean](../../metrics.md)."]
    for category in CATEGORIES:
        own = {name: members[0] for name, members in families().items() if members[0].category == category}
        rows = [(f"[`{name}`]({name}.md) {ARROWS[m.direction]}", first_line(measured_by(m))) for name, m in own.items()]
        parts += [f"## {category.capitalize()}", table(rows, ("metric", "what")), toctree(list(own))]
    rows = [(f"[`{entry.name}`]({entry.name}.md)", entry.reason) for entry in EXCLUDED]
    return "\n\n".join(
        [
            *parts,
            "## Not used",
            table(rows, ("class in Quantus", "why not")),
            toctree([entry.name for entry in EXCLUDED]),
        ]
    )


def names_page() -> str:
    """What else has names: similarities, encoders, the benchmark's methods and data sets."""
    kinds = {
        "Similarities": SIMILARITIES,
        "Encoders": ENCODERS,
        "Methods of the benchmark": METHODS,
        "Data sets of the benchmark": DATASETS,
    }
    parts = [
        "# More names",
        "What options and arguments take, from the registries; `relax-quantus list` prints the same.",
    ]
    for title, registry in kinds.items():
        parts += [f"## {title}", table([(f"`{name}`", registry.summary(name)) for name in registry], ("name", "what"))]
    return "\n\n".join(parts)


def first_line(function: Callable[..., Any]) -> str:
    """First line of a docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


def toctree(names: list[str]) -> str:
    """Entries for the side bar."""
    return "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```"


def all_pages(docs: Path) -> Pages:
    """Every page of the catalogue, indices included."""
    pages = {f"{kind}/{name}": entry_page(kind, name) for kind, registry in REGISTRIES.items() for name in registry}
    explained = meanings((docs / "metrics.md").read_text(encoding="utf-8"))
    pages |= {f"metrics/{name}": metric_page(name, members, explained) for name, members in families().items()}
    pages |= {f"metrics/{entry.name}": excluded_page(entry) for entry in EXCLUDED}
    pages |= {f"{kind}/index": index(kind) for kind in REGISTRIES}
    return pages | {"metrics/index": metrics_index(), "names": names_page()}
