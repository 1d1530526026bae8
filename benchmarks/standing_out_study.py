"""Measure how large an effect must be for a bin to stand out.

The rules are: among the highest fifth, or a fraction of the map's largest effect.

The truth is exact: the bundled encoder is given silence outside one box of each example, so that it
hears nothing else. A recording has 1 to 4 examples, in each of which one box is heard with
probability 3/4. Boxes are where a call dominates: real calls planted in recordings of other kinds
with ``--data FOLDER``, synthetic soundscapes without. All rules share the family-wise threshold of
chance. Run it from the repository's root::

    python -m benchmarks.standing_out_study --data FOLDER --recordings 16

Costs 3 strategies x about 2.5 examples a recording x (N + 2) encoder forwards.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.audio.reading import resample
from relax_quantus.benchmark.data.planted import mix
from relax_quantus.benchmark.data.sampling import examples_of
from relax_quantus.benchmark.data.soundscapes import class_of, dominates, soundscape
from relax_quantus.benchmark.data.synthetic_calls import SAMPLE_RATE_HZ
from relax_quantus.frontend.examples import Axis
from relax_quantus.frontend.log_mel import LogMelAxis, hz_to_mel
from relax_quantus.relax.fills import SILENCE
from relax_quantus.views.boxes import Region, regions
from relax_quantus.views.thresholds import family_wise

MASKS = ("random", "time", "time_frequency")
MOST_EXAMPLES = 4
HEARD = 0.75
LEAST_IOU = 0.3
SNR_DB = 10.0
Scene = tuple[Tensor, Tensor]
"""An example ``(1, 96, 64)`` and the box that is heard of it, bool alike."""


def share(part: float) -> Callable[[Tensor], float]:
    """Make a rule: the highest `part` of all bins."""
    return lambda centred: float(np.nanquantile(centred.numpy(), 1 - part))


def fraction(part: float) -> Callable[[Tensor], float]:
    """Make a rule: bins above `part` of the map's largest value."""
    return lambda centred: part * float(centred.nan_to_num(0).max())


