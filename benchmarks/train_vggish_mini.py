"""Train the bundled encoder: recordings -> `vggish_mini.safetensors` and its manifest.

Or cross-validate it: recordings -> figures.

    python -m benchmarks.train_vggish_mini --data FOLDER --seed 0
    python -m benchmarks.train_vggish_mini --data FOLDER --seed 0 --cross-validate

FOLDER holds ``clips.csv`` (columns file, label, source_group; sample_rate, channels, seconds and
source_encoding for the metadata control). The same seed and thread count give the same weights. One
training takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import safetensors.torch
import torch
from joblib import Parallel, delayed
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from tqdm import tqdm

from benchmarks.vggish_mini_training.evaluation import evaluate_fold, geometry, summary
from benchmarks.vggish_mini_training.fitting import Recipe, fit_encoder
from benchmarks.vggish_mini_training.recordings import Recordings, load_recordings
from relax_quantus.encoders.vggish_mini import MANIFEST, WEIGHTS, VGGishMini

ENCODERS = Path(__file__).parent.parent / "relax_quantus" / "encoders"
RESULTS = Path(__file__).parent / "vggish_mini_training" / "results.json"
THREE = ("bird", "cat", "dog")
SIX = ("bird", "cat", "dog", "sheep", "frog", "monkey")
CONTROLS = ["common_band", "quietest", "quietest_refitted", "quietest_spectrum", "metadata", "majority"]
WAYS = ["clip", "neighbour", *CONTROLS]

Rows = npt.NDArray[np.int64]


def grouped_folds(recordings: Recordings, labels: tuple[str, ...], folds: int) -> list[tuple[Rows, Rows]]:
    """Split the clips of some classes by source recording into (train, test) rows."""
    rows = np.flatnonzero(recordings.table["label"].isin(labels))
    table = recordings.table.iloc[rows]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    return [(rows[a], rows[b]) for a, b in splitter.split(rows, table["label"], table["source_group"])]


def clip_folds(recordings: Recordings, folds: int) -> list[tuple[Rows, Rows]]:
    """Split all clips by file; one source recording may then be on both sides."""
    rows = np.arange(len(recordings.labels))
    return list(StratifiedKFold(folds, shuffle=True, random_state=0).split(rows, recordings.labels))


def validate_fold(
    recordings: Recordings, train: Rows, test: Rows, recipe: Recipe, seed: int, threads: int
) -> pd.DataFrame:
    """Train an encoder without the clips in `test` and predict them.

    Classes outside the split have no clip in `test`, so all of theirs help to train the encoder;
    head and neighbours see `train` only.
    """
    torch.set_num_threads(threads)
    outside = np.setdiff1d(np.arange(len(recordings.labels)), np.union1d(train, test))
    fitted = recordings.select(np.sort(np.concatenate([train, outside])))
    encoder = fit_encoder(fitted, recipe, seed, progress=False)
    return evaluate_fold(encoder, recordings.select(train), recordings.select(test))


def cross_validate(recordings: Recordings, recipe: Recipe, seed: int, out: Path, jobs: int = 1) -> None:
    """Retrain the encoder in every fold of the three protocols.

    Predictions go to ``out.csv``, figures to `out`, tables to ``out.md``.
    """
    protocols = {
        "bird/cat/dog by source": grouped_folds(recordings, THREE, 4),
        "six classes by source": grouped_folds(recordings, SIX, 2),
        "ten classes by clip (leaky)": clip_folds(recordings, 4)[:1],
    }
    threads = torch.get_num_threads()
    work = [(name, fold, *rows) for name, folds in protocols.items() for fold, rows in enumerate(folds)]
    tasks = [delayed(validate_fold)(recordings, train, test, recipe, seed, threads) for _, _, train, test in work]
    started = time.perf_counter()
    results = Parallel(n_jobs=jobs, return_as="generator")(tasks)
    predictions = pd.DataFrame()
    for (name, fold, _, _), table in zip(work, tqdm(results, "folds", total=len(work)), strict=True):
        predictions = pd.concat([predictions, table.assign(protocol=name, fold=fold)])
        predictions.to_csv(out.with_suffix(".csv"), index=False)
    figures = {
        "seed": seed,
        "threads": threads,
        "jobs": jobs,
        "seconds": round(time.perf_counter() - started),
        "recipe": recipe.as_dict(),
        "protocols": tabulate(predictions),
    }
    out.write_text(json.dumps(figures, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(tabulate(predictions)))


def tabulate(predictions: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Summarise predictions: overall, by fold, and the quietest-frames controls.

    The controls are on clips that have a background.
    """
    out: dict[str, dict[str, Any]] = {}
    quiet = ["quietest", "quietest_refitted", "quietest_spectrum", "majority"]
    for name, table in predictions.groupby("protocol", sort=False):
        folds = [summary(part, WAYS)["accuracy"].round(4).to_dict() for _, part in table.groupby("fold")]
        out[str(name)] = {
            "all": summary(table, WAYS).round(4).to_dict("index"),
            "clips_with_background": summary(table[table["background"]], quiet).round(4).to_dict("index"),
            "folds": folds,
        }
    return out


