"""Measure what fine-tuning gains on clips of held-out sources, with controls.

Clips are named with the frozen and with the fine-tuned encoder.

    python -m benchmarks.fine_tuning_study --data FOLDER
    python -m benchmarks.fine_tuning_study --data FOLDER --bases FOLDER --train-bases
        --only-folds 0 1

FOLDER holds ``clips.csv`` as for `benchmarks.train_vggish_mini`. In each outer fold whole sources
are held out; encoder and head are fine-tuned on the rest, exactly as
``relax-quantus fit --fine-tune`` does. The bundled encoder has heard every recording, those of the
fold too; `--bases` starts from encoders that have not.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest
from torch import Tensor, nn

from benchmarks.train_vggish_mini import THREE, Rows, grouped_folds
from benchmarks.vggish_mini_training.evaluation import Clips, examples_of, has_background, quietest, summary
from benchmarks.vggish_mini_training.fitting import Recipe, fit_encoder
from benchmarks.vggish_mini_training.recordings import Recordings, load_recordings
from relax_quantus.base.networks import embed_all
from relax_quantus.encoders import load_encoder
from relax_quantus.encoders.vggish_mini import VGGishMini
from relax_quantus.frontend.log_mel import LogMel
from relax_quantus.heads.fine_tuning import fine_tune
from relax_quantus.heads.holding_out import Labelled
from relax_quantus.heads.logistic import Floats, Ints, fit_logistic, group_codes
from relax_quantus.heads.training import Settings

RESULTS = Path(__file__).parent / "fine_tuning_study.json"
WAYS = {
    "clip": "Clip accuracy",
    "quietest": "Quietest 20 % of frames, same encoder and head",
    "quietest_refitted": "Quietest 20 % of frames, head fitted to quietest frames",
}
RESAMPLES = 10_000


class Part:
    """Some clips of the data as examples, at most `most` a clip; labels count in `names`.

    The examples of a clip are evenly spread.
    """

    def __init__(self, recordings: Recordings, rows: Rows, names: list[str], most: int | None) -> None:
        front_end = LogMel()
        self.table = recordings.table.iloc[rows]
        self.labels = np.array([names.index(label) for label in self.table["label"]])
        whole = [examples_of(recordings.waves[row], front_end) for row in rows]
        self.background = [has_background(x) for x in whole]
        self.quiet = [thinned(quietest(x), most) for x in whole]
        self.examples = [thinned(x, most) for x in whole]
        self.names = names

    def labelled(self, examples: list[Tensor]) -> Labelled:
        """Give each example the label, source and number of its clip."""
        clip = self.clip(examples)
        groups = group_codes(self.table["source_group"].to_numpy()[clip], len(clip))
        return Labelled(torch.cat(examples), self.labels[clip], groups, clip, self.names)

    def clip(self, examples: list[Tensor]) -> Ints:
        """The clip of each example."""
        return np.repeat(np.arange(len(examples)), [len(x) for x in examples])


def thinned(x: Tensor, most: int | None) -> Tensor:
    """Keep at most `most` of the examples ``(n, 1, 96, 64)``, evenly spread."""
    if most is None or len(x) <= most:
        return x
    return x[torch.linspace(0, len(x) - 1, most + 2)[1:-1].round().long()]


def embedded(encoder: nn.Module, x: Tensor) -> Floats:
    """Return embeddings ``(n, D)`` in float64."""
    return np.asarray(embed_all(encoder, x).double().numpy())


def named(encoder: nn.Module, train: Part, test: Part, h: Floats, C: float | None) -> dict[str, Ints]:
    """Name the test clips in every way of `WAYS`; h: the training examples' embeddings."""
    data, quiet = train.labelled(train.examples), train.labelled(train.quiet)
    weight, bias, chosen = fit_logistic(h, data.labels, data.codes, C)
    h_quiet = embedded(encoder, quiet.x)
    refitted = fit_logistic(h_quiet, quiet.labels, quiet.codes, chosen.C)

    def predicted(examples: list[Tensor], weight: Floats, bias: Floats) -> Ints:
        h = embedded(encoder, torch.cat(examples))
        probabilities = torch.from_numpy(h @ weight.T + bias).softmax(1).numpy()
        return np.asarray(Clips(h, test.clip(examples), test.labels).mean(probabilities).argmax(1))

    return {
        "clip": predicted(test.examples, weight, bias),
        "quietest": predicted(test.quiet, weight, bias),
        "quietest_refitted": predicted(test.quiet, refitted[0], refitted[1]),
    }


