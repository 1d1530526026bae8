"""Use the package with its core alone, and check what it
says of what is missing: ``python tests/core_alone.py``.

Run it where ``pip install relax-quantus`` was all; `tests/test_core_alone.py` runs it where
everything else is installed, with ``--block`` and the names of what is not to be found. Needs no
pytest.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path

MISSING = '{asker}: expected {package}, got no such package; pip install "relax-quantus[{extra}]".'


class Refusing:
    """A finder that finds none of some packages."""

    def __init__(self, packages: set[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def explain_and_plot(folder: Path) -> None:
    """A recording becomes a log-mel, a map, a picture,
    and the class of a head that comes back from its file.
    """
    import numpy as np
    import soundfile
    import torch

    import relax_quantus as rq

    time_s = np.arange(2 * 16_000) / 16_000
    tones = [(0.3 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32) for hz in (400, 450, 3000, 3300)]
    for i, wave in enumerate(tones):
        soundfile.write(folder / f"{i}.wav", wave, 16_000)
    x = torch.cat([rq.load_examples(folder / f"{i}.wav") for i in range(4)])
    assert x.shape == (8, 1, 96, 64)
    encoder = rq.load_encoder("vggish_mini")
    relax = rq.RELAX(encoder, masks="time_frequency")
    e = relax.explain(x[:1], baselines="silence", n_samples=60)
    assert e.importance.shape == (1, 1, 96, 64)
    assert bool(e.importance.isfinite().all())
    e.plot().figure.savefig(folder / "map.png")
    assert (folder / "map.png").stat().st_size > 10_000
    classes, clips = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), [0, 0, 1, 1, 2, 2, 3, 3]
    head = rq.EmbeddingClassifier.fit(encoder, x, classes, class_names=["low", "high"], groups=clips)
    head.save(folder / "head.safetensors")
    again = rq.EmbeddingClassifier.load(folder / "head.safetensors", encoder)
    assert torch.equal(again(x).argmax(1), classes)
    maps = rq.explain_func(head, x[:1].numpy(), classes[:1].numpy(), masks="time", n_samples=60)
    assert maps.shape == (1, 1, 96, 64), "the explain function alone does not need Quantus"


def refusals() -> None:
    """Each thing that needs an extra says which, in one line."""
    import relax_quantus as rq
    from relax_quantus.errors import MissingDependencyError

    def check(call: Callable[[], object], asker: str, package: str, extra: str) -> None:
        said = "nothing"
        try:
            call()
        except MissingDependencyError as problem:
            said = str(problem)
        assert said == MISSING.format(asker=asker, package=package, extra=extra), said

    for name in rq.benchmark.__all__:
        check(partial(getattr, rq.benchmark, name), f"benchmark.{name}", "pandas", "bench")
    check(rq.register_with_quantus, "quantus", "quantus", "quantus")
    check(partial(rq.load_encoder, "vggish"), "encoder 'vggish'", "torchvggish", "vggish")
    assert rq.benchmark.annotations.read
    assert rq.benchmark.boxes

    from relax_quantus.__main__ import main

    told, code = io.StringIO(), None
    try:
        with contextlib.redirect_stderr(told):
            main()
    except SystemExit as end:
        code = end.code
    said = MISSING.format(asker="relax-quantus", package="typer", extra="cli")
    assert (told.getvalue(), code) == (f"error: {said}\n", 2), told.getvalue()


def main() -> None:
    """Do both, with the packages after ``--block`` out of reach."""
    if "--block" in sys.argv:
        outside = set(sys.argv[sys.argv.index("--block") + 1 :])
        sys.meta_path.insert(0, Refusing(outside))  # type: ignore[arg-type]
    del sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        explain_and_plot(Path(folder))
    refusals()
    print("with the core alone: log-mel, map, picture and head are made, and what is missing is named")


if __name__ == "__main__":
    main()
