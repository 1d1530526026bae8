"""Results of a benchmark that never ran: tidy rows and curves with
planted effects of known size, for the tests of statistics and report.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = (
    ("dataset", "encoder", "seed", "clip", "label", "source_group", "method", "base", "masks", "fill", "edges", "keep")
    + ("twin_of", "estimator", "n_samples", "metric", "part", "category", "direction", "view", "granularity")
    + ("evaluator_fill", "question", "value", "seconds", "status", "reason")
)  # fmt: skip
GRANULARITIES, FILLS = ("bin", "patch", "time", "frequency"), ("silence", "mean", "background")
STRATEGIES = ("random", "time", "frequency", "time_frequency")
OWN = {"random": "patch", "time": "time", "frequency": "frequency", "time_frequency": "patch"}
SKILL = {"random": 0.20, "time": 0.26, "frequency": 0.14, "time_frequency": 0.20, "energy": 0.16, "Saliency": 0.05}
ADVANTAGE = 0.15
LEVELS = {"bin": 0.0, "patch": 0.02, "time": 0.2, "frequency": -0.05}
"""What everybody gains more on evaluators of a granularity: must not help who is foreign to it."""
OTHERS = {
    "AUC": ("localisation", "up", "stem", ""),
    "AUC-region": ("localisation", "up", "region", ""),
    "PixelFlipping": ("faithfulness", "down", "own", "embedding"),
    "MaxSensitivity": ("robustness", "down", "own", ""),
    "Sparseness": ("complexity", "up", "own", ""),
    "MPRT": ("randomisation", "up", "own", ""),
}
SPREAD = {"source": 0.06, "clip": 0.03, "seed": 0.02, "rest": 0.01}


def methods(fills: tuple[str, ...] = ("silence", "mean")) -> list[dict[str, object]]:
    """Columns of each method: strategies by fill with their twins, energy, Saliency, oracle."""
    made: list[dict[str, object]] = []
    for masks, fill, twin in itertools.product(STRATEGIES, fills, (False, True)):
        base, settings = f"RELAX-{masks}", f":fill={fill}"
        common = {"masks": masks, "fill": fill, "edges": "smooth", "keep": 0.5, "estimator": "weighted"}
        name = f"{base} twin" if twin else base
        made.append(
            {"method": name + settings, "base": name, "twin_of": base + settings if twin else "", "n_samples": 300}
            | common
        )
    for name in ("energy", "Saliency", "oracle"):
        nothing = {"masks": "", "fill": "", "edges": "", "keep": np.nan, "estimator": "", "n_samples": 0}
        made.append({"method": name, "base": name, "twin_of": "", **nothing})
    return made


def gain(method: dict[str, object], granularity: str, fill: str) -> float:
    """The planted relevance gain of a method on an evaluator."""
    level = LEVELS[granularity]
    if method["twin_of"]:
        return level * 0.1
    if method["base"] == "oracle":
        return 0.5 + level
    masks = str(method["masks"])
    own = bool(masks) and (OWN[masks] == granularity or method["fill"] == fill)
    return SKILL[masks or str(method["base"])] + level + ADVANTAGE * own


def rows(
    sources: int = 30,
    clips: int = 2,
    seeds: tuple[int, ...] = (0, 1),
    encoders: tuple[str, ...] = ("vggish_mini",),
    datasets: tuple[str, ...] = ("planted",),
    fills: tuple[str, ...] = ("silence", "mean"),
    evaluators: tuple[str, ...] = FILLS,
    generator: int = 0,
) -> pd.DataFrame:
    """Tidy rows with sources, clips within them and mask seeds varying by `SPREAD`."""
    rng = np.random.default_rng(generator)
    made = []
    for dataset, encoder, method in itertools.product(datasets, encoders, methods(fills)):
        for source in range(sources):
            of_source = rng.normal(0, SPREAD["source"])
            for clip in range(clips):
                of_clip = of_source + rng.normal(0, SPREAD["clip"])
                for seed in seeds:
                    of_seed = of_clip + rng.normal(0, SPREAD["seed"])
                    cell = {
                        "dataset": dataset, "encoder": encoder, "seed": seed, "clip": f"s{source}/{clip}.wav", "label": "bird",
                        "source_group": f"s{source}", "part": "", "seconds": 0.1, "status": "ok", "reason": "", **method,
                    }  # fmt: skip
                    made += [cell | row for row in scores(method, of_seed, evaluators, rng)]
    return pd.DataFrame(made)[list(COLUMNS)]


def scores(
    method: dict[str, object], noise: float, evaluators: tuple[str, ...], rng: np.random.Generator
) -> list[dict[str, object]]:
    """One cell's metrics."""
    made: list[dict[str, object]] = []
    for view, granularity, fill in itertools.product(("embedding", "logit"), GRANULARITIES, evaluators):
        name = f"SRG-{'logit-' if view == 'logit' else ''}{granularity}-{fill}"
        facts = {"category": "faithfulness", "direction": "up", "view": view, "question": "own"}
        value = gain(method, granularity, fill) + noise + rng.normal(0, SPREAD["rest"])
        made.append({"metric": name, "granularity": granularity, "evaluator_fill": fill, "value": value, **facts})
    skill = 0.0 if method["twin_of"] else SKILL.get(str(method["masks"] or method["base"]), 0.5)
    for metric, (category, direction, question, view) in OTHERS.items():
        sign = -1 if direction == "down" else 1
        facts = {"category": category, "direction": direction, "view": view, "question": question}
        value = 0.5 + sign * (skill + noise) + rng.normal(0, SPREAD["rest"])
        made.append({"metric": metric, "granularity": "", "evaluator_fill": "", "value": value, **facts})
    return made


