"""``python -m benchmarks.speed``: options -> sections -> results.json and a page."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import torch
from tqdm.auto import tqdm

from benchmarks.speed.captum_peers import captum
from benchmarks.speed.equal_error import equal_error
from benchmarks.speed.gpu import gpu
from benchmarks.speed.memory import memory
from benchmarks.speed.official import official
from benchmarks.speed.overhead import overhead
from benchmarks.speed.page import page
from benchmarks.speed.record import Record
from benchmarks.speed.rows import Row
from benchmarks.speed.settings import QUICK, Settings
from relax_quantus.encoders import ENCODERS
from relax_quantus.relax.masks import STRATEGIES

SECTIONS: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "overhead": overhead,
    "official": official,
    "captum": captum,
    "equal_error": equal_error,
    "memory": memory,
    "gpu": gpu,
}


def parser() -> argparse.ArgumentParser:
    """Make the parser; options not given take the settings' defaults, or those of --quick."""
    options = argparse.ArgumentParser(
        "python -m benchmarks.speed", description="Time RELAX against its encoder and its peers."
    )
    options.add_argument("--quick", action="store_true", help="tiny sizes: does it run here?")
    options.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS)
    )
    options.add_argument(
        "--out", type=Path, default=Path("results/speed"), help="folder of results.json; other sections in it are kept"
    )
    options.add_argument("--page", type=Path, default=None, help="Markdown file to write (default: OUT/speed.md)")
    options.add_argument("--render", action="store_true", help="write the page from results.json, measure nothing")
    options.add_argument("--n-samples", type=positive, help="masks a call (3000)")
    options.add_argument("--repeats", type=positive, help="rounds of timings (7)")
    options.add_argument("--heavy-n-samples", type=positive, help="masks a call for vggish (3000)")
    options.add_argument("--heavy-repeats", type=positive, help="rounds for vggish (3)")
    options.add_argument("--encoders", nargs="+", choices=[*ENCODERS.names(), "plain"])
    options.add_argument("--masks", nargs="+", choices=STRATEGIES.names())
    options.add_argument("--estimators", nargs="+", help="weighted surrogate")
    options.add_argument("--batch", type=positive, help="clips of batched calls (8)")
    options.add_argument("--threads", type=positive, help="of torch (2)")
    options.add_argument("--data", type=Path, help="folder of recordings; without it clips are synthetic")
    options.add_argument("--clips", type=positive, help="of the error study (6)")
    options.add_argument("--seed", type=int, help="of clips and masks (0)")
    options.add_argument("--error-sizes", nargs="+", type=positive, help="numbers of masks of the error study")
    options.add_argument("--error-repeats", type=positive, help="maps a clip and number of masks (4)")
    options.add_argument("--reference-masks", type=positive, help="masks of a converged map (40000)")
    options.add_argument(
        "--memory-sizes", nargs=2, type=positive, help="few and many masks, cheap encoder (3000 100000)"
    )
    options.add_argument("--memory-mini-sizes", nargs=2, type=positive, help="the same, vggish_mini (1000 10000)")
    options.add_argument("--memory-repeats", type=positive, help="pairs of fresh processes (2)")
    options.add_argument(
        "--vggish-weights", type=Path, help="a local file; else torch.hub's cache, else random weights"
    )
    return options


def command_line(given: Sequence[str]) -> str:
    """Return what was typed, absolute paths cut to their last part."""
    return shlex.join(
        ["python", "-m", "benchmarks.speed", *(Path(g).name if Path(g).is_absolute() else g for g in given)]
    )


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {value}")
    return value


def settings_of(options: argparse.Namespace) -> Settings:
    """Make settings: the defaults, under --quick, under what was given."""
    given = {f.name: getattr(options, f.name, None) for f in fields(Settings)}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v is not None}
    return Settings(**((QUICK if options.quick else {}) | given))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the suite from the command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    settings = settings_of(options)
    torch.set_num_threads(settings.threads)
    written = options.page or options.out / "speed.md"
    record = Record(options.out, command_line(given))
    sections = [] if options.render else [name for name in SECTIONS if name in options.only]
    try:
        for name in tqdm(sections, desc="speed suite", unit="section"):
            record.section(name, settings, SECTIONS[name](settings))
    finally:
        write_page(written, record)
    print(f"{record.path} and {written}")


def write_page(path: Path, record: Record) -> None:
    """Write the page from the file, as --render would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        page(json.loads(record.path.read_text(encoding="utf-8"))) if record.path.is_file() else page(record.results),
        encoding="utf-8",
    )