def study_fold(
    base: nn.Module, train: Part, test: Part, epochs: int, seed: int
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Name the test clips with the frozen and the fine-tuned encoder, one row a clip.

    How fine-tuning went is returned, too.
    """
    started = time.perf_counter()
    data = train.labelled(train.examples)
    h = embedded(base, data.x)
    tuned, record, C = fine_tune(base, data, h, Settings(epochs, seed=seed, show_progress=True))
    seconds = round(time.perf_counter() - started)
    found = {
        "frozen": named(base, train, test, h, None),
        "tuned": named(tuned, train, test, embedded(tuned, data.x), C),
    }
    found["kept"] = found["frozen" if record.kept == "frozen" else "tuned"]
    rows = test.table[["file", "label", "source_group"]].assign(background=test.background)
    names = np.asarray(train.names)
    rows = rows.assign(**{f"{way}_{which}": names[found[which][way]] for which in found for way in WAYS})
    return rows, {**vars(record), "seconds": seconds}


def base_without(recordings: Recordings, test: Rows, path: Path, train: bool, seed: int) -> VGGishMini:
    """Load the encoder that has not heard the clips `test`, or train and save it."""
    if train and not path.is_file():
        others = np.setdiff1d(np.arange(len(recordings.labels)), test)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(fit_encoder(recordings.select(others), Recipe(), seed).state_dict(), path)
    model = VGGishMini()
    model.load_state_dict(load_file(path))
    return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def difference(table: pd.DataFrame, way: str, which: str, seed: int) -> dict[str, float]:
    """Compare a way's accuracy with the frozen encoder's, clip by clip.

    Paired difference, percentile interval over resampled sources, exact McNemar test.
    """
    right = {kind: table[f"{way}_{kind}"] == table["label"] for kind in ("frozen", which)}
    gain = right[which].astype(int) - right["frozen"].astype(int)
    by_source = (
        pd.DataFrame({"gain": gain, "group": table["source_group"]}).groupby("group")["gain"].agg(["sum", "size"])
    )
    draws = np.random.default_rng(seed).integers(len(by_source), size=(RESAMPLES, len(by_source)))
    sums, sizes = by_source["sum"].to_numpy()[draws], by_source["size"].to_numpy()[draws]
    low, high = np.quantile(sums.sum(1) / sizes.sum(1), [0.025, 0.975])
    better, worse = int((gain > 0).sum()), int((gain < 0).sum())
    p = binomtest(better, better + worse).pvalue if better + worse else 1.0
    return {
        "difference": float(gain.mean()),
        "low": low,
        "high": high,
        "better": better,
        "worse": worse,
        "mcnemar_p": p,
    }


def tabulate(predictions: pd.DataFrame, seed: int) -> dict[str, dict[str, object]]:
    """Tabulate every way on all clips, and the quietest frames on clips with a background."""
    out: dict[str, dict[str, object]] = {}
    tables = {"": predictions, "; clips with a background only": predictions[predictions["background"]]}
    for suffix, table in tables.items():
        for way, title in WAYS.items():
            if suffix and way == "clip":
                continue
            columns = [f"{way}_{which}" for which in ("frozen", "tuned", "kept")]
            figures = summary(table, columns).round(4).to_dict("index")
            row: dict[str, object] = {which: figures[f"{way}_{which}"] for which in ("frozen", "tuned", "kept")}
            for which in ("tuned", "kept"):
                gain = difference(table, way, which, seed)
                row[f"{which}_minus_frozen"] = {key: round(value, 4) for key, value in gain.items()}
            out[title + suffix] = row
    return out


def markdown(figures: dict[str, dict[str, object]]) -> str:
    """Lay the figures out for the documentation, in per cent."""
    lines = [
        "| | frozen | fine-tuned | difference, points | McNemar p | as kept by `fit` |",
        "|---|---|---|---|---|---|",
    ]
    for title, row in figures.items():
        cells = []
        for which in ("frozen", "tuned", "kept"):
            f = row[which]
            assert isinstance(f, dict)
            cells.append(
                f"{f['right']:.0f}/{f['clips']:.0f} = {100 * f['accuracy']:.1f} ({100 * f['low']:.1f} to {100 * f['high']:.1f})"
            )
        d = row["tuned_minus_frozen"]
        assert isinstance(d, dict)
        gain = f"{100 * d['difference']:+.1f} ({100 * d['low']:+.1f} to {100 * d['high']:+.1f})"
        lines.append(f"| {title} | {cells[0]} | {cells[1]} | {gain} | {d['mcnemar_p']:.3g} | {cells[2]} |")
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fine_tuning_study", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with clips.csv")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--only-folds", type=int, nargs="+", help="numbers of the folds to do (default all)")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--examples-per-clip", type=int, default=2, help="at most, evenly spread")
    parser.add_argument("--classes", nargs="+", default=list(THREE))
    parser.add_argument(
        "--bases", type=Path, help="folder of encoders fold0.safetensors ... that have not heard the fold's clips"
    )
    parser.add_argument("--train-bases", action="store_true", help="train those that are missing (minutes each)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = parse(arguments)
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(options.threads)
    recordings = load_recordings(options.data)
    tables, courses, started = [], {}, time.perf_counter()
    for k, (train, test) in enumerate(grouped_folds(recordings, tuple(options.classes), options.folds)):
        if options.only_folds is not None and k not in options.only_folds:
            continue
        if options.bases is None:
            base = load_encoder("vggish_mini")
        else:
            path = options.bases / f"fold{k}.safetensors"
            base = base_without(recordings, test, path, options.train_bases, options.seed)
        parts = [Part(recordings, rows, sorted(options.classes), options.examples_per_clip) for rows in (train, test)]
        table, courses[k] = study_fold(base, parts[0], parts[1], options.epochs, options.seed)
        tables.append(table.assign(fold=k))
        print(k, courses[k], flush=True)
    predictions = pd.concat(tables)
    predictions.to_csv(options.out.with_suffix(".csv"), index=False)
    settings = {
        "base": "bundled; has heard the held-out recordings"
        if options.bases is None
        else "trained without the fold's clips",
        **{
            key: getattr(options, key)
            for key in ("classes", "folds", "only_folds", "epochs", "seed", "threads", "examples_per_clip")
        },
    }
    figures = tabulate(predictions, options.seed)
    result = {**settings, "seconds": round(time.perf_counter() - started), "fine_tuning": courses, "figures": figures}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(figures))


if __name__ == "__main__":
    main()