def as_judged(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with what stripes cannot be judged on marked as such:
    frequency stripes for maps over time, and the other way round.
    """
    stripes = {"time": "frequency", "frequency": "time"}
    blind = table.masks.map(stripes) == table.granularity
    reason = "the map is the same in every stripe: it cannot rank them"
    return table.assign(
        value=table.value.where(~blind), status=table.status.mask(blind, "undefined"), reason=table.reason.mask(blind, reason)
    )  # fmt: skip


def with_falls(table: pd.DataFrame, falls: dict[str, float]) -> pd.DataFrame:
    """The rows with gains of an encoder in units of how far its score falls,
    and parts that say so: about `falls`, a third more or less by clip.
    """
    crossed = table.metric.str.startswith("SRG-")
    scale = table.encoder.map(falls).where(crossed, 1.0)
    table = table.assign(value=table.value * scale)
    odd = pd.factorize(table["clip"])[0] % 2
    parts = table[crossed & (table.status == "ok")]
    parts = parts.assign(part="fall", value=(scale * (1 + (2 * odd - 1) / 3))[parts.index])
    return pd.concat([table, parts], ignore_index=True)


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """Flipping curves that fit the planted gains."""
    share = np.linspace(0, 1, 9)
    crossed = table[table.metric.str.startswith("SRG-") & (table.part == "") & (table.status == "ok")]
    bend = np.clip(crossed.value.to_numpy(), -0.8, 0.8)[:, None]
    made = []
    for order, sign in (("MIF", 1), ("LIF", -1)):
        fall = (1 - share) ** (1 + 2 * np.maximum(0, sign * bend))
        values = 0.4 + 0.6 * fall - sign * 0.2 * bend * np.sin(np.pi * share)
        names = ["dataset", "encoder", "seed", "clip", "method", "metric"]
        long = crossed[names].loc[crossed.index.repeat(len(share))]
        made.append(long.assign(order=order, share=np.tile(share, len(crossed)), value=values.reshape(-1)))
    return pd.concat(made, ignore_index=True)


def folder(path: Path, table: pd.DataFrame, with_curves: bool = True) -> Path:
    """Write what a run leaves behind."""
    path.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path / "results.parquet", index=False)
    if with_curves:
        curves(table).to_parquet(path / "curves.parquet", index=False)
    maps = table.drop_duplicates(["dataset", "encoder", "seed", "clip", "method"])
    seconds = np.where(maps.masks != "", 1.5, 0.02) * (1 + 0.1 * np.arange(len(maps)) / len(maps))
    maps = maps.assign(seconds=seconds)[
        ["dataset", "encoder", "seed", "clip", "method", "question", "n_samples", "seconds"]
    ]
    maps.to_parquet(path / "maps.parquet", index=False)
    run = {
        "relax_quantus": "0.1.0",
        "configuration": {
            "preset": "paper",
            "n_samples": 300,
            "fill": "silence",
            "domain": "log",
            "estimator": "weighted",
        },
        "datasets": [{"name": "planted", "classes": ["bird"], "clips": [], "notes": ["made up"], "skipped": []}],
        "head_accuracy": [{"dataset": "planted", "encoder": "vggish_mini", "value": 0.97}],
    }
    (path / "run.json").write_text(json.dumps(run))
    return path