TITLES = {
    "clip": "**Clip accuracy** (logistic head)",
    "neighbour": "Nearest neighbour, cosine",
    "common_band": "Common bandwidth: test clips cut at 3.4 kHz",
    "quietest": "Quietest 20 % of frames, same encoder and head",
    "quietest_refitted": "Quietest 20 % of frames, head fitted to quietest frames",
    "quietest_spectrum": "Quietest 20 % of frames, mean spectrum, no encoder",
    "metadata": "Metadata only (rate, channels, encoding, duration)",
    "majority": "Majority class of the training clips",
}


def markdown(protocols: dict[str, dict[str, Any]]) -> str:
    """Lay the figures out as the model card's tables."""
    header = ["| | right / clips | accuracy | Wilson 95 % | mean recall | by fold |", "|---|---|---|---|---|---|"]
    lines = []
    for name, figures in protocols.items():
        lines += [f"### {name}", "", *header]
        for way, row in figures["all"].items():
            lines.append(table_row(TITLES[way], row, [fold[way] for fold in figures["folds"]]))
        for way, row in figures["clips_with_background"].items():
            lines.append(table_row(TITLES[way] + "; clips with a background only", row, []))
        lines.append("")
    return "\n".join(lines)


def table_row(title: str, row: dict[str, float], folds: list[float]) -> str:
    """Lay out one row of a table, figures in per cent."""
    accuracy, low, high, recall = (f"{100 * row[key]:.1f}" for key in ("accuracy", "low", "high", "recall"))
    by_fold = " ".join(f"{100 * value:.1f}" for value in folds)
    return f"| {title} | {row['right']} / {row['clips']} | {accuracy} | {low} to {high} | {recall} | {by_fold} |"


def save(encoder: VGGishMini, recordings: Recordings, manifest: dict[str, object], folder: Path) -> Path:
    """Write weights (float32 safetensors) and the manifest that names their SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in encoder.state_dict().items()}
    blob = safetensors.torch.save(state)
    path = folder / WEIGHTS
    path.write_bytes(blob)
    table = recordings.table
    described = {
        "sha256": hashlib.sha256(blob).hexdigest(),
        "parameters": sum(value.numel() for value in state.values()),
        "data": {
            "clips": len(table),
            "source_groups": int(table["source_group"].nunique()),
            "minutes": round(sum(wave.numel() for wave in recordings.waves) / 16_000 / 60, 1),
            "classes": {name: int((table["label"] == name).sum()) for name in recordings.class_names},
            "origin": "Animal-Sound-Dataset, E. Sasmaz and F. B. Tek, UBMK 2018 (a selection of 665 clips)",
        },
        **manifest,
    }
    (folder / MANIFEST).write_text(json.dumps(described, indent=1) + "\n")
    return path


def train_final(recordings: Recordings, recipe: Recipe, seed: int, folder: Path) -> Path:
    """Train on every clip and save."""
    started = time.perf_counter()
    encoder = fit_encoder(recordings, recipe, seed)
    manifest = {
        "command": f"python -m benchmarks.train_vggish_mini --data FOLDER --seed {seed}",
        "seed": seed,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "training_seconds": round(time.perf_counter() - started),
        "recipe": recipe.as_dict(),
        "on_training_clips": geometry(encoder, recordings),
        "cross_validation": json.loads(RESULTS.read_text())["protocols"] if RESULTS.is_file() else None,
    }
    return save(encoder, recordings, manifest, folder)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_vggish_mini", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with clips.csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps", type=int, default=Recipe.steps, help=f"batches of {Recipe.batch} (default {Recipe.steps})"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch, in each training; the published weights were made with 1"
    )
    parser.add_argument("--jobs", type=int, default=1, help="folds trained at a time (--cross-validate)")
    parser.add_argument(
        "--out", type=Path, help="folder for weights and manifest, or the JSON file with --cross-validate"
    )
    parser.add_argument(
        "--cross-validate", action="store_true", help="retrain in every fold and write the model card's figures"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    recordings = load_recordings(options.data)
    recipe = Recipe(steps=options.steps)
    if options.cross_validate:
        cross_validate(recordings, recipe, options.seed, options.out or RESULTS, options.jobs)
    else:
        print("wrote", train_final(recordings, recipe, options.seed, options.out or ENCODERS))


if __name__ == "__main__":
    main()