RULES = {f"highest {part:.0%}": share(part) for part in (0.1, 0.2)} | {
    f"{part:g} of the largest": fraction(part) for part in (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
}


class HearsBox(nn.Module):
    """An encoder that is given silence outside one box an example; with no box, silence alone."""

    def __init__(self, encoder: nn.Module, box: Tensor) -> None:
        super().__init__()
        self.encoder, self.box = encoder, box

    def forward(self, x: Tensor) -> Tensor:
        """Embed ``(B, 1, T, F)``."""
        heard: Tensor = self.encoder(torch.where(self.box, x, SILENCE))
        return heard


def box_of(truth: Tensor) -> Tensor | None:
    """Return the smallest box around the largest connected part of a truth ``(1, T, F)``.

    None if it is tiny.
    """
    from scipy.ndimage import find_objects, label

    labels, count = label(truth[0].numpy())
    if not count:
        return None
    largest = int(np.bincount(labels.ravel())[1:].argmax())
    rows, columns = find_objects(labels)[largest]
    if rows.stop - rows.start < 5 or columns.stop - columns.start < 3:
        return None
    box = torch.zeros_like(truth)
    box[0, rows, columns] = True
    return box


def synthetic(seed: int) -> Iterator[Scene]:
    """Yield synthetic soundscapes with the box of their call."""
    index = 0
    while True:
        made = soundscape(seed, index, class_of(index))
        box = box_of(torch.from_numpy(made.truth)[None])
        if box is not None:
            yield examples_of(made.wave)[0], box
        index += 1


def planted(folder: Path, seed: int) -> Iterator[Scene]:
    """Yield calls of one subfolder planted in recordings of another, with the call's box."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix in (".wav", ".flac"))
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    while True:
        call = draw.choice(paths)
        host = draw.choice([p for p in paths if p.parent != call.parent])
        mixed = mix(_wave(call), _wave(host), rng, SNR_DB)
        if mixed is None:
            continue
        box = box_of(torch.from_numpy(dominates(mixed.stem, mixed.rest))[None])
        if box is not None:
            yield examples_of(mixed.stem + mixed.rest)[0], box


def _wave(path: Path) -> np.ndarray:
    wave, rate_hz = rq.read_audio(path)
    return resample(wave, rate_hz, SAMPLE_RATE_HZ).astype(np.float64)


@dataclass(frozen=True)
class Score:
    """Boxes of one recording: matched, found, true, and the best IoU of each true one.

    They are matched one to one at `LEAST_IOU`.
    """

    matched: int
    found: int
    true: int
    overlaps: tuple[float, ...]


def iou(a: Region, b: Region) -> float:
    """Return intersection over union of two boxes over seconds and mel."""
    sides = []
    for low, high, scaled in (("begin_s", "end_s", float), ("low_hz", "high_hz", lambda hz: float(hz_to_mel(hz)))):
        (a0, a1), (b0, b1) = (tuple(scaled(getattr(r, end)) for end in (low, high)) for r in (a, b))
        sides.append((max(0.0, min(a1, b1) - max(a0, b0)), a1 - a0, b1 - b0))
    (t, at, bt), (f, af, bf) = sides
    return t * f / (at * af + bt * bf - t * f)


def scored(found: Sequence[Region], true: Sequence[Region]) -> Score:
    """Match boxes, the best pairs first."""
    pairs = sorted(((iou(f, t), i, j) for i, f in enumerate(found) for j, t in enumerate(true)), reverse=True)
    used_found, used_true = set[int](), set[int]()
    for overlap, i, j in pairs:
        if overlap >= LEAST_IOU and i not in used_found and j not in used_true:
            used_found.add(i)
            used_true.add(j)
    best = tuple(max((overlap for overlap, _, j in pairs if j == t), default=0.0) for t in range(len(true)))
    return Score(len(used_true), len(found), len(true), best)


def whole_band(true: Sequence[Region], axis: Axis) -> list[Region]:
    """Return boxes over all bands: what masks over time can find at best."""
    (whole,) = regions(np.ones((1, 1, 96, axis.bands)), 0.5, axis=axis)
    return [Region(r.begin_s, r.end_s, whole.low_hz, whole.high_hz, 1.0, r.bins) for r in true]


def explained(
    scenes: Sequence[Scene], masks: str, encoder: nn.Module, n_samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return centred values of examples ``(n, 1, T, F)`` and whether they pass chance."""
    parts = [
        rq.RELAX(HearsBox(encoder, box), masks=masks).explain(
            x[None], "silence", n_samples=n_samples, seed=seed, null=True
        )
        for x, box in scenes
    ]
    least_z = family_wise(torch.cat([e.null_maxima for e in parts if e.null_maxima is not None]))
    centred, z, deaf = (torch.cat(v) for v in zip(*((e.centred(), e.z(), e.hears_nothing) for e in parts), strict=True))
    return centred, (centred > 0) & (z.abs() > least_z) & ~deaf[:, None, None, None]


def measure(scenes: Iterator[Scene], recordings: int, n_samples: int, seed: int) -> dict[str, dict[str, list[Score]]]:
    """Score every rule under every strategy on so many recordings."""
    encoder, axis, draw = rq.load_encoder("vggish_mini"), LogMelAxis(), random.Random(seed)
    found: dict[str, dict[str, list[Score]]] = {masks: {rule: [] for rule in RULES} for masks in MASKS}
    for number in range(recordings):
        some = [next(scenes) for _ in range(1 + number % MOST_EXAMPLES)]
        heard = [draw.random() < HEARD or len(some) == 1 for _ in some]
        some = [(x, box & is_heard) for (x, box), is_heard in zip(some, heard, strict=True)]
        boxes = torch.stack([box for _, box in some]).double().numpy()
        true = [
            r
            for i, b in enumerate(boxes)
            for r in regions(b[None], 0.5, axis=LogMelAxis(start_s=0.96 * i), least_bins=1)
        ]
        for masks in MASKS:
            centred, passes = explained(some, masks, encoder, n_samples, seed + number)
            for name, rule in RULES.items():
                kept = torch.where(passes, centred, torch.nan)
                boxed = regions(kept, rule(centred), axis=axis)
                found[masks][name].append(scored(boxed, whole_band(true, axis) if masks == "time" else true))
        print(f"{number + 1} of {recordings}", flush=True)
    return found


def summary(scores: Sequence[Score]) -> dict[str, float]:
    """Return F1 over all boxes, boxes a recording, and the mean best IoU of true boxes."""
    matched, found, true = (sum(getattr(s, k) for s in scores) for k in ("matched", "found", "true"))
    overlaps = [o for s in scores for o in s.overlaps]
    return {
        "F1": 2 * matched / max(1, found + true),
        "IoU": float(np.mean(overlaps)),
        "boxes a recording": found / len(scores),
    }


def main() -> None:
    """Run the study from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=None, help="folder of recordings, one subfolder a kind")
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--n-samples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the results")
    options = parser.parse_args()
    scenes = synthetic(options.seed) if options.data is None else planted(options.data, options.seed)
    found = measure(scenes, options.recordings, options.n_samples, options.seed)
    table = {rule: {masks: summary(found[masks][rule]) for masks in MASKS} for rule in RULES}
    print("rule                 " + "".join(f"{masks:>26}" for masks in MASKS) + "        mean F1   mean IoU")
    for rule, row in table.items():
        cells = "".join(f"   F1 {v['F1']:.2f} IoU {v['IoU']:.2f} ({v['boxes a recording']:4.1f})" for v in row.values())
        means = (float(np.mean([v[k] for v in row.values()])) for k in ("F1", "IoU"))
        print(f"{rule:21}{cells}" + "".join(f"{mean:11.3f}" for mean in means))
    if options.out is not None:
        settings = {"source": "synthetic" if options.data is None else "planted"}
        settings |= {k: getattr(options, k) for k in ("recordings", "n_samples", "seed")}
        options.out.write_text(json.dumps({"settings": settings, "results": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
