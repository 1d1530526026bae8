"""Count the files of the package that two everyday calls enter, which a reader has to follow.

    python -m benchmarks.files_entered            # both counts, each in a fresh process
    python -m benchmarks.files_entered explain    # `explain one.wav --masks time --n-samples 40`
    python -m benchmarks.files_entered attribute  # `time_frequency` masks and 200 samples

A file is entered when one of its functions runs in any thread. What runs while a module is
imported is left out, and so are lambdas and comprehensions: nobody has to look those up elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import soundfile

import relax_quantus as rq

PACKAGE = Path(rq.__file__).parent
LEFT_OUT = {"<lambda>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
SAMPLE_RATE_HZ = 16_000


@contextlib.contextmanager
def counting() -> Iterator[dict[str, Counter[str]]]:
    """Collect the package's functions that run inside the block, by file in the package."""
    entered: dict[str, Counter[str]] = {}
    imports = threading.local()

    def heed(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if code.co_name == "<module>":
            imports.depth = getattr(imports, "depth", 0) + {"call": 1, "return": -1}.get(event, 0)
        elif event == "call" and not getattr(imports, "depth", 0) and code.co_name not in LEFT_OUT:
            path = Path(code.co_filename)
            if path.is_relative_to(PACKAGE):
                entered.setdefault(path.relative_to(PACKAGE).as_posix(), Counter())[code.co_qualname] += 1

    threading.setprofile(heed)
    sys.setprofile(heed)
    try:
        yield entered
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def explain() -> dict[str, Counter[str]]:
    """Run the command `explain` on one file in this process; return what it entered.

    The command is ``relax-quantus explain one.wav --masks time --n-samples 40``.
    """
    from relax_quantus.cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "one.wav")
        soundfile.write(clip, _chirp(2.0), SAMPLE_RATE_HZ)
        arguments = ["explain", str(clip), "--out", str(Path(folder, "pictures")), "--masks", "time"]
        said, before = io.StringIO(), sys.argv
        sys.argv = ["relax-quantus", *arguments, "--n-samples", "40"]
        try:
            with counting() as entered, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                main()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"the command ended with {end.code}: {said.getvalue()}") from end
        finally:
            sys.argv = before
    return entered


def attribute() -> dict[str, Counter[str]]:
    """Run `RELAX.attribute`, ``time_frequency`` masks, two examples; return what it entered."""
    x = rq.LogMel()(_chirp(2.0))
    encoder = rq.load_encoder("vggish_mini")
    RELAX = rq.RELAX  # imported by its first use, which is not counted
    with counting() as entered:
        RELAX(encoder, masks="time_frequency").attribute(x, baselines="silence", n_samples=200)
    return entered


def _chirp(seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a quiet tone that rises from 500 to 4000 Hz, as mono samples."""
    t = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (0.2 * np.sin(2 * np.pi * (500 + 1750 * t / seconds) * t)).astype(np.float32)


WALKS: dict[str, Callable[[], dict[str, Counter[str]]]] = {"explain": explain, "attribute": attribute}


def main() -> None:
    """Print the files and functions that each call enters; a call that is named runs here."""
    for name in sys.argv[1:]:
        entered = WALKS[name]()
        print(f"{name}: {len(entered)} files, {sum(map(len, entered.values()))} functions")
        for file, functions in sorted(entered.items()):
            print(f"  {file}: {', '.join(functions)}")
    if len(sys.argv) == 1:
        for name in WALKS:
            subprocess.run([sys.executable, "-m", "benchmarks.files_entered", name], check=True)


if __name__ == "__main__":
    main()
